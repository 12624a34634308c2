"""What is published: a bridge, a run's bridge, or an export, and which of its files."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lavi_bridge.bridge.card import SIDES, UNKNOWN, stated_licence
from lavi_bridge.bridge.folder import ENTRIES, INDEX, opened
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import PIP, ZOO_PREFIX, hub_name, locate
from lavi_bridge.files.private import Contents, renamed
from lavi_bridge.publish.options import PushConfig
from lavi_bridge.running.lock import refuse_if_held

README, CONFIG = "README.md", "config.json"
OF_A_BRIDGE = {".json", ".safetensors"}
OF_AN_EXPORT = {".json", ".safetensors", ".py", ".md", ".txt", ".model", ".spm", ".codes", ".jinja"}
"""Endings of what an export consists of; `.txt` and the next three are vocabularies."""
PLACES = {"language_lora": "language", "vision_lora": "vision"}
LARGEST = 500 * 1000**3
"""Bytes of a file on the Hub at most (huggingface/hub-docs, docs/hub/storage-limits.md)."""


@dataclass(frozen=True)
class Source:
    """A bridge on this machine."""

    folder: Path
    record: dict[str, Any]
    """Its `bridge.json`."""
    moved: dict[str, str]
    """Hub ids for base models that are folders here, by the folder."""
    run: Path | None = None
    """The folder of its training run, where that is what was given."""

    @property
    def form(self) -> str | None:
        """What it was exported as; None for a bridge that this package loads."""
        return self.record.get("export", {}).get("form")

    def base(self, side: str) -> str:
        """What others call a base model."""
        name = self.record[side]["id"]
        return self.moved.get(name, name)

    @property
    def given(self) -> dict[str, str]:
        """Hub ids that stand for folders of this machine, by model."""
        return {side: self.base(side) for side in SIDES if self.record[side]["id"] in self.moved}

    @cached_property
    def licences(self) -> dict[str, str | None]:
        """What both base models say of their licence, by the names that others know."""
        return {self.base(side): self._licence(side) for side in SIDES}

    def _licence(self, side: str) -> str | None:
        if stated := self.record[side].get("licence"):
            return str(stated)
        if noted := self._on_the_card(side):
            return noted
        for name in dict.fromkeys((self.record[side]["id"], self.base(side))):
            try:
                if stated := stated_licence(locate(name)):
                    return stated
            except BridgeError:
                continue  # it is not on this machine any more
        return None

    def _on_the_card(self, side: str) -> str | None:
        """What the card beside an older record has noted of a model."""
        card = self.folder / README
        if card.is_symlink() or not card.is_file():
            return None
        start = f"- {side}: {self.record[side]['id']}: "
        lines = card.read_text(encoding="utf-8").splitlines()
        told = [line.removeprefix(start) for line in lines if line.startswith(start)]
        return told[0] if told and told[0] != UNKNOWN else None

    def files(self) -> dict[str, Path]:
        """What it consists of, by path: neither its card and record, which are written anew, nor
        what lies beside it (checkpoints, logs, locks, notes).

        Raises:
            BridgeError: one is a link, or an export does not say of what it consists.
        """
        if self.form is None:
            names, endings = [name for name in ENTRIES if name != README], OF_A_BRIDGE
        else:
            names, endings = self._of_the_export(), OF_AN_EXPORT
        paths = [path for name in names for path in _regular(self.folder / name, endings)]
        files = {path.relative_to(self.folder).as_posix(): path for path in paths}
        return {name: path for name, path in files.items() if name not in (INDEX, README)}

    def _of_the_export(self) -> list[str]:
        """What lies right in the folder of an export and belongs to it."""
        names = self.record["export"].get("files")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BridgeError(
                f"the {INDEX} of '{self.folder}' does not say which files it consists of; export "
                "the bridge again"
            )
        if odd := [name for name in names if name in ("", "..") or Path(name).name != name]:
            raise BridgeError(
                f"the {INDEX} of '{self.folder}' names '{odd[0]}' as one of its files, which is "
                "no plain name; export the bridge again"
            )
        return sorted(names)


def _regular(path: Path, endings: Collection[str]) -> Iterator[Path]:
    """A file, or those below a folder, with one of these endings; hidden ones are left out.

    Raises:
        BridgeError: something that would be sent is a link: it may lead anywhere.
    """
    if path.name.startswith((".", "__")):
        return
    if path.is_symlink():
        if path.suffix in endings or path.is_dir():
            refuse_link(path)
    elif path.is_dir():
        for entry in sorted(path.iterdir()):
            yield from _regular(entry, endings)
    elif path.is_file() and path.suffix in endings:
        yield path


def refuse_link(path: Path) -> None:
    """Refuse a link among what is published.

    Raises:
        BridgeError: it is one.
    """
    if path.is_symlink():
        raise BridgeError(
            f"'{path}' is a link, which is not followed: put there what it leads to, or take it "
            "away"
        )


def source_of(config: PushConfig) -> Source:
    """The bridge that is to be published.

    Raises:
        BridgeError: there is none, a run is at work on it, its base models are folders that nobody
            else has, something of it is a link, or a file is too large for the Hub.
    """
    place, record = opened(config.folder)
    if not place.local:
        raise BridgeError(f"'{config.folder}' is on the Hub already; give a folder of this machine")
    folder = Path(place.root, place.subfolder)
    run = Path(place.root) if place.subfolder == "bridge" else None
    refuse_link(folder / INDEX)
    if run is not None:
        refuse_link(folder)
        refuse_if_held(run, option="FOLDER")
    moved: dict[str, str] = {}
    for side in SIDES:
        local, given = record[side]["id"], getattr(config, side)
        if _is_elsewhere(local):
            if given is not None and given != local:
                raise BridgeError(
                    f"--{side} is for a model that is a folder of this machine, and the bridge was "
                    f"trained on '{local}'"
                )
            continue
        if given is None or not _is_elsewhere(given):
            raise BridgeError(
                f"the {side} model is '{local}', which nobody else has; say where it is on the "
                f"Hub: --{side} OWNER/NAME"
            )
        moved[local] = given
        if Path(local).suffix and Path(local).is_file():  # all of a model in one file
            moved[str(Path(local).parent)] = given
    source = Source(folder, record, moved, run)
    for name, path in source.files().items():
        if (size := path.stat().st_size) > LARGEST:
            raise BridgeError(
                f"'{name}' has {size_of(size)}, and the Hub takes files of {size_of(LARGEST)} at "
                "most; save it in parts"
            )
    return source


def _is_elsewhere(name: str) -> bool:
    """Whether others find a model under this name."""
    return name.startswith((ZOO_PREFIX, PIP)) or hub_name(name) is not None


def public_files(source: Source) -> Contents:
    """The files of a bridge as others get them: JSON names base models by their Hub ids."""
    contents: Contents = {}
    names = {local: hub_name(given) or given for local, given in source.moved.items()}
    for name, path in source.files().items():
        contents[name] = path
        if path.suffix == ".json" and source.moved:
            try:
                read = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise BridgeError(f"{path} is not valid JSON: {error}") from error
            if (new := renamed(read, names)) != read:
                contents[name] = (json.dumps(new, indent=2, ensure_ascii=False) + "\n").encode()
    return contents


def parameters(source: Source) -> dict[str, int] | None:
    """Trained parameters by part; counted in the files of a bridge whose record has none."""
    if "parameters" in source.record or source.form is not None:
        return source.record.get("parameters")
    counts = {"adapter": 0} | dict.fromkeys(SIDES, 0)
    for name, path in source.files().items():
        if path.suffix == ".safetensors":
            part = name.split("/")[0]
            counts[PLACES.get(part, part)] += _numbers_in(path)
    return counts


def _numbers_in(path: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        raise BridgeError(f"{path} is damaged or cut short ({error})") from error


def size_of(count: int) -> str:
    """Bytes for people: 3.98 MB."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:,.3g} GB"
