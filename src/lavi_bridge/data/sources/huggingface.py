"""Data sets of the Hugging Face Hub, or local ones that its library reads."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from lavi_bridge.data.sources.base import BadImage, Captions, Listed, texts_of
from lavi_bridge.data.sources.finding import LeftOut, stray, walk
from lavi_bridge.errors import BridgeError

SPLIT = "train"
CAPTION_COLUMNS = ("text", "caption", "captions", "prompt", "description")


class HuggingFace(Listed):
    """A split of a data set with an image column and a caption column.

    A row whose caption is empty counts as a picture that cannot be read.

    Args:
        name: `owner/name[@revision][:split]` of the Hub, or a folder of .parquet or .arrow files
            (`split` is "train" by default).

    Raises:
        BridgeError: `datasets` is not installed, the data set cannot be loaded, or it has no image
            or no caption column, or no caption.
    """

    def __init__(self, name: str | Path) -> None:
        self.name, self._place = str(name), name
        self.data = _load(name)
        features = self.data.features
        images = [key for key, kind in features.items() if type(kind).__name__ == "Image"]
        texts = [key for key in CAPTION_COLUMNS if key in features]
        if not images or not texts:
            raise BridgeError(
                f"'{name}' needs an image column and one of {', '.join(CAPTION_COLUMNS)}; "
                f"it has {', '.join(features)}"
            )
        self.image, self.text = images[0], texts[0]
        if not len(self.data):
            raise BridgeError(f"'{name}' holds no rows")
        self._captions = Captions(texts_of(value) for value in self.data[self.text])
        if not self.captions(1):
            raise BridgeError(f"{self.where(0)}: the caption is empty, as all others are")

    def left_out(self) -> list[str]:
        """The splits and files of a local data set that are not read."""
        left = LeftOut()
        if isinstance(self._place, Path):
            for split in _splits(self._place):
                if split != SPLIT:
                    left.add(f"splits other than '{SPLIT}'", split)
            used = {path for path in walk(self._place) if path.suffix in (".parquet", ".arrow")}
            stray(self._place, used, left)
        return left.lines()

    def __len__(self) -> int:
        return len(self._captions)

    def texts(self, index: int) -> Sequence[str]:
        return self._captions[index]

    def where(self, index: int) -> str:
        return f"{self.name}:row {index}"

    def _open(self, index: int) -> tuple[Path | IO[bytes], str]:
        cell = self.data[index][self.image] or {}
        if cell.get("bytes"):
            return io.BytesIO(cell["bytes"]), self.image
        if not cell.get("path") or not Path(cell["path"]).is_file():
            raise BadImage(f"{self.where(index)}: no image ({cell.get('path')})")
        return Path(cell["path"]), str(cell["path"])


def _load(name: str | Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise BridgeError(
            f"'{name}' is read by `datasets`: pip install 'lavi-bridge[datasets]'"
        ) from error
    try:
        if isinstance(name, Path):
            data = _local(datasets, name)
        else:
            place, _, split = name.partition(":")
            place, _, revision = place.partition("@")
            data = datasets.load_dataset(place, split=split or SPLIT, revision=revision or None)
        for key, kind in data.features.items():
            if isinstance(kind, datasets.Image):
                data = data.cast_column(key, datasets.Image(decode=False))
    except Exception as error:  # the library raises many types; all mean this
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BridgeError(f"cannot load the data set '{name}': {reason}") from error
    return data


def _local(datasets: Any, folder: Path) -> Any:
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        data = datasets.load_from_disk(str(folder))
        return data[SPLIT] if isinstance(data, datasets.DatasetDict) else data
    files = sorted(str(path) for path in walk(folder) if path.suffix == ".parquet")
    return datasets.Dataset.from_parquet(files)


def _splits(folder: Path) -> list[str]:
    path = folder / "dataset_dict.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["splits"]) if path.is_file() else []
