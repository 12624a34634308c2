"""From what a user writes as `data` to a source."""

from __future__ import annotations

import re
from pathlib import Path

from lavi_bridge.data.base import Source
from lavi_bridge.data.folder import INDEX, Folder
from lavi_bridge.data.huggingface import HuggingFace
from lavi_bridge.data.mix import Mix
from lavi_bridge.data.tsv import TSV
from lavi_bridge.data.webdataset import WebDataset
from lavi_bridge.errors import BridgeError

HUB = "hf:"
WEIGHTED = re.compile(r"(?:(?P<weight>\d*\.?\d+)\s*\*\s*)?(?P<data>.+)")
KNOWN = (
    "a caption file (.tsv), a folder of images, of .tar shards or of .parquet files, "
    "hf:OWNER/NAME, or `shapes`"
)


def open_source(data: str, *, seed: int = 0) -> Source:
    """Open what `data` names; `0.6*A + 0.4*B` mixes.

    Raises:
        BridgeError: there is nothing of that name, or it is malformed.
    """
    parts = [part.strip() for part in data.split(" + ")]
    if len(parts) == 1:
        found = WEIGHTED.fullmatch(parts[0])
        return _open(found["data"] if found else data, seed)
    matches = [WEIGHTED.fullmatch(part) for part in parts]
    told = [match["weight"] for match in matches if match and match["weight"]]
    if not all(matches) or len(told) not in (0, len(parts)):
        raise BridgeError(f"'{data}': expected `0.6*FIRST + 0.4*SECOND`, or no weights at all")
    if any(float(weight) == 0 for weight in told):
        raise BridgeError(f"'{data}': a source has no weight; leave it out")
    sources = [_open(match["data"], seed) for match in matches if match]
    return Mix(sources, [float(w) for w in told] or [float(len(s)) for s in sources])


def _open(data: str, seed: int) -> Source:
    if data == "shapes":
        from lavi_bridge.zoo.world import ShapesWorld

        return ShapesWorld(seed=seed)
    if data.startswith(HUB):
        return HuggingFace(data.removeprefix(HUB))
    path = Path(data).expanduser()
    if path.is_dir():
        if (path / INDEX).is_file():
            return Folder(path)
        if next(path.glob("*.tar"), None):
            return WebDataset(path)
        if (path / "state.json").is_file() or next(path.rglob("*.parquet"), None):
            return HuggingFace(path)
        return Folder(path)
    if path.is_file():
        return WebDataset(path) if path.suffix == ".tar" else TSV(path)
    raise BridgeError(f"no data '{data}': give {KNOWN}")
