"""How the judge of an evaluation did where the truth is known, as a line beside its scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.judges.page import RECORD
from lavi_bridge.metrics.base import Metric
from lavi_bridge.metrics.judge.asked import ByJudge

SAME = ("weights", "template", "precision", "mode", "reading", "question")
"""What must be equal for a page to be about the judge that gave a score."""
ASKED_AS = {"soft-tifa-gm": "soft-tifa"}
"""By metric, another one of the same questions."""


def trust_of_judges(
    metrics: Mapping[str, Metric], folder: Path | None, out: Path, judge: str | None
) -> dict[str, str]:
    """By each metric that a judge gives, how that judge did on the shapes world, or how to see.

    Args:
        folder: where `lavi-bridge judge` wrote; None looks into `out`.
        judge: as given on the command line.

    Raises:
        BridgeError: `folder` is given and holds no such page, or a damaged one.
    """
    record = _record(folder or out, asked=folder is not None)
    return {
        name: _line(name, metric, record, judge or metric.judge.place.id)
        for name, metric in metrics.items()
        if isinstance(metric, ByJudge)
    }


def _record(folder: Path, *, asked: bool) -> dict[str, Any] | None:
    path = folder / RECORD
    if not path.is_file():
        if asked:
            raise BridgeError(
                f"'{folder}' holds no {RECORD}; make it: lavi-bridge judge MODEL --out {folder}"
            )
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["metrics"], dict):
            raise TypeError("no object 'metrics'")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BridgeError(f"{path} is damaged ({error}); make it anew") from error
    return dict(found)


def _line(name: str, metric: ByJudge, record: Mapping[str, Any] | None, model: str) -> str:
    key = ASKED_AS.get(name, name)
    told = (record or {"metrics": {}})["metrics"].get(key)
    here = metric.provenance()
    if told is None or any(told["provenance"].get(k) != here[k] for k in SAME):
        other = " (what is there is about another judge, or other questions)" if record else ""
        return (
            f"how far to trust it is not known{other}: `lavi-bridge judge {model}` asks it where "
            "the truth is known, and --judged FOLDER shows that here"
        )
    overall = told["pairs"]["overall"]
    return (
        f"on the shapes world this judge is right in {_shown(overall['accuracy'])} of "
        f"{overall['questions']:,} answers (chance .5); AUC {_shown(overall['auc'])}, calibration "
        f"error {_shown(overall['ece'])}"
    )


def _shown(e: Mapping[str, Any]) -> str:
    interval = "" if e["low"] is None else f" ({_short(e['low'])}–{_short(e['high'])})"
    return _short(e["value"]) + interval


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")
