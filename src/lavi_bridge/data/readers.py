"""Processes that read ahead; that one died is told where its batch is awaited, and nowhere else.

torch's loader alone would tell it in a handler of SIGCHLD, which raises wherever the main process
is at the time; or as a connection that broke, if the batch on its way is missed before the process
counts as dead, and then the handler raises later still, when nobody expects it any more.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import active_children
from multiprocessing.connection import wait
from queue import Empty, SimpleQueue
from threading import Thread
from traceback import clear_frames
from typing import Any, Generic, TypeVar, cast

from torch.utils.data import DataLoader, Dataset

from lavi_bridge.errors import BridgeError

T = TypeVar("T")
PATIENCE = 5.0
"""Seconds in which a process whose connection broke must have ended, if its death was the cause."""
BROKEN = (OSError, EOFError, RuntimeError)
"""What a connection that breaks is told as."""
OWN = "in DataLoader worker process"
"""What torch says of an error that a process met and told itself."""


class Readers(Generic[T]):
    """Batches that so many processes read ahead; closed, it leaves none of them.

    Signals are the main process's to answer: readers pass over them and end with it.

    Args:
        batches: the keys of each batch.
        pack: makes one thing of a batch's items, in the process that has read them.

    Raises:
        BridgeError: one of the processes has died; nothing comes after.
    """

    def __init__(
        self,
        items: Dataset[Any],
        batches: Iterable[list[Any]],
        *,
        workers: int,
        pack: Callable[[list[Any]], T],
    ) -> None:
        loader = DataLoader(
            items,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=pack,
            worker_init_fn=_pass_over_signals,
        )
        others, handler = set(active_children()), signal.getsignal(signal.SIGCHLD)
        self._batches: Iterator[T] = iter(loader)
        if handler is not None and signal.getsignal(signal.SIGCHLD) is not handler:
            signal.signal(signal.SIGCHLD, handler)  # torch sets its own once, and raises in it
        self._processes = [p for p in active_children() if p not in others]

    def __iter__(self) -> Readers[T]:
        return self

    def __next__(self) -> T:
        if death := self._death():  # what it had read before may have died with it
            raise death
        # in a thread, for half a batch of a process that was killed is awaited for ever
        told: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        thread = Thread(target=_fetch, args=(self._batches, told), daemon=True)
        thread.start()
        while True:
            try:
                batch, error = told.get(timeout=1)
                break
            except Empty:
                if death := self._death():
                    raise death from None
        thread.join()
        if error is None:
            return cast("T", batch)
        if isinstance(error, StopIteration):
            self.close()
        broken = isinstance(error, BROKEN) and OWN not in str(error)
        if death := self._death(PATIENCE if broken else 0):
            raise death from error
        raise error

    def close(self) -> None:
        """End the processes; what they have read ahead is lost."""
        self._batches = iter(())  # torch ends them as soon as nobody holds its iterator
        for process in self._processes:
            process.kill()
            process.join()
        self._processes = []

    def _death(self, patience: float = 0) -> BridgeError | None:
        """What to say of a process that has died, or dies within so many seconds."""
        if not self._processes:
            return None
        ended = wait([p.sentinel for p in self._processes], patience)
        for process in self._processes:
            if process.sentinel in ended:
                process.join()  # its files are closed; a moment later it has an exit code
            if code := process.exitcode:  # none ends by itself but with 0, after the last batch
                how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
                return BridgeError(
                    f"a process that reads images died ({how}); out of memory, perhaps: fewer "
                    "`workers`? The same command goes on from the last checkpoint"
                )
        return None


def _fetch(batches: Iterator[T], told: SimpleQueue[tuple[T | None, BaseException | None]]) -> None:
    """Give the next batch, or the error in place of it."""
    try:
        told.put((next(batches), None))
    except BaseException as error:
        clear_frames(error.__traceback__)  # which would keep torch's iterator, and processes
        told.put((None, error))


def _pass_over_signals(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
