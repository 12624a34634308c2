"""Asks the judge and keeps its answers; stopped by whatever means, the same command goes on.

    OUT/  settings.json  answers.jsonl  judge.html  judge.md  judge.json

Batches are always the same ones, so that answers do not depend on where it was stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.drawing import claim
from lavi_bridge.evaluate.judges.items import Case
from lavi_bridge.files.journal import Journal
from lavi_bridge.metrics.judge.asked import ByJudge
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.running.device import processes, wait_for_all
from lavi_bridge.running.progress import progress
from lavi_bridge.running.run_state import stopping

ANSWERS = "answers.jsonl"
BATCH = 8
"""Pictures that are asked about together."""


def ask(
    metrics: Mapping[str, ByJudge], cases: Sequence[Case], out: Path, identity: Mapping[str, Any]
) -> dict[str, float]:
    """Every item's score, by its id: how probable the judge thinks what is asked to be, in [0, 1].

    Args:
        identity: what the answers depend on. Answers of anything else in `out` are refused.

    Raises:
        BridgeError: `out` holds the answers of another judge or to other questions, the GPU's
            memory is full, or it was stopped (what is answered is kept).
    """
    claim(out, identity, what="answers", how="are of")
    rank, world = processes()
    journal = Journal(out / ANSWERS, rank)
    known = {row["id"] for row in journal.rows()}
    batches = _batches(cases)
    todo = [
        batch
        for batch in batches[rank::world]
        if any(item.id not in known for case in batch for item in case.items)
    ]
    total = sum(len(case.items) for batch in todo for case in batch)
    with (
        stopping() as asked,
        progress(total=total, desc="asking", unit="question", disable=rank > 0) as bar,
    ):
        for batch in todo:
            try:
                scores = _asked(metrics, batch)
            except torch.OutOfMemoryError as error:
                raise BridgeError(
                    "the GPU's memory is full: hold the judge in fewer bits (--quantize int8, "
                    "nf4), or take a smaller one; what is answered is kept"
                ) from error
            journal.append(
                [{"id": name, "score": x} for name, x in scores.items() if name not in known]
            )
            bar.update(len(scores))
            if asked():
                raise BridgeError("stopped; the same command goes on from there")
    wait_for_all()
    order = {item.id: n for n, item in enumerate(item for case in cases for item in case.items)}
    if rank == 0:
        journal.merge(lambda row: order.get(row["id"], len(order)), key="id")
    wait_for_all()
    return {row["id"]: row["score"] for row in journal.rows()}


def hashed(cases: Sequence[Case]) -> str:
    """8 hex digits of all that is asked."""
    told = [
        f"{case.content} {i.id} {i.prompt.text} {i.prompt.facts} {i.true}"
        for case in cases
        for i in case.items
    ]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]


def _batches(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases in their order, so many that their pictures are BATCH."""
    found: list[list[Case]] = []
    room = 0
    for case in cases:
        size = len({item.picture for item in case.items})
        if size > room:
            found.append([])
            room = BATCH
        found[-1].append(case)
        room -= size
    return found


def _asked(metrics: Mapping[str, ByJudge], batch: Sequence[Case]) -> dict[str, float]:
    opened: dict[str, Image.Image] = {}
    for case in batch:
        opened |= case.open()
    scores: dict[str, float] = {}
    for name, metric in metrics.items():
        mine = [item for case in batch for item in case.items if item.metric == name]
        answers = metric.answers([opened[i.picture] for i in mine], [i.prompt for i in mine])
        for item, chances in zip(mine, answers, strict=True):
            scores[item.id] = _score(chances)
    return scores


def _score(chances: Sequence[float]) -> float:
    """Of Yes, or of the right answer; where No is asked for as well, of Yes among the two."""
    if len(chances) == 1:
        return min(1.0, chances[0])  # spellings that begin alike may add up to more
    yes, no = chances
    return yes / (yes + no) if yes + no else 0.5


def prompts_of(cases: Sequence[Case], metric: str) -> list[Prompt]:
    """All that is asked in a metric's wording."""
    return [item.prompt for case in cases for item in case.items if item.metric == metric]
