"""The evaluation: draw every suite with every entry, judge the images, sum up, report.

    OUT/NAME/SUITE/  settings.json  manifest.jsonl  images/  scores/  features/
    OUT/             report.html  report.md  report.json

Everything finished is kept; the same command goes on wherever it was stopped. Under torchrun the
processes share the drawing and the judging, and the first one reports.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.drawing import jobs_of
from lavi_bridge.evaluate.entries import Asked, contestants_of, place_bases, share_scales
from lavi_bridge.evaluate.judges.known import trust_of_judges
from lavi_bridge.evaluate.judging import (
    QUESTIONED,
    THREE,
    add_three_in_one,
    applies,
    chosen,
    judged,
    kinds_of,
    load_judges,
)
from lavi_bridge.evaluate.official.exports import export, read_official
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.evaluate.report.report import write_report
from lavi_bridge.evaluate.results import Evaluation, MetricInfo, SuiteResults
from lavi_bridge.metrics import Metric
from lavi_bridge.prompts.catalogue import SUITES
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.suite import prompt_hash
from lavi_bridge.prompts.suites import duplicates, load_suite, with_dpg_questions
from lavi_bridge.running.device import join_processes, processes, wait_for_all
from lavi_bridge.running.lock import held, refuse_if_held


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Run an evaluation and write its report; return what was found.

    Raises:
        BridgeError: an entry, suite, metric or scorer is missing or does not fit; images of other
            settings are in the way, or another evaluation is at work there; or it was stopped (what
            is finished is kept).
    """
    join_processes()
    refuse_if_held(config.out)
    with ExitStack() as stack:
        return _evaluate(config, stack)


def _evaluate(config: EvaluateConfig, stack: ExitStack) -> Evaluation:
    """The evaluation; `stack` takes the lock of its folder once all that was asked for is there."""
    contestants = contestants_of(config.entries)
    place_bases(contestants, config)
    share_scales(contestants, config.sampling)
    prompts_of = suites_of(config)
    names = {suite: chosen(suite, config) for suite in prompts_of}
    judges = load_judges(dict.fromkeys(n for those in names.values() for n in those), config)
    trust = trust_of_judges(judges, config.judged, config.out, config.judge)
    suites, asked = [], []
    for suite, prompts in prompts_of.items():
        notes = _notes(prompts, {n: judges[n] for n in names[suite]})
        if not names[suite]:
            line = f"{suite}: none of {', '.join(config.metrics)} is for its prompts; name another"
            notes.append(line)
            if processes()[0] == 0:
                print(line, file=sys.stderr)
        images = images_of(suite, config)
        one = Asked(suite, prompts, images, jobs_of(prompts, images, config.sampling.seed))
        seeds = [[j.seed for j in group] for _, group in groupby(one.jobs, lambda j: j.prompt.id)]
        asked.append(one)
        suites.append(
            SuiteResults(suite, _title(suite), prompts, prompt_hash(prompts), seeds, {}, notes)
        )
    kinds = {one.suite: kinds_of(one.prompts, names[one.suite], config) for one in asked}
    for contestant in contestants:
        contestant.check(asked)
    stack.enter_context(held(config.out))
    drawn = {contestant.name: contestant.images(asked, config) for contestant in contestants}
    infos: dict[str, MetricInfo] = {}
    for one, results in zip(asked, suites, strict=True):
        for contestant in contestants:
            files = drawn[contestant.name][1][one.suite]
            if note := contestant.note(files):
                results.notes.append(note)
            result = results.judged[contestant.name] = judged(
                files,
                one.prompts,
                {n: judges[n] for n in names[one.suite]},
                config.out / contestant.name / one.folder,
                config,
                results.notes,
                label=f"{contestant.name}, {one.suite}",
            )
            if (known := kinds[one.suite]) is not None:
                add_three_in_one(result, one.prompts, known)
                infos[THREE.name] = THREE
            if config.export and processes()[0] == 0:
                place = config.export / contestant.name / one.folder
                export(one.suite, one.prompts, result.files, place)
                infos |= {i.name: i for i in read_official(one.suite, one.prompts, place, result)}
    entries = [entry for entry, _ in drawn.values()]
    own = {
        n: MetricInfo(n, m.title, m.higher, m.provenance(), trust.get(n, ""))
        for n, m in judges.items()
    }
    settings = asdict(config.sampling) | {
        "suffix": config.suffix,
        "mode": config.mode,
        "resize": config.resize,
        **({"judge": config.judge} if config.judge else {}),
        "reference": config.reference.name if config.reference else None,
    }
    evaluation = Evaluation(entries, own | infos, suites, settings)
    if processes()[0] == 0:
        write_report(evaluation, config.out)
    wait_for_all()
    return evaluation


def suites_of(config: EvaluateConfig) -> dict[str, list[Prompt]]:
    """Prompts by suite; a file of long prompts with their short ones is the suite `long`."""
    asked: dict[str, list[Prompt]] = {}
    for spec in dict.fromkeys(config.suites):
        prompts = load_suite(spec, folder=config.prompts, limit=config.limit)
        if spec.partition(":")[0] == "dpg" and QUESTIONED & {*chosen(spec, config)}:
            prompts = with_dpg_questions(prompts, config.prompts)
        expanded = spec.partition(":")[0] not in SUITES and all(p.short for p in prompts)
        name = "long" if expanded and "long" not in config.suites else Path(spec).name
        if name in asked:
            raise BridgeError(f"two suites are called '{name}'; rename a file")
        asked[name] = prompts
    return asked


def _notes(prompts: Sequence[Prompt], judges: Mapping[str, Metric]) -> list[str]:
    """What is to be known of a suite before it is drawn."""
    theirs = {name: [p for p in prompts if applies(name, p)] for name in judges}
    for name, metric in judges.items():
        metric.check(theirs[name])
    notes = [n for name, m in judges.items() if theirs[name] and (n := m.note(theirs[name]))]
    if again := duplicates(prompts):
        notes.append(f"{again} of {len(prompts)} prompts occur more than once")
    return notes


def _title(suite: str) -> str:
    name = suite.partition(":")[0]
    return SUITES[name].title if name in SUITES else suite


def images_of(suite: str, config: EvaluateConfig) -> int:
    """Images of each prompt of a suite."""
    name = suite.partition(":")[0]
    return config.images or (SUITES[name].images if name in SUITES else 1)
