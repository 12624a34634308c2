"""Two runs and one folder: the second is told so, and a run that is killed leaves no lock."""

import errno
import fcntl
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.cli import main as cli
from lavi_bridge.data.cache.latents import ABOUT, check_about
from lavi_bridge.files.atomic import SCRATCH, new_file, write_text
from lavi_bridge.reproduce.jobs import claim
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.settings import Places
from lavi_bridge.running import lock
from lavi_bridge.running.device import join_processes
from lavi_bridge.running.lock import LOCK, held, in_turn, is_held
from lavi_bridge.train.checkpoints import STATE
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.run import Run
from lavi_bridge.zoo.demo import fresh
from lavi_bridge.zoo.making import build
from tests.processes import Command

Tiny = Callable[[str], Path]
FORK = multiprocessing.get_context("fork")
Runs = tuple[Path, dict[str, int]]
"""Their common folder, and their processes by name."""
USED = r"'{}' is in use by another run \(process {} on .*, since \d{{4}}-.*\); wait for it or "


def command(*arguments: object) -> None:
    """Run a command in this process."""
    sys.argv = ["lavi-bridge", *map(str, arguments)]
    cli.main()


def refused(
    arguments: list[object],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A second command ends at once, with one line."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert caught.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert re.search(message, line), line


@pytest.fixture(scope="module")
def flags(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A training run that lasts, but for its folder."""
    data = tmp_path_factory.mktemp("data")
    for color in ("red", "green", "blue", "yellow"):
        Image.new("RGB", (16, 16), color).save(data / f"{color}.png")
        (data / f"{color}.txt").write_text(f"a {color} wall")
    return [
        "--language",
        tiny("t5"),
        "--vision",
        tiny("sd"),
        "--data",
        data,
        "--rank",
        2,
        "--batch-size",
        1,
        "--tracker",
        "none",
        "--device",
        "cpu",
        "--sample-every",
        0,
        "--validate-every",
        0,
        "--save-every",
        4,
        "--keep",
        1000,
        "--workers",
        2,
    ]


@pytest.fixture(scope="module")
def runs(flags: list[object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Training, evaluating and filling a cache go on at the same time, each in its folder."""
    root = tmp_path_factory.mktemp("runs")
    given: dict[str, list[object]] = {
        "train": ["train", *flags, "--steps", 100_000, "--out", root / "train"],
        "evaluate": [
            "evaluate",
            "zoo:tiny-sd",
            "--suites",
            "shapes",
            "--steps",
            1000,
            "--device",
            "cpu",
            "--out",
            root / "evaluate",
        ],
        "cache": [
            "cache",
            "--vision",
            "zoo:tiny-sd",
            "--data",
            "shapes",
            "--device",
            "cpu",
            "--cache",
            root / "cache",
        ],
    }
    started = {name: Command(*arguments) for name, arguments in given.items()}
    for name, process in started.items():
        checkpoint = root / name / "step-4" / STATE
        until(checkpoint.is_file if name == "train" else partial(signed, root / name), process)
        process.send_signal(signal.SIGSTOP)  # it is there, and takes nobody's time
    yield root, {name: process.pid for name, process in started.items()}
    for process in started.values():
        process.kill()


def signed(folder: Path) -> bool:
    """Whether somebody has the folder's lock: the file alone is there a moment earlier."""
    file = folder / LOCK
    return file.is_file() and file.stat().st_size > 0


def until(there: Callable[[], bool], process: Command) -> None:
    """Wait for what a process is about to do."""
    while not there():
        assert process.poll() is None, process.stderr
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["train", "evaluate", "cache"])
def test_a_second_run_in_the_same_folder_is_told_who_is_there(
    name: str,
    runs: Runs,
    flags: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, pids = runs
    (root / "linked").unlink(missing_ok=True)
    (root / "linked").symlink_to(root / name)  # another path of the same folder
    option = "--cache" if name == "cache" else "--out"
    other: dict[str, list[object]] = {
        "train": ["train", *flags, "--rank", 4, "--steps", 3],
        "evaluate": ["evaluate", "zoo:tiny-sd", "--suites", "shapes", "--limit", 6, "--steps", 1],
        "cache": ["cache", "--vision", "zoo:tiny-sd", "--data", "shapes", "--device", "cpu"],
    }  # of other settings
    message = USED.format(root / "linked", pids[name]) + f"choose another {option}$"
    refused([*other[name], option, root / "linked"], message, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*their ends are not read")  # the tiny pair has few tokens
def test_its_checkpoint_can_be_evaluated_into_another_folder_and_its_plan_be_seen(
    runs: Runs, flags: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    out = runs[0] / "train"
    command(
        "evaluate",
        out / "step-4",
        "--suites",
        "shapes",
        "--limit",
        6,
        "--steps",
        1,
        "--device",
        "cpu",
        "--out",
        tmp_path,
    )
    command("train", *flags, "--out", out, "--dry-run")
    command("generate", out / "step-4", "a wall", "--steps", 1, "--device", "cpu", "--out", out)


def test_a_run_with_readers_that_is_killed_goes_on_at_once(runs: Runs, flags: list[object]) -> None:
    """Last in this file of those with `runs`: it ends one."""
    root, pids = runs
    os.kill(pids["train"], signal.SIGKILL)
    os.killpg(pids["train"], signal.SIGCONT)  # its readers, which end by themselves
    last = max(int(p.name.removeprefix("step-")) for p in (root / "train").glob("step-*[0-9]"))
    given = dict(zip([str(f)[2:].replace("-", "_") for f in flags[::2]], flags[1::2], strict=True))
    given |= {name: str(given[name]) for name in ("language", "vision", "data")}
    run = Run(TrainConfig(**given, out=root / "train", steps=last + 5))  # type: ignore[arg-type]
    assert run.train().training_summary["steps"] == last + 5
    assert not (root / "train" / LOCK).read_bytes()  # and says nothing of those before


# ---- the lock itself


def hold(folder: Path, ready: Path) -> None:
    """In a process of its own: hold a folder, and fork a reader as a data loader does."""
    with held(folder):
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        ready.touch()
        time.sleep(20)


def test_what_a_killed_process_has_forked_does_not_keep_its_lock(tmp_path: Path) -> None:
    process = FORK.Process(target=hold, args=(tmp_path / "out", tmp_path / "ready"))
    process.start()
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    with pytest.raises(BridgeError, match="is in use"), held(tmp_path / "out"):
        pass
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with held(tmp_path / "out"):
        assert json.loads((tmp_path / "out" / LOCK).read_text())["process"] == os.getpid()


def test_what_is_left_of_a_dead_run_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    with held(tmp_path):
        record = json.loads((tmp_path / LOCK).read_text())
        ended = FORK.Process()
        ended.start()
        ended.join()
        (tmp_path / LOCK).write_text(json.dumps(record | {"process": ended.pid}))
        with pytest.raises(BridgeError, match=rf"process {ended.pid} on"), held(tmp_path):
            pass
    assert "perhaps by what is left of a run that was killed; waiting" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "nonsense", "[]", '{"process": 1}'])
def test_a_lock_file_alone_never_stands_in_the_way(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    with held(tmp_path):
        pass


def test_an_error_inside_lets_the_folder_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError), held(tmp_path):
        raise KeyError
    with held(tmp_path):
        pass


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gets_a_warning(
    tmp_path: Path, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_file: int, _operation: int) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", flock)
    told = pytest.warns(UserWarning, match="cannot be locked .*: see that no other run writes")
    with told, held(tmp_path), in_turn(tmp_path):
        (tmp_path / "made").touch()
    assert (tmp_path / "made").exists()


def rank(number: int, folder: Path, port: int, told: Path) -> None:
    """One process of torchrun."""
    os.environ |= {
        "RANK": str(number),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    join_processes()
    try:
        with held(folder):
            (told / f"{number}-inside").touch()
    except BridgeError as error:
        (told / f"{number}-error").write_text(str(error))


@pytest.mark.parametrize(("taken", "port"), [(True, 29551), (False, 29552)])
def test_all_processes_of_torchrun_share_one_lock_or_end_with_the_same_line(
    tmp_path: Path, taken: bool, port: int
) -> None:
    team = [FORK.Process(target=rank, args=(n, tmp_path / "out", port, tmp_path)) for n in (0, 1)]
    for process in team:
        process.start()
    if taken:
        with held(tmp_path / "out"):
            for process in team:
                process.join(30)
    for process in team:
        process.join(30)
        assert process.exitcode == 0
    if taken:
        first, second = ((tmp_path / f"{n}-error").read_text() for n in (0, 1))
        assert first == second
        assert f"process {os.getpid()} on" in first
    assert all((tmp_path / f"{n}-inside").exists() is not taken for n in (0, 1))


# ---- others that write


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (
            ["expand", "{}/short.txt", "--language", "zoo:tiny-llama", "--out", "{}/long.jsonl"],
            "long.jsonl",
        ),
        (["demo", "--out", "{}/demo"], "demo"),
        (["zoo", "build", "tiny-clip", "--check", "--out", "{}/zoo"], "zoo/work/tiny-clip"),
    ],
)
def test_commands_that_write_for_long_refuse_as_well(
    arguments: list[str],
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "short.txt").write_text("a cat\n")
    with held(tmp_path / place):
        message = USED.format(tmp_path / place, os.getpid())
        refused([a.format(tmp_path) for a in arguments], message, monkeypatch, capsys)


def test_models_of_the_zoo_may_be_made_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "run_stage", lambda *_: None)
    with held(tmp_path / "work" / "tiny-llama"):
        assert build.build(["tiny-clip"], out=tmp_path) == [tmp_path / "tiny-clip"]


def test_a_hidden_lock_is_no_content_of_a_folder(tiny: Tiny, tmp_path: Path) -> None:
    with held(tmp_path / "out"):
        pass
    assert [p.name for p in (tmp_path / "out").iterdir()] == [LOCK]
    Bridge.connect(tiny("t5"), tiny("sd"), rank=0, device="cpu").save(tmp_path / "out")
    with held(tmp_path / "demo"):
        with pytest.raises(BridgeError, match="is in use"):
            fresh(tmp_path / "demo")
        assert (tmp_path / "demo").exists()
    assert not fresh(tmp_path / "demo").exists()


def test_two_runs_that_begin_a_folder_at_once_take_turns(tmp_path: Path) -> None:
    """Each looks for settings and notes its own: the second must see the first one's."""
    places = Places(tmp_path)
    begun = [
        (lambda: claim(places, ReproduceConfig(["languages"], out=tmp_path)), places.settings),
        (lambda: check_about(tmp_path, {"seed": 0}, "latents"), tmp_path / ABOUT),
    ]
    for begin, noted in begun:
        with in_turn(tmp_path):
            second = FORK.Process(target=_outcome, args=(begin, tmp_path / "outcome"))
            second.start()
            second.join(0.3)
            assert second.is_alive()
            write_text(noted, '{"seed": 1, "seeds": 1}')
        second.join(20)
        assert " there, " in (tmp_path / "outcome").read_text()  # it has other settings


def _outcome(begin: Callable[[], object], told: Path) -> None:
    try:
        begin()
        told.write_text("nothing to say")
    except BridgeError as error:
        told.write_text(str(error))


# ---- what killed processes leave


def test_what_a_killed_writer_left_goes_when_the_next_run_begins(tmp_path: Path) -> None:
    def killed() -> None:
        with new_file(tmp_path / "images" / "a.png") as scratch:
            scratch.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    (tmp_path / "images").mkdir()
    process = FORK.Process(target=killed)
    process.start()
    process.join()
    (left,) = (tmp_path / "images").iterdir()
    with new_file(tmp_path / "b.json") as living:
        living.write_text("{}")
        with held(tmp_path):
            assert not left.exists()
            assert living.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, "b.json", "images"]


def test_beside_a_file_only_its_own_leftovers_go(tmp_path: Path) -> None:
    gone = FORK.Process(target=int)
    gone.start()
    gone.join()
    mine, other = (tmp_path / f".{name}.jsonl.{gone.pid}{SCRATCH}" for name in ("mine", "other"))
    mine.write_text("half")
    other.write_text("half")
    with held(tmp_path / "mine.jsonl"):
        assert not mine.exists()
        assert other.exists()


def test_whether_a_folder_is_in_use_is_seen_without_taking_it(tmp_path: Path) -> None:
    assert is_held(tmp_path) is False
    with held(tmp_path):
        assert is_held(tmp_path) is True
    assert is_held(tmp_path) is False
    (tmp_path / LOCK).write_text("{}")  # whoever signed has gone
    assert is_held(tmp_path) is None
    with held(tmp_path):
        pass


def test_looking_keeps_nobody_from_the_lock(tmp_path: Path) -> None:
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            is_held(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(20):
            with held(tmp_path):
                pass
    finally:
        ended.set()
        looking.join()
