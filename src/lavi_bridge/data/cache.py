"""Encoded pictures on disk: an image model's autoencoder runs once, not at every step.

A cache is a folder of shards, each a safetensors file written whole or not at all, and
`cache.json`, which says what was encoded and how: a cache of anything else is refused. What is kept
of a picture are its posterior's mean and standard deviation, so training draws from it as if it had
encoded.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lavi_bridge.errors import BridgeError
from lavi_bridge.files import make_folder, write_text
from lavi_bridge.resume import write_tensors

ABOUT = "cache.json"
SHARD = 512
"""Pictures of a shard; what is encoded while training is written in as many."""


@dataclass(frozen=True)
class Moments:
    """An encoded picture: (channels, height, width) each; autoencoders that are not variational
    have no standard deviation."""

    mean: Tensor
    std: Tensor | None


class LatentCache:
    """Encoded pictures by sample number and orientation.

    Args:
        folder: is made where it does not exist.
        about: what is encoded and how; all of it must be equal to what the cache says.

    Raises:
        BridgeError: the cache is of something else (the difference is named), or a shard is
            damaged.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.dtype: torch.dtype = getattr(torch, str(about["dtype"]))
        self._handles: dict[str, Any] = {}
        self._pending: dict[tuple[int, bool], Moments] = {}
        make_folder(folder)
        self._check(dict(about))
        self.rows: dict[tuple[int, bool], tuple[str, int]] = {}
        """Of each (sample, mirrored) its shard and row."""
        for path in sorted(folder.glob("*.safetensors")):
            self._read(path)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, key: tuple[int, bool]) -> bool:
        return key in self.rows

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": {}}  # each process opens files of its own

    def __getitem__(self, key: tuple[int, bool]) -> Moments:
        """A picture's moments.

        Raises:
            BridgeError: the shard has changed since it was written.
        """
        name, row = self.rows[key]
        if name not in self._handles:
            self._handles[name] = safe_open(self.folder / name, framework="pt")
        file = self._handles[name]
        values = file.get_slice("moments")[row]
        if zlib.crc32(values.numpy().tobytes()) != int(file.get_slice("crc")[row]):
            raise BridgeError(
                f"{self.folder / name} is damaged (row {row}); delete it and cache again"
            )
        return Moments(*values.chunk(2)) if self._variational(file) else Moments(values, None)

    def get(self, key: tuple[int, bool]) -> Moments | None:
        """A picture's moments, also if they are not on disk yet; None where they are missing."""
        return self[key] if key in self.rows else self._pending.get(key)

    def add(self, key: tuple[int, bool], moments: Moments) -> None:
        """Keep a picture's moments; they are on disk after the next `flush`."""
        self._pending[key] = moments

    def waiting(self) -> int:
        """Pictures that are not on disk yet."""
        return len(self._pending)

    def flush(self, name: str) -> None:
        """Write what was added as shards called after `name`, one a size of picture.

        Raises:
            BridgeError: it cannot be written, on a full disk say.
        """
        by_shape: dict[tuple[int, ...], list[tuple[int, bool]]] = {}
        for key, moments in self._pending.items():
            by_shape.setdefault(tuple(moments.mean.shape), []).append(key)
        for shape, keys in by_shape.items():
            values = torch.stack([_joined(self._pending[key]) for key in keys])
            file = f"{name}-{'x'.join(map(str, shape[1:]))}.safetensors"
            crcs = [zlib.crc32(row.numpy().tobytes()) for row in values]
            tensors = {
                "moments": values,
                "index": torch.tensor([index for index, _ in keys]),
                "mirrored": torch.tensor([mirrored for _, mirrored in keys]),
                "crc": torch.tensor(crcs, dtype=torch.int64),
            }
            variational = self._pending[keys[0]].std is not None
            write_tensors(tensors, self.folder / file, {"variational": str(int(variational))})
            self.rows |= {key: (file, row) for row, key in enumerate(keys)}
        self._pending.clear()

    def missing(self, keys: Iterable[tuple[int, bool]]) -> list[tuple[int, bool]]:
        """Those that are not there yet."""
        return [key for key in keys if key not in self.rows]

    def _check(self, about: dict[str, Any]) -> None:
        path = self.folder / ABOUT
        if not path.exists():
            if next(self.folder.glob("*.safetensors"), None):
                raise BridgeError(f"'{self.folder}' holds other files; choose another folder")
            write_text(path, json.dumps(about, indent=2) + "\n")
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        wanted = json.loads(json.dumps(about))
        for key in wanted.keys() | found.keys():
            if wanted.get(key) != found.get(key):
                raise BridgeError(
                    f"the latents in '{self.folder}' were made with another {key} "
                    f"({found.get(key)} there, {wanted.get(key)} here); choose another cache, or "
                    "delete that one"
                )

    def _read(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                indices = file.get_tensor("index").tolist()
                mirrored = file.get_tensor("mirrored").tolist()
        except (SafetensorError, OSError) as error:
            raise BridgeError(f"{path} is damaged ({error}); delete it and cache again") from error
        for row, key in enumerate(zip(indices, mirrored, strict=True)):
            self.rows[key] = path.name, row

    @staticmethod
    def _variational(file: Any) -> bool:
        return bool(int((file.metadata() or {})["variational"]))


def rounded(moments: Moments, dtype: torch.dtype) -> Moments:
    """As a cache of that precision gives them back."""
    std = None if moments.std is None else moments.std.to(dtype)
    return Moments(moments.mean.to(dtype), std)


def chunks(count: int, mirrored: bool) -> list[list[tuple[int, bool]]]:
    """What makes up each shard of a whole cache."""
    sides = (False, True) if mirrored else (False,)
    keys = [(index, side) for index in range(count) for side in sides]
    return [keys[start : start + SHARD] for start in range(0, len(keys), SHARD)]


def _joined(moments: Moments) -> Tensor:
    parts: Sequence[Tensor] = [moments.mean] if moments.std is None else [moments.mean, moments.std]
    return torch.cat([part.cpu() for part in parts])
