"""What a warm start on predictions compares: the vision model's answers to bridge and teacher.

On pictures that the vision model draws itself as its own encoder reads the captions, noised again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lavi_bridge.bridge import lora
from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.own import own_text
from lavi_bridge.languages import Language
from lavi_bridge.running.seeds import seed_of, seeded
from lavi_bridge.show.pictures import check_numbers
from lavi_bridge.text import Text
from lavi_bridge.train.warm_start.matching import NULL_SHARE
from lavi_bridge.train.warm_start.pairs import Pair
from lavi_bridge.visions.noise.process import gaussian

BANK = 128
"""Pictures (as latents) that the teacher draws for the match of predictions."""
BANK_STEPS = 10
BANK_GUIDANCE = 4.0
NULL = Pair.same("")
BATCH = 32
"""A step through the vision model takes at most so many captions."""


@dataclass(frozen=True)
class Bank:
    """Pictures that the teacher drew, as latents, with what it was told."""

    pairs: Sequence[Pair]
    latents: Tensor  # (captions, channels, height, width)
    gap: Tensor  # mean squared difference between predictions with and without the captions
    first: Tensor  # the timestep that sampling begins at


class Predictions:
    """Compares predictions under the bridge's text with those under the teacher's.

    Args:
        pairs: what steps are made of; those of `held_out` are for the figures alone.
    """

    def __init__(
        self,
        bridge: Bridge,
        teacher: Language,
        pairs: Sequence[Pair],
        held_out: Sequence[Pair],
        seed: int,
    ) -> None:
        self.bridge, self.teacher, self.seed = bridge, teacher, seed
        self.pairs, self.held_out_pairs = pairs, held_out
        self._banks: dict[int, Bank] = {}

    def loss(self, step: int, size: int) -> Tensor:
        """The unmatched part in a step, on at most so many captions."""
        bank = self.bank(step)
        return self._difference(bank, min(size, BATCH), seed_of(self.seed, step))

    def held_out(self) -> float:
        """The unmatched part on held-out captions."""
        return self._difference(self.bank(None), BANK, seed=0).item()

    @torch.no_grad()
    def gaps(self) -> Tensor:
        """Squared differences to the teacher's prediction, by held-out caption (captions, 2).

        First the bridge's, then the empty prompt's, summed over four noise levels.
        """
        bridge, vision, bank = self.bridge, self.bridge.vision, self.bank(None)
        total = torch.zeros(len(bank.pairs), 2)
        for start in range(0, len(bank.pairs), BATCH):
            batch = bank.pairs[start : start + BATCH]
            latents = bank.latents[start : start + BATCH]
            teacher, null = self._taught(batch), self._taught([NULL]).expand(len(batch))
            text = bridge.encode([pair.ours for pair in batch])
            for level in range(4):
                x_t, timesteps, _ = vision.noise(latents, generator=seeded("report", start, level))
                with lora.disabled(vision.backbone):
                    target = vision.predict(x_t, timesteps, teacher)
                    unconditional = vision.predict(x_t, timesteps, null)
                prediction = bridge.predict(x_t, timesteps, text)
                both = [
                    (x - target).square().flatten(1).mean(1).cpu()
                    for x in (prediction, unconditional)
                ]
                total[start : start + len(batch)] += torch.stack(both, 1)
        return total

    def bank(self, step: int | None) -> Bank:
        """The pictures of a stretch of steps, or (None) those of held-out captions."""
        number = -1 if step is None else step // 500  # new ones now and then
        if number not in self._banks:
            kept = {k: v for k, v in self._banks.items() if k == -1 or number == -1}
            pairs = self.held_out_pairs[: BANK // 2]
            if step is not None:
                rng = random.Random(seed_of(self.seed, "bank", number))
                pairs = [rng.choice(self.pairs) for _ in range(BANK)]
            self._banks = kept | {number: self._draw(pairs, seed_of(self.seed, number))}
        return self._banks[number]

    @torch.no_grad()
    def _draw(self, pairs: Sequence[Pair], seed: int) -> Bank:
        """Let the vision model draw pairs as its own encoder reads them."""
        bridge, vision = self.bridge, self.bridge.vision
        shape = vision.latent_shape(vision.resolution, vision.resolution)
        drawn, gaps = [], []
        training = bridge.training
        bridge.eval()
        with lora.disabled(vision.backbone):
            for start in range(0, len(pairs), BATCH):
                batch = pairs[start : start + BATCH]
                text, null = self._taught(batch), self._taught([NULL])
                noise = torch.empty(len(batch), *shape, device=vision.device)
                scheduler = vision.process.scheduler(vision.default_scheduler)
                for step in bridge.sample(
                    text,
                    null,
                    latents=gaussian(noise, seeded(seed, start)),
                    scheduler=scheduler,
                    steps=BANK_STEPS,
                    guidance=BANK_GUIDANCE,
                    predict=vision.predict,
                ):
                    latents = step.latents
                check_numbers(latents, [pair.theirs for pair in batch], hint=bridge.overflow_hint())
                drawn.append(latents)
                x_t, timesteps, _ = vision.noise(latents, generator=seeded(seed, start, "gap"))
                conditional = vision.predict(x_t, timesteps, text)
                unconditional = vision.predict(x_t, timesteps, null.expand(len(batch)))
                gaps.append((conditional - unconditional).square().mean())
        bridge.train(training)
        return Bank(pairs, torch.cat(drawn), torch.stack(gaps).mean(), scheduler.timesteps[0])

    def _difference(self, bank: Bank, size: int, seed: int) -> Tensor:
        """Squared difference to the vision model's prediction under the teacher, over the gap.

        The gap is how far the prediction under the empty prompt is from it: 1 is "read nothing".
        """
        vision, generator = self.bridge.vision, seeded(seed)
        picked = torch.randperm(len(bank.pairs), generator=generator)[:size]
        pairs = [bank.pairs[i] for i in picked.tolist()]
        x_t, timesteps, _ = vision.noise(bank.latents[picked], generator=generator)
        starts = -(-len(pairs) // 8)  # some from pure noise, as sampling begins
        x_t[:starts] = gaussian(x_t[:starts], generator)
        timesteps[:starts] = bank.first.to(timesteps)
        nulls = -(-len(pairs) // NULL_SHARE)
        pairs[-nulls:] = [NULL] * nulls
        with torch.no_grad(), lora.disabled(vision.backbone):
            target = vision.predict(x_t, timesteps, self._taught(pairs))
        text = self.bridge.encode([pair.ours for pair in pairs])
        prediction = self.bridge.predict(x_t, timesteps, text)
        return nn.functional.mse_loss(prediction, target) / bank.gap

    @torch.no_grad()
    def _taught(self, pairs: Sequence[Pair]) -> Text:
        """What the vision model's own encoder makes of its side of pairs."""
        return own_text(self.teacher, self.bridge.vision, [pair.theirs for pair in pairs])
