"""WebDataset shards in img2dataset's layout, read by position: no streaming, no lost order."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from lavi_bridge.data.base import SUFFIXES, BadImage, Captions, Listed, Strings, texts_of
from lavi_bridge.errors import BridgeError
from lavi_bridge.progress import progress

CAPTION_KEYS = ("caption", "captions", "text")
TEXTS = ("txt", "json")
"""Suffixes of captions, the preferred first."""


@dataclass(frozen=True)
class _Member:
    shard: Path
    name: str
    offset: int
    size: int


class WebDataset(Listed):
    """`.tar` shards whose members share a stem: an image with a .txt or .json (or both) each.

    Headers are read once; afterwards every sample is one seek away, so the shards can be shuffled
    as a whole and a run can go on at any sample. Captions come from the .txt, else from the
    .json's "caption".

    Raises:
        BridgeError: no shard, a shard that is no tar or is cut short, a member that leaves the
            shard by its name, or an image without caption.
    """

    def __init__(self, place: Path) -> None:
        self.shards = sorted(place.glob("*.tar")) if place.is_dir() else [place]
        bar = progress(self.shards, desc="reading shards", unit="shard",
                       disable=len(self.shards) < 8)  # fmt: skip
        rows = [(number, *sample) for number, shard in enumerate(bar) for sample in _samples(shard)]
        if not rows:
            raise BridgeError(f"'{place}' holds no captioned images")
        self._names = Strings(member.name for _, member, _ in rows)
        self._captions = Captions(texts for _, _, texts in rows)
        # of each sample: number of its shard, offset and size in it
        self._spots = np.array([(n, m.offset, m.size) for n, m, _ in rows], np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def texts(self, index: int) -> Sequence[str]:
        return self._captions[index]

    def where(self, index: int) -> str:
        return f"{self.shards[self._spots[index, 0]]}:{self._names[index]}"

    def _open(self, index: int) -> tuple[Path | IO[bytes], str]:
        shard, offset, size = self._spots[index].tolist()
        member = _Member(self.shards[shard], self._names[index], offset, size)
        if not member.size:
            raise BadImage(f"{self.where(index)}: the image is empty (0 bytes)")
        try:
            return io.BytesIO(_bytes(member)), member.name
        except OSError as error:
            raise BadImage(f"{self.where(index)}: {error.strerror}") from error


def _samples(shard: Path) -> Iterator[tuple[_Member, Sequence[str]]]:
    images: dict[str, _Member] = {}
    captions: dict[str, dict[str, tuple[str, bytes]]] = {}
    for member, content in _members(shard):
        path = PurePosixPath(member.name)
        key, suffix = _split(path)
        if content is not None:
            captions.setdefault(key, {})[suffix] = member.name, content
        elif f".{suffix}" in SUFFIXES:
            images[key] = member
    for key, image in images.items():
        texts = _captions(shard, captions.get(key, {}))
        if not texts:
            raise BridgeError(f"{shard}:{image.name}: no caption (.txt, or .json with 'caption')")
        yield image, texts


def _split(path: PurePosixPath) -> tuple[str, str]:
    """What a sample's members share, and the suffix: webdataset splits at the first dot."""
    stem, _, suffix = path.name.partition(".")
    return str(path.with_name(stem)) if stem else str(path), suffix.lower()


def _members(shard: Path) -> Iterator[tuple[_Member, bytes | None]]:
    """Every file of a shard in one pass, with the content of those that hold captions."""
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                if entry.isdir():
                    continue
                path = PurePosixPath(entry.name)
                if path.is_absolute() or ".." in path.parts:
                    raise BridgeError(f"{shard}: member '{entry.name}' leaves the shard; refused")
                if not entry.isreg():
                    continue
                file = archive.extractfile(entry) if _split(path)[1] in TEXTS else None
                content = file.read() if file else None
                yield _Member(shard, entry.name, entry.offset_data, entry.size), content
            end = max((m.offset_data + m.size for m in archive.getmembers()), default=0)
    except (tarfile.TarError, OSError) as error:
        raise BridgeError(f"{shard} is no whole tar file ({error})") from error
    if shard.stat().st_size < end:
        raise BridgeError(f"{shard} is cut short; fetch it again")


def _captions(shard: Path, files: dict[str, tuple[str, bytes]]) -> list[str]:
    for kind in TEXTS:
        if kind not in files:
            continue
        name, content = files[kind]
        try:
            text = content.decode("utf-8-sig")
            found = json.loads(text) if kind == "json" else {"text": text}
            values = [found[key] for key in CAPTION_KEYS if key in found]
        except UnicodeDecodeError as error:
            raise BridgeError(f"{shard}:{name}: not UTF-8 text") from error
        except (ValueError, TypeError) as error:
            raise BridgeError(f"{shard}:{name}: not a JSON object") from error
        for value in values:
            if texts := texts_of(value):
                return texts
    return []


def _bytes(member: _Member) -> bytes:
    with member.shard.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)
