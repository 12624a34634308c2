"""What a warm start tells: at every step, and in the end by what the captions speak of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lavi_bridge.config import Match, Solve

TOPICS = {
    "colour": "red orange yellow green blue purple violet pink brown black white gray grey cyan "
    "magenta golden silver",
    "texture": "striped dotted solid wooden metal metallic glass leather plastic rubber fabric "
    "fluffy smooth rough shiny furry stone",
    "position": "left right above below under beneath over top bottom behind front next beside "
    "near between inside",
    "number": "one two three four five six seven eight nine ten",
    "size": "large big huge small little tiny tall short long",
}
"""Words by which the report sorts captions; one caption can be of several topics, or of none."""


@dataclass(frozen=True)
class Progress:
    """One step of a warm start."""

    step: int
    match: Match
    loss: float
    """0 is a perfect match; 1 is a constant guess (states) or the empty prompt (predictions)."""
    held_out: float | None = None
    """The same on held-out captions, at the steps that look at them."""


@dataclass(frozen=True)
class Solved:
    """What solving the adapter's last layer reached, before the first step."""

    how: Solve
    r2: float
    """R² on held-out captions, weighted as the loss: 0 is as good as the mean state of the captions
    that were solved on, 1 is perfect."""
    penalty: float | None
    """Of ridge regression, over the mean variance of what enters the layer."""
    pooled_r2: float | None
    """The same as `r2` for pooled vectors; None where there are none."""
    captions: int
    """That were read, the empty one among them."""
    tokens: int
    seconds: float

    def __str__(self) -> str:
        penalty = "" if self.penalty is None else f", penalty {self.penalty:.0e}"
        pooled = "" if self.pooled_r2 is None else f", of pooled vectors {self.pooled_r2:.3f}"
        return (
            f"solved ({self.how}): R² {self.r2:.3f} on held-out captions{pooled}{penalty}; "
            f"{self.captions:,} captions, {self.tokens:,} tokens in {self.seconds:.1f} s"
        )


@dataclass
class Report:
    """What a warm start reached, measured on captions that it never trained on."""

    match: Match
    steps: int
    stopped_early: bool
    seconds: float
    states: dict[str, float] = field(default_factory=dict)
    """By topic: squared difference of the states over their variance; {} where impossible."""
    predictions: dict[str, float] = field(default_factory=dict)
    """By topic: squared difference of the vision model's predictions, over how far the empty prompt
    is from the teacher's: 0 as the teacher, 1 as if it had read nothing."""
    captions: dict[str, int] = field(default_factory=dict)
    """By topic: how many captions the states are of; the predictions are of 64 of them at most."""
    solved: Solved | None = None
    """What was solved before the first step, where that was asked for."""

    def __str__(self) -> str:
        lines = [
            *([str(self.solved)] if self.solved else []),
            f"warm start ({self.match}): {self.steps} steps in {self.seconds:.0f} s"
            f"{', stopped early: no more gain' if self.stopped_early else ''}",
            f"{'unmatched part, by topic':26}{'captions':>9}{'states':>8}{'predictions':>13}",
        ]
        for topic, count in self.captions.items():
            states = f"{self.states[topic]:.3f}" if topic in self.states else "–"
            predictions = f"{self.predictions[topic]:.3f}" if topic in self.predictions else "–"
            lines.append(f"  {topic:24}{count:>9}{states:>8}{predictions:>13}")
        return "\n".join([*lines, "  0 is the own text encoder; the bridge shares its weaknesses"])


def by_topic(captions: Sequence[str]) -> dict[str, list[int]]:
    """Indices of captions by what they speak of; `all` first, topics that no caption has left out.

    `three things` have at least three articles.
    """
    found: dict[str, list[int]] = {"all": list(range(len(captions)))}
    split = [caption.lower().replace(",", " ").replace(".", " ").split() for caption in captions]
    for topic, words in TOPICS.items():
        found[topic] = [
            i for i, caption in enumerate(split) if not set(words.split()).isdisjoint(caption)
        ]
    found["three things"] = [
        i for i, caption in enumerate(split) if sum(w in ("a", "an", "the") for w in caption) >= 3
    ]
    return {topic: indices for topic, indices in found.items() if indices}


def unmatched(pairs: Tensor, indices: Sequence[int]) -> float:
    error, without = pairs[indices].sum(0).tolist()
    return error / without
