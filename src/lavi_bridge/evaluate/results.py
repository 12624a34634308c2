"""What an evaluation found, before anything is summed up: every score of every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavi_bridge.prompts.prompt import Prompt


@dataclass(frozen=True)
class Entry:
    """One thing that was evaluated: a bridge, an image model, or a folder of images."""

    name: str
    """As in the tables; unique in the evaluation."""
    about: dict[str, Any]
    """Provenance: kind, ids and fingerprints of models and bridge, sampler, precision, versions."""
    recipe: str | None = None
    """The paper's row of the same pair (a key of RECIPES), if it has one."""


@dataclass(frozen=True)
class MetricInfo:
    """One metric as it was run."""

    name: str
    """As in `--metrics`."""
    title: str
    higher: bool
    """Whether more is better."""
    provenance: dict[str, str]
    trust: str = ""
    """How the judge that gives it did where the truth is known; empty where no judge does."""


@dataclass
class Judged:
    """The images of one entry for one suite."""

    files: list[list[Path]]
    """The images of every prompt."""
    scores: dict[str, list[list[float | None]]] = field(default_factory=dict)
    """By metric: of every prompt, of its images; None where a metric does not apply or failed. A
    metric that applies to some categories alone has None in all others."""
    distances: dict[str, float] = field(default_factory=dict)
    """By metric: from the reference images."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By metric: of the distance, 95 %, the reference images being what they are."""
    failures: dict[str, list[str]] = field(default_factory=dict)
    """By metric: a line for every image that it could not judge, naming it."""


@dataclass
class SuiteResults:
    """One suite over all entries; the same prompts and seeds for each."""

    name: str
    title: str
    prompts: Sequence[Prompt]
    hash: str
    """`prompt_hash`."""
    seeds: list[list[int]]
    """The seeds of every prompt's images."""
    judged: dict[str, Judged]
    """By name of the entry."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know: too few images for FID, prompts that occur twice, …"""


@dataclass
class Evaluation:
    """What an evaluation found, of every entry in every suite."""

    entries: list[Entry]
    """The first is the one that others are compared with."""
    metrics: dict[str, MetricInfo]
    """By name."""
    suites: list[SuiteResults]
    """One for each prompt suite."""
    settings: dict[str, Any]
    """As given: sampling, modes, reference."""
