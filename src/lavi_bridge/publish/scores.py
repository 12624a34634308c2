"""What an evaluation found of one bridge: scores with intervals, and pictures that are there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavi_bridge.config import SCALES
from lavi_bridge.errors import BridgeError
from lavi_bridge.show.tables import escaped, markdown

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

REPORT = "report.json"
ABOUT = (
    "Each number is a mean over prompts of the mean over their images, with its 95 % interval over "
    "prompts; {settings}."
)

TOLD = {
    "steps": "{} steps",
    "guidance": "guidance {:g}",
    "scheduler": "sampler {}",
    "negative": "negative prompt '{}'",
    "suffix": "suffix '{}'",
    **{scale: scale.replace("_scale", " strength {:g}") for scale in SCALES},
}


@dataclass(frozen=True)
class Value:
    """A score, and its interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:#.3g}"
        return f"{self.value:#.3g} ({self.low:#.3g} to {self.high:#.3g})"


@dataclass(frozen=True)
class Score:
    """One metric of one suite."""

    suite: str
    suite_title: str
    prompts: int
    """Prompts of the suite."""
    prompt_hash: str
    metric: str
    metric_title: str
    higher: bool
    """Whether more is better."""
    own: Value
    baseline: Value | None
    """What the image model with its own text encoder has."""

    @property
    def named(self) -> str:
        """The metric with its interval, where a format has no place for one."""
        if self.own.low is None or self.own.high is None:
            return self.metric_title
        return f"{self.metric_title} (95 % interval {self.own.low:#.3g} to {self.own.high:#.3g})"


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation says of one bridge."""

    scores: list[Score]
    pictures: list[tuple[str, int | None, Path]]
    """Prompt, seed and file."""
    settings: Mapping[str, Any]


def read_evaluation(folder: Path, bridge: str) -> Evaluated:
    """What the evaluation in a folder says of the bridge with this id.

    Raises:
        BridgeError: it is none, is damaged, or is of other bridges.
    """
    path = folder / REPORT
    if not path.is_file():
        raise BridgeError(f"'{folder}' is no evaluation: it has no {REPORT}")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        entries = [entry for entry in report["entries"] if entry["about"].get("bridge") == bridge]
        entries.sort(key=lambda e: any(e["about"].get(scale, 1) != 1 for scale in SCALES))
        if not entries:
            others = ", ".join(f"'{entry['name']}'" for entry in report["entries"])
            raise BridgeError(
                f"'{folder}' is an evaluation of others than bridge {bridge}: {others}"
            )
        vision = entries[0]["about"]["vision fingerprint"]
        alone = [
            entry["name"]
            for entry in report["entries"]
            if entry["about"]["kind"] == "image model"
            and entry["about"].get("vision fingerprint") == vision
        ]
        return Evaluated(
            list(_scores(report, entries[0]["name"], alone[0] if alone else None)),
            _pictures(report, folder, entries[0]["name"]),
            report["settings"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BridgeError(f"{path} is damaged or of another version; evaluate again") from error


def _scores(report: Mapping[str, Any], own: str, alone: str | None) -> Iterator[Score]:
    for suite in report["suites"]:
        found = {metric: next(iter(parts.values())) for metric, parts in suite["estimates"].items()}
        found |= _by_metric(suite["distances"], suite.get("intervals", {}))
        for metric, by_entry in found.items():
            if by_entry.get(own) is None:
                continue
            info = report["metrics"][metric]
            yield Score(
                suite["name"],
                suite["title"],
                suite["prompts"],
                suite["prompt_hash"],
                metric,
                info["title"],
                info["higher"],
                _value(by_entry[own]),
                _value(by_entry[alone]) if alone and by_entry.get(alone) is not None else None,
            )


def _by_metric(
    distances: Mapping[str, Mapping[str, float | None]],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry, values in distances.items():
        for metric, value in values.items():
            low, high = intervals.get(entry, {}).get(metric, (None, None))
            told = None if value is None else {"value": value, "low": low, "high": high}
            found.setdefault(metric, {})[entry] = told
    return found


def _value(found: Any) -> Value:
    if isinstance(found, dict):
        return Value(found["value"], found["low"], found["high"])
    return Value(found)


def _pictures(
    report: Mapping[str, Any], folder: Path, name: str
) -> list[tuple[str, int | None, Path]]:
    """The examples of all suites, one of each in turn."""
    by_suite = [
        [
            (example["prompt"]["text"], example["seed"], folder / picture["file"])
            for example in suite["examples"]
            for picture in example["pictures"]
            if picture["entry"] == name and picture["file"]
        ]
        for suite in report["suites"]
    ]
    longest = max(map(len, by_suite), default=0)
    return [found[place] for place in range(longest) for found in by_suite if place < len(found)]


# ---- as others read them


def scores_section(evaluated: Evaluated) -> str:
    """Markdown: a table of scores, and how they were found."""
    compared = any(score.baseline for score in evaluated.scores)
    head = ["prompts", "metric", "this bridge"]
    rows = [
        [
            f"{escaped(score.suite_title)} ({score.prompts:,}, list {score.prompt_hash})",
            f"{escaped(score.metric_title)} {'↑' if score.higher else '↓'}",
            f"**{score.own}**",
            *([str(score.baseline or "–")] if compared else []),
        ]
        for score in evaluated.scores
    ]
    if compared:
        head.append("the image model with its own text encoder")
    about = ABOUT.format(settings=settings_told(evaluated.settings))
    return f"## Scores\n{about}\n\n{markdown(head, rows, 'llr')}"


def settings_told(settings: Mapping[str, Any]) -> str:
    """How pictures were drawn, in words."""
    told = [
        line.format(settings[key])
        for key, line in TOLD.items()
        if settings.get(key) not in (None, "") and not (key in SCALES and settings[key] == 1)
    ]
    return f"drawn with {', '.join(told)}" if told else "drawn with the image model's own settings"


def eval_results(scores: Sequence[Score]) -> list[EvalResult]:
    """For the head of the card (`model-index`)."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-to-image",
            dataset_type=_plain(score.suite),
            dataset_name=score.suite_title,
            dataset_args={"prompts": score.prompts, "list": score.prompt_hash},
            metric_type=_plain(score.metric),
            metric_name=score.named,
            metric_value=score.own.value,
        )
        for score in scores
    ]


def benchmark_yaml(scores: Sequence[Score], dataset: str) -> bytes:
    """For `.eval_results/`: the scores as results on a data set of the Hub."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=f"{_plain(score.suite)}-{_plain(score.metric)}",
            value=score.own.value,
            notes=f"{score.named}, {score.prompts} prompts (list {score.prompt_hash})",
        )
        for score in scores
    ]
    text: str = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    return text.encode()


def _plain(name: str) -> str:
    """A name as the Hub takes it for a data set or a task."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-")
