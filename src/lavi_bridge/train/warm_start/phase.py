"""The warm start as people begin it: in Python, and as the first phase of a training run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import torch

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.config import Match, Solve
from lavi_bridge.files.atomic import write_text
from lavi_bridge.running.blocks import uncompiled
from lavi_bridge.running.progress import progress as progress_bar
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.record import Record
from lavi_bridge.train.warm_start.pairs import Pair, as_pairs
from lavi_bridge.train.warm_start.report import Report
from lavi_bridge.train.warm_start.warm_start import WarmStart

WARM = "warm-start"
"""Folder in a run for the state and the report of its warm start."""


def warm_start_phase(
    bridge: Bridge, captions: Sequence[str], config: TrainConfig, record: Record, *, main: bool
) -> None:
    """Run the warm start that a configuration asks for, on every process alike.

    Args:
        main: whether this is the process that writes.

    Raises:
        BridgeError: see `warm_start`.
    """
    torch.manual_seed(config.seed)
    warm = WarmStart(
        bridge,
        captions,
        match=config.warm_start_match,
        solve=config.warm_start_solve,
        steps=config.warm_start,
        batch_size=config.warm_start_batch,
        lr=config.lr_warm_start,
        seed=config.seed,
        pairs=as_pairs(config.warm_start_pairs or (), bridge, seed=config.seed),
        teacher=config.warm_start_teacher,
        # processes that hold parts of the weights cannot save each at its own time
        folder=None if config.shard else config.out / WARM,
        saves=main,
    )
    record.forget("warm_start_step", after=warm.step)
    with (  # other shapes, and too few steps to compile for
        uncompiled(config.compile),
        closing(warm.run()) as steps,
        progress_bar(total=warm.steps, desc="warm start", disable=not main) as bar,
    ):
        bar.update(warm.step)
        for done in steps:
            bar.update()
            bar.set_postfix(unmatched=f"{done.loss:.3f}")
            if done.step % config.log_every == 0 or warm.finished or done.held_out is not None:
                record.add(
                    warm_start_step=done.step,
                    match=done.match,
                    mismatch=done.loss,
                    held_out=done.held_out,
                )
    report = warm.report(
        predictions=config.warm_start_report or config.warm_start_match in ("predictions", "both")
    )
    bridge.training_summary["warm_start_report"] = asdict(report)
    if main:
        text = json.dumps(asdict(report), indent=2) + "\n"
        write_text(config.out / WARM / "report.json", text)
        print(report, flush=True)


def warm_start(
    bridge: Bridge,
    captions: Sequence[str] = (),
    *,
    pairs: str | Path | Sequence[Pair | tuple[str, str]] = (),
    match: Match = "states",
    solve: Solve = "none",
    steps: int = 800,
    batch_size: int = 32,
    lr: float = 3e-3,
    seed: int = 0,
    teacher: str | Path | None = None,
    folder: Path | None = None,
    progress: bool = False,
) -> Report:
    """Fit adapter and language LoRA to the vision model's own text encoder; no image is read.

    The rate rises over a twentieth of the steps and decays to zero over the last two fifths. The
    decay begins earlier, and the start ends earlier, where held-out captions gain no more.

    Args:
        captions: what to learn from, some hundreds at least; the empty one is always added.
        pairs: what the bridge reads and what the own encoder reads, beside at most as many
            captions: a file of them, `shapes`, or a list; see `pairs`.
        match: `states` (the same hidden state for the same word; needs an own encoder whose
            states fit), `predictions` (the same noise predicted, on pictures that the vision
            model draws itself; any pair and any adapter), `both`, one after the other, or `sets`
            of states, whatever their order (for pairs whose words nothing links).
        solve: first give the adapter's last linear layer the weights that fit the states best, in
            closed form and in seconds: by `ridge` regression, or for `linear` by `procrustes`, an
            orthogonal map with one scale. For adapters of one feature a token.
        steps: at most; 0 where solving is all.
        batch_size: captions a step; for predictions at most 32.
        lr: peak of Muon's rate, which is of the size of AdamW's.
        teacher: another text encoder that the vision model understands, for folders without
            their own: a Hub id or a folder.
        folder: gets the state once a minute; called again, a start that was stopped goes on.
        progress: show a bar.

    Raises:
        BridgeError: no caption has text, there is no own encoder, its states do not fit (match
            predictions then), or it was stopped.
    """
    warm = WarmStart(
        bridge,
        captions,
        match=match,
        solve=solve,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        pairs=as_pairs(pairs, bridge, seed=seed),
        teacher=teacher,
        folder=folder,
    )
    with (
        closing(warm.run()) as made,
        progress_bar(total=warm.steps, desc="warm start", disable=not progress) as bar,
    ):
        bar.update(warm.step)
        for step in made:
            bar.update()
            bar.set_postfix(unmatched=f"{step.loss:.3f}")
    report = warm.report()
    bridge.training_summary["warm_start_report"] = asdict(report)
    return report
