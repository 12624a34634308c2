"""One resumable loop for what trains beside a run: the warm start, and the bundled models.

A task says what is trained, how fast, and what the coming step's loss is. Every step draws from the
seed and its own number alone, so a task that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lavi_bridge.errors import Diverged, Stopped
from lavi_bridge.running.run_state import RunState, stopping


class Task(ABC):
    """What is trained, and where it stands."""

    name: str
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    lr: float
    """Peak of the optimizer's rate."""
    clip = 1.0
    """Largest norm of a step's gradient."""
    step = 0
    """Steps made."""
    seconds = 0.0
    """Spent on them, earlier calls included."""
    state: RunState | None = None
    """Keeps it on disk, where asked for."""

    @property
    @abstractmethod
    def end(self) -> int:
        """The last step; a task may find that it comes earlier."""

    @property
    def finished(self) -> bool:
        return self.step >= self.end

    @abstractmethod
    def rate(self) -> float:
        """The coming step's learning rate, as a fraction of its peak."""

    @abstractmethod
    def loss(self) -> Tensor:
        """The loss of the coming step."""

    def before_step(self) -> None:  # noqa: B027 - most tasks have nothing to do there
        """Do what a step begins with."""

    def after_step(self, loss: float) -> None:  # noqa: B027
        """Do what follows a step, before it is saved."""

    def remembered(self) -> dict[str, Any]:
        """What the state on disk holds beside tensors."""
        return {"step": self.step, "seconds": self.seconds}

    def recall(self, saved: Mapping[str, Any]) -> None:
        """Take up what `remembered` gave when the state was saved."""
        self.step, self.seconds = saved["step"], saved["seconds"]

    def go_on(self, state: RunState) -> None:
        """Keep the task in `state` from now on, and go on from what is there."""
        self.state = state
        if saved := state.load():
            self.recall(saved)

    def save(self) -> None:
        if self.state is not None:
            self.state.save(**self.remembered())


def train(task: Task, *, save_seconds: float = 60.0) -> Generator[float]:
    """Make the steps that are left and yield the loss of each; the state is saved every minute.

    Raises:
        Stopped: by Ctrl-C or SIGTERM (the state is saved, if it is kept on disk).
        Diverged: a loss or its gradient is not a number; such a step is neither made nor saved.
    """
    begun = saved = time.perf_counter()
    before = task.seconds
    with stopping() as asked_to_stop:
        while not task.finished:
            task.before_step()
            for group in task.optimizer.param_groups:
                group["lr"] = task.lr * task.rate()
            loss = task.loss()
            value = loss.item()
            task.optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(task.parameters, task.clip)
            if not math.isfinite(value) or not math.isfinite(norm):
                raise Diverged(
                    f"{task.name}: the loss or its gradient is not a number at step "
                    f"{task.step + 1}; lower its rate"
                )
            task.optimizer.step()
            task.step += 1
            task.after_step(value)
            now = time.perf_counter()
            task.seconds = before + now - begun
            if asked_to_stop() or now - saved > save_seconds or task.finished:
                saved = now
                task.save()
            if asked_to_stop():
                where = f"; it goes on from '{task.state.path.parent}'" if task.state else ""
                raise Stopped(f"{task.name} stopped at step {task.step} of {task.end}{where}")
            yield value
