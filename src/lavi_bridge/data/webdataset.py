"""WebDataset shards in img2dataset's layout, read by position: no streaming, no lost order."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from lavi_bridge.data.base import SUFFIXES, BadImage, Listed, texts_of
from lavi_bridge.errors import BridgeError
from lavi_bridge.progress import progress

CAPTION_KEYS = ("caption", "captions", "text")


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
        shards = sorted(place.glob("*.tar")) if place.is_dir() else [place]
        self.rows: list[tuple[_Member, Sequence[str]]] = []
        for shard in progress(shards, desc="reading shards", unit="shard", disable=len(shards) < 8):
            self.rows += _samples(shard)
        if not self.rows:
            raise BridgeError(f"'{place}' holds no captioned images")

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self, index: int) -> Sequence[str]:
        return self.rows[index][1]

    def where(self, index: int) -> str:
        member = self.rows[index][0]
        return f"{member.shard}:{member.name}"

    def _open(self, index: int) -> tuple[Path | IO[bytes], str]:
        member = self.rows[index][0]
        if not member.size:
            raise BadImage(f"{self.where(index)}: the image is empty (0 bytes)")
        try:
            return io.BytesIO(_bytes(member)), member.name
        except OSError as error:
            raise BadImage(f"{self.where(index)}: {error.strerror}") from error


def _samples(shard: Path) -> Iterator[tuple[_Member, Sequence[str]]]:
    images: dict[str, _Member] = {}
    captions: dict[str, dict[str, _Member]] = {}
    for member in _members(shard):
        path = PurePosixPath(member.name)
        stem, _, suffix = path.name.partition(".")  # webdataset's rule: up to the first dot
        key = str(path.with_name(stem))
        if f".{suffix.lower()}" in SUFFIXES:
            images[key] = member
        elif suffix.lower() in ("txt", "json"):
            captions.setdefault(key, {})[suffix.lower()] = member
    for key, image in images.items():
        texts = _captions(captions.get(key, {}))
        if not texts:
            raise BridgeError(f"{shard}:{image.name}: no caption (.txt, or .json with 'caption')")
        yield image, texts


def _members(shard: Path) -> Iterator[_Member]:
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                if entry.isdir():
                    continue
                path = PurePosixPath(entry.name)
                if path.is_absolute() or ".." in path.parts:
                    raise BridgeError(f"{shard}: member '{entry.name}' leaves the shard; refused")
                if entry.isreg():
                    yield _Member(shard, entry.name, entry.offset_data, entry.size)
            end = max((m.offset_data + m.size for m in archive.getmembers()), default=0)
    except (tarfile.TarError, OSError) as error:
        raise BridgeError(f"{shard} is no whole tar file ({error})") from error
    if shard.stat().st_size < end:
        raise BridgeError(f"{shard} is cut short; fetch it again")


def _captions(files: dict[str, _Member]) -> list[str]:
    for kind in ("txt", "json"):
        if kind not in files:
            continue
        where = f"{files[kind].shard}:{files[kind].name}"
        try:
            text = _bytes(files[kind]).decode("utf-8-sig")
            found = json.loads(text) if kind == "json" else {"text": text}
            values = [found[key] for key in CAPTION_KEYS if key in found]
        except UnicodeDecodeError as error:
            raise BridgeError(f"{where}: not UTF-8 text") from error
        except (ValueError, TypeError) as error:
            raise BridgeError(f"{where}: not a JSON object") from error
        for value in values:
            if texts := texts_of(value):
                return texts
    return []


def _bytes(member: _Member) -> bytes:
    with member.shard.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)
