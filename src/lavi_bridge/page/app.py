"""The page itself: Gradio's components around a studio, and no drawing of its own."""

from __future__ import annotations

import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from lavi_bridge.bridge.drawing import read_prompts
from lavi_bridge.errors import BridgeError
from lavi_bridge.page.cards import Card, Shot, status
from lavi_bridge.page.history import Entry, added
from lavi_bridge.page.request import Request
from lavi_bridge.page.studio import AT_ONCE, Done, Drawn, Event, Failed, Halted, Studio

MOST_PROMPTS = 64
MOST_BYTES = 256 * 1024
"""Of a sheet of prompts."""
OFTEN = 0.2
"""Seconds between two looks at a drawing, where no picture is new."""
OWN = "model's own"
NAMED = "unipc", "dpm++", "ddim", "ddpm", "pndm", "euler", "euler-a", "heun", "flow-euler"
SAMPLERS = [(OWN, ""), *((name, name) for name in NAMED)]
STRENGTHS = {
    "language_scale": "Strength of the language model's LoRA",
    "vision_scale": "Strength of the image model's LoRA",
    "adapter_scale": "Strength of the adapter",
}
FIELDS = tuple(field.name for field in fields(Request))
EXAMPLE = "a large red circle left of a small blue square"
HEAD = '<meta name="referrer" content="no-referrer">'


class Stops:
    """The flags that end what a visitor has going on."""

    def __init__(self) -> None:
        self._flags: dict[str, set[threading.Event]] = defaultdict(set)

    def new(self, visitor: str) -> threading.Event:
        """A flag for one more drawing."""
        flag = threading.Event()
        self._flags[visitor].add(flag)
        return flag

    def done(self, visitor: str, flag: threading.Event) -> None:
        """Forget a flag."""
        self._flags[visitor].discard(flag)
        if not self._flags[visitor]:
            del self._flags[visitor]

    def stop(self, visitor: str) -> None:
        """Set all flags of a visitor."""
        for flag in list(self._flags.get(visitor, ())):
            flag.set()


class App:
    """What the page's buttons do; `blocks` is the page."""

    def __init__(self, studio: Studio, *, waiting: int = 16) -> None:
        self.studio = studio
        self.stops = Stops()
        self.blocks = self._page(waiting)

    # ---- what buttons do; each yields one value for the line, each card, history and its list

    def draw(self, *values: Any, visit: gr.Request) -> Iterator[list[Any]]:
        """Draw the prompt with every bridge that is ticked."""
        *form, history = values
        yield from self._guarded(form, history, visit)

    def compare(self, *values: Any, visit: gr.Request) -> Iterator[list[Any]]:
        """Draw the prompt as it is and with one word changed."""
        *form, word, other, history = values
        yield from self._guarded(form, history, visit, word=str(word), other=str(other))

    def sheet(self, *values: Any, visit: gr.Request) -> Iterator[list[Any]]:
        """Draw every prompt of a file."""
        *form, file, history = values
        yield from self._guarded(form, history, visit, file=file)

    def stop(self, visit: gr.Request) -> None:
        """End what this visitor has going on."""
        self.stops.stop(visit.session_hash or "")

    def back(self, number: int | None, history: list[Entry]) -> list[Any]:
        """Show an earlier drawing and its settings."""
        entry = next((one for one in history if one.number == number), None)
        if entry is None:
            return [gr.skip()] * (len(self.outputs) - 2 + len(self.form) + 2)
        values = [_shown(getattr(entry.request, name)) for name in FIELDS]
        line = status(f"drawing {entry.number}, as it was")
        return [line, *entry.cards, list(entry.names), *values, entry.word, entry.other]

    # ---- how

    def _guarded(
        self,
        form: Sequence[Any],
        history: list[Entry],
        visit: gr.Request,
        *,
        word: str | None = None,
        other: str = "",
        file: str | None = None,
    ) -> Iterator[list[Any]]:
        visitor = visit.session_hash or ""
        flag = self.stops.new(visitor)
        try:
            names, requests = self._asked(form, word, other, file)
            told = "" if word is None else f"{word} → {other or 'nothing'}"
            yield from self._run(names, requests, history, flag, told, word or "", other)
        except BridgeError as error:
            yield [status(str(error), error=True), *[gr.skip()] * (len(self.outputs) - 1)]
        finally:
            self.stops.done(visitor, flag)

    def _asked(
        self, form: Sequence[Any], word: str | None, other: str, file: str | None
    ) -> tuple[list[str], list[Request]]:
        """Which bridges are to draw, and what."""
        ticked, *values = form
        names = [one.name for one in self.studio.known if one.name in (ticked or ())]
        if not names:
            raise BridgeError("tick a bridge first")
        given = dict(zip(FIELDS, values, strict=True))
        if file is None and word is None:
            return names, [Request.of(given)]
        if word is not None:
            request = Request.of(given)
            return names, [request, request.changed(word, other)]
        prompts = sheet_of(file)
        return names, [Request.of(given | {"prompt": prompt}) for prompt in prompts]

    def _run(
        self,
        names: list[str],
        requests: list[Request],
        history: list[Entry],
        flag: threading.Event,
        told: str,
        word: str,
        other: str,
    ) -> Iterator[list[Any]]:
        """Draw, show how it goes, and keep the end in the history."""
        columns = {one.name: number for number, one in enumerate(self.studio.known)}
        cards = {number: Card(one) for number, one in enumerate(self.studio.known)}
        drawing = [cards[columns[name]] for name in names]
        for card in drawing:
            card.shots = [Shot(request.prompt) for request in requests]
            card.compares = bool(word)
        started = looked = time.perf_counter()
        fresh, failed, halted = set(cards), 0, False
        for event in self.studio.draw(names, requests, flag):
            column = columns[names[event.column]]
            cards[column].take(event)
            fresh.add(column)
            failed += isinstance(event, Failed)
            halted = halted or isinstance(event, Halted)
            now = time.perf_counter()
            if _is_new(event) or now - looked > OFTEN:
                looked = now
                shown = [cards[c].html() if c in fresh else gr.skip() for c in cards]
                yield [status(_doing(event, names)), *shown, gr.skip(), gr.skip()]
                fresh = set()
        seconds = time.perf_counter() - started
        told = told or (f"{len(requests)} prompts" if len(requests) > 1 else "")
        html = tuple(cards[column].html() for column in cards)
        number = history[0].number + 1 if history else 1
        entry = Entry(number, requests[0], tuple(names), html, told, word, other)
        history = added(history, entry)
        line = "stopped" if halted else f"done in {seconds:.1f} s"
        line += f"; {failed} could not be drawn" * bool(failed)
        choices = gr.Dropdown(choices=[(one.title, one.number) for one in history], value=number)
        yield [status(line, error=bool(failed)), *html, history, choices]

    # ---- how it looks

    def _page(self, waiting: int) -> gr.Blocks:
        known = self.studio.known
        names = [one.name for one in known]
        strengths = {name for one in known for name in one.strengths}
        plain = all(one.world for one in known)
        blocks = gr.Blocks(
            title="LaVi-Bridge", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)
        )
        with blocks, gr.Row(elem_classes="lb-page"):
            with gr.Column(scale=2, min_width=320):
                gr.HTML("<h1>LaVi-Bridge</h1>", elem_classes="lb-title")
                prompt = gr.Textbox(EXAMPLE, label="Prompt", lines=2, max_lines=6, autofocus=True)
                with gr.Row():
                    start = gr.Button("Draw", variant="primary", min_width=120, elem_id="draw")
                    halt = gr.Button("Stop", variant="stop", min_width=80, elem_id="stop")
                with gr.Row(elem_classes="lb-seed"):
                    seed = gr.Textbox("0", label="Seed", min_width=120)
                    dice = gr.Button("Dice", min_width=70, scale=0, elem_id="dice")
                with gr.Row():
                    # text, as Gradio makes 0 of a number that is not given
                    steps = gr.Textbox(
                        "20" if plain else "", label="Steps", placeholder=OWN, min_width=90
                    )
                    guidance = gr.Textbox(
                        "4" if plain else "", label="Guidance", placeholder=OWN, min_width=90
                    )
                    scheduler = gr.Dropdown(
                        SAMPLERS,
                        value="dpm++" if plain else "",
                        label="Sampler",
                        allow_custom_value=True,
                        min_width=130,
                    )
                with gr.Accordion("More settings", open=False):
                    ticked = gr.CheckboxGroup(names, value=names, label="Bridges that draw")
                    negative = gr.Textbox(label="Negative prompt", lines=1)
                    with gr.Row():
                        width = gr.Textbox(label="Width", placeholder=OWN, min_width=90)
                        height = gr.Textbox(label="Height", placeholder=OWN, min_width=90)
                    scales = [
                        gr.Slider(0, 2, 1.0, step=0.05, label=label, visible=name in strengths)
                        for name, label in STRENGTHS.items()
                    ]
                with gr.Accordion("Change one word", open=False):
                    with gr.Row():
                        word = gr.Textbox("red", label="Word of the prompt", min_width=110)
                        other = gr.Textbox(
                            "green", label="Instead", placeholder="left out", min_width=110
                        )
                    both = gr.Button("Draw both", elem_id="both")
                with gr.Accordion("Sheet of prompts", open=False):
                    file = gr.File(label="Text file, one prompt a line", height=120)
                    many = gr.Button("Draw the sheet", elem_id="sheet")
            with gr.Column(scale=5, min_width=320):
                past = gr.Dropdown(
                    [], label="History: choose a drawing to go back to", interactive=True
                )
                line = gr.HTML(status("ready"), elem_classes="lb-status", elem_id="status")
                cards = []
                with gr.Row(elem_classes="lb-cards"):
                    for one in known:
                        with gr.Column(min_width=270):
                            cards.append(gr.HTML(Card(one).html()))
            history = gr.State([], time_to_live=3600)

            sent = {
                "prompt": prompt,
                "seed": seed,
                "steps": steps,
                "guidance": guidance,
                "negative": negative,
                "height": height,
                "width": width,
                "scheduler": scheduler,
                **dict(
                    zip(("language_scale", "vision_scale", "adapter_scale"), scales, strict=True)
                ),
            }
            self.form = [ticked, *(sent[name] for name in FIELDS)]
            self.outputs = [line, *cards, history, past]
            shared: dict[str, Any] = {
                "outputs": self.outputs,
                "concurrency_id": "drawing",
                "concurrency_limit": AT_ONCE,
                "show_progress": "hidden",
            }
            inputs = [*self.form, history]
            gr.on([start.click, prompt.submit], _told(self.draw), inputs, api_name="draw", **shared)
            asked = [*self.form, word, other, history]
            both.click(_told(self.compare), asked, api_name="compare", **shared)
            asked = [*self.form, file, history]
            many.click(_told(self.sheet), asked, api_name="sheet", **shared)
            halt.click(_stopping(self.stop), None, None, queue=False, api_name="stop")
            dice.click(_thrown, None, seed, queue=False, api_visibility="private")
            past.input(
                self.back,
                [past, history],
                [line, *cards, *self.form, word, other],
                queue=False,
                show_progress="hidden",
                api_visibility="private",
            )
            blocks.unload(_stopping(self.stop))
        blocks.queue(max_size=waiting, default_concurrency_limit=AT_ONCE)
        return blocks


def _told(act: Any) -> Any:
    """An action as Gradio calls it: it finds who asks by the annotation."""

    def called(visit: gr.Request, *values: Any) -> Iterator[list[Any]]:
        yield from act(*values, visit=visit)

    called.__annotations__["visit"] = gr.Request
    return called


def _stopping(act: Any) -> Any:
    def called(visit: gr.Request) -> None:
        act(visit)

    called.__annotations__["visit"] = gr.Request
    return called


def _thrown() -> str:
    """A seed by chance."""
    return str(secrets.randbelow(2**31))


def _shown(value: Any) -> Any:
    """A setting as the form has it: strengths are sliders, the others text."""
    return value if isinstance(value, float) else "" if value is None else str(value)


def _is_new(event: Event) -> bool:
    """Whether there is something to see at once."""
    return not isinstance(event, Drawn) or event.picture is not None


def _doing(event: Event, names: Sequence[str]) -> str:
    if isinstance(event, Drawn):
        return f"{names[event.column]}: step {event.step} of {event.of}"
    return f"{names[event.column]}: {'done' if isinstance(event, Done) else 'at work'}"


def sheet_of(file: str | None) -> list[str]:
    """The prompts of an uploaded file.

    Raises:
        BridgeError: there is none, it is too large, it is no text, or it has too many prompts.
    """
    if not file:
        raise BridgeError("choose a text file with one prompt a line first")
    path = Path(file)
    if path.stat().st_size > MOST_BYTES:
        raise BridgeError(f"'{path.name}' is larger than {MOST_BYTES // 1024} KiB")
    try:
        prompts = read_prompts(path)
    except BridgeError as error:
        raise BridgeError(str(error).replace(str(path), path.name)) from error
    if len(prompts) > MOST_PROMPTS:
        raise BridgeError(
            f"'{path.name}' has {len(prompts)} prompts; a sheet has at most {MOST_PROMPTS}"
        )
    return prompts


def theme() -> gr.themes.Base:
    """Gradio's own looks with the fonts of the reader's system."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    return gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"])


def css() -> str:
    """The looks of the cards."""
    return files("lavi_bridge.page").joinpath("page.css").read_text(encoding="utf-8")
