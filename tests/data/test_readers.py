"""A process that reads ahead and dies is told of once, where its batch is awaited."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing import resource_sharer

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lavi_bridge import BridgeError
from lavi_bridge.data.readers import Readers


class Rows(Dataset[Tensor]):
    """Rows of their own numbers, but for what the eighth does to its reader."""

    def __init__(self, eighth: Callable[[], object]) -> None:
        self.eighth = eighth

    def __getitem__(self, number: int) -> Tensor:
        if number == 8:
            self.eighth()
        return torch.full((50,), number)


def readers(eighth: Callable[[], object], *, workers: int = 1, rows: int = 16) -> Readers[Tensor]:
    """Batches of four."""
    batches = [list(range(start, start + 4)) for start in range(0, rows, 4)]
    return Readers(Rows(eighth), batches, workers=workers, pack=torch.stack)


def die() -> None:
    os._exit(1)


def die_slowly() -> None:
    """As the kernel ends a process on a busy machine: its sockets close, later it is dead."""
    time.sleep(0.3)  # the batch before is on its way
    resource_sharer.stop()
    time.sleep(0.3)
    os._exit(1)


def fail() -> None:
    raise KeyError("eight")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves a process, nor a handler that may raise later."""
    others, handler = set(multiprocessing.active_children()), signal.getsignal(signal.SIGCHLD)
    yield
    assert set(multiprocessing.active_children()) == others
    assert signal.getsignal(signal.SIGCHLD) is handler
    signal.raise_signal(signal.SIGCHLD)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_come_in_their_order(workers: int) -> None:
    with closing(readers(lambda: None, workers=workers)) as batches:
        assert [batch[0, 0].item() for batch in batches] == [0, 4, 8, 12]
        assert list(batches) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_death_while_a_batch_is_awaited_is_told(workers: int) -> None:
    with (
        closing(readers(die, workers=workers)) as batches,
        pytest.raises(BridgeError, match=r"a process that reads images died \(exit code 1\)"),
    ):
        list(batches)


def test_a_connection_that_breaks_before_its_process_is_dead_is_a_death() -> None:
    with closing(readers(die_slowly)) as batches:
        assert next(batches)[0, 0] == 0
        time.sleep(0.4)  # the second batch is fetched from a process that ends
        with pytest.raises(BridgeError, match=r"a process that reads images died \(exit code 1\)"):
            next(batches)


def test_a_death_waits_until_a_batch_is_asked_for() -> None:
    with closing(readers(die)) as batches:
        assert next(batches)[0, 0] == 0
        (process,) = multiprocessing.active_children()
        process.join()
        time.sleep(0.05)  # handlers of signals have had their turn: none raises
        for _ in range(2):
            with pytest.raises(BridgeError, match="a process that reads images died"):
                next(batches)


def test_a_process_killed_in_the_midst_of_a_batch_is_no_endless_wait() -> None:
    batches = [list(range(start, start + 4)) for start in range(0, 7, 4)]
    longer = Readers(Rows(die), batches, workers=1, pack=lambda rows: "a" * 1_000_000)
    with closing(longer):
        time.sleep(0.5)  # it writes more than a pipe holds
        (process,) = multiprocessing.active_children()
        process.kill()
        with pytest.raises(BridgeError, match=r"a process that reads images died \(SIGKILL\)"):
            next(longer)


def test_an_error_of_a_reader_is_told_as_it_is() -> None:
    with closing(readers(fail)) as batches, pytest.raises(KeyError, match="eight"):
        list(batches)


def test_processes_end_with_the_block_that_reads() -> None:
    with closing(readers(lambda: None)) as batches:
        assert next(batches)[0, 0] == 0
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()


def test_an_interruption_while_a_batch_is_awaited_ends_the_processes() -> None:
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    with pytest.raises(KeyboardInterrupt), closing(readers(lambda: time.sleep(1))) as batches:
        list(batches)
    assert not multiprocessing.active_children()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
