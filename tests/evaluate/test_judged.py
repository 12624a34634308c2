"""An evaluation with a judge: asked once, the same from any interruption, mixed with no other."""

import json
import math
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavi_bridge import BridgeError, testing
from lavi_bridge.evaluate.run import evaluate
from lavi_bridge.metrics.judge.model import Judge
from tests.evaluate.test_evaluate import content, settings
from tests.processes import Command, lavi_bridge, run_distributed

Folder = Callable[[str], Path]
COUNT = 40


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts with questions, and pictures that somebody drew."""
    folder = tmp_path_factory.mktemp("asked")
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    lines = []
    for number in range(COUNT):
        noise = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "pictures" / f"p{number}_0.png")
        questions = [
            {"question": "How many cats are there?", "answer": "two"},
            {"question": f"Is there a dog of {number} colours?"},
        ]
        lines.append({"id": f"p{number}", "prompt": f"{number} cats", "questions": questions})
    (folder / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


METRICS = ["soft-tifa", "soft-tifa-gm", "vqascore", "dpg-judge"]


def run(suite: Path, out: Path, folder: Path, **changes: Any) -> Any:
    given = {"suites": [str(suite / "asked.jsonl")], "metrics": METRICS, "judge": str(folder)}
    return evaluate(settings(out, f"theirs={suite / 'pictures'}", **(given | changes)))


def test_one_judge_answers_for_all_metrics_and_stands_in_the_report(
    judges: Folder, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    answer = Judge.probabilities

    def counted(self: Judge, pictures: list[Image.Image], *rest: Any, **more: Any) -> Any:
        asked.append(len(pictures))
        return answer(self, pictures, *rest, **more)

    monkeypatch.setattr(Judge, "probabilities", counted)
    done = run(suite, tmp_path / "out", judges("llava"))
    # 12 pictures: two questions for both means, one about the prompt, two for yes or no
    assert asked == [24, 12, 24]
    (result,) = done.suites
    scores = {name: [s for (s,) in result.judged["theirs"].scores[name]] for name in METRICS}
    for mean, geometric in zip(scores["soft-tifa"], scores["soft-tifa-gm"], strict=True):
        assert 0 < geometric <= mean
    told = done.metrics["soft-tifa"]
    assert told.title == "Soft-TIFA AM, llava"
    assert {"judge", "weights", "template", "precision", "reading"} <= told.provenance.keys()
    for name in ("report.html", "report.md", "report.json"):
        report = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "Soft-TIFA AM, llava" in report
        assert told.provenance["template"] in report


def test_another_judges_scores_are_in_no_column_of_this_one(
    judges: Folder, suite: Path, tmp_path: Path
) -> None:
    first = run(suite, tmp_path, judges("llava"), metrics=["vqascore"])
    assert not first.suites[0].notes
    again = run(suite, tmp_path, judges("llava"), metrics=["vqascore"])
    assert again.suites[0].judged["theirs"].scores == first.suites[0].judged["theirs"].scores
    (known,) = (tmp_path / "theirs" / "asked.jsonl" / "scores").glob("*.jsonl")
    other = run(suite, tmp_path, judges("gemma3"), metrics=["vqascore"])
    assert other.metrics["vqascore"].title == "VQAScore, gemma3"
    ours, theirs = (r.suites[0].judged["theirs"].scores["vqascore"] for r in (other, first))
    assert all(a != b for a, b in zip(ours, theirs, strict=True))
    assert other.suites[0].notes == [
        "theirs, asked.jsonl: scores of another judge, mode or version lie there, too, and are in "
        f"no column here: {known.name}"
    ]


def few(suite: Path, to: Path) -> Path:
    """A copy of the first pictures and their prompts."""
    (to / "pictures").mkdir(parents=True)
    for number in range(2):
        shutil.copy(suite / "pictures" / f"p{number}_0.png", to / "pictures")
    lines = (suite / "asked.jsonl").read_text().splitlines(keepends=True)[:2]
    (to / "asked.jsonl").write_text("".join(lines))
    return to


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions that judges get from now on."""
    met: list[str] = []
    answer = Judge.probabilities

    def noted(self: Judge, pictures: Any, questions: list[str], *rest: Any, **more: Any) -> Any:
        met.extend(questions)
        return answer(self, pictures, questions, *rest, **more)

    monkeypatch.setattr(Judge, "probabilities", noted)
    return met


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("soft-tifa", "a dog of 0 colours", "a mouse"),
        ("soft-tifa", "two", "three"),  # the answer
        ("dpg-judge", "a dog of 0 colours", "a mouse"),
        ("vqascore", "0 cats", "a zebra"),
    ],
)
def test_another_question_about_the_same_picture_is_asked(
    judges: Folder, suite: Path, tmp_path: Path, asked: list[str], name: str, old: str, new: str
) -> None:
    copy = few(suite, tmp_path / "suite")
    first = run(copy, tmp_path / "out", judges("llava"), metrics=[name])
    asked.clear()
    again = run(copy, tmp_path / "out", judges("llava"), metrics=[name])
    assert asked == []
    path = copy / "asked.jsonl"
    path.write_text(path.read_text().replace(old, new))
    other = run(copy, tmp_path / "out", judges("llava"), metrics=[name])
    assert asked
    fresh = run(copy, tmp_path / "fresh", judges("llava"), metrics=[name])
    one, same, ours, theirs = (
        [score for (score,) in r.suites[0].judged["theirs"].scores[name]]
        for r in (first, again, other, fresh)
    )
    assert one == same
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert (ours == one) == (name == "dpg-judge")  # it tells yes from no alone


@pytest.mark.parametrize(("name", "kept"), [("vqascore", True), ("soft-tifa", False)])
def test_scores_that_do_not_say_what_was_asked_are_kept_where_that_is_the_text(
    judges: Folder, suite: Path, tmp_path: Path, asked: list[str], name: str, kept: bool
) -> None:
    copy = few(suite, tmp_path / "suite")
    first = run(copy, tmp_path / "out", judges("llava"), metrics=[name])
    (path,) = (tmp_path / "out" / "theirs" / "asked.jsonl" / "scores").glob("*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(row.pop("asked") for row in rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked.clear()
    again = run(copy, tmp_path / "out", judges("llava"), metrics=[name])
    assert (asked == []) == kept
    assert again.suites[0].judged["theirs"].scores == first.suites[0].judged["theirs"].scores


def arguments(suite: Path, out: Path, judge: Path) -> list[object]:
    return [
        *("evaluate", f"theirs={suite / 'pictures'}", "--suites", suite / "asked.jsonl"),
        *("--metrics", *METRICS, "--judge", judge, "--device", "cpu", "--out", out),
    ]


@pytest.mark.slow
def test_killed_at_any_moment_a_judge_ends_with_the_same_files(
    judges: Folder, suite: Path, tmp_path: Path
) -> None:
    judge = judges("llava")
    assert lavi_bridge(*arguments(suite, tmp_path / "straight", judge)).poll() == 0
    out, rng, ends = tmp_path / "killed", random.Random(0), []
    for wanted in (1, 6):  # parts of journals
        process = Command(*arguments(suite, out, judge))
        while process.poll() is None:
            there = [p for p in out.rglob("scores/.*.jsonl") if p.stat().st_size]
            if sum(p.read_bytes().count(b"\n") for p in there) >= 16 * wanted:
                break
            time.sleep(0.02)
        time.sleep(rng.random() * 0.05)
        process.kill()
        ends.append(process.poll())
    assert ends == [-signal.SIGKILL, -signal.SIGKILL]
    assert lavi_bridge(*arguments(suite, out, judge)).poll() == 0
    assert content(out) == content(tmp_path / "straight")


@pytest.mark.slow
def test_two_processes_ask_what_one_does(judges: Folder, suite: Path, tmp_path: Path) -> None:
    judge = judges("llava")
    assert lavi_bridge(*arguments(suite, tmp_path / "one", judge)).poll() == 0
    run_distributed(*arguments(suite, tmp_path / "two", judge))
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_picture_that_is_damaged_costs_the_others_nothing(
    judges: Folder, suite: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(suite, tmp_path / "suite")
    broken = copy / "pictures" / "p3_0.png"
    broken.write_bytes(broken.read_bytes()[:200])
    done = run(copy, tmp_path / "out", judges("llava"), metrics=["vqascore"])
    judged = done.suites[0].judged["theirs"]
    assert [place for place, (s,) in enumerate(judged.scores["vqascore"]) if s is None] == [3]
    assert "cannot read image 'p3_0.png'" in judged.failures["vqascore"][0]


@pytest.mark.parametrize("name", METRICS)
def test_an_answer_that_is_no_number_is_a_failure_of_its_picture(
    judges: Folder, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    copy = few(suite, tmp_path / "suite")
    answer = Judge.probabilities

    def broken(self: Judge, pictures: Any, questions: list[str], *rest: Any, **more: Any) -> Any:
        found = answer(self, pictures, questions, *rest, **more)
        of_first = ["dog of 0" in q or "0 cats" in q for q in questions]
        return [
            [math.nan if bad else p for p in mine]
            for bad, mine in zip(of_first, found, strict=True)
        ]

    monkeypatch.setattr(Judge, "probabilities", broken)
    done = run(copy, tmp_path / "out", judges("llava"), metrics=[name])
    judged = done.suites[0].judged["theirs"]
    (bad,), (good,) = judged.scores[name]
    assert bad is None
    assert good is not None
    (failure,) = judged.failures[name]
    assert "the judge's answer to '" in failure
    assert "is no number; ask it in float32" in failure


def test_memory_that_is_full_ends_it_in_a_line(
    judges: Folder, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    copy = few(suite, tmp_path / "suite")
    judge = judges("llava")
    monkeypatch.setattr(Judge, "_read", full)
    with pytest.raises(BridgeError, match=r"^vqascore: the GPU's memory is full: .*--judge-quant"):
        run(copy, tmp_path / "out", judge, metrics=["vqascore"])


# ---- what is missing is said before anything is drawn


def test_bad_settings_are_one_line(
    judges: Folder, suite: Path, tiny: Folder, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"prompt": "a cat"}\n')
    bare = testing.make_judge(tmp_path / "bare", "llava")
    (bare / "chat_template.jinja").unlink()
    cases: list[tuple[str, dict[str, Any]]] = [
        ("soft-tifa asks a judge: give --judge MODEL", {"judge": None}),
        ("prompt 'plain-0000' has no questions", {"suites": [str(plain)]}),
        (r"none of clip-score asks it; vqascore asks about any", {"metrics": ["clip-score"]}),
        (r"bare' has no chat template", {"judge": str(bare)}),
        (r"is a 'llama', no image-and-text model", {"judge": str(tiny("llama"))}),
        ("no folder 'nowhere'", {"judge": "nowhere"}),
        ("--scorers vqascore: it has no weights, but asks --judge", {"scorers": ["vqascore=x"]}),
    ]
    for message, changes in cases:
        with pytest.raises(BridgeError, match=message) as error:
            run(suite, tmp_path / "out", judges("llava"), **changes)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_suite_that_no_metric_judges_is_named(
    judges: Folder, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = few(suite, tmp_path / "suite")
    for category in ("color", "shape", "texture", "spatial", "count", "complex"):
        picture = copy / "pictures" / f"{category}-0000_0.png"
        shutil.copy(copy / "pictures" / "p0_0.png", picture)
    both = [str(copy / "asked.jsonl"), "shapes"]
    judge = judges("llava")
    done = run(copy, tmp_path / "out", judge, suites=both, metrics=["soft-tifa"], limit=6)
    line = "shapes: none of soft-tifa is for its prompts; name another"
    assert [line in one.notes for one in done.suites] == [False, True]
    assert line in capsys.readouterr().err
    assert line in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_suites_without_questions_need_none_beside_one_that_has(
    judges: Folder, suite: Path, tmp_path: Path
) -> None:
    shapes = shutil.copytree(suite / "pictures", tmp_path / "pictures")
    (one, *_) = sorted(shapes.glob("*.png"))
    for category in ("color", "shape", "texture", "spatial", "count", "complex"):
        shutil.copy(one, shapes / f"{category}-0000_0.png")
    done = evaluate(
        settings(
            tmp_path / "out",
            f"theirs={shapes}",
            suites=[str(suite / "asked.jsonl"), "shapes"],
            metrics=["soft-tifa", "vqascore"],
            judge=str(judges("llava")),
            limit=6,
        )
    )
    by_suite = {one.name: set(one.judged["theirs"].scores) for one in done.suites}
    assert by_suite == {"asked.jsonl": {"soft-tifa", "vqascore"}, "shapes": {"vqascore"}}
