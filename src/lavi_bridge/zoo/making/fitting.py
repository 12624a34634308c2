"""How a bundled model is trained: an objective, a schedule, and what a folder keeps of both."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lavi_bridge.files.atomic import make_folder
from lavi_bridge.running import engine
from lavi_bridge.running.progress import progress
from lavi_bridge.running.run_state import RunState
from lavi_bridge.train.warm_start.muon import Muon


@dataclass(frozen=True)
class Schedule:
    """How long and how fast an objective is trained. A saved state is checked against it."""

    steps: int
    batch: int
    lr: float
    """Peak of AdamW's rate: a rise over `warmup` steps, then half a cosine to a fiftieth."""
    warmup: int = 100
    weight_decay: float = 0.01
    ema: float = 0.0
    """Decay of the average of the weights that is kept in the end; 0 keeps the weights."""
    clip: float = 1.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon has no weight decay."""

    def rate(self, step: int) -> float:
        """The learning rate of a step, as a fraction of its peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.02 + 0.98 * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * done))))


class Objective(nn.Module, ABC):
    """What is trained: its parameters that require a gradient, and the loss of one step."""

    @abstractmethod
    def loss(self, step: int, batch: int) -> Tensor:
        """The loss of one batch, which depends on the objective's seed and `step` alone."""

    @abstractmethod
    def held_out(self) -> dict[str, float]:
        """Figures on data that is never trained on, by name."""


class Fitting(engine.Task):
    """An objective under a schedule, its average and its log."""

    def __init__(
        self, objective: Objective, schedule: Schedule, folder: Path, *, name: str, log_every: int
    ) -> None:
        self.name, self.objective, self.schedule = name, objective, schedule
        self.log_every = log_every
        self.lr, self.clip = schedule.lr, schedule.clip
        trained = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        self.parameters = list(trained.values())
        self.optimizer = self._optimizer()
        self.average = [p.detach().clone() for p in self.parameters] if schedule.ema else []
        means = zip(trained, self.average, strict=False)
        state = RunState(
            folder / "state.safetensors",
            about=asdict(schedule),
            tensors={**trained, **{f"average/{n}": mean for n, mean in means}},
            optimizer=self.optimizer,
        )
        self.go_on(state)
        self.log = Log(folder / "log.jsonl", self.step)

    def _optimizer(self) -> torch.optim.Optimizer:
        schedule = self.schedule
        if schedule.optimizer == "muon":
            return Muon(self.parameters, schedule.lr)
        return torch.optim.AdamW(
            self.parameters,
            lr=schedule.lr,
            betas=(0.9, 0.99),
            weight_decay=schedule.weight_decay,
            fused=self.parameters[0].device.type == "cuda",
        )

    @property
    def end(self) -> int:
        return self.schedule.steps

    def rate(self) -> float:
        return self.schedule.rate(self.step)

    def loss(self) -> Tensor:
        return self.objective.loss(self.step, self.schedule.batch)

    def after_step(self, loss: float) -> None:
        if self.average:
            # while young the average is one of few steps
            weight = 1 - min(self.schedule.ema, self.step / (self.step + 10))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], weight)
        if self.step % self.log_every == 0 or self.finished:
            self.log.write(step=self.step, loss=loss)

    @torch.no_grad()
    def take_average(self) -> None:
        """Put the averaged weights, where there are any, into the objective."""
        for parameter, mean in zip(self.parameters, self.average, strict=False):
            parameter.copy_(mean)


def fit(
    objective: Objective,
    schedule: Schedule,
    folder: Path,
    *,
    name: str,
    save_seconds: float = 60.0,
    log_every: int = 50,
) -> float:
    """Train `objective` to the end of `schedule`; go on from what an earlier call left in `folder`.

    Leaves `state.safetensors` (weights, average, optimizer, step) and `log.jsonl` there; the state
    is replaced whole or not at all. At the end the averaged weights are in `objective`, where asked
    for.

    Returns:
        Seconds of training in all, earlier calls included.

    Raises:
        BridgeError: the state there belongs to another schedule or model, the loss is not a number,
            the disk is full (what was saved before stays), or it was stopped.
    """
    make_folder(folder)
    fitting = Fitting(objective, schedule, folder, name=name, log_every=log_every)
    if fitting.step == 0:
        fitting.log.write(step=0, **objective.held_out())
    objective.train()
    running: float | None = None
    with (
        closing(engine.train(fitting, save_seconds=save_seconds)) as losses,
        progress(total=schedule.steps, desc=name) as bar,
    ):
        bar.update(fitting.step)
        for loss in losses:
            running = loss if running is None else 0.98 * running + 0.02 * loss
            bar.update()
            bar.set_postfix(loss=f"{running:.4f}")
    fitting.take_average()
    objective.eval()
    if not fitting.log.finished:
        seconds = round(fitting.seconds, 1)
        fitting.log.write(step=fitting.step, seconds=seconds, **objective.held_out())
    return fitting.seconds


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
