"""What an evaluation would take, before anything is drawn: pictures, questions, memory, hours.

Hours are computed from counted arithmetic, and say with what peak and what share of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch

from lavi_bridge.bridge.card import stated_licence
from lavi_bridge.bridge.folder import opened
from lavi_bridge.config import Quantize
from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.drawing import drawn, jobs_of
from lavi_bridge.evaluate.entries import Asked, Contestant, Drawn, Joined, contestants_of
from lavi_bridge.evaluate.judging import chosen
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.evaluate.run import images_of, suites_of
from lavi_bridge.files.locate import locate
from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.judge.asked import ByJudge
from lavi_bridge.metrics.judge.cost import cost_of
from lavi_bridge.metrics.judge.size import size_of
from lavi_bridge.plan.plan import gigabytes, make_plan
from lavi_bridge.prompts.catalogue import SUITES
from lavi_bridge.prompts.suite import Origin
from lavi_bridge.running.device import choose_dtype

PEAK = 989.0
"""TFLOP/s of an H100 (SXM) in bfloat16 without sparsity, by its data sheet."""
SHARE = 0.3
"""Of it that a judge is taken to get out of it; an assumption, which no measurement backs."""
DRAWING = 240.0
"""TFLOP/s that drawing 16 images at a time got out of an H200 (84 TFLOP an image, 2.88 images
a second)."""
SIDE = 512
"""Pixels of pictures where nobody says how large they are."""


@dataclass(frozen=True)
class Line:
    """A row of the plan."""

    what: str
    text: str


def planned(config: EvaluateConfig) -> list[Line]:
    """Plan an evaluation; prompts, configs and tokenizers are read, and no weights.

    Raises:
        BridgeError: an entry or suite is missing, or the judge is no judge.
    """
    contestants = contestants_of(config.entries)
    prompts_of = suites_of(config)
    suites = []
    for suite, prompts in prompts_of.items():
        images = images_of(suite, config)
        jobs = jobs_of(prompts, images, config.sampling.seed)
        suites.append(Asked(suite, prompts, images, jobs))
    for one in contestants:
        one.check(suites)
    lines = _pictures(contestants, suites, config)
    lines += _metrics(suites, config)
    lines += _judge(contestants, suites, config)
    sources = dict.fromkeys(s for suite in suites for s in _sources(suite.suite))
    lines += [Line("prompts", f"{source}") for source in sources]
    return lines


def _sources(suite: str) -> list[Origin]:
    name = suite.partition(":")[0]
    return SUITES[name].sources if name in SUITES else []


def _pictures(
    contestants: Sequence[Contestant], suites: Sequence[Asked], config: EvaluateConfig
) -> list[Line]:
    lines = []
    each = sum(len(suite.jobs) for suite in suites)
    for one in contestants:
        if not isinstance(one, Drawn):
            lines.append(Line(one.name, f"{each:,} pictures are there"))
            continue
        there = sum(len(drawn(config.out / one.name / suite.folder)) for suite in suites)
        text = f"{each - there:,} pictures to draw" + (f", {there:,} are there" if there else "")
        lines.append(Line(one.name, f"{text}; {_drawing(one, each - there, config)}"))
    return lines


def _drawing(one: Drawn, pictures: int, config: EvaluateConfig) -> str:
    """The hours of drawing, where they can be counted."""
    if not isinstance(one, Joined):
        return "hours not counted for an image model alone"
    _, record = opened(one.spec)
    language, vision = (one.moved.get(side, record[side]["id"]) for side in ("language", "vision"))
    plan = make_plan(
        language,
        vision,
        resolution=config.sampling.height,
        compute=False,
        checkpointing=False,
        trust_remote_code=config.trust_remote_code,
    )
    if plan.sampling_tflop is None:
        return "hours not counted: the image model looks at values"
    steps = config.sampling.steps or plan.default_steps
    taken = pictures * steps * plan.sampling_tflop / DRAWING / 3600
    return (
        f"{hours(taken)} of an H200, computed: {steps} steps of {plan.sampling_tflop:.2g} TFLOP "
        f"at {DRAWING:.0f} TFLOP/s"
    )


def _metrics(suites: Sequence[Asked], config: EvaluateConfig) -> list[Line]:
    """What is downloaded for metrics without a judge."""
    names = dict.fromkeys(name for suite in suites for name in chosen(suite.suite, config))
    lines = []
    for name in names:
        kind = METRICS[name]
        if not issubclass(kind, ByJudge):
            asked = (
                f"{kind.scorer}, {kind.download:g} GB, {kind.licence or 'its licence is not known'}"
                if kind.scorer
                else "no weights"
            )
            lines.append(Line(name, asked))
    return lines


def _judge(
    contestants: Sequence[Contestant], suites: Sequence[Asked], config: EvaluateConfig
) -> list[Line]:
    pictures, readings, asked = 0, 0, []
    for suite in suites:
        kinds = [METRICS[name] for name in chosen(suite.suite, config)]
        by_judge = [kind for kind in kinds if issubclass(kind, ByJudge)]
        if not by_judge:
            continue
        for prompt in suite.prompts:
            # metrics that ask the same, as the two means, share a picture's reading and answers
            sets = dict.fromkeys(tuple(k.questions(prompt, config.mode)) for k in by_judge)
            pictures += suite.images
            readings += suite.images * len(sets)
            asked += [text for one in sets for text in dict(one) for _ in range(suite.images)]
    if not asked:
        return []
    if config.judge is None:
        raise BridgeError(
            f"{len(asked):,} questions, and no judge: give --judge MODEL, such as "
            "Qwen/Qwen3-VL-8B-Instruct"
        )
    place = locate(config.judge)
    size = size_of(place, trust_remote_code=config.trust_remote_code)
    given = None if config.device is None else torch.device(config.device)
    dtype = choose_dtype(config.judge_dtype, given or torch.device("cuda"))
    width, height = (config.sampling.width or SIDE), (config.sampling.height or SIDE)
    cost = cost_of(
        place,
        size,
        asked,
        width=width,
        height=height,
        trust_remote_code=config.trust_remote_code,
    )
    times = len(contestants)
    tflop = times * (readings * cost.picture + len(asked) * cost.question)
    few = ", ".join(
        f"{gigabytes(size.gb(dtype, how))} in {how}" for how in get_args(Quantize) if how != "none"
    )
    named = str(dtype).removeprefix("torch.")
    held = named if config.judge_quantize == "none" else config.judge_quantize
    licence = stated_licence(place)
    terms = f"licence {licence}" if licence else "its licence is not in its card"
    return [
        Line(
            "questions",
            f"{times * len(asked):,} about {times * pictures:,} pictures, at most: what is scored "
            "is kept",
        ),
        Line("judge", f"{place.id}, {size.numbers / 1e6:,.1f} million weights, {terms}"),
        Line(
            "judge's memory",
            f"{gigabytes(size.gb(dtype, config.judge_quantize))} of weights in {held} (it would be "
            f"{few}), and at most {gigabytes(size.cache(dtype, cost.at_once))} of keys and values",
        ),
        Line("judge's download", f"{gigabytes(size.gb(torch.bfloat16))}, if it is kept in 16 bits"),
        Line(
            "judge's hours",
            f"{hours(tflop / (PEAK * SHARE) / 3600)} of an H100, computed, not measured: "
            f"{tflop:,.0f} TFLOP ({cost.picture_tokens} tokens a picture of {width}×{height}, "
            f"{cost.question_tokens:.0f} a question) at {SHARE:.0%} of {PEAK:.0f} TFLOP/s; reading "
            "and resizing pictures is not in it",
        ),
    ]


def hours(number: float) -> str:
    """So many hours for people; less than one in minutes."""
    return f"{number:.1f} hours" if number >= 1 else f"{60 * number:.0f} minutes"
