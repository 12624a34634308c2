"""What parting a warm start's batches by length spares: `python benchmarks/by_length.py`

Steps of 40 texts on pairs of the shapes world to tiny-sd, half of them told freely, with LoRA of
rank 16 in the language model, one thread: in turns of four steps, parted and whole. The loss of the
same step is shown for both.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from lavi_bridge import Bridge
from lavi_bridge.shapes.world import ShapesWorld
from lavi_bridge.train.warm_start import matching
from lavi_bridge.train.warm_start.pairs import Pair, fitting
from lavi_bridge.train.warm_start.warm_start import WarmStart

LANGUAGES = {"zoo:tiny-t5-large": 128, "zoo:tiny-t5-small": 128, "zoo:tiny-llama": 64}
TEXTS, TURNS, STEPS = 1_500, 7, 4


def make(language: str, tokens: int) -> WarmStart:
    """A warm start like the tables' own (`reproduce`)."""
    bridge = Bridge.connect(
        language, "zoo:tiny-sd", rank=16, vision_rank=0, dropout=0.0, tokens=tokens, device="cpu"
    )
    world = ShapesWorld()
    pairs = [Pair(told.text, told.plain, told.links) for told in world.retold(TEXTS)]
    read = fitting(pairs, bridge)
    return WarmStart(bridge, world.captions(TEXTS), pairs=read, steps=400, batch_size=40, lr=8e-3)


def measure(language: str, tokens: int) -> str:
    """A row of the table: processor seconds a step, and the losses after the last turn."""
    starts = {spared: make(language, tokens).run() for spared in (0.0, matching.SPARED)}
    spent: dict[float, list[float]] = {spared: [] for spared in starts}
    loss = {}
    for turn in range(TURNS + 1):
        for spared, steps in starts.items():
            matching.SPARED = spared
            begun = time.process_time()
            for _ in range(STEPS):
                loss[spared] = next(steps).loss
            if turn:  # the first tokenizes
                spent[spared].append((time.process_time() - begun) / STEPS)
    whole, parted = (median(times) for times in spent.values())
    ratio = median(a / b for a, b in zip(*spent.values(), strict=True))
    losses = " / ".join(f"{value:.6f}" for value in loss.values())
    return f"| {language} | {whole:.3f} | {parted:.3f} | {ratio:.2f} | {losses} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("languages", nargs="*", default=list(LANGUAGES))
    torch.set_num_threads(1)
    print(
        "| language | whole, s a step | parted | ratio | loss: whole / parted |\n"
        "|---|---|---|---|---|"
    )
    for name in parser.parse_args().languages:
        print(measure(name, LANGUAGES[name]), flush=True)
