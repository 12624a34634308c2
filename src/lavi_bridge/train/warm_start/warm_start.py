"""A start without images: teach the bridge to say what the vision model's own text encoder says.

The vision model already understands the text encoder that it was trained with, the teacher here.
On captions alone, adapter and language LoRA learn to stand in for it (the idea of GlueGen, arXiv
2303.10056, and X2I), in one of two ways or one after the other:

- *states*: give the same hidden state for the same word, the words being found by their characters;
- *predictions*: make the vision model predict the same noise, on pictures that it draws itself.

With pairs the bridge reads one text and the teacher another that means the same, so it may be free
language, another tongue or a long text, which the teacher could not read. Where nothing says which
of their words correspond, *sets* of states are matched, whatever their order.

It copies the teacher, weaknesses included; only training on pictures goes beyond it.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from lavi_bridge.bridge import lora
from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.config import Match, Solve
from lavi_bridge.errors import BridgeError, NotANumber
from lavi_bridge.files.atomic import make_folder
from lavi_bridge.languages.asked import record
from lavi_bridge.languages.calm import whole_gelu, without_dropout
from lavi_bridge.running.device import to_device
from lavi_bridge.running.engine import Task, train
from lavi_bridge.running.run_state import RunState
from lavi_bridge.running.seeds import seed_of
from lavi_bridge.train.warm_start.closed import check_solvable, solve_last, weighed
from lavi_bridge.train.warm_start.matching import (
    CHUNK,
    NULL_SHARE,
    Groups,
    Matched,
    Matcher,
    order_of,
    unlike,
)
from lavi_bridge.train.warm_start.muon import Muon
from lavi_bridge.train.warm_start.pairs import Pair, check_pairs, digest, mixed, readable
from lavi_bridge.train.warm_start.predictions import Predictions
from lavi_bridge.train.warm_start.report import Progress, Report, Solved, by_topic, unmatched
from lavi_bridge.train.warm_start.teacher import check_match, find_teacher, states_impossible

HELD_OUT = 128
"""Captions that are held out for the stopping rule and the report (at most a tenth of all)."""
GROUPS = 4
"""Groups of captions in a step: which come together is drawn anew in every pass."""
PASSES = 4
"""Each caption is matched once and read so many times; pairs once, unless what lies below the
layers that train is kept: they are for large models, beside which matching costs little, and each
new one counts."""
KEPT = 512 * 2**20
"""Bytes of the teacher's states that are kept for these passes, or one chunk of groups; with more,
captions come in windows of as many as fit."""
ALL_KEPT = 2**30
"""Bytes up to which all that is matched is kept to the end."""
DECAY = 0.4
"""The last part of the steps, over which the rate decays to zero."""
CHECKS = 20
"""How often held-out captions are looked at in the course of all steps."""
PATIENCE = 4
"""So many checks without a gain of GAIN end the phase of the full rate."""
GAIN = 0.02
STATES_SHARE = 0.75
"""The share of the steps that states have, where both kinds of match follow one another."""
PREDICTIONS_RATE = 0.2
"""Their gradient goes through the whole vision model and is noisy: a share of the rate for them."""


class WarmStart(Task):
    """One warm start: what it needs, its steps, its state on disk, its report.

    Everything drawn in a step derives from the seed and the step's number, so one that was stopped
    and goes on from its folder ends with the very same weights.
    """

    name = "warm start"
    solved: Solved | None = None
    """What was solved before the first step."""

    def __init__(
        self,
        bridge: Bridge,
        captions: Sequence[str],
        *,
        match: Match = "states",
        solve: Solve = "none",
        steps: int = 800,
        batch_size: int = 32,
        lr: float = 3e-3,
        seed: int = 0,
        pairs: Sequence[Pair] = (),
        teacher: str | Path | None = None,
        folder: Path | None = None,
        saves: bool = True,
    ) -> None:
        """See `warm_start`; of several processes that do the same, only one `saves`."""
        if match not in get_args(Match):
            raise BridgeError(f"unknown match '{match}'; known: {', '.join(get_args(Match))}")
        if steps < (1 if solve == "none" else 0) or batch_size < 1:
            raise BridgeError("a warm start needs at least one step of one caption")
        self.teacher = find_teacher(bridge, teacher)
        unique = mixed(readable(captions, bridge, self.teacher), pairs, seed)
        if not unique:
            raise BridgeError(f"a warm start needs captions; none of {len(captions)} has any text")
        held_out = min(HELD_OUT, max(1, len(unique) // 10)) if len(unique) > 1 else 0
        self.held_out_pairs, self.pairs = unique[:held_out] or unique, unique[held_out:] or unique
        self.bridge, self.match, self.steps, self.seed = bridge, match, steps, seed
        self.batch_size, self.lr = batch_size, lr
        check_pairs(bridge, self.teacher, pairs, match)
        check_solvable(solve, bridge.adapter, states_impossible(bridge, self.teacher))
        self.comparable = check_match(bridge, self.teacher, match, pairs)
        self.solve = solve
        parts = bridge.parts()
        self.parameters = parts["adapter"] + parts["language"]
        self.optimizer = Muon(self.parameters, lr)
        self.decay_start = round((1 - DECAY) * steps)
        self.switch = round(STATES_SHARE * steps) if match == "both" else 0
        """The first step of predictions, where they follow the states."""
        self.checks: list[float] = []
        self.stopped_early = False
        self._matcher = Matcher(bridge, self.teacher)
        self._passes = 1 if pairs and self._matcher.upper is None else PASSES
        self._groups = Groups(self._matcher, self.pairs, -(-self._with_text // GROUPS))
        self._predictions = Predictions(bridge, self.teacher, self.pairs, self.held_out_pairs, seed)
        self.saves = saves
        self._checked: float | None = None
        if folder:
            self._keep(folder)

    # ---- running

    def run(self, *, save_seconds: float = 60.0) -> Generator[Progress]:
        """Make the steps that are left; yield each.

        Raises:
            BridgeError: stopped by Ctrl-C or SIGTERM (the state is saved, if there is a folder), or
                the loss is not a number.
        """
        bridge, was_training = self.bridge, self.bridge.training
        bridge.train()
        try:
            with (
                lora.folded(bridge.language.model),
                whole_gelu(bridge.language.model),
                without_dropout(bridge.language.model),  # what is copied has none
                closing(train(self, save_seconds=save_seconds)) as losses,
            ):
                self._begin()
                for loss in losses:
                    yield Progress(self.step, self.phase(self.step - 1), loss, self._checked)
        finally:
            bridge.train(was_training)

    def _begin(self) -> None:
        """Solve the adapter's last layer where that is asked for, once."""
        if self.solve != "none" and self.solved is None:
            given = weighed(self._null, self._null_share, self._groups, keep=self._all_fit)
            self.solved = solve_last(self.solve, self.bridge, self._matcher, given, self._held_out)
            self.save()

    @property
    def end(self) -> int:
        """The last step: the rate decays over DECAY of all steps, wherever it begins to."""
        return (
            min(self.steps, round(self.decay_start / (1 - DECAY)))
            if self.stopped_early
            else self.steps
        )

    def phase(self, step: int) -> Match:
        """What a step matches, counted from 0."""
        if self.match == "both":
            return "states" if step < self.switch else "predictions"
        return self.match

    def before_step(self) -> None:
        if self.switch and self.step == self.switch:
            # the moments of the other loss would make far too large steps of this one's
            self.optimizer.state.clear()

    def after_step(self, loss: float) -> None:
        self._checked = self._check(self.phase(self.step - 1))

    def rate(self) -> float:
        """The coming step's learning rate over the given one: a rise, a plain, a decay.

        Where predictions follow states, each has all three.
        """
        begin, end, decay = 0, self.end, self.decay_start
        if self.switch:
            begin, end = (0, self.switch) if self.step < self.switch else (self.switch, self.end)
            decay = begin + round((1 - DECAY) * (end - begin))
        rise = (self.step - begin + 1) / max(1, (end - begin) // 20)
        share = PREDICTIONS_RATE if self.phase(self.step) == "predictions" else 1.0
        return share * min(1.0, rise, (end - self.step) / max(1, end - decay))

    def loss(self) -> Tensor:
        """The loss of the coming step."""
        with torch.random.fork_rng(devices=_cuda(self.bridge)):
            torch.manual_seed(seed_of(self.seed, "dropout", self.step))
            if self.phase(self.step) == "predictions":
                return self._predictions.loss(self.step, self.batch_size)
            null = self._null_share
            errors = self._states(Matched.cat([self._null, *self._batch(self.step)]))
            return null * errors[0] + (1 - null) * errors[1:].mean()

    @property
    def _with_text(self) -> int:
        """Captions with text in a step."""
        return max(1, self.batch_size - -(-self.batch_size // NULL_SHARE))

    @property
    def _null_share(self) -> float:
        """Of the empty caption: read once and counted as often as it would have been drawn."""
        return 1 - self._with_text / max(self.batch_size, self._with_text + 1)

    def _batch(self, step: int) -> list[Matched]:
        """The groups of a step."""
        found = []
        for position in range(step * self._count, (step + 1) * self._count):
            window, rest = divmod(position, self._window * self._passes)
            visit, place = divmod(rest, self._window)
            if rest == 0 and self._window < len(self._groups) and not self._all_fit:
                self._groups.forget()
            order = order_of(self.seed, window, visit, self._window)
            found.append(self._groups[(window * self._window + order[place]) % len(self._groups)])
        return found

    @cached_property
    def _all_fit(self) -> bool:
        """Whether all that is matched can be kept, so that none of it is matched twice."""
        return self._held_out.nbytes // len(self._held_out) * len(self.pairs) <= ALL_KEPT

    @property
    def _count(self) -> int:
        """Groups of a step."""
        return max(1, min(len(self._groups), round(self._with_text / self._groups.size)))

    @cached_property
    def _window(self) -> int:
        """Groups that are passed over several times before others come."""
        if self._passes == 1:
            return min(len(self._groups), CHUNK)
        fit = KEPT // (self._held_out.nbytes // len(self._held_out) * self._groups.size)
        fit = max(CHUNK, fit - fit % CHUNK)  # they are matched and kept by the chunk
        wanted = -(-(self.switch or self.steps) * self._count // self._passes)
        return max(1, min(len(self._groups), wanted, fit))

    def _check(self, phase: Match) -> float | None:
        """Look at held-out captions; begin the decay early where nothing is gained."""
        every = max(1, self.steps // CHECKS)
        if self.step % every and not self.finished:
            return None
        value = self.measure(phase)
        if self.match == "both":  # its two phases have measures of their own; both run in full
            return value
        self.checks.append(value)
        best = min(self.checks[:-PATIENCE], default=float("inf"))
        if self.step < self.decay_start and min(self.checks[-PATIENCE:]) > (1 - GAIN) * best:
            self.decay_start, self.stopped_early = self.step, True
        return value

    # ---- what is matched

    @torch.no_grad()
    def measure(self, phase: Match) -> float:
        """The unmatched part on held-out captions, for one kind of match."""
        training = self.bridge.training
        self.bridge.eval()
        if phase == "predictions":
            value = self._predictions.held_out()
        else:
            value = self._states(self._held_out).mean().item()
        self.bridge.train(training)
        return value

    def _states(self, matched: Matched) -> Tensor:
        """The unmatched part of the teacher's states, by caption."""
        parts, places = matched.by_length()
        errors = [
            unlike(self.bridge.adapt(self._matcher.hidden(part)), part, self._held_out)
            for part in parts
        ]
        return torch.cat(errors)[to_device(places, errors[0].device)]

    @cached_property
    def _null(self) -> Matched:
        """The empty caption."""
        return self._matcher([Pair.same("")])

    @cached_property
    def _held_out(self) -> Matched:
        """The held-out captions."""
        return self._matcher(self.held_out_pairs)

    # ---- what is left behind

    @torch.no_grad()
    def report(self, *, predictions: bool = True) -> Report:
        """Measure what was reached on held-out captions, by topic.

        Args:
            predictions: of the vision model, too, which draws pictures for it.
        """
        seconds = round(self.seconds, 1)
        report = Report(self.match, self.step, self.stopped_early, seconds, solved=self.solved)
        topics = by_topic([pair.theirs for pair in self.held_out_pairs])
        if told := [i for i, pair in enumerate(self.held_out_pairs) if pair.ours != pair.theirs]:
            topics["pairs of two texts"] = told
        report.captions = {topic: len(indices) for topic, indices in topics.items()}
        training = self.bridge.training
        self.bridge.eval()
        if self.comparable:
            errors = self._states(self._held_out)
            report.states = {k: round(errors[i].mean().item(), 4) for k, i in topics.items()}
        ratios = torch.zeros(0, 2)
        if predictions:
            try:
                ratios = self._predictions.gaps()
            except NotANumber as error:  # a report is no reason to lose what it reports on
                warnings.warn(f"predictions are not in the report: {error}", stacklevel=2)
        for topic, indices in topics.items():
            if drawn := [i for i in indices if i < len(ratios)]:
                report.predictions[topic] = round(unmatched(ratios, drawn), 4)
        self.bridge.train(training)
        return report

    def recall(self, saved: Mapping[str, Any]) -> None:
        super().recall(saved)
        self.decay_start, self.checks = saved["fall"], saved["checks"]
        self.stopped_early = saved["stopped_early"]
        if solved := saved.get("solved"):
            self.solved = Solved(**solved)

    def remembered(self) -> dict[str, Any]:
        return super().remembered() | {
            "fall": self.decay_start,
            "checks": self.checks,
            "stopped_early": self.stopped_early,
            "solved": self.solved and asdict(self.solved),
        }

    def _keep(self, folder: Path) -> None:
        """Hold on to the state in `folder`, and go on from it where there is one."""
        make_folder(folder)
        settings = {
            "order of captions (version)": 2,
            "optimizer": "muon",
            "match": self.match,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "seed": self.seed,
            "language": self.bridge.language.fingerprint,
            "vision": self.bridge.vision.fingerprint,
            "teacher": self.teacher.fingerprint,
            "captions": digest(self.pairs),
        }
        if self.solve != "none":
            settings["solve"] = self.solve
        if self.bridge.tokens > self.bridge.padding:
            settings["tokens"] = self.bridge.tokens
        if self.bridge.adapter.kind != "feedforward":
            settings["adapter"] = self.bridge.adapter.kind
        if self.bridge.own_encoders is not None:
            settings["own encoder"] = self.bridge.own_encoders.fingerprint
        settings |= {f"{key} asked for": v for key, v in record(self.bridge.language).items()}
        names = {id(p): n for n, p in self.bridge.named_parameters()}
        tensors = {names[id(p)]: p for p in self.parameters}
        state = RunState(
            folder / "state.safetensors",
            about=settings,
            tensors=tensors,
            optimizer=self.optimizer,
            writes=self.saves,
        )
        self.go_on(state)


def _cuda(bridge: Bridge) -> list[torch.device]:
    device = bridge.vision.device
    return [device] if device.type == "cuda" else []
