"""How much the bundled models' tables are given: budgets by name, rows of one recipe alike.

`paper`, the budget of the real models, is the published settings themselves (`settings.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lavi_bridge.config import Sampling
from lavi_bridge.recipes import PAPER

Name = Literal["minutes", "hours", "gpu", "paper"]

DATA = "0.75*shapes + 0.25*shapes:free"
"""Pictures with captions of any length in the grammar of the image models, every fourth told as
people talk."""
PLAIN, FREE, HELD_OUT, LONG = "shapes", "shapes-free", "shapes-free-heldout", "shapes-long"
BY_HAND = "shapes-by-hand"
SAMPLING = Sampling(steps=10, guidance=4.0, scheduler="dpm++", batch_size=48)


@dataclass(frozen=True)
class Budget:
    """What every row is given."""

    start: tuple[int, int]
    """Warm start, under our recipe and not of the own encoder: steps at most, and texts a step."""
    pictures: tuple[int, int]
    """Steps on pictures, and pictures a step."""
    prompts: int
    """Of each suite, evenly over its categories."""
    suites: tuple[str, ...] = (PLAIN, FREE, HELD_OUT, LONG)
    average: float = 0.99
    """Decay of the average of the weights that is judged."""
    rates: tuple[float, ...] = (0.4, 1.0)
    """Factors on a row's learning rates on pictures that the search tries; one is no search. The
    paper's recipe has its rates."""
    share: float = 1 / 3
    """The share of the steps that each rate is tried for."""
    validation: int = 128
    """Pairs that the search holds out."""
    followed: tuple[float, ...] = (0.0, 0.25, 0.5)
    """Shares of the steps on pictures, quarters, after which rows are judged on their way; and
    at their end."""
    followed_by: int = 48
    """Prompts, plain and free, that they are judged by on their way."""


BUDGETS: dict[Name, Budget] = {
    "minutes": Budget(
        start=(20, 16),
        pictures=(20, 8),
        prompts=12,
        suites=(PLAIN,),
        rates=(1.0,),
        followed=(),
    ),
    "hours": Budget(start=(400, 40), pictures=(1_000, 8), prompts=96),
    "gpu": Budget(start=(2_400, 64), pictures=(20_000, 32), prompts=384, average=0.999),
}
"""By name; `hours` is meant for the project's own page: its three tables took 10.2 hours of
one core."""

RATES: dict[str, dict[str, Any]] = {
    "ours": {
        "lr_warm_start": 8e-3,
        "lr_adapter": 1.5e-4,
        "lr_language": 1.5e-4,
        "lr_vision": 3e-4,
        "schedule": "cosine",
        "warmup": 50,
        "dropout": 0.0,
    },
    # as published but for the length, the rank, and ten times the rates: it is a short run
    "paper": PAPER | {"lr_adapter": 1e-3, "lr_language": 5e-5, "lr_vision": 1e-3},
}
ALL: dict[str, Any] = {
    "data": DATA,
    "rank": 16,
    "flip": False,
    "fast_decode": True,
    "sample_every": 0,
    "tracker": "none",
    "log_every": 50,
    "warm_start_report": False,
}
"""For every row; captions speak of left and right, hence no flip; drawn pictures are not decoded,
hence one cache of them for both recipes."""


def zoo_settings(budget: Budget, recipe: str) -> dict[str, Any]:
    """The settings of a run with the bundled models, pair and parts apart."""
    steps, batch = budget.pictures
    found = RATES[recipe] | ALL
    found |= {
        "steps": steps,
        "batch_size": batch,
        "ema": budget.average,
        "validation": budget.validation,
    }
    if recipe == "ours":
        texts, at_once = budget.start
        found |= {"warm_start": texts, "warm_start_batch": at_once}
    return found
