"""The work of the tables: searches, seeds, processes; stopped, killed, gone on with."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from lavi_bridge import BridgeError
from lavi_bridge.files.atomic import make_folder
from lavi_bridge.metrics.shapes import ShapesDistance
from lavi_bridge.reproduce.budgets import BUDGETS, FREE, PLAIN
from lavi_bridge.reproduce.jobs import jobs_of, seconds_left
from lavi_bridge.reproduce.rows import Row, rows_of
from lavi_bridge.reproduce.run import reproduce
from lavi_bridge.reproduce.searching import one_seed, search
from lavi_bridge.reproduce.settings import (
    Places,
)
from lavi_bridge.reproduce.work import _reference, _take, time_left, work
from lavi_bridge.shapes.scenes import pictures, render
from lavi_bridge.shapes.world import CATEGORIES, evaluation_set
from lavi_bridge.show.pictures import to_images
from lavi_bridge.train.warm_start import pairs
from tests.reproduce.made import quick, settings, stand_ins


@pytest.fixture(scope="module")
def done(few: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small run of the image models' table."""
    out = tmp_path_factory.mktemp("reproduce") / "run"
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
    assert not list(places.search(row).parent.glob("search"))  # its runs are gone


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pairs of the shapes world are left out")
@pytest.mark.parametrize(
    ("slug", "steps"),
    [
        ("own-sd", ["10", "20"]),
        ("t5-small-sd", ["0", "10", "20"]),
        ("t5-large-sd-pairs", ["0", "10", "20"]),
    ],
)
def test_a_row_is_judged_on_its_way(
    few: None, slug: str, steps: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes = BUDGETS["minutes"]
    both = replace(minutes, suites=(PLAIN, FREE), followed=(0.0, 0.5), followed_by=6)
    monkeypatch.setitem(BUDGETS, "minutes", both)
    monkeypatch.setattr(pairs, "GENERATED", 300)
    config, places = quick(tmp_path, scale=1.0), Places(tmp_path)
    (row,) = [row for row in rows_of(["languages"]) if row.slug == slug]
    _reference(places, config)
    search(row, config, places)
    one_seed(row, 0, config, places)
    found = json.loads(places.result(row, 0).read_text())["on its way"]
    assert list(found) == steps
    assert all(
        len(look[suite]["scores"]["shapes"]) == 6 for look in found.values() for suite in look
    )
    assert all(set(look) == {PLAIN, FREE} for look in found.values())
    # all points of a curve are drawn from the same noise
    seeds = [
        [json.loads(line)["seed"] for line in path.read_text().splitlines()]
        for path in sorted(places.job(row, 0).glob(f"on-its-way/*/{slug}/{PLAIN}/manifest.jsonl"))
    ]
    assert len(seeds) == len(steps)
    assert all(of_step == seeds[0] for of_step in seeds)


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
def test_what_is_lost_is_made_again_to_the_digit(done: Path, tmp_path: Path) -> None:
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


def test_the_records_alone_give_the_page_without_its_grids(done: Path, tmp_path: Path) -> None:
    packed = done / "paper-in-miniature" / "records.zip"
    before = packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        assert "rows/t5-large-sd/seed-0/run/metrics.jsonl" in archive.namelist()
        archive.extractall(tmp_path)
    page = reproduce(quick(tmp_path))
    assert page is not None
    assert (page.with_suffix("") / "records.zip").read_bytes() == before
    assert (tmp_path / "results.json").read_text() == (done / "results.json").read_text()
    told = (done / "paper-in-miniature.md").read_text()
    grid = "\n\n![pictures](paper-in-miniature/visions.png)\n\n"
    before_it, _, after = told.partition(grid)
    assert page.read_text() == before_it[: before_it.rindex("\n") + 1] + after


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
    assert [job.seed for job in jobs] == [None] * 6 + [0] * 9 + [1] * 6
    assert {job.row.slug for job in jobs[6:15] if not job.row.trained} == {
        "ldm-alone",
        "sd-alone",
        "pixart-alone",
    }


def test_the_time_left_is_told_by_the_jobs_that_are_done(tmp_path: Path) -> None:
    jobs, places = jobs_of(settings(tmp_path, "visions", seeds=2)), Places(tmp_path)
    slugs = ("t5-large-ldm", "t5-large-sd", "t5-large-pixart")
    assert time_left(jobs, places, 2) == ""
    for job in jobs:
        make_folder(job.record(places).parent)
        if job.seed is None:
            job.record(places).write_text('{"seconds": 10.0}')
    assert time_left(jobs, places, 2) == ""  # no run is done
    for slug, seconds in zip(slugs, (100, 200), strict=False):
        record = next(j for j in jobs if (j.row.slug, j.seed) == (slug, 0)).record(places)
        record.write_text(f'{{"seconds": {{"training": {seconds}, "evaluation": 20}}}}')
    # 120 and 220 of the second seeds; of the four rows that were not done yet, twice, their mean
    # and the two other image models alone take what the first one did
    assert seconds_left(jobs, places) is None  # none of these is done
    record = next(j for j in jobs if j.row.slug == "sd-alone").record(places)
    record.write_text('{"seconds": {"evaluation": 30}}')
    assert seconds_left(jobs, places) == 120 + 220 + 8 * 170 + 2 * 30
    assert time_left(jobs, places, 2) == "; about 14:40 left"


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
