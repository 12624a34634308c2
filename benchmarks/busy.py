"""What does a busy machine do to a training step, and which OpenMP setting is the cure?

    python benchmarks/busy.py                     # what users get, beside what they had
    python benchmarks/busy.py --settings none OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=1000

Every setting has a process of its own, with two threads, that waits for its turn: all take turns at
steps of tiny-llama × tiny-sd, alone, beside one and beside three processes that only count. Figures
are medians over the rounds, in seconds a step, and ratios to the first setting.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

STEP = """
import sys, time
import torch
from lavi_bridge.bridge import Bridge

bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", rank=16, device="cpu").train()
optimizer = torch.optim.AdamW(bridge.trainable_parameters(), lr=1e-4)
generator = torch.Generator().manual_seed(0)
latents = torch.randn(16, *bridge.vision.latent_shape(64, 64), generator=generator)
captions = ["a red circle left of a blue square"] * len(latents)
print("ready", flush=True)
for count in sys.stdin:
    begun = time.perf_counter()
    for _ in range(int(count)):
        bridge.loss(latents=latents, captions=captions).backward()
        optimizer.step()
        optimizer.zero_grad()
    print((time.perf_counter() - begun) / int(count), flush=True)
"""


class Worker:
    """A process that makes training steps under one setting when it is asked to."""

    def __init__(self, setting: str) -> None:
        chosen = dict([setting.split("=")]) if "=" in setting else {}
        known = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
        env = {k: v for k, v in os.environ.items() if k not in known}
        self.process = subprocess.Popen(
            [sys.executable, "-c", STEP], env=env | {"OMP_NUM_THREADS": "2"} | chosen, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.answer()

    def answer(self) -> str:
        """Return the next line that the process prints."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def seconds(self, steps: int) -> float:
        """Return the mean seconds of so many steps."""
        assert self.process.stdin
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self.answer())


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
    workers = {setting: Worker(setting) for setting in settings}
    loads = (0, 1, 3)
    found: dict[tuple[str, int], list[float]] = {(s, n): [] for s in settings for n in loads}
    for worker in workers.values():
        worker.seconds(2)
    for _ in range(rounds):
        for load in loads:
            with busy(load):
                for setting, worker in workers.items():
                    found[setting, load].append(worker.seconds(steps))
    for worker in workers.values():
        worker.process.kill()
        worker.process.wait()
    print(f"| seconds a step, medians of {rounds} | alone | beside 1 | beside 3 |")
    print("|---|---|---|---|")
    for setting in settings:
        medians = [statistics.median(found[setting, load]) for load in loads]
        first = [statistics.median(found[settings[0], load]) for load in loads]
        cells = [f"{m:.2f} ({m / f:.2f})" for m, f in zip(medians, first, strict=True)]
        print(f"| {setting} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", default=["none", "OMP_WAIT_POLICY=PASSIVE"],
                        help="NAME=VALUE of an environment variable, or none")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    measure(options.settings, options.rounds, options.steps)
