"""`lavi-bridge reproduce`: the plan, the question, the work, the page."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from accelerate import PartialState

from lavi_bridge.errors import BridgeError
from lavi_bridge.reproduce.jobs import claim, jobs_of
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.page import write_page
from lavi_bridge.reproduce.planning import plan, table
from lavi_bridge.reproduce.rows import missing
from lavi_bridge.reproduce.settings import Places, device_of, folder
from lavi_bridge.reproduce.work import time_left, work, workers
from lavi_bridge.running.device import choose_device, join_processes, processes
from lavi_bridge.running.lock import in_turn


def reproduce(config: ReproduceConfig) -> Path | None:
    """Make the tables, going on from wherever an earlier call stopped; return the page.

    None: it was a dry run, or the user said no.

    Raises:
        BridgeError: `full` without data or without anybody to ask; the folder holds tables of
            other settings; a job failed, or it was stopped (what is finished is kept).
    """
    config = replace(config, tables=list(dict.fromkeys(config.tables)))
    places = Places(folder(config))
    jobs = jobs_of(config)
    left = sum(not job.done(places) for job in jobs)
    _join(config)
    first = processes()[0] == 0
    if config.full and config.data is None and not config.dry_run:
        raise BridgeError("--full trains on captioned images: give --data (see `train --help`)")
    if not config.dry_run:
        claim(places, config)
    if config.full and (left or config.dry_run):
        if first:
            print(table(config, plan(config)), flush=True)
        if not config.dry_run and not _agreed(config, first):
            return None
    if first:
        if not config.full and "languages" in config.tables:
            for name, reason in missing().items():
                print(f"left out: {name} ({reason})", flush=True)
        team = max(workers(config), processes()[1])
        print(
            f"{len(jobs) - left} of {len(jobs)} jobs are done in '{folder(config)}'; "
            f"{team} process{'es' * (team > 1)}{time_left(jobs, places, workers(config))}",
            flush=True,
        )
    if config.dry_run:
        if first and not config.full:
            print("\n".join(job.name for job in jobs if not job.done(places)))
        return None
    work(config)
    if not first:
        return None
    with in_turn(places.out):
        return write_page(config)


def _agreed(config: ReproduceConfig, first: bool) -> bool:
    """Whether days of GPU time may be spent.

    Raises:
        BridgeError: there is nobody to ask.
    """
    if config.yes:
        return True
    if processes()[1] > 1 or not sys.stdin.isatty():
        raise BridgeError("--full starts when asked to: add --yes, or call it from a terminal")
    try:
        return input("Start? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _join(config: ReproduceConfig) -> None:
    """Meet the other processes of torchrun: on GPUs as training does, which then takes the group
    as it is."""
    if processes()[1] > 1 and choose_device(device_of(config)).type == "cuda":
        PartialState(timeout=timedelta(hours=12))
    join_processes()
