"""`lavi-bridge doctor`: true of this machine, quick without a network, and fit to be pasted."""

import json
import re
import socket
import sys
import time
import tomllib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from lavi_bridge import __version__
from lavi_bridge.cli.doctor import PURPOSES, Report, as_text, doctor, examine, missing, without_home
from lavi_bridge.running import machine
from lavi_bridge.running.machine import Package
from tests import hub as stand_in

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture(scope="module")
def report() -> Report:
    """Of this machine, with no question to the Hub."""
    return examine()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """May ask what it takes for the Hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    close_session()
    return monkeypatch


# ---- this machine


def test_it_tells_what_is_here(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    doctor(["--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["lavi_bridge"] == __version__
    assert told["python"] == "{}.{}.{}".format(*sys.version_info)
    assert told["packages"]["diffusers"]["version"] == version("diffusers")
    assert told["packages"]["torch"]["fits"] is True
    assert told["cores"] == report.cores >= 1
    assert 0.5 < told["memory"]["available"] <= told["memory"]["total"]
    assert (told["torch"]["built_for"] == "CPU") == (torch.version.cuda is None)
    assert told["bundled"]["tiny-sd"] is True
    assert told["hub"]["reason"] == "not asked: HF_HUB_OFFLINE is set"
    assert [cache["free"] > 0 for cache in told["caches"]] == [True, True]


def test_the_text_has_a_line_for_each_fact(report: Report) -> None:
    text = as_text(report)
    for line in (
        rf"^lavi-bridge +{re.escape(__version__)}$",
        r"^memory +[\d.]+ GB, [\d.]+ available$",
        rf"^packages +torch {re.escape(version('torch'))}, diffusers ",
        r"^\[gguf\] +gguf ",
        r"^bundled +tiny-clip, .*minilm-tiny-sd$",
        r"^cache +\S+, [\d.]+ GB, [\d.]+ GB free: models of the Hub",
    ):
        assert re.search(line, text, re.MULTILINE), line


def test_every_package_that_ours_asks_for_is_named(report: Report) -> None:
    asked = [*PROJECT["dependencies"], *(a for e in EXTRAS if e != "dev" for a in EXTRAS[e])]
    names = {re.match(r"[\w-]+", each)[0] for each in asked}  # type: ignore[index]
    # an environment from before a package was asked for does not know of it
    assert set(report.packages) <= names
    assert {"torch", "gguf", "bitsandbytes", "spacy", "datasets"} <= set(report.packages)


def test_every_extra_for_users_says_what_it_is_for() -> None:
    assert EXTRAS.keys() - {"dev", "docs"} <= PURPOSES.keys()


# ---- the Hub


def test_a_hub_that_answers(online: pytest.MonkeyPatch) -> None:
    with stand_in.serve() as served:
        online.setattr(constants, "ENDPOINT", served.address)
        found = machine.hub()
        assert served.asked == ["GET /api/models"]
    assert (found["answers"], found["endpoint"], found["reason"]) == (True, served.address, "")


def test_a_hub_that_takes_the_question_and_says_nothing(online: pytest.MonkeyPatch) -> None:
    online.setattr(machine, "HUB_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        online.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        found = machine.hub()
    assert found["answers"] is False
    assert found["reason"]
    assert time.monotonic() - start < 1.5


def test_a_hub_that_is_not_there_and_a_password_in_its_address(online: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    online.setattr(constants, "ENDPOINT", f"http://me:secret@127.0.0.1:{port}")
    found = machine.hub()
    assert found["endpoint"] == f"http://127.0.0.1:{port}"
    assert found["reason"].startswith("ConnectError")
    assert "secret" not in str(found)


def test_of_a_token_it_is_said_that_there_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_nobody_may_see_this")
    for flags in ([], ["--json"]):
        doctor(flags)
        told = capsys.readouterr().out
        assert "hf_nobody" not in told
        assert "a token" in told or '"token": true' in told
        assert "hf auth login" not in told


# ---- what is missing, and for what


def test_nothing_missing_is_said(report: Report) -> None:
    assert as_text(replace(report, missing=[])).endswith("Nothing is missing.")


def test_an_extra_that_is_not_here_comes_with_its_purpose_and_command(report: Report) -> None:
    gone = report.packages | {"gguf": Package(None, ">=0.17,<1", fits=False, extra="gguf")}
    (found,) = [m for m in missing(replace(report, packages=gone)) if m.what == "gguf"]
    assert found.needed_for == "language models in one GGUF file"
    assert found.command == "pip install 'lavi-bridge[gguf]'"


def test_a_version_that_we_do_not_ask_for_comes_first(report: Report) -> None:
    old = report.packages | {"peft": Package("0.12.0", ">=0.21,<0.22", fits=False)}
    found = next(missing(replace(report, packages=old)))
    assert found.what == "peft >=0.21,<0.22 (0.12.0 here)"
    assert found.command == "pip install 'peft>=0.21,<0.22'"


def test_a_gpu_under_a_torch_for_cpus(report: Report) -> None:
    here = replace(report, drivers=["570.86"], torch={"built_for": "CPU", "gpus": []})
    found = next(missing(here))
    assert found.what == "a torch that is built for the GPU"
    assert "https://pytorch.org/get-started/locally" in found.command
    assert "none that torch sees, driver 570.86" in as_text(here)


def test_a_gpu_that_torch_sees(report: Report) -> None:
    gpu = {"name": "NVIDIA H100", "memory": 85.0, "capability": "9.0"}
    here = report.torch | {"built_for": "CUDA 12.8", "gpus": [gpu]}
    text = as_text(replace(report, drivers=["570.86"], torch=here))
    assert "NVIDIA H100, 85 GB, capability 9.0, driver 570.86" in text


def test_a_torch_that_cannot_be_imported(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    broken = replace(report, torch=machine.torch_and_gpus())
    found = next(missing(broken))
    assert found.what == "a torch that can be imported"
    assert "ModuleNotFoundError" in found.needed_for
    assert "pip install --force-reinstall torch" in as_text(replace(broken, missing=[found]))


def test_a_bundled_model_without_weights(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny-x").mkdir()
    monkeypatch.setattr(machine, "ZOO", tmp_path)
    here = replace(report, bundled=machine.bundled())
    assert [m.what for m in missing(here) if "zoo:NAME" in m.needed_for] == [
        "bundled models tiny-x"
    ]


def test_a_checkout_says_which_versions_are_not_its_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("# tested\nPyYAML==6.0.3\ntorch==2.13.0\nhuggingface-hub==2.4.0\n")
    monkeypatch.setattr(machine, "PINS", pins)
    here = {
        "pyyaml": Package("6.0.1", "", fits=True),
        "torch": Package("2.13.0+cpu", "", fits=True),
        "huggingface_hub": Package("2.5.0", "", fits=True),
        "gguf": Package(None, "", fits=False),
    }
    assert machine.not_pinned(here) == [
        "pyyaml 6.0.1, tested with 6.0.3",
        "huggingface_hub 2.5.0, tested with 2.4.0",
    ]


# ---- caches and folders


def test_a_cache_counts_its_files_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    blob = tmp_path / "lavi" / "blobs" / "a"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"0" * 30_000_000)
    (tmp_path / "lavi" / "link").symlink_to(blob)
    monkeypatch.setenv("LAVI_BRIDGE_CACHE", str(tmp_path / "lavi"))
    assert [cache["size"] for cache in machine.caches()][1] == 0.03


def test_a_large_cache_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setenv("LAVI_BRIDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "WALK_SECONDS", -1.0)
    assert machine.caches()[1]["whole"] is False


def test_folders_of_the_home_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("USERPROFILE", "/home/someone")
    told = without_home({"a": ["/home/someone/x.so: no such file", 1], "b": "/data/hub"})
    assert told == {"a": ["~/x.so: no such file", 1], "b": "/data/hub"}
