"""What `lavi-bridge list` shows: the registries, the recipes, the bundled models, the suites."""

from __future__ import annotations

from textwrap import fill, indent

from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.evaluate.judging import GROUPS
from lavi_bridge.files.locate import zoo_names
from lavi_bridge.languages import LANGUAGES
from lavi_bridge.metrics import METRICS as IMAGE_METRICS
from lavi_bridge.metrics import shapes
from lavi_bridge.metrics.compbench import (
    blip_vqa,
    chunks,
    depth,
    nonspatial,
    numeracy,
    quirks,
    spatial,
    three_in_one,
)
from lavi_bridge.metrics.judge import dpg, soft_tifa, vqascore
from lavi_bridge.metrics.judge.asked import ByJudge
from lavi_bridge.prompts.catalogue import SUITES
from lavi_bridge.recipes import DIFFERENCES, METRICS, PAPER_SUFFIX, RECIPES
from lavi_bridge.show.tables import aligned
from lavi_bridge.visions import VISIONS

PARTS = ("adapter", "language", "vision")


def listing(what: str) -> str:
    """The registries, recipes, bundled models and prompt suites for `lavi-bridge list`."""
    parts = {
        "languages": "\n".join(
            f"  {kind.__name__:20} {', '.join(names)}"
            for kind, names in LANGUAGES.families().items()
        ),
        "visions": "\n".join(
            f"  {kind.__name__:20} {', '.join(names)} ({kind.default_tokens} tokens, "
            f"{'no mask' if kind.padding == 'read' else kind.padding})"
            for kind, names in VISIONS.families().items()
        ),
        "adapters": "\n".join(f"  {name:20} {_first_line(ADAPTERS[name])}" for name in ADAPTERS),
        "recipes": _recipes(),
        "zoo": "\n".join(f"  zoo:{name}" for name in zoo_names()),
        "suites": _suites(),
        "metrics": _metrics(),
        "quirks": _quirks(),
    }
    if what != "all":
        return parts[what]
    return "\n\n".join(f"{name}\n{text}" for name, text in parts.items())


def _recipes() -> str:
    """The paper's rows with every published score, and how our defaults differ."""
    heads = ["recipe", "tokens", "rates adapter / language / vision", *METRICS]
    rows, pairs = [heads], []
    for recipe in RECIPES.values():
        if not recipe.scores:
            continue
        rates = " / ".join(f"{recipe.settings[f'lr_{part}']:g}" for part in PARTS)
        rates += "" if recipe.rates_published else " *"
        tokens = f"{recipe.tokens} {'masked' if recipe.masked else 'no mask'}"
        rows.append([recipe.name, tokens, rates, *(f"{x:g}" for x in recipe.scores.values())])
        pairs.append(f"  {recipe.name:22} {recipe.language} × {recipe.vision}")
    lines = [*pairs, "", indent(aligned(rows), "  ")]
    lines.append("  * rates not published for this pair; these are T5-Large's with the SD U-Net")
    lines.append(f'  the paper ends every prompt in "{PAPER_SUFFIX}" (`generate --suffix`)')
    lines.append("  `paper` has the paper's settings for any pair; `default` differs in:")
    for change in DIFFERENCES:
        ours = "bfloat16 on a GPU" if change.ours is None else change.ours
        lines.append(f"    {change.key}: {ours} instead of {change.paper}: {change.reason}")
    return "\n".join(lines)


def _suites() -> str:
    """Every prompt suite: its size, what its authors ask for, its categories and its source."""
    lines = []
    for suite in SUITES.values():
        images = f"{suite.images} image{'s' * (suite.images > 1)} each"
        lines.append(f"  {suite.name:22} {suite.count:5,} prompts, {images}; {suite.protocol}")
        notes = [", ".join(suite.categories), ", ".join(map(str, suite.sources))]
        lines += [f"  {'':22} {note}" for note in notes if note]
    lines.append("  NAME:CATEGORY is one category; any .txt, .tsv or .jsonl file is a suite, too")
    return "\n".join(lines)


def _metrics() -> str:
    """Every metric: its column's head, which way is better, its weights, and what it asks for."""
    lines = []
    for name in sorted(IMAGE_METRICS, key=lambda name: name in shapes.NAMES):
        kind = IMAGE_METRICS[name]
        better = "higher" if kind.higher else "lower"
        lines.append(f"  {name:16} {kind.title:22} {better:7} {kind.scorer}".rstrip())
        notes = [kind.licence]
        if kind.download:
            notes.append(f"{kind.download:g} GB to download, {kind.memory:g} GB in memory")
        notes.append(f"needs {kind.needs}" if kind.needs else "")
        if issubclass(kind, ByJudge):
            notes.append(f"published: {kind.published}")
        if any(notes):
            lines.append(f"  {'':16} {'; '.join(filter(None, notes))}")
    lines += [f"  {name} is {', '.join(parts)}" for name, parts in GROUPS.items()]
    lines.append("  in memory: the weights; a batch of 16 images comes on top")
    lines.append("  a judge's licence and size: `lavi-bridge evaluate … --judge MODEL --plan`")
    return "\n".join(lines)


def _quirks() -> str:
    """What official code does besides what its paper says (`evaluate --mode`): T2I-CompBench's, and
    that of the measures by a judge."""
    lines = []
    compbench = (quirks, chunks, blip_vqa, nonspatial, spatial, three_in_one, depth, numeracy)
    for module in (*compbench, soft_tifa, vqascore, dpg):
        for quirk in module.QUIRKS:
            lines.append(f"  {quirk.name} ({quirk.where})")
            for mode in ("faithful", "fixed"):
                told = quirk.official if mode == "faithful" else quirk.fixed
                lines.append(
                    fill(f"{mode}: {told}", 96, initial_indent=" " * 4, subsequent_indent=" " * 6)
                )
    return "\n".join(lines)


def _first_line(kind: type) -> str:
    import inspect

    module = inspect.getmodule(kind)
    return ((module.__doc__ if module else None) or "").strip().splitlines()[0]
