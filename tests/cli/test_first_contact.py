"""What a newcomer meets: the bare command, an installed package, a torch that is not there."""

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lavi_bridge.cli import main as cli
from lavi_bridge.cli.main import COMMANDS, FIRST_STEPS
from lavi_bridge.cli.train import train_config

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "lavi_bridge"
SMALLER = {"--steps": "1", "--warm-start": "2"}


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["lavi-bridge", *arguments])
    cli.main()


def first_commands() -> list[list[str]]:
    """The commands that the bare command names, as a shell reads them."""
    lines = FIRST_STEPS.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("  lavi-bridge ")]


def test_the_bare_command_is_short_and_names_three_to_try(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert shown.count("  lavi-bridge ") == len(first_commands()) == 3
    assert len(shown.splitlines()) <= 15
    assert "lavi-bridge --help" in shown


def test_the_help_names_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--help", monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)


def test_the_first_of_them_draws_and_the_second_is_a_valid_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw, train, again = first_commands()
    run(*draw, "--steps", "1", monkeypatch=monkeypatch)
    assert len(list((tmp_path / "images").glob("*.png"))) == 1
    config = train_config(train[1:])
    assert str(config.out) == again[1]
    assert draw[2:] == again[2:]


@pytest.mark.slow
def test_the_three_commands_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in first_commands():
        for flag, value in SMALLER.items():  # as named, but for how long
            if flag in words:
                words[words.index(flag) + 1] = value
        given = ["--steps", "1"] if words[0] == "generate" else ["--device", "cpu"]
        run(*words, *given, monkeypatch=monkeypatch)
    assert len(list((tmp_path / "images").glob("*.png"))) == 2
    assert (tmp_path / "runs" / "first" / "bridge").is_dir()


WITHOUT_TORCH = """
import sys

class Absent:
    @staticmethod
    def find_spec(name, *_):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, Absent)
from lavi_bridge.cli.main import main
main()
"""


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_torch_that_is_not_there_is_one_line_with_advice() -> None:
    done = without_torch("generate", "zoo:tiny-sd", "a red circle")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: torch is not installed here; https://pytorch.org/get-started")


def test_the_doctor_comes_without_torch_too() -> None:
    done = without_torch("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert "a torch that can be imported: anything at all" in done.stdout


def test_a_wheel_has_every_file_of_the_package() -> None:
    """All that lies in the package and is no Python is named by a pattern of pyproject.toml."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    patterns = tools["setuptools"]["package-data"]["lavi_bridge"]
    named = {path for pattern in patterns for path in PACKAGE.glob(pattern) if path.is_file()}
    there = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".py"}
    there = {path for path in there if "__pycache__" not in path.parts}
    assert len(there) > 50
    assert there - named == set()
    assert all((folder / "__init__.py").is_file() for folder in python_folders())


def python_folders() -> set[Path]:
    """Those that `packages.find` has to find."""
    return {path.parent for path in PACKAGE.rglob("*.py")}


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """As in `lavi-bridge --help | head -1`."""
    reads, writes = os.pipe()
    os.close(reads)
    code = "import sys; from lavi_bridge.cli.main import main; sys.argv = ['x', '--help']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writes, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")
