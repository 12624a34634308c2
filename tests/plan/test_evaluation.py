"""The plan of an evaluation: what would be drawn and asked, before anything is."""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from lavi_bridge import Bridge, BridgeError, testing
from lavi_bridge.cli.main import main
from lavi_bridge.evaluate.drawing import MANIFEST
from lavi_bridge.files.locate import locate
from lavi_bridge.metrics.judge.cost import cost_of
from lavi_bridge.metrics.judge.model import load_judge
from lavi_bridge.metrics.judge.size import size_of
from lavi_bridge.plan.evaluation import planned
from tests.evaluate.test_evaluate import settings

Folder = Callable[[str], Path]
CATS = '{"prompt": "two cats", "questions": [{"question": "Cats?"}, {"question": "Two?"}]}\n'
DOG = '{"prompt": "a dog", "questions": [{"question": "A dog?"}]}\n'


@pytest.fixture
def suite(tmp_path: Path) -> str:
    (tmp_path / "asked.jsonl").write_text(CATS + DOG)
    return str(tmp_path / "asked.jsonl")


def told(*entries: object, out: Path, **changes: Any) -> dict[str, str]:
    return {line.what: line.text for line in planned(settings(out, *entries, **changes))}


def test_questions_are_counted_over_entries_and_the_two_means_ask_once(
    judges: Folder, tiny: Folder, suite: str, tmp_path: Path
) -> None:
    lines = told(
        *(tiny(name) for name in ("sd", "sdxl")),
        out=tmp_path / "out",
        suites=[suite],
        images=2,
        metrics=["soft-tifa", "soft-tifa-gm", "vqascore"],
        judge=str(judges("llava")),
    )
    # (3 questions, and 2 whether the prompt is shown) × 2 images × 2 entries
    assert lines["questions"].startswith("20 about 8 pictures, at most")
    assert lines["sd"].startswith("4 pictures to draw")
    assert lines["judge"].startswith(f"{judges('llava')}, 0.0 million weights")
    assert lines["judge's hours"].startswith(
        "0 minutes of an H100, computed, not measured: 0 TFLOP"
    )
    assert "at 30% of 989 TFLOP/s" in lines["judge's hours"]
    assert not (tmp_path / "out").exists()


def test_yes_and_no_are_one_question(
    judges: Folder, tiny: Folder, suite: str, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"suites": [suite], "judge": str(judges("llava"))}
    lines = told(tiny("sd"), out=tmp_path / "out", metrics=["dpg-judge"], **given)
    assert lines["questions"].startswith("3 about 2 pictures")


def test_what_is_drawn_is_not_drawn_again_and_a_bridges_hours_are_counted(
    tmp_path: Path, tiny: Folder, suite: str
) -> None:
    """It takes its seconds, as the models run on shapes."""
    Bridge.connect(tiny("t5"), tiny("sd"), rank=2, device="cpu").save(tmp_path / "bridge")
    place = tmp_path / "out" / "mine" / "asked.jsonl"
    (place / "images").mkdir(parents=True)
    (place / "images" / "asked-0000_0.png").write_bytes(b"drawn")
    row = {"file": "asked-0000_0.png", "sha256": hashlib.sha256(b"drawn").hexdigest()[:16]}
    (place / MANIFEST).write_text(json.dumps(row) + "\n")
    entry = f"mine={tmp_path / 'bridge'}"
    lines = told(entry, out=tmp_path / "out", metrics=["shapes"], suites=[suite])
    assert lines["mine"].startswith(
        "1 pictures to draw, 1 are there; 0 minutes of an H200, computed"
    )
    assert "2 steps of" in lines["mine"]
    config = settings(tmp_path / "out", entry, metrics=["shapes"], suites=[suite])
    config = replace(config, sampling=replace(config.sampling, steps=None))
    (unset,) = (line.text for line in planned(config) if line.what == "mine")
    assert "50 steps of" in unset  # the family's own


def test_licences_of_suites_metrics_and_judge_are_said(
    judges: Folder, tiny: Folder, shared: Path, tmp_path: Path
) -> None:
    judge = testing.make_judge(tmp_path / "judge", "llava")
    (judge / "README.md").write_text("---\nlicense: gemma\n---\n")
    lines = told(
        tiny("sd"),
        out=tmp_path,
        suites=["drawbench"],
        prompts=shared / "prompts",
        metrics=["vqascore", "clip-score"],
        judge=str(judge),
    )
    assert "licence gemma" in lines["judge"]
    assert lines["clip-score"] == "openai/clip-vit-base-patch32, 0.6 GB, MIT"
    assert lines["prompts"] == "openai/dalle3-eval-samples@d7c88c0 (MIT)"


def test_the_command_prints_it_and_draws_nothing(
    judges: Folder,
    tiny: Folder,
    suite: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = ["--suites", suite, "--metrics", "vqascore", "--judge", str(judges("llava")), "--plan"]
    given = ["evaluate", str(tiny("sd")), *flags, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["lavi-bridge", *given])
    main()
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in shown] == [
        *("sd", "questions", "judge", "judge's memory", "judge's download", "judge's hours")
    ]
    assert not (tmp_path / "out").exists()


def test_without_a_judge_it_says_how_many_questions_there_are(
    tiny: Folder, suite: str, tmp_path: Path
) -> None:
    with pytest.raises(BridgeError, match=r"^2 questions, and no judge: give --judge MODEL, such"):
        told(tiny("sd"), out=tmp_path, suites=[suite], metrics=["vqascore"])


@pytest.mark.parametrize("family", testing.JUDGES)
def test_the_counted_arithmetic_is_about_that_of_a_pass(judges: Folder, family: str) -> None:
    """Of tiny models to a factor: their towers do much that is not done for each patch, and layers
    with a state pad what they read."""
    place = locate(judges(family))
    question = "How many dogs are in the image? Answer in one word."
    cost = cost_of(place, size_of(place), [question], width=64, height=64)
    judge, picture = load_judge(judges(family), device="cpu"), Image.new("RGB", (64, 64))
    judge.probabilities([picture], [question], [["7"]])  # how it is asked is known from now on
    with FlopCounterMode(display=False) as counter:
        judge.probabilities([picture], [question], [["7"]])
    counted = counter.get_total_flops() / 1e12
    assert 0.5 * counted < cost.picture + cost.question < 1.8 * counted
