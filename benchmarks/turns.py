"""Processes that take turns, so that what they are compared by meets the same machine.

Each runs a snippet of Python, under settings or with a source tree of its own, that prints `ready`
and then, for every number of steps that it is sent, the seconds of one, and for every expression
its value.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Self

OPENMP = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

LOOP = """
import sys, time
print("ready", flush=True)
for asked in sys.stdin:
    if not asked.strip().isdecimal():
        print(eval(asked), flush=True)
        continue
    begun = time.perf_counter()
    for _ in range(int(asked)):
        step()
    print((time.perf_counter() - begun) / int(asked), flush=True)
"""


class Worker:
    """A process that makes steps when it is asked to.

    Args:
        prepare: Python that defines `step()`.
        settings: environment variables; OpenMP's are taken from here alone.
    """

    def __init__(self, prepare: str, settings: Mapping[str, str]) -> None:
        env = {k: v for k, v in os.environ.items() if k not in OPENMP} | dict(settings)
        self._process = subprocess.Popen(
            [sys.executable, "-c", prepare + LOOP],
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        while (line := self._answer()) != "ready":
            if not line and self._process.poll() is not None:
                raise RuntimeError(f"the process ended before it was ready: {settings}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def seconds(self, steps: int) -> float:
        """Make so many steps and return the mean seconds of one."""
        return float(self.value(str(steps)))

    def value(self, expression: str) -> str:
        """What an expression is in the process, printed."""
        assert self._process.stdin
        self._process.stdin.write(f"{expression}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()
