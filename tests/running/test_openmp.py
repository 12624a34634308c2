"""Threads that wait sleep: set before torch is imported, unless a user says otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lavi_bridge.cli import main as cli
from lavi_bridge.running.openmp import OTHERS, SETTING, sleep_while_waiting

ALL = (*SETTING, *OTHERS)


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALL:
        monkeypatch.setenv(name, "")  # so that what is set here is taken back
        monkeypatch.delenv(name)


def test_the_command_line_sets_it_for_itself_and_its_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["lavi-bridge", "--version"])
    cli.main()
    told = subprocess.run(
        [sys.executable, "-c", "import os; print(os.environ['OMP_WAIT_POLICY'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "PASSIVE\n"


@pytest.mark.parametrize("name", ALL)
def test_a_users_own_setting_wins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "ACTIVE")
    sleep_while_waiting()
    assert {n: os.environ[n] for n in ALL if n in os.environ} == {name: "ACTIVE"}


def test_importing_the_package_sets_nothing() -> None:
    code = (
        "import os, lavi_bridge.cli.main, lavi_bridge.running.device; "
        "print('OMP_WAIT_POLICY' in os.environ)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


@pytest.mark.slow
def test_openmp_reads_it_when_torch_is_imported_by_a_command() -> None:
    """GNU's OpenMP prints what it has read, once it is loaded."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lavi_bridge",
            "generate",
            "no-such-bridge",
            "a cat",
        ],
        env=os.environ | {"OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no-such-bridge" in done.stderr  # it has come far enough
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this build of torch has no OpenMP that tells its settings")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


def test_make_sets_it_too() -> None:
    makefile = Path(__file__).parents[2] / "Makefile"
    told = subprocess.run(
        ["make", "-n", "-p", "-f", str(makefile), "clean"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "export OMP_WAIT_POLICY" in told or "OMP_WAIT_POLICY = PASSIVE" in told
