"""A judge judged: at chance where it knows nothing, right where it knows, the same when killed."""

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavi_bridge import BridgeError
from lavi_bridge.cli import main as cli
from lavi_bridge.evaluate.drawing import MANIFEST, checksum
from lavi_bridge.evaluate.judges.items import ATOM, DRAWN, of_drawn, of_pair
from lavi_bridge.evaluate.judges.options import JudgeConfig
from lavi_bridge.evaluate.judges.pairs import CHANGES, TEXTS, Pair, pairs
from lavi_bridge.evaluate.judges.results import Result
from lavi_bridge.evaluate.judges.run import judge
from lavi_bridge.evaluate.run import evaluate
from lavi_bridge.files.journal import Journal
from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.judge.asked import ByJudge
from lavi_bridge.metrics.judge.model import Judge, load_judge
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.shapes.plain import stated
from lavi_bridge.shapes.scenes import CATEGORIES, SIZE, pictures
from lavi_bridge.shapes.scorer import score
from lavi_bridge.shapes.world import evaluation_set
from tests.evaluate.test_evaluate import content, settings
from tests.evaluate.told import key_of, told
from tests.processes import Command, lavi_bridge, run_distributed

Folder = Callable[[str], Path]
SIDE = 64


# ---- what is asked


@pytest.fixture(scope="module")
def some() -> list[Pair]:
    """Every change of every category, twice."""
    return [p for category in CHANGES for p in pairs(category, 2 * len(CHANGES[category]), seed=3)]


def test_every_category_takes_turns_in_its_changes(some: list[Pair]) -> None:
    assert tuple(CHANGES) == CATEGORIES
    assert Counter((p.category, p.change) for p in some) == {
        (category, change): 2 for category, changes in CHANGES.items() for change in changes
    }


def test_each_text_is_true_of_its_own_picture_alone(some: list[Pair]) -> None:
    """By the exact scorer, which looks at pixels."""
    for pair in some:
        facts = [stated(text) for text in pair.texts["plain"]]
        images = pictures(pair.scenes)
        found = [[score([image], [fact])[0].exact for image in images] for fact in facts]
        assert found == [[True, False], [False, True]], pair


def test_a_pair_differs_in_one_fact(some: list[Pair]) -> None:
    """In all else its scenes are equal, figure by figure."""
    expected = {
        "another color": [{"color"}],
        "swapped colors": [{"color"}, {"color"}],
        "another shape": [{"shape"}],
        "swapped shapes": [{"shape"}, {"shape"}],
        "another texture": [{"texture"}],
        "swapped textures": [{"texture"}, {"texture"}],
        "swapped places": [{"x", "y", "radius"}, {"x", "y", "radius"}],
        "one more": [],
        "another background": [],
    }
    for pair in some:
        a, b = pair.scenes
        changed = [
            {k for k, value in vars(one).items() if value != getattr(other, k)}
            for one, other in zip(a.figures, b.figures, strict=False)
        ]
        assert [facts for facts in changed if facts] == expected[pair.change], pair
        assert (a.background != b.background) == (pair.change == "another background")
        assert len(a.figures) - len(b.figures) == (pair.change == "one more")


def test_a_pairs_texts_differ_in_that_fact_and_say_it_in_three_ways(some: list[Pair]) -> None:
    for pair in some:
        assert tuple(pair.texts) == TEXTS
        for a, b in pair.texts.values():
            assert a != b
        for free, long in zip(pair.texts["free"], pair.texts["long"], strict=True):
            assert long.count(".") >= free.count(".") + 3


def test_no_texture_is_told_that_cannot_be_seen(some: list[Pair]) -> None:
    for pair in some:
        told = {"striped", "dotted"} & {*" ".join(pair.texts["plain"]).split()}
        for scene in pair.scenes:
            assert all(f.large for f in scene.figures if f.texture in told), pair


def test_no_text_alone_and_no_picture_alone_gives_the_answer_away(some: list[Pair]) -> None:
    names = ("vqascore", "soft-tifa", "dpg-judge")
    items = [item for pair in some for item in of_pair(pair, names, SIDE).items]
    assert len({item.id for item in items}) == len(items)
    for key in ("picture", "text", "category", "change", "kind", "metric"):
        seen = Counter((getattr(item, key), item.true) for item in items)
        assert all(seen[value, True] == seen[value, False] for value, _ in seen), key
    assert Counter(item.kind for item in items if item.metric == "vqascore").keys() == {*TEXTS}
    assert {item.kind for item in items if item.metric != "vqascore"} == {ATOM}


def test_pair_i_depends_on_seed_and_category_alone() -> None:
    few, more = list(pairs("color", 2, 0)), list(pairs("color", 3, 0))
    assert [p.texts for p in few] == [p.texts for p in more[:2]]
    assert [p.texts for p in few] != [p.texts for p in pairs("color", 2, 1)]


def test_pictures_are_enlarged() -> None:
    (pair,) = pairs("count", 1, 0)
    assert [picture.size for picture in pair.pictures(192)] == [(192, 192)] * 2


# ---- judges whose answers are known


def settings_of(folder: Path, out: Path, **changes: Any) -> JudgeConfig:
    given: dict[str, Any] = {
        "model": str(folder),
        "out": out,
        "per_category": 2,
        "side": SIDE,
        "mode": "fixed",
        "device": "cpu",
    }
    return JudgeConfig(**(given | changes))


@pytest.fixture
def known(judges: Folder) -> Iterator[Judge]:
    """A judge whose answers a test decides; whoever loads the same folder gets this one."""
    found = load_judge(judges("qwen3_vl"), device="cpu")
    yield found
    vars(found.model).pop("forward", None)


Says = Callable[[str, str], str]
"""From the right answer and the wrong one to what a judge says."""


def answers(judge: Judge, config: JudgeConfig, says: Says) -> dict[tuple[bytes, str], str]:
    """What a judge says of every question."""
    found = {}
    names = config.metrics or ["vqascore", "soft-tifa", "dpg-judge"]
    for category in config.categories or CHANGES:
        for pair in pairs(category, config.per_category, config.seed):
            case = of_pair(pair, names, config.side)
            keys = {name: key_of(judge, picture) for name, picture in case.open().items()}
            assert len(set(keys.values())) == 2
            for item in case.items:
                kind = METRICS[item.metric]
                assert issubclass(kind, ByJudge)
                right, wrong = ("Yes", "No") if item.true else ("No", "Yes")
                own = item.picture.endswith("b")
                if item.metric == "soft-tifa" and pair.atoms[0].answer != "Yes":
                    right, wrong = (pair.atoms[n].answer for n in (own, not own))
                for question, _ in kind.questions(item.prompt, config.mode):
                    found[keys[item.picture], question] = says(right, wrong)
    return found


def run_told(judge_: Judge, folder: Path, out: Path, says: Says, **changes: Any) -> Result:
    config = settings_of(folder, out, **changes)
    judge_.model.forward = told(judge_, answers(judge_, config, says))
    return judge(config)


def test_one_that_knows_is_right_everywhere(judges: Folder, known: Judge, tmp_path: Path) -> None:
    found = run_told(known, judges("qwen3_vl"), tmp_path, lambda right, _: right, per_category=1)
    assert [s.metric for s in found.sections] == ["vqascore", "soft-tifa", "dpg-judge"]
    for section in found.sections:
        measures = [section.overall, *section.parts["category"].values()]
        assert [one.accuracy.value for one in measures] == [1.0] * 7
        assert [one.auc and one.auc.value for one in measures] == [1.0] * 7
        assert [one.ranked and one.ranked.value for one in measures] == [1.0] * 7
        assert [one.ece.value for one in measures] == pytest.approx([0.0] * 7, abs=1e-9)
        assert [one.brier.value for one in measures] == pytest.approx([0.0] * 7, abs=1e-9)
        assert not section.mistakes
    page = (tmp_path / "judge.html").read_text(encoding="utf-8")
    assert page.count("It made no mistake.") == 3


FEW: dict[str, Any] = {"categories": ["color", "count"]}


def test_one_that_says_the_contrary_is_wrong_everywhere(
    judges: Folder, known: Judge, tmp_path: Path
) -> None:
    found = run_told(known, judges("qwen3_vl"), tmp_path, lambda _, wrong: wrong, **FEW)
    for section in found.sections:
        whole = section.overall
        assert whole.accuracy.value == 0.0
        assert whole.auc is not None
        assert whole.auc.value == 0.0
        assert whole.ece.value == pytest.approx(1.0)
        assert whole.brier.value == pytest.approx(1.0)
        assert len(section.mistakes) == whole.pairs == 4


def test_one_that_always_says_yes_is_at_chance(
    judges: Folder, known: Judge, tmp_path: Path
) -> None:
    found = run_told(known, judges("qwen3_vl"), tmp_path, lambda *_: "Yes", **FEW)
    for section in found.sections:
        assert section.overall.accuracy.value == 0.5
        assert section.overall.ece.value == pytest.approx(0.5)
        assert {one.accuracy.value for one in section.parts["category"].values()} == {0.5}
        assert section.overall.ranked is not None
        assert section.overall.ranked.value == 0.5


def test_one_that_knows_nothing_is_at_chance(judges: Folder, tmp_path: Path) -> None:
    """Tiny and random: chance lies inside of its intervals."""
    config = settings_of(judges("gemma3"), tmp_path, per_category=4, metrics=["vqascore"], **FEW)
    (section,) = judge(config).sections
    assert section.overall.questions == 96
    for e in (section.overall.accuracy, section.overall.auc, section.overall.ranked):
        assert e is not None
        assert e.low is not None
        assert e.high is not None
        assert e.low <= 0.5 <= e.high
    assert len(section.mistakes) == 8


def test_an_answer_is_what_the_judge_says_of_that_picture(judges: Folder, tmp_path: Path) -> None:
    """Item by item, asked by itself."""
    config = settings_of(judges("llava"), tmp_path, per_category=1, **FEW)
    judge(config)
    kept = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    scores = {row["id"]: row["score"] for row in kept}
    asked = load_judge(judges("llava"), device="cpu")
    for category in FEW["categories"]:
        (pair,) = pairs(category, 1, config.seed)
        case = of_pair(pair, ("vqascore", "dpg-judge"), SIDE)
        shown = case.open()
        for item in case.items:
            kind = METRICS[item.metric]
            assert issubclass(kind, ByJudge)
            chances = []
            for question, spellings in kind.questions(item.prompt, "fixed"):
                apart = asked.apart(spellings)
                ((*found,),) = asked.probabilities([shown[item.picture]], [question], [apart])
                chances.append(sum(found))
            whole = sum(chances) if len(chances) == 2 else 1
            assert scores[item.id] == pytest.approx(chances[0] / whole, rel=1e-4)


def test_the_page_stands_alone_and_says_all(judges: Folder, tmp_path: Path) -> None:
    quick = {"categories": ["count", "complex"], "per_category": 1}
    found = judge(settings_of(judges("llava"), tmp_path, **quick))
    page = (tmp_path / "judge.html").read_text(encoding="utf-8")
    text = (tmp_path / "judge.md").read_text(encoding="utf-8")
    record = json.loads((tmp_path / "judge.json").read_text(encoding="utf-8"))
    assert record["judge"] == found.judge
    assert record["judge"].keys() >= {"weights", "template", "precision", "torch", "transformers"}
    assert record["settings"]["per_category"] == 1
    assert not [word for word in ("http://", "https://", "<script", "<link") if word in page]
    for section in found.sections:
        mine = record["metrics"][section.metric]
        assert mine["pairs"]["overall"]["accuracy"]["value"] == section.overall.accuracy.value
        assert mine["provenance"]["mode"] == "fixed"
        for shown in (page, text):
            assert section.title in shown
            assert f"{section.overall.questions:,}" in shown
    assert page.count("<img") == sum(len(s.mistakes) for s in found.sections)
    assert page.count("reliability diagram") == 3


# ---- stopped, shared


QUICK = ("--per-category", 5, "--side", SIDE, "--categories", "color", "count", "--device", "cpu")


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_files(judges: Folder, tmp_path: Path) -> None:
    folder = judges("llava")
    asked = ("judge", folder, *QUICK, "--metrics", "vqascore")
    assert lavi_bridge(*asked, "--out", tmp_path / "straight").poll() == 0
    out, rng, ends = tmp_path / "killed", random.Random(0), []
    for wanted in (20, 70):  # of 120 answers
        process = Command(*asked, "--out", out)
        while process.poll() is None:
            if sum(p.read_bytes().count(b"\n") for p in out.glob(".answers.*.jsonl")) >= wanted:
                break
            time.sleep(0.01)
        time.sleep(rng.random() * 0.05)
        process.kill()
        ends.append(process.poll())
    assert ends == [-signal.SIGKILL, -signal.SIGKILL]
    (part,) = out.glob(".answers.*.jsonl")
    part.write_bytes(part.read_bytes()[:-7])  # within a line
    assert lavi_bridge(*asked, "--out", out).poll() == 0
    assert content(out) == content(tmp_path / "straight")


def test_two_processes_ask_what_one_does(judges: Folder, tmp_path: Path) -> None:
    asked = ("judge", judges("llava"), *QUICK, "--metrics", "dpg-judge")
    assert lavi_bridge(*asked, "--out", tmp_path / "one").poll() == 0
    run_distributed(*asked, "--out", tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


# ---- pictures that image models drew


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """Three prompts of the plain suite, drawn rightly, and two of them once more for another."""
    folder = tmp_path / "evaluation" / "painter" / "shapes"
    (folder / "images").mkdir(parents=True)
    prompts = load_suite("shapes")
    images = pictures(evaluation_set(64)[1][:6])
    rows = []
    for number in range(3):
        for image, shown in enumerate((number, number + 3)[: 1 if number == 2 else 2]):
            path = folder / "images" / f"{prompts[number].id}_{image}.png"
            images[shown].save(path)
            rows.append({"file": path.name, "id": prompts[number].id, "sha256": checksum(path)})
    Journal(folder / MANIFEST).append(rows)
    Journal(folder / MANIFEST).merge(lambda row: row["file"], key="file")
    return tmp_path / "evaluation"


def test_drawn_pictures_are_as_often_right_as_wrong(evaluation: Path) -> None:
    items = [item for case in of_drawn(evaluation, 5, 0, SIDE) for item in case.items]
    assert [item.true for item in items] == [True, True, False, False]
    assert all(item.true == item.picture.endswith("_0.png") for item in items)
    assert {(item.source, item.category, item.kind) for item in items} == {
        (DRAWN, "color", "plain")
    }


def test_drawn_pictures_have_a_section_of_their_own(
    judges: Folder, tmp_path: Path, evaluation: Path
) -> None:
    quick = {"categories": ["count"], "per_category": 2, "metrics": ["vqascore"]}
    found = judge(settings_of(judges("llava"), tmp_path / "out", pictures=evaluation, **quick))
    assert [(s.source, s.overall.questions) for s in found.sections] == [("pairs", 24), (DRAWN, 4)]
    page = (tmp_path / "out" / "judge.html").read_text(encoding="utf-8")
    assert "VQAScore, pictures by image models" in page


# ---- beside the scores that a judge gives


@pytest.fixture
def asked_about(tmp_path: Path) -> dict[str, Any]:
    """Settings of an evaluation of two pictures that somebody drew."""
    (tmp_path / "theirs").mkdir()
    for number in range(2):
        Image.new("RGB", (SIZE, SIZE), "red").save(tmp_path / "theirs" / f"p{number}_0.png")
    suite = tmp_path / "list.jsonl"
    suite.write_text("".join(f'{{"id": "p{n}", "prompt": "{n} cats"}}\n' for n in range(2)))
    return {"suites": [str(suite)], "metrics": ["vqascore"], "mode": "fixed"}


def test_the_report_says_how_its_judge_did(
    judges: Folder, tmp_path: Path, asked_about: dict[str, Any]
) -> None:
    folder, known = judges("llava"), tmp_path / "judged"
    quick = {"categories": ["count"], "per_category": 2, "metrics": ["vqascore"]}
    (section,) = judge(settings_of(folder, known, **quick)).sections
    e = section.overall.accuracy
    assert (e.value, e.low, e.high) == (0.5, 0.5, 0.5)
    line = "on the shapes world this judge is right in .50 (.50–.50) of 24 answers (chance .5)"

    def trust(judge: Path, **changes: Any) -> str:
        given = asked_about | {"judge": str(judge)} | changes
        done = evaluate(settings(tmp_path / "out", f"theirs={tmp_path / 'theirs'}", **given))
        for name in ("report.html", "report.md", "report.json"):
            written = (tmp_path / "out" / name).read_text(encoding="utf-8")
            assert done.metrics["vqascore"].trust[:60].partition("`")[0] in written
        return done.metrics["vqascore"].trust

    assert trust(folder, judged=known).startswith(line)
    unknown = trust(folder)
    assert unknown.startswith(f"how far to trust it is not known: `lavi-bridge judge {folder}`")
    other = "not known (what is there is about another judge, or other questions)"
    assert other in trust(judges("gemma3"), judged=known)
    assert other in trust(folder, judged=known, mode="faithful")
    shutil.copy(known / "judge.json", tmp_path / "out")
    assert trust(folder).startswith(line)  # found there
    with pytest.raises(
        BridgeError, match=r"holds no judge\.json; make it: lavi-bridge judge MODEL"
    ):
        trust(folder, judged=tmp_path)
    (known / "judge.json").write_text("{}")
    with pytest.raises(BridgeError, match=r"judge\.json is damaged"):
        trust(folder, judged=known)


# ---- bad input


def refused(*arguments: object) -> str:
    with pytest.raises(BridgeError) as error:
        cli.run(["judge", *map(str, arguments)])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_unknown_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    assert refused("no/model", "--categories", "colour") == (
        "unknown category 'colour'; known: color, shape, texture, spatial, count, complex; did you "
        "mean 'color'?"
    )
    assert "unknown metric that asks a judge 'vqa'; known: vqascore" in refused(
        "no/model", "--metrics", "vqa"
    )
    assert "'per_category' must be at least 1, not 0" in refused("no/model", "--per-category", 0)
    assert "holds no pictures of the suites shapes, shapes-free" in refused(
        "no/model", "--pictures", tmp_path, "--out", tmp_path / "out"
    )
    assert refused("no/model", "--pictures", tmp_path, "--metrics", "soft-tifa") == (
        "drawn pictures are asked about by vqascore: add it"
    )


def test_no_judge_is_one_line(judges: Folder, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(judges("llava"), tmp_path / "bare"))
    (bare / "chat_template.jinja").unlink()
    told_so = refused(bare, *QUICK, "--out", tmp_path / "out")
    assert f"'{bare}' has no chat template" in told_so
    assert not (tmp_path / "out" / "settings.json").exists()


def test_another_judges_folder_is_refused(judges: Folder, tmp_path: Path) -> None:
    quick = ("--per-category", 1, "--side", SIDE, "--categories", "count", "--device", "cpu")
    asked = (*quick, "--metrics", "vqascore", "--out", tmp_path)
    cli.run(["judge", *map(str, (judges("llava"), *asked))])
    assert f"the answers in '{tmp_path}' are of another judge, " in refused(
        judges("gemma3"), *asked
    )
    assert "are of another per_category (1 there, 2 here); choose another --out" in refused(
        judges("llava"), *asked, "--per-category", 2
    )


def test_the_plan_reads_no_weights(
    judges: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = Path(shutil.copytree(judges("qwen3_vl"), tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    cli.run(["judge", str(bare), "--plan", *map(str, QUICK), "--out", str(tmp_path / "out")])
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["pictures"] == "20 of 64×64 pixels"
    assert lines["questions"] == "120 for vqascore, 40 for soft-tifa, 40 for dpg-judge"
    assert "computed, not measured" in lines["hours"]
    assert not (tmp_path / "out").exists()
