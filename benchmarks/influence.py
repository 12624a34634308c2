"""Does influence find the object that a colour word is of? `python benchmarks/influence.py`

Plain prompts of the shapes world with two objects of two colours, drawn right by the demo's best
bridge. Each colour word is left out: the word counts as found where its own object changes more
than the other one; objects are those that the exact scorer finds. The control takes any other word
and either object.
"""

from __future__ import annotations

import argparse
import random
import re
from typing import Any

import numpy as np

from lavi_bridge import Bridge
from lavi_bridge.evaluate.influence import difference, without
from lavi_bridge.evaluate.statistics import wilson
from lavi_bridge.shapes.scorer import Detected, detect, score
from lavi_bridge.shapes.suites import plain_suite
from lavi_bridge.shapes.world import FactPrompt

BRIDGE, MARGIN = "zoo:minilm-tiny-sd", 2.0
SAMPLING: dict[str, Any] = {"steps": 20, "guidance": 4.0, "scheduler": "dpm++", "batch_size": 48}


def two_colours(asked: FactPrompt) -> bool:
    """Whether a prompt is of two objects whose colours are told once each."""
    objects = asked.facts.objects
    colours = {one.color for one in objects}
    told = all(len(re.findall(rf"\b{colour}\b", asked.text)) == 1 for colour in colours)
    return len(objects) == 2 == asked.facts.count and len(colours) == 2 and told


def change(apart: np.ndarray, figure: Detected) -> float:
    """The mean difference within an object's circle."""
    y, x = np.mgrid[: apart.shape[0], : apart.shape[1]]
    inside = (x + 0.5 - figure.x) ** 2 + (y + 0.5 - figure.y) ** 2 <= (figure.radius + MARGIN) ** 2
    return float(apart[inside].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bridge", default=BRIDGE)
    parser.add_argument("--prompts", type=int, default=48)
    given = parser.parse_args()
    bridge, rng = Bridge.load(given.bridge, device="cpu"), random.Random(0)
    candidates = [asked for asked in plain_suite() if two_colours(asked)]
    texts = [asked.text for asked in candidates]
    images = bridge.generate(texts, seed=[0] * len(texts), **SAMPLING)
    right = [verdict.exact for verdict in score(images, [asked.facts for asked in candidates])]
    kept = [i for i, exact in enumerate(right) if exact][: given.prompts]
    print(f"{len(texts)} prompts of two colours, {sum(right)} drawn right; {len(kept)} taken")
    jobs = []  # prompt, without a word, and the colour of the object that should change
    for i in kept:
        text, colours = texts[i], [one.color for one in candidates[i].facts.objects]
        for colour in colours:
            found = re.search(rf"\b{colour}\b", text)
            assert found is not None
            jobs.append(("colour", i, without(text, found.span()), colour))
        others = [m for m in re.finditer(r"\w+", text) if m[0] not in colours]
        for colour in colours:
            jobs.append(("control", i, without(text, rng.choice(others).span()), colour))
    drawn = bridge.generate([job[2] for job in jobs], seed=[0] * len(jobs), **SAMPLING)
    hits: dict[str, list[bool]] = {"colour": [], "control": []}
    for (kind, i, _, colour), image in zip(jobs, drawn, strict=True):
        figures = {figure.color: figure for figure in detect([images[i]])[0][0]}
        apart = difference(images[i], image)
        own = change(apart, figures.pop(colour))
        (other,) = (change(apart, figure) for figure in figures.values())
        hits[kind].append(own > other)
    for kind, told in hits.items():
        share = sum(told) / len(told)
        low, high = wilson(share, len(told))
        print(f"{kind}: {share:.2f} ({low:.2f}-{high:.2f}) of {len(told)} words")


if __name__ == "__main__":
    main()
