"""One resumable training loop for everything in the zoo.

A task says what is trained and what a step's loss is; every step draws its batch from the seed and
the step's number alone, so a run that was stopped goes on exactly as if it had not been.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import make_folder
from lavi_bridge.running.progress import progress
from lavi_bridge.running.run_state import RunState, stopping


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a task trains. Part of what a saved state is checked against."""

    steps: int
    batch: int
    lr: float
    """Peak of AdamW's rate: a rise over `warmup` steps, then half a cosine to a fiftieth."""
    warmup: int = 100
    weight_decay: float = 0.01
    ema: float = 0.0
    """Decay of the average of the weights that is kept in the end; 0 keeps the weights."""
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of a step, as a fraction of its peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.02 + 0.98 * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * done))))


class Task(nn.Module, ABC):
    """What is trained: its parameters that require a gradient, and the loss of one step."""

    @abstractmethod
    def loss(self, step: int, batch: int) -> Tensor:
        """The loss of one batch, which depends on the task's seed and `step` alone."""

    @abstractmethod
    def held_out(self) -> dict[str, float]:
        """Figures on data that is never trained on, by name."""


def fit(
    task: Task,
    schedule: Schedule,
    folder: Path,
    *,
    name: str,
    save_seconds: float = 60.0,
    log_every: int = 50,
) -> float:
    """Train `task` to the end of `schedule`; go on from what an earlier call left in `folder`.

    Leaves `state.safetensors` (weights, average, optimizer, step) and `log.jsonl` there; the state
    is replaced whole or not at all. At the end the averaged weights are in `task`, where asked for.

    Returns:
        Seconds of training in all, earlier calls included.

    Raises:
        BridgeError: the state there belongs to another schedule or model, the loss is not a number,
            or the disk is full (what was saved before stays).
    """
    make_folder(folder)
    trained = {n: p for n, p in task.named_parameters() if p.requires_grad}
    fused = next(iter(trained.values())).device.type == "cuda"
    optimizer = torch.optim.AdamW(
        trained.values(),
        lr=schedule.lr,
        betas=(0.9, 0.99),
        weight_decay=schedule.weight_decay,
        fused=fused,
    )
    average = {n: p.detach().clone() for n, p in trained.items()} if schedule.ema else {}
    state = RunState(
        folder / "state.safetensors",
        about=asdict(schedule),
        tensors={**trained, **{f"average/{n}": mean for n, mean in average.items()}},
        optimizer=optimizer,
    )
    earlier = state.load()
    step, seconds = earlier.get("step", 0), earlier.get("seconds", 0.0)
    log = Log(folder / "log.jsonl", step)
    if step == 0:
        log.write(step=0, **task.held_out())
    begun = saved = time.perf_counter()
    running: float | None = None
    task.train()
    with stopping() as asked_to_stop, progress(total=schedule.steps, desc=name) as bar:
        bar.update(step)
        while step < schedule.steps:
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr * schedule.rate(step)
            loss = task.loss(step, schedule.batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained.values(), schedule.clip)
            optimizer.step()
            step += 1
            if average:
                # while young the average is one of few steps
                weight = 1 - min(schedule.ema, step / (step + 10))
                torch._foreach_lerp_(
                    list(average.values()), [p.detach() for p in trained.values()], weight
                )
            if step % log_every == 0 or step == schedule.steps:
                value = loss.item()
                if value != value:
                    raise BridgeError(f"{name}: the loss is not a number at step {step}")
                running = value if running is None else 0.8 * running + 0.2 * value
                log.write(step=step, loss=value)
                bar.set_postfix(loss=f"{running:.4f}")
            bar.update()
            now = time.perf_counter()
            if asked_to_stop() or now - saved > save_seconds or step == schedule.steps:
                saved = now
                state.save(step=step, seconds=seconds + now - begun)
            if asked_to_stop():
                raise BridgeError(
                    f"{name}: stopped at step {step} of {schedule.steps}; "
                    "the same command goes on from there"
                )
    seconds += time.perf_counter() - begun
    with torch.no_grad():
        for parameter_name, mean in average.items():
            trained[parameter_name].copy_(mean)
    task.eval()
    if not log.finished:
        log.write(step=step, seconds=round(seconds, 1), **task.held_out())
    return seconds


class Log:
    """A file of JSON lines; lines past the step from which a run goes on are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() and step else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        self.finished = bool(kept) and "seconds" in json.loads(kept[-1])
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write(self, **values: Any) -> None:
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(values) + "\n")
