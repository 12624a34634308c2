"""Questions about a prompt's pictures: read from the public layouts and from one's own files."""

import csv
import dataclasses
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lavi_bridge import BridgeError
from lavi_bridge.prompts import catalogue, suites
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.questions import (
    COLUMNS,
    Question,
    dpg,
    geneval2,
    questions_of,
    with_questions,
)
from lavi_bridge.prompts.readers import genai
from lavi_bridge.prompts.suite import as_prompts, blob
from lavi_bridge.prompts.suites import load_suite, with_dpg_questions

PUBLIC = os.environ.get("LAVI_BRIDGE_JUDGE_PROMPTS")
"""A folder with GenEval 2's and GenAI-Bench's own files, which are not handed on with the tests."""
CATS = {
    "prompt": "two red cats",
    "atom_count": 3,
    "vqa_list": [["How many cats are in the image?", "two"], ["Are the cats red?", "Yes"]],
    "skills": ["count", "attribute"],
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAVI_BRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_geneval_2_has_questions_by_skill_and_categories_by_atoms(tmp_path: Path) -> None:
    (prompt,) = as_prompts(geneval2(written(tmp_path / "data.jsonl", CATS)), "geneval2")
    assert (prompt.id, prompt.text, prompt.category) == ("3-atoms-0000", "two red cats", "3 atoms")
    assert questions_of(prompt) == [
        Question("How many cats are in the image?", "two", "count"),
        Question("Are the cats red?", "Yes", "attribute"),
    ]


@pytest.mark.skipif(PUBLIC is None, reason="needs the files in $LAVI_BRIDGE_JUDGE_PROMPTS")
def test_the_public_files_have_their_counts_and_hashes() -> None:
    folder = Path(PUBLIC or "")
    prompts = load_suite("geneval2", folder=folder)  # by its hash
    assert set(Counter(p.category for p in prompts).values()) == {100}
    assert sum(len(questions_of(prompt)) for prompt in prompts) == 6012
    assert len(load_suite("genai-bench", folder=folder)) == 527


def test_genai_bench_is_an_object_of_prompts_without_the_ratings(tmp_path: Path) -> None:
    file = tmp_path / "genai_image.json"
    file.write_text(json.dumps({"00001": {"prompt": "a cat", "models": {"DALLE_3": [5, 5, 4]}}}))
    assert as_prompts(genai(file), "genai-bench") == [Prompt("00001", "a cat")]
    for broken in ("[]", '{"00001": "a cat"}', "{"):
        file.write_text(broken)
        with pytest.raises(BridgeError, match=r"cannot read '.*' as a JSON object of prompts by n"):
            list(genai(file))


def table(path: Path, *rows: tuple[object, ...], columns: tuple[str, ...] = COLUMNS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


CAT_AND_DOG = (
    ("1", 1, "0", "entity - whole (cat)", "Is there a cat?"),
    ("1", 2, "1", "attribute - color (cat, red)", "Is the cat red, really?"),
    ("2", 3, "0", "entity - whole (dog)", "Is there a dog?"),
    ("2", 5, "3, 0", "entity - whole (tail)", "Has it a tail?"),
)


def test_dpg_bench_has_a_graph_of_questions_by_the_prompts_id(tmp_path: Path) -> None:
    found = dpg(table(tmp_path / "dpg_bench.csv", *CAT_AND_DOG))
    cat, dog = with_questions([Prompt("1", "a red cat"), Prompt("2", "a dog")], found)
    assert questions_of(cat) == [
        Question("Is there a cat?", kind="entity - whole", lost=True),
        Question("Is the cat red, really?", kind="attribute - color", parents=(0,)),
    ]
    assert [(q.text, q.parents, q.lost) for q in questions_of(dog)] == [
        ("Is there a dog?", (), False),
        ("Has it a tail?", (0,), False),
    ]
    assert with_questions([Prompt("3", "a fox")], found) == [Prompt("3", "a fox")]


def test_a_table_of_another_commit_is_refused_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = table(tmp_path / "dpg_bench.csv", *CAT_AND_DOG)
    message = (
        f"{place} is not the file of TencentQQGYLab/ELLA@3c228f1 (Apache-2.0) (git's id of it is "
        f"{blob(place)[:12]}, expected 98457fc99019); take https://raw.githubusercontent.com/"
    )
    with pytest.raises(BridgeError, match=re.escape(message)):
        with_dpg_questions([Prompt("1", "a cat")], tmp_path)
    file = dataclasses.replace(catalogue.DPG_QUESTIONS, blob=blob(place))
    monkeypatch.setattr(suites, "DPG_QUESTIONS", file)
    (prompt,) = with_dpg_questions([Prompt("1", "a cat")], tmp_path)
    assert len(questions_of(prompt)) == 2


def test_gits_id_of_a_file_is_gits(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"what is up, doc?")  # the example of git's own book
    assert blob(tmp_path / "file") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_geneval_2_of_another_commit_is_refused_even_where_its_prompts_are_the_same(
    tmp_path: Path,
) -> None:
    written(tmp_path / "geneval2_data.jsonl", CATS)
    with pytest.raises(BridgeError, match=r"is not the file of facebookresearch/GenEval2@a6e82d2"):
        load_suite("geneval2", folder=tmp_path)


def test_the_licence_is_said_where_a_file_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BridgeError, match=r"cannot fetch geneval2_data\.jsonl"):
        load_suite("geneval2")
    assert capsys.readouterr().err == (
        "geneval2_data.jsonl of facebookresearch/GenEval2@a6e82d2 (CC-BY-NC-4.0): not for "
        "commercial use, and not to be passed on with the report\n"
    )


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        (None, "has no questions: take a suite that has some"),
        ([], "has no questions"),
        ("Is it red?", "'questions' must be a list of objects"),
        (["Is it red?"], r"a question is an object with .question., not .Is it red\?."),
        ([{"answer": "Yes"}], "a question is an object with 'question'"),
        ([{"question": "Red?", "answer": 2}], "keys are question, answer, .*'answer' is 2"),
        ([{"question": "Red?", "of": "it"}], "'of' is 'it'"),
        ([{"question": "Red?", "parents": [2]}], r"'parents' are numbers of questions, not \[2\]"),
    ],
)
def test_malformed_questions_name_their_prompt(questions: Any, message: str) -> None:
    with pytest.raises(BridgeError, match=f"^prompt '7'.*{message}"):
        questions_of(Prompt("7", "a cat", facts={"questions": questions}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skills": ["count"]}, "data.jsonl:1: 'vqa_list' and 'skills' must be lists of one len"),
        ({"vqa_list": [["Red?"], ["Cat?", "Yes"]]}, "data.jsonl:1: 'vqa_list' holds pairs"),
    ],
)
def test_malformed_geneval_2_names_its_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(BridgeError, match=message):
        list(geneval2(written(tmp_path / "data.jsonl", CATS | change)))


def test_a_malformed_table_names_its_line(tmp_path: Path) -> None:
    place = tmp_path / "dpg_bench.csv"
    with pytest.raises(BridgeError, match=r"dpg_bench.csv:1: no column 'dependency'"):
        dpg(table(place, columns=("item_id", "proposition_id")))
    with pytest.raises(BridgeError, match=r"dpg_bench.csv:2: 'proposition_id' is a number, not 'x"):
        dpg(table(place, ("1", "x", "0", "entity", "Is there a cat?")))
    with pytest.raises(BridgeError, match=r"dpg_bench.csv: item 1: 'dependency' is 'none'"):
        dpg(table(place, ("1", 1, "none", "entity", "Is there a cat?")))
