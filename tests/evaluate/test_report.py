"""The report of an evaluation: what its tables say, and what it survives."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavi_bridge import BridgeError
from lavi_bridge.evaluate.report.forest import round_numbers
from lavi_bridge.evaluate.report.report import write_report
from lavi_bridge.evaluate.report.tables import (
    PAPER_COLUMNS,
    Table,
    console,
    digits,
    paper_table,
    score_tables,
    summarize,
)
from lavi_bridge.evaluate.results import Entry, Evaluation, Judged, MetricInfo, SuiteResults
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.recipes import METRICS, RECIPES

NASTY = 'a <b>red</b> & "blue" | cube\nin `code` *by* </script> [x](y) ' + "very " * 400
SD = "CompVis/stable-diffusion-v1-4"
Scores = list[list[float | None]]
EXACT = MetricInfo("exact", "Exact", True, {"scorer": "zoo"})
FID = MetricInfo("fid", "FID", False, {"mode": "pytorch-fid"})


def suite(name: str, prompts: list[Prompt], judged: dict[str, Judged], *notes: str) -> SuiteResults:
    seeds = [[place] for place in range(len(prompts))]
    return SuiteResults(name, name.title(), prompts, "0d1a6d8d961f464e", seeds, judged, [*notes])


@pytest.fixture
def shapes(tmp_path: Path) -> Evaluation:
    """Two entries, two categories of two prompts; one picture small, one large, one torn."""
    small, large, torn = (tmp_path / f"{n}.png" for n in ("small", "large #1", "torn"))
    Image.new("RGB", (64, 64), "red").save(small)
    Image.new("RGB", (512, 384), "blue").save(large)
    torn.write_bytes(small.read_bytes()[:40])
    prompts = [
        Prompt("color-0", NASTY, "color"),
        Prompt("color-1", "a red cube", "color"),
        Prompt("count-0", "two cubes", "count"),
        Prompt("count-1", "three cubes", "count"),
    ]
    good = Judged([[small], [large], [small], [small]], {"exact": [[1.0], [1.0], [1.0], [0.0]]})
    poor = Judged(
        [[small], [torn], [small], []],
        {"exact": [[0.0], [None], [1.0], []]},
        failures={"exact": ["torn.png: cannot be read | <i>"]},
    )
    entries = [
        Entry("good", {"kind": "bridge", "fingerprint": "1f3a9c"}),
        Entry("po|or <x>", {"kind": "folder"}),
    ]
    results = suite("shapes", prompts, {"good": good, "po|or <x>": poor}, "4 prompts are few")
    return Evaluation(entries, {"exact": EXACT}, [results], {"steps": 20})


def written(evaluation: Evaluation, out: Path) -> tuple[dict[str, Any], str, str]:
    write_report(evaluation, out)
    texts = [(out / f"report.{kind}").read_text("utf-8") for kind in ("json", "md", "html")]
    return json.loads(texts[0]), texts[1], texts[2]


def said(table: Table) -> dict[str, list[str]]:
    """By row, the cells' texts, the best marked."""
    return {
        row.label: [f"*{cell.text}*" if cell.best else cell.text for cell in row.cells]
        for row in table.rows
    }


class Tags(HTMLParser):
    """Which tags a page opens, and whether each is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag != "p" or "p" in self.open:
            assert self.open.pop() == tag


# ---- tables


def test_tables_say_what_the_numbers_are(shapes: Evaluation) -> None:
    (table,) = score_tables(shapes, summarize(shapes)[0])
    assert table.title == "Exact (higher is better)"
    assert table.columns == ["overall", "color", "count"]
    assert said(table) == {
        "good": ["*0.75*", "*1.00*", "0.50"],
        "po|or <x>": ["0.50", "0.00", "*1.00*"],
    }
    # 2 of 2: Wilson's lower limit is n / (n + z²)
    assert table.rows[0].cells[1].notes == ("0.34–1.00",)


def test_metrics_without_parts_share_a_table_and_lower_may_be_better() -> None:
    prompts = [Prompt(f"p{n}", f"prompt {n}") for n in range(2)]
    error = MetricInfo("error", "Error", False, {})
    aspects = {"exact": EXACT, "error": error, "unused": MetricInfo("unused", "Unused", True, {})}
    one = Judged([[], []], {"exact": [[0.25], [0.75]], "error": [[1.0], [2.0]]})
    two = Judged([[], []], {"exact": [[0.25], [0.25]], "error": [[3.0], [3.0]]})
    results = suite("mine", prompts, {"a": one, "b": two})
    evaluation = Evaluation([Entry("a", {}), Entry("b", {})], aspects, [results], {})
    (summary,) = summarize(evaluation)
    (table,) = score_tables(evaluation, summary)
    assert table.columns == ["Exact (higher is better)", "Error (lower is better)"]
    assert said(table) == {"a": ["*0.50*", "*1.50*"], "b": ["0.25", "3.00"]}
    test = summary.paired["error"]["overall"]["b"]
    assert test is not None
    assert (test.difference, test.wins, test.losses) == (1.5, 2, 0)  # of the number …
    markdown = written_markdown(evaluation)
    assert "+1.50 (+1.00 to +2.00; p = 0.5; 0 won, 2 lost, 0 tied)" in markdown  # … of the entry


def written_markdown(evaluation: Evaluation) -> str:
    from lavi_bridge.evaluate.report.report import _markdown, _section

    sections = [_section(evaluation, summary, Path()) for summary in summarize(evaluation)]
    return "\n".join(_markdown(evaluation, None, sections))


def test_decimals_follow_the_narrowest_interval() -> None:
    from lavi_bridge.evaluate.statistics import Estimate

    def shown(half: float) -> int:
        return digits([{"a": Estimate(0.5, 0.5 - half, 0.5 + half, 9), "b": None}])

    assert [shown(half) for half in (0.4, 0.06, 0.01, 0.0012, 1e-6)] == [2, 2, 3, 4, 4]
    assert digits([{"a": Estimate(0.5, None, None, 1)}]) == 4


def test_two_modes_of_a_metric_stand_side_by_side() -> None:
    modes = {
        name: MetricInfo(name, "BLIP-VQA", True, {"mode": mode})
        for name, mode in (("blip-vqa", "faithful"), ("blip-vqa-fixed", "fixed"))
    }
    judged = Judged([[]], {"blip-vqa": [[0.25]], "blip-vqa-fixed": [[0.75]]})
    results = suite("t2i-compbench:color", [Prompt("c", "c", "color")], {"a": judged})
    evaluation = Evaluation([Entry("a", {})], modes, [results], {})
    (table,) = score_tables(evaluation, summarize(evaluation)[0])
    assert table.columns == [
        "BLIP-VQA [blip-vqa], color (higher is better)",
        "BLIP-VQA [blip-vqa-fixed], color (higher is better)",
    ]
    assert said(table) == {"a": ["0.2500", "0.7500"]}


# ---- the paper's layout


def compbench(metrics: dict[str, list[str]], entries: list[Entry], *names: str) -> Evaluation:
    """Every metric scores 0.25 and 0.5 in its categories; one suite for each name."""
    infos = {name: MetricInfo(name, name, True, {}) for name in metrics}
    categories = sorted({part for parts in metrics.values() for part in parts})
    results = []
    for name in names:
        kept = [c for c in categories if name.partition(":")[2] in ("", c)]
        prompts = [Prompt(f"{c}-{i}", c, c) for c in kept for i in range(2)]
        scores: dict[str, Scores] = {
            metric: [[(0.25, 0.5)[i]] if c in parts else [None] for c in kept for i in range(2)]
            for metric, parts in metrics.items()
        }
        judged = {entry.name: Judged([[] for _ in prompts], scores) for entry in entries}
        results.append(suite(name, prompts, judged))
    return Evaluation(entries, infos, results, {})


def test_the_papers_columns_are_the_recipes_metrics() -> None:
    assert tuple(PAPER_COLUMNS) == METRICS


def test_published_figures_stand_below_ours() -> None:
    entries = [Entry("mine", {"kind": "bridge"}, "paper-llama2-sd"), Entry("other", {})]
    metrics = {"blip-vqa": ["color", "shape"], "clip-nonspatial": ["non-spatial"]}
    evaluation = compbench(metrics, entries, "t2i-compbench")
    table = paper_table(evaluation, summarize(evaluation))
    assert table is not None
    assert table.columns[0] == "short FID\N{NO-BREAK SPACE}↓"
    rows = said(table)
    assert list(rows) == ["mine", "published: paper-llama2-sd", "other"]
    ours = ["–"] * 5 + ["0.3750", "0.3750", "–", "–", "0.3750", "–"]
    assert rows["mine"] == rows["other"] == ours
    assert rows["published: paper-llama2-sd"] == [
        "21.80",
        "5.883",
        "0.3172",
        "6.355",
        "0.3231",
        "0.4859",
        "0.4285",
        "0.5055",
        "0.1914",
        "0.3106",
        "0.3094",
    ]


def test_stable_diffusion_alone_brings_the_ablations() -> None:
    entries = [
        Entry("sd", {"kind": "image model", "vision": {"id": SD, "fingerprint": "1f3a"}}),
        Entry("clip", {"kind": "bridge", "vision": {"id": SD}}, "paper-clip-sd"),
    ]
    evaluation = compbench({"blip-vqa": ["color"]}, entries, "t2i-compbench:color")
    table = paper_table(evaluation, summarize(evaluation))
    assert table is not None
    rows = said(table)
    assert list(rows) == [
        "sd",
        "published: SD 1.4 alone",
        "clip",
        "published: paper-clip-sd",
        "published: T5-Large + U-Net, w/o adapter",
        "published: T5-Large + U-Net, w/o LoRA",
    ]
    assert rows["published: SD 1.4 alone"] == [
        "20.32",
        "5.899",
        "0.3132",
        "6.120",
        "0.3171",
        "0.3570",
        "0.3563",
        "0.4028",
        "0.1225",
        "0.3104",
        "0.3042",
    ]
    assert rows["published: T5-Large + U-Net, w/o LoRA"][5] == "0.2485"
    assert rows["sd"][5] == "0.3750"


def test_only_what_the_paper_measured_stands_in_its_columns() -> None:
    entries = [Entry("mine", {}, "paper-t5-large-sd")]
    own = compbench({"spatial-owlv2": ["spatial"]}, entries, "t2i-compbench")
    official = compbench({"unidet": ["spatial"]}, entries, "t2i-compbench:spatial")
    fixed = compbench({"blip-vqa": ["color"]}, entries, "t2i-compbench")
    fixed.metrics["blip-vqa"] = MetricInfo("blip-vqa", "BLIP-VQA", True, {"mode": "fixed"})
    for evaluation, shown in ((own, "–"), (official, "0.3750"), (fixed, "–")):
        table = paper_table(evaluation, summarize(evaluation))
        assert table is not None
        assert {*said(table)["mine"]} == {"–", shown}
    other = compbench({"unidet": ["spatial"]}, entries, "geneval")
    assert paper_table(other, summarize(other)) is None


def test_distances_stand_in_the_papers_columns_too(tmp_path: Path) -> None:
    prompts = [Prompt("a", "a")]
    judged = {
        name: Judged([[]], distances={"fid": value})
        for name, value in (("mine", 23.456), ("other", 20.0), ("lost", float("nan")))
    }
    judged["mine"].intervals["fid"] = 22.0, 25.0
    judged["lost"].intervals["fid"] = math.nan, math.nan
    entries = [Entry(name, {}) for name in judged]
    evaluation = Evaluation(entries, {"fid": FID}, [suite("short", prompts, judged)], {})
    table = paper_table(evaluation, summarize(evaluation))
    assert table is not None
    assert {name: cells[0] for name, cells in said(table).items()} == {
        "mine": "23.46",
        "other": "*20.00*",
        "lost": "–",
    }
    record, markdown, _ = written(evaluation, tmp_path)
    assert "| mine | 23.46 (22.00–25.00) |" in markdown
    assert record["suites"][0]["distances"]["lost"] == {"fid": None}
    assert record["suites"][0]["intervals"]["mine"] == {"fid": [22, 25]}
    assert record["suites"][0]["intervals"]["lost"] == {}


def test_an_unknown_recipe_is_said() -> None:
    evaluation = compbench({"unidet": ["spatial"]}, [Entry("a", {}, "papre")], "t2i-compbench")
    with pytest.raises(BridgeError, match="unknown recipe 'papre'"):
        paper_table(evaluation, summarize(evaluation))


# ---- the files


def test_json_has_everything(shapes: Evaluation, tmp_path: Path) -> None:
    shapes.entries[0] = Entry("good", {"kind": "bridge"}, "paper-clip-sd")
    record, _, _ = written(shapes, tmp_path / "out")
    (found,) = record["suites"]
    assert record["settings"] == {"steps": 20}
    assert record["metrics"]["exact"]["provenance"] == {"scorer": "zoo"}
    assert record["published"]["rows"]["good"]["scores"] == RECIPES["paper-clip-sd"].scores
    assert (found["prompt_hash"], found["prompts"]) == ("0d1a6d8d961f464e", 4)
    assert found["categories"] == {"color": 2, "count": 2}
    assert (found["seeds"], found["images_per_prompt"]) == ([[0], [1], [2], [3]], [1])
    assert found["estimates"]["exact"]["overall"]["good"]["value"] == 0.75
    assert found["estimates"]["exact"]["overall"]["po|or <x>"]["count"] == 2
    assert found["failures"]["po|or <x>"] == {"exact": ["torn.png: cannot be read | <i>"]}
    assert found["notes"] == ["4 prompts are few"]
    example = found["examples"][0]
    assert example["prompt"]["text"] == NASTY
    assert example["pictures"][0] == {
        "entry": "good",
        "file": "../small.png",
        "scores": {"exact": 1.0},
    }
    assert str(tmp_path) not in (tmp_path / "out" / "report.json").read_text("utf-8")


def test_entries_are_paired_on_what_both_have(shapes: Evaluation, tmp_path: Path) -> None:
    shapes.suites[0].judged["po|or <x>"].scores["exact"][3] = [None]
    record, markdown, page = written(shapes, tmp_path / "out")
    test = record["suites"][0]["paired"]["exact"]["overall"]["po|or <x>"]
    # prompt 0: 0 for 1; prompt 2: 1 for 1
    assert (test["difference"], test["p"], test["losses"], test["ties"]) == (-0.5, 1.0, 1, 1)
    for text in (markdown, page):
        assert "Compared with good" in text
        assert "0 won, 1 lost, 1 tied" in text


def test_an_image_more_in_one_entry_is_no_pair(shapes: Evaluation) -> None:
    shapes.suites[0].judged["po|or <x>"].scores["exact"][0] = [0.0, 1.0]
    with pytest.raises(BridgeError, match="2 images in one entry and 1 in the other"):
        summarize(shapes)


def test_failures_and_notes_are_in_full_view(shapes: Evaluation, tmp_path: Path) -> None:
    lines = shapes.suites[0].judged["po|or <x>"].failures["exact"]
    lines += [f"image {n}: too dark" for n in range(300)]
    _, markdown, page = written(shapes, tmp_path / "out")
    assert "- **po\\|or &lt;x&gt;, Exact: 301 not judged**" in markdown
    assert "  - torn.png: cannot be read \\| &lt;i&gt;" in markdown
    assert "- **Note:** 4 prompts are few" in markdown
    assert "po|or &lt;x&gt;, Exact: 301 not judged" in page
    assert "<li>torn.png: cannot be read | &lt;i&gt;</li>" in page
    for text in (markdown, page):
        assert "and 101 more in report.json" in text
        assert text.index("4 prompts are few") < text.index("<details>")


def test_no_prompt_breaks_the_tables_of_markdown(shapes: Evaluation, tmp_path: Path) -> None:
    _, markdown, _ = written(shapes, tmp_path / "out")
    tables = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1
    assert '| a &lt;b&gt;red&lt;/b&gt; &amp; "blue" \\| cube in \\`code\\` \\*by\\*' in markdown
    assert "![](../small.png)" in markdown
    assert "![](../large%20%231.png)" in markdown
    assert max(map(len, markdown.splitlines())) < 600


def test_no_prompt_breaks_the_page(shapes: Evaluation, tmp_path: Path) -> None:
    _, _, page = written(shapes, tmp_path / "out")
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    names = {name for name, _ in tags.seen}
    assert not names & {"script", "link", "iframe"}
    assert [a["href"] for name, a in tags.seen if name == "a"] == [
        "https://arxiv.org/abs/2403.07860"
    ]
    heads = [a for name, a in tags.seen if name == "th"]
    assert heads
    assert all(a["scope"] in ("row", "col") for a in heads)
    pictures = [a for name, a in tags.seen if name == "img"]
    assert len(pictures) == 6
    assert pictures[0]["alt"] == NASTY
    assert not any(a["src"] is None or not a["src"].startswith("data:") for a in pictures)


def test_pictures_are_inlined_small_ones_sharp(shapes: Evaluation, tmp_path: Path) -> None:
    _, _, page = written(shapes, tmp_path / "out")
    urls = re.findall(r'src="data:image/(png|jpeg);base64,([^"]+)"( class="small")?', page)
    opened = {
        (kind, Image.open(io.BytesIO(base64.b64decode(data))).size, bool(sharp))
        for kind, data, sharp in urls
    }
    assert opened == {("png", (64, 64), True), ("jpeg", (256, 192), False)}
    assert "../torn.png cannot be read" in page
    assert "no picture" in page


def test_missing_scores_are_dashes(shapes: Evaluation, tmp_path: Path) -> None:
    shapes.suites[0].judged["po|or <x>"].scores = {}
    record, markdown, page = written(shapes, tmp_path / "out")
    assert record["suites"][0]["estimates"]["exact"]["overall"]["po|or <x>"] is None
    assert "| po\\|or &lt;x&gt; | – | – | – |" in markdown
    assert "<span>Exact –</span>" in page


def test_examples_are_the_first_of_every_category(tmp_path: Path) -> None:
    prompts = [Prompt(f"{c}-{i}", f"{c}{i}", c) for c in "abcdefgh" for i in range(6)]
    judged = {"x": Judged([[] for _ in prompts], {"exact": [[1.0] for _ in prompts]})}
    results = suite("shapes", prompts, judged)
    record, _, _ = written(Evaluation([Entry("x", {})], {"exact": EXACT}, [results], {}), tmp_path)
    shown = [example["prompt"]["text"] for example in record["suites"][0]["examples"]]
    assert len(shown) == 24
    assert shown[:5] == ["a0", "a1", "a2", "a3", "b0"]


def test_the_same_evaluation_gives_the_same_bytes(shapes: Evaluation, tmp_path: Path) -> None:
    write_report(shapes, tmp_path / "one")
    write_report(shapes, tmp_path / "two")
    for kind in ("json", "md", "html"):
        one, two = ((tmp_path / n / f"report.{kind}").read_bytes() for n in ("one", "two"))
        assert one == two
        assert str(tmp_path).encode() not in one


def test_ticks_are_round_and_few() -> None:
    assert round_numbers(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert round_numbers(0.301, 0.319) == [0.305, 0.31, 0.315]
    assert round_numbers(5.0, 5.0)
    for span in range(1, 200):
        assert 1 <= len(round_numbers(0.013, 0.013 + span / 100)) <= 6


def test_the_terminal_gets_the_tables_in_columns(shapes: Evaluation) -> None:
    assert console(shapes).splitlines() == [
        "",
        "Shapes: Exact (higher is better)",
        "           overall  color  count",
        "good          0.75   1.00   0.50",
        "po|or <x>     0.50   0.00   1.00",
        "note: 4 prompts are few",
    ]
