"""What is concluded from records, and the page of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavi_bridge import BridgeError
from lavi_bridge.files.atomic import make_folder
from lavi_bridge.prompts.catalogue import WORLD
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.reproduce.budgets import FREE, PLAIN
from lavi_bridge.reproduce.cells import difference_cell, table_grid
from lavi_bridge.reproduce.conclusions import claims_table
from lavi_bridge.reproduce.page import END, READING, write_page
from lavi_bridge.reproduce.results import (
    DISTANCE,
    EXACT,
    FACTS,
    ZOO_COLUMNS,
    Results,
    over_seeds,
)
from lavi_bridge.reproduce.rows import Table, rows_of, table_of
from lavi_bridge.reproduce.settings import Places
from tests.reproduce.made import fake, settings


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


def test_nothing_is_seen_against_a_first_row_that_draws_nothing_yet(tmp_path: Path) -> None:
    results, rows = fake(tmp_path, {"t5-large-sd": [0.0] * 6, "untrained-sd": [0.9] * 6})
    conclusion = table_of("languages").conclusions[0]
    table = Table("languages", "", tuple(rows.values()), (conclusion,))
    for f in results.findings(table):
        assert (f.verdict, f.reason) == (
            "unseen",
            "`t5-large-sd` does not yet draw what it is told",
        )
    back = replace(conclusion, first=conclusion.second, second=conclusion.first)
    found = results.findings(replace(table, conclusions=(back,)))
    assert {f.verdict for f in found} == {"holds"}  # that the other one is better is
    for record, many in zip(results.records("untrained-sd"), (0, 0, 60), strict=True):
        scores = record["suites"]["shapes"]["scores"]["shapes"]
        scores[:] = [[float(place < many)] for place in range(len(scores))]
    exact = results.findings(table)[0]
    assert exact.difference is not None
    assert (exact.difference.low or 0) < 0 < (exact.difference.high or 0)  # not decided either
    assert (exact.verdict, exact.reason[:13]) == ("unseen", "`t5-large-sd`")


def test_each_verdict_stands_over_its_control(tmp_path: Path) -> None:
    slugs = ("own-sd", "t5-large-sd", "untrained-sd")
    results, rows = fake(tmp_path, dict(zip(slugs, ([0.9] * 6, [0.6] * 6, [0.2] * 6), strict=True)))
    conclusion = table_of("languages").conclusions[0]
    assert conclusion.control == ("t5-large-sd", "own-sd")
    table = Table("languages", "", tuple(rows.values()), (conclusion,))
    lines = "\n".join(claims_table(results, results.findings(table))).splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {conclusion.claim}")]
    plain = line.split(" | ")[2]
    over, _, control = plain.partition("<br>")
    assert (over[:3], control[:2]) == ("✔ +", "*−")
    shown = [
        difference_cell(results.difference(*pair, EXACT), EXACT)
        for pair in (("t5-large-sd", "untrained-sd"), ("t5-large-sd", "own-sd"))
    ]
    assert (over, control) == (f"✔ {shown[0]}", f"*{shown[1]}*")


def test_a_grid_shows_some_prompts_of_each_suite(tmp_path: Path) -> None:
    results, rows = fake(tmp_path, {"t5-large-sd": [0.9] * 6, "untrained-sd": [0.1] * 6})
    results.config = replace(results.config, suites=[FREE], prompts=6)
    of_suite = {PLAIN: "red", FREE: "blue"}
    for row in rows.values():
        evaluated = results.places.job(row, 0) / "evaluation" / row.slug
        for suite, colour in of_suite.items():
            make_folder(evaluated / suite / "images")
            for prompt in load_suite(suite, limit=6):
                path = evaluated / suite / "images" / f"{prompt.id}_0.png"
                Image.new("RGB", (32, 32), colour).save(path)
    table = Table("languages", "", tuple(rows.values()), ())
    assert table_grid(results, table, dict.fromkeys(rows, "a row"), tmp_path) is not None
    with Image.open(tmp_path / "languages.png") as sheet:
        # the ids of both suites are the same, and yet each label has its own picture beside it
        counts = [
            sheet.getchannel(n).point(lambda value: 255 * (value < 128)).histogram()[255]
            for n in (0, 2)
        ]
    blue, red = (round(count / 128**2 / len(rows)) for count in counts)
    assert (red, blue) == (4, 4)
    path.unlink()
    assert table_grid(results, table, dict.fromkeys(rows, "a row"), tmp_path) is None


def test_a_lower_distance_is_a_gain(tmp_path: Path) -> None:
    results, _ = fake(tmp_path, {"t5-large-sd": [0.9] * 6, "untrained-sd": [0.1] * 6})
    found = results.difference("t5-large-sd", "untrained-sd", DISTANCE)
    assert found is not None
    assert found.difference == pytest.approx(0.8, abs=0.05)
    assert found.wins == 3
    assert (found.low or 0) > 0
    for seed, record in enumerate(results.records("t5-large-sd")):
        record["suites"]["shapes"]["distances"]["shapes-fd"] = [0.1, 0.1, 0.9][seed]
    e = results.estimate("t5-large-sd", DISTANCE)
    assert e is not None
    assert e.low == 0.0  # Student's interval reaches below, where no distance is
    assert (e.high or 0) > 1


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
    points = results.on_its_way("t5-large-sd", "shapes")
    assert points == [(0.0, 0.25), (50.0, 0.25), (100.0, 0.25)]  # the end from a look, as the rest
    assert results.on_its_way("t5-large-sd", "shapes-free") == []
    looks = [record["on its way"] for record in results.records("t5-large-sd")]
    looks[1].pop("100")  # one seed was judged by other code, not at the end
    assert results.on_its_way("t5-large-sd", "shapes") == points[:2]


@pytest.mark.parametrize(("right", "bold"), [(4, False), (40, True)])
def test_the_best_of_rows_that_draw_nothing_is_not_bold(
    tmp_path: Path, right: int, bold: bool
) -> None:
    rows = {row.slug: [0.0] * 6 for row in rows_of(["languages"])}
    fake(tmp_path, rows)
    path = Places(tmp_path).result(table_of("languages").rows[2], 0)
    found = json.loads(path.read_text())
    found["suites"]["shapes"]["scores"]["shapes"][:right] = [[1.0]] * right  # of 3 x 384
    path.write_text(json.dumps(found))
    text = write_page(settings(tmp_path, "languages")).read_text()
    line = next(line for line in text.splitlines() if line.startswith("| untrained T5-Large"))
    assert ("**" in line.split("|")[2]) == bold
    drawn = (tmp_path / "paper-in-miniature" / "languages.svg").read_text()
    assert "T5-Large, half its start pairs (ours)" in drawn  # a name is not cut


def test_every_suite_of_the_world_has_a_column() -> None:
    assert {column.suite for column in ZOO_COLUMNS} == set(WORLD)


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


def test_columns_name_what_they_measure() -> None:
    assert (EXACT.higher, FACTS.higher, DISTANCE.higher) == (True, True, False)
