"""How fast the shapes world is rendered and scored: `python benchmarks/world.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from lavi_bridge.shapes.scorer import score
from lavi_bridge.shapes.world import ShapesWorld, draw_scenes, evaluation_set, render


def rate(items: int, work: Callable[[], object], repeats: int = 5) -> float:
    """Items a second: the median over the repeats, after one run to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return items / median(seconds)


def main() -> None:
    scenes = draw_scenes(2048, seed=0)
    prompts, originals = evaluation_set(24)
    images, facts = render(originals), [prompt.facts for prompt in prompts]
    world = ShapesWorld()
    apart = range(0, len(world), 200)  # a shuffled loader meets a new block with most items

    rates = {
        "scenes drawn": rate(len(scenes), lambda: draw_scenes(len(scenes), seed=0)),
        "scenes rendered": rate(len(scenes), lambda: render(scenes)),
        "captions written": rate(2048, lambda: world.captions(2048)),
        "training items read": rate(len(apart), lambda: [world[index] for index in apart]),
        "images scored": rate(len(images), lambda: score(images, facts)),
    }
    for what, value in rates.items():
        print(f"{what:20} {value:10,.0f} a second")


if __name__ == "__main__":
    main()
