"""One run at a time in a folder: an advisory lock that ends with its process, however that ends.

The lock is the kernel's, on a hidden file inside; the file stays, says who has or had it, and never
stands in the way by itself. Processes that are forked meanwhile do not share it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import is_running, make_folder, remove_scratch

LOCK = ".lock"
"""In a folder that a run writes into; no content of it."""
TURN = ".turn.lock"
"""The lock of short pieces of work that wait for each other."""
GRACE = 0.5
"""Seconds that a process which is being killed takes to go."""
PATIENCE = 15.0
"""Seconds for what a killed run has left behind, its readers of images say, to end as well."""


@contextmanager
def held(place: Path, *, option: str = "--out") -> Iterator[None]:
    """Keep other runs out of a folder, or away from a file; a folder is made where there is none.

    Under torchrun the first process holds the lock, and where it cannot all of them raise.

    Args:
        option: what names the place on the command line, for the error.

    Raises:
        BridgeError: another run is at it.
    """
    from lavi_bridge.running.device import on_first  # brings torch

    lock = _lock(_file(place))

    def take() -> None:
        _take(lock, place, option)
        if lock.is_locked and _file(place).parent == place:
            remove_scratch(place)
        elif lock.is_locked:
            remove_scratch(place.parent, place.name)

    on_first(take)
    try:
        yield
    finally:
        _release(lock)


def refuse_if_held(place: Path, *, option: str = "--out") -> None:
    """Ask early whether another run is at a place, before models are loaded for nothing.

    Raises:
        BridgeError: one is.
    """
    from lavi_bridge.running.device import on_first

    def ask() -> None:
        if _file(place).exists():
            lock = _lock(_file(place))
            _take(lock, place, option)
            _release(lock)

    on_first(ask)


def is_held(place: Path) -> bool | None:
    """Whether a run is at a folder at this moment; None where one was that did not let go.

    It only looks: nothing is written, and nobody who wants the lock is kept from it.
    """
    file = place / LOCK
    try:
        with file.open("rb") as opened:
            signed = bool(opened.read(1))
            if (others := _others_have(opened.fileno())) is None:  # no such locks here
                others = signed and not _is_dead(_holder(_lock(file)))
    except OSError:
        return False
    return True if others else (None if signed else False)


def _others_have(file: int) -> bool | None:
    """Whether another process has the kernel's lock on a file; None where that cannot be told."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        # shared, and for a moment: who wants it for themselves tries again for longer than that
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Do a short piece of work in a folder after all others that are at theirs."""
    lock = _lock(folder / TURN)
    try:
        lock.acquire()
    except OSError as error:
        _warn(folder, error)
    try:
        yield
    finally:
        _release(lock)


def _file(place: Path) -> Path:
    return place.with_name(f".{place.name}{LOCK}") if place.suffix == ".jsonl" else place / LOCK


def _lock(file: Path) -> FileLock:
    # with a hook there is no fallback to a lock that outlives its process
    return FileLock(file, thread_local=False, on_acquired=_sign)


def _sign(file: int) -> None:
    """Write into the lock's file who has it; a full disk is no reason not to have it."""
    since = datetime.now().isoformat(" ", "minutes")
    record = {"process": os.getpid(), "host": platform.node(), "since": since}
    with suppress(OSError):
        os.ftruncate(file, 0)
        os.write(file, json.dumps(record).encode())


def _release(lock: FileLock) -> None:
    """Let go; what an ended run leaves says nothing of when it was, and by whom."""
    if lock.is_locked:
        with suppress(OSError):
            os.truncate(lock.lock_file, 0)
        lock.release()


def _take(lock: FileLock, place: Path, option: str) -> None:
    """Take the lock, waiting only for what is left of a run that is dead."""
    make_folder(Path(lock.lock_file).parent)
    try:
        lock.acquire(timeout=GRACE)
    except Timeout:
        holder = _holder(lock)
        if _is_dead(holder):
            print(
                f"'{place}' is in use, perhaps by what is left of a run that was killed; waiting "
                f"{PATIENCE:.0f} s at most",
                file=sys.stderr,
            )
            with suppress(Timeout):
                lock.acquire(timeout=PATIENCE)
                return
        told = " (process {process} on {host}, since {since})".format(**holder) if holder else ""
        raise BridgeError(
            f"'{place}' is in use by another run{told}; wait for it or choose another {option}"
        ) from None
    except OSError as error:
        _warn(place, error)


def _holder(lock: FileLock) -> dict[str, Any]:
    """Who has the lock; {} where that cannot be read."""
    try:
        found = json.loads(Path(lock.lock_file).read_text(encoding="utf-8"))
        return {"process": int(found["process"]), "host": found["host"], "since": found["since"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the process that took the lock is gone, as far as can be told here."""
    if not holder:
        return True  # it did not even come to sign
    # on Windows nothing is forked, so the lock has gone with its process
    return bool(holder["host"] == platform.node() and not is_running(holder["process"]))


def _warn(place: Path, error: OSError) -> None:
    warnings.warn(
        f"'{place}' cannot be locked ({error.strerror}): see that no other run writes there",
        stacklevel=4,
    )
