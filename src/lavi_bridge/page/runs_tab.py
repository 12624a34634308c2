"""The page's part for runs: a list, and what one or two of them tell while they go on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import gradio as gr

from lavi_bridge.errors import BridgeError
from lavi_bridge.page.runs import Shown, curves, heading, listed, looks, samples, settings
from lavi_bridge.train.finding import Runs

EVERY = 2.0
"""Seconds between two looks at the folders, while somebody looks at them."""
PICKS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-run], button[data-beside]');
  if (!button) return;
  trigger('click', {run: button.dataset.run || '', beside: button.dataset.beside || ''});
});
"""
Chosen = tuple[str | None, str | None]
"""The keys of the run that is shown and of the one beside it."""
QUIET: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}
"""Of what changes nothing but this page."""


class RunsTab:
    """What the part for runs holds; made inside of a page that is being built."""

    def __init__(self, runs: Runs, *, seen: bool) -> None:
        """Lay it out.

        Args:
            seen: whether the page opens on it.
        """
        self.runs = runs
        self.chosen = gr.State((None, None))
        self.drawn: gr.State = gr.State({})  # what this visitor sees already, by part, as a digest
        self.timer = gr.Timer(EVERY, active=seen)
        with gr.Column(elem_classes="lb-runs-page"):
            gr.HTML("<h1>Runs</h1>", elem_classes="lb-title")
            self.list = gr.HTML("", elem_id="runs", js_on_load=PICKS, apply_default_css=False)
            with gr.Row():
                self.head = gr.HTML("", elem_id="run", apply_default_css=False, min_width=240)
                self.open = gr.Button(
                    "Draw with it", elem_id="open", visible=False, scale=0, min_width=160
                )
            self.line = gr.HTML("", elem_id="told")
            with gr.Row(visible=False) as self.dials:
                self.over = gr.Slider(
                    0, 30, 0, step=1, label="Smoothing, % of the steps", min_width=200
                )
                self.log = gr.Checkbox(False, label="Logarithmic values", min_width=160)
            self.curves = gr.HTML("", elem_id="curves")
            self.look = gr.Slider(
                1, 2, 1, step=1, label="Samples, from first to last", visible=False, elem_id="look"
            )
            self.samples = gr.HTML("", elem_id="samples")
            self.settings = gr.HTML("", elem_id="settings", apply_default_css=False)
        self.parts = [self.list, self.head, self.curves, self.samples, self.settings]
        self.outputs = [*self.parts, self.look, self.open, self.dials, self.chosen, self.drawn]
        self.inputs = [self.chosen, self.drawn, self.over, self.log, self.look]
        self.timer.tick(self.show, self.inputs, self.outputs, **QUIET)
        dials = [self.over.change, self.log.change, self.look.input]
        gr.on(dials, self.show, self.inputs, self.outputs, trigger_mode="always_last", **QUIET)
        self.list.click(_picked(self.pick), self.inputs, self.outputs, **QUIET)

    def show(
        self, chosen: Chosen, drawn: dict[str, str], over: float, log: bool, look: int
    ) -> list[Any]:
        """What has changed since this visitor last looked; all else is left as it is."""
        with self.runs.lock:
            keys = self.runs.look()
            chosen = self._there(chosen, keys)
            shown = self._shown(chosen)
            steps = looks(shown)
            same = drawn.get("runs") == str(chosen)
            last = not same or int(drawn.get("looks", 0)) == look
            at = max(1, len(steps) if last else min(int(look), len(steps)))
            step = steps[at - 1] if steps else None
            html = [
                listed(self.runs, keys, chosen),
                "",
                self._curves(shown, drawn, over, bool(log)),
                samples(shown, step),
                settings(shown),
            ]
            html[1] = heading(shown)  # last, as it tells what could not be read
            bridge = bool(shown) and shown[0].run.bridge is not None
        names = "list", "head", "curves", "samples", "settings"
        now = {
            name: drawn[name] if text is None else _digest(text)
            for name, text in zip(names, html, strict=True)
        }
        now |= {"runs": str(chosen), "looks": str(len(steps)), "at": str(at)}
        now |= {"bridge": f"{bridge} {len(shown)}", "told": self._told(shown, over, log)}
        if now == drawn:
            return [gr.skip()] * len(self.outputs)
        fresh = [
            gr.skip() if text is None or drawn.get(name) == now[name] else text
            for name, text in zip(names, html, strict=True)
        ]
        slider: Any = gr.skip()
        if (drawn.get("looks"), drawn.get("at")) != (now["looks"], now["at"]) or not same:
            most = max(2, len(steps))
            slider = gr.Slider(maximum=most, value=at, visible=len(steps) > 1)
        opened: Any = gr.skip()
        if drawn.get("bridge") != now["bridge"]:
            name = "Draw with A" if len(shown) > 1 else "Draw with it"
            opened = gr.Button(name, visible=bridge)
        dials = gr.skip() if same else gr.Row(visible=bool(shown))
        return [*fresh, slider, opened, dials, chosen, now]

    def pick(self, run: str, beside: str, *given: Any) -> list[Any]:
        """Show another run, or put another beside the one that is shown; again takes it away."""
        (first, second), *rest = given
        if run in self.runs.found:
            first, second = run, None if second == run else second
        elif beside in self.runs.found and beside != first:
            second = None if second == beside else beside
            first = first or beside
        return self.show((first, None if second == first else second), *rest)

    def _curves(
        self, shown: Sequence[Shown], drawn: dict[str, str], over: float, log: bool
    ) -> str | None:
        """The curves, or None where this visitor sees them as they are."""
        if drawn.get("told") == self._told(shown, over, log):
            return None
        return curves(shown, log=log, over=min(max(over, 0), 100) / 100)

    def _told(self, shown: Sequence[Shown], over: float, log: bool) -> str:
        return str([(one.name, one.run.version, one.run.read) for one in shown] + [over, log])

    def _there(self, chosen: Chosen, keys: Sequence[str]) -> Chosen:
        """What is chosen, if it is still there; at first the run that changed last."""
        first, second = (key if key in self.runs.found else None for key in chosen)
        if first is None:
            first, second = (keys[0] if keys else None), None
        return first, second

    def _shown(self, chosen: Chosen) -> list[Shown]:
        found = []
        for key in chosen:
            if key is not None:
                try:
                    found.append(Shown(self.runs.names[key], self.runs.read(key)))
                except BridgeError:  # gone since the list was made
                    continue
        return found


def _picked(act: Any) -> Any:
    """A choice as Gradio calls it: it finds what was chosen by the annotation."""

    def called(picked: gr.EventData, *values: Any) -> list[Any]:
        data = picked._data if isinstance(picked._data, dict) else {}
        return act(str(data.get("run", "")), str(data.get("beside", "")), *values)

    called.__annotations__["picked"] = gr.EventData
    return called


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
