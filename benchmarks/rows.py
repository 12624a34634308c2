"""What the benchmarks of trained bridges share: their judge, and their jobs in processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavi_bridge import Bridge
from lavi_bridge.metrics.shapes import facts_of
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.running.progress import progress
from lavi_bridge.shapes.scorer import score
from lavi_bridge.shapes.world import FactPrompt

SAMPLING: dict[str, Any] = {
    "steps": 12,
    "guidance": 4.0,
    "scheduler": "dpm++",
    "seed": 0,
}


def judge(bridge: Bridge, suites: Sequence[str]) -> dict[str, Any]:
    """Exact scores and facts met, by suite and prompt."""
    found: dict[str, Any] = {}
    for suite in suites:
        prompts = [FactPrompt(one.text, facts_of(one), one.category) for one in load_suite(suite)]
        found[suite] = drawn(bridge, prompts, suite)
    return found


def drawn(
    bridge: Bridge, prompts: Sequence[FactPrompt], title: str, **options: Any
) -> dict[str, Any]:
    """Exact scores and facts met, by prompt; `options` are of `generate`."""
    batch = 32 if bridge.vision.device.type == "cpu" else 128
    texts = [prompt.text for prompt in prompts]
    images = bridge.stream(texts, batch_size=batch, **SAMPLING | options)
    pictures = list(progress(images, total=len(prompts), desc=title, unit="image"))
    scores = score(pictures, [prompt.facts for prompt in prompts])
    return {
        "exact": [int(one.exact) for one in scores],
        "facts": [round(one.partial, 4) for one in scores],
    }


def side_by_side(
    file: str, waiting: Sequence[Sequence[str]], out: Path, workers: int, device: str
) -> None:
    """Run a benchmark's file with each of the options that wait, `workers` at a time.

    Raises:
        SystemExit: some failed; what is finished is kept.
    """
    left = [list(job) for job in waiting]
    running: list[subprocess.Popen[bytes]] = []
    failed = 0
    command = [sys.executable, file, "--out", str(out), "--device", device]
    try:
        while left or running:
            while left and len(running) < workers:
                job = left.pop(0)
                print(*job, flush=True)
                alone = os.environ | {"OMP_NUM_THREADS": "1"}
                running.append(subprocess.Popen([*command, *job], env=alone))
            time.sleep(1)
            for process in [p for p in running if p.poll() is not None]:
                running.remove(process)
                failed += bool(process.returncode)
    finally:
        for process in running:
            process.terminate()
            process.wait()
    if failed:
        raise SystemExit(f"{failed} jobs failed (see above); the same command goes on")
