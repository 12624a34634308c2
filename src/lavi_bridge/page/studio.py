"""Draws what is asked and tells how it goes, event by event; knows of no page.

Pictures are those of `generate`: the same call, the same record inside.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from lavi_bridge.bridge.bridge import Bridge, Step
from lavi_bridge.bridge.drawing import as_png, file_name, settings_of
from lavi_bridge.bridge.folder import is_pipeline
from lavi_bridge.errors import BridgeError, in_a_line
from lavi_bridge.evaluate.influence import WORD, Influence, influence
from lavi_bridge.languages import Language
from lavi_bridge.page.models import Known, Model, Models, Stopped
from lavi_bridge.page.request import Request
from lavi_bridge.page.tokens import Reading, own_reader, readings
from lavi_bridge.page.world import verdict
from lavi_bridge.running.device import visiting
from lavi_bridge.show.pictures import to_images
from lavi_bridge.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image

    from lavi_bridge.shapes.scorer import Verdict

T = TypeVar("T")
MOST_PREVIEWS = 8
"""Pictures on the way to one."""
AT_ONCE = 4
"""Drawings that go on together, each on a model of its own."""


@dataclass(frozen=True)
class Event:
    """Something has happened to the picture of one bridge (column) and one request (row)."""

    column: int
    row: int


@dataclass(frozen=True)
class Waiting(Event):
    """It waits for its model, or for it to be loaded."""


@dataclass(frozen=True)
class Read(Event):
    """Its prompt has been read so."""

    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class Drawn(Event):
    """A step is done."""

    step: int
    of: int
    picture: Image | None = field(default=None, repr=False)
    """What is there by now, where a preview is due."""


@dataclass(frozen=True)
class Done(Event):
    """The picture."""

    picture: Image = field(repr=False)
    png: bytes = field(repr=False)
    """A file with the record inside, as `generate` writes it."""
    file: str
    record: dict[str, Any]
    seconds: float
    verdict: Verdict | None


@dataclass(frozen=True)
class Weighed(Event):
    """Of the pictures that tell which words moved one, so many are drawn."""

    done: int
    of: int


@dataclass(frozen=True)
class Influenced(Event):
    """What each word of the prompt did to the picture."""

    words: list[Influence] = field(repr=False)


@dataclass(frozen=True)
class Failed(Event):
    """There is no picture; `line` says why."""

    line: str


@dataclass(frozen=True)
class Halted(Event):
    """Somebody has stopped it."""


class Studio:
    """Bridges that draw for whoever asks.

    Args:
        known: what can be drawn with.
        memory: bytes of weights that stay loaded.
        previews: pictures on the way to one, 0 to 8.
        dtype, device: see `Bridge.load`.
    """

    def __init__(
        self,
        known: Sequence[Known],
        *,
        memory: int = 8 * 2**30,
        previews: int = MOST_PREVIEWS,
        dtype: str | None = None,
        device: str | None = None,
    ) -> None:
        def load(one: Known) -> Bridge:
            make = Bridge.own if is_pipeline(one.source) else Bridge.load
            return make(one.source, dtype=dtype, device=device)

        if not 0 <= previews <= MOST_PREVIEWS:
            raise BridgeError(f"'previews' must be 0 to {MOST_PREVIEWS}, not {previews}")
        self.known = list(known)
        self.models = Models(known, memory, load)
        self.previews = previews
        self._own: dict[str, Language | None] = {}
        self._turn = threading.Lock()
        self._workers = ThreadPoolExecutor(AT_ONCE, "drawing")

    def offer(self, one: Known) -> Known:
        """Have one more bridge to draw with, or the one that is there of the same place.

        A name that is taken gets a number.
        """
        with self._turn:
            for known in self.known:
                if known.source == one.source:
                    return known
            names, number = {known.name for known in self.known}, 2
            name = one.name
            while name in names:
                name, number = f"{one.name} ({number})", number + 1
            one = replace(one, name=name)
            self.models.add(one)
            self.known.append(one)
            return one

    def draw(
        self, names: Sequence[str], requests: Sequence[Request], stop: threading.Event
    ) -> Iterator[Event]:
        """Draw every request with every bridge named, one after the other, and tell how it goes.

        What cannot be drawn is a `Failed` event and the rest goes on. Once `stop` is set, or the
        caller closes the generator, nothing more is drawn, and the models are free again.
        """
        for column, name in enumerate(names):
            for row, request in enumerate(requests):
                work = partial(self._one, request=request, stop=stop, column=column, row=row)
                yield from self._guarded(name, work, stop, column, row)

    def influence(self, name: str, request: Request, stop: threading.Event) -> Iterator[Event]:
        """Draw a request without each of its words, and tell what each did to the picture.

        The events are of column and row 0; they end as those of `draw` do.
        """
        work = partial(self._weighed, request=request, stop=stop)
        yield from self._guarded(name, work, stop, 0, 0)

    def _guarded(
        self,
        name: str,
        work: Callable[[Model], Iterator[Event]],
        stop: threading.Event,
        column: int,
        row: int,
    ) -> Iterator[Event]:
        """Do work with a model; whatever keeps it from its end is an event."""
        try:
            if stop.is_set():
                raise Stopped
            yield Waiting(column, row)
            with self.models.using(name, stop) as model:
                yield from work(model)
        except Stopped:
            yield Halted(column, row)
        except BridgeError as error:
            yield Failed(column, row, str(error))
        except Exception as error:  # libraries raise many types: full memory, bad kernels
            yield Failed(column, row, in_a_line(error))

    def _weighed(self, model: Model, *, request: Request, stop: threading.Event) -> Iterator[Event]:
        bridge, sampling = model.bridge, request.sampling(model.known.strengths)
        settings = settings_of(bridge, sampling)
        told: SimpleQueue[Event | None] = SimpleQueue()
        ended = threading.Event()
        of, drawn = 1 + 2 * len(WORD.findall(request.prompt)), count(1)

        def on_step(_step: Step) -> None:
            if stop.is_set() or ended.is_set():
                raise Stopped

        def draw() -> list[Influence]:
            return influence(
                bridge,
                request.prompt,
                seed=sampling.seed,
                on_picture=lambda: told.put(Weighed(0, 0, next(drawn), of)),
                batch_size=1,
                on_step=on_step,
                **settings,
            )[1]

        words = yield from self._apart(draw, told, ended)
        yield Influenced(0, 0, words)

    def _apart(
        self, work: Callable[[], T], told: SimpleQueue[Event | None], ended: threading.Event
    ) -> Generator[Event, None, T]:
        """Do work in a thread of its own, hand on what it tells, and return what it returns."""

        def done() -> T:
            try:
                return work()
            finally:
                told.put(None)

        working = self._workers.submit(done)
        try:
            while (event := told.get()) is not None:
                yield event
            return working.result()
        finally:  # whoever comes next must find the model at rest
            ended.set()
            working.exception()

    def _one(
        self, model: Model, *, request: Request, stop: threading.Event, column: int, row: int
    ) -> Iterator[Event]:
        """Draw one picture in a thread of its own, and hand on what it tells."""
        bridge, sampling = model.bridge, request.sampling(model.known.strengths)
        settings = settings_of(bridge, sampling)
        bridge.vision.latent_shape(settings["height"], settings["width"])  # before any is read
        bridge.vision.process.scheduler(settings["scheduler"])
        own = self._own_reader(model)
        yield Read(column, row, tuple(readings(bridge, own, request.prompt)))
        told: SimpleQueue[Event | None] = SimpleQueue()
        ended = threading.Event()
        preview = self._previewing(bridge, settings["steps"])

        def on_step(step: Step) -> None:
            if stop.is_set() or ended.is_set():
                raise Stopped
            told.put(Drawn(column, row, step.index + 1, settings["steps"], preview(step)))

        def draw() -> Image:
            images = bridge.stream(
                [request.prompt],
                seed=[sampling.seed],
                batch_size=1,
                on_step=on_step,
                **settings,
            )
            return next(images)

        started = time.perf_counter()
        picture = yield from self._apart(draw, told, ended)
        seconds = time.perf_counter() - started
        record = {"prompt": request.prompt, "seed": sampling.seed, **settings, **model.identity}
        record["version"] = __version__
        yield Done(
            column,
            row,
            picture,
            as_png(picture, record),
            file_name(0, request.prompt, record),
            record,
            seconds,
            verdict(picture, request.prompt) if model.known.world else None,
        )

    def _previewing(self, bridge: Bridge, steps: int) -> Callable[[Step], Image | None]:
        """What shows a step, where one is due: evenly over all, and never the last."""
        every = math.ceil(steps / (self.previews + 1)) if self.previews else 0
        shown = 0

        def preview(step: Step) -> Image | None:
            nonlocal shown
            number = step.index + 1
            if not every or number % every or number >= steps or shown == self.previews:
                return None
            shown += 1
            with visiting([bridge.vision.vae], bridge._away):
                pixels = bridge.vision.decode(step.latents)
            return to_images(pixels, hint=bridge.overflow_hint())[0]

        return preview

    def _own_reader(self, model: Model) -> Language | None:
        name = model.known.name
        if name not in self._own:
            self._own[name] = own_reader(model.bridge)
        return self._own[name]
