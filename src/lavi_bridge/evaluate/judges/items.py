"""What a judge is asked, and what is true: items of pairs of scenes, and of drawn pictures."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from lavi_bridge.errors import BridgeError, first_line
from lavi_bridge.evaluate.drawing import MANIFEST, checksum, drawn
from lavi_bridge.evaluate.judges.pairs import TEXTS, Pair
from lavi_bridge.files.journal import Journal
from lavi_bridge.metrics.shapes import facts_of
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.questions import KEY
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.shapes.scorer import score

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE, ATOMS = ("vqascore",), ("soft-tifa", "dpg-judge")
"""Metrics whose wording is of a whole prompt, and of one fact."""
ASKING = (*WHOLE, *ATOMS)
ATOM = "one fact"
"""Beside the kinds of texts, the kind of a question about a fact."""
PAIRS, DRAWN = "pairs", "drawn"
"""Where pictures come from: the world's own pairs, or an image model."""
KIND_OF_SUITE = {"shapes": "plain", "shapes-free": "free", "shapes-long": "long"}


@dataclass(frozen=True)
class Item:
    """One question about one picture, in the wording of one metric."""

    id: str
    picture: str
    cluster: str
    """What its answer resembles: all about one pair, or about one prompt's pictures."""
    text: str
    """What the pictures are told apart by: the right one should score more with it."""
    metric: str
    source: str
    """PAIRS or DRAWN."""
    category: str
    kind: str
    """One of TEXTS, or ATOM."""
    change: str
    """In what the pair differs; empty for drawn pictures."""
    prompt: Prompt
    """As the metric takes it."""
    true: bool


@dataclass(frozen=True)
class Case:
    """Pictures that are asked about together."""

    open: Callable[[], Mapping[str, Image.Image]]
    """By the items' names."""
    items: tuple[Item, ...]
    content: str = ""
    """What the pictures are known by beside the items' names: of a file its hash."""


def of_pair(pair: Pair, metrics: Sequence[str], side: int) -> Case:
    """Each of a pair's texts, and each question about its fact, about both pictures."""
    names = [f"{pair.id}-{letter}" for letter in "ab"]
    items = []
    for metric in metrics:
        for kind in TEXTS if metric in WHOLE else (ATOM,):
            for place, name in enumerate(names):
                text = f"{pair.id}.{metric}.{kind}.{'ab'[place]}"
                prompt = _prompt(pair, metric, kind, place, text)
                items += [
                    Item(
                        f"{text}.{shown[-1]}",
                        shown,
                        pair.id,
                        text,
                        metric,
                        PAIRS,
                        pair.category,
                        kind,
                        pair.change,
                        prompt,
                        shown == name,
                    )
                    for shown in names
                ]

    def opened() -> dict[str, Image.Image]:
        return dict(zip(names, pair.pictures(side), strict=True))

    return Case(opened, tuple(sorted(items, key=lambda item: item.picture)))


def _prompt(pair: Pair, metric: str, kind: str, place: int, name: str) -> Prompt:
    if metric in WHOLE:
        return Prompt(name, pair.texts[kind][place], pair.category)
    atom = pair.atoms[place]
    asked: dict[str, Any] = {"question": atom.question, "answer": atom.answer}
    if metric == "dpg-judge":
        asked = {"question": atom.yes_no}
    return Prompt(name, pair.texts["plain"][place], pair.category, facts={KEY: [asked]})


def shown(item: Item) -> str:
    """What a reader is told was asked: the question, with the answer where it is not Yes."""
    if KEY not in item.prompt.facts:
        return item.prompt.text
    (asked,) = item.prompt.facts[KEY]
    answer = asked.get("answer", "Yes")
    return asked["question"] + (f" {answer}" if answer != "Yes" else "")


# ---- pictures that image models drew


def of_drawn(folder: Path, per_category: int, seed: int, side: int) -> Iterator[Case]:
    """Pictures of an evaluation, each with its own prompt; as many right ones as wrong ones.

    Of each entry, suite and category at most `2 * per_category` pictures are taken, by chance.

    Raises:
        BridgeError: there are none, or none that can be told apart.
    """
    manifests = sorted(p for p in folder.rglob(MANIFEST) if p.parent.name in KIND_OF_SUITE)
    if not manifests:
        raise BridgeError(
            f"'{folder}' holds no pictures of the suites {', '.join(KIND_OF_SUITE)}; --pictures "
            "takes the folder of an evaluation of them"
        )
    any_ = False
    for manifest in manifests:
        place = manifest.parent
        name = place.relative_to(folder.parent).as_posix()
        groups: dict[tuple[str, bool], list[tuple[Path, Prompt]]] = defaultdict(list)
        for path, prompt, true in _judged(place):
            groups[prompt.category, true].append((path, prompt))
        for category in dict.fromkeys(category for category, _ in groups):
            both = groups[category, True], groups[category, False]
            count = min(per_category, *map(len, both))
            rng = random.Random(f"{seed} {category} {place.name}")
            for true, mine in zip((True, False), both, strict=True):
                for path, prompt in sorted(rng.sample(mine, count), key=lambda one: one[0].name):
                    any_ = True
                    yield _drawn_case(path, f"{name}/{path.name}", place.name, prompt, true, side)
    if not any_:
        raise BridgeError(
            f"all pictures of each category in '{folder}' are right, or all are wrong: nothing "
            "tells a judge from one that always says the same"
        )


def _judged(folder: Path) -> Iterator[tuple[Path, Prompt, bool]]:
    """The pictures that are whole, and whether the exact scorer finds all that they should show."""
    prompts = {prompt.id: prompt for prompt in load_suite(folder.name)}
    there = drawn(folder)
    for row in Journal(folder / MANIFEST).rows():
        if row["file"] not in there or row["id"] not in prompts:
            continue
        path, prompt = folder / "images" / row["file"], prompts[row["id"]]
        try:
            with Image.open(path) as picture:
                (verdict,) = score([picture.convert("RGB")], [facts_of(prompt)])
        except (OSError, ValueError) as error:
            raise BridgeError(f"'{path}' cannot be judged: {first_line(error)}") from error
        yield path, prompt, verdict.exact


def _drawn_case(path: Path, name: str, suite: str, prompt: Prompt, true: bool, side: int) -> Case:
    kind = KIND_OF_SUITE[suite]
    item = Item(
        f"{name}.{WHOLE[0]}",
        name,
        f"{suite}/{prompt.id}",
        f"{suite}/{prompt.id}",
        WHOLE[0],
        DRAWN,
        prompt.category,
        kind,
        "",
        prompt,
        true,
    )
    return Case(partial(_opened, path, name, side), (item,), checksum(path))


def _opened(path: Path, name: str, side: int) -> dict[str, Image.Image]:
    with Image.open(path) as picture:
        return {name: picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)}
