"""The training loop: one wrapper module (the bridge itself) under accelerate.

All randomness of a sample (noise, timestep, crop, mirror, caption) derives from the seed, the visit
and the sample's index, and that of a step (dropout) from the seed, the step and the process. So
a run that was stopped goes on exactly as if it had not been, whatever its worker processes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    ProjectConfiguration,
    gather_object,
)
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Generator, Tensor, nn

from lavi_bridge.blocks import compile_blocks, gathered, shard, uncompiled, whole
from lavi_bridge.bridge import Bridge
from lavi_bridge.config import TrainConfig
from lavi_bridge.data.cache import SHARD
from lavi_bridge.data.finding import left_out
from lavi_bridge.data.opening import open_source
from lavi_bridge.device import choose_device, float32_products, processes, to_device
from lavi_bridge.errors import BridgeError, Diverged, NotANumber
from lavi_bridge.files import make_folder, write_text
from lavi_bridge.lock import held, refuse_if_held
from lavi_bridge.plan import make_plan
from lavi_bridge.progress import progress
from lavi_bridge.resume import RunState, stopping
from lavi_bridge.seeds import seed_of
from lavi_bridge.train import checkpoints
from lavi_bridge.train.caching import cached_features, open_cache, open_text_cache
from lavi_bridge.train.examples import (
    Example,
    Examples,
    inputs,
    load,
    order_of,
    readers,
    sizes_of,
)
from lavi_bridge.train.guards import Guards
from lavi_bridge.train.meter import Meter
from lavi_bridge.train.optimizer import make_optimizer
from lavi_bridge.train.showing import (
    redraw_curves,
    show_samples,
    some_captions,
    start_tracker,
    tracker_of,
)
from lavi_bridge.train.validation import Validation
from lavi_bridge.warm_start import WarmStart

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other."""
WARM = "warm-start"
"""Folder in a run for the state and the report of its warm start."""
FREE = {
    "language", "vision", "data", "out", "recipe", "steps", "device", "workers", "log_every",
    "sample_every", "sample_prompts", "sample_steps", "validate_every", "save_every", "keep",
    "max_bad", "batch_size", "tracker", "cache", "text_cache", "dry_run", "shard", "compile",
    "warm_start_report", "trust_remote_code",
}  # fmt: skip
"""Settings that may change when a run goes on, or that are compared by what they stand for."""


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
        device = choose_device(config.device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # accelerate takes the current one
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            gradient_accumulation_steps=config.accumulate,
            log_with=tracker_of(config.tracker),
            project_config=ProjectConfiguration(project_dir=str(config.out)),
            kwargs_handlers=[
                # one process reads the headers of a large data set while the others wait
                InitProcessGroupKwargs(timeout=PATIENCE),
                # buffers are constants, and the same in all
                DistributedDataParallelKwargs(broadcast_buffers=False),
            ],
        )
        if self.accelerator.distributed_type == DistributedType.FSDP:
            raise BridgeError(
                "accelerate's own FSDP does not know which weights are frozen: let its config say "
                "`distributed_type: MULTI_GPU`, and give --shard"
            )
        self.main = self.accelerator.is_main_process
        self.processes = self.accelerator.num_processes
        if not config.dry_run:
            refuse_if_held(config.out)
        self.bridge = Bridge.connect(
            config.language,
            config.vision,
            adapter=config.adapter,
            rank=config.rank,
            language_rank=config.language_rank,
            vision_rank=config.vision_rank,
            dropout=config.dropout,
            dtype=config.dtype,
            quantize=config.quantize,
            device=self.accelerator.device,
            seed=config.seed,
            trust_remote_code=config.trust_remote_code,
        )
        self.bridge.vision.process.weigh_flow(config.flow_weighting)
        self.bridge.vision.process.weights(torch.zeros(1, dtype=torch.long), config.min_snr)
        if config.gradient_checkpointing:
            self.bridge.checkpoint_activations()
        models = [self.bridge.language.model, self.bridge.adapter, self.bridge.vision.backbone]
        compile_blocks(models, config.compile)
        if config.shard:
            shard(models, self.accelerator.device)
        self.resolution = config.resolution or self.bridge.vision.resolution
        self.bridge.vision.latent_shape(self.resolution, self.resolution)  # refuses bad sizes
        make_folder(config.out)
        with self.accelerator.main_process_first():  # the others find what it has read
            sizes, size_of = sizes_of(
                self.source, self.bridge.vision, self.resolution, config, show=self.main
            )
            self.cache = open_cache(self.bridge.vision, self.source, config, sizes)
        self.text_cache = open_text_cache(self.bridge, config)
        self.examples = Examples(self.source, config, sizes, size_of, self.cache)
        self.validation = Validation(self.bridge, self.examples, config)
        self.order = order_of(
            self.source,
            size_of,
            batch=config.batch_size * self.processes,
            seed=config.seed,
            held_out=self.validation.indices,
        )
        self.validated: tuple[int, float | None] = -1, None
        """The step of the last validation and its loss."""
        self._asked: tuple[Tensor, Any] | None = None
        """Whether any process was asked to stop at the step before, and what to wait for."""
        self._asking: Any = None
        self.bad: dict[int, str] = {}
        """What is wrong with the pictures that could not be read, by sample."""
        self._found_bad: list[tuple[int, str]] = []

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
        self.bridge.training_summary = self._summary()
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
        self._list_bad()
        if last is None:
            self._warm_start()
            if self.average:  # it began with the weights of before
                _copy(self.parameters, self.average.shadow_params)
            self._forget("step", after=-1)
            if config.warm_start and config.save_every:
                self._checkpoint(0, state)
        try:
            with readers():
                self._loop(step, state, begins=last is None)
        finally:
            for tracker in self.accelerator.trackers:
                tracker.finish()
        self._flush_cache()
        self._take_average()
        self._save(config.out / "bridge")
        return self.bridge

    def summary(self) -> str:
        """What is about to be trained, in a few lines."""
        bridge, config = self.bridge, self.config
        captions = self.source.captions(1000)
        cut = bridge.language.tokenize(captions, bridge.tokens).cut
        counts = ", ".join(f"{k} {sum(p.numel() for p in v):,}" for k, v in bridge.parts().items())
        batch = self.batch * config.accumulate
        epochs = config.steps * batch / self.order.samples
        aside = len(self.validation.indices)
        lines = [
            f"{config.language} × {config.vision}",
            f"{self.order.samples:,} pairs at {self._shown_sizes()} from {config.data}"
            + (f", {aside} held out" if aside else ""),
            *(f"left out, {line}" for line in left_out(self.source)),
            f"trained parameters: {counts}",
            f"{config.steps:,} steps of {batch} images, {epochs:.2f} epochs",
            f"prompts: {bridge.tokens} tokens, {'masked' if bridge.vision.masks else 'no mask'}; "
            f"{cut} of the first {len(captions)} captions are longer and lose their end",
        ]
        if config.dry_run or self.accelerator.device.type == "cuda":
            lines.append(
                f"memory: about {self._memory():.1f} GB on each device"
                + (", less with checkpointing" if config.gradient_checkpointing else "")
            )
        if not config.caption_dropout and config.recipe == "default":
            lines.append("note: without caption_dropout guidance has no trained null prompt")
        return "\n".join(lines)

    def _memory(self) -> float:
        """GB that a step is planned to need, from configs alone."""
        config = self.config
        ranks = [
            config.rank if r is None else r for r in (config.language_rank, config.vision_rank)
        ]
        width, height = max(self.examples.sizes)
        side = round((width * height) ** 0.5) // self.bridge.vision.side_step
        return make_plan(
            config.language,
            config.vision,
            adapter=config.adapter,
            language_rank=ranks[0],
            vision_rank=ranks[1],
            resolution=side * self.bridge.vision.side_step,
            batch_size=config.batch_size,
            dtype=str(self.bridge.vision.dtype).removeprefix("torch."),
            quantize=config.quantize,
            processes=self.processes if config.shard else 1,
            compute=False,
            trust_remote_code=config.trust_remote_code,
        ).training_gb

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
        self.average = None
        if config.ema:
            # a few kernels for all weights; torch has none for those that are spread
            self.average = EMAModel(self.parameters, decay=config.ema, foreach=not config.shard)
            shadows = zip(trained, self.average.shadow_params, strict=True)
            tensors |= {f"average/{name}": shadow for name, shadow in shadows}
        settings = dataclasses.asdict(config)
        about = {k: v for k, v in settings.items() if k not in FREE} | {
            "cached": config.cache is not None,
            "language model": self.bridge.language.fingerprint,
            "vision model": self.bridge.vision.fingerprint,
            "data set": self.source.identity(),
            "images per batch": self.batch,
            "resolution": self.resolution,
        }
        about["dtype"] = str(self.bridge.vision.dtype)
        if config.schedule != "constant":
            about["steps"] = config.steps

        def state(folder: Path) -> RunState:
            return RunState(folder / checkpoints.STATE, about=about, tensors=tensors,
                            optimizer=self.optimizer, writes=self.main)  # fmt: skip

        return state

    def _schedule(self, warmup: int) -> None:
        """Take the rate as a function of the step; a run that goes on keeps its warm-up."""
        config, self.warmup = self.config, warmup
        self.rate = get_scheduler(
            _with_warmup(config), torch.optim.SGD([torch.zeros(1)]),
            num_warmup_steps=warmup,
            num_training_steps=config.steps,
        ).lr_lambdas[0]  # fmt: skip

    def _resume(self, state: RunState) -> int:
        done = state.load()
        step = int(done["step"])
        self.bad = {int(index): error for index, error in done["bad"].items()}
        self._schedule(done["warmup"])
        if self.average:
            self.average.optimization_step = int(done["averaged"])
        self.bridge.training_summary |= {"steps": step, "skipped_images": len(self.bad)}
        report = self.config.out / WARM / "report.json"
        if report.is_file():
            found = json.loads(report.read_text(encoding="utf-8"))
            self.bridge.training_summary["warm_start_report"] = found
        self._forget("step", after=step)
        if self.main and step < self.config.steps:
            print(f"going on from step {step:,} ('{state.path.parent}')", flush=True)
        elif self.main:
            print(f"finished before, at step {step:,}", flush=True)
        return step

    def _loop(self, step: int, state: Any, *, begins: bool) -> None:
        config, accelerator = self.config, self.accelerator
        if step >= config.steps:
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
        with stopping() as asked, progress(total=config.steps, desc="training",
                                           disable=not self.main) as bar:  # fmt: skip
            loader = load(self.examples, self.order, first=step * config.accumulate,
                          workers=config.workers, rank=accelerator.process_index,
                          batch=config.batch_size)  # fmt: skip
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
                        loss = self._loss(bridge, examples)
                        accelerator.backward(loss)
                        if accelerator.sync_gradients:
                            norm = whole(accelerator.clip_grad_norm_(self.parameters, config.clip))
                            if guards:
                                guards.after_backward()
                        optimizer.step()
                        optimizer.zero_grad()
                    meter.add(loss.detach())
                if self.average:
                    self.average.step(self.parameters)
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
                stop = self._agreed(asked())
                if due["log"] or due["save"] or stop:
                    self._count_bad()
                if any(due.values()) or stop:
                    self._check(meter, norm, step)
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
                    raise BridgeError(
                        f"stopped at step {step} of {config.steps}; the same command goes on from "
                        f"'{checkpoints.place(config.out, step)}'"
                    )

    def _loss(self, bridge: nn.Module, examples: Sequence[Example]) -> Tensor:
        """The loss of this process's part of a batch; pictures that cannot be read count zero."""
        good = self._only_good(examples)
        # compiled blocks want one length, and one number of pictures
        trim = self.config.compile == "none"
        options: dict[str, Any] = {"min_snr": self.config.min_snr, "trim": trim}
        if not good:  # the other processes wait for a gradient
            count = 1 if trim else len(examples)
            return bridge(**self._nothing(count, examples[0].key[0]), **options) * 0
        lacking = 0 if trim else len(examples) - len(good)
        if lacking:
            shares = torch.tensor([1.0] * len(good) + [0.0] * lacking)
            options["shares"] = to_device(shares, self.bridge.vision.device)
        given = inputs(good + good[:1] * lacking, self.bridge.vision, self.cache)
        if self.text_cache is not None:
            told = given.pop("captions")
            given["features"] = cached_features(self.bridge, self.text_cache, told,
                                                trim=trim)  # fmt: skip
        loss: Tensor = bridge(**given, **options)
        return loss if lacking else loss * (len(good) / len(examples))

    def _nothing(self, count: int, index: int) -> dict[str, Any]:
        """So many black pictures of a sample's size."""
        width, height = self.examples.size(index)
        return {"pixels": torch.zeros(count, 3, height, width), "captions": [""] * count,
                "generator": [Generator().manual_seed(0) for _ in range(count)]}  # fmt: skip

    def _agreed(self, stop: bool) -> bool:
        """Whether any process was asked to stop: all of them have to at the same step.

        What is read is the answer of one step before. Processes tell each other on the CPU, as the
        GPU has still this step to do.
        """
        if self.processes == 1:
            return stop
        if self._asking is None:
            self._asking = dist.new_group(backend="gloo", timeout=PATIENCE)
        before, flag = self._asked, torch.tensor([float(stop)])
        self._asked = flag, dist.all_reduce(flag, group=self._asking, async_op=True)
        if before is None:
            return False
        before[1].wait()
        return bool(before[0])

    def _check(self, meter: Meter, norm: Tensor, step: int) -> None:
        """Refuse to go on, and above all to save, where the loss or a gradient is no number."""
        if meter.finite() and bool(torch.isfinite(torch.as_tensor(norm))):
            return
        last = checkpoints.latest(self.config.out)
        good = f"the last good checkpoint is '{last}'" if last else "nothing was saved before"
        raise Diverged(
            f"the loss or its gradient is not a number in the steps up to {step}; {good}; lower "
            "the learning rates, or train in float32"
        )

    def _log(self, meter: Meter, norm: Tensor, step: int) -> dict[str, str]:
        loss = float(self.accelerator.reduce(meter.mean(), reduction="mean"))
        rates = {f"lr_{g['name']}": g["lr"] for g in self.optimizer.param_groups}
        memory = {}
        if self.accelerator.device.type == "cuda":
            memory = {"peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9}
        speed = meter.images_per_second()
        self._record(step=step, loss=loss, grad_norm=float(norm), images_per_second=round(speed, 2),
                     skipped_images=len(self.bad), **rates, **memory)  # fmt: skip
        self.bridge.training_summary |= {"steps": step, "skipped_images": len(self.bad)}
        return {"loss": f"{loss:.4f}", "images_s": f"{speed:.1f}"}

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Inside, the bridge has the averaged weights, where there is an average."""
        free = self.config.optimizer == "schedule-free"
        if not self.average and not free:
            yield
            return
        kept = [parameter.detach().clone() for parameter in self.parameters]
        self._take_average()
        try:
            yield
        finally:
            if free:
                self.optimizer.train()  # type: ignore[attr-defined]
            _copy(kept, self.parameters)  # the very same bits, which going back would not give

    def _take_average(self) -> None:
        """Put the averaged weights into the bridge, where there is an average."""
        if self.average:
            self.average.copy_to(self.parameters)
        if self.config.optimizer == "schedule-free":
            self.optimizer.eval()  # type: ignore[attr-defined]

    # ---- seeing

    def _look(self, step: int, *, samples: bool = True, validate: bool = True) -> None:
        """Validation and a sample grid, on the first process."""
        config = self.config
        if not self.main and not config.shard:
            return
        with self._averaged(), uncompiled(self.config.compile):
            if validate and config.validate_every and (found := self.validation.measure()):
                self._record(step=step, **found)
                self.validated = step, found.get("val_loss")
            if samples and config.sample_every:
                prompts = config.sample_prompts or some_captions(self.source, 4)
                side = self.resolution
                try:
                    images = self.bridge.generate(  # under sharding by all processes
                        prompts, steps=config.sample_steps, seed=config.seed, height=side,
                        width=side,
                    )  # fmt: skip
                except NotANumber as error:  # the loss may well be one, and is what matters
                    if self.main:
                        print(f"no sample grid at step {step:,}: {error}", flush=True)
                    return
                if self.main:
                    show_samples(self.accelerator, config, images, prompts, step)

    # ---- before the loop

    def _shown_sizes(self) -> str:
        if self.examples.size_of is None:
            return f"{self.resolution} px"
        used, counts = np.unique(self.examples.size_of, return_counts=True)
        most = sorted(zip(counts.tolist(), used.tolist(), strict=True), reverse=True)
        shown = ", ".join(
            "{}×{}".format(*self.examples.sizes[number]) + f" ({count:,})"
            for count, number in most[:5]
        )
        return shown + (f" and {len(most) - 5} sizes more" if len(most) > 5 else "")

    def _summary(self) -> dict[str, Any]:
        """What the model card says about the training."""
        config = self.config
        names = ("recipe", "data", "warm_start", "batch_size", "accumulate", "dropout", "schedule",
                 "caption_dropout", "lr_adapter", "lr_language", "lr_vision", "min_snr", "ema",
                 "seed")  # fmt: skip
        return {
            **{name: getattr(config, name) for name in names},
            "processes": self.processes,
            "resolution": self.resolution,
            "steps": 0,
            "skipped_images": 0,
        }

    def _warm_start(self) -> None:
        config = self.config
        if not config.warm_start:
            return
        torch.manual_seed(config.seed)
        warm = WarmStart(
            self.bridge,
            self.source.captions(100_000),
            match=config.warm_start_match,
            steps=config.warm_start,
            batch_size=config.warm_start_batch,
            lr=config.lr_warm_start,
            seed=config.seed,
            teacher=config.warm_start_teacher,
            # processes that hold parts of the weights cannot save each at its own time
            folder=None if config.shard else config.out / WARM,
            saves=self.main,
        )
        self._forget("warm_start_step", after=warm.step)
        with (  # other shapes, and too few steps to compile for
            uncompiled(config.compile),
            closing(warm.run()) as steps,
            progress(total=warm.steps, desc="warm start", disable=not self.main) as bar,
        ):
            bar.update(warm.step)
            for done in steps:
                bar.update()
                bar.set_postfix(unmatched=f"{done.loss:.3f}")
                if done.step % config.log_every == 0 or warm.finished or done.held_out is not None:
                    self._record(warm_start_step=done.step, match=done.match, mismatch=done.loss,
                                 held_out=done.held_out)  # fmt: skip
        report = warm.report(
            predictions=config.warm_start_report or config.warm_start_match != "states"
        )
        self.bridge.training_summary["warm_start_report"] = dataclasses.asdict(report)
        if self.main:
            text = json.dumps(dataclasses.asdict(report), indent=2) + "\n"
            write_text(config.out / WARM / "report.json", text)
            print(report, flush=True)

    def _only_good(self, examples: Sequence[Example]) -> list[Example]:
        """Leave unreadable pictures out, and remember them."""
        for example in examples:
            if example.fatal:
                raise BridgeError(str(example.error))
            if example.error and example.key[0] not in self.bad:
                self._found_bad.append((example.key[0], example.error))
        if self.processes == 1:
            self._count_bad()
        return [e for e in examples if e.good]

    def _count_bad(self) -> None:
        """Count and list what any process could not read, and stop if it is much: all alike."""
        found = self._found_bad if self.processes == 1 else gather_object(self._found_bad)
        self._found_bad = []
        fresh = {index: error for index, error in found if index not in self.bad}
        if not fresh:
            return
        self.bad |= fresh
        self._list_bad()
        if len(self.bad) > min(self.config.max_bad * len(self.source), len(self.source) - 1):
            raise BridgeError(
                f"{next(reversed(fresh.values()))} ({len(self.bad)} of {len(self.source)} pictures "
                f"are unreadable so far, more than max_bad = {self.config.max_bad} allows)"
            )

    def _list_bad(self) -> None:
        path = self.config.out / "bad.txt"
        if self.main and (self.bad or path.exists()):
            write_text(path, "".join(f"{error}\n" for error in self.bad.values()))

    # ---- what is left behind

    def _finished(self) -> bool:
        return (self.config.out / "bridge").exists()

    def _write_settings(self) -> None:
        if self.main:
            settings = json.dumps(dataclasses.asdict(self.config), indent=2, default=str)
            write_text(self.config.out / "config.json", settings + "\n")

    def _record(self, **values: Any) -> None:
        if self.main:
            with (self.config.out / "metrics.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(values) + "\n")
            if (step := values.pop("step", None)) is not None:
                self.accelerator.log(values, step=step)

    def _forget(self, key: str, *, after: int) -> None:
        """Drop what metrics.jsonl says of steps that are about to be made again."""
        path = self.config.out / "metrics.jsonl"
        if self.main and path.exists():
            kept = [
                line
                for line in path.read_text(encoding="utf-8").splitlines()
                if (found := _parsed(line)) is not None and found.get(key, after) <= after
            ]
            write_text(path, "".join(line + "\n" for line in kept))

    def _checkpoint(self, step: int, state: Any) -> None:
        """Bridge and state into `step-N`: whole as soon as the state, written last, is there."""
        self._flush_cache()
        folder = checkpoints.place(self.config.out, step)
        with self._averaged():
            self._save(folder)
        averaged = self.average.optimization_step if self.average else 0
        if self.main or self.config.shard:
            state(folder).save(step=step, averaged=averaged, warmup=self.warmup, bad=self.bad)
        if self.main:
            at, loss = self.validated
            if at == step and loss is not None:
                checkpoints.note_best(self.config.out, step, loss)
            checkpoints.prune(self.config.out, self.config.keep)
        self.accelerator.wait_for_everyone()

    def _flush_cache(self, at_least: int = 1) -> None:
        for cache in (self.cache, self.text_cache):
            if cache is not None and cache.waiting() >= at_least:
                cache.flush()

    def _save(self, folder: Path) -> None:
        self.accelerator.wait_for_everyone()
        if self.main or self.config.shard:
            with gathered(self.bridge):
                if self.main:
                    self.bridge.save(folder)


def _copy(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for tensor, fresh in zip(into, values, strict=True):
            tensor.copy_(fresh)


def _due(every: int, step: int, last: bool) -> bool:
    return bool(every) and (step % every == 0 or last)


def _parsed(line: str) -> dict[str, Any] | None:
    """A line of metrics, or None for one that was cut off when the process was killed."""
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return found


def _with_warmup(config: TrainConfig) -> str:
    constant = "constant_with_warmup" if config.warmup else "constant"
    return constant if config.schedule == "constant" else config.schedule
