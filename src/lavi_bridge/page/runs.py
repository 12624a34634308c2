"""What a page shows of runs, as HTML: curves, samples, settings; of one, or of two beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup

from lavi_bridge.show.output import whole
from lavi_bridge.show.plots import Line, as_values, draw_plot
from lavi_bridge.train.finding import Runs
from lavi_bridge.train.folder import Figure, RunFolder, Sample

LETTERS = "AB"
PLOTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("loss", ("loss",)),
    ("validation loss", ("val_loss", "probe_loss")),
    ("word sensitivity", ("word_sensitivity",)),
    ("learning rates", ("lr_adapter", "lr_language", "lr_vision")),
    ("gradient norm", ("grad_norm",)),
    ("images per second", ("images_per_second",)),
    ("peak memory, GB", ("peak_memory_gb",)),
    ("skipped images", ("skipped_images",)),
)
"""What is drawn together, by title; whatever else a run tells comes after, each alone."""
WARM_PLOTS = (("warm start: mismatch", ("mismatch", "held_out")),)
LOSSES = {"loss", "validation loss", "warm start: mismatch"}
NAMES = {"probe_loss": "probe", "val_loss": "held out", "held_out": "held out"}
SHOWN_TEXT = 300
"""Characters of a setting or a prompt that are shown."""


@dataclass(frozen=True)
class Shown:
    """A run that somebody looks at."""

    name: str
    run: RunFolder


def listed(runs: Runs, keys: Sequence[str], chosen: Sequence[str | None]) -> str:
    """The runs as a table, those chosen marked; `chosen` is the one shown and the one beside it."""
    if not keys:
        return str(Markup("<p>no runs there yet</p>{}").format(_notes(runs.notes)))
    rows = Markup("").join(
        _row(key, runs.names[key], runs.found[key], chosen) for key in keys if key in runs.names
    )
    head = "<th>run</th><th>models</th><th>steps</th><th>state</th><th>last change</th><th></th>"
    table = '<table class="lb-runs"><thead><tr>' + head + "</tr></thead><tbody>{}</tbody></table>{}"
    return str(Markup(table).format(rows, _notes(runs.notes)))


def _row(key: str, name: str, run: RunFolder, chosen: Sequence[str | None]) -> Markup:
    first, second = (key == other for other in chosen)
    mark = "A" if first else "B" if second else ""
    letter = Markup('<i class="lb-letter lb-letter-{}">{}</i> ').format(mark, mark) if mark else ""
    settings = run.settings
    models = Markup("{} → {}<small>{}</small>").format(
        _text(settings.get("language", "?")),
        _text(settings.get("vision", "?")),
        _text(settings.get("adapter", "")),
    )
    trouble = Markup("").join(
        Markup('<p class="lb-error">{}</p>').format(line) for line in sorted(run.trouble.values())
    )
    return Markup(
        '<tr class="{}"><td>{}<button type="button" data-run="{}" aria-pressed="{}">{}</button>{}'
        '</td><td>{}</td><td>{}</td><td><b class="lb-state lb-{}">{}</b></td><td>{}</td>'
        '<td><button type="button" data-beside="{}" aria-pressed="{}" aria-label="compare with {}">'
        "compare</button></td></tr>"
    ).format(
        "lb-chosen" if mark else "",
        letter,
        key,
        str(first).lower(),
        name,
        trouble,
        models,
        _progress(run),
        run.state,
        run.state,
        datetime.fromtimestamp(run.changed).strftime("%Y-%m-%d %H:%M") if run.changed else "",
        key,
        str(second).lower(),
        name,
    )


def _progress(run: RunFolder) -> Markup:
    if run.warm_step and not run.step and run.state != "finished":
        return Markup("{:,} of the warm start").format(run.warm_step)
    if not run.steps:
        return Markup("{}").format(f"{run.step:,}" if run.step else "")
    share = min(100, 100 * run.step // run.steps)
    return Markup('{:,} of {:,}<div class="lb-bar"><i style="width:{}%"></i></div>').format(
        run.step, run.steps, share
    )


def heading(shown: Sequence[Shown]) -> str:
    """Which runs are shown, and how those ended that ended early."""
    parts = []
    for letter, one in zip(LETTERS, shown, strict=False):
        state: str = one.run.state
        if why := _text(one.run.why):
            state = why if why.startswith(state) else f"{state}: {why}"
        trouble = Markup("").join(
            Markup('<p class="lb-error" role="alert">{}</p>').format(line)
            for line in sorted(one.run.trouble.values())
        )
        text = '<div><h3><i class="lb-letter lb-letter-{}">{}</i> {}</h3><p class="lb-ids">{}</p>'
        text = Markup(text + "{}</div>")
        parts.append(text.format(letter, letter, one.name, state, trouble))
    return str(Markup('<div class="lb-heads">{}</div>').format(Markup("").join(parts)))


# ---- curves


def curves(shown: Sequence[Shown], *, log: bool = False, over: float = 0) -> str:
    """All figures of the runs, each kind on axes of its own."""
    parts = [
        draw_plot(title, lines, across=across, log=log, over=over, lowest=title in LOSSES)
        for across, title, lines in _plots(shown)
    ]
    parts = [part for part in parts if part]
    if not parts:
        return str(Markup("<p>no curves yet</p>")) if shown else ""
    return str(Markup('<div class="lb-plots">{}</div>').format(Markup("").join(parts)))


def _plots(shown: Sequence[Shown]) -> list[tuple[str, str, list[Line]]]:
    """What the axes go over, the title, and the lines of each plot."""
    found = []
    for across, kinds, of in (
        ("step", PLOTS, [one.run.figures for one in shown]),
        ("warm-start step", WARM_PLOTS, [one.run.warm for one in shown]),
    ):
        known = {key for _, keys in kinds for key in keys}
        others = sorted({key for figures in of for key in figures} - known)
        alone = [(_text(key.replace("_", " ")), (key,)) for key in others]
        for title, keys in (*kinds, *alone):
            lines = _lines(shown, of, keys)
            if title != "skipped images" or any(line.values.any() for line in lines):
                found.append((across, title, lines))
    return found


def _lines(
    shown: Sequence[Shown], of: Sequence[Mapping[str, Figure]], keys: Sequence[str]
) -> list[Line]:
    """The lines of one plot: a colour for each run, dashes for each figure."""
    lines = []
    for number, figures in enumerate(of):
        for dash, key in enumerate(keys):
            if (figure := figures.get(key)) is not None and len(figure):
                name = NAMES.get(key, key.removeprefix("lr_").replace("_", " "))
                name = f"{LETTERS[number]} {name}" if len(shown) > 1 else name
                steps, values = as_values(figure.steps), as_values(figure.values)
                lines.append(Line(name, steps, values, number, dash if len(keys) > 1 else 0))
    return lines


# ---- samples


def looks(shown: Sequence[Shown]) -> list[int]:
    """The steps whose samples can be shown: those that all of the runs have, if there are any."""
    each = [set(one.run.sample_steps()) for one in shown]
    each = [steps for steps in each if steps]
    return sorted(set.intersection(*each) or set.union(*each)) if each else []


def samples(shown: Sequence[Shown], step: int | None) -> str:
    """The pictures of a step, prompt by prompt, the runs side by side."""
    if step is None:
        return str(Markup("<p>no samples yet</p>")) if shown else ""
    found = [one.run.sample(step) for one in shown]
    prompts = list(dict.fromkeys(prompt for sample in found for prompt in sample.pictures))
    cells = [
        Markup('<div class="lb-look"><p class="lb-prompt">{}</p>{}</div>').format(
            _text(prompt), _pair(shown, found, prompt)
        )
        for prompt in prompts
    ]
    sheets = [
        Markup('<div class="lb-sheets">{}</div>').format(_picture(shown, number, sample.sheet, ""))
        for number, sample in enumerate(found)
        if sample.sheet
    ]
    body = Markup("").join([*cells, *sheets]) or Markup("<p>no samples at this step</p>")
    return str(
        Markup('<p class="lb-ids">at step {:,}</p><div class="lb-looks">{}</div>').format(
            step, body
        )
    )


def _pair(shown: Sequence[Shown], found: Sequence[Sample], prompt: str) -> Markup:
    pictures = Markup("").join(
        _picture(shown, number, sample.pictures.get(prompt, ""), prompt)
        for number, sample in enumerate(found)
    )
    return Markup('<div class="lb-pair">{}</div>').format(pictures)


def _picture(shown: Sequence[Shown], number: int, picture: str, prompt: str) -> Markup:
    name = shown[number].name
    letter = Markup("")
    if len(shown) > 1:
        letter = Markup('<i class="lb-letter lb-letter-{}">{}</i>').format(*[LETTERS[number]] * 2)
    if not picture:
        return Markup('<div class="lb-tile">{}<p>none</p></div>').format(letter)
    text = Markup('<div class="lb-tile">{}<img alt="{}" src="{}"></div>')
    return text.format(letter, f"{name}: {_text(prompt)}" if prompt else name, picture)


# ---- settings


def settings(shown: Sequence[Shown]) -> str:
    """What differs between two runs, then all settings."""
    if not shown:
        return ""
    names = [one.name for one in shown]
    every = dict.fromkeys(key for one in shown for key in one.run.settings)
    rows = {key: [_value(one.run.settings, key) for one in shown] for key in every}
    parts = []
    if len(shown) > 1:
        different = {key: row for key, row in rows.items() if len(set(row)) > 1 and key != "out"}
        count = len(different)
        title = "1 setting differs" if count == 1 else f"{count or 'no'} settings differ"
        parts.append(_table(title, names, different, opened=True))
    parts.append(_table("all settings", names, rows))
    return str(Markup("").join(parts))


def _table(
    title: str, names: Sequence[str], rows: Mapping[str, Sequence[str]], *, opened: bool = False
) -> Markup:
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in ("setting", *names))
    body = Markup("").join(
        Markup("<tr><th>{}</th>{}</tr>").format(
            key, Markup("").join(Markup("<td>{}</td>").format(value) for value in row)
        )
        for key, row in rows.items()
    )
    return Markup(
        '<details class="lb-settings"{}><summary>{}</summary>'
        "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></details>"
    ).format(Markup(" open") if opened else "", title, head, body)


def _value(settings: Mapping[str, Any], key: str) -> str:
    if key not in settings:
        return "not told"
    value = settings[key]
    return "unset" if value is None else _text(value)


def _text(value: object) -> str:
    """What people wrote, as long as there is room for, in signs that can be sent."""
    text = whole(" ".join(str(value).split()))
    return text if len(text) <= SHOWN_TEXT else text[: SHOWN_TEXT - 1] + "…"


def _notes(notes: Sequence[str]) -> Markup:
    return Markup("").join(Markup('<p class="lb-ids">{}</p>').format(whole(line)) for line in notes)
