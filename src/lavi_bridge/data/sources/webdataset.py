"""WebDataset shards in img2dataset's layout, read by position: no streaming, no lost order."""

from __future__ import annotations

import copy
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from lavi_bridge.data.sources.base import BadImage, Captions, Listed, Strings, texts_of
from lavi_bridge.data.sources.finding import (
    SUFFIXES,
    LeftOut,
    is_hidden,
    is_picture,
    stray,
    wrong_kind,
)
from lavi_bridge.errors import BridgeError
from lavi_bridge.running.progress import progress

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
    .json's "caption"; a sample without one counts as a picture that cannot be read.

    Raises:
        BridgeError: no shard, a shard that is no tar or is cut short, a member that leaves the
            shard by its name, or no captioned image.
    """

    def __init__(self, place: Path) -> None:
        self.shards = shards_of(place) if place.is_dir() else [place]
        self._folder = place if place.is_dir() else None
        self._left = LeftOut()
        bar = progress(
            self.shards, desc="reading shards", unit="shard", disable=len(self.shards) < 8
        )
        rows = [
            (number, *sample)
            for number, shard in enumerate(bar)
            for sample in _samples(shard, self._left)
        ]
        if not rows:
            left = "; left out are ".join(["", *self._left.lines()])
            raise BridgeError(f"'{place}' holds no captioned images{left}")
        if not any(texts for _, _, texts in rows):
            first = f"{rows[0][1].shard}:{rows[0][1].name}"
            raise BridgeError(f"{first}: no caption (.txt, or .json with 'caption')")
        self._names = Strings(member.name for _, member, _ in rows)
        self._captions = Captions(texts for _, _, texts in rows)
        # of each sample: number of its shard, offset and size in it
        self._spots = np.array([(n, m.offset, m.size) for n, m, _ in rows], np.int64)

    def left_out(self) -> list[str]:
        """Members that are in no sample, and files beside the shards."""
        left = copy.deepcopy(self._left)
        if self._folder:
            stray(self._folder, set(self.shards), left)
        return left.lines()

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


def shards_of(folder: Path) -> list[Path]:
    """The shards in a folder, in the order of their names."""
    return sorted(path for path in folder.glob("*.tar") if not is_hidden(Path(path.name)))


def _samples(shard: Path, left: LeftOut) -> Iterator[tuple[_Member, Sequence[str]]]:
    images: dict[str, _Member] = {}
    captions: dict[str, dict[str, tuple[str, bytes]]] = {}
    for member, content in _members(shard, left):
        key, suffix = _split(PurePosixPath(member.name))
        if content is not None:
            captions.setdefault(key, {})[suffix] = member.name, content
        elif is_picture(f".{suffix}"):
            images[key], other = _preferred(member, images.get(key))
            if other and other.name != images[key].name:
                left.add("further pictures of samples", f"{shard.name}:{other.name}")
    for key, image in images.items():
        texts = _captions(shard, captions.pop(key, {}), aside=_is_aside(image))
        if texts is None:
            left.add("pictures without a caption of their own", f"{shard.name}:{image.name}")
        else:
            yield image, texts
    for files in captions.values():
        name, _ = next(iter(files.values()))
        left.add("captions without a picture that can be read", f"{shard.name}:{name}")


def _split(path: PurePosixPath) -> tuple[str, str]:
    """What a sample's members share, and the suffix. webdataset splits at the first dot; with
    pictures and captions alone it is the last, so that names may have dots (`22.05.png`)."""
    return str(path.parent / path.stem), path.suffix[1:].lower()


def _preferred(new: _Member, old: _Member | None) -> tuple[_Member, _Member | None]:
    """Which of two pictures of a sample is its own, and the other: the later of the usual kinds."""
    if old and _suffix(old) in SUFFIXES and _suffix(new) not in SUFFIXES:
        return old, new
    return new, old


def _is_aside(image: _Member) -> bool:
    """Whether a picture without caption may belong to another sample (`0001.mask.png`)."""
    return "." in PurePosixPath(image.name).stem or _suffix(image) not in SUFFIXES


def _suffix(member: _Member) -> str:
    return PurePosixPath(member.name).suffix.lower()


def _members(shard: Path, left: LeftOut) -> Iterator[tuple[_Member, bytes | None]]:
    """Every file of a shard in one pass, with the content of those that hold captions."""
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                if entry.isdir():
                    continue
                path = PurePosixPath(entry.name)
                if path.is_absolute() or ".." in path.parts:
                    raise BridgeError(f"{shard}: member '{entry.name}' leaves the shard; refused")
                suffix = path.suffix.lower()
                if is_hidden(path) or not entry.isreg():
                    if suffix in SUFFIXES:
                        kind = "hidden files" if is_hidden(path) else "links"
                        left.add(kind, f"{shard.name}:{entry.name}")
                    continue
                file = archive.extractfile(entry) if suffix[1:] in TEXTS else None
                content = file.read() if file else None
                yield _Member(shard, entry.name, entry.offset_data, entry.size), content
            end = max((m.offset_data + m.size for m in archive.getmembers()), default=0)
    except (tarfile.TarError, OSError) as error:
        if reason := wrong_kind(shard):
            raise BridgeError(f"'{shard}' {reason}") from error
        raise BridgeError(f"{shard} is no whole tar file ({error})") from error
    if shard.stat().st_size < end:
        raise BridgeError(f"{shard} is cut short; fetch it again")


def _captions(shard: Path, files: dict[str, tuple[str, bytes]], *, aside: bool) -> list[str] | None:
    """The captions in a sample's files; None where it is `aside`, and thus none of ours."""
    for kind in TEXTS:
        if kind not in files:
            continue
        name, content = files[kind]
        try:
            text = content.decode("utf-8-sig")
            found = json.loads(text) if kind == "json" else {"text": text}
            values = [found[key] for key in CAPTION_KEYS if key in found]
        except (ValueError, TypeError) as error:
            if aside:
                return None
            if isinstance(error, UnicodeDecodeError):
                raise BridgeError(f"{shard}:{name}: not UTF-8 text") from error
            raise BridgeError(f"{shard}:{name}: not a JSON object") from error
        for value in values:
            if texts := texts_of(value):
                return texts
    return None if aside else []


def _bytes(member: _Member) -> bytes:
    with member.shard.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)
