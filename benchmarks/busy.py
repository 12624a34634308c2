"""What does a busy machine do to a training step, and which OpenMP setting is the cure?

    python benchmarks/busy.py                     # what the command line sets, beside what was
    python benchmarks/busy.py --settings none OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=1000

Every setting has a process of its own with two threads; all take turns at steps of tiny-llama ×
tiny-sd (16 pictures), alone, beside one and beside three processes that only count. Figures are
medians over the rounds, in seconds a step, and ratios to the first setting.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from turns import Worker

LOADS = (0, 1, 3)
STEP = """
import torch
from lavi_bridge.bridge.bridge import Bridge

bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", rank=16, device="cpu").train()
optimizer = torch.optim.AdamW(bridge.trainable_parameters(), lr=1e-4)
generator = torch.Generator().manual_seed(0)
latents = torch.randn(16, *bridge.vision.latent_shape(64, 64), generator=generator)
captions = ["a red circle left of a blue square"] * len(latents)

def step():
    bridge.loss(latents=latents, captions=captions).backward()
    optimizer.step()
    optimizer.zero_grad()
"""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many processes counting meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(settings: Sequence[str], rounds: int, steps: int) -> None:
    """Print a table: a row a setting, a column a number of busy processes."""
    found: dict[tuple[str, int], list[float]] = {(s, n): [] for s in settings for n in LOADS}
    with ExitStack() as stack:
        workers = {}
        for setting in settings:
            chosen = dict([setting.split("=")]) if "=" in setting else {}
            worker = stack.enter_context(Worker(STEP, {"OMP_NUM_THREADS": "2"} | chosen))
            worker.seconds(2)
            workers[setting] = worker
        for _ in range(rounds):
            for load in LOADS:
                with busy(load):
                    for setting, worker in workers.items():
                        found[setting, load].append(worker.seconds(steps))
    medians = {key: statistics.median(values) for key, values in found.items()}
    print(f"| s a step, medians of {rounds} | alone | beside 1 | beside 3 |\n|---|---|---|---|")
    for setting in settings:
        cells = [
            f"{(m := medians[setting, n]):.2f} ({m / medians[settings[0], n]:.2f})" for n in LOADS
        ]
        print(f"| {setting} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--settings",
        nargs="+",
        default=["none", "OMP_WAIT_POLICY=PASSIVE"],
        help="NAME=VALUE of an environment variable, or none",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    measure(options.settings, options.rounds, options.steps)
