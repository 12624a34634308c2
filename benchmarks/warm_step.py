"""What a step of a warm start costs, beside another version of this code.

    git worktree add ../before 23aaa31
    python benchmarks/warm_step.py --before ../before/src

Both versions take turns: steps of 64 captions of the shapes world to tiny-sd, on states, rank 16,
two threads. Figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack
from pathlib import Path

from turns import Worker

import lavi_bridge

STEP = """
from lavi_bridge.bridge import Bridge
from lavi_bridge.warm_start import WarmStart
from lavi_bridge.zoo.world import ShapesWorld

bridge = Bridge.connect("{language}", "zoo:tiny-sd", rank=16, dropout=0.0, device="cpu")
warm = WarmStart(bridge, ShapesWorld().captions(20_000), steps=100_000, batch_size=64, lr=6e-3)
steps = warm.run()

def step():
    next(steps)
"""
LANGUAGES = ("zoo:tiny-t5-large", "zoo:tiny-llama")


def measure(trees: dict[str, Path], rounds: int, steps: int) -> None:
    """Print a row a language model: seconds a step in each tree, and their ratio."""
    print(f"| s a step, medians of {rounds} | " + " | ".join(trees) + " | ratio |")
    print("|---" * (len(trees) + 2) + "|")
    for language in LANGUAGES:
        found: dict[str, list[float]] = {name: [] for name in trees}
        with ExitStack() as stack:
            workers = {}
            for name, tree in trees.items():
                settings = {"PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "2",
                            "OMP_WAIT_POLICY": "PASSIVE"}  # fmt: skip
                prepare = STEP.format(language=language)
                workers[name] = stack.enter_context(Worker(prepare, settings))
            for worker in workers.values():
                worker.seconds(3)
            for _ in range(rounds):
                for name, worker in workers.items():
                    found[name].append(worker.seconds(steps))
        medians = [statistics.median(values) for values in found.values()]
        cells = " | ".join(f"{m:.3f}" for m in medians)
        print(f"| {language} | {cells} | {medians[-1] / medians[0]:.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="`src` of the other version")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    now = Path(lavi_bridge.__file__).parents[1]
    measure({"before": options.before, "now": now}, options.rounds, options.steps)
