"""The page itself: Gradio's components around a studio, and no drawing of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event as Flag
from typing import Any

import gradio as gr

from lavi_bridge.errors import BridgeError
from lavi_bridge.page.cards import Card, Shot, status, words_place
from lavi_bridge.page.form import FIELDS, Form, shown
from lavi_bridge.page.history import Entry, added
from lavi_bridge.page.models import MOST, known_as
from lavi_bridge.page.request import Request
from lavi_bridge.page.runs_tab import QUIET, RunsTab
from lavi_bridge.page.sheet import sheet_of
from lavi_bridge.page.stops import Stops
from lavi_bridge.page.studio import (
    AT_ONCE,
    Done,
    Drawn,
    Event,
    Failed,
    Halted,
    Influenced,
    Studio,
    Weighed,
)
from lavi_bridge.page.words import strip, waiting
from lavi_bridge.train.finding import Runs

OFTEN = 0.2
"""Seconds between two looks at a drawing, where no picture is new."""
ASKS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-row]');
  if (button) trigger('click', {row: button.dataset.row});
});
"""


@dataclass(frozen=True)
class Asked:
    """What a visitor wants drawn."""

    names: list[str]
    requests: list[Request]
    told: str = ""
    """What is done beside drawing, for the history."""
    word: str = ""
    other: str = ""


class App:
    """What the page's buttons do; `blocks` is the page."""

    def __init__(self, studio: Studio, *, waiting: int = 16, runs: Runs | None = None) -> None:
        self.studio = studio
        self.runs = runs
        self.stops = Stops()
        self.slots = len(studio.known) if runs is None else MOST
        """Cards side by side: one for each bridge that is ticked, in their order."""
        self.blocks = self._page(waiting)

    # ---- what buttons do; each yields one value for the line, each card, history and its list

    def draw(self, *values: Any, visit: gr.Request) -> Iterator[list[Any]]:
        """Draw the prompt with every bridge that is ticked."""
        *form, history = values

        def asked() -> Asked:
            names, given = self._given(form)
            return Asked(names, [Request.of(given)])

        yield from self._guarded(asked, history, visit)

    def compare(self, *values: Any, visit: gr.Request) -> Iterator[list[Any]]:
        """Draw the prompt as it is and with one word changed."""
        *form, word, other, history = values

        def asked() -> Asked:
            names, given = self._given(form)
            request, old, new = Request.of(given), str(word), str(other)
            both = [request, request.changed(old, new)]
            return Asked(names, both, f"{old} → {new or 'nothing'}", old, new)

        yield from self._guarded(asked, history, visit)

    def sheet(self, *values: Any, visit: gr.Request) -> Iterator[list[Any]]:
        """Draw every prompt of a file."""
        *form, file, history = values

        def asked() -> Asked:
            names, given = self._given(form)
            many = [Request.of(given | {"prompt": prompt}) for prompt in sheet_of(file)]
            return Asked(names, many, f"{len(many)} prompts" if len(many) > 1 else "")

        yield from self._guarded(asked, history, visit)

    def words(
        self, slot: int, row: int, number: int | None, history: list[Entry], visit: gr.Request
    ) -> Iterator[list[Any]]:
        """Show under a picture which words of its prompt moved it."""
        entry = next((one for one in history if one.number == number), None)
        if entry is None or slot >= len(entry.names):
            yield self._failed("draw it again first")
            return
        visitor = visit.session_hash or ""
        flag = self.stops.new(visitor)
        name, card, place = entry.names[slot], entry.cards[slot], words_place(row)
        line, found, looked = status(f"{name}: waiting for the model"), "", 0.0
        try:
            request = entry.asked(row)
            for event in self.studio.influence(name, request, flag):
                if isinstance(event, Weighed) and time.perf_counter() - looked > OFTEN:
                    looked = time.perf_counter()
                    line = status(f"{name}: picture {event.done} of {event.of}")
                    yield self._with_card(line, slot, card, place, waiting(event.done, event.of))
                elif isinstance(event, Influenced):
                    found, line = strip(request.prompt, event.words), status("done")
                elif isinstance(event, Failed):
                    line = status(event.line, error=True)
                elif isinstance(event, Halted):
                    line = status("stopped")
            if not self.stops.is_newest(visitor, flag):
                return  # the card shows something else by now
            last = self._with_card(line, slot, card, place, found)
            if found:
                kept = entry.with_card(slot, card.replace(place, found))
                last[-2] = [kept if one is entry else one for one in history]
            yield last
        except BridgeError as error:
            yield self._failed(error)
        finally:
            self.stops.done(visitor, flag)

    def stop(self, visit: gr.Request) -> None:
        """End what this visitor has going on."""
        self.stops.stop(visit.session_hash or "")

    def back(self, number: int | None, history: list[Entry]) -> list[Any]:
        """Show an earlier drawing and its settings."""
        entry = next((one for one in history if one.number == number), None)
        if entry is None:
            return [gr.skip()] * (1 + 2 * self.slots + len(self.form.inputs) + 2)
        values = [shown(getattr(entry.request, name)) for name in FIELDS]
        line = status(f"drawing {entry.number}, as it was")
        cards = self._placed(entry.cards)
        return [line, *cards, self._choice(entry.names), *values, entry.word, entry.other]

    def choose(self, ticked: list[str]) -> list[Any]:
        """Show a card for each bridge that is ticked."""
        known = [one for one in self.studio.known if one.name in (ticked or ())]
        return self._placed([Card(one).html() for one in known[: self.slots]])

    def open_run(self, chosen: Sequence[str | None], ticked: list[str]) -> list[Any]:
        """Take the bridge of the run that is shown to the part that draws."""
        try:
            one = self._of_run(chosen[0])
        except BridgeError as error:
            line = status(str(error), error=True)
            return [line, *[gr.skip()] * (3 + 2 * self.slots)]
        names = [name for name in ticked or () if name != one.name][: self.slots - 1]
        line = status(f"{one.name} draws, too")
        names = [*names, one.name]
        return ["", gr.Tabs(selected="draw"), line, *self.choose(names), self._choice(names)]

    # ---- how

    def _of_run(self, key: str | None) -> Any:
        """The bridge of a run, known to the studio."""
        run = self.runs.found.get(key or "") if self.runs else None
        folder = run.bridge if run else None
        if self.runs is None or run is None or folder is None:
            raise BridgeError("that run has no bridge yet")
        whole = folder.name == "bridge" or folder == run.path
        name = self.runs.names[key or ""] + ("" if whole else f" {folder.name}")
        return self.studio.offer(known_as(name, str(folder)))

    def _guarded(
        self, asking: Callable[[], Asked], history: list[Entry], visit: gr.Request
    ) -> Iterator[list[Any]]:
        visitor = visit.session_hash or ""
        flag = self.stops.new(visitor)
        try:
            yield from self._run(asking(), history, flag)
        except BridgeError as error:
            yield self._failed(error)
        finally:
            self.stops.done(visitor, flag)

    def _given(self, form: Sequence[Any]) -> tuple[list[str], dict[str, Any]]:
        """Which bridges are to draw, and what the form says."""
        ticked, *values = form
        names = [one.name for one in self.studio.known if one.name in (ticked or ())]
        if not names:
            more = "; or open one in Runs" if self.runs else ""
            raise BridgeError(f"tick a bridge first{more}")
        if len(names) > self.slots:
            raise BridgeError(f"tick at most {self.slots} bridges, not {len(names)}")
        return names, dict(zip(FIELDS, values, strict=True))

    def _run(self, asked: Asked, history: list[Entry], flag: Flag) -> Iterator[list[Any]]:
        """Draw, show how it goes, and keep the end in the history."""
        names, requests = asked.names, asked.requests
        known = {one.name: one for one in self.studio.known}
        cards = [Card(known[name]) for name in names]
        for card in cards:
            card.shots = [Shot(request.prompt) for request in requests]
            card.compares = bool(asked.word)
        others = [gr.skip()] * (self.slots - len(cards))
        started = looked = time.perf_counter()
        fresh, failed, halted = set(range(len(cards))), 0, False
        for event in self.studio.draw(names, requests, flag):
            cards[event.column].take(event)
            fresh.add(event.column)
            failed += isinstance(event, Failed)
            halted = halted or isinstance(event, Halted)
            now = time.perf_counter()
            if _is_new(event) or now - looked > OFTEN:
                looked = now
                html = [c.html() if n in fresh else gr.skip() for n, c in enumerate(cards)]
                yield [status(_doing(event, names)), *html, *others, gr.skip(), gr.skip()]
                fresh = set()
        seconds = time.perf_counter() - started
        for card in cards:
            card.ended = True
        done = tuple(card.html() for card in cards)
        number = history[0].number + 1 if history else 1
        entry = Entry(number, requests[0], tuple(names), done, asked.told, asked.word, asked.other)
        history = added(history, entry)
        line = "stopped" if halted else f"done in {seconds:.1f} s"
        line += f"; {failed} could not be drawn" * bool(failed)
        choices = gr.Dropdown(choices=[(one.title, one.number) for one in history], value=number)
        yield [status(line, error=bool(failed)), *done, *others, history, choices]

    # ---- values for outputs

    def _failed(self, error: BridgeError | str) -> list[Any]:
        """An error on the line, and nothing else new."""
        return [status(str(error), error=True), *[gr.skip()] * (len(self.outputs) - 1)]

    def _with_card(self, line: str, slot: int, card: str, place: str, instead: str) -> list[Any]:
        cards: list[Any] = [gr.skip()] * self.slots
        cards[slot] = card.replace(place, instead) if instead else card
        return [line, *cards, gr.skip(), gr.skip()]

    def _placed(self, cards: Sequence[str]) -> list[Any]:
        """Values of all cards, then of the columns that they are in."""
        left = self.slots - len(cards)
        shown = [gr.Column(visible=n < len(cards)) for n in range(self.slots)]
        return [*cards, *[""] * left, *shown]

    def _choice(self, ticked: Sequence[str]) -> gr.CheckboxGroup:
        return gr.CheckboxGroup(choices=[one.name for one in self.studio.known], value=list(ticked))

    # ---- how it looks

    def _page(self, waiting: int) -> gr.Blocks:
        blocks = gr.Blocks(
            title="LaVi-Bridge", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)
        )
        with blocks:
            if self.runs is None:
                self._drawing(blocks)
            else:
                first = "draw" if self.studio.known else "runs"
                with gr.Tabs(selected=first) as tabs:
                    with gr.Tab("Draw", id="draw") as draws:
                        self._drawing(blocks)
                    with gr.Tab("Runs", id="runs") as seen:
                        tab = RunsTab(self.runs, seen=first == "runs")
                self._joined(blocks, tab, tabs, draws, seen)
        blocks.queue(max_size=waiting, default_concurrency_limit=AT_ONCE)
        return blocks

    def _drawing(self, blocks: gr.Blocks) -> None:
        """The part that draws, and what its buttons do."""
        known = self.studio.known
        with gr.Row(elem_classes="lb-page"):
            with gr.Column(scale=2, min_width=320):
                self.form = form = Form(known, grows=self.runs is not None)
            with gr.Column(scale=5, min_width=320):
                past = gr.Dropdown(
                    [], label="History: choose a drawing to go back to", interactive=True
                )
                self.line = gr.HTML(status("ready"), elem_classes="lb-status", elem_id="status")
                self.cards, self.columns = [], []
                with gr.Row(elem_classes="lb-cards"):
                    for slot in range(self.slots):
                        one = known[slot] if slot < len(known) else None
                        with gr.Column(min_width=270, visible=one is not None) as column:
                            html = Card(one).html() if one else ""
                            self.cards.append(gr.HTML(html, js_on_load=ASKS))
                        self.columns.append(column)
            history = gr.State([], time_to_live=3600)
        self.outputs = [self.line, *self.cards, history, past]
        shared: dict[str, Any] = {
            "outputs": self.outputs,
            "concurrency_id": "drawing",
            "concurrency_limit": AT_ONCE,
            "show_progress": "hidden",
        }
        inputs = [*form.inputs, history]
        begin = [form.start.click, form.prompt.submit]
        gr.on(begin, _told(self.draw), inputs, api_name="draw", **shared)
        asked = [*form.inputs, form.word, form.other, history]
        form.both.click(_told(self.compare), asked, api_name="compare", **shared)
        asked = [*form.inputs, form.file, history]
        form.many.click(_told(self.sheet), asked, api_name="sheet", **shared)
        for slot, card in enumerate(self.cards):
            asks = _asking(self.words, slot)
            card.click(asks, [past, history], api_visibility="private", **shared)
        form.halt.click(_stopping(self.stop), None, None, queue=False, api_name="stop")
        placed = [*self.cards, *self.columns]
        form.ticked.input(self.choose, form.ticked, placed, **QUIET)
        restored = [self.line, *placed, *form.inputs, form.word, form.other]
        past.input(self.back, [past, history], restored, **QUIET)
        blocks.unload(_stopping(self.stop))

    def _joined(
        self, blocks: gr.Blocks, tab: RunsTab, tabs: gr.Tabs, draws: gr.Tab, seen: gr.Tab
    ) -> None:
        """What goes from the part for runs to the one that draws, and back."""
        ticked = self.form.ticked
        blocks.load(tab.show, tab.inputs, tab.outputs, **QUIET)
        blocks.load(self._choice, ticked, ticked, **QUIET)  # others may have opened more
        seen.select(lambda: gr.Timer(active=True), None, tab.timer, **QUIET)
        draws.select(lambda: gr.Timer(active=False), None, tab.timer, **QUIET)
        placed = [self.line, *self.cards, *self.columns, ticked]
        tab.open.click(self.open_run, [tab.chosen, ticked], [tab.line, tabs, *placed], **QUIET)


def _told(act: Any) -> Any:
    """An action as Gradio calls it: it finds who asks by the annotation."""

    def called(visit: gr.Request, *values: Any) -> Iterator[list[Any]]:
        yield from act(*values, visit=visit)

    called.__annotations__["visit"] = gr.Request
    return called


def _asking(act: Any, slot: int) -> Any:
    """The same for a click on a card, which says what was asked about."""

    def called(visit: gr.Request, picked: gr.EventData, *values: Any) -> Iterator[list[Any]]:
        data = picked._data if isinstance(picked._data, dict) else {}
        yield from act(slot, int(data.get("row") == "1"), *values, visit)

    called.__annotations__ |= {"visit": gr.Request, "picked": gr.EventData}
    return called


def _stopping(act: Any) -> Any:
    def called(visit: gr.Request) -> None:
        act(visit)

    called.__annotations__["visit"] = gr.Request
    return called


def _is_new(event: Event) -> bool:
    """Whether there is something to see at once."""
    return not isinstance(event, Drawn) or event.picture is not None


def _doing(event: Event, names: Sequence[str]) -> str:
    if isinstance(event, Drawn):
        return f"{names[event.column]}: step {event.step} of {event.of}"
    return f"{names[event.column]}: {'done' if isinstance(event, Done) else 'at work'}"
