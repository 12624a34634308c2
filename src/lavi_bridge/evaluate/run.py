"""The evaluation: draw every suite with every entry, judge the images, sum up, report.

    OUT/NAME/SUITE/  settings.json  manifest.jsonl  images/  scores/  features/
    OUT/             report.html  report.md  report.json

Everything finished is kept; the same command goes on wherever it was stopped. Under torchrun the
processes share the drawing and the judging, and the first one reports.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lavi_bridge import __version__
from lavi_bridge.bridge import Bridge
from lavi_bridge.config import EvaluateConfig
from lavi_bridge.device import own_device, processes
from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate import shapes
from lavi_bridge.evaluate.exports import export, read_official
from lavi_bridge.evaluate.images import SUFFIXES, Job, draw, drawn, finish, found, jobs_of
from lavi_bridge.evaluate.report import write_report
from lavi_bridge.evaluate.results import Entry, Evaluation, Judged, MetricInfo, SuiteResults
from lavi_bridge.evaluate.scoring import (
    features_of,
    judge,
    read_features,
    scores_of,
    settle,
)
from lavi_bridge.evaluate.suites import SUITES, duplicates, load_suite, prompt_hash
from lavi_bridge.files import make_folder
from lavi_bridge.locate import locate
from lavi_bridge.metrics import METRICS, Distance, Metric, Score
from lavi_bridge.metrics.distances import too_few
from lavi_bridge.prompts import Prompt
from lavi_bridge.recipes import RECIPES
from lavi_bridge.storage import find_bridge, is_pipeline

DEFAULTS: dict[str, tuple[str, ...]] = {
    "shapes": ("shapes",),
    "short": ("clip-score", "aesthetic-v2"),
    "long": ("clip-score", "aesthetic-v2"),
    "t2i-compbench": ("blip-vqa", "spatial-owlv2", "clip-nonspatial"),
}
"""Metrics of a suite where none are asked for; of all others, the CLIP score."""
CATEGORIES = {
    # of T2I-CompBench: what each of its metrics judges; the complex score has all three as parts
    "blip-vqa": {"color", "shape", "texture", "complex"},
    "spatial-owlv2": {"spatial", "complex"},
    "clip-nonspatial": {"non-spatial", "complex"},
}


@dataclass
class Contestant:
    """An entry before it is loaded."""

    name: str
    spec: str
    kind: str
    """`bridge`, `image model` or `images`."""


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Run an evaluation and write its report; return what was found.

    Raises:
        BridgeError: an entry, suite, metric or scorer is missing or does not fit; images of other
            settings are in the way; or it was stopped (what is finished is kept).
    """
    _join()
    contestants = contestants_of(config.entries)
    asked = {name: load_suite(name, folder=config.prompts, limit=config.limit)
             for name in dict.fromkeys(config.suites)}  # fmt: skip
    chosen = {suite: _chosen(suite, config) for suite in asked}
    judges = _judges(dict.fromkeys(name for names in chosen.values() for name in names), config)
    jobs = {suite: jobs_of(prompts, _images(suite, config), config.sampling.seed)
            for suite, prompts in asked.items()}  # fmt: skip
    make_folder(config.out)
    folders = {suite: re.sub(r"[^\w.-]+", "-", suite.replace(os.sep, "-")) for suite in asked}
    files: dict[tuple[str, str], list[list[Path]]] = {}
    entries = []
    for contestant in contestants:
        entry, places = _images_of(contestant, asked, jobs, folders, config)
        entries.append(entry)
        files |= {(contestant.name, suite): paths for suite, paths in places.items()}
    suites, official = [], dict[str, MetricInfo]()
    for suite, prompts in asked.items():
        seeds = [[j.seed for j in jobs[suite] if j.prompt is p] for p in prompts]
        title = (
            SUITES[suite.partition(":")[0]].title if suite.partition(":")[0] in SUITES else suite
        )
        results = SuiteResults(suite, title, prompts, prompt_hash(prompts), seeds, {})
        results.notes += [n for m in chosen[suite] if (n := judges[m].note(prompts)) is not None]
        if again := duplicates(prompts):
            results.notes.append(f"{again} of {len(prompts)} prompts occur more than once")
        for contestant in contestants:
            results.judged[contestant.name] = _judged(
                files[contestant.name, suite], prompts, {n: judges[n] for n in chosen[suite]},
                config.out / contestant.name / folders[suite], config, results.notes,
                label=f"{contestant.name}, {suite}",
            )  # fmt: skip
            if config.export and processes()[0] == 0:
                place = config.export / contestant.name / folders[suite]
                judged = results.judged[contestant.name]
                export(suite, prompts, judged.files, place)
                official |= {i.name: i for i in read_official(suite, prompts, place, judged)}
        suites.append(results)
    infos = official | {
        n: MetricInfo(n, m.title, m.higher, m.provenance()) for n, m in judges.items()
    }
    settings = asdict(config.sampling) | {
        "suffix": config.suffix, "mode": config.mode, "resize": config.resize,
        "reference": config.reference.name if config.reference else None,
    }  # fmt: skip
    evaluation = Evaluation(entries, infos, suites, settings)
    if processes()[0] == 0:
        write_report(evaluation, config.out)
    _wait()
    return evaluation


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
        if not given:
            name, spec = "", text
        kind = _kind(spec)
        found.append(Contestant(name or _name(spec), spec, kind))
    for contestant in found:
        if not re.fullmatch(r"[\w. +-]{1,80}", contestant.name):
            raise BridgeError(f"'{contestant.name}' cannot name a folder; give NAME=…")
        if sum(other.name == contestant.name for other in found) > 1:
            raise BridgeError(
                f"two entries are called '{contestant.name}'; give NAME=… to tell them"
            )
    return found


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
        places = {
            suite: found(Path(contestant.spec), prompts, _images(suite, config))
            for suite, prompts in asked.items()
        }
        return Entry(contestant.name, about), places
    device = own_device(config.device)
    load = Bridge.own if contestant.kind == "image model" else Bridge.load
    bridge = load(contestant.spec, dtype=config.dtype, device=device)
    identity = _identity(bridge, config)
    places = {}
    for suite, prompts in asked.items():
        folder = config.out / contestant.name / folders[suite]
        images = _images(suite, config)
        draw(bridge, jobs[suite], folder, config.sampling,
             identity=identity | {"prompts": prompt_hash(prompts), "images per prompt": images},
             suffix=config.suffix, name=f"{contestant.name}, {suite}")  # fmt: skip
        _wait()
        if processes()[0] == 0:
            finish(folder, jobs[suite])
        _wait()
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


def _identity(bridge: Bridge, config: EvaluateConfig) -> dict[str, Any]:
    """What the images depend on beside prompts and seeds."""
    sampling = config.sampling
    side = bridge.vision.resolution
    return {
        "bridge": bridge.id,
        "language": bridge.language.place.id,
        "vision": bridge.vision.place.id,
        "dtype": str(bridge.vision.dtype).removeprefix("torch."),
        "seed": sampling.seed,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "negative": sampling.negative,
        "height": sampling.height or side,
        "width": sampling.width or side,
        "scheduler": sampling.scheduler or bridge.vision.default_scheduler,
        "suffix": config.suffix,
    }


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


# Metrics ------------------------------------------------------------------------------------------


def _chosen(suite: str, config: EvaluateConfig) -> list[str]:
    """The metrics of a suite."""
    name = suite.partition(":")[0]
    if config.metrics:
        asked = dict.fromkeys(config.metrics)
        return [m for m in asked if m not in shapes.NAMES or name == "shapes"]
    own = list(DEFAULTS.get(name, ("clip-score",)))
    return own + (["fid", "kid"] if config.reference and name == "short" else [])


def _judges(names: Sequence[str] | dict[str, None], config: EvaluateConfig) -> dict[str, Metric]:
    """The metrics by name, loaded: what is missing is said before anything is drawn."""
    scorers = {}
    for text in config.scorers:
        name, given, place = text.partition("=")
        if not given or name not in METRICS:
            known = ", ".join(METRICS)
            raise BridgeError(f"--scorers takes METRIC=FOLDER, not '{text}'; known: {known}")
        scorers[name] = place
    judges = {}
    for name in names:
        kind, options = METRICS[name], dict[str, Any]()
        if issubclass(kind, Distance):
            if config.reference is None:
                raise BridgeError(f"{name} compares with real images: give --reference FOLDER")
            options["resize"] = config.resize
        if kind.scorer:
            options["device"] = own_device(config.device)
        if name in scorers:
            options["weights" if issubclass(kind, Distance) else "scorer"] = scorers[name]
        if name in CATEGORIES:
            options["mode"] = config.mode
        judges[name] = kind(**options)
    return judges


def _judged(
    files: list[list[Path]],
    prompts: Sequence[Prompt],
    judges: dict[str, Metric],
    folder: Path,
    config: EvaluateConfig,
    notes: list[str],
    *,
    label: str,
) -> Judged:
    """Every metric over one entry's images of one suite."""
    result = Judged(files)
    for name, metric in judges.items():
        if isinstance(metric, Score):
            theirs = [
                paths if _applies(name, prompt) else []
                for prompt, paths in zip(prompts, files, strict=True)
            ]
            pairs = [(p, path) for p, paths in zip(prompts, theirs, strict=True) for path in paths]
            judge(name, metric, pairs, folder / "scores", label=f"{name}: {label}")
            _wait()
            if processes()[0] == 0:
                settle(name, metric, pairs, folder / "scores")
            _wait()
            scores, failures = scores_of(name, metric, theirs, folder / "scores")
            result.scores[name] = [
                row or [None] * len(paths) for row, paths in zip(scores, files, strict=True)
            ]
            if failures:
                result.failures[name] = failures
        elif isinstance(metric, Distance):
            assert config.reference is not None
            result.distances[name] = _distance(name, metric, files, folder, config, notes, label)
    return result


def _distance(name: str, metric: Distance, files: list[list[Path]], folder: Path,
              config: EvaluateConfig, notes: list[str], label: str) -> float:  # fmt: skip
    assert config.reference is not None
    theirs = reference_images(config.reference)
    ours = [path for paths in files for path in paths]
    features_of(metric, theirs, config.out / "reference", label=f"{name}: reference")
    features_of(metric, ours, folder / "features", label=f"{name}: {label}")
    _wait()
    mine = read_features(metric, ours, folder / "features")
    real = read_features(metric, theirs, config.out / "reference")
    warning = too_few(min(len(mine), len(real)), mine.shape[1]) if name == "fid" else None
    if warning and warning not in notes:
        notes.append(warning)
    return metric.distance(mine, real)


def reference_images(folder: Path) -> list[Path]:
    """The images under a folder, in the order of their paths.

    Raises:
        BridgeError: there are fewer than two.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(files) < 2:
        raise BridgeError(f"'{folder}' holds {len(files)} images to compare with")
    return files


def _applies(metric: str, prompt: Prompt) -> bool:
    """Metrics of T2I-CompBench judge some of its categories; of other suites all prompts."""
    known = set().union(*CATEGORIES.values())
    return prompt.category not in known or prompt.category in CATEGORIES.get(metric, known)


def _images(suite: str, config: EvaluateConfig) -> int:
    name = suite.partition(":")[0]
    return config.images or (SUITES[name].images if name in SUITES else 1)


# Processes ----------------------------------------------------------------------------------------


def _join() -> None:
    """Meet the other processes of torchrun, if there are any."""
    if processes()[1] > 1 and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(hours=12))


def _wait() -> None:
    """Until all processes are here."""
    if dist.is_initialized():
        dist.barrier()
