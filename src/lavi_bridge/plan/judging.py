"""What judging a judge would take, before its weights are read."""

from __future__ import annotations

import torch

from lavi_bridge.evaluate.judges.items import Item
from lavi_bridge.evaluate.judges.options import JudgeConfig
from lavi_bridge.evaluate.judges.run import chosen, drawn_cases, pair_cases
from lavi_bridge.files.locate import locate
from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.judge.asked import ByJudge
from lavi_bridge.metrics.judge.cost import cost_of
from lavi_bridge.metrics.judge.size import size_of
from lavi_bridge.plan.evaluation import PEAK, SHARE, Line, hours
from lavi_bridge.plan.plan import gigabytes
from lavi_bridge.running.device import choose_dtype


def planned(config: JudgeConfig) -> list[Line]:
    """Plan `judge`; config and tokenizer are read, and no weights.

    Raises:
        BridgeError: a category or metric is unknown, or the judge is no judge.
    """
    names, categories = chosen(config)
    place = locate(config.model)
    size = size_of(place, trust_remote_code=config.trust_remote_code)
    dtype = choose_dtype(config.dtype, torch.device(config.device or "cuda"))
    cases = [*pair_cases(config, names, categories), *drawn_cases(config)]
    items = [item for case in cases for item in case.items]
    asked = {
        name: [q for item in items if item.metric == name for q in _asked(item, config)]
        for name in names
    }
    # pictures are read anew for each metric's wording
    seen = len({(item.metric, item.picture) for item in items})
    cost = cost_of(
        place,
        size,
        [question for mine in asked.values() for question in mine],
        width=config.side,
        height=config.side,
        trust_remote_code=config.trust_remote_code,
    )
    count = sum(map(len, asked.values()))
    tflop = seen * cost.picture + count * cost.question
    named = str(dtype).removeprefix("torch.")
    held = named if config.quantize == "none" else config.quantize
    pictures = len({item.picture for item in items})
    return [
        Line("pictures", f"{pictures:,} of {config.side}×{config.side} pixels"),
        Line("questions", ", ".join(f"{len(mine):,} for {name}" for name, mine in asked.items())),
        Line("judge", f"{place.id}, {size.numbers / 1e6:,.1f} million weights"),
        Line(
            "memory",
            f"{gigabytes(size.gb(dtype, config.quantize))} of weights in {held}, and at most "
            f"{gigabytes(size.cache(dtype, cost.at_once))} of keys and values",
        ),
        Line(
            "hours",
            f"{hours(tflop / (PEAK * SHARE) / 3600)} of an H100, computed, not measured: "
            f"{tflop:,.0f} TFLOP ({cost.picture_tokens} tokens a picture, "
            f"{cost.question_tokens:.0f} a question) at {SHARE:.0%} of {PEAK:.0f} TFLOP/s",
        ),
    ]


def _asked(item: Item, config: JudgeConfig) -> list[str]:
    kind = METRICS[item.metric]
    assert issubclass(kind, ByJudge)
    return [*dict(kind.questions(item.prompt, config.mode))]
