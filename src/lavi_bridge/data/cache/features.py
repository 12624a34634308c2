"""Encoded captions on disk, for a language model that does not train: it reads each once.

Like the latent cache: shards written whole or not at all, and a file that says what was encoded by
what; features of another precision are refused, as float16 and bfloat16 ones differ.
"""

from __future__ import annotations

import hashlib
import uuid
import zlib
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lavi_bridge.data.cache.latents import check_about
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import make_folder, raw_bytes
from lavi_bridge.running.run_state import write_tensors


class FeatureCache:
    """Hidden states (tokens, width) by caption; without padding where that is masked.

    Args:
        folder: is made where it does not exist.
        about: what encodes and how; all of it must be equal to what the cache says.

    Raises:
        BridgeError: the cache is of something else (the difference is named), or a shard is
            damaged.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self._handles: dict[Path, Any] = {}
        self._spots: dict[int, tuple[Path, int, int]] = {}
        self._pending: dict[int, Tensor] = {}
        make_folder(folder)
        check_about(folder, dict(about), "features")
        for path in sorted(folder.glob("*.safetensors")):
            with _reading(path), safe_open(path, framework="pt") as file:
                self._hold(path, file.get_tensor("caption"), file.get_tensor("end"))

    def __len__(self) -> int:
        return len(self._spots) + len(self._pending)

    def __contains__(self, caption: str) -> bool:
        return _key(caption) in self._spots or _key(caption) in self._pending

    def __getitem__(self, caption: str) -> Tensor:
        """A caption's hidden states.

        Raises:
            BridgeError: the shard has changed since it was written.
        """
        key = _key(caption)
        if key in self._pending:
            return self._pending[key]
        path, start, stop = self._spots[key]
        with _reading(path):
            if path not in self._handles:
                self._handles[path] = safe_open(path, framework="pt")
            file = self._handles[path]
            found: Tensor = file.get_slice("hidden")[start:stop]
            row = int(torch.searchsorted(file.get_tensor("end"), start, right=True))
            crc = int(file.get_slice("crc")[row])
        if _checksum(found) != crc:
            raise BridgeError(f"{path} is damaged (row {row}); delete it, and it is made again")
        return found

    def add(self, caption: str, hidden: Tensor) -> None:
        """Keep a caption's hidden states; they are on disk after the next `flush`."""
        if caption not in self:
            self._pending[_key(caption)] = hidden.detach().cpu()

    def waiting(self) -> int:
        """Captions that are not on disk yet."""
        return len(self._pending)

    def flush(self) -> None:
        """Write what was added as a new shard; none is ever replaced.

        Raises:
            BridgeError: it cannot be written, on a full disk say.
        """
        if not self._pending:
            return
        rows = list(self._pending.values())
        captions = torch.tensor(list(self._pending))
        ends = torch.tensor([len(row) for row in rows]).cumsum(0)
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        crcs = torch.tensor([_checksum(row) for row in rows])
        tensors = {"hidden": torch.cat(rows), "caption": captions, "end": ends, "crc": crcs}
        write_tensors(tensors, path)
        self._hold(path, captions, ends)
        self._pending.clear()

    def _hold(self, path: Path, captions: Tensor, ends: Tensor) -> None:
        starts = [0, *ends.tolist()]
        for key, start, stop in zip(captions.tolist(), starts, ends.tolist(), strict=False):
            self._spots[key] = (path, start, stop)


def padded(rows: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """Hidden states (tokens, width) each -> (batch, length, width), and the mask of real tokens."""
    # rows may be in 16 bits or in 32, as their numbers allowed
    dtype = reduce(torch.promote_types, (row.dtype for row in rows))
    hidden = torch.zeros(len(rows), length, rows[0].shape[1], dtype=dtype)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for number, row in enumerate(rows):
        hidden[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return hidden, mask


def _key(caption: str) -> int:
    return int.from_bytes(hashlib.sha256(caption.encode()).digest()[:8], "big", signed=True)


def _checksum(hidden: Tensor) -> int:
    return zlib.crc32(raw_bytes(hidden))


class _reading:
    """Names the file where reading it fails."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, SafetensorError | OSError):
            raise BridgeError(
                f"{self.path} is damaged ({error}); delete it, and it is made again"
            ) from error
