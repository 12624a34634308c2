"""Commands in processes of their own, as a user starts them, but for the time that imports take.

A fresh interpreter spends up to ten seconds of a core on torch, transformers, diffusers and peft.
A server that has imported them, and done nothing else, forks instead: what a command does to its
environment, its threads and its signals is its own.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import warnings
import weakref
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(["tests.imported"])


def begin(target: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a function in a process that has the imports; both go there as pickles."""
    process = WARM.Process(target=_alone, args=(target, *arguments))
    with warnings.catch_warnings():  # the server inherits what a test makes of them
        warnings.simplefilter("ignore")
        process.start()
    return process


def _alone(target: Callable[..., object], *arguments: object) -> None:
    multiprocessing.set_start_method(None, force=True)  # what it starts are its own children
    target(*arguments)


class Command:
    """`lavi-bridge` with arguments, started; it leads a process group of its own."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        folder = Path(tempfile.mkdtemp())
        self._told = [folder / name for name in ("stdout", "stderr")]
        for path in self._told:
            path.touch()
        given = os.environ | environment
        self._process = begin(_main, list(map(str, arguments)), dict(given), Path.cwd(), self._told)
        self.pid = self._process.pid or 0
        weakref.finalize(self, _forget, folder, self._process)

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, or None if it still runs after so many seconds."""
        self._process.join(timeout)
        return self.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it and the processes it has started, as a terminal does."""
        _signal(self._process, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait()

    @property
    def stdout(self) -> str:
        return self._told[0].read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self._told[1].read_text(encoding="utf-8")


def _signal(process: BaseProcess, number: signal.Signals) -> None:
    if process.is_alive() and process.pid:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:  # so young that it leads no group yet
            os.kill(process.pid, number)


def _forget(folder: Path, process: BaseProcess) -> None:
    """End what a failed test has left running, and remove what it told."""
    _signal(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def lavi_bridge(*arguments: object, **environment: str) -> Command:
    """Run a command to its end."""
    command = Command(*arguments, **environment)
    command.wait()
    return command


def distributed(*arguments: object, processes: int = 2) -> list[Command]:
    """Start a command in several processes, with the environment that `torchrun` gives them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    team = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return [
        Command(*arguments, **team, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(processes)
    ]


def run_distributed(*arguments: object, processes: int = 2) -> list[Command]:
    """Run a command in several processes to its end, which must be a good one."""
    commands = distributed(*arguments, processes=processes)
    while any(command.poll() is None for command in commands):
        for command in commands:
            command.wait(0.1)
        if any(command.poll() for command in commands):  # as torchrun does
            for command in commands:
                command.kill()
    for command in commands:
        assert command.poll() == 0, command.stderr[-3000:]
    return commands


def _main(
    arguments: list[str], environment: dict[str, str], folder: Path, told: list[Path]
) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in zip((1, 2), told, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.argv = ["lavi-bridge", *arguments]
    sys.exit(_exit_code())


def _exit_code() -> str | int | None:
    """What the command ends with; its frames are gone then, and with them what reads ahead."""
    from lavi_bridge.cli.main import main

    try:
        main()
    except SystemExit as end:
        return end.code
    return 0
