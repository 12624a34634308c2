"""Encoded pictures on disk: an image model's autoencoder runs once, not at every step.

A cache is a folder of shards, each a safetensors file written whole or not at all, and
`cache.json`, which says what was encoded and how: a cache of anything else is refused. What is kept
of a picture are its posterior's mean and standard deviation, so training draws from it as if it had
encoded.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lavi_bridge.data.order import Sample
from lavi_bridge.data.transforms import Framing
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import make_folder
from lavi_bridge.running import claims
from lavi_bridge.running.run_state import write_tensors

ABOUT = "cache.json"
SHARD = 512
"""Pictures of a shard; what is encoded while training is written in as many."""


@dataclass(frozen=True)
class Moments:
    """An encoded picture: (channels, height, width) each; autoencoders that are not variational
    have no standard deviation."""

    mean: Tensor
    std: Tensor | None
    framing: Framing | None = None
    """How the picture was cut out; caches of earlier versions do not say."""


class LatentCache:
    """Encoded pictures by sample number and orientation.

    Args:
        folder: is made where it does not exist.
        about: what is encoded and how; all of it must be equal to what the cache says.
        count: samples of the data set.

    Raises:
        BridgeError: the cache is of something else (the difference is named), or a shard is
            damaged.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], count: int) -> None:
        self.folder = folder
        self.dtype: torch.dtype = getattr(torch, str(about["dtype"]))
        self._handles: dict[int, Any] = {}
        self._pending: dict[Sample, Moments] = {}
        self._shards: list[str] = []
        # of each (sample, mirrored) the number of its shard, -1 for none, and its row there
        self._spots = np.full((count, 2, 2), -1, np.int32)
        make_folder(folder)
        check_about(folder, dict(about), "latents")
        for path in sorted(folder.glob("*.safetensors")):
            self._read(path)

    def __len__(self) -> int:
        return int((self._spots[..., 0] >= 0).sum())

    def __contains__(self, key: Sample) -> bool:
        return bool(self._spots[key.index, int(key.mirrored), 0] >= 0)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": {}}  # each process opens files of its own

    def __getitem__(self, key: Sample) -> Moments:
        """A picture's moments.

        Raises:
            BridgeError: the shard has changed since it was written.
        """
        shard, row = self._spots[key.index, int(key.mirrored)].tolist()
        path = self.folder / self._shards[shard]
        try:
            if shard not in self._handles:
                self._handles[shard] = safe_open(path, framework="pt")
            file = self._handles[shard]
            values, crc = file.get_slice("moments")[row], int(file.get_slice("crc")[row])
            notes = file.metadata() or {}
            framed = file.get_slice("framing")[row] if "framed" in notes else None
        except (SafetensorError, OSError) as error:
            raise BridgeError(f"{path} is damaged ({error}); delete it and cache again") from error
        if _checksum(values, framed) != crc:
            raise BridgeError(f"{path} is damaged (row {row}); delete it and cache again")
        mean, std = values.chunk(2) if int(notes["variational"]) else (values, None)
        return Moments(mean, std, None if framed is None else tuple(framed.tolist()))

    def get(self, key: Sample) -> Moments | None:
        """A picture's moments, also if they are not on disk yet; None where they are missing."""
        return self[key] if key in self else self._pending.get(key)

    def add(self, key: Sample, moments: Moments) -> None:
        """Keep a picture's moments; they are on disk after the next `flush`."""
        self._pending[key] = moments

    def waiting(self) -> int:
        """Pictures that are not on disk yet."""
        return len(self._pending)

    def flush(self) -> None:
        """Write what was added as new shards, one a size of picture; none is ever replaced.

        Raises:
            BridgeError: it cannot be written, on a full disk say.
        """
        by_shape: dict[tuple[int, ...], list[Sample]] = {}
        for key, moments in self._pending.items():
            by_shape.setdefault(tuple(moments.mean.shape), []).append(key)
        for keys in by_shape.values():
            values = torch.stack([_joined(self._pending[key]) for key in keys])
            framings = [self._pending[key].framing for key in keys]
            framed = torch.tensor(framings, dtype=torch.int32) if None not in framings else None
            rows = [None] * len(keys) if framed is None else framed
            crcs = [_checksum(*row) for row in zip(values, rows, strict=True)]
            indices = torch.tensor([key.index for key in keys])
            mirrored = torch.tensor([key.mirrored for key in keys])
            tensors = {
                "moments": values,
                "index": indices,
                "mirrored": mirrored,
                "crc": torch.tensor(crcs, dtype=torch.int64),
            }
            notes = {"variational": str(int(self._pending[keys[0]].std is not None))}
            if framed is not None:
                tensors["framing"], notes["framed"] = framed, "1"
            name = f"{keys[0].index:08d}-{uuid.uuid4().hex[:12]}.safetensors"
            write_tensors(tensors, self.folder / name, notes)
            self._hold(name, indices, mirrored)
        self._pending.clear()

    def missing(self, keys: Iterable[Sample]) -> list[Sample]:
        """Those that are not there yet."""
        return [key for key in keys if key not in self]

    def _hold(self, name: str, indices: Tensor, mirrored: Tensor) -> None:
        self._shards.append(name)
        spots = np.stack([np.full(len(indices), len(self._shards) - 1), np.arange(len(indices))], 1)
        self._spots[indices.numpy(), mirrored.numpy().astype(int)] = spots

    def _read(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                indices, mirrored = file.get_tensor("index"), file.get_tensor("mirrored")
        except (SafetensorError, OSError) as error:
            raise BridgeError(f"{path} is damaged ({error}); delete it and cache again") from error
        self._hold(path.name, indices, mirrored)


def check_about(folder: Path, about: dict[str, Any], kind: str) -> None:
    """Write down what a cache holds, or compare it with what was written.

    Raises:
        BridgeError: it holds something else; the difference is named.
    """

    def free() -> None:
        if next(folder.glob("*.safetensors"), None):
            raise BridgeError(f"'{folder}' holds other files; choose another folder")

    found = claims.noted(
        folder / ABOUT, about, advice="delete that cache", at_once=True, before=free
    )
    if about.get("reading") != found.get("reading"):
        raise BridgeError(
            f"the {kind} in '{folder}' are of a version that read pictures otherwise (orientation, "
            "transparency, 16 bits); delete that folder, or choose another --cache"
        )
    if changed := claims.difference(found, about):
        raise BridgeError(
            f"the {kind} in '{folder}' were made with another {changed.key} "
            f"({changed.there} there, {changed.here} here); choose another cache, or delete "
            "that one"
        )


def chunks(count: int, mirrored: bool) -> list[list[Sample]]:
    """What makes up each shard of a whole cache."""
    sides = (False, True) if mirrored else (False,)
    keys = [Sample(index, side) for index in range(count) for side in sides]
    return [keys[start : start + SHARD] for start in range(0, len(keys), SHARD)]


def _checksum(values: Tensor, framing: Tensor | None) -> int:
    """Of one row; that of caches of earlier versions where there is no framing."""
    crc = zlib.crc32(values.numpy().tobytes())
    return crc if framing is None else zlib.crc32(framing.numpy().tobytes(), crc)


def _joined(moments: Moments) -> Tensor:
    parts: Sequence[Tensor] = [moments.mean] if moments.std is None else [moments.mean, moments.std]
    return torch.cat([part.cpu() for part in parts])
