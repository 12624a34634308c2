"""What is asked about a prompt's pictures: questions with the answers that are right.

They are a fact of a prompt, `questions`: a list of objects with `question` and, where they are
others than Yes, the right `answer`, what kind of thing is asked (`kind`), the numbers, from 1, of
questions without whose right answer this one is moot (`parents`), and whether the benchmark's own
script leaves it out (`lost`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lavi_bridge.errors import BridgeError
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.readers import Line, jsonl

KEY = "questions"
COLUMNS = ("item_id", "proposition_id", "dependency", "tuple", "question_natural_language")
"""Of DPG-Bench's table, those that are read."""


@dataclass(frozen=True)
class Question:
    """One question about a picture."""

    text: str
    answer: str = "Yes"
    kind: str = ""
    parents: tuple[int, ...] = ()
    """Places in the prompt's list of questions, from 0."""
    lost: bool = False
    """Whether the benchmark's own script leaves it out."""


def questions_of(prompt: Prompt) -> list[Question]:
    """The questions of a prompt.

    Raises:
        BridgeError: it has none, or they are malformed.
    """
    told = prompt.facts.get(KEY)
    if not told:
        raise BridgeError(
            f"prompt '{prompt.id}' has no questions: take a suite that has some (geneval2, dpg), "
            'or a .jsonl file with "questions": [{"question": …, "answer": …}]'
        )
    if not isinstance(told, list):
        raise BridgeError(f"prompt '{prompt.id}': 'questions' must be a list of objects")
    return [_question(one, prompt.id, len(told)) for one in told]


def _question(told: Any, where: str, count: int) -> Question:
    known = {"question": str, "answer": str, "kind": str, "parents": list, "lost": bool}
    if not isinstance(told, dict) or not told.get("question"):
        raise BridgeError(
            f"prompt '{where}': a question is an object with 'question', not {told!r}"
        )
    for key, value in told.items():
        if key not in known or not isinstance(value, known[key]):
            raise BridgeError(
                f"prompt '{where}': a question's keys are {', '.join(known)}; '{key}' is {value!r}"
            )
    parents = told.get("parents", [])
    if not all(type(n) is int and 1 <= n <= count for n in parents):
        raise BridgeError(f"prompt '{where}': 'parents' are numbers of questions, not {parents}")
    return Question(
        told["question"],
        told.get("answer", "Yes"),
        told.get("kind", ""),
        tuple(n - 1 for n in parents),
        told.get("lost", False),
    )


def geneval2(path: Path) -> Iterator[Line]:
    """GenEval 2: a JSON object a line, with questions and the skill that each is of.

    The categories are the numbers of atoms, 3 to 10.
    """
    for line in jsonl(path, category="atom_count"):
        pairs, skills = line.facts.get("vqa_list"), line.facts.get("skills")
        if not (isinstance(pairs, list) and isinstance(skills, list) and len(pairs) == len(skills)):
            raise BridgeError(f"{line.where}: 'vqa_list' and 'skills' must be lists of one length")
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise BridgeError(f"{line.where}: 'vqa_list' holds pairs of question and answer")
        told = [
            {"question": question, "answer": answer, "kind": skill}
            for (question, answer), skill in zip(pairs, skills, strict=True)
        ]
        yield replace(line, category=f"{line.category} atoms", facts={KEY: told})


def dpg(path: Path) -> dict[str, list[dict[str, Any]]]:
    """DPG-Bench's table of questions, by the id of their prompt, as facts.

    Raises:
        BridgeError: it is malformed; file and line are named.
    """
    rows: dict[str, dict[int, dict[str, str]]] = {}
    first = None
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise BridgeError(f"{path}:1: no column '{missing[0]}'; it has {reader.fieldnames}")
        for row in reader:
            try:
                number = int(row["proposition_id"])
            except (TypeError, ValueError) as error:
                raise BridgeError(
                    f"{path}:{reader.line_num}: 'proposition_id' is a number, not "
                    f"{row['proposition_id']!r}"
                ) from error
            rows.setdefault(row["item_id"], {})[number] = row
            first = first or row
    found = {key: _facts(mine, f"{path}: item {key}") for key, mine in rows.items()}
    if first is not None:
        found[first["item_id"]][0]["lost"] = True  # the official script takes it for the header
    return found


def _facts(rows: Mapping[int, Mapping[str, str]], where: str) -> list[dict[str, Any]]:
    place = {number: n for n, number in enumerate(rows, 1)}
    facts = []
    for row in rows.values():
        try:
            parents = [int(text) for text in row["dependency"].split(",")]
        except ValueError as error:
            raise BridgeError(f"{where}: 'dependency' is {row['dependency']!r}") from error
        facts.append(
            {
                "question": row["question_natural_language"].strip(),
                "kind": row["tuple"].partition("(")[0].strip(),
                "parents": [place[n] for n in parents if n in place],  # 0 is none
            }
        )
    return facts


def with_questions(
    prompts: Sequence[Prompt], questions: Mapping[str, list[dict[str, Any]]]
) -> list[Prompt]:
    """Prompts that have no questions, with those of a table by their id."""
    return [
        p
        if KEY in p.facts or p.id not in questions
        else replace(p, facts=p.facts | {KEY: questions[p.id]})
        for p in prompts
    ]
