"""A start without images: teach the bridge to say what the vision model's own text encoder says.

The vision model already understands the text encoder that it was trained with, the teacher here.
On captions alone, adapter and language LoRA learn to stand in for it (the idea of GlueGen, arXiv
2303.10056, and X2I), in one of two ways or one after the other:

- *states*: give the same hidden state for the same word, the words being found by their characters;
- *predictions*: make the vision model predict the same noise, on pictures that it draws itself.

It copies the teacher, weaknesses included; only training on pictures goes beyond it.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lavi_bridge import lora
from lavi_bridge.bridge import Bridge, own_encoder
from lavi_bridge.config import Match
from lavi_bridge.errors import BridgeError, Diverged, NotANumber
from lavi_bridge.files import make_folder
from lavi_bridge.languages import Language, load_language
from lavi_bridge.locate import locate
from lavi_bridge.matching import CHUNK, Groups, Matched, Matcher, tokens_read
from lavi_bridge.muon import Muon
from lavi_bridge.pictures import check_numbers
from lavi_bridge.progress import progress
from lavi_bridge.resume import RunState, stopping
from lavi_bridge.seeds import seed_of, seeded
from lavi_bridge.text import Text
from lavi_bridge.visions.process import gaussian

HELD_OUT = 128
"""Captions that are kept aside for the stopping rule and the report (at most a tenth of all)."""
NULL_SHARE = 16
"""One caption in so many is the empty one: guidance needs its features, too."""
GROUPS = 4
"""Groups of captions in a step: which come together is drawn anew in every pass."""
PASSES = 4
"""Each caption is matched once and read so many times."""
KEPT = 512 * 2**20
"""Bytes of the teacher's states that are kept for these passes, or one chunk of groups; with more,
captions come in windows of as many as fit."""
FALL = 0.4
"""The last part of the steps, over which the rate falls to zero."""
CHECKS = 20
"""How often the captions kept aside are looked at in the course of all steps."""
PATIENCE = 4
"""So many checks without a gain of GAIN end the phase of the full rate."""
GAIN = 0.02
STATES_SHARE = 0.75
"""Of the steps, where both kinds of match follow one another."""
BANK = 128
"""Pictures (as latents) that the teacher draws for the match of predictions."""
BANK_STEPS = 10
BANK_GUIDANCE = 4.0
PREDICTIONS_BATCH = 32
"""A step through the vision model takes at most so many captions."""
PREDICTIONS_RATE = 0.2
"""Their gradient goes through the whole vision model and is noisy: a share of the rate for them."""

TOPICS = {
    "colour": "red orange yellow green blue purple violet pink brown black white gray grey cyan "
    "magenta golden silver",
    "texture": "striped dotted solid wooden metal metallic glass leather plastic rubber fabric "
    "fluffy smooth rough shiny furry stone",
    "position": "left right above below under beneath over top bottom behind front next beside "
    "near between inside",
    "number": "one two three four five six seven eight nine ten",
    "size": "large big huge small little tiny tall short long",
}
"""Words by which the report sorts captions; one caption can be of several topics, or of none."""


@dataclass(frozen=True)
class Progress:
    """One step of a warm start."""

    step: int
    match: Match
    loss: float
    """0 is a perfect match; 1 is a constant guess (states) or the empty prompt (predictions)."""
    held_out: float | None = None
    """The same on the captions kept aside, at the steps that look at them."""


@dataclass
class Report:
    """What a warm start reached, measured on captions that it never trained on."""

    match: Match
    steps: int
    stopped_early: bool
    seconds: float
    states: dict[str, float] = field(default_factory=dict)
    """By topic: squared difference of the states over their variance; {} where impossible."""
    predictions: dict[str, float] = field(default_factory=dict)
    """By topic: squared difference of the vision model's predictions, over how far the empty prompt
    is from the teacher's: 0 as the teacher, 1 as if it had read nothing."""
    captions: dict[str, int] = field(default_factory=dict)
    """By topic: how many captions the states are of; the predictions are of 64 of them at most."""

    def __str__(self) -> str:
        lines = [
            f"warm start ({self.match}): {self.steps} steps in {self.seconds:.0f} s"
            f"{', stopped early: no more gain' if self.stopped_early else ''}",
            f"{'unmatched part, by topic':26}{'captions':>9}{'states':>8}{'predictions':>13}",
        ]
        for topic, count in self.captions.items():
            states = f"{self.states[topic]:.3f}" if topic in self.states else "–"
            predictions = f"{self.predictions[topic]:.3f}" if topic in self.predictions else "–"
            lines.append(f"  {topic:24}{count:>9}{states:>8}{predictions:>13}")
        return "\n".join([*lines, "  0 is the own text encoder; the bridge shares its weaknesses"])


class WarmStart:
    """One warm start: what it needs, its steps, its state on disk, its report.

    Everything drawn in a step derives from the seed and the step's number, so one that was stopped
    and goes on from its folder ends with the very same weights.
    """

    def __init__(
        self,
        bridge: Bridge,
        captions: Sequence[str],
        *,
        match: Match = "states",
        steps: int = 800,
        batch_size: int = 32,
        lr: float = 3e-3,
        seed: int = 0,
        teacher: str | Path | None = None,
        folder: Path | None = None,
        saves: bool = True,
    ) -> None:
        """See `Bridge.warm_start`; of several processes that do the same, only one `saves`."""
        if match not in get_args(Match):
            raise BridgeError(f"unknown match '{match}'; known: {', '.join(get_args(Match))}")
        if steps < 1 or batch_size < 1:
            raise BridgeError("a warm start needs at least one step of one caption")
        told = sorted({caption for caption in captions if caption.strip()})
        if not told:
            raise BridgeError(f"a warm start needs captions; none of {len(captions)} has any text")
        random.Random(seed).shuffle(told)
        aside = min(HELD_OUT, max(1, len(told) // 10)) if len(told) > 1 else 0
        self.aside, self.captions = told[:aside] or told, told[aside:] or told
        self.bridge, self.match, self.steps, self.seed = bridge, match, steps, seed
        self.batch_size, self.lr = batch_size, lr
        self.teacher = _teacher(bridge, teacher)
        reason = states_impossible(bridge, self.teacher, self.aside)
        if reason and match != "predictions":
            raise BridgeError(f"states cannot be matched: {reason}; match predictions instead")
        self.comparable = not reason
        parts = bridge.parts()
        self.parameters = parts["adapter"] + parts["language"]
        self.optimizer = Muon(self.parameters, lr)
        self.step, self.seconds, self.fall = 0, 0.0, round((1 - FALL) * steps)
        self.turn = round(STATES_SHARE * steps) if match == "both" else 0
        """The first step of predictions, where they follow the states."""
        self.checks: list[float] = []
        self.stopped_early = False
        self._matcher = Matcher(bridge, self.teacher)
        self._groups = Groups(self._matcher, self.captions, -(-self._told // GROUPS))
        self._banks: dict[int, Bank] = {}
        self.saves = saves
        self.state = self._on_disk(folder) if folder else None

    # ---- running

    def run(self, *, save_seconds: float = 60.0) -> Generator[Progress]:
        """Make the steps that are left; yield each.

        Raises:
            BridgeError: stopped by Ctrl-C or SIGTERM (the state is saved, if there is a folder), or
                the loss is not a number.
        """
        bridge, was_training = self.bridge, self.bridge.training
        begun = saved = time.perf_counter()
        before = self.seconds
        bridge.train()
        model = bridge.language.model
        with stopping() as asked_to_stop, lora.folded(model), bridge.language.whole_gelu():
            while not self.finished:
                if self.turn and self.step == self.turn:
                    # the moments of the other loss would make far too large steps of this one's
                    self.optimizer.state.clear()
                for group in self.optimizer.param_groups:
                    group["lr"] = self.lr * self.rate()
                with torch.random.fork_rng(devices=_cuda(bridge)):
                    torch.manual_seed(seed_of(self.seed, "dropout", self.step))
                    loss = self.loss()
                value = loss.item()
                self.optimizer.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
                if not math.isfinite(value) or not math.isfinite(norm):  # before it is saved
                    raise Diverged(
                        "the warm start's loss or its gradient is not a number at step "
                        f"{self.step + 1}; lower its rate"
                    )
                self.optimizer.step()
                phase = self.phase
                self.step += 1
                checked = self._check(phase)
                now = time.perf_counter()
                self.seconds = before + now - begun
                if asked_to_stop() or now - saved > save_seconds or self.finished:
                    saved = now
                    self.save()
                if asked_to_stop():
                    bridge.train(was_training)
                    where = f"; it goes on from '{self.state.path.parent}'" if self.state else ""
                    raise BridgeError(f"warm start stopped at step {self.step}{where}")
                yield Progress(self.step, phase, value, checked)
        bridge.train(was_training)

    @property
    def finished(self) -> bool:
        """Whether all steps are made, or the stopping rule has ended it."""
        return self.step >= self.end

    @property
    def end(self) -> int:
        """The last step: the rate falls over FALL of all steps, wherever it begins to."""
        return min(self.steps, round(self.fall / (1 - FALL))) if self.stopped_early else self.steps

    @property
    def phase(self) -> Match:
        """What the coming step matches."""
        if self.match == "both":
            return "states" if self.step < self.turn else "predictions"
        return self.match

    def rate(self) -> float:
        """The coming step's learning rate over the given one: a rise, a plain, a fall.

        Where predictions follow states, each has all three.
        """
        begin, end, fall = 0, self.end, self.fall
        if self.turn:
            begin, end = (0, self.turn) if self.step < self.turn else (self.turn, self.end)
            fall = begin + round((1 - FALL) * (end - begin))
        rise = (self.step - begin + 1) / max(1, (end - begin) // 20)
        share = PREDICTIONS_RATE if self.phase == "predictions" else 1.0
        return share * min(1.0, rise, (end - self.step) / max(1, end - fall))

    def loss(self) -> Tensor:
        """The loss of the coming step."""
        if self.phase == "predictions":
            size = min(self.batch_size, PREDICTIONS_BATCH)
            return self._predictions(self._bank(self.step), size, seed_of(self.seed, self.step))
        # read once and counted as often as it would have been drawn
        null = 1 - self._told / max(self.batch_size, self._told + 1)
        errors = self._states(Matched.cat([self._null, *self._batch(self.step)]))
        return null * errors[0] + (1 - null) * errors[1:].mean()

    @property
    def _told(self) -> int:
        """Captions with text in a step."""
        return max(1, self.batch_size - -(-self.batch_size // NULL_SHARE))

    def _batch(self, step: int) -> list[Matched]:
        """The groups of a step."""
        found = []
        for position in range(step * self._count, (step + 1) * self._count):
            window, rest = divmod(position, self._window * PASSES)
            visit, place = divmod(rest, self._window)
            if rest == 0 and self._window < len(self._groups):
                self._groups.forget()
            order = _order(self.seed, window, visit, self._window)
            found.append(self._groups[(window * self._window + order[place]) % len(self._groups)])
        return found

    @property
    def _count(self) -> int:
        """Groups of a step."""
        return max(1, min(len(self._groups), round(self._told / self._groups.size)))

    @cached_property
    def _window(self) -> int:
        """Groups that are passed over several times before others come."""
        fit = KEPT // (self._held_out.nbytes // len(self._held_out) * self._groups.size)
        fit = max(CHUNK, fit - fit % CHUNK)  # they are matched and kept by the chunk
        wanted = -(-(self.turn or self.steps) * self._count // PASSES)
        return max(1, min(len(self._groups), wanted, fit))

    def _check(self, phase: Match) -> float | None:
        """Look at the captions kept aside; begin the fall early where nothing is gained."""
        every = max(1, self.steps // CHECKS)
        if self.step % every and not self.finished:
            return None
        value = self.held_out(phase)
        if self.match == "both":  # its two phases have measures of their own; both run in full
            return value
        self.checks.append(value)
        best = min(self.checks[:-PATIENCE], default=float("inf"))
        if self.step < self.fall and min(self.checks[-PATIENCE:]) > (1 - GAIN) * best:
            self.fall, self.stopped_early = self.step, True
        return value

    # ---- what is matched

    @torch.no_grad()
    def held_out(self, phase: Match) -> float:
        """The unmatched part on the captions kept aside, for one kind of match."""
        training = self.bridge.training
        self.bridge.eval()
        if phase == "predictions":
            value = self._predictions(self._bank(None), BANK, seed=0).item()
        else:
            value = self._states(self._held_out).mean().item()
        self.bridge.train(training)
        return value

    def _states(self, matched: Matched) -> Tensor:
        """Squared difference to the teacher's states over their variance, by caption."""
        mask = matched.mask if self.bridge.vision.masks else None
        features = Text(self.bridge.language.hidden(matched.ids, mask), mask)
        given = self.bridge.adapt(features).hidden.float()
        errors = (given - matched.states.float()).square().mean(-1)
        return (errors * matched.weights).sum(1) / self._variance

    @cached_property
    def _null(self) -> Matched:
        """The empty caption."""
        return self._matcher([""])

    @cached_property
    def _held_out(self) -> Matched:
        """The captions kept aside."""
        return self._matcher(self.aside)

    @cached_property
    def _variance(self) -> Tensor:
        """Variance of the states that are to be matched, over the captions kept aside."""
        return self._held_out.states[self._held_out.weights > 0].float().var()

    def _predictions(self, bank: Bank, size: int, seed: int) -> Tensor:
        """Squared difference to the vision model's prediction under the teacher, over the gap.

        The gap is how far the prediction under the empty prompt is from it: 1 is "read nothing".
        """
        vision, generator = self.bridge.vision, seeded(seed)
        picked = torch.randperm(len(bank.captions), generator=generator)[:size]
        captions = [bank.captions[i] for i in picked.tolist()]
        x_t, timesteps, _ = vision.noise(bank.latents[picked], generator=generator)
        starts = -(-len(captions) // 8)  # some from pure noise, as sampling begins
        x_t[:starts] = gaussian(x_t[:starts], generator)
        timesteps[:starts] = bank.first.to(timesteps)
        nulls = -(-len(captions) // NULL_SHARE)
        captions[-nulls:] = [""] * nulls
        with torch.no_grad(), lora.disabled(vision.backbone):
            wanted = vision.predict(x_t, timesteps, self._taught(captions))
        given = vision.predict(x_t, timesteps, self.bridge.encode(captions))
        return nn.functional.mse_loss(given, wanted) / bank.gap

    @torch.no_grad()
    def _taught(self, captions: Sequence[str]) -> Text:
        """What the vision model's own encoder makes of captions."""
        tokens = self.teacher.tokenize(captions, tokens_read(self.teacher, self.bridge))
        mask = tokens.mask if self.bridge.vision.masks else None
        return Text(self.teacher.hidden(tokens.ids, mask).float(), mask)

    def _bank(self, step: int | None) -> Bank:
        """The pictures of a stretch of steps, or (None) those of the captions kept aside."""
        number = -1 if step is None else step // 500  # new ones now and then
        if number not in self._banks:
            kept = {k: v for k, v in self._banks.items() if k == -1 or number == -1}
            captions = self.aside[: BANK // 2]
            if step is not None:
                rng = random.Random(seed_of(self.seed, "bank", number))
                captions = [rng.choice(self.captions) for _ in range(BANK)]
            self._banks = kept | {number: self._draw(captions, seed_of(self.seed, number))}
        return self._banks[number]

    @torch.no_grad()
    def _draw(self, captions: Sequence[str], seed: int) -> Bank:
        """Let the vision model draw captions as its own encoder reads them."""
        bridge, vision = self.bridge, self.bridge.vision
        shape = vision.latent_shape(vision.resolution, vision.resolution)
        drawn, gaps = [], []
        training = bridge.training
        bridge.eval()
        with lora.disabled(vision.backbone):
            for start in range(0, len(captions), PREDICTIONS_BATCH):
                batch = captions[start : start + PREDICTIONS_BATCH]
                text, null = self._taught(batch), self._taught([""])
                noise = torch.empty(len(batch), *shape, device=vision.device)
                scheduler = vision.process.scheduler(vision.default_scheduler)
                for step in bridge.sample(
                    text, null, latents=gaussian(noise, seeded(seed, start)), scheduler=scheduler,
                    steps=BANK_STEPS, guidance=BANK_GUIDANCE,
                ):  # fmt: skip
                    latents = step.latents
                check_numbers(latents, batch, hint=bridge.overflow_hint())
                drawn.append(latents)
                x_t, timesteps, _ = vision.noise(latents, generator=seeded(seed, start, "gap"))
                told = vision.predict(x_t, timesteps, text)
                untold = vision.predict(x_t, timesteps, null.expand(len(batch)))
                gaps.append((told - untold).square().mean())
        bridge.train(training)
        return Bank(captions, torch.cat(drawn), torch.stack(gaps).mean(), scheduler.timesteps[0])

    # ---- what is left behind

    @torch.no_grad()
    def report(self, *, predictions: bool = True) -> Report:
        """Measure what was reached on the captions kept aside, by topic.

        Args:
            predictions: of the vision model, too, which draws pictures for it.
        """
        report = Report(self.match, self.step, self.stopped_early, round(self.seconds, 1))
        topics = by_topic(self.aside)
        report.captions = {topic: len(indices) for topic, indices in topics.items()}
        training = self.bridge.training
        self.bridge.eval()
        if self.comparable:
            errors = self._states(self._held_out)
            report.states = {k: round(errors[i].mean().item(), 4) for k, i in topics.items()}
        ratios = torch.zeros(0, 2)
        if predictions:
            try:
                ratios = self._gaps()
            except NotANumber as error:  # a report is no reason to lose what it reports on
                warnings.warn(f"predictions are not in the report: {error}", stacklevel=2)
        for topic, indices in topics.items():
            if drawn := [i for i in indices if i < len(ratios)]:
                report.predictions[topic] = round(_ratio(ratios, drawn), 4)
        self.bridge.train(training)
        return report

    def _gaps(self) -> Tensor:
        """Squared differences to the teacher's prediction, by caption kept aside (captions, 2).

        First the bridge's, then the empty prompt's, summed over four noise levels.
        """
        bridge, vision, bank = self.bridge, self.bridge.vision, self._bank(None)
        total = torch.zeros(len(bank.captions), 2)
        for start in range(0, len(bank.captions), PREDICTIONS_BATCH):
            batch = bank.captions[start : start + PREDICTIONS_BATCH]
            latents = bank.latents[start : start + PREDICTIONS_BATCH]
            told, null = self._taught(batch), self._taught([""]).expand(len(batch))
            given = bridge.encode(batch)
            for level in range(4):
                x_t, timesteps, _ = vision.noise(latents, generator=seeded("report", start, level))
                with lora.disabled(vision.backbone):
                    wanted = vision.predict(x_t, timesteps, told)
                    untold = vision.predict(x_t, timesteps, null)
                answer = vision.predict(x_t, timesteps, given)
                both = [(x - wanted).square().flatten(1).mean(1).cpu() for x in (answer, untold)]
                total[start : start + len(batch)] += torch.stack(both, 1)
        return total

    def save(self) -> None:
        """Write the state into the folder, if there is one."""
        if self.state is None:
            return
        self.state.save(step=self.step, seconds=self.seconds, fall=self.fall, checks=self.checks,
                        stopped_early=self.stopped_early)  # fmt: skip

    def _on_disk(self, folder: Path) -> RunState:
        """Hold on to the state in `folder`, and go on from it where there is one."""
        make_folder(folder)
        settings = {
            "order of captions (version)": 2, "optimizer": "muon",
            "match": self.match, "steps": self.steps, "batch_size": self.batch_size, "lr": self.lr,
            "seed": self.seed, "language": self.bridge.language.fingerprint,
            "vision": self.bridge.vision.fingerprint, "teacher": self.teacher.fingerprint,
            "captions": hashlib.sha256("\n".join(self.captions).encode()).hexdigest()[:16],
        }  # fmt: skip
        names = {id(p): n for n, p in self.bridge.named_parameters()}
        tensors = {names[id(p)]: p for p in self.parameters}
        state = RunState(folder / "state.safetensors", about=settings, tensors=tensors,
                         optimizer=self.optimizer, writes=self.saves)  # fmt: skip
        for name, value in state.load().items():
            setattr(self, name, value)
        return state


@dataclass(frozen=True)
class Bank:
    """Pictures that the teacher drew, as latents, with what it was told."""

    captions: Sequence[str]
    latents: Tensor  # (captions, channels, height, width)
    gap: Tensor  # mean squared difference between predictions with and without the captions
    first: Tensor  # the timestep that sampling begins at


def run_warm_start(bridge: Bridge, captions: Sequence[str], *, show: bool = True,
                   **options: Any) -> Report:  # fmt: skip
    """Run a `WarmStart` to its end and report; the body of `Bridge.warm_start`."""
    warm = WarmStart(bridge, captions, **options)
    with (
        closing(warm.run()) as steps,
        progress(total=warm.steps, desc="warm start", disable=not show) as bar,
    ):
        bar.update(warm.step)
        for step in steps:
            bar.update()
            bar.set_postfix(unmatched=f"{step.loss:.3f}")
    report = warm.report()
    bridge.training_summary["warm_start_report"] = asdict(report)
    return report


def by_topic(captions: Sequence[str]) -> dict[str, list[int]]:
    """Indices of captions by what they speak of; `all` first, topics that no caption has left out.

    `three things` have at least three articles.
    """
    found: dict[str, list[int]] = {"all": list(range(len(captions)))}
    split = [caption.lower().replace(",", " ").replace(".", " ").split() for caption in captions]
    for topic, words in TOPICS.items():
        found[topic] = [
            i for i, caption in enumerate(split) if not set(words.split()).isdisjoint(caption)
        ]
    found["three things"] = [
        i for i, caption in enumerate(split) if sum(w in ("a", "an", "the") for w in caption) >= 3
    ]
    return {topic: indices for topic, indices in found.items() if indices}


def states_impossible(bridge: Bridge, teacher: Language, captions: Sequence[str]) -> str | None:
    """Why the teacher's states cannot be matched one by one; None where they can."""
    theirs = tokens_read(teacher, bridge)
    if bridge.tokens != theirs and not bridge.vision.masks:
        return (
            f"the vision model reads {theirs} tokens of its own encoder, padding included, but "
            f"'{bridge.language.place.id}' gives {bridge.tokens}"
        )
    for language in (bridge.language, teacher):
        if not language.tokenizer.is_fast:
            return f"the tokenizer of '{language.place.id}' gives no character offsets"
    with torch.no_grad():
        length = bridge.encode(list(captions[:1])).hidden.shape[1]
    if length != bridge.tokens:
        return f"the '{bridge.adapter.kind}' adapter does not keep one feature a token"
    return None


def _teacher(bridge: Bridge, source: str | Path | None) -> Language:
    """The text encoder to copy: the vision model's own, or another that it understands."""
    vision, dtype = bridge.vision, bridge.language.dtype
    if source is not None:
        teacher = load_language(locate(source), dtype=dtype)
    elif (vision.place / vision.own_text_folder).file("config.json") is None:
        raise BridgeError(
            f"'{vision.place.id}' has no text encoder of its own, so there are no states to match; "
            "name the encoder that it was trained with (--warm-start-teacher: a Hub id or a "
            "folder), and where its states do not fit, match predictions"
        )
    else:
        teacher = own_encoder(vision, dtype=dtype)
    if teacher.width != vision.text_width:
        raise BridgeError(
            f"'{vision.place.id}' reads text of width {vision.text_width}; "
            f"'{teacher.place.id}' gives {teacher.width}"
        )
    return teacher.to(vision.device).eval()


def _ratio(pairs: Tensor, indices: Sequence[int]) -> float:
    given, untold = pairs[indices].sum(0).tolist()
    return given / untold


@lru_cache(maxsize=2)
def _order(seed: int, window: int, visit: int, count: int) -> list[int]:
    """The order of groups in a pass; at first as they are, chunk by chunk."""
    order = list(range(count))
    if visit:
        random.Random(seed_of(seed, "groups", window, visit)).shuffle(order)
    return order


def _cuda(bridge: Bridge) -> list[torch.device]:
    device = bridge.vision.device
    return [device] if device.type == "cuda" else []
