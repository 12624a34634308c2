"""The training loop: one wrapper module (the bridge itself) under accelerate.

All randomness of a sample (noise, timestep, crop, mirror, caption) derives from the seed, the visit
and the sample's index, and that of a step (dropout) from the seed, the step and the process. So
a run that was stopped goes on exactly as if it had not been, whatever its worker processes.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.data.cache.latents import SHARD
from lavi_bridge.data.examples import load, order_of
from lavi_bridge.data.sources.base import plain_captions
from lavi_bridge.data.sources.opening import open_source
from lavi_bridge.errors import BridgeError, Stopped
from lavi_bridge.files.atomic import make_folder, write_text
from lavi_bridge.running.blocks import gathered, uncompiled, whole
from lavi_bridge.running.device import Agreement, float32_products, processes
from lavi_bridge.running.lock import held, refuse_if_held
from lavi_bridge.running.progress import progress
from lavi_bridge.running.run_state import RunState, stopping
from lavi_bridge.running.seeds import seed_of
from lavi_bridge.train import checkpoints
from lavi_bridge.train.accelerator import PATIENCE, make_accelerator
from lavi_bridge.train.assembly import connect, identity, samples
from lavi_bridge.train.average import Average
from lavi_bridge.train.caching import open_text_cache
from lavi_bridge.train.ending import noting_the_end
from lavi_bridge.train.guards import Guards
from lavi_bridge.train.loss import Loss
from lavi_bridge.train.optimizer import freeze_mix, make_optimizer, schedule
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.record import Meter, Record
from lavi_bridge.train.showing import redraw_curves, show_samples, start_tracker
from lavi_bridge.train.summary import card, summary
from lavi_bridge.train.unreadable import Unreadable
from lavi_bridge.train.validation import Validation
from lavi_bridge.train.warm_start.phase import WARM, warm_start_phase


class Run:
    """One training run: what it needs, and the loop."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        if config.compile == "graphs" and processes()[1] > 1:
            raise BridgeError(
                "'compile' graphs is for one process and has not been tried with several; compile "
                "blocks instead"
            )
        self.source = open_source(config.data, seed=config.seed)
        self.accelerator = make_accelerator(config)
        self.main = self.accelerator.is_main_process
        self.processes = self.accelerator.num_processes
        if not config.dry_run:
            refuse_if_held(config.out)
        self.bridge = connect(config, self.accelerator.device)
        self.resolution = config.resolution or self.bridge.vision.resolution
        self.bridge.vision.latent_shape(self.resolution, self.resolution)  # refuses bad sizes
        make_folder(config.out)
        self.examples = samples(
            config, self.bridge.vision, self.source, self.resolution, self.accelerator
        )
        self.text_cache = open_text_cache(self.bridge, config)
        self.validation = Validation(self.bridge, self.examples, config)
        self.order = order_of(
            self.source,
            self.examples.size_of,
            batch=config.batch_size * self.processes,
            seed=config.seed,
            held_out=self.validation.indices,
        )
        self.unreadable = Unreadable(
            config.out / "bad.txt",
            pictures=len(self.source),
            share=config.max_bad,
            processes=self.processes,
            main=self.main,
        )
        self.loss = Loss(self.bridge, self.examples, self.unreadable, config, self.text_cache)
        self.record = Record(self.accelerator, config.out)
        self.agreed = Agreement(self.processes, patience=PATIENCE)
        self.validated: tuple[int, float | None] = -1, None
        """The step of the last validation and its loss."""

    def train(self) -> Bridge:
        """Run to the end, from wherever an earlier call stopped, and save the bridge.

        Raises:
            BridgeError: the folder holds a run with other settings or one that goes on at this
                moment, the loss is not a number, too many pictures cannot be read, the disk is
                full, or the run was stopped.
        """
        if self.config.dry_run:
            return self._train()
        on_gpu = self.accelerator.device.type == "cuda"
        # TF32 for what trains beside models in bfloat16, and for nothing that comes after; a run in
        # float32 gives the same digits whatever came before
        fast = on_gpu and self.bridge.vision.dtype != torch.float32
        with held(self.config.out), float32_products("high" if fast else "highest"):
            return self._train()

    def _train(self) -> Bridge:
        """The run, in a folder of its own."""
        config = self.config
        state = self._prepare()
        self.bridge.training_summary = card(
            config, processes=self.processes, resolution=self.resolution
        )
        last = checkpoints.latest(config.out)
        if last is None and self._finished():
            raise BridgeError(
                f"'{config.out}' already holds a finished bridge and nothing to go on from; "
                "choose another `out`, or delete it"
            )
        if self.main:
            print(self.summary(), flush=True)
        if config.dry_run:
            return self.bridge
        step = 0
        if last is not None:
            step = self._resume(state(last))
        self._write_settings()
        self.unreadable.write()
        with noting_the_end(config.out, main=self.main):
            if last is None:
                self._warm_start()
                self.average.begin()
                self.record.forget("step", after=-1)
                if config.begins_without_images and config.save_every:
                    self._checkpoint(0, state)
            try:
                self._loop(step, state, begins=last is None)
            finally:
                for tracker in self.accelerator.trackers:
                    tracker.finish()
            self._flush_cache()
            self.average.take()
            self._save(config.out / "bridge")
        return self.bridge

    def _warm_start(self) -> None:
        if self.config.begins_without_images:
            captions = plain_captions(self.source, 100_000)
            warm_start_phase(self.bridge, captions, self.config, self.record, main=self.main)

    def summary(self) -> str:
        """What is about to be trained, in a few lines."""
        return summary(
            self.config,
            self.bridge,
            self.examples,
            samples=self.order.samples,
            held_out=len(self.validation.indices),
            processes=self.processes,
            memory=self.config.dry_run or self.accelerator.device.type == "cuda",
        )

    @property
    def batch(self) -> int:
        """Images of a batch, over all processes."""
        return self.config.batch_size * self.processes

    # ---- the loop

    def _prepare(self) -> Any:
        """Optimizer, schedule and average; returns what gives the state of a checkpoint."""
        config, accelerator = self.config, self.accelerator
        groups = [
            {"params": part, "lr": getattr(config, f"lr_{name}"), "name": name}
            for name, part in self.bridge.parts().items()
            if part
        ]
        self.optimizer = make_optimizer(config, groups, accelerator.device)
        self.rates = [group["lr"] for group in groups]
        self._schedule(min(config.warmup, config.steps // 10))
        trained = {n: p for n, p in self.bridge.named_parameters() if p.requires_grad}
        self.parameters = list(trained.values())
        tensors: dict[str, Tensor] = dict(trained)
        free = self.optimizer if config.optimizer == "schedule-free" else None
        self.average = Average(
            self.parameters, decay=config.ema, schedule_free=free, spread=config.shard
        )
        shadows = zip(trained, self.average.shadows, strict=bool(config.ema))
        tensors |= {f"average/{name}": shadow for name, shadow in shadows}
        about = identity(config, self.bridge, self.source, self.batch, self.resolution)

        def state(folder: Path) -> RunState:
            return RunState(
                folder / checkpoints.STATE,
                about=about,
                tensors=tensors,
                optimizer=self.optimizer,
                writes=self.main,
            )

        return state

    def _schedule(self, warmup: int) -> None:
        """Take the rate as a function of the step; a run that goes on keeps its warm-up."""
        self.warmup, self.rate = warmup, schedule(self.config, warmup)

    def _resume(self, state: RunState) -> int:
        done = state.load()
        step = int(done["step"])
        self.unreadable.restore(done["bad"])
        self._schedule(done["warmup"])
        self.average.steps = int(done["averaged"])
        self.bridge.training_summary |= {"steps": step, "skipped_images": len(self.unreadable)}
        report = self.config.out / WARM / "report.json"
        if report.is_file():
            found = json.loads(report.read_text(encoding="utf-8"))
            self.bridge.training_summary["warm_start_report"] = found
        self.record.forget("step", after=step)
        if self.main and step < self.config.steps:
            print(f"going on from step {step:,} ('{state.path.parent}')", flush=True)
        elif self.main:
            print(f"finished before, at step {step:,}", flush=True)
        return step

    def _loop(self, step: int, state: Any, *, begins: bool) -> None:
        config, accelerator = self.config, self.accelerator
        if step >= config.steps:
            if begins:  # a warm start alone
                self._look(0)
            return
        bridge: nn.Module = self.bridge  # sharded blocks already average their gradients
        if not config.shard:
            bridge = accelerator.prepare(bridge)
        optimizer = accelerator.prepare(self.optimizer)
        if config.optimizer == "schedule-free":
            self.optimizer.train()  # type: ignore[attr-defined]
        start_tracker(accelerator, config, step)
        if begins:
            self._look(0)
        still = {group["name"] for group in self.optimizer.param_groups if not group["lr"]}
        guards = Guards(self.bridge, but=still) if step == 0 else None
        meter = Meter(self.batch)
        bridge.train()
        with (
            stopping() as asked,
            progress(total=config.steps, desc="training", disable=not self.main) as bar,
            load(
                self.examples,
                self.order,
                first=step * config.accumulate,
                workers=config.workers,
                rank=accelerator.process_index,
                batch=config.batch_size,
            ) as loader,
        ):
            bar.update(step)
            while step < config.steps:
                for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
                    group["lr"] = rate * self.rate(step)
                for part in range(config.accumulate):
                    examples = next(loader)
                    if config.compile == "graphs":  # what the last step's graphs gave is used up
                        torch.compiler.cudagraph_mark_step_begin()
                    with accelerator.accumulate(bridge):
                        torch.manual_seed(
                            seed_of(config.seed, "step", step, part, accelerator.process_index)
                        )  # dropout, also that of the frozen models
                        loss = self.loss(bridge, examples)
                        accelerator.backward(loss)
                        if accelerator.sync_gradients:
                            if guards:
                                guards.after_backward()
                            freeze_mix(self.bridge.adapter, config.mix_frozen_after, step=step)
                            norm = whole(accelerator.clip_grad_norm_(self.parameters, config.clip))
                        optimizer.step()
                        optimizer.zero_grad()
                    meter.add(loss.detach())
                self.average.add()
                step += 1
                if guards and guards.passed(self.rate(step - 1)):
                    guards = None
                bar.update()
                self._flush_cache(SHARD)
                last = step == config.steps
                due = {
                    "log": step % config.log_every == 0 or last,
                    "save": _due(config.save_every, step, last),
                    "look": _due(config.sample_every, step, last),
                    "validate": _due(config.validate_every, step, last),
                }
                stop = self.agreed(asked())
                if due["log"] or due["save"] or stop:
                    self.unreadable.count()
                if any(due.values()) or stop:
                    meter.check(norm, step, config.out)
                if due["log"]:
                    bar.set_postfix(self._log(meter, norm, step))
                if due["look"] or due["validate"]:
                    self._look(step, samples=due["look"], validate=due["validate"])
                if due["save"] or stop:
                    self._checkpoint(step, state)
                if (due["save"] or due["look"] or due["validate"]) and self.main:
                    redraw_curves(config.out)
                if any(due.values()):
                    meter.restart()
                if stop and not last:
                    raise Stopped(
                        f"stopped at step {step} of {config.steps}; the same command goes on from "
                        f"'{checkpoints.place(config.out, step)}'"
                    )

    def _log(self, meter: Meter, norm: Tensor, step: int) -> dict[str, str]:
        loss = float(self.accelerator.reduce(meter.mean(), reduction="mean"))
        rates = {f"lr_{g['name']}": g["lr"] for g in self.optimizer.param_groups}
        memory = {}
        if self.accelerator.device.type == "cuda":
            memory = {"peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9}
        speed = meter.images_per_second()
        self.record.add(
            step=step,
            loss=loss,
            grad_norm=float(norm),
            images_per_second=round(speed, 2),
            skipped_images=len(self.unreadable),
            **rates,
            **memory,
        )
        self.bridge.training_summary |= {"steps": step, "skipped_images": len(self.unreadable)}
        return {"loss": f"{loss:.4f}", "images_s": f"{speed:.1f}"}

    # ---- seeing

    def _look(self, step: int, *, samples: bool = True, validate: bool = True) -> None:
        """Validation and a sample grid, on the first process."""
        config = self.config
        if not self.main and not config.shard:
            return
        with self.average.taken(), uncompiled(self.config.compile):
            if validate and config.validate_every and (found := self.validation.measure()):
                self.record.add(step=step, **found)
                self.validated = step, found.get("val_loss")
            if samples and config.sample_every:
                show_samples(
                    self.bridge, self.source, config, step, self.resolution, self.accelerator
                )

    # ---- what is left behind

    def _finished(self) -> bool:
        return (self.config.out / "bridge").exists()

    def _write_settings(self) -> None:
        if self.main:
            settings = json.dumps(dataclasses.asdict(self.config), indent=2, default=str)
            write_text(self.config.out / "config.json", settings + "\n")

    def _checkpoint(self, step: int, state: Any) -> None:
        """Bridge and state into `step-N`: whole as soon as the state, written last, is there."""
        self._flush_cache()
        folder = checkpoints.place(self.config.out, step)
        with self.average.taken():
            self._save(folder)
        if self.main or self.config.shard:
            state(folder).save(
                step=step,
                averaged=self.average.steps,
                warmup=self.warmup,
                bad=self.unreadable.errors,
            )
        if self.main:
            at, loss = self.validated
            if at == step and loss is not None:
                checkpoints.note_best(self.config.out, step, loss)
            checkpoints.prune(self.config.out, self.config.keep)
        self.accelerator.wait_for_everyone()

    def _flush_cache(self, at_least: int = 1) -> None:
        for cache in (self.examples.cache, self.text_cache):
            if cache is not None and cache.waiting() >= at_least:
                cache.flush()

    def _save(self, folder: Path) -> None:
        self.accelerator.wait_for_everyone()
        if self.main or self.config.shard:
            with gathered(self.bridge):
                if self.main:
                    self.bridge.save(folder)


def _due(every: int, step: int, last: bool) -> bool:
    return bool(every) and (step % every == 0 or last)
