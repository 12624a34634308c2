"""Which graphics cards a pair fits on, and with which options: the first that will do, in the order
of what they cost in time and in exactness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lavi_bridge.config import Quantize

CARDS = (12, 24, 80)
"""GB (1e9 bytes) of usual cards. They have 7 % more, as makers count in GiB: about what the driver
and the allocator take."""
TRAINING: tuple[tuple[Quantize, Quantize, bool], ...] = (
    ("none", "none", False),
    ("none", "none", True),
    ("nf4", "none", True),
    ("nf4", "int8", True),
    ("nf4", "nf4", True),
)
"""Bits of the language model, bits of the vision model, and gradient checkpointing."""
DRAWING: tuple[tuple[Quantize, Quantize, bool], ...] = (
    ("none", "none", False),
    ("none", "none", True),
    ("none", "int8", True),
    ("none", "nf4", True),
    ("nf4", "nf4", True),
)
"""The same bits, and whether models are on the card only while they are used."""


@dataclass(frozen=True)
class Way:
    """Options, as they are typed, and the GB that are needed with them."""

    options: str
    gb: float


@dataclass(frozen=True)
class Fit:
    """The first ways that fit on a card; None where none does."""

    card_gb: int
    training: Way | None
    drawing: Way | None


@dataclass(frozen=True)
class Needs:
    """GB of a pair by what takes them."""

    language: Mapping[Quantize, float]
    """The frozen language model, by the bits that it is held in."""
    vision: Mapping[Quantize, float]
    vae: float
    trained: float
    """Adapter and LoRA, in float32."""
    kept: float
    """What autograd keeps of a training step."""
    checkpointed: float | None
    """The same with gradient checkpointing; None where it was not counted, or cannot be."""
    fused: float
    """Weights that are kept aside while LoRA is fused into them, which quantised ones are not."""
    decoding: float
    own: float = 0.0
    """The own text encoders, where the adapter reads them, too; they are held as they are."""

    def weights(self, quantize: Quantize, quantize_vision: Quantize) -> float:
        """The frozen models."""
        return self.language[quantize] + self.vision[quantize_vision] + self.vae + self.own

    def training(
        self, quantize: Quantize, quantize_vision: Quantize, checkpointing: bool = False
    ) -> float:
        """Weights, activations, and for what trains weight, gradient and AdamW's two moments."""
        kept = self.checkpointed if checkpointing and self.checkpointed is not None else self.kept
        return self.weights(quantize, quantize_vision) + 4 * self.trained + kept

    def drawing(
        self, quantize: Quantize, quantize_vision: Quantize, offload: bool = False
    ) -> float:
        """One picture with guidance; quantised models stay on the card in any case."""
        fused = self.fused if quantize_vision == "none" else 0.0
        if not offload:
            serving = max(fused, self.decoding)
            return self.weights(quantize, quantize_vision) + self.trained + serving
        turns = {
            "vae": self.vae + self.decoding,
            "language": self.language[quantize] + self.own,
            "vision": self.vision[quantize_vision] + fused,
        }
        bits = {"language": quantize, "vision": quantize_vision}
        stay = sum(turns.pop(name) for name, how in bits.items() if how != "none")
        return self.trained + stay + max(turns.values())

    def fits(self) -> tuple[Fit, ...]:
        """For every card what fits on it, with the fewest options."""
        training = [
            Way(_typed(language, vision, "--gradient-checkpointing" * again), gb)
            for language, vision, again in TRAINING
            if not (again and self.checkpointed is None)
            for gb in [self.training(language, vision, again)]
        ]
        drawing = [
            Way(_typed(language, vision, "--offload" * away), gb)
            for language, vision, away in DRAWING
            for gb in [self.drawing(language, vision, away)]
        ]
        return tuple(Fit(card, _first(training, card), _first(drawing, card)) for card in CARDS)


def lines(fits: Iterable[Fit], *, counted: bool) -> list[tuple[str, str]]:
    """Rows for people, by name; where activations are not `counted`, a way to train may be short
    of memory all the same."""
    rows = []
    for fit in fits:
        rows.append(
            (f"on {fit.card_gb} GB", _shown("train", fit.training, "" if counted else "above "))
        )
        rows.append(("", _shown("generate", fit.drawing, "")))
    return rows


def _shown(command: str, way: Way | None, about: str) -> str:
    """`train     --gradient-checkpointing (18.2 GB)`."""
    if way is None:
        return f"{command:9} does not fit"
    return f"{command:9} {way.options or 'as it is'} ({about}{way.gb:.1f} GB)"


def _first(ways: Iterable[Way], card: int) -> Way | None:
    return next((way for way in ways if way.gb <= card), None)


def _typed(quantize: Quantize, quantize_vision: Quantize, option: str) -> str:
    bits = {"--quantize": quantize, "--quantize-vision": quantize_vision}
    given = [f"{flag} {how}" for flag, how in bits.items() if how != "none"]
    return " ".join([option] * bool(option) + given)
