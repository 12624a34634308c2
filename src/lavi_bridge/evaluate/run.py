"""The evaluation: draw every suite with every entry, judge the images, sum up, report.

    OUT/NAME/SUITE/  settings.json  manifest.jsonl  images/  scores/  features/
    OUT/             report.html  report.md  report.json

Everything finished is kept; the same command goes on wherever it was stopped. Under torchrun the
processes share the drawing and the judging, and the first one reports.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.drawing import made_by, settings_of
from lavi_bridge.bridge.folder import find_bridge, is_pipeline
from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.drawing import Job, draw, drawn, finish, found, jobs_of
from lavi_bridge.evaluate.judging import (
    THREE,
    add_three_in_one,
    chosen,
    judged,
    kinds_of,
    load_judges,
    sizes_note,
)
from lavi_bridge.evaluate.official.exports import export, read_official
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.evaluate.report.report import write_report
from lavi_bridge.evaluate.results import Entry, Evaluation, MetricInfo, SuiteResults
from lavi_bridge.files.atomic import at_home
from lavi_bridge.files.locate import locate
from lavi_bridge.files.weights import joined
from lavi_bridge.metrics import Metric
from lavi_bridge.prompts.catalogue import SUITES
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.suite import prompt_hash
from lavi_bridge.prompts.suites import duplicates, load_suite
from lavi_bridge.recipes import RECIPES
from lavi_bridge.running.blocks import compile_sampling
from lavi_bridge.running.device import join_processes, own_device, processes, wait_for_all
from lavi_bridge.running.lock import held, refuse_if_held
from lavi_bridge.version import __version__


@dataclass
class Contestant:
    """An entry before it is loaded."""

    name: str
    spec: str
    kind: str
    """`bridge`, `image model` or `images`."""
    moved: dict[str, str] = field(default_factory=dict)
    """Where a bridge's language and vision model are now, if not where they were in training."""


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
    _place_bases(contestants, config)
    asked = _suites(config)
    names = {suite: chosen(suite, config) for suite in asked}
    judges = load_judges(dict.fromkeys(n for those in names.values() for n in those), config)
    notes = {suite: _notes(asked[suite], [judges[n] for n in names[suite]]) for suite in asked}
    kinds = {suite: kinds_of(asked[suite], names[suite], config) for suite in asked}
    jobs = {
        suite: jobs_of(prompts, _images(suite, config), config.sampling.seed)
        for suite, prompts in asked.items()
    }
    for contestant in contestants:
        if contestant.kind == "images":  # whether any is missing, before others are drawn
            _found(contestant, asked, config)
    stack.enter_context(held(config.out))
    folders = {suite: re.sub(r"[^\w.-]+", "-", suite) for suite in asked}
    entries, files = [], dict[tuple[str, str], list[list[Path]]]()
    for contestant in contestants:
        entry, places = _images_of(contestant, asked, jobs, folders, config)
        entries.append(entry)
        files |= {(contestant.name, suite): paths for suite, paths in places.items()}
    suites, infos = [], dict[str, MetricInfo]()
    for suite, prompts in asked.items():
        seeds = [
            [j.seed for j in group] for _, group in groupby(jobs[suite], lambda j: j.prompt.id)
        ]
        results = SuiteResults(
            suite, _title(suite), prompts, prompt_hash(prompts), seeds, {}, notes[suite]
        )
        for contestant in contestants:
            theirs = files[contestant.name, suite]
            if contestant.kind == "images" and (note := sizes_note(contestant.name, theirs)):
                results.notes.append(note)
            result = results.judged[contestant.name] = judged(
                theirs,
                prompts,
                {n: judges[n] for n in names[suite]},
                config.out / contestant.name / folders[suite],
                config,
                results.notes,
                label=f"{contestant.name}, {suite}",
            )
            if (known := kinds[suite]) is not None:
                add_three_in_one(result, prompts, known)
                infos[THREE.name] = THREE
            if config.export and processes()[0] == 0:
                place = config.export / contestant.name / folders[suite]
                export(suite, prompts, result.files, place)
                infos |= {i.name: i for i in read_official(suite, prompts, place, result)}
        suites.append(results)
    own = {n: MetricInfo(n, m.title, m.higher, m.provenance()) for n, m in judges.items()}
    settings = asdict(config.sampling) | {
        "suffix": config.suffix,
        "mode": config.mode,
        "resize": config.resize,
        "reference": config.reference.name if config.reference else None,
    }
    evaluation = Evaluation(entries, own | infos, suites, settings)
    if processes()[0] == 0:
        write_report(evaluation, config.out)
    wait_for_all()
    return evaluation


def _suites(config: EvaluateConfig) -> dict[str, list[Prompt]]:
    """Prompts by suite; a file of long prompts with their short ones is the suite `long`."""
    asked: dict[str, list[Prompt]] = {}
    for spec in dict.fromkeys(config.suites):
        prompts = load_suite(spec, folder=config.prompts, limit=config.limit)
        expanded = spec.partition(":")[0] not in SUITES and all(p.short for p in prompts)
        name = "long" if expanded and "long" not in config.suites else Path(spec).name
        if name in asked:
            raise BridgeError(f"two suites are called '{name}'; rename a file")
        asked[name] = prompts
    return asked


def _notes(prompts: Sequence[Prompt], judges: Sequence[Metric]) -> list[str]:
    """What is to be known of a suite before it is drawn."""
    notes = [note for metric in judges if (note := metric.note(prompts)) is not None]
    if again := duplicates(prompts):
        notes.append(f"{again} of {len(prompts)} prompts occur more than once")
    return notes


def _title(suite: str) -> str:
    name = suite.partition(":")[0]
    return SUITES[name].title if name in SUITES else suite


# Entries ------------------------------------------------------------------------------------------


def contestants_of(specs: Sequence[str]) -> list[Contestant]:
    """What is evaluated, under names of its own; nothing is loaded yet.

    Raises:
        BridgeError: none is given, one is nowhere, or two have the same name.
    """
    if not specs:
        raise BridgeError("nothing to evaluate: give bridges, image models, or folders of images")
    found = []
    for text in specs:
        name, given, spec = text.partition("=")
        if not given or at_home(text).exists():
            name, spec = "", text
        spec = str(at_home(spec)) if spec.startswith("~") else spec
        kind = _kind(spec)
        found.append(Contestant(name or _name(spec), spec, kind))
    for contestant in found:
        if not re.fullmatch(r"[\w +=-][\w. +=-]{0,79}", contestant.name):
            raise BridgeError(f"'{contestant.name}' cannot name a folder; give NAME=…")
        if sum(other.name.casefold() == contestant.name.casefold() for other in found) > 1:
            raise BridgeError(
                f"two entries are called '{contestant.name}'; give NAME=… to tell them"
            )
    return found


def _place_bases(contestants: Sequence[Contestant], config: EvaluateConfig) -> None:
    """Note where the base models of each bridge are now: NAME=PLACE goes before PLACE.

    Raises:
        BridgeError: a name is no entry's, or there are two places for one model.
    """
    bridges = {one.name: one for one in contestants if one.kind == "bridge"}
    for option in ("language", "vision"):
        common: list[str] = []
        for text in getattr(config, option):
            name, given, place = text.partition("=")
            if not given or at_home(text).exists():
                common.append(text)
            elif name not in bridges:
                known = ", ".join(bridges) or "none"
                raise BridgeError(
                    f"--{option} {text}: no bridge '{name}' among the entries; bridges: {known}"
                )
            else:
                bridges[name].moved[option] = place
        if len(common) > 1:
            raise BridgeError(f"--{option} {' '.join(common)}: one place for all; for one NAME=…")
        for bridge in bridges.values():
            if common:
                bridge.moved.setdefault(option, common[0])


def _kind(spec: str) -> str:
    if is_pipeline(spec):
        return "image model"
    folder = Path(spec)
    bridged = folder.is_dir() and any(folder.glob("**/bridge.json"))
    if folder.is_dir() and not bridged and not (folder / "lora_vis.pt").exists():
        return "images"
    try:
        find_bridge(spec)
    except BridgeError:
        place = locate(spec)
        if place.local or place.file("model_index.json") is None:
            raise
        return "image model"  # a pipeline on the Hub
    return "bridge"


def _name(spec: str) -> str:
    path = Path(spec.removeprefix("zoo:").partition("@")[0])
    return path.parent.name if path.name == "bridge" and path.parent.name else path.resolve().name


def _images_of(
    contestant: Contestant,
    asked: dict[str, list[Prompt]],
    jobs: dict[str, list[Job]],
    folders: dict[str, str],
    config: EvaluateConfig,
) -> tuple[Entry, dict[str, list[list[Path]]]]:
    """Draw an entry's images, or find them."""
    if contestant.kind == "images":
        about = {"kind": "images", "folder": Path(contestant.spec).name}
        return Entry(contestant.name, about), _found(contestant, asked, config)
    device = own_device(config.device)
    if contestant.kind == "image model":
        bridge = Bridge.own(contestant.spec, dtype=config.dtype, device=device)
    else:
        bridge = Bridge.load(
            contestant.spec,
            **contestant.moved,
            dtype=config.dtype,
            device=device,
            trust_remote_code=config.trust_remote_code,
        )
    compile_sampling(bridge.vision.backbone, config.sampling.compile)
    identity = _identity(bridge, config)
    places = {}
    for suite, prompts in asked.items():
        folder = config.out / contestant.name / folders[suite]
        images = _images(suite, config)
        draw(
            bridge,
            jobs[suite],
            folder,
            config.sampling,
            identity=identity | {"prompts": prompt_hash(prompts), "images per prompt": images},
            suffix=config.suffix,
            name=f"{contestant.name}, {suite}",
        )
        wait_for_all()
        if processes()[0] == 0:
            finish(folder, jobs[suite])
        wait_for_all()
        there = drawn(folder)
        if missing := [job.file for job in jobs[suite] if job.file not in there]:
            raise BridgeError(f"{len(missing)} images are missing in '{folder}', as {missing[0]}")
        names = [folder / "images" / job.file for job in jobs[suite]]
        places[suite] = [names[start : start + images] for start in range(0, len(names), images)]
    about = {"kind": contestant.kind, **identity, **_about(bridge, device)}
    recipe = _recipe(bridge) if contestant.kind == "bridge" else None
    del bridge
    gc.collect()  # before the next one is loaded
    return Entry(contestant.name, about, recipe), places


def _found(
    contestant: Contestant, asked: dict[str, list[Prompt]], config: EvaluateConfig
) -> dict[str, list[list[Path]]]:
    return {
        suite: found(Path(contestant.spec), prompts, _images(suite, config))
        for suite, prompts in asked.items()
    }


def _identity(bridge: Bridge, config: EvaluateConfig) -> dict[str, Any]:
    """What the images depend on beside prompts and seeds."""
    settings, made = settings_of(bridge, config.sampling), made_by(bridge)
    if not bridge.trainable_parameters():  # then its id is of the two models alone
        made["bridge"] = joined(bridge.language.fingerprint, bridge.vision.fingerprint, digits=12)
    return made | {"seed": config.sampling.seed} | settings | {"suffix": config.suffix}


def _about(bridge: Bridge, device: torch.device) -> dict[str, Any]:
    """Further provenance: fingerprints, what was trained, versions."""
    names = ("torch", "diffusers", "transformers", "peft")
    return {
        "language fingerprint": bridge.language.fingerprint,
        "vision fingerprint": bridge.vision.fingerprint,
        "adapter": bridge.adapter.kind,
        "language LoRA rank": bridge.language.lora.rank if bridge.language.lora else 0,
        "vision LoRA rank": bridge.vision.lora.rank if bridge.vision.lora else 0,
        "training": bridge.training_summary,
        "device": device.type,
        "versions": {"lavi-bridge": __version__} | {name: version(name) for name in names},
    }


def _recipe(bridge: Bridge) -> str | None:
    """The paper's row of the same models."""
    pair = bridge.language.place.id.partition("@")[0], bridge.vision.place.id.partition("@")[0]
    return next((n for n, r in RECIPES.items() if (r.language, r.vision) == pair), None)


def _images(suite: str, config: EvaluateConfig) -> int:
    name = suite.partition(":")[0]
    return config.images or (SUITES[name].images if name in SUITES else 1)
