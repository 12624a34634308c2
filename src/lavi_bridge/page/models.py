"""The models of a page: loaded once, shared by all who look, one drawing at a time each."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.drawing import made_by
from lavi_bridge.bridge.folder import INDEX, is_pipeline, opened
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import at_home
from lavi_bridge.files.locate import ZOO_PREFIX, locate
from lavi_bridge.train.finding import holds_runs

MOST = 4
"""Bridges that a page shows side by side."""
OWN = "zoo:tiny-sd"
REAL = "zoo:minilm-tiny-sd"
DEMO = Path("runs/demo")


class Stopped(Exception):
    """Somebody has stopped this drawing."""


@dataclass(frozen=True)
class Known:
    """What is known of a bridge before its weights are read."""

    name: str
    source: str
    language: str
    """Id of the language model; empty for an image model alone."""
    vision: str
    strengths: tuple[str, ...]
    """Which settings of `config.SCALES` it has."""
    world: bool
    """Whether its image model draws the shapes world, which the exact scorer judges."""


@dataclass(frozen=True)
class Model:
    """A loaded bridge."""

    known: Known
    bridge: Bridge
    identity: dict[str, Any]
    """What a picture's record says of its origin."""
    size: int
    """Bytes of its weights."""


def known_of(sources: Sequence[str]) -> list[Known]:
    """What is shown, each `PLACE` or `NAME=PLACE`; the demo's own where none is named.

    Raises:
        BridgeError: there are too many, one is nowhere, or two have the same name.
    """
    found = [_known(text) for text in sources or default_sources()]
    if len(found) > MOST:
        raise BridgeError(f"a page shows at most {MOST} bridges, not {len(found)}")
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise BridgeError(f"two bridges are called '{name}'; give NAME=… to tell them apart")
    return found


def sorted_out(sources: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Which of the places named are bridges, and which are folders of runs, or both."""
    bridges, runs = [], []
    for source in sources:
        folder = at_home(source)
        is_bridge = (folder / INDEX).is_file() or (folder / "model_index.json").is_file()
        if is_bridge or not holds_runs(folder):
            bridges.append(source)
            continue
        runs.append(folder)
        if (folder / "bridge" / INDEX).is_file():  # a run that is done
            bridges.append(source)
    return bridges, runs


def default_sources() -> list[str]:
    """The bundled image model, what `make demo` has trained, and the bundled bridge to MiniLM."""
    found = [OWN, *(str(path.parent) for path in sorted(DEMO.glob(f"*/{INDEX}")))]
    try:
        locate(opened(REAL)[1]["language"]["id"])
    except BridgeError:  # its language model is not installed
        return found[:MOST]
    return [*found[: MOST - 1], REAL]


def _known(text: str) -> Known:
    """Read a bridge's record, or see that there is an image model; no weights."""
    name, given, source = text.partition("=")
    if not given or at_home(text).exists():
        name, source = "", text
    return known_as(name or _name(source), source)


def known_as(name: str, source: str) -> Known:
    """What is known of a place, under a name.

    Raises:
        BridgeError: there is no bridge, or its record is damaged.
    """
    if is_pipeline(source):
        place = locate(source)
        return Known(name, source, "", place.id, (), _drawn_world(place.id))
    record = opened(source)[1]
    language, vision = record["language"], record["vision"]
    has = {
        "language_scale": language.get("lora"),
        "vision_scale": vision.get("lora"),
        "adapter_scale": ADAPTERS[record["adapter"]].adds,
    }
    strengths = tuple(setting for setting, there in has.items() if there)
    ids = str(language["id"]), str(vision["id"])
    return Known(name, source, *ids, strengths, _drawn_world(ids[1]))


def _name(source: str) -> str:
    """`runs/demo/llama` -> `llama`, `runs/t5/bridge` -> `t5`, `zoo:tiny-sd` -> `tiny-sd`."""
    parts = [part for part in Path(source.partition(":")[2] or source).parts if part != "bridge"]
    return parts[-1] if parts else source


def _drawn_world(vision: str) -> bool:
    return vision.startswith(ZOO_PREFIX)


class Models:
    """Bridges by name, at most `memory` bytes of weights: those least recently used go.

    Whatever is in use stays, and so does the last one, even where it is larger.
    """

    def __init__(
        self, known: Sequence[Known], memory: int, load: Callable[[Known], Bridge]
    ) -> None:
        self.known = {one.name: one for one in known}
        self.memory = memory
        self._load = load
        self._locks = {one.name: threading.Lock() for one in known}
        self._held: OrderedDict[str, Model] = OrderedDict()
        self._turn = threading.Condition()
        self._drawing = self._loading = 0

    def add(self, one: Known) -> None:
        """Have one more, under a name that none has yet."""
        self._locks[one.name] = threading.Lock()
        self.known[one.name] = one

    @property
    def loaded(self) -> list[str]:
        """Names of what is in memory, the least recently used first."""
        return list(self._held)

    @property
    def size(self) -> int:
        """Bytes of all weights in memory."""
        return sum(model.size for model in self._held.values())

    @contextmanager
    def using(self, name: str, stop: threading.Event) -> Iterator[Model]:
        """Have a model for oneself; loads it where it is not there.

        Raises:
            BridgeError: there is none of that name, or it cannot be loaded.
            Stopped: `stop` was set while others had it.
        """
        if name not in self.known:
            raise BridgeError(f"no bridge '{name}' on this page")
        _wait_for(self._locks[name], stop)
        try:
            model = self._held.get(name) or self._loaded(name, stop)
            with self._turn:
                self._held[name] = model
                self._held.move_to_end(name)
                self._make_room(name)
                self._until(lambda: not self._loading, stop)
                self._drawing += 1
            try:
                yield model
            finally:
                with self._turn:
                    self._drawing -= 1
                    self._turn.notify_all()
        finally:
            self._locks[name].release()

    def _loaded(self, name: str, stop: threading.Event) -> Model:
        """Load while nobody draws: the libraries change the process's default precision then."""
        with self._turn:
            self._until(lambda: not self._loading, stop)
            self._loading = 1
        try:
            with self._turn:
                self._until(lambda: not self._drawing, stop)
            bridge = self._load(self.known[name])
            parts = (*bridge.parameters(), *bridge.buffers())
            size = sum(part.numel() * part.element_size() for part in parts)
            return Model(self.known[name], bridge, made_by(bridge), size)
        finally:
            with self._turn:
                self._loading = 0
                self._turn.notify_all()

    def _until(self, ready: Callable[[], bool], stop: threading.Event) -> None:
        """Wait, with the turn held, until others are done; or stop."""
        while not self._turn.wait_for(ready, timeout=0.05):
            if stop.is_set():
                raise Stopped

    def _make_room(self, name: str) -> None:
        """Let go of the least recently used, but of none in use; the turn is held."""
        for other in self.loaded:
            if self.size <= self.memory or other == name:
                return
            if self._locks[other].acquire(blocking=False):
                self._held.pop(other, None)
                self._locks[other].release()


def _wait_for(lock: threading.Lock, stop: threading.Event) -> None:
    """Take a lock, unless asked to stop before."""
    while not lock.acquire(timeout=0.05):
        if stop.is_set():
            raise Stopped
