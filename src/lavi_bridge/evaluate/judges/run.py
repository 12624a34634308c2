"""The command: what is asked, of whom, and what is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lavi_bridge.errors import BridgeError, nearest
from lavi_bridge.evaluate.judges.asking import ask, hashed, prompts_of
from lavi_bridge.evaluate.judges.items import ASKING, WHOLE, Case, of_drawn, of_pair
from lavi_bridge.evaluate.judges.options import JudgeConfig
from lavi_bridge.evaluate.judges.page import write
from lavi_bridge.evaluate.judges.pairs import CHANGES, pairs
from lavi_bridge.evaluate.judges.results import Result, sections_of
from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.judge.asked import ByJudge
from lavi_bridge.metrics.judge.model import Judge, load_judge
from lavi_bridge.running.device import join_processes, own_device, processes, wait_for_all
from lavi_bridge.running.lock import held, refuse_if_held

ASKED = ("mode", "reading", "question")
"""Of a metric's provenance, what is not the judge's."""


def judge(config: JudgeConfig) -> Result:
    """Ask a judge about the shapes world and write how it did; return what was found.

    Raises:
        BridgeError: a category or metric is unknown, the judge cannot be had, `out` holds another
            judge's answers, or it was stopped (what is answered is kept).
    """
    names, categories = chosen(config)
    join_processes()
    refuse_if_held(config.out)
    drawn = drawn_cases(config)
    found = load_judge(
        config.model,
        dtype=config.dtype,
        quantize=config.quantize,
        device=own_device(config.device),
        trust_remote_code=config.trust_remote_code,
    )
    metrics = asking(found, names, config)
    cases = [*pair_cases(config, names, categories), *drawn]
    for name, metric in metrics.items():
        metric.check(prompts_of(cases, name))
    settings = {
        "categories": categories,
        "per_category": config.per_category,
        "seed": config.seed,
        "side": config.side,
        "mode": config.mode,
        "questions": hashed(cases),
    }
    told = {name: metric.provenance() for name, metric in metrics.items()}
    asks = {name: {k: one[k] for k in ASKED} for name, one in told.items()}
    with held(config.out):
        identity = {"judge": found.provenance(), "metrics": asks, **settings}
        scores = ask(metrics, cases, config.out, identity)
        titles = {name: type(metric).title.removesuffix(" AM") for name, metric in metrics.items()}
        result = Result(
            found.name, found.provenance(), told, settings, sections_of(cases, scores, titles)
        )
        if processes()[0] == 0:
            write(result, config.out)
        wait_for_all()
    return result


def chosen(config: JudgeConfig) -> tuple[list[str], list[str]]:
    """Metrics and categories, in the order in which they stand everywhere.

    Raises:
        BridgeError: one is unknown.
    """
    _refuse_unknown("metric that asks a judge", config.metrics, ASKING)
    _refuse_unknown("category", config.categories, CHANGES)
    if config.pictures and not {*WHOLE} & {*(config.metrics or ASKING)}:
        raise BridgeError(f"drawn pictures are asked about by {', '.join(WHOLE)}: add it")
    return (
        [name for name in ASKING if name in (config.metrics or ASKING)],
        [name for name in CHANGES if name in (config.categories or CHANGES)],
    )


def _refuse_unknown(what: str, asked: Sequence[str], known: Iterable[str]) -> None:
    for name in asked:
        if name not in known:
            raise BridgeError(
                f"unknown {what} '{name}'; known: {', '.join(known)}{nearest(name, [*known])}"
            )


def asking(judge: Judge, names: Sequence[str], config: JudgeConfig) -> dict[str, ByJudge]:
    """The metrics in whose wording a judge is asked."""
    kinds = {name: METRICS[name] for name in names}
    return {
        name: kind(judge=judge, mode=config.mode)
        for name, kind in kinds.items()
        if issubclass(kind, ByJudge)
    }


def pair_cases(config: JudgeConfig, names: Sequence[str], categories: Sequence[str]) -> list[Case]:
    """The world's pairs."""
    return [
        of_pair(pair, names, config.side)
        for category in categories
        for pair in pairs(category, config.per_category, config.seed)
    ]


def drawn_cases(config: JudgeConfig) -> list[Case]:
    """Pictures that image models drew, where some were given."""
    if config.pictures is None:
        return []
    return [*of_drawn(config.pictures, config.per_category, config.seed, config.side)]
