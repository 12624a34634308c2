"""`lavi-bridge zoo build`: makes every bundled model from nothing, each by its recipe in
`catalogue.py`.

A model is a sequence of stages; each stage is one task under one schedule and resumes by itself. A
finished model is a folder in the real layout that plain diffusers or transformers load.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from lavi_bridge.errors import BridgeError, nearest
from lavi_bridge.files.atomic import make_folder, write_text
from lavi_bridge.running.lock import held
from lavi_bridge.show.curves import draw_curves, read_curve
from lavi_bridge.zoo.making.catalogue import MODELS
from lavi_bridge.zoo.making.fitting import Schedule, fit
from lavi_bridge.zoo.making.stages import Context, Stage


def build(
    names: Sequence[str] = (),
    *,
    out: Path,
    check: bool = False,
    device: str = "cpu",
    start: Path | None = None,
    steps: int | None = None,
) -> list[Path]:
    """Make the named models (all of them by default), one after the other; resume what is there.

    Args:
        out: gets a folder a model, `curves.svg` of all losses, and `work` with states, logs and
            the encoded training set.
        check: a reduced version of each, in seconds to a minute, to see that it learns.
        start: earlier weights that the one named language model goes on from.
        steps: of every stage, instead of the recipe's.

    Returns:
        The finished models' folders.

    Raises:
        BridgeError: an unknown name, a build interrupted, a state of another recipe, a full disk,
            or (with `check`) a loss that does not fall.
    """
    for name in names:
        if name not in MODELS:
            known = ", ".join(MODELS)
            raise BridgeError(f"no recipe for '{name}'; known: {known}{nearest(name, MODELS)}")
    chosen = [name for name in MODELS if name in names] if names else list(MODELS)
    chosen.sort(key=lambda name: len(MODELS[name].needs))  # what others start from comes first
    if start and (len(names) != 1 or "text" not in [s.name for s in MODELS[names[0]].stages]):
        raise BridgeError("earlier weights are for one language model: name it")
    context = Context(out, device, check, start)
    make_folder(out)
    total = sum(len(MODELS[name].stages) for name in chosen)
    done = 0
    for name in chosen:
        with held(context.work(name)):  # calls that make other models may share the folder
            for stage in MODELS[name].stages:
                done += 1
                title = f"[{done}/{total}] {name} {stage.name}"
                schedule = reduced(stage.schedule) if check else stage.schedule
                if steps:
                    warmup = min(schedule.warmup, steps // 10)
                    schedule = replace(schedule, steps=steps, warmup=warmup)
                run_stage(context, name, replace(stage, schedule=schedule), title)
    logs = sorted((out / "work").glob("*/*/log.jsonl"))
    curves = {f"{log.parts[-3]} {log.parts[-2]}": read_curve(log, "loss") for log in logs}
    write_text(out / "curves.svg", draw_curves(curves))
    return [out / name for name in chosen]


def run_stage(context: Context, name: str, stage: Stage, title: str) -> None:
    """Train one stage to its end, unless an earlier call has; then write what it makes."""
    folder = context.work(name) / stage.name
    recipe = asdict(stage.schedule)
    if (folder / "done.json").is_file():
        done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        if done["recipe"] != recipe:
            raise BridgeError(
                f"'{folder}' was made by another recipe (reduced, perhaps); choose another --out"
            )
        print(f"{title}: done before", flush=True)
        return
    task = stage.task(context)
    seconds = fit(task, stage.schedule, folder, name=title)
    stage.finish(context, task)
    lines = [json.loads(x) for x in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    figure = next(key for key in lines[0] if key != "step")
    first, last = lines[0][figure], lines[-1][figure]
    print(f"{title}: {figure} {first:.4g} -> {last:.4g} in {seconds:.0f} s", flush=True)
    better = last > first if figure == "psnr_db" else last < first
    if context.check and not better:
        raise BridgeError(
            f"{title}: {figure} went from {first:.4g} to {last:.4g}; it learns nothing"
        )
    done = {"recipe": recipe, "seconds": round(seconds, 1), figure: last}
    write_text(folder / "done.json", json.dumps(done) + "\n")


def reduced(schedule: Schedule) -> Schedule:
    """The same schedule in small: enough to see the loss fall."""
    return replace(schedule, steps=40, batch=min(32, schedule.batch), warmup=5, ema=0.0)
