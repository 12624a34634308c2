"""The evaluation as a user starts it: drawn once, judged once, the same from any interruption."""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.config import Sampling
from lavi_bridge.evaluate.drawing import MANIFEST, found, jobs_of
from lavi_bridge.evaluate.entries import contestants_of
from lavi_bridge.evaluate.judging import add_three_in_one
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.evaluate.results import Judged
from lavi_bridge.evaluate.run import evaluate
from lavi_bridge.files.journal import Journal
from lavi_bridge.files.locate import ZOO
from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.compbench.three_in_one import kind_of
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.suites import complex_lists, load_suite
from tests.files.test_locate import cached, hub
from tests.metrics.test_clip import folder as clip
from tests.processes import Command, lavi_bridge, run_distributed
from tests.squeezenet import photos, squeezenet

__all__ = ["clip", "hub"]  # fixtures: a tiny CLIP, an empty Hub cache

Tiny = Callable[[str], Path]
QUICK = Sampling(steps=2, guidance=2.0, batch_size=4)


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joined, untrained pair of the bundled models."""
    folder = tmp_path_factory.mktemp("bridges") / "joined"
    Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu").save(folder)
    return folder


def settings(out: Path, *entries: object, **changes: Any) -> EvaluateConfig:
    given: dict[str, Any] = {
        "entries": [*map(str, entries)],
        "suites": ["shapes"],
        "limit": 12,
        "sampling": QUICK,
        "out": out,
        "device": "cpu",
    }
    return EvaluateConfig(**(given | changes))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def content(out: Path) -> dict[str, bytes]:
    """Everything that an evaluation leaves, by path."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_bridges_and_image_models_are_drawn_judged_and_reported(
    bridge: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = evaluate(settings(out, "zoo:tiny-sd", bridge, metrics=["shapes", "shapes-facts"]))
    assert [entry.name for entry in run.entries] == ["tiny-sd", "joined"]
    assert [entry.about["kind"] for entry in run.entries] == ["image model", "bridge"]
    (suite,) = run.suites
    assert (len(suite.prompts), suite.seeds) == (12, [[n] for n in range(12)])
    assert {p.category for p in suite.prompts} == {
        "color",
        "shape",
        "texture",
        "spatial",
        "count",
        "complex",
    }
    for entry in ("tiny-sd", "joined"):
        exact, met = (suite.judged[entry].scores[name] for name in ("shapes", "shapes-facts"))
        assert all(score in (0, 1) for (score,) in exact)
        assert all((a == 1) == (b == 1) for (a,), (b,) in zip(exact, met, strict=True))
        noted = rows(out / entry / "shapes" / MANIFEST)
        assert [(row["id"], row["seed"]) for row in noted] == [
            (prompt.id, n) for n, prompt in enumerate(suite.prompts)
        ]
    for name in ("report.html", "report.md", "report.json"):
        assert "joined" in (out / name).read_text(encoding="utf-8")


def test_image_i_is_what_generate_draws_from_seed_i(tmp_path: Path) -> None:
    evaluate(settings(tmp_path, "zoo:tiny-sd", limit=4, images=2))
    noted = rows(tmp_path / "tiny-sd" / "shapes" / MANIFEST)
    assert [(row["image"], row["seed"]) for row in noted] == [(n % 2, n) for n in range(8)]
    prompts = [row["prompt"] for row in noted[4:]]
    drawn = Bridge.own("zoo:tiny-sd", device="cpu").generate(
        prompts, steps=2, guidance=2.0, seed=4, batch_size=4
    )
    for row, picture in zip(noted[4:], drawn, strict=True):
        with Image.open(tmp_path / "tiny-sd" / "shapes" / "images" / row["file"]) as saved:
            assert np.array_equal(np.asarray(saved), np.asarray(picture))


def test_pictures_that_are_no_numbers_are_not_scored(tiny: Tiny, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny("sd"), broken)
    file = broken / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.bias"][:] = float("inf")
    save_file(weights, file, {"format": "pt"})
    Bridge.connect(tiny("t5"), broken, rank=2, device="cpu").save(tmp_path / "bridge")
    (tmp_path / "prompts.txt").write_text("a cat\n")
    changes = {"suites": [str(tmp_path / "prompts.txt")], "metrics": ["shapes"]}
    for _ in range(2):
        with pytest.raises(BridgeError, match="the picture of 'a cat' is not a number"):
            evaluate(settings(tmp_path / "out", tmp_path / "bridge", **changes))
    assert not list((tmp_path / "out").rglob("*.png"))
    assert not (tmp_path / "out" / "report.json").exists()


# ---- interrupted, and in several processes


def arguments(out: Path, *entries: object) -> list[object]:
    flags = [
        "--suites",
        "shapes",
        "--limit",
        "18",
        "--steps",
        "2",
        "--guidance",
        "2",
        "--batch-size",
        "4",
        "--device",
        "cpu",
        "--out",
        out,
    ]
    return ["evaluate", *entries, *flags]


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_files_and_draws_nothing_twice(
    bridge: Path, tmp_path: Path
) -> None:
    assert lavi_bridge(*arguments(tmp_path / "straight", "zoo:tiny-sd", bridge)).poll() == 0
    out, rng = tmp_path / "killed", random.Random(0)
    kept: dict[Path, int] = {}
    for wanted in (20 + rng.randrange(9), 36):  # while the second entry is drawn, and judged
        process = Command(*arguments(out, "zoo:tiny-sd", bridge))
        while sum(1 for _ in out.rglob("*.png")) < wanted and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        process.kill()
        for manifest in out.rglob("*anifest*.jsonl"):  # what is noted stays as it is
            for line in manifest.read_text().splitlines():
                path = manifest.parent / "images" / json.loads(line)["file"]
                kept.setdefault(path, path.stat().st_mtime_ns)
    assert lavi_bridge(*arguments(out, "zoo:tiny-sd", bridge)).poll() == 0
    assert len(kept) > 15
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    assert content(out) == content(tmp_path / "straight")


@pytest.mark.slow
def test_two_processes_draw_and_judge_what_one_does(bridge: Path, tmp_path: Path) -> None:
    assert lavi_bridge(*arguments(tmp_path / "one", bridge)).poll() == 0
    run_distributed(*arguments(tmp_path / "two", bridge))
    one, two = (content(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        if name.endswith(".png"):
            pair = [np.asarray(Image.open(tmp_path / side / name), int) for side in ("one", "two")]
            assert abs(pair[0] - pair[1]).max() <= 1
    assert json.loads(one["report.json"]) == json.loads(two["report.json"])


@pytest.mark.slow
def test_a_signal_stops_it_with_a_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = Command(*arguments(out, "zoo:tiny-sd"))
    while sum(1 for _ in out.rglob("*.png")) < 3 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 2
    assert "error: stopped; the same command goes on from there" in process.stderr
    assert lavi_bridge(*arguments(out, "zoo:tiny-sd")).poll() == 0
    assert len(rows(out / "tiny-sd" / "shapes" / MANIFEST)) == 18


# ---- folders of images


def test_a_folder_of_images_is_an_entry(tmp_path: Path) -> None:
    first = evaluate(settings(tmp_path / "out", "zoo:tiny-sd")).suites[0].judged["tiny-sd"]
    images = tmp_path / "out" / "tiny-sd" / "shapes"
    again = evaluate(settings(tmp_path / "again", f"theirs={images}")).suites[0].judged["theirs"]
    assert again.scores == first.scores
    plain = tmp_path / "plain"
    plain.mkdir()
    for number, (path,) in enumerate(first.files):
        shutil.copy(path, plain / f"{number:03}.png")
    third = evaluate(settings(tmp_path / "third", plain)).suites[0].judged["plain"]
    assert third.scores == first.scores


def test_an_image_that_cannot_be_judged_is_counted_and_named(tmp_path: Path) -> None:
    evaluate(settings(tmp_path / "out", "zoo:tiny-sd"))
    images = tmp_path / "out" / "tiny-sd" / "shapes" / "images"
    files = sorted(images.iterdir())
    files[2].write_bytes(b"no picture")
    Image.new("RGB", (32, 32)).save(files[5])
    judged = evaluate(settings(tmp_path / "again", f"x={images}")).suites[0].judged["x"]
    assert sum(score is None for (score,) in judged.scores["shapes"]) == 2
    broken, small = sorted(judged.failures["shapes"])
    assert files[2].name in broken
    assert "cannot read image" in broken
    assert "32x32 pixels; expected 64x64" in small
    text = (tmp_path / "again" / "report.md").read_text()
    assert files[2].name in text
    assert "32x32" in text
    (suite,) = json.loads((tmp_path / "again" / "report.json").read_text())["suites"]
    assert suite["notes"][-1] == (
        f"x: 1 images are not 64×64 as the others, such as {files[5].name} (32×32)"
    )


def test_a_run_without_a_bridge_yet_is_no_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(BridgeError, match="its run has not come to one yet: the same command"):
        contestants_of([str(tmp_path)])


def test_missing_images_are_named(tmp_path: Path) -> None:
    prompts = [Prompt(f"p-{n}", f"text {n}") for n in range(3)]
    with pytest.raises(BridgeError, match=r"holds no images \(\.png"):
        found(tmp_path, prompts, 1)
    Image.new("RGB", (4, 4)).save(tmp_path / "p-0_0.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "text 2_000002.png")
    with pytest.raises(BridgeError, match=r"lacks images of 1 of 3 prompts, such as 'p-1_0\.png'"):
        found(tmp_path, prompts, 1)
    Image.new("RGB", (4, 4)).save(tmp_path / "p-1.jpg")
    names = [path.name for (path,) in found(tmp_path, prompts, 1)]
    assert names == ["p-0_0.png", "p-1.jpg", "text 2_000002.png"]


# ---- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling": Sampling(steps=3, guidance=2.0, batch_size=4)}, "another steps .2 there, 3"),
        ({"limit": 11}, "another prompts"),
        ({"images": 2}, "another images per prompt .1 there, 2 here"),
    ],
)
def test_images_of_other_settings_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    evaluate(settings(tmp_path, "zoo:tiny-sd"))
    with pytest.raises(BridgeError, match=message):
        evaluate(settings(tmp_path, "zoo:tiny-sd", **change))


def test_a_manifest_of_another_bridge_is_refused(bridge: Path, tmp_path: Path) -> None:
    evaluate(settings(tmp_path, f"mine={bridge}", limit=6))
    with pytest.raises(BridgeError, match=r"another bridge \(.* choose another --out, or delete"):
        evaluate(settings(tmp_path, "mine=zoo:tiny-sd", limit=6))


def test_a_bridge_whose_base_model_changed_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    base = tmp_path / "sd"
    shutil.copytree(tiny("sd"), base)
    Bridge.connect(tiny("t5"), base, rank=2, device="cpu").save(tmp_path / "bridge")
    shutil.rmtree(base)
    shutil.copytree(tiny("sd2-v"), base)
    with pytest.raises(BridgeError, match="was trained on another vision model"):
        evaluate(settings(tmp_path / "out", tmp_path / "bridge"))


def test_entries_that_are_nowhere_or_share_a_name_are_refused(bridge: Path, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="nothing to evaluate"):
        contestants_of([])
    with pytest.raises(BridgeError, match="neither a Hub id"):
        contestants_of(["/no/such"])
    with pytest.raises(BridgeError, match="two entries are called 'joined'"):
        contestants_of([str(bridge), str(bridge)])
    for name in ("a/b", ".."):
        with pytest.raises(BridgeError, match="cannot name a folder; give NAME="):
            contestants_of([f"{name}={bridge}"])
    shutil.copytree(bridge, tmp_path / "lr=1e-4")
    (entry,) = contestants_of([str(tmp_path / "lr=1e-4")])
    assert entry.spec == str(tmp_path / "lr=1e-4")


def test_a_pipeline_on_the_hub_is_an_image_model(tiny: Tiny, hub: Path) -> None:
    cached(hub, "sd", tiny("sd"))
    assert contestants_of(["me/sd"])[0].kind == "image model"


def test_missing_scorers_are_said_before_anything_is_drawn(
    bridge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAVI_BRIDGE_CACHE", str(tmp_path / "cache"))
    real = tmp_path / "real"
    real.mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8)).save(real / f"{number}.png")
    cases = {
        "clip-score": "'openai/clip-vit-base-patch32' is no folder here",
        "fid": "compares with real images: give --reference",
        "flip-score": "unknown metric 'flip-score'.*did you mean",
    }
    for metric, message in cases.items():
        with pytest.raises(BridgeError, match=message):
            evaluate(settings(tmp_path / "out", bridge, metrics=[metric]))
    with pytest.raises(BridgeError, match=r"pt_inception-2015-12-05.*\.pth"):
        evaluate(settings(tmp_path / "out", bridge, metrics=["fid"], reference=real))
    with pytest.raises(BridgeError, match="holds 0 images to compare with"):
        evaluate(settings(tmp_path / "out", bridge, metrics=["fid"], reference=tmp_path / "typo"))
    with pytest.raises(BridgeError, match=r"--scorers takes METRIC=PATH .*, not 'clip'"):
        evaluate(settings(tmp_path / "out", bridge, scorers=["clip"]))
    assert not (tmp_path / "out").exists()


def test_odd_prompts_draw_and_score(clip: Path, tmp_path: Path) -> None:
    """A slash, a newline, 2,000 characters, one twice; that CLIP reads no end is noted."""
    prompts = ["a/b: red & <blue>", "two\nlines", "long " * 400, "a/b: red & <blue>"]
    suite = tmp_path / "odd.jsonl"
    suite.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    with pytest.warns(UserWarning, match="longer than"):
        run = evaluate(
            settings(
                tmp_path / "out",
                "zoo:tiny-sd",
                suites=[str(suite)],
                metrics=["clip-score"],
                scorers=[f"clip-score={clip}"],
            )
        )
    (result,) = run.suites
    assert "1 of 4 texts are longer than the 20 tokens" in result.notes[0]
    assert result.notes[1] == "1 of 4 prompts occur more than once"
    (scores,) = result.judged["tiny-sd"].scores.values()
    assert len(scores) == 4
    assert all(-1 <= (score or 0) <= 1 and score is not None for (score,) in scores)


@pytest.mark.slow
def test_fid_and_kid_against_real_photos_warn_where_there_are_too_few(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SqueezeNet stands in for Inception, as its weights are not at hand."""
    real = tmp_path / "real"
    real.mkdir()
    for number, photo in enumerate(photos(shared, 20)):
        photo.save(real / f"{number}.png")
    for name in ("fid", "kid"):
        kind = METRICS[name]

        class Small(kind):  # type: ignore[misc, valid-type]
            def __init__(self, **options: Any) -> None:
                super().__init__(extractor=squeezenet(shared), **options)

        monkeypatch.setitem(METRICS._entries, name, Small)
    config = settings(
        tmp_path / "out", "zoo:tiny-sd", f"same={real}", metrics=["fid", "kid"], reference=real
    )
    run = evaluate(EvaluateConfig(**(vars(config) | {"limit": 20})))
    (suite,) = run.suites
    far, same = (suite.judged[name].distances for name in ("tiny-sd", "same"))
    assert same["fid"] == pytest.approx(0, abs=1)  # fewer photos than features
    assert far["fid"] > 1000
    assert far["kid"] > same["kid"]
    assert [note for note in suite.notes if "use KID" in note]


# ---- official scorers


def test_exports_feed_official_scorers_whose_results_come_back(
    shared: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "suites": ["t2i-compbench:spatial"],
        "prompts": shared / "prompts",
        "limit": 2,
        "metrics": ["shapes"],
        "images": 2,
        "export": tmp_path / "export",
    }
    run = evaluate(settings(tmp_path / "out", "zoo:tiny-sd", **changes))
    assert run.suites[0].judged["tiny-sd"].scores == {}
    place = tmp_path / "export" / "tiny-sd" / "t2i-compbench-spatial" / "spatial"
    assert len(list((place / "samples").glob("*_00000?.png"))) == 4
    labels = place / "labels" / "annotation_obj_detection_2d"
    labels.mkdir(parents=True)
    answers = [{"question_id": n, "answer": f"{n / 4:.4f}"} for n in range(4)]
    (labels / "vqa_result.json").write_text(json.dumps(answers))
    run = evaluate(settings(tmp_path / "out", "zoo:tiny-sd", **changes))
    assert run.suites[0].judged["tiny-sd"].scores == {"unidet": [[0.0, 0.25], [0.5, 0.75]]}
    assert run.metrics["unidet"].title == "UniDet (official)"


@pytest.mark.parametrize(
    "suite", ["t2i-compbench:spatial", pytest.param("geneval", marks=pytest.mark.slow)]
)
def test_an_export_of_other_images_is_refused(shared: Path, tmp_path: Path, suite: str) -> None:
    """Or another bridge would get the official scores of an earlier one."""
    changes: dict[str, Any] = {
        "suites": [suite],
        "prompts": shared / "prompts",
        "limit": 2,
        "metrics": ["shapes"],
        "images": 1,
        "export": tmp_path / "export",
    }
    evaluate(settings(tmp_path / "one", "zoo:tiny-sd", **changes))
    evaluate(settings(tmp_path / "same", "zoo:tiny-sd", **changes))
    with pytest.raises(BridgeError, match="an export of other images; choose another --export"):
        evaluate(settings(tmp_path / "two", "tiny-sd=zoo:tiny-ldm", **changes))


def test_the_complex_score_is_the_mean_of_the_parts_that_apply(shared: Path) -> None:
    prompts = load_suite("t2i-compbench:complex", folder=shared / "prompts")
    lists = complex_lists(shared / "prompts")
    kinds = {p.text: kind_of(p.text, lists) for p in prompts}
    assert Counter(kinds.values()) == {"action": 212, "spatial": 58, "spatialaction": 30}
    first = {
        kind: next(p for p in prompts if kinds[p.text] == kind) for kind in set(kinds.values())
    }
    asked = [first["spatial"], first["action"], first["spatialaction"], Prompt("x", "y", "color")]
    result = Judged(
        [[Path("a"), Path("b")]] * 4,
        {
            "blip-vqa": [[0.6, 0.3]] * 4,
            "spatial-owlv2": [[0.9, None]] * 4,
            "clip-nonspatial": [[0.3, 0.3]] * 4,
        },
    )
    add_three_in_one(result, asked, kinds)
    (a, _), (b, _), (c, missing), (other, _) = result.scores["3-in-1-owlv2"]
    assert (a, b, c) == pytest.approx((0.75, 0.45, 0.6))
    assert missing is None
    assert other is None


def test_long_prompts_of_ones_own_stand_in_the_papers_columns(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "made.jsonl"
    path.write_text('{"short": "a cat", "long": "a cat on a red mat"}\n')
    run = evaluate(
        settings(
            tmp_path / "out",
            "zoo:tiny-sd",
            suites=[str(path)],
            metrics=["clip-score"],
            scorers=[f"clip-score={clip}"],
        )
    )
    assert [suite.name for suite in run.suites] == ["long"]
    assert "In the paper's layout" in (tmp_path / "out" / "report.md").read_text()


def test_a_journal_survives_odd_letters_and_a_merge_cut_short(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.append([{"file": "b", "prompt": "a\u2028red\x85cat"}, {"file": "a", "prompt": ""}])
    left = journal.own.read_bytes()
    journal.merge(lambda row: row["file"], key="file")
    journal.own.write_bytes(left + b'{"file": "c", "pro')  # killed before it was deleted, and after
    Journal(tmp_path / "rows.jsonl").merge(lambda row: row["file"], key="file")
    assert [row["file"] for row in journal.rows()] == ["a", "b"]


@pytest.mark.slow
def test_another_batch_size_goes_on_with_what_is_there(tmp_path: Path) -> None:
    evaluate(
        settings(tmp_path, "zoo:tiny-sd", sampling=Sampling(steps=2, guidance=2, batch_size=3))
    )
    images = tmp_path / "tiny-sd" / "shapes" / "images"
    for name in ("color-0001_0.png", "count-0000_0.png"):
        (images / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in images.iterdir()}
    evaluate(
        settings(tmp_path, "zoo:tiny-sd", sampling=Sampling(steps=2, guidance=2, batch_size=8))
    )
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    assert len(rows(tmp_path / "tiny-sd" / "shapes" / MANIFEST)) == 12


def test_images_of_a_folder_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in range(12):
        Image.new("RGB", (4, 4)).save(tmp_path / f"p_{number}.png")
    (names,) = found(tmp_path, [Prompt("p", "x")], 12)
    assert [path.name for path in names] == [f"p_{number}.png" for number in range(12)]


def test_seeds_of_a_suite_follow_its_prompts() -> None:
    prompts = [Prompt("a", "x"), Prompt("b", "y")]
    jobs = jobs_of(prompts, 3, 42)
    assert [job.seed for job in jobs] == [42, 43, 44, 45, 46, 47]
    assert [job.file for job in jobs][2:4] == ["a_2.png", "b_0.png"]
    assert os.sep not in jobs[0].file


# ---- base models that have moved


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bridges `one` and `two` on a language model that is now in `there`, not in `here`."""
    root = tmp_path_factory.mktemp("moved")
    shutil.copytree(ZOO / "tiny-t5-small", root / "here")
    for name, seed in (("one", 0), ("two", 1)):
        Bridge.connect(
            root / "here", "zoo:tiny-sd", adapter="linear", rank=1, device="cpu", seed=seed
        ).save(root / name)
    (root / "here").rename(root / "there")
    return root


def short(out: Path, *entries: object, **changes: Any) -> EvaluateConfig:
    once = Sampling(steps=1, guidance=1.0, batch_size=6)
    return settings(out, *entries, limit=6, sampling=once, metrics=["shapes"], **changes)


def test_a_moved_base_model_is_named_with_the_flag_to_give(moved: Path, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"needs its language model, .* --language FOLDER"):
        evaluate(short(tmp_path, moved / "one"))


def test_one_place_serves_every_bridge(moved: Path, tmp_path: Path) -> None:
    entries = (moved / "one", moved / "two", "zoo:tiny-sd")
    run = evaluate(short(tmp_path, *entries, language=[str(moved / "there")]))
    assert [entry.name for entry in run.entries] == ["one", "two", "tiny-sd"]


def test_a_place_may_be_of_one_entry(moved: Path, bridge: Path, tmp_path: Path) -> None:
    given = {"language": [f"a={moved / 'there'}"], "vision": ["a=zoo:tiny-sd"]}
    run = evaluate(short(tmp_path, f"a={moved / 'one'}", bridge, **given))
    assert [entry.name for entry in run.entries] == ["a", "joined"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"language": ["b=there"]}, "--language b=there: no bridge 'b' .*bridges: one"),
        ({"vision": ["zoo:tiny-sd", "zoo:tiny-ldm"]}, "--vision .*: one place for all"),
        ({"vision": ["zoo:tiny-ldm"]}, "was trained on another vision model"),
    ],
)
def test_a_place_that_fits_no_bridge_is_refused(
    moved: Path, tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BridgeError, match=reason):
        evaluate(short(tmp_path, moved / "one", **{"language": [str(moved / "there")]} | given))


def test_an_equals_sign_in_a_folders_name_stays_a_part_of_it(moved: Path, tmp_path: Path) -> None:
    there = tmp_path / "rank=1"
    there.symlink_to(moved / "there", target_is_directory=True)
    run = evaluate(short(tmp_path / "out", moved / "one", language=[str(there)]))
    assert [entry.name for entry in run.entries] == ["one"]
