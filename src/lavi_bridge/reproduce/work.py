"""The work: search a row's learning rate, train it with a seed, evaluate it; each kept when done.

    OUT/settings.json
    OUT/rows/ROW/search.json              what was tried, and the factor on the learning rates
    OUT/rows/ROW/seed-N/result.json       scores of every image, budget, seconds
    OUT/rows/ROW/seed-N/{run,evaluation}  the bridge; its images and their report

A job (a row's search, or one of its seeds) is done by one process, which holds a lock on its
folder. So the same command may run several times at once, and goes on wherever it was stopped.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from lavi_bridge.config import ReproduceConfig, TrainConfig
from lavi_bridge.device import choose_device, processes, wait_for_all
from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.results import Evaluation
from lavi_bridge.evaluate.run import evaluate
from lavi_bridge.files import make_folder, write_text
from lavi_bridge.locate import locate
from lavi_bridge.pictures import to_images
from lavi_bridge.plan import PARTS
from lavi_bridge.reproduce.rows import Row, rows_of
from lavi_bridge.reproduce.settings import (
    SEARCH_SEED,
    SEARCH_SHARE,
    Places,
    evaluation,
    folder,
    is_control,
    language_of,
    rates,
    seeds_of,
    training,
    vision_of,
)
from lavi_bridge.train.loop import Run
from lavi_bridge.zoo.scenes import render
from lavi_bridge.zoo.world import CATEGORIES, evaluation_set

WAIT = 2.0
"""Seconds between two looks at what others are doing."""
SHARED = ("tables", "zoo", "seeds", "page", "workers", "dry_run", "yes", "out", "device", "models",
          "scorers", "prompt_files")  # fmt: skip
"""Settings that may differ from one call to the next."""


@dataclass(frozen=True)
class Job:
    """One piece of work that is kept when it is done."""

    row: Row
    seed: int | None
    """None: the search of the row's learning rate."""

    @property
    def name(self) -> str:
        """As it is told on the terminal."""
        return f"{self.row.slug}, " + ("search" if self.seed is None else f"seed {self.seed}")

    def done(self, places: Places) -> bool:
        """Whether its record is there."""
        if self.seed is None:
            return places.search(self.row).is_file()
        return places.result(self.row, self.seed).is_file()

    def ready(self, places: Places) -> bool:
        """Whether what it needs is there."""
        return self.seed is None or not self.row.trained or places.search(self.row).is_file()


def jobs_of(config: ReproduceConfig) -> list[Job]:
    """All work, in the order in which it is done: every row's first seed before the second ones."""
    rows = rows_of(config.tables, full=config.full)
    found = [Job(row, None) for row in rows if row.trained]
    for seed in range(config.seeds):
        found += [Job(row, seed) for row in rows if seed in seeds_of(row, config)]
    return found


def work(config: ReproduceConfig) -> None:
    """Do all that is left, in as many processes as `workers` says.

    Raises:
        BridgeError: the folder holds tables of other settings, a job failed, or it was stopped
            (what is finished is kept).
    """
    places = Places(folder(config))
    claim(places, config)
    if not config.full:
        _draw_reference(places, config)
    count = 1 if processes()[1] > 1 else workers(config)
    if count == 1:
        _worker(config, 0, 1)
    else:
        _spread(config, count)


def workers(config: ReproduceConfig) -> int:
    """Processes that train rows at the same time."""
    if config.workers:
        return config.workers
    if config.full or config.device:
        return (
            max(1, torch.cuda.device_count()) if choose_device(config.device).type == "cuda" else 1
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(8, cores or 1))


def claim(places: Places, config: ReproduceConfig) -> None:
    """Note the settings, or compare them with what the folder was begun with.

    Raises:
        BridgeError: one differs; it is named.
    """
    mine = {k: v for k, v in asdict(config).items() if k not in SHARED}
    mine = json.loads(json.dumps(mine, default=str))
    make_folder(places.out)
    if places.settings.is_file():
        theirs = json.loads(places.settings.read_text(encoding="utf-8"))
        for key, value in mine.items():
            if theirs.get(key) != value:
                raise BridgeError(
                    f"'{places.out}' was begun with other settings ({key}: {theirs.get(key)} "
                    f"there, {value} here); choose another --out"
                )
    elif processes()[0] == 0:
        write_text(places.settings, json.dumps(mine, indent=1) + "\n")


def _draw_reference(places: Places, config: ReproduceConfig) -> None:
    """Draw the scenes that the prompts were written from, for the Fréchet distance."""
    whole = places.reference / "whole"
    if whole.exists():
        return
    per_category = evaluation(rows_of(["languages"])[0], config, "", places.out).limit
    assert per_category is not None
    make_folder(places.reference)
    scenes = evaluation_set(max(1, per_category // len(CATEGORIES)))[1]
    for number, image in enumerate(to_images(render(scenes))):
        image.save(places.reference / f"{number:04}.png")
    write_text(whole, f"{len(scenes)} scenes\n")


# Processes ----------------------------------------------------------------------------------------


def _spread(config: ReproduceConfig, count: int) -> None:
    """Let so many processes work side by side; the first failure ends them all."""
    context = multiprocessing.get_context("spawn")
    team = [context.Process(target=_member, args=(config, i, count)) for i in range(count)]
    for member in team:
        member.start()
    try:
        while any(member.is_alive() for member in team):
            for member in team:
                member.join(0.2)
            if any(member.exitcode for member in team):
                raise BridgeError("a process failed, see above; what is finished is kept")
    finally:
        for member in team:
            if member.is_alive():
                member.terminate()  # each saves what it is at, and ends
        for member in team:
            member.join()


def _member(config: ReproduceConfig, number: int, count: int) -> None:
    """One of the processes."""
    try:
        _worker(config, number, count)
    except BridgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _worker(config: ReproduceConfig, number: int, count: int) -> None:
    """Do one job after another until none is left, waiting for those that others are at."""
    places = Places(folder(config))
    if choose_device(config.device).type == "cuda" and count > 1:
        torch.cuda.set_device(number % torch.cuda.device_count())
    if not config.full:
        torch.set_num_threads(1)  # the models are small, and the digits do not depend on the cores
    jobs = jobs_of(config)
    while left := [job for job in jobs if not job.done(places)]:
        for job in left:
            if job.ready(places) and _do(job, config, places):
                _tell(job, config, places, jobs)
                break
        else:
            time.sleep(WAIT)


def _tell(job: Job, config: ReproduceConfig, places: Places, jobs: list[Job]) -> None:
    if processes()[0]:
        return
    done = sum(job.done(places) for job in jobs)
    print(f"[{done}/{len(jobs)}] {job.name}: {_headline(job, places)}", flush=True)


def _headline(job: Job, places: Places) -> str:
    """The outcome of a finished job in a few words."""
    if job.seed is None:
        found = json.loads(places.search(job.row).read_text(encoding="utf-8"))
        return f"{found['factor']:g} times the rates, of {', '.join(found['losses']) or 'one'}"
    found = json.loads(places.result(job.row, job.seed).read_text(encoding="utf-8"))
    means = []
    for suite in found["suites"].values():
        for metric, rows in suite["scores"].items():
            known = [x for row in rows for x in row if x is not None]
            if known:
                means.append(f"{metric} {sum(known) / len(known):.3f}")
    return ", ".join(means) + f" ({sum(found['seconds'].values()):.0f} s)"


def _do(job: Job, config: ReproduceConfig, places: Places) -> bool:
    """Do a job unless another process is at it; return whether it was done here."""
    place = places.out / "rows" / job.row.slug
    name = "search" if job.seed is None else f"seed-{job.seed}"
    make_folder(place)
    lock = FileLock(place / f".{name}.lock", blocking=False)
    try:
        with lock if processes()[0] == 0 else contextlib.nullcontext():
            wait_for_all()
            if job.done(places):  # meanwhile, by another
                return False
            with _quiet(place / f"{name}.log", config):
                if job.seed is None:
                    search(job.row, config, places)
                else:
                    one_seed(job.row, job.seed, config, places)
            wait_for_all()
    except Timeout:
        return False
    gc.collect()
    return True


@contextlib.contextmanager
def _quiet(log: Path, config: ReproduceConfig) -> Iterator[None]:
    """What a run tells goes into a file; so do its bars, unless one process works on a terminal."""
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        if sys.stderr.isatty() and workers(config) == 1:
            yield
        else:
            with contextlib.redirect_stderr(file):
                yield


# Jobs ---------------------------------------------------------------------------------------------


def search(row: Row, config: ReproduceConfig, places: Places) -> None:
    """Try every factor on the learning rates for a part of the steps; note the best."""
    losses: dict[str, float] = {}
    begun = time.perf_counter()
    factors = rates(config)
    scratch = places.search(row).parent
    language = _control(row, config, SEARCH_SEED, scratch)
    if len(factors) > 1:
        for factor in factors:
            out = scratch / f"search-{factor:g}"
            settings = training(row, config, seed=SEARCH_SEED, factor=factor, out=out,
                                language=language, share=SEARCH_SHARE)  # fmt: skip
            _train(settings)
            losses[f"{factor:g}"] = _last_loss(out)
    best = min(factors, key=lambda factor: losses.get(f"{factor:g}", 0.0))
    record = {"factor": best, "losses": losses, "seconds": round(time.perf_counter() - begun, 1)}
    if processes()[0] == 0:
        write_text(places.search(row), json.dumps(record) + "\n")
        for factor in factors:
            shutil.rmtree(scratch / f"search-{factor:g}", ignore_errors=True)
        if language:
            shutil.rmtree(language)


def one_seed(row: Row, seed: int, config: ReproduceConfig, places: Places) -> None:
    """Train a row with one seed, evaluate it, and note everything."""
    job = places.job(row, seed)
    about: dict[str, Any] = {"row": row.slug, "seed": seed}
    clock = {}
    entry = vision_of(row, config)
    if row.trained:
        factor = json.loads(places.search(row).read_text(encoding="utf-8"))["factor"]
        language = _control(row, config, seed, job)
        settings = training(row, config, seed=seed, factor=factor, out=job / "run",
                            language=language)  # fmt: skip
        begun = time.perf_counter()
        _train(settings)
        about |= _budget(settings, factor)
        clock["training"] = round(time.perf_counter() - begun, 1)
        entry = str(job / "run" / "bridge")
    begun = time.perf_counter()
    found = evaluate(evaluation(row, config, entry, job / "evaluation"))
    clock["evaluation"] = round(time.perf_counter() - begun, 1)
    if processes()[0] == 0:
        record = about | {"suites": _suites(found), "metrics": _metrics(found), "seconds": clock}
        write_text(places.result(row, seed), json.dumps(record, default=str) + "\n")


def _train(settings: TrainConfig) -> None:
    """Train unless that is done."""
    if not (settings.out / "bridge" / "bridge.json").is_file():
        Run(settings).train()
        gc.collect()


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


def _budget(settings: TrainConfig, factor: float) -> dict[str, Any]:
    """What a run was given: trained parameters by part, steps, batches, rates."""
    bridge = settings.out / "bridge"
    record = json.loads((bridge / "bridge.json").read_text(encoding="utf-8"))
    parameters = {
        part: _count(bridge / part) for part in ("adapter", "language_lora", "vision_lora")
    }
    return {
        "bridge": record["id"],
        "parameters": parameters,
        "factor": factor,
        "rates": {part: getattr(settings, f"lr_{part}") for part in PARTS},
        "warm start": {"steps": settings.warm_start, "batch": settings.warm_start_batch,
                       "rate": settings.lr_warm_start} if settings.warm_start else None,
        "pictures": {"steps": settings.steps, "batch": settings.batch_size * settings.accumulate},
    }  # fmt: skip


def _count(part: Path) -> int:
    """Parameters in the safetensors files of a folder."""
    from safetensors import safe_open

    total = 0
    for path in sorted(part.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no dictionary
                size = 1
                for side in file.get_slice(name).get_shape():
                    size *= side
                total += size
    return total


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


def _metrics(found: Evaluation) -> dict[str, Any]:
    return {name: {"title": m.title, "higher": m.higher} for name, m in found.metrics.items()}


def _control(row: Row, config: ReproduceConfig, seed: int, out: Path) -> str | None:
    """A language model with first weights, made for the seed; None where the row has none."""
    if not is_control(row):
        return None
    from transformers import AutoConfig, AutoModelForTextEncoding, AutoTokenizer

    made = out / f"language-{seed}"
    if processes()[0] == 0 and not (made / "tokenizer_config.json").exists():
        place = locate(language_of(row, config))
        of = {"revision": place.revision, "subfolder": place.subfolder}
        torch.manual_seed(seed)
        model = AutoModelForTextEncoding.from_config(AutoConfig.from_pretrained(place.root, **of))
        model.save_pretrained(made)
        AutoTokenizer.from_pretrained(place.root, **of).save_pretrained(made)
    wait_for_all()
    return str(made)
