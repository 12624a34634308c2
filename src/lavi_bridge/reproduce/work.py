"""The work: search a row's learning rate, train it with a seed, evaluate it; each kept when done.

    OUT/settings.json
    OUT/rows/ROW/search.json              what was tried, and the factor on the learning rates
    OUT/rows/ROW/seed-N/result.json       scores of every image, budget, seconds
    OUT/rows/ROW/seed-N/{run,evaluation}  the bridge; its images and their report

A job (a row's search, or one of its seeds) is done by one process, or by all of torchrun's
together, under a lock. So the same command may run several times at once, and goes on wherever it
was stopped.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from lavi_bridge.config import ReproduceConfig, TrainConfig
from lavi_bridge.device import choose_device, from_first, processes, wait_for_all
from lavi_bridge.errors import BridgeError, Diverged
from lavi_bridge.evaluate.results import Evaluation
from lavi_bridge.evaluate.run import evaluate
from lavi_bridge.evaluate.suites import load_suite
from lavi_bridge.files import make_folder, new_folder, read_safetensors, write_text
from lavi_bridge.locate import locate
from lavi_bridge.lock import in_turn
from lavi_bridge.openmp import sleep_while_waiting
from lavi_bridge.output import tolerate_all_signs
from lavi_bridge.pictures import to_images
from lavi_bridge.plan import PARTS
from lavi_bridge.reproduce.rows import Row, rows_of
from lavi_bridge.reproduce.settings import (
    SEARCH_SEED,
    SEARCH_SHARE,
    ZOO,
    ZOO_ALL,
    Places,
    device_of,
    evaluation,
    folder,
    is_control,
    language_of,
    rates,
    seeds_of,
    training,
    vision_of,
)
from lavi_bridge.resume import stopping
from lavi_bridge.train.checkpoints import checkpoints
from lavi_bridge.train.loop import WARM, Run
from lavi_bridge.zoo.scenes import render
from lavi_bridge.zoo.world import evaluation_set

WAIT = 2.0
"""Seconds between two looks at what others are doing."""
GRACE = 15.0
"""Seconds for the others to end by themselves after Ctrl-C."""
NONE_LEFT, ALL_TAKEN = -1, -2
"""In the place of a job's number."""
SHARED = ("tables", "zoo", "seeds", "page", "workers", "dry_run", "yes", "out", "models",
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

    @property
    def label(self) -> str:
        """Of its lock and its log."""
        return "search" if self.seed is None else f"seed-{self.seed}"

    def folder(self, places: Places) -> Path:
        """The folder of its row."""
        return places.search(self.row).parent

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
    if all(job.done(places) for job in jobs_of(config)):
        return
    if not config.full:
        _reference(places, config)
    count = 1 if processes()[1] > 1 else workers(config)
    if count == 1:
        _worker(config, 0, 1)
    else:
        _spread(config, count)


def workers(config: ReproduceConfig) -> int:
    """Processes that train rows at the same time."""
    if config.workers:
        return config.workers
    device = choose_device(device_of(config))
    if device.type == "cuda":
        return 1 if device.index is not None else torch.cuda.device_count()
    if config.full:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(8, cores or 1))


def claim(places: Places, config: ReproduceConfig) -> None:
    """Note the settings, or compare them with what the folder was begun with.

    Raises:
        BridgeError: one differs; it is named.
    """
    mine = {k: v for k, v in asdict(config).items() if k not in SHARED}
    mine |= {"device": device_of(config), "tried": rates(config)}
    if not config.full:
        mine["budgets"] = {name: values | ZOO_ALL for name, values in ZOO.items()}
    mine = json.loads(json.dumps(mine, default=str))
    make_folder(places.out)
    if processes()[0] == 0 and not places.settings.is_file():
        with in_turn(places.out):  # two calls may begin one folder
            if not places.settings.is_file():
                write_text(places.settings, json.dumps(mine, indent=1) + "\n")
    if places.settings.is_file():
        theirs = json.loads(places.settings.read_text(encoding="utf-8"))
        for key, value in mine.items():
            if theirs.get(key) != value:
                raise BridgeError(
                    f"'{places.out}' was begun with other settings ({key}: {theirs.get(key)} "
                    f"there, {value} here); choose another --out"
                )


def _reference(places: Places, config: ReproduceConfig) -> None:
    """Have the reference drawn, once, by whichever call comes first: the others read it whole."""
    if processes()[0] == 0:
        with in_turn(places.out):
            if not (places.reference / "whole").exists():
                _draw_reference(places, config)
    wait_for_all()


def _draw_reference(places: Places, config: ReproduceConfig) -> None:
    """Draw the scenes that the prompts were written from, for the Fréchet distance."""
    limit = evaluation(rows_of(["languages"])[0], config, "", places.out).limit
    facts = [prompt.facts for prompt in load_suite("shapes", limit=limit)]
    scenes = evaluation_set(facts[0]["per_category"], facts[0]["seed"])[1]
    make_folder(places.reference)
    for number, fact in enumerate(facts):
        scene = scenes[fact["index"] : fact["index"] + 1]
        (image,) = to_images(render(scene))
        image.save(places.reference / f"{number:04}.png")
    write_text(places.reference / "whole", f"{len(facts)} scenes\n")


# Processes ----------------------------------------------------------------------------------------


def _spread(config: ReproduceConfig, count: int) -> None:
    """Let so many processes work side by side; the first failure ends them all."""
    sleep_while_waiting()  # each imports torch anew
    context = multiprocessing.get_context("spawn")
    team = [context.Process(target=_member, args=(config, i, count)) for i in range(count)]
    with stopping() as asked:
        for member in team:
            member.start()
        while any(member.is_alive() for member in team):
            for member in team:
                member.join(0.2)
            if asked() or any(member.exitcode for member in team):
                break
        # Ctrl-C has reached them as well; each saves what it is at, and ends
        patience = time.monotonic() + (GRACE if asked() else 0.0)
        for member in team:
            member.join(max(0.0, patience - time.monotonic()))
            if member.is_alive():
                member.terminate()
        for member in team:
            member.join()
        if asked():
            raise BridgeError("stopped; the same command goes on from there")
    if any(member.exitcode for member in team):
        raise BridgeError("a process failed, see above; what is finished is kept")


def _member(config: ReproduceConfig, number: int, count: int) -> None:
    """One of the processes."""
    tolerate_all_signs()
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
    if choose_device(device_of(config)).type == "cuda" and count > 1:
        config = replace(config, device=f"cuda:{number % torch.cuda.device_count()}")
    if not config.full:
        torch.set_num_threads(1)  # the models are small, and the digits do not depend on the cores
    jobs, parent = jobs_of(config), multiprocessing.parent_process()
    while True:
        if parent is not None and not parent.is_alive():
            return  # it was killed; whoever repeats the command goes on
        lock: FileLock | None = None
        place = NONE_LEFT
        if processes()[0] == 0:
            place, lock = _take(jobs, places)
        place = from_first(place)  # under torchrun the first process chooses for all
        if place == NONE_LEFT:
            return
        if place == ALL_TAKEN:
            time.sleep(WAIT)
            continue
        try:
            _do(jobs[place], config, places)
        finally:
            if lock is not None:
                lock.release()
        _tell(jobs[place], places, jobs)


def _take(jobs: Sequence[Job], places: Places) -> tuple[int, FileLock | None]:
    """Lock the first job that is ready and that nobody is at; its number, or why there is none."""
    left = [number for number, job in enumerate(jobs) if not job.done(places)]
    for number in left:
        job = jobs[number]
        if not job.ready(places):
            continue
        make_folder(job.folder(places))
        lock = FileLock(job.folder(places) / f".{job.label}.lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            continue
        if not job.done(places):  # another may have finished it meanwhile
            return number, lock
        lock.release()
    return (ALL_TAKEN if left else NONE_LEFT), None


def _tell(job: Job, places: Places, jobs: Sequence[Job]) -> None:
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


def _do(job: Job, config: ReproduceConfig, places: Places) -> None:
    """Do a job; an error names it."""
    try:
        with _quiet(job.folder(places) / f"{job.label}.log", config):
            if job.seed is None:
                search(job.row, config, places)
            else:
                one_seed(job.row, job.seed, config, places)
    except BridgeError as error:
        raise BridgeError(f"{job.name}: {error}") from error
    wait_for_all()
    gc.collect()


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
    factors, scratch = rates(config), places.search(row).parent
    runs = {factor: scratch / f"search-{factor:g}" for factor in factors}
    control = scratch / f"language-{SEARCH_SEED}"
    with _clock(scratch / "seconds.json", "search") as clock:
        if len(factors) > 1:
            language = _control(row, config, SEARCH_SEED, control)
            for factor, out in runs.items():
                settings = training(row, config, seed=SEARCH_SEED, factor=factor, out=out,
                                    language=language, share=SEARCH_SHARE)  # fmt: skip
                try:
                    _train(settings)
                    losses[f"{factor:g}"] = _last_loss(out)
                except Diverged:
                    losses[f"{factor:g}"] = math.inf
        best = min(factors, key=lambda factor: losses.get(f"{factor:g}", 0.0))
        if losses and math.isinf(losses[f"{best:g}"]):
            raise BridgeError("the loss is not a number at any of the rates; give lower --rates")
    if processes()[0] == 0:
        for scrap in (*runs.values(), control):
            shutil.rmtree(scrap, ignore_errors=True)
        record = {"factor": best, "losses": losses, "seconds": clock["search"]}
        write_text(places.search(row), json.dumps(record) + "\n")


def one_seed(row: Row, seed: int, config: ReproduceConfig, places: Places) -> None:
    """Train a row with one seed, evaluate it, and note everything."""
    job = places.job(row, seed)
    about: dict[str, Any] = {"row": row.slug, "seed": seed}
    entry = vision_of(row, config)
    if row.trained:
        factor = json.loads(places.search(row).read_text(encoding="utf-8"))["factor"]
        language = _control(row, config, seed, job / f"language-{seed}")
        settings = training(row, config, seed=seed, factor=factor, out=job / "run",
                            language=language)  # fmt: skip
        with _clock(job / "seconds.json", "training"):
            _train(settings)
        about |= _budget(settings, factor, config)
        entry = str(job / "run" / "bridge")
    with _clock(job / "seconds.json", "evaluation") as clock:
        found = evaluate(evaluation(row, config, entry, job / "evaluation"))
    if processes()[0] == 0:
        record = about | {"suites": _suites(found), "seconds": clock}
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


def _train(settings: TrainConfig) -> None:
    """Train unless that is done; what was kept to go on from goes when the bridge is there."""
    if not (settings.out / "bridge" / "bridge.json").is_file():
        Run(settings).train()
        gc.collect()
        wait_for_all()  # the first process saves the bridge
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
        warm = {"steps": report["steps"], "batch": settings.warm_start_batch,
                "rate": settings.lr_warm_start}  # fmt: skip
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
