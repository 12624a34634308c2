"""Which files below a folder are data, what other files are, and what is left out of a data set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
"""Endings of pictures; each must have a caption."""
NEEDS_MORE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow knows by name, but leaves to other programs."""
HIDDEN = ".", "__MACOSX"
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
ARCHIVES = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a rar archive"}
TABLES = b"PAR1", b"ARROW1"
OTHER = {".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".parquet", ".arrow"}
"""Suffixes of files that hold data of some other kind."""
WIDE = b"\xff\xfe", b"\xfe\xff"
"""What text in UTF-16 begins with."""


class LeftOut:
    """What is in no sample of a data set: how much, and the first names, by reason."""

    NAMED = 3

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: object) -> None:
        """Count one more."""
        self._counts[reason] += 1
        names = self._names.setdefault(reason, [])
        if len(names) < self.NAMED:
            names.append(f"'{name}'")

    def lines(self) -> list[str]:
        """A line for each reason."""
        return [
            f"{reason}: {count:,} ({', '.join(self._names[reason])}"
            + (", …)" if count > self.NAMED else ")")
            for reason, count in self._counts.items()
        ]


def left_out(source: Any) -> list[str]:
    """What a source has left out, a line for each reason; nothing where it does not say."""
    return list(source.left_out()) if hasattr(source, "left_out") else []


@cache
def rarer() -> frozenset[str]:
    """Suffixes of the other pictures that Pillow reads by itself; read where they have a caption,
    as .ico or .psd files often lie beside the pictures."""
    known = Image.registered_extensions()
    reads = (Image.OPEN.keys() | {"MPO"}) - NEEDS_MORE
    return frozenset(suffix for suffix, kind in known.items() if kind in reads) - SUFFIXES


def is_picture(suffix: str) -> bool:
    """Whether a suffix (`.png`, in lower case) is one of pictures."""
    return suffix in SUFFIXES or (suffix not in (".txt", ".json") and suffix in rarer())


def is_hidden(path: PurePath) -> bool:
    """Whether a path leads through a hidden file or folder, as macOS and notebooks leave behind."""
    return any(part.startswith(HIDDEN) for part in path.parts)


def walk(folder: Path, left: LeftOut | None = None) -> Iterator[Path]:
    """Every file below a folder that is not hidden, linked folders included, each folder once.

    Args:
        left: counts the hidden pictures, and the folders that may not be read.
    """
    left = left or LeftOut()

    def closed(error: OSError) -> None:
        left.add("folders that cannot be read", error.filename)

    links, seen = [folder], set()
    while links:  # the linked ones last: what lies below the folder itself keeps its own path
        for place, folders, names in os.walk(links.pop(0), onerror=closed):
            if (real := os.path.realpath(place)) in seen:
                folders.clear()
                continue
            seen.add(real)
            below = os.path.relpath(place, folder)
            folders.sort()
            links += [path for name in folders if (path := Path(place, name)).is_symlink()]
            hidden = below != os.curdir and is_hidden(PurePath(below))
            for name in sorted(names):
                if not hidden and not name.startswith(HIDDEN):
                    yield Path(place, name)
                elif Path(name).suffix.lower() in SUFFIXES:
                    left.add("hidden files", Path(below, name))


def stray(folder: Path, used: Container[Path], left: LeftOut) -> None:
    """Count the files below a folder that hold data, but are not in use."""
    for path in walk(folder, left):
        if path not in used and path.suffix.lower() in SUFFIXES | OTHER:
            left.add("files of another kind than the rest", path.relative_to(folder))


def is_tar(path: Path) -> bool:
    """Whether a file is, or calls itself, a tar archive."""
    return path.suffix.lower() == ".tar" or _head(path)[257:262] == b"ustar"


def wrong_kind(path: Path) -> str | None:
    """What is to be said of a file that is neither a caption file nor a shard; None of others."""
    head, suffix = _head(path), path.suffix.lower()
    for magic, name in COMPRESSED.items():
        if head.startswith(magic):
            return f"is compressed ({name}): unpack it, to .tar or .tsv"
    for magic, name in ARCHIVES.items():
        if head.startswith(magic):
            return f"is {name}: unpack it, and give the folder"
    if head.startswith(TABLES) or suffix in (".parquet", ".arrow"):
        return f"is one file of a data set: give its folder '{path.parent}'"
    if is_picture(suffix):
        return f"is one picture: give its folder '{path.parent}', or a caption file (.tsv)"
    if b"\0" in head and suffix != ".tar" and not head.startswith(WIDE):
        return "is no caption file, as it is no text"
    return None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)
