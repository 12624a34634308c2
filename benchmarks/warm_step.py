"""What a step of a warm start costs and where its steps end, beside 23aaa31.

    git worktree add ../before 23aaa31
    python benchmarks/warm_step.py --before ../before/src

Both versions make a whole warm start of 400 steps on states (shapes world to tiny-sd, rank 16, two
threads), in turns of ten steps: 23aaa31 with AdamW on 64 captions, as its demo did, this one with
Muon on 40, as the demo does now. Seconds are means over all steps, as a caption costs more when it
first comes; the ratio's median and quartiles are over the turns. `unmatched` is what is left of the
states' variance on captions that were kept aside, of three seeds if asked for.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from turns import Worker

import lavi_bridge

STEP = """
from lavi_bridge import Bridge
{imports}

bridge = Bridge.connect("{language}", "zoo:tiny-sd", rank=16, dropout=0.0, device="cpu")
warm = WarmStart(bridge, ShapesWorld().captions(40_000), steps={steps}, seed={seed}, {options})
steps = warm.run()

def step():
    next(steps)
"""
IMPORTS = {
    "before": "from lavi_bridge.warm_start import WarmStart\n"
    "from lavi_bridge.zoo.world import ShapesWorld",
    "now": "from lavi_bridge.train.warm_start.warm_start import WarmStart\n"
    "from lavi_bridge.shapes.world import ShapesWorld",
}
OPTIONS = {"before": "batch_size=64, lr=6e-3", "now": "batch_size=40, lr=8e-3"}
LANGUAGES = ("zoo:tiny-t5-large", "zoo:tiny-llama")
TURNS, STEPS = 40, 10


def measure(trees: dict[str, Path], seeds: int) -> None:
    """Print a row a language model and seed: seconds a step, their ratio, what is left."""
    print(
        "| language, seed | s a step: " + " | ".join(trees) + " | ratio | of the turns | "
        "unmatched: " + " | ".join(trees) + " |"
    )
    print("|---" * (2 * len(trees) + 3) + "|")
    for language in LANGUAGES:
        for seed in range(seeds):
            _row(language, seed, trees)


def _row(language: str, seed: int, trees: dict[str, Path]) -> None:
    spent: dict[str, list[float]] = {name: [] for name in trees}
    with ExitStack() as stack:
        workers = {}
        for name, tree in trees.items():
            settings = {
                "PYTHONPATH": str(tree.resolve()),
                "OMP_NUM_THREADS": "2",
                "OMP_WAIT_POLICY": "PASSIVE",
            }
            prepare = STEP.format(
                imports=IMPORTS[name],
                language=language,
                seed=seed,
                steps=TURNS * STEPS,
                options=OPTIONS[name],
            )
            workers[name] = stack.enter_context(Worker(prepare, settings))
        for _ in range(TURNS):
            for name, worker in workers.items():
                spent[name].append(worker.seconds(STEPS))
        measure = "(getattr(warm, 'measure', None) or warm.held_out)('states')"  # of either tree
        left = [float(worker.value(measure)) for worker in workers.values()]
    before, now = (np.array(seconds) for seconds in spent.values())
    low, median, high = np.quantile(now / before, (0.25, 0.5, 0.75))
    print(
        f"| {language}, {seed} | {before.mean():.3f} | {now.mean():.3f} | "
        f"{now.mean() / before.mean():.2f} | {median:.2f} ({low:.2f}–{high:.2f}) | "
        f"{left[0]:.3f} | {left[1]:.3f} |",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="`src` of 23aaa31")
    parser.add_argument("--seeds", type=int, default=1, help="warm starts a language model")
    options = parser.parse_args()
    measure({"before": options.before, "now": Path(lavi_bridge.__file__).parents[1]}, options.seeds)
