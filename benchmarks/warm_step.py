"""What a step of a warm start costs, beside another version of this code.

    git worktree add ../before 23aaa31
    python benchmarks/warm_step.py --before ../before/src

Both versions make one whole warm start of 200 steps (64 captions of the shapes world to tiny-sd, on
states, rank 16, two threads), in turns of ten steps. Figures are means over all steps, as a caption
costs more when it first comes; the ratio's median and quartiles are over the turns.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from turns import Worker

import lavi_bridge

STEP = """
from lavi_bridge.bridge import Bridge
from lavi_bridge.warm_start import WarmStart
from lavi_bridge.zoo.world import ShapesWorld

bridge = Bridge.connect("{language}", "zoo:tiny-sd", rank=16, dropout=0.0, device="cpu")
warm = WarmStart(bridge, ShapesWorld().captions(40_000), steps=200, batch_size=64, lr=6e-3)
steps = warm.run()

def step():
    next(steps)
"""
LANGUAGES = ("zoo:tiny-t5-large", "zoo:tiny-llama")
TURNS, STEPS = 20, 10


def measure(trees: dict[str, Path]) -> None:
    """Print a row a language model: seconds a step in each tree, and their ratio."""
    print("| s a step | " + " | ".join(trees) + " | ratio | of the turns |")
    print("|---" * (len(trees) + 3) + "|")
    for language in LANGUAGES:
        found: dict[str, list[float]] = {name: [] for name in trees}
        with ExitStack() as stack:
            workers = {}
            for name, tree in trees.items():
                settings = {"PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "2",
                            "OMP_WAIT_POLICY": "PASSIVE"}  # fmt: skip
                prepare = STEP.format(language=language)
                workers[name] = stack.enter_context(Worker(prepare, settings))
            for _ in range(TURNS):
                for name, worker in workers.items():
                    found[name].append(worker.seconds(STEPS))
        before, now = (np.array(seconds) for seconds in found.values())
        low, median, high = np.quantile(now / before, (0.25, 0.5, 0.75))
        print(f"| {language} | {before.mean():.3f} | {now.mean():.3f} | "
              f"{now.mean() / before.mean():.2f} | {median:.2f} ({low:.2f}–{high:.2f}) |",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="`src` of the other version")
    options = parser.parse_args()
    measure({"before": options.before, "now": Path(lavi_bridge.__file__).parents[1]})
