"""Every form in fresh virtual environments without this package: run by name, `pytest -m export`.

The environments are kept in build/, which git ignores, and made anew where that was removed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lavi_bridge import Bridge
from tests.export import jobs

Tiny = Callable[[str], Path]
ROOT = Path(__file__).parents[2]
ENVIRONMENTS = {"0.37": "5.19", "0.40": "5.14", "0.42": "5.23"}
"""Releases of diffusers, each with one of transformers that it allows."""
pytestmark = pytest.mark.export


def python_with(diffusers: str) -> Path:
    """The interpreter of an environment with this release of diffusers."""
    folder = ROOT / "build" / f"diffusers-{diffusers}"
    ready = folder / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        wanted = [pin for pin in pins if pin.startswith(("torch==", "peft=="))]
        wanted += [f"diffusers=={diffusers}.*", f"transformers=={ENVIRONMENTS[diffusers]}.*"]
        pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        for one in wanted:  # torch first, at its pin
            subprocess.run([*map(str, pip), one, "sentencepiece", "protobuf"], check=True)
        ready.touch()
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def told(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A Hub cache with the base models, and all jobs."""
    home = tmp_path_factory.mktemp("home")
    out = tmp_path_factory.mktemp("exports")
    for name in ("t5", *jobs.FAMILIES):
        jobs.published(home, name, tiny(name))

    def made() -> Iterator[dict[str, Any]]:
        for name in jobs.FAMILIES:
            bridge = jobs.trained(tiny("t5"), tiny(name))
            yield jobs.job(bridge, out / f"{name}-merged", "merged")
            yield jobs.job(bridge, out / f"{name}-list", "merged", servers=False)
            if name in jobs.STOCK:
                yield jobs.job(bridge, out / f"{name}-stock", "stock")
            bridge.save(out / f"{name}-bridge")

    return home, [*made(), *light(home, out)]


def light(home: Path, out: Path) -> list[dict[str, Any]]:
    """Light exports, made by a process of its own, whose base models are in the Hub's cache."""
    code = (
        "import sys; from pathlib import Path; from tests.export import test_environments as t\n"
        f"t.write_light(Path({str(out)!r}), {list(jobs.FAMILIES)!r})"
    )
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    lines = (out / "light.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write_light(out: Path, names: list[str]) -> None:
    def made() -> Iterator[dict[str, Any]]:
        for name in names:
            bridge = Bridge.load(
                out / f"{name}-bridge", language="me/t5", vision=f"me/{name}", device="cpu"
            )
            yield jobs.job(bridge, out / f"{name}-light", "light")

    jobs.write(made(), out / "light.jsonl")


@pytest.mark.parametrize("diffusers", ENVIRONMENTS)
def test_every_form_draws_the_same_without_this_package(
    diffusers: str, told: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    home, all_jobs = told
    count = jobs.write(iter(all_jobs), tmp_path / "jobs.jsonl")
    done = subprocess.run(
        [python_with(diffusers), ROOT / "tests/export/alone.py", tmp_path / "jobs.jsonl"],
        env=os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    print(*(f"{diffusers} {one['name']}: {one['off']}" for one in found), sep="\n")
    assert len(found) == count
    assert max(one["off"] for one in found) <= 1
