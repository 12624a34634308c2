"""Where a bridge lives, and in which precision."""

import os
import platform
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from lavi_bridge.errors import BridgeError

T = TypeVar("T")


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the GPU where there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise BridgeError(f"unknown device '{device}'; use cpu, cuda, cuda:1 …") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise BridgeError(f"device '{device}' asked for, but torch sees no GPU here; use cpu")
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
    """The device asked for, and of several GPUs the one of this process."""
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return chosen


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


def machine() -> str:
    """What the figures were measured on."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return gpu + (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )
