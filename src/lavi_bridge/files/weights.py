"""A checkpoint's weights on disk: which files hold them, and a fingerprint of what they hold.

A fingerprint tells models apart, not ways to store one: the same tensors in other shards, in the
other file format, or beside a config that was written anew have the same.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lavi_bridge.errors import BridgeError, first_line
from lavi_bridge.files.atomic import raw_bytes
from lavi_bridge.files.locate import Place

KINDS = (
    ("model", "safetensors"),
    ("diffusion_pytorch_model", "safetensors"),
    ("pytorch_model", "bin"),
    ("diffusion_pytorch_model", "bin"),
)
"""Names and formats of weights, in the order in which the libraries prefer them."""
VARIANTS = ("fp16", "bf16")
"""Taken, in this order, where there is nothing else (`model.fp16.safetensors`)."""
HEAD = 4096
"""Bytes of each tensor that are read."""
NOTES = {
    "transformers_version",
    "_diffusers_version",
    "_name_or_path",
    "_commit_hash",
    "architectures",
    "torch_dtype",
    "dtype",
}
"""Keys of a config that say who wrote it, and not what the model is."""
DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}
"""torch's names -> those of safetensors."""


class Fingerprint(str):
    """Hex digits that identify weights, and those that commit 23aaa31 had for them."""

    _earlier: Callable[[], str] | None

    def __new__(cls, digits: str, earlier: Callable[[], str] | None = None) -> Fingerprint:
        made = super().__new__(cls, digits)
        made._earlier = earlier
        return made

    @property
    def earlier(self) -> str:
        """What commit 23aaa31 wrote down; these digits where it could not have read the files."""
        with suppress(BridgeError):
            return self._earlier() if self._earlier else str(self)
        return str(self)


def earlier(record: Any) -> Any:
    """A JSON-like record as commit 23aaa31 would have written it, with its fingerprints."""
    if isinstance(record, Fingerprint):
        return record.earlier
    if isinstance(record, dict):
        return {key: earlier(value) for key, value in record.items()}
    return [earlier(value) for value in record] if isinstance(record, list | tuple) else record


def joined(*parts: str, digits: int = 16) -> Fingerprint:
    """The fingerprint of several things together."""

    def digest(parts: tuple[str, ...]) -> str:
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:digits]

    return Fingerprint(digest(parts), lambda: digest(tuple(map(earlier, parts))))


def fingerprint(folder: Path) -> Fingerprint:
    """Identify the weights in a folder without reading them all.

    sha256 over the config without its notes, and over name, shape, dtype and first 4 KiB of every
    tensor, by name. 16 hex digits are kept. Weights in several formats count once.

    Raises:
        BridgeError: the folder holds no weights.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(json.dumps(_without_notes(config), sort_keys=True).encode())
    tensors = [tensor for path in weight_files(folder) for tensor in _tensors(path)]
    for name, shape, dtype, head in sorted(tensors):
        digest.update(f"{name} {shape} {DTYPES.get(dtype, dtype)}".encode())
        digest.update(head)
    return Fingerprint(digest.hexdigest()[:16], lambda: _before(folder))


def fingerprint_of(place: Place) -> Fingerprint:
    """Identify the weights of a model, in a folder or in one GGUF file.

    Raises:
        BridgeError: there are none, or they are damaged.
    """
    if place.gguf:
        return _gguf_fingerprint(Path(place.root, place.gguf))
    config = place.file("config.json")
    if config is None:
        raise BridgeError(f"'{place.id}' has no config.json")
    return fingerprint(config.parent)


def fingerprint_of_tensors(path: Path, prefix: str) -> Fingerprint:
    """Identify the tensors of a safetensors file whose names begin so, by the rest of their names.

    As `fingerprint` does, but for the config.
    """
    digest = hashlib.sha256()
    for name, shape, dtype, head in sorted(_tensors(path)):
        if name.startswith(prefix):
            digest.update(f"{name.removeprefix(prefix)} {shape} {dtype}".encode())
            digest.update(head)
    return Fingerprint(digest.hexdigest()[:16])


def _gguf_fingerprint(path: Path) -> Fingerprint:
    """The same of a GGUF file: name, shape, type and first bytes of every tensor."""
    reader = open_gguf(path)
    digest = hashlib.sha256()
    for tensor in sorted(reader.tensors, key=lambda tensor: str(tensor.name)):
        shape = [int(side) for side in tensor.shape]
        digest.update(f"{tensor.name} {shape} {tensor.tensor_type.name}".encode())
        digest.update(tensor.data.reshape(-1)[: HEAD // tensor.data.itemsize].tobytes())
    return Fingerprint(digest.hexdigest()[:16])


def open_gguf(path: Path) -> Any:
    """A reader of a GGUF file, which maps it into memory.

    Raises:
        BridgeError: it is damaged, or the package that reads it is missing.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise BridgeError(f"'{path}' needs gguf: pip install 'lavi-bridge[gguf]'") from error
    try:
        return GGUFReader(path)
    except (ValueError, OSError, IndexError) as error:
        raise BridgeError(f"'{path}' is no GGUF file, or damaged: {first_line(error)}") from error


def weight_files(folder: Path) -> list[Path]:
    """The files that the libraries load: one, or those that an index names.

    Raises:
        BridgeError: there are none.
    """
    for dotted in ("", *(f".{variant}" for variant in VARIANTS)):
        for stem, suffix in KINDS:
            single = folder / f"{stem}{dotted}.{suffix}"
            if single.is_file():
                return [single]
            index = folder / f"{stem}.{suffix}.index{dotted}.json"
            if index.is_file():
                found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
                return sorted({folder / name for name in found.values()})
    raise BridgeError(f"'{folder}' holds no weights (*.safetensors or *.bin)")


def _without_notes(value: Any) -> Any:
    """A config, and those inside it, without what says who wrote it."""
    if isinstance(value, dict):
        return {k: _without_notes(v) for k, v in value.items() if k not in NOTES}
    return [_without_notes(v) for v in value] if isinstance(value, list) else value


def _tensors(path: Path) -> Iterator[tuple[str, list[int], str, bytes]]:
    """Name, shape, dtype as the file's format calls it, and first bytes of each tensor, by name."""
    import torch

    if path.suffix.lower() == ".safetensors":
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            for name, entry in sorted(header.items()):
                if name == "__metadata__":
                    continue
                start, end = entry["data_offsets"]
                file.seek(8 + size + start)
                yield name, entry["shape"], entry["dtype"], file.read(min(HEAD, end - start))
    else:
        # files from before torch 1.6 are no zip archives and cannot be mapped
        mapped = zipfile.is_zipfile(path)
        found = torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
        for name, tensor in sorted(found.items()):
            if torch.is_tensor(tensor):  # some keep a number of steps beside them, say
                head = tensor.flatten()[: max(1, HEAD // tensor.element_size())]
                yield name, list(tensor.shape), str(tensor.dtype), raw_bytes(head)


# ---- commit 23aaa31


def _before(folder: Path) -> str:
    """The fingerprint of commit 23aaa31, which also told ways to store a model apart.

    What it wrote down in bridges, runs, caches and evaluations still counts.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in _files_before(folder):
        for name, shape, dtype, head in _tensors(path):
            digest.update(f"{name} {shape} {dtype}".encode())
            digest.update(head)
    return digest.hexdigest()[:16]


def _files_before(folder: Path) -> list[Path]:
    for stem, suffix in KINDS:
        pattern = re.compile(rf"{stem}(-\d{{5}}-of-\d{{5}})?\.{suffix}")
        if found := sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name)):
            return found
    raise BridgeError(f"'{folder}' holds no weights (*.safetensors or *.bin)")
