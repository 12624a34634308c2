"""Where a bridge lives, and in which precision."""

import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.running.machine import BUILDS

T = TypeVar("T")
FOR_CPUS = f" (this torch is built for CPUs; {BUILDS} has the others)"


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the GPU where there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise BridgeError(f"unknown device '{device}'; use cpu, cuda, cuda:1 …") from error
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            build = "" if torch.version.cuda or torch.version.hip else FOR_CPUS
            raise BridgeError(
                f"device '{device}' asked for, but torch sees no GPU here; use cpu{build}"
            )
        if (chosen.index or 0) >= count:
            there = "is one: cuda:0" if count == 1 else f"are {count}: cuda:0 to cuda:{count - 1}"
            raise BridgeError(f"device '{device}' asked for, but there {there}")
    elif chosen.type != "cpu":
        here = torch.accelerator.current_accelerator()
        if here is None or here.type != chosen.type:
            raise BridgeError(f"device '{device}' asked for, but torch sees none here; use cpu")
    return chosen


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The precision asked for; bfloat16 on a GPU and float32 elsewhere by default."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in ("float32", "bfloat16", "float16"):
        raise BridgeError(f"unknown dtype '{dtype}'; known: float32, bfloat16, float16")
    return getattr(torch, dtype)


def processes() -> tuple[int, int]:
    """This process's number and how many there are, as torchrun tells; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def own_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, and of several GPUs the one of this process.

    Where a process sees but one GPU, as under Slurm's `--gpus-per-task=1`, it is that.
    """
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        number = int(os.environ.get("LOCAL_RANK", "0"))
        return torch.device("cuda", number % torch.cuda.device_count())
    return chosen


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on `device`; from a CPU to a GPU through pinned memory, so that nobody waits.

    A copy from ordinary memory waits for all that the GPU has still to do: the whole last step. So
    does one that would change the type or the layout on its way.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def visiting(modules: Iterable[nn.Module], device: torch.device | None) -> Iterator[None]:
    """Inside, modules that live on the CPU are on `device`; None leaves them where they are."""
    away = [] if device is None else [m for m in modules if not stays(m)]
    try:
        for module in away:
            module.to(device)
        yield
    finally:
        for module in away:
            module.to("cpu")


def stays(module: nn.Module) -> bool:
    """Whether a module is held in 8 or 4 bits, which are best left where they were made."""
    return not all(p.is_floating_point() for p in module.parameters())


@contextmanager
def float32_products(precision: Literal["highest", "high"]) -> Iterator[None]:
    """Inside, float32 matrices are multiplied in float32 (highest) or, on a GPU, in TF32 (high)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def join_processes() -> None:
    """Meet the other processes of torchrun, if there are any."""
    if processes()[1] > 1 and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(hours=12))


def wait_for_all() -> None:
    """Wait until all processes that have met are here."""
    if dist.is_initialized():
        dist.barrier()


def from_first(value: T) -> T:
    """What the first process chose, for all of them."""
    if not dist.is_initialized():
        return value
    chosen = [value]
    dist.broadcast_object_list(chosen)
    return chosen[0]


def on_first(action: Callable[[], object]) -> None:
    """Do something in the first process alone; its BridgeError is that of all of them.

    Processes that have not met do not wait, and only the first one fails.
    """
    failed: BridgeError | None = None
    if processes()[0] == 0:
        try:
            action()
        except BridgeError as error:
            failed = error
    failed = from_first(failed)
    if failed is not None:
        raise failed


class Agreement:
    """Whether any process was asked to stop: all of them have to at the same step.

    What several processes are told is the answer of one call before. They tell each other on the
    CPU, as the GPU has still this step to do.
    """

    def __init__(self, processes: int, *, patience: timedelta) -> None:
        self._processes, self._patience = processes, patience
        self._group: Any = None
        self._before: tuple[Tensor, Any] | None = None
        """The flag of the call before, and what to wait for."""

    def __call__(self, stop: bool) -> bool:
        """Say whether this process was asked; learn whether any was, up to the call before."""
        if self._processes == 1:
            return stop
        if self._group is None:
            self._group = dist.new_group(backend="gloo", timeout=self._patience)
        before, flag = self._before, torch.tensor([float(stop)])
        self._before = flag, dist.all_reduce(flag, group=self._group, async_op=True)
        if before is None:
            return False
        before[1].wait()
        return bool(before[0])


def machine() -> str:
    """What the figures were measured on."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return gpu + (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )
