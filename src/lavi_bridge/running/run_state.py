"""The state of a long run on disk: one safetensors file, written whole or not at all.

It holds live tensors (weights, averages, what the optimizer keeps of each) and, in its metadata,
what the run is and how far it came; a state of another run is refused.
"""

from __future__ import annotations

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
from lavi_bridge.files.atomic import disk_trouble, new_file
from lavi_bridge.running.blocks import like, whole
from lavi_bridge.running.claims import difference

SEPARATOR = "//"
"""Between a tensor's name and what the optimizer keeps of it."""
DEVICE_BOUND = ("fused", "foreach", "capturable")
"""Settings of an optimizer's groups that belong to the machine, not to the run."""


class RunState:
    """Saves and restores tensors in place, with what the optimizer keeps of those it trains."""

    def __init__(
        self,
        path: Path,
        *,
        about: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        writes: bool = True,
    ) -> None:
        """Take hold of what is to be saved; nothing is read or written yet.

        Args:
            about: what the run is: a saved state is put back only where all of this is equal.
            tensors: by name; those that are in the optimizer come with its state of them. On disk
                they are whole, also where processes hold parts of them.
            writes: of several processes all must save, and only one writes.
        """
        self.writes = writes
        self.path, self.tensors, self.optimizer = path, dict(tensors), optimizer
        self.about, self._known = _as_text(about), about
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
        extra = {key.rpartition(SEPARATOR)[0] for key in found.keys() - self.tensors.keys()}
        fits = fits and extra <= set(self.trained)
        changed = difference(json.loads(metadata.get("about", "{}")), self._known)
        if changed or not fits:
            named = f" ({changed})" if changed else ""
            raise BridgeError(
                f"{self.path} is of a run with other settings{named}; repeat those, or choose "
                "another folder"
            )
        progress: dict[str, Any] = json.loads(metadata["progress"])
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(like(tensor, found[name]))
        self._restore(found, progress.pop("optimizer", {}))
        return progress

    def _restore(self, found: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Give the optimizer back what it kept: tensors beside the weights, numbers of its groups.

        Its count of steps is not the run's where the moments were cleared.
        """
        # a fused AdamW counts on the device, others on the CPU
        on_device = any(group.get("fused") for group in self.optimizer.param_groups)
        kept: dict[str, dict[str, Any]] = {name: {} for name in self.trained}
        for key in sorted(found.keys() - self.tensors.keys()):  # in the same order on every process
            name, _, moment = key.rpartition(SEPARATOR)
            tensor = found[key]
            placed = tensor.ndim or on_device
            kept[name][moment] = like(self.tensors[name], tensor) if placed else tensor
        for key, number in numbers.get("state", {}).items():
            name, _, moment = key.rpartition(SEPARATOR)
            kept[name][moment] = number
        for name in self.trained:
            if kept[name]:
                self.optimizer.state[self.tensors[name]] = kept[name]
        for group, saved in zip(
            self.optimizer.param_groups, numbers.get("groups", []), strict=False
        ):
            group.update(saved)

    def save(self, *, step: int, **progress: Any) -> None:
        """Write everything, with the number of optimizer steps made and whatever else tells it.

        Raises:
            BridgeError: it cannot be written; the state saved before is untouched.
        """
        found = dict(self.tensors)
        numbers: dict[str, Any] = {}
        for name in self.trained:  # nothing is kept of them before the first gradient
            for moment, value in self.optimizer.state.get(self.tensors[name], {}).items():
                key = name + SEPARATOR + moment
                if isinstance(value, Tensor):
                    found[key] = value
                elif isinstance(value, int | float):
                    numbers[key] = value
        groups = [
            {k: v for k, v in group.items() if isinstance(v, int | float) and k not in DEVICE_BOUND}
            for group in self.optimizer.param_groups
        ]
        optimizer = {"state": numbers, "groups": groups}
        counts = {"step": step, **progress, "optimizer": optimizer}
        metadata = {"about": self.about, "progress": json.dumps(counts)}
        entire = {key: whole(tensor.detach()) for key, tensor in found.items()}
        if self.writes:
            write_tensors(_apart(entire), self.path, metadata)


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


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file whole or not at all.

    Raises:
        BridgeError: it cannot be written, on a full disk say; an earlier file is left as it was.
    """
    found = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with new_file(path) as scratch:
            save_file(found, scratch, metadata)
    except (OSError, SafetensorError) as error:
        raise BridgeError(
            f"cannot write {path}: {disk_trouble(error)}; what was saved there before is untouched"
        ) from error


def _as_text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, default=str)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without common memory (8-bit optimizers share tables): safetensors refuses it."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        found[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return found
