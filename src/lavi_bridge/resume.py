"""The state of a long run on disk: one safetensors file, written whole or not at all.

It holds live tensors (weights, averages, AdamW's moments) and, in its metadata, what the run is
and how far it came; a state of another run is refused.
"""

from __future__ import annotations

import errno
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lavi_bridge.errors import BridgeError

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of a parameter; its own count of steps is not the run's where it was cleared."""


class RunState:
    """Saves and restores tensors in place, with AdamW's moments of those that it trains."""

    def __init__(self, path: Path, *, about: Mapping[str, Any], tensors: Mapping[str, Tensor],
                 optimizer: torch.optim.Optimizer) -> None:  # fmt: skip
        """Take hold of what is to be saved; nothing is read or written yet.

        Args:
            about: what the run is: a saved state is put back only where all of this is equal.
            tensors: by name; those that are in the optimizer come with their moments.
        """
        self.path, self.tensors, self.optimizer = path, dict(tensors), optimizer
        self.about = json.dumps(about, sort_keys=True, default=str)
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.trained = [name for name, tensor in self.tensors.items() if id(tensor) in trained]

    def load(self) -> dict[str, Any]:
        """Put a saved state in place and return how far it came; {} where there is none.

        Raises:
            BridgeError: the file is damaged, or of another run.
        """
        if not self.path.exists():
            return {}
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise BridgeError(
                f"{self.path} is damaged ({error}); delete it to begin again"
            ) from error
        fits = all(n in found and found[n].shape == t.shape for n, t in self.tensors.items())
        if metadata.get("about") != self.about or not fits:
            raise BridgeError(
                f"{self.path} is of a run with other settings{_difference(metadata, self.about)}; "
                "repeat those, or choose another folder"
            )
        progress: dict[str, Any] = json.loads(metadata["progress"])
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(found[name])
        # a fused AdamW counts on the device, others on the CPU
        on_device = any(group.get("fused") for group in self.optimizer.param_groups)
        for name in self.trained:
            parameter = self.tensors[name]
            moments = {moment: found[f"{name}/{moment}"] for moment in MOMENTS}
            self.optimizer.state[parameter] = {
                moment: tensor.to(parameter.device) if tensor.ndim or on_device else tensor
                for moment, tensor in moments.items()
            }
        return progress

    def save(self, *, step: int, **progress: Any) -> None:
        """Write everything, with the number of optimizer steps made and whatever else tells it.

        Raises:
            BridgeError: it cannot be written; the state saved before is untouched.
        """
        found = dict(self.tensors)
        for name in self.trained:
            moments = self.optimizer.state[self.tensors[name]]  # empty before the first gradient
            for moment in MOMENTS:
                none = torch.zeros(() if moment == "step" else found[name].shape)
                found[f"{name}/{moment}"] = moments.get(moment, none)
        metadata = {"about": self.about, "progress": json.dumps({"step": step, **progress})}
        write_tensors(found, self.path, metadata)


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C or SIGTERM ask a loop to stop between two steps instead of inside one.

    Yields a function that says whether to stop. A second signal interrupts at once.
    """
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # signals reach the main thread alone
        return
    earlier = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def write_tensors(tensors: Mapping[str, Tensor], path: Path,
                  metadata: dict[str, str] | None = None) -> None:  # fmt: skip
    """Write a safetensors file whole or not at all.

    Raises:
        BridgeError: it cannot be written, on a full disk say; an earlier file is left as it was.
    """
    scratch = path.with_name(f".{path.name}.part")
    try:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, scratch, metadata)
        scratch.replace(path)
    except (OSError, SafetensorError) as error:
        scratch.unlink(missing_ok=True)
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "no space left on the disk" if full else str(error)
        raise BridgeError(
            f"cannot write {path}: {reason}; what was saved there before is untouched"
        ) from error


def _difference(metadata: Mapping[str, str], about: str) -> str:
    """Name the first setting that differs, for the error."""
    theirs, ours = json.loads(metadata.get("about", "{}")), json.loads(about)
    for key in ours:
        if theirs.get(key) != ours[key]:
            return f" ({key}: {theirs.get(key)} there, {ours[key]} here)"
    return ""
