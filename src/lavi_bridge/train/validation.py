"""The loss on pairs that are held out, at noise and timesteps that never change."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.data import Visit
from lavi_bridge.data.examples import Batch, Example, Examples, inputs
from lavi_bridge.running.seeds import seed_of, seeded
from lavi_bridge.train.options import TrainConfig

PROBE = 16
"""Training pairs that are followed where the data is too small to hold any out."""
DRAWS = 2
"""Noises and timesteps of each pair."""


class Validation:
    """Chooses the pairs and measures.

    Figures: `val_loss` (`probe_loss` where nothing is held out), and `word_sensitivity`: how far
    the prediction moves when one word of the caption becomes another's, over how far it moves when
    the caption is taken away. A model that ignores its text has nothing of either.
    """

    def __init__(self, bridge: Bridge, examples: Examples, config: TrainConfig) -> None:
        self.bridge, self.config = bridge, config
        count = min(config.validation, len(examples) // 20)
        rng = random.Random(seed_of(config.seed, "held out"))
        self.indices: list[int] = sorted(rng.sample(range(len(examples)), count))
        self.examples = examples.plain()
        self._batches: list[tuple[Batch, list[int]]] | None = None

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The figures by name; none where no picture can be read."""
        if self._batches is None:
            self._batches = self._encode()
        training = self.bridge.training
        self.bridge.eval()
        total, count = 0.0, 0
        for batch, seeds in self._batches:
            for draw in range(DRAWS):
                generator = [seeded(seed, "validation", draw) for seed in seeds]
                loss = self.bridge.loss(**vars(replace(batch, generator=generator)))
                total, count = total + loss.item() * len(seeds), count + len(seeds)
        found = {"word_sensitivity": self._sensitivity()} if count else {}
        self.bridge.train(training)
        if not count:
            return {}
        return {"val_loss" if self.indices else "probe_loss": total / count, **found}

    def _encode(self) -> list[tuple[Batch, list[int]]]:
        """Latents and captions in batches of one size, and seeds."""
        indices = self.indices or range(min(PROBE, len(self.examples)))
        by_size: dict[tuple[int, ...], list[Example]] = defaultdict(list)
        for example in (self.examples[Visit(0, index)] for index in indices):
            if example.good:
                by_size[self.examples.size(example.sample.index)].append(example)
        batches = []
        for same in by_size.values():
            for start in range(0, len(same), self.config.batch_size):
                part = same[start : start + self.config.batch_size]
                batch = inputs(part, self.bridge.vision)
                if batch.pixels is not None:
                    latents = self.bridge.vision.encode(batch.pixels, batch.generator)
                    batch = replace(batch, latents=latents, pixels=None)
                batches.append((batch, [e.seed for e in part]))
        return batches

    def _sensitivity(self) -> float:
        assert self._batches
        batch, seeds = self._batches[0]
        latents, captions = batch.latents, batch.captions
        assert latents is not None
        assert captions is not None
        vision = self.bridge.vision
        noised = vision.noise(latents, generator=[seeded(seed, "words") for seed in seeds])
        told, other, none = (
            self.bridge.predict(noised.x_t, noised.timesteps, self.bridge.encode(texts))
            for texts in (captions, swap_word(captions), [""] * len(captions))
        )
        whole = (told - none).square().mean().sqrt()
        return float((told - other).square().mean().sqrt() / whole.clamp(min=1e-12))


def swap_word(captions: Sequence[str]) -> list[str]:
    """Each caption with its longest word replaced by the next caption's that it does not have."""
    longest = [sorted(caption.split(), key=len, reverse=True) for caption in captions]
    pool = [word for words in longest for word in words[:1]] + ["sky", "house"]
    changed = []
    for number, (caption, words) in enumerate(zip(captions, longest, strict=True)):
        if not words:
            changed.append(pool[0])
            continue
        others = pool[number + 1 :] + pool
        other = next((word for word in others if word not in words), words[0] + "s")
        changed.append(caption.replace(words[0], other, 1))
    return changed
