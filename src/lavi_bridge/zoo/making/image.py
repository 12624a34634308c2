"""What the image models learn: to encode pictures, and to denoise them as their captions say.

Captions are mostly short and loose, as those of early text-to-image models were: a quarter are
full sentences of the grammar, the rest are alt-text without order.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.files.atomic import read_safetensors
from lavi_bridge.files.weights import fingerprint
from lavi_bridge.running.progress import progress
from lavi_bridge.running.run_state import write_tensors
from lavi_bridge.running.seeds import seed_of, seeded
from lavi_bridge.shapes.grammar import alt_text, caption
from lavi_bridge.shapes.scenes import PAIR, Scene, Scenes, paint
from lavi_bridge.shapes.world import draw_scenes
from lavi_bridge.text import Text
from lavi_bridge.visions import Vision
from lavi_bridge.zoo.making.fitting import Objective

BLOCK = 256
"""Scenes drawn and encoded together."""
FULL_CAPTIONS = 0.25
TAUGHT_FULL_CAPTIONS = 0.75
"""Where a teacher answers: loose words cannot say which colour is whose, and what is weak in its
reading of full sentences is handed on as it is."""
CAPTION_DROPOUT = 0.1
SNR_CAP = 5.0
"""Min-SNR-5 weighting of the noise levels (arXiv 2303.09556, section 3.4)."""
HELD_OUT = 512
TEXT_TOKENS = 32
"""Tokens read in training where padding is masked: no caption of the world is longer."""


def pixels_of(scenes: Scenes) -> Tensor:
    """Rendered scenes (N, 3, SIZE, SIZE) in [-1, 1]."""
    return torch.from_numpy(paint(scenes)).float() * 2 - 1


class Autoencoding(Objective):
    """An AutoencoderKL on rendered scenes.

    L1 + 2 L2 + half the L1 of the differences between neighbours + 2e-5 KL: crisp edges without an
    adversary. Afterwards `scaling_factor` makes the latents' standard deviation 1.
    """

    def __init__(self, vae: Any, *, seed: int = 0) -> None:
        super().__init__()
        self.vae, self.seed = vae, seed

    def loss(self, step: int, batch: int) -> Tensor:
        device = next(self.vae.parameters()).device
        pixels = pixels_of(draw_scenes(batch, seed_of(self.seed, step))).to(device)
        generator = seeded(self.seed, step, "posterior")
        posterior = self.vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        answer = self.vae.decode(posterior.mean + posterior.std * noise).sample
        error = answer - pixels
        edges = [error.diff(dim=side).abs().mean() for side in (-1, -2)]
        return (
            error.abs().mean()
            + 2 * error.square().mean()
            + 0.25 * sum(edges)
            + 2e-5 * posterior.kl().mean() / pixels[0].numel()
        )

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Peak signal-to-noise ratio in dB on pictures in [0, 1], through the posterior's mean."""
        device = next(self.vae.parameters()).device
        pixels = pixels_of(draw_scenes(HELD_OUT, seed_of(self.seed, "held out"))).to(device)
        errors = []
        for part in pixels.split(64):
            answer = self.vae.decode(self.vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
            errors.append(((answer - part) / 2).square().mean())
        return {"psnr_db": -10 * float(torch.stack(errors).mean().log10())}

    @torch.no_grad()
    def set_scale(self) -> None:
        """Make the latents' standard deviation 1, as Stable Diffusion's 0.18215 does."""
        device = next(self.vae.parameters()).device
        pixels = pixels_of(draw_scenes(1024, seed_of(self.seed, "scale"))).to(device)
        latents = torch.cat([self.vae.encode(p).latent_dist.sample() for p in pixels.split(64)])
        self.vae.register_to_config(scaling_factor=1 / float(latents.std()))


class Latents:
    """A training set encoded once: latents, and the scenes to write captions of."""

    def __init__(self, vision: Vision, folder: Path, *, blocks: int, seed: int = 5) -> None:
        self.scenes = [draw_scenes(BLOCK, (seed, block)) for block in range(blocks)]
        config = (vision.place / vision.vae_folder).file("config.json")
        assert config is not None  # it was loaded from there
        # models with the same autoencoder share it
        path = folder / f"latents-{fingerprint(config.parent)}-{seed}-{blocks}.safetensors"
        if not path.exists():
            self._write(vision, path, seed)
        self.latents = read_safetensors(path)["latents"]  # (count, channels, height, width), fp16

    def __len__(self) -> int:
        return len(self.latents)

    def scene(self, index: int) -> Scene:
        return self.scenes[index // BLOCK][index % BLOCK]

    def textured_pairs(self) -> list[int]:
        """Indices of the scenes of two figures, not both solid."""
        return [
            block * BLOCK + int(i)
            for block, scenes in enumerate(self.scenes)
            for i in np.flatnonzero((scenes.kind == PAIR) & (scenes.texture[:, :2] > 0).any(1))
        ]

    def _write(self, vision: Vision, path: Path, seed: int) -> None:
        encoded = [
            vision.encode(part, seeded(seed, block, number)).half().cpu()
            for block, scenes in enumerate(progress(self.scenes, desc="encoding", unit="block"))
            for number, part in enumerate(pixels_of(scenes).split(64))
        ]
        write_tensors({"latents": torch.cat(encoded)}, path)


def write_caption(
    scene: Scene, rng: random.Random, full_captions: float = FULL_CAPTIONS, topic: str | None = None
) -> str:
    """What an image model is told of a picture in its pre-training; sometimes nothing."""
    if rng.random() < CAPTION_DROPOUT:
        return ""
    full = rng.random() < full_captions
    return caption(scene, rng, topic)[0] if full else alt_text(scene, rng)


def read(bridge: Bridge, captions: list[str]) -> Text:
    """What an image model with its own text encoder reads, which is trained."""
    if not bridge.vision.masks:
        return bridge.encode(captions)
    tokens = bridge.language.tokenize(captions, TEXT_TOKENS)
    return Text(bridge.language.hidden(tokens.ids, tokens.mask), tokens.mask)


class Denoising(Objective):
    """Backbone and text encoder of a whole image model, trained together.

    With a `teacher` of the same latents and noise process the target is the teacher's prediction
    instead of the noise itself. That has no variance of its own, so far fewer pictures teach the
    same (knowledge distillation, arXiv 2305.15798 for image models).

    Args:
        full_captions: the share of captions that are full sentences of the grammar; by default a
            quarter, or three quarters with a teacher.
        textured: half of the pictures are pairs of which a figure is striped or dotted, and full
            captions of them say so.
    """

    def __init__(
        self,
        student: Bridge,
        data: Latents,
        *,
        teacher: Bridge | None = None,
        full_captions: float | None = None,
        textured: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.student = student
        student.vision.backbone.requires_grad_(True)
        student.language.model.requires_grad_(True)
        self.data, self.seed = data, seed
        self._teacher = [teacher.eval()] if teacher else []  # a list hides it from parameters()
        usual = TAUGHT_FULL_CAPTIONS if teacher else FULL_CAPTIONS
        self.full_captions = usual if full_captions is None else full_captions
        self._textured = data.textured_pairs() if textured else []

    def loss(self, step: int, batch: int) -> Tensor:
        rng = random.Random(seed_of(self.seed, step))
        if self._textured:
            captions, indices = [], []
            for _ in range(batch):
                favour = rng.random() < 0.5
                index = rng.choice(self._textured) if favour else rng.randrange(len(self.data))
                topic = "texture" if favour else None
                indices.append(index)
                captions.append(
                    write_caption(self.data.scene(index), rng, self.full_captions, topic)
                )
        else:
            indices = [rng.randrange(len(self.data)) for _ in range(batch)]
            captions = [write_caption(self.data.scene(i), rng, self.full_captions) for i in indices]
        return self._loss_on(indices, captions, seed_of(self.seed, step, "noise"))

    def _loss_on(self, indices: list[int], captions: list[str], seed: int) -> Tensor:
        bridge = self.student
        device = bridge.vision.device
        x0 = self.data.latents[indices].float().to(device)
        generator = torch.Generator().manual_seed(seed)
        x_t, timesteps, target = bridge.vision.noise(x0, generator=generator)
        with torch.no_grad():
            for teacher in self._teacher:
                target = teacher.vision.predict(x_t, timesteps, teacher.encode(captions))
        answer = bridge.vision.predict(x_t, timesteps, read(bridge, captions))
        weight = bridge.vision.process.weights(timesteps, SNR_CAP)
        assert weight is not None
        weight = weight.view(-1, 1, 1, 1)
        return (weight * (answer - target).square()).mean()

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """The same loss at fixed noise on captions that are always the same."""
        was_training = self.training
        self.eval()
        rng = random.Random(seed_of(self.seed, "held out"))
        total = 0.0
        for start in range(0, HELD_OUT, 64):
            indices = [(start + i) * 7919 % len(self.data) for i in range(64)]
            captions = [write_caption(self.data.scene(i), rng, self.full_captions) for i in indices]
            total += self._loss_on(indices, captions, seed_of("held out", start)).item() * 64
        self.train(was_training)
        return {"held_out_loss": total / HELD_OUT}


class SameStates(Objective):
    """Bring a fresh text encoder to the states that another reads out of the same tokens.

    Positions past the other's last are brought to that last one: padding.
    """

    def __init__(self, student: Bridge, teacher: Bridge, data: Latents, *, seed: int = 0) -> None:
        super().__init__()
        self.student = student
        student.language.model.requires_grad_(True)
        self.data, self.seed = data, seed
        self._teacher = [teacher.eval()]

    def loss(self, step: int, batch: int) -> Tensor:
        rng = random.Random(seed_of(self.seed, step))
        scenes = [self.data.scene(rng.randrange(len(self.data))) for _ in range(batch)]
        return self._loss_on([write_caption(scene, rng) for scene in scenes])

    def _loss_on(self, captions: list[str]) -> Tensor:
        (teacher,) = self._teacher
        text = read(self.student, captions)
        length = text.hidden.shape[1]
        with torch.no_grad():
            wanted = teacher.encode(captions).hidden
            padding = wanted[:, -1:].expand(-1, max(0, length - wanted.shape[1]), -1)
            wanted = torch.cat([wanted, padding], 1)[:, :length]
        errors = (text.hidden - wanted).square().mean(-1)
        if text.mask is not None:
            errors = errors[text.mask.bool()]
        return errors.mean() / wanted.var()

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """The mean squared difference over the variance of what is wanted."""
        rng = random.Random(seed_of(self.seed, "held out"))
        captions = [write_caption(self.data.scene(i), rng) for i in range(256)]
        return {"held_out_loss": self._loss_on(captions).item()}
