"""A run's folder as others see it while the run goes on: only read, and nothing outside of it.

What the trainer writes is the truth; a file that is broken or half written is a line, not an error.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from itertools import groupby
from math import isfinite
from operator import gt
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from lavi_bridge.bridge.drawing import KEY
from lavi_bridge.bridge.folder import INDEX
from lavi_bridge.files.growing import Growing, inside, last_rows, parsed, read_object, stamp
from lavi_bridge.files.private import without_folders
from lavi_bridge.running.lock import LOCK, is_held
from lavi_bridge.show.html import data_url
from lavi_bridge.show.pictures import tiles
from lavi_bridge.train.checkpoints import checkpoints
from lavi_bridge.train.ending import ENDED

State = Literal["training", "finished", "stopped", "failed"]
SETTINGS, METRICS, SAMPLES = "config.json", "metrics.jsonl", "samples"
STEP, WARM_STEP = "step", "warm_start_step"
SAMPLE = re.compile(r"(\d{1,12})\.png")
QUOTED = re.compile(r"(['\"`])([~/][^'\"`\n]*)\1")
"""A path from the root or the home in quotes, which may have spaces."""
MOST = 1e300
"""Of a figure's size; past it a sum would have no end."""
MOST_FIGURES = 48
"""Kinds of figures that are kept of a file."""
TILE = 160
"""Pixels of a picture in a sample grid."""
MOST_SAMPLES = 5000
MOST_PIXELS = 40_000_000
"""Of a sample grid."""


class Figure:
    """One figure by rising step, as it grows."""

    def __init__(self) -> None:
        self.steps, self.values = array("q"), array("d")

    def extend(self, steps: list[int], values: list[Any]) -> None:
        """Note values; a step that was there already begins anew from itself."""
        last = self.steps[-1] if self.steps else -1
        rises = all(map(gt, steps, [last, *steps]))
        # a sum with a value in it that is no number is none itself
        plain = rises and set(map(type, values)) == {float} and isfinite(sum(values))
        if plain and -MOST < min(values) <= max(values) < MOST:
            self.steps.extend(steps)
            self.values.extend(values)
            return
        for step, value in zip(steps, values, strict=True):
            if type(value) not in (int, float) or not -MOST < value < MOST:
                continue
            while self.steps and self.steps[-1] >= step:
                self.steps.pop(), self.values.pop()
            self.steps.append(step)
            self.values.append(value)

    def __len__(self) -> int:
        return len(self.steps)


@dataclass
class Sample:
    """A sample grid as data URLs: its pictures by prompt, or all in one where it does not say."""

    step: int
    pictures: dict[str, str] = field(default_factory=dict)
    sheet: str = ""


class RunFolder:
    """What a run's folder tells.

    Args:
        path: the folder.
        root: the resolved folder that was named; nothing outside is read.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        self.settings: dict[str, Any] = {}
        self.step = self.warm_step = 0
        """Steps done of the run and of its warm start."""
        self.state: State = "failed"
        self.why = ""
        """How it ended, where it ended early."""
        self.changed = 0.0
        """When something last changed, in seconds since 1970."""
        self.figures: dict[str, Figure] = {}
        self.warm: dict[str, Figure] = {}
        """What the warm start tells, by its own steps."""
        self.trouble: dict[str, str] = {}
        """What cannot be read, by file, in a line each."""
        self.version = 0
        """Rises with whatever `look` finds changed."""
        self.read = 0
        """Lines of the metrics that were read."""
        self._growing = Growing(path / METRICS, root)
        self._stamps: dict[str, Any] = {}
        self._sheets: dict[int, tuple[Any, Sample]] = {}

    @property
    def steps(self) -> int:
        """Steps that it is to make; 0 where that is not known."""
        return _count(self.settings.get("steps"))

    @property
    def bridge(self) -> Path | None:
        """What can be drawn with: the finished bridge, or else the last checkpoint."""
        found = [self.path, self.path / "bridge", *reversed(checkpoints(self.path).values())]
        for folder in found:
            if stamp(folder / INDEX, self.root) is not None:
                return folder
        return None

    # ---- what a list shows

    def look(self) -> None:
        """See what has changed; of the metrics only the last lines are read."""
        names = SETTINGS, METRICS, ENDED, INDEX, f"bridge/{INDEX}"
        now = {name: stamp(self.path / name, self.root) for name in names}
        held = False if stamp(self.path / LOCK, self.root) is None else is_held(self.path)
        found = now | {"held": held}
        if found == self._stamps:
            return
        alone = now[INDEX] is not None and now[METRICS] is None
        if alone:
            self.settings = self._of_bridge()
        elif now[SETTINGS] != self._stamps.get(SETTINGS):
            self.settings = self._object(SETTINGS)
        if now[METRICS] != self._stamps.get(METRICS):
            self._read_steps()
        self._stamps = found
        self.version += 1
        self.changed = max((s[2] for s in now.values() if s is not None), default=0) / 1e9
        finished = alone or now[f"bridge/{INDEX}"] is not None
        self.state, self.why = self._ended(held, finished=finished)

    def _ended(self, held: bool | None, *, finished: bool) -> tuple[State, str]:
        if held:
            return "training", ""
        if finished and self.step >= self.steps:
            return "finished", ""
        if stamp(self.path / ENDED, self.root) is not None:
            found = self._object(ENDED)
            how: State = "stopped" if found.get("how") == "stopped" else "failed"
            return how, self._without_places(str(found.get("why", "")))[:500]
        if held is None:
            return "failed", "its process has gone without a word: killed, or out of memory"
        last = next(reversed(checkpoints(self.path)), None)
        if last is not None and last >= self.step:
            return "stopped", ""
        return "failed", "nothing says how it ended"

    def _without_places(self, text: str) -> str:
        """A text in which paths of this machine are their last part, and begin here in the run's.

        Where they lie is nobody's business who looks from afar.
        """
        for known in (self.path.resolve(), self.path.absolute()):
            text = text.replace(str(known), self.path.name) if self.path.name else text
        text = QUOTED.sub(lambda found: f"{found[1]}{Path(found[2]).name}{found[1]}", text)
        return str(without_folders(text, {}))

    def _of_bridge(self) -> dict[str, Any]:
        """What a bridge that lies there without its run says of its models."""
        record = self._object(INDEX)
        sides = {name: record.get(name) for name in ("language", "vision")}
        ids = {name: side.get("id") for name, side in sides.items() if isinstance(side, dict)}
        return ids | {"adapter": record.get("adapter")}

    def _object(self, name: str) -> dict[str, Any]:
        """A JSON object in the folder; {} where it cannot be read, and a line says so."""
        self.trouble.pop(name, None)
        try:
            return read_object(self.path / name, self.root)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self.trouble[name] = f"{name} cannot be read: {error}"
            return {}

    def _read_steps(self) -> None:
        self.step = self.warm_step = 0
        for row in last_rows(self.path / METRICS, self.root):
            self.step = self.step or _count(row.get(STEP))
            self.warm_step = self.warm_step or _count(row.get(WARM_STEP))
            if self.step or self.warm_step:
                return

    # ---- what one run shows

    def forget(self) -> None:
        """Let go of curves and pictures; `read_on` reads them anew."""
        self.figures, self.warm, self._sheets = {}, {}, {}
        self._growing = Growing(self.path / METRICS, self.root)

    def read_on(self) -> None:
        """Read what the metrics have more than at the last look."""
        for rows in self._growing.more():
            if rows is None:
                self.figures, self.warm = {}, {}
                continue
            for keys, alike in groupby(rows, tuple):
                if STEP in keys:
                    _note(self.figures, list(alike), STEP)
                elif WARM_STEP in keys:
                    _note(self.warm, list(alike), WARM_STEP)
        self.read = self._growing.lines
        if self._growing.trouble:
            self.trouble[METRICS] = self._growing.trouble
        else:
            self.trouble.pop(METRICS, None)

    def sample_steps(self) -> list[int]:
        """The steps that there are sample grids of."""
        folder = self.path / SAMPLES
        if not inside(folder, self.root):
            return []
        try:
            names = [SAMPLE.fullmatch(entry.name) for entry in folder.iterdir()]
        except OSError:
            return []
        return sorted({int(name[1]) for name in names if name})[-MOST_SAMPLES:]

    def sample(self, step: int) -> Sample:
        """The sample grid of a step; empty where there is none, or none that can be read."""
        name = f"{SAMPLES}/{step:06d}.png"
        now = stamp(self.path / name, self.root)
        if now is None:
            return Sample(step)
        if (kept := self._sheets.get(step)) is None or kept[0] != now:
            kept = now, self._opened(name, step)
            while len(self._sheets) > 8:
                self._sheets.pop(next(iter(self._sheets)))
            self._sheets[step] = kept
        return kept[1]

    def _opened(self, name: str, step: int) -> Sample:
        self.trouble.pop(name, None)
        try:
            with Image.open(self.path / name, formats=["PNG"]) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError("it is too large")
                image.load()
                text = str(getattr(image, "text", {}).get(KEY, ""))
                sheet = image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = str(error).replace(str(self.path / name), name)
            self.trouble[name] = f"{name} cannot be read: {reason}"
            return Sample(step)
        prompts = (parsed(text.encode()) or {}).get("prompts")
        if isinstance(prompts, list) and prompts:
            cut = tiles(sheet, len(prompts), tile=TILE)
            if cut:
                return Sample(step, dict(zip(map(str, prompts), map(data_url, cut), strict=True)))
        return Sample(step, sheet=data_url(sheet))


def is_run(folder: Path, root: Path) -> bool:
    """Whether a folder is that of a run: it has metrics, or settings beside a run's lock."""
    if stamp(folder / METRICS, root) is not None:
        return True
    there = [stamp(folder / name, root) for name in (SETTINGS, LOCK)]
    return None not in there


def _note(by: dict[str, Figure], rows: list[dict[str, Any]], key: str) -> None:
    """Add the numbers of rows that have the same keys; what is no number is passed over."""
    steps = [_count(row[key]) for row in rows]
    for name in rows[0]:
        if name == key:
            continue
        figure = by.get(name)
        if figure is None:
            if len(by) >= MOST_FIGURES:
                continue
            figure = by[name] = Figure()
        figure.extend(steps, [row[name] for row in rows])


def _count(value: object) -> int:
    """A number of steps; 0 where it is none."""
    return value if type(value) is int and 0 <= value < 2**53 else 0
