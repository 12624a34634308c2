"""The image side of a vision model: pixels, latents, and the sides of both.

Latents are always (batch, channels, height, width), about standard normal; packing into tokens,
frames and lists are inside a family's `call`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place
from lavi_bridge.files.weights import Fingerprint
from lavi_bridge.visions import autoencoder
from lavi_bridge.visions.components import channels_last, part_fingerprint, telling
from lavi_bridge.visions.noise.process import Generators, gaussian


class Images(nn.Module):
    """A frozen backbone and its autoencoder, and what they make of images."""

    backbone_folder: ClassVar[str] = "transformer"
    vae_folder: ClassVar[str] = "vae"
    default_side: ClassVar[int] = 64
    """Latents along one side where the config names no size."""
    packs: ClassVar[int] = 1
    """Side of the squares of latents that the family makes one token of before its backbone."""

    backbone: Any  # modules whose class is known only when they are loaded
    vae: Any

    def __init__(self, backbone: nn.Module, vae: nn.Module, place: Place) -> None:
        super().__init__()
        # channels last: convolutions run faster so, on processors and on GPUs
        self.backbone = channels_last(backbone.requires_grad_(False))
        self.vae = channels_last(vae.requires_grad_(False).eval())
        self.place = place

    @property
    def latent_channels(self) -> int:
        return int(self.backbone.config.in_channels) // self.packs**2

    @property
    def scale(self) -> int:
        """Pixels per latent along one side."""
        found = autoencoder.scale_of(self.vae)
        if found is None:
            raise BridgeError(f"the autoencoder of '{self.place.id}' does not tell its blocks")
        return found

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the images that the model was trained on."""
        if told := self.place.json("model_index.json").get("default_sample_size"):
            return int(told), int(told)  # PRX's way to say it, in pixels
        given = self.backbone.config.get("sample_size") or self.default_side
        sides = given if isinstance(given, list | tuple) else (given, given)
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise BridgeError(
                f"sample_size in the config of the {self.backbone_folder} of '{self.place.id}' is "
                f"{given!r}, not a number of latents, or two (height, width)"
            )
        return sides[0] * self.scale, sides[1] * self.scale

    @property
    def resolution(self) -> int:
        """Side in pixels of square images of as many pixels as the model was trained on."""
        height, width = self.size
        step = self.side_step
        return height if height == width else round((height * width) ** 0.5 / step) * step

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the frozen weights."""
        return telling(self.backbone).dtype

    @property
    def device(self) -> torch.device:
        return telling(self.backbone).device

    @property
    def side_step(self) -> int:
        """Sides of images must be a multiple of this many pixels."""
        return self.scale * self._divisor()

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Pixels -> (channels, height, width) of the latents.

        Raises:
            BridgeError: the size is no multiple of what the model can handle.
        """
        step = self.side_step
        if height % step or width % step or min(height, width) < step:
            raise BridgeError(
                f"image size {width}×{height} must be a positive multiple of {step} pixels"
            )
        return self.latent_channels, height // self.scale, width // self.scale

    def _divisor(self) -> int:
        """Latent sides must be a multiple of this: the backbone's patch."""
        patch = self.backbone.config.get("patch_size") or 1
        return max(int(patch if isinstance(patch, int) else patch[-1]), self.packs)

    def image_tokens(self, height: int, width: int) -> int:
        """Tokens that the backbone makes of latents with these sides."""
        return (height // self._divisor()) * (width // self._divisor())

    @torch.no_grad()
    def encode(self, pixels: Tensor, generator: Generators = None) -> Tensor:
        """Pixels (batch, 3, height, width) in [-1, 1] -> clean latents x0, float32.

        A variational autoencoder's latents are drawn from its posterior, as published.
        """
        mean, std = autoencoder.posterior(self.vae, pixels)
        if std is not None:
            mean = mean + std * gaussian(mean, generator)
        return autoencoder.normalized(self.vae, mean.float())

    @torch.no_grad()
    def moments(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the autoencoder's posterior, float32, not scaled yet.

        What `encode` draws from; no standard deviation where the autoencoder is not variational.
        """
        mean, std = autoencoder.posterior(self.vae, pixels)
        return mean.float(), None if std is None else std.float()

    def draw(self, mean: Tensor, std: Tensor | None, generator: Generators = None) -> Tensor:
        """Clean latents x0 from moments; in float32 the very ones that `encode` gives."""
        mean = mean.float()
        if std is not None:
            mean = mean + std.float() * gaussian(mean, generator)
        return autoencoder.normalized(self.vae, mean)

    @property
    def vae_fingerprint(self) -> Fingerprint:
        """16 hex digits that identify the autoencoder's weights."""
        return part_fingerprint(self.place / self.vae_folder)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Clean latents -> pixels (batch, 3, height, width), about [-1, 1], float32."""
        return autoencoder.decoded(self.vae, latents)
