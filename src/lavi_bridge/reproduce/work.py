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
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import make_folder, write_text
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.reproduce.jobs import Job, jobs_of, seconds_left
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.rows import rows_of
from lavi_bridge.reproduce.searching import one_seed, search
from lavi_bridge.reproduce.settings import (
    Places,
    device_of,
    evaluation,
    folder,
)
from lavi_bridge.running.device import choose_device, from_first, processes, wait_for_all
from lavi_bridge.running.lock import in_turn
from lavi_bridge.running.openmp import sleep_while_waiting
from lavi_bridge.running.run_state import stopping
from lavi_bridge.shapes.scenes import pictures
from lavi_bridge.shapes.world import evaluation_set
from lavi_bridge.show.output import tolerate_all_signs

WAIT = 2.0
"""Seconds between two looks at what others are doing."""
GRACE = 15.0
"""Seconds for the others to end by themselves after Ctrl-C."""
NONE_LEFT, ALL_TAKEN = -1, -2
"""In the place of a job's number."""


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
    count = workers(config)
    if count == 1:
        _worker(config, 0, 1)
    else:
        _run_workers(config, count)


def workers(config: ReproduceConfig) -> int:
    """Processes that train rows at the same time; those of torchrun share each row."""
    if processes()[1] > 1:
        return 1
    if config.workers:
        return config.workers
    device = choose_device(device_of(config))
    if device.type == "cuda":
        return 1 if device.index is not None else torch.cuda.device_count()
    if config.full:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(8, cores or 1))


DRAWN = "drawn"
"""A file beside the reference's pictures, once all are there; beside a file `whole` they are too
pale."""


def _reference(places: Places, config: ReproduceConfig) -> None:
    """Have the reference drawn, once, by whichever call comes first: the others read it whole."""
    if processes()[0] == 0:
        with in_turn(places.out):
            if not (places.reference / DRAWN).exists():
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
        (image,) = pictures(scene)
        image.save(places.reference / f"{number:04}.png")
    write_text(places.reference / DRAWN, f"{len(facts)} scenes\n")


# Processes ----------------------------------------------------------------------------------------


def _run_workers(config: ReproduceConfig, count: int) -> None:
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
        _tell(jobs[place], places, jobs, count)


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


def _tell(job: Job, places: Places, jobs: Sequence[Job], team: int) -> None:
    if processes()[0]:
        return
    done = sum(job.done(places) for job in jobs)
    told = f"{job.name}: {_headline(job, places)}{time_left(jobs, places, team)}"
    print(f"[{done}/{len(jobs)}] {told}", flush=True)


def time_left(jobs: Sequence[Job], places: Places, team: int) -> str:
    """How long so many processes still need, as the end of a line; "" where nobody can tell."""
    left = seconds_left(jobs, places)
    return "" if left is None else f"; about {tqdm.format_interval(left / team)} left"


def _headline(job: Job, places: Places) -> str:
    """The outcome of a finished job in a few words."""
    if job.seed is None:
        found = json.loads(places.search(job.row).read_text(encoding="utf-8"))
        return f"{found['factor']:g} times the rates, of {', '.join(found['losses']) or 'one'}"
    found = json.loads(places.result(job.row, job.seed).read_text(encoding="utf-8"))
    told = []
    for name, suite in found["suites"].items():
        known = {
            metric: [x for row in rows for x in row if x is not None]
            for metric, rows in suite["scores"].items()
        }
        means = [f"{metric} {fmean(scores):.3f}" for metric, scores in known.items() if scores]
        if means:
            told.append(f"{name}: {', '.join(means)}")
    return f"{'; '.join(told)} ({job.seconds(places):.0f} s)"


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
