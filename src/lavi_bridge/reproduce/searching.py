"""One job: the search of a row's learning rate, or one of its seeds trained and evaluated."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lavi_bridge.errors import BridgeError, Diverged
from lavi_bridge.evaluate.results import Evaluation
from lavi_bridge.evaluate.run import evaluate
from lavi_bridge.files.atomic import make_folder, new_folder, read_safetensors, write_text
from lavi_bridge.files.locate import locate
from lavi_bridge.plan.plan import PARTS
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.rows import Row
from lavi_bridge.reproduce.settings import (
    SEARCH_SEED,
    Places,
    evaluation,
    followed,
    is_control,
    language_of,
    on_its_way,
    rates,
    search_share,
    training,
    vision_of,
)
from lavi_bridge.running.device import machine, processes, wait_for_all
from lavi_bridge.train.checkpoints import checkpoints
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.run import Run
from lavi_bridge.train.warm_start.phase import WARM

TRIED = "search"
"""The folder of a row's search, until that is done."""


def search(row: Row, config: ReproduceConfig, places: Places) -> None:
    """Try every factor on the learning rates for a part of the steps; note the best."""
    factors, scratch = rates(config, row.recipe), places.search(row).parent
    losses: dict[str, float] = {}
    with _clock(scratch / "seconds.json", "search") as clock:
        if len(factors) > 1:
            losses = try_rates(row, config, factors, scratch / TRIED, share=search_share(config))
        best = min(factors, key=lambda factor: losses.get(f"{factor:g}", 0.0))
        if losses and math.isinf(losses[f"{best:g}"]):
            raise BridgeError("the loss is not a number at any of the rates; give lower --rates")
    if processes()[0] == 0:
        record = {"factor": best, "losses": losses, "seconds": clock["search"]}
        write_text(places.search(row), json.dumps(record) + "\n")
        shutil.rmtree(scratch / TRIED, ignore_errors=True)


def try_rates(
    row: Row, config: ReproduceConfig, factors: Sequence[float], folder: Path, *, share: float
) -> dict[str, float]:
    """Train a share of the steps with each factor, in `folder`; losses on held-out pairs by factor.

    A run that diverged has an infinite one. The same call goes on where it was stopped.
    """
    make_folder(folder)
    language = _control(row, config, SEARCH_SEED, folder / "language")
    losses: dict[str, float] = {}
    for factor in factors:
        out = folder / f"{factor:g}"
        settings = training(
            row,
            config,
            seed=SEARCH_SEED,
            factor=factor,
            out=out,
            language=language,
            share=share,
        )
        settings = replace(settings, validate_every=settings.steps)
        try:
            _train(settings)
            _tidy(settings)
            losses[f"{factor:g}"] = _last_loss(out)
        except Diverged:
            losses[f"{factor:g}"] = math.inf
    return losses


def one_seed(row: Row, seed: int, config: ReproduceConfig, places: Places) -> None:
    """Train a row with one seed, evaluate it, and note everything."""
    job = places.job(row, seed)
    about: dict[str, Any] = {"row": row.slug, "seed": seed}
    entry = vision_of(row, config)
    if row.trained:
        factor = json.loads(places.search(row).read_text(encoding="utf-8"))["factor"]
        language = _control(row, config, seed, job / f"language-{seed}")
        settings = training(
            row, config, seed=seed, factor=factor, out=job / "run", language=language
        )
        with _clock(job / "seconds.json", "training"):
            _train(settings)
        with _clock(job / "seconds.json", "evaluation"):
            about["on its way"] = _follow(row, config, settings, job)
        _tidy(settings)
        about |= _budget(settings, factor, config)
        entry = str(job / "run" / "bridge")
    with _clock(job / "seconds.json", "evaluation") as clock:
        found = evaluate(evaluation(row, config, entry, job / "evaluation"))
    if processes()[0] == 0:
        record = about | {"suites": _suites(found), "seconds": clock, "machine": machine()}
        write_text(places.result(row, seed), json.dumps(record, default=str) + "\n")


@contextlib.contextmanager
def _clock(path: Path, kind: str) -> Iterator[dict[str, float]]:
    """Add the seconds spent inside to those of earlier calls; yields them all, at the end.

    The time of a process that was killed outright is not in them.
    """
    seconds: dict[str, float] = {}
    begun = time.perf_counter()
    try:
        yield seconds
    finally:
        if path.is_file():
            seconds |= json.loads(path.read_text(encoding="utf-8"))
        spent = seconds.get(kind, 0.0) + time.perf_counter() - begun
        seconds[kind] = round(spent, 1)
        if processes()[0] == 0:
            write_text(path, json.dumps(seconds) + "\n")


def _follow(
    row: Row, config: ReproduceConfig, settings: TrainConfig, job: Path
) -> dict[str, dict[str, Any]]:
    """Judge a run's checkpoints and its end; scores by suite, by step.

    They are noted, as checkpoints go.
    """
    noted = job / "on-its-way.json"
    found: dict[str, dict[str, Any]] = {}
    if noted.is_file():
        found = json.loads(noted.read_text(encoding="utf-8"))
    for step in followed(row, config, settings.steps):
        if str(step) not in found:
            name = "bridge" if step == settings.steps else f"step-{step}"
            entry, out = str(settings.out / name), job / "on-its-way" / f"{step}"
            found[str(step)] = _suites(evaluate(on_its_way(row, config, entry, out)))
            if processes()[0] == 0:
                write_text(noted, json.dumps(found) + "\n")
    return found


def _train(settings: TrainConfig) -> None:
    """Train unless that is done."""
    if not (settings.out / "bridge" / "bridge.json").is_file():
        Run(settings).train()
        gc.collect()
        wait_for_all()  # the first process saves the bridge


def _tidy(settings: TrainConfig) -> None:
    """Let go of what a finished run was kept by to go on from."""
    if processes()[0] == 0:
        for state in checkpoints(settings.out).values():
            shutil.rmtree(state)
        (settings.out / WARM / "state.safetensors").unlink(missing_ok=True)


def _last_loss(out: Path) -> float:
    """The last loss on held-out pairs of a run."""
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [found for line in lines if (found := json.loads(line).get("val_loss")) is not None]
    if not losses:
        raise BridgeError(
            f"'{out}' has no loss on held-out pairs to choose a learning rate by: the data set is "
            "too small; give --rates 1"
        )
    return float(losses[-1])


def _budget(settings: TrainConfig, factor: float, config: ReproduceConfig) -> dict[str, Any]:
    """What a run was given: trained parameters by part, steps made, batches, rates."""
    bridge = settings.out / "bridge"
    record = json.loads((bridge / "bridge.json").read_text(encoding="utf-8"))
    loras = ("language_lora", "vision_lora")
    warm = None
    if report := record["training"].get("warm_start_report"):
        warm = {
            "steps": report["steps"],
            "batch": settings.warm_start_batch,
            "rate": settings.lr_warm_start,
        }
    batch = config.batch_size if config.full else settings.batch_size
    return {
        "bridge": record["id"],
        "parameters": {part: _count(bridge / part) for part in ("adapter", *loras)},
        "factor": factor,
        "rates": {part: getattr(settings, f"lr_{part}") for part in PARTS},
        "warm start": warm,
        "pictures": {"steps": settings.steps, "batch": batch},
    }


def _count(part: Path) -> int:
    """Parameters in the safetensors files of a folder."""
    files = part.glob("*.safetensors")
    return sum(t.numel() for path in files for t in read_safetensors(path).values())


def _suites(found: Evaluation) -> dict[str, Any]:
    """Scores by suite, of the one entry."""
    record = {}
    for suite in found.suites:
        (judged,) = suite.judged.values()
        record[suite.name] = {
            "prompts": suite.hash,
            "categories": [prompt.category for prompt in suite.prompts],
            "scores": judged.scores,
            "distances": judged.distances,
        }
    return record


def _control(row: Row, config: ReproduceConfig, seed: int, made: Path) -> str | None:
    """A language model with first weights, made for the seed; None where the row has none."""
    if not is_control(row):
        return None
    from transformers import AutoConfig, AutoModelForTextEncoding, AutoTokenizer

    if processes()[0] == 0 and not made.exists():
        place = locate(language_of(row, config))
        of = {"revision": place.revision, "subfolder": place.subfolder}
        torch.manual_seed(seed)
        model = AutoModelForTextEncoding.from_config(AutoConfig.from_pretrained(place.root, **of))
        with new_folder(made, own=()) as scratch:
            model.save_pretrained(scratch)
            AutoTokenizer.from_pretrained(place.root, **of).save_pretrained(scratch)
    wait_for_all()
    return str(made)
