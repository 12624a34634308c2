"""The training loop: one wrapper module (the bridge itself) under accelerate.

All randomness of a sample (noise, timestep, mirror, dropped caption) derives from the seed, the
epoch and the sample's index, never from a worker's or a process's own state.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.optimization import get_scheduler
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lavi_bridge.bridge import Bridge
from lavi_bridge.config import TrainConfig
from lavi_bridge.data import TSV, BadImage, Folder, to_pixels
from lavi_bridge.data.sources import Source
from lavi_bridge.device import choose_device
from lavi_bridge.errors import BridgeError
from lavi_bridge.files import make_folder, write_text
from lavi_bridge.pictures import grid
from lavi_bridge.progress import progress
from lavi_bridge.seeds import seed_of
from lavi_bridge.warm_start import WarmStart

WARM = "warm-start"
"""Folder in a run for the state and the report of its warm start."""
PROBE = 16
"""Samples whose loss at fixed noise is followed through the run."""


def open_source(data: str, *, seed: int = 0) -> Source:
    """A caption file, a folder, or the shapes world, by what `data` says.

    Raises:
        BridgeError: there is nothing of that name, or it is malformed.
    """
    if data == "shapes":
        from lavi_bridge.zoo.world import ShapesWorld

        return ShapesWorld(seed=seed)
    path = Path(data).expanduser()
    if path.is_dir():
        return Folder(path)
    if path.is_file():
        return TSV(path)
    raise BridgeError(f"no data '{data}': give a caption file (.tsv), a folder, or `shapes`")


@dataclass(frozen=True)
class Example:
    """One training sample; `error` says why there are no pixels."""

    pixels: Tensor | None  # (3, resolution, resolution) in [-1, 1]
    caption: str
    seed: int
    error: str | None = None


class Examples(Dataset[Example]):
    """Samples by (epoch, index)."""

    def __init__(self, source: Source, config: TrainConfig, resolution: int) -> None:
        self.source, self.config, self.resolution = source, config, resolution

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, index = key
        seed = seed_of(self.config.seed, epoch, index)
        draw = torch.rand(2, generator=Generator().manual_seed(seed)).tolist()
        try:
            picture, caption = self.source[index]
        except BadImage as error:
            return Example(None, "", seed, str(error))
        mirror = self.config.flip and draw[0] < 0.5
        caption = "" if draw[1] < self.config.caption_dropout else caption
        return Example(to_pixels(picture, self.resolution, mirror=mirror), caption, seed)


class Shuffled(Sampler[tuple[int, int]]):
    """(epoch, index) without end, each epoch in its own order."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = 0
        while True:
            generator = Generator().manual_seed(seed_of(self.seed, "order", epoch))
            for index in torch.randperm(self.length, generator=generator).tolist():
                yield epoch, index
            epoch += 1


class _Batches(Sampler[list[tuple[int, int]]]):
    def __init__(self, keys: Shuffled, size: int) -> None:
        self.keys, self.batch_size, self.drop_last = keys, size, True

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        keys = iter(self.keys)
        while True:
            yield [next(keys) for _ in range(self.batch_size)]

    def __len__(self) -> int:
        return max(1, self.keys.length // self.batch_size)


class Run:
    """One training run: what it needs, and the loop."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        if held := _held(config.out):
            raise BridgeError(
                f"'{config.out}' already holds {held}, and training on pictures cannot be "
                "continued yet; choose another `out`, or delete it"
            )
        self.source = open_source(config.data, seed=config.seed)
        device = choose_device(config.device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # accelerate takes the current one
        self.accelerator = Accelerator(
            cpu=device.type == "cpu", gradient_accumulation_steps=config.accumulate
        )
        set_seed(config.seed, device_specific=True)  # dropout inside the frozen models
        self.bridge = Bridge.connect(
            config.language,
            config.vision,
            adapter=config.adapter,
            rank=config.rank,
            language_rank=config.language_rank,
            vision_rank=config.vision_rank,
            dropout=config.dropout,
            dtype=config.dtype,
            device=self.accelerator.device,
            seed=config.seed,
        )
        self.resolution = config.resolution or self.bridge.vision.resolution
        self.bridge.vision.latent_shape(self.resolution, self.resolution)  # refuses bad sizes
        self.examples = Examples(self.source, config, self.resolution)
        self.bad: list[str] = []
        self.main = self.accelerator.is_main_process

    def train(self) -> Bridge:
        """Run to the end and save the bridge; Ctrl-C saves what there is and stops."""
        config = self.config
        make_folder(config.out)
        self._write_settings()
        if self.main:
            print(self.summary(), flush=True)
        self.bridge.training_summary = self._summary()
        try:
            self._warm_start()
            if config.warm_start and config.save_every:
                self._save(config.out / "step-0")
            self._loop()
        except KeyboardInterrupt:
            self._save(config.out / "interrupted")
            raise BridgeError(
                f"stopped; the bridge so far is in '{config.out}/interrupted'"
            ) from None
        self._save(config.out / "bridge")
        return self.bridge

    def summary(self) -> str:
        """What is about to be trained, in a few lines."""
        bridge, config = self.bridge, self.config
        captions = self.source.captions(1000)
        cut = bridge.language.tokenize(captions, bridge.tokens).cut
        counts = ", ".join(f"{k} {sum(p.numel() for p in v):,}" for k, v in bridge.parts().items())
        batch = config.batch_size * config.accumulate * self.accelerator.num_processes
        epochs = config.steps * batch / len(self.source)
        lines = [
            f"{config.language} × {config.vision}",
            f"{len(self.source):,} pairs at {self.resolution} px from {config.data}",
            f"trained parameters: {counts}",
            f"{config.steps:,} steps of {batch} images, {epochs:.2f} epochs",
            f"prompts: {bridge.tokens} tokens, {'masked' if bridge.vision.masks else 'no mask'}; "
            f"{cut} of the first {len(captions)} captions are longer and lose their end",
        ]
        return "\n".join(lines)

    # ---- the loop

    def _loop(self) -> None:
        config, accelerator = self.config, self.accelerator
        groups = [
            {"params": part, "lr": getattr(config, f"lr_{name}"), "name": name}
            for name, part in self.bridge.parts().items()
            if part
        ]
        on_gpu = accelerator.device.type == "cuda"
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8,
                                      weight_decay=config.weight_decay, fused=on_gpu)  # fmt: skip
        # the scheduler is stepped by hand, once an optimizer step, whatever the number of processes
        schedule = get_scheduler(
            _with_warmup(config), optimizer,
            num_warmup_steps=min(config.warmup, config.steps // 10),
            num_training_steps=config.steps,
        )  # fmt: skip
        batches = _Batches(Shuffled(len(self.examples), config.seed), config.batch_size)
        loader = DataLoader(self.examples, batch_sampler=batches, num_workers=config.workers,
                            collate_fn=list, pin_memory=False)  # fmt: skip
        bridge, optimizer, loader = accelerator.prepare(self.bridge, optimizer, loader)
        parameters = self.bridge.trainable_parameters()

        self._record(step=0, probe_loss=self.probe())
        self._samples(0)
        step, seen, started, running, norm = 0, 0, time.perf_counter(), None, 0.0
        bridge.train()
        with progress(total=config.steps, desc="training", disable=not self.main) as bar:
            for examples in loader:
                good = self._only_good(examples)
                if not good:
                    continue
                with accelerator.accumulate(bridge):
                    loss = bridge(**_inputs(good))
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        norm = float(accelerator.clip_grad_norm_(parameters, config.clip))
                    optimizer.step()
                    optimizer.zero_grad()
                value = loss.item()
                if value != value:
                    raise BridgeError(
                        f"the loss is not a number at step {step + 1}; lower the rates"
                    )
                running = value if running is None else 0.98 * running + 0.02 * value
                seen += len(good) * accelerator.num_processes
                if not accelerator.sync_gradients:
                    continue
                schedule.step()
                step += 1
                self.bridge.training_summary |= {"steps": step, "skipped_images": len(self.bad)}
                speed = seen / (time.perf_counter() - started)
                bar.update()
                bar.set_postfix(loss=f"{running:.4f}", images_s=f"{speed:.1f}")
                if step % config.log_every == 0 or step == config.steps:
                    rates = {f"lr_{g['name']}": g["lr"] for g in optimizer.param_groups}
                    self._record(step=step, loss=value, loss_mean=running, grad_norm=norm,
                                 images_per_second=round(speed, 2), **rates)  # fmt: skip
                last = step == config.steps
                if config.sample_every and (step % config.sample_every == 0 or last):
                    self._record(step=step, probe_loss=self.probe())
                    self._samples(step)
                if config.save_every and step % config.save_every == 0 and not last:
                    self._save(config.out / f"step-{step}")
                if last:
                    break

    def _summary(self) -> dict[str, Any]:
        """What the model card says about the training."""
        config = self.config
        names = ("recipe", "data", "warm_start", "batch_size", "accumulate", "dropout", "schedule",
                 "caption_dropout", "lr_adapter", "lr_language", "lr_vision", "seed")  # fmt: skip
        return {
            **{name: getattr(config, name) for name in names},
            "processes": self.accelerator.num_processes,
            "resolution": self.resolution,
            "steps": 0,
            "skipped_images": 0,
        }

    def _warm_start(self) -> None:
        config = self.config
        if not config.warm_start:
            return
        warm = WarmStart(
            self.bridge,
            self.source.captions(100_000),
            match=config.warm_start_match,
            steps=config.warm_start,
            batch_size=config.warm_start_batch,
            lr=config.lr_warm_start,
            seed=config.seed,
            teacher=config.warm_start_teacher,
            folder=config.out / WARM,
            saves=self.main,
        )
        self._forget(after=warm.step)
        with progress(total=warm.steps, desc="warm start", disable=not self.main) as bar:
            bar.update(warm.step)
            for done in warm.run():
                bar.update()
                bar.set_postfix(unmatched=f"{done.loss:.3f}")
                if done.step % config.log_every == 0 or warm.finished or done.held_out is not None:
                    self._record(warm_start_step=done.step, match=done.match, mismatch=done.loss,
                                 held_out=done.held_out)  # fmt: skip
        report = warm.report()
        self.bridge.training_summary["warm_start_report"] = dataclasses.asdict(report)
        if self.main:
            text = json.dumps(dataclasses.asdict(report), indent=2) + "\n"
            write_text(config.out / WARM / "report.json", text)
            print(report, flush=True)

    @torch.no_grad()
    def probe(self) -> float | None:
        """The loss of the first samples at noise and timesteps that never change; None of none."""
        examples = [self.examples[0, i] for i in range(min(PROBE, len(self.examples)))]
        good = [example for example in examples if example.pixels is not None]
        if not good:
            return None
        training = self.bridge.training
        self.bridge.eval()
        size = self.config.batch_size
        batches = [good[i : i + size] for i in range(0, len(good), size)]
        total = sum(self.bridge.loss(**_inputs(batch)).item() * len(batch) for batch in batches)
        self.bridge.train(training)
        return total / len(good)

    def _only_good(self, examples: Sequence[Example]) -> list[Example]:
        """Leave unreadable pictures out, but count and list them, and stop if they are many."""
        for error in [e.error for e in examples if e.error and e.error not in self.bad]:
            self.bad.append(error)
            with (self.config.out / "bad.txt").open("a", encoding="utf-8") as lines:
                lines.write(error + "\n")
            allowed = min(self.config.max_bad * len(self.source), len(self.source) - 1)
            if len(self.bad) > allowed:
                raise BridgeError(
                    f"{error} ({len(self.bad)} of {len(self.source)} pictures are unreadable so "
                    f"far, more than max_bad = {self.config.max_bad} allows)"
                )
        return [e for e in examples if e.pixels is not None]

    # ---- what is left behind

    def _write_settings(self) -> None:
        if self.main:
            settings = json.dumps(dataclasses.asdict(self.config), indent=2, default=str)
            (self.config.out / "config.json").write_text(settings + "\n", encoding="utf-8")

    def _record(self, **values: Any) -> None:
        if self.main:
            with (self.config.out / "metrics.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(values) + "\n")

    def _forget(self, *, after: int) -> None:
        """Drop what metrics.jsonl says of warm-start steps that are about to be made again."""
        path = self.config.out / "metrics.jsonl"
        if self.main and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [x for x in lines if json.loads(x).get("warm_start_step", after + 1) <= after]
            write_text(path, "".join(line + "\n" for line in kept))

    def _samples(self, step: int) -> None:
        if not self.config.sample_every or not self.main:
            return
        prompts = self.config.sample_prompts or self.source.captions(4)
        images = self.bridge.generate(
            prompts,
            steps=self.config.sample_steps,
            seed=self.config.seed,
            height=self.resolution,
            width=self.resolution,
        )
        folder = self.config.out / "samples"
        folder.mkdir(exist_ok=True)
        rows = [[image] for image in images]
        grid(rows, columns=[f"step {step}"], labels=prompts, tile=160).save(
            folder / f"{step:06d}.png"
        )

    def _save(self, folder: Path) -> None:
        self.accelerator.wait_for_everyone()
        if self.main:
            self.bridge.save(folder)


def _held(out: Path) -> str | None:
    """What a run's folder holds that must not be overwritten; a warm start can be continued."""
    metrics = out / "metrics.jsonl"
    if (out / "bridge").exists():
        return "a finished bridge"
    if not metrics.exists():
        return None
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    on_pictures = any(line.get("step", 0) > 0 for line in lines)
    resumable = (out / WARM / "state.safetensors").exists() and not on_pictures
    return None if resumable else "an unfinished run"


def _inputs(examples: Sequence[Example]) -> dict[str, Any]:
    return {
        "pixels": torch.stack([e.pixels for e in examples if e.pixels is not None]),
        "captions": [e.caption for e in examples],
        "generator": [Generator().manual_seed(e.seed) for e in examples],
    }


def _with_warmup(config: TrainConfig) -> str:
    constant = "constant_with_warmup" if config.warmup else "constant"
    return constant if config.schedule == "constant" else config.schedule
