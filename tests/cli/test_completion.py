"""Shell completion: derived from the commands' flags, and tried in real shells."""

import contextlib
import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.cli import main as cli
from lavi_bridge.cli.completion import SETTINGS, flags, names, script
from lavi_bridge.cli.main import COMMANDS

needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
needs_zsh = pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")


def test_every_command_is_completed() -> None:
    assert list(dict.fromkeys(name.partition(" ")[0] for name in SETTINGS)) == list(COMMANDS)


@pytest.mark.parametrize("command", SETTINGS)
def test_the_flags_are_those_of_the_help(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *action = command.split()
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        COMMANDS[first]([*action, "--help"])
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    # a flag opens its line, or follows another one there
    told = set(re.findall(r"(?:^|│|, ) *(--[a-z][\w-]*)", shown, re.MULTILINE)) - {"--help"}
    assert {flag for each in flags(SETTINGS[command]) for flag in each} == told


def test_the_adapters_are_those_of_the_registry() -> None:
    assert sorted(names()["adapter"]) == sorted(ADAPTERS)


# ---- bash


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bash") / "lavi-bridge"
    path.write_text(script("bash"))
    return path


@needs_bash
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ge", "generate"),
        ("zoo ", "build score"),
        ("data ", "check"),
        ("generate zoo:tiny-s", "tiny-sd"),
        ("generate --dtype ", "float32 bfloat16 float16"),
        ("generate --dtype=b", "bfloat16"),
        ("generate runs/x --lora x.safetensors --off", "--offload"),
        ("generate runs/x --no-off", "--no-offload"),
        ("train --language zoo:tiny-t5-l", "tiny-t5-large"),
        ("train --out runs/x --optimizer adamw-", "adamw-8bit"),
        ("train --adapter re", "refiner resampler"),
        ("plan --json --rank ", ""),
        ("evaluate a b --suites shapes geneval drawb", "drawbench"),
        ("list v", "visions"),
        ("zoo build tiny-cl", "tiny-clip"),
        ("zoo build --che", "--check"),
        ("completion ", "bash zsh"),
        ("reproduce languages vis", "visions"),
        ("nonsense ", ""),
    ],
)
def test_bash_offers(line: str, offered: str, bash_script: Path, tmp_path: Path) -> None:
    ask = (
        f"source {bash_script}; COMP_LINE=$1 COMP_POINT=${{#1}}; _lavi_bridge; "
        'echo "${COMPREPLY[*]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", ask, "bash", f"lavi-bridge {line}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == (offered, "")


def typed(shell: list[str], setup: str, keys: str, folder: Path, expected: str) -> str:
    """What an interactive shell on a terminal shows after keys, once it has what is expected."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(shell[0], shell, {**os.environ, "TERM": "dumb", "PS1": "> "})
    shown = ""
    try:
        os.write(terminal, f"{setup}; echo rea''dy\n".encode())
        shown = _read(terminal, "ready")
        os.write(terminal, keys.encode())
        shown = _read(terminal, expected)
    finally:
        os.close(terminal)  # hangs up, which ends the shell
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return shown


def _read(terminal: int, expected: str) -> str:
    shown, deadline = "", time.monotonic() + 10
    while expected not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
            shown = shown.replace(" \b", "")  # as zsh takes a blank back
    return shown


KEYS = {
    "gen\tzoo:tiny-s\t--dt\tfl\t": "lavi-bridge generate zoo:tiny-sd --dtype float",
    "generate my\t": "lavi-bridge generate my\\ run/",
    "train con\t--out my\t": "lavi-bridge train config.yaml --out my\\ run/",
    "train --recipe paper-l\t--st\t": "lavi-bridge train --recipe paper-llama2-sd --steps ",
}
"""What is typed after `lavi-bridge `, and what then stands there."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my run").mkdir()
    (tmp_path / "config.yaml").touch()
    return tmp_path


@needs_bash
@pytest.mark.parametrize("keys", KEYS)
def test_keys_in_a_real_bash(keys: str, bash_script: Path, folder: Path) -> None:
    shown = typed(
        ["bash", "--norc", "--noprofile", "-i"],
        f"bind 'set bell-style none'; source {bash_script}",
        f"lavi-bridge {keys}",
        folder,
        KEYS[keys],
    )
    assert KEYS[keys] in shown


# ---- zsh


@needs_zsh
@pytest.mark.parametrize("keys", KEYS)
def test_keys_in_a_real_zsh(keys: str, folder: Path) -> None:
    functions = folder / ".functions"
    functions.mkdir()
    (functions / "_lavi-bridge").write_text(script("zsh"))
    shown = typed(
        ["zsh", "-f", "-i"],
        f"fpath=({functions} $fpath); autoload -U compinit; compinit -u -D",
        f"lavi-bridge {keys}",
        folder,
        KEYS[keys],
    )
    assert KEYS[keys] in shown


# ---- the command


def test_the_command_prints_the_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["lavi-bridge", "completion", "bash"])
    cli.main()
    assert capsys.readouterr().out == script("bash")
