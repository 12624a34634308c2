"""Reading and writing files so that nothing is lost and nothing damaged is taken for whole."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lavi_bridge.errors import BridgeError, first_line

if TYPE_CHECKING:
    from torch import Tensor

SCRATCH = ".part"
"""How the name of a file ends that takes another's place when it is whole."""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; a damaged one is a BridgeError that names it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BridgeError(f"{path} is damaged or cut short ({error}); fetch it again") from error


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Read named tensors that torch saved as a pickle; nothing else in the file is executed.

    Raises:
        BridgeError: there is no file, it is damaged, or it holds something else.
    """
    import pickle

    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = first_line(error)
        raise BridgeError(f"{path} is missing, damaged or no file of weights ({reason})") from error
    if not isinstance(found, dict) or not all(torch.is_tensor(value) for value in found.values()):
        raise BridgeError(f"{path} holds something else than named tensors")
    return found


@contextmanager
def new_folder(target: Path, *, own: Collection[str]) -> Iterator[Path]:
    """Write a folder whole or not at all: yield an empty one that takes `target`'s place at last.

    Of an earlier `target` the entries named in `own` are replaced, all others are carried over.
    An error inside leaves it as it was. Between two renames there is no `target`, and a crash in
    that moment leaves the earlier one beside it under a hidden name.

    Raises:
        BridgeError: it cannot be made there, or not be written, on a full disk say.
    """
    target = target.resolve()
    scratch: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        scratch.chmod(0o777 & ~_umask())
        yield scratch
        if target.exists():
            earlier = scratch.with_name(scratch.name + ".earlier")
            target.rename(earlier)
            scratch.rename(target)
            for entry in earlier.iterdir():
                if entry.name not in own:
                    entry.rename(target / entry.name)
            shutil.rmtree(earlier)
        else:
            scratch.rename(target)
    except Exception as error:
        if reason := disk_trouble(error):
            raise BridgeError(
                f"cannot write '{target}': {reason}; what was there before is untouched"
            ) from error
        raise
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def disk_trouble(error: Exception) -> str | None:
    """Why writing failed, in a few words; None where the error is about something else."""
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    if full:
        return "no space left on the disk"
    known = isinstance(error, OSError) or type(error).__name__ == "SafetensorError"
    return str(error) if known else None


def at_home(path: str | Path) -> Path:
    """A path with `~` and `~user` at its start read as a shell reads them.

    Where there is no such user the name stays as it is. What is really called `~` or as a user is
    named by its whole path (a leading `./` is not kept).
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def make_folder(folder: Path) -> None:
    """Make a folder for output; a file in its place, or no permission, is a BridgeError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BridgeError(f"cannot make folder '{folder}': {error.strerror}") from error


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: yield a path beside `path` that takes its place at last.

    An error inside leaves what was there before. Of a process that is killed the scratch file
    stays: see `remove_scratch`.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}{SCRATCH}")  # others may write it, too
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def remove_scratch(folder: Path, name: str | None = None) -> None:
    """Remove the scratch files that killed processes have left in `folder` and below.

    For the one who keeps others out: those of processes on other machines cannot be told apart.

    Args:
        name: the file that they are of; those of other files in the folder, and below, stay.
    """
    pattern = f".{name or '*'}.*{SCRATCH}"
    for left in folder.glob(pattern) if name else folder.rglob(pattern):
        process = left.name.removesuffix(SCRATCH).rpartition(".")[2]
        if process.isdecimal() and not is_running(int(process)):
            with suppress(OSError):  # not ours to remove, and in nobody's way
                left.unlink()


def is_running(process: int) -> bool:
    """Whether this machine has such a process; where asking would end it (Windows), True."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def raw_bytes(tensor: Tensor) -> bytes:
    """A tensor's values as they are in memory; numpy knows no bfloat16."""
    import torch

    flat = tensor.detach().cpu().reshape(-1).contiguous()
    return flat.view(torch.uint8).numpy().tobytes()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
