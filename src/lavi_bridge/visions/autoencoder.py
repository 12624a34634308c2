"""Autoencoders of all vision models: images and their latents, which are always (B, C, H, W).

Those of videos are given one frame; FLUX.2's, whose statistics are of squares of z, has squares as
latents. Statistics (shift, scale) are in one place: latents are (z - shift) * scale, by numbers or
channel by channel, as the autoencoder says.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lavi_bridge.running.device import to_device


def scale_of(vae: Any) -> int | None:
    """Pixels per latent along one side; None where the config does not tell."""
    config = vae.config
    if stages := config.get("temperal_downsample"):  # diffusers' spelling, of videos
        return int(2 ** len(stages))
    keys = ("encoder_block_out_channels", "block_out_channels", "down_block_out_channels")
    blocks = next((found for key in keys if (found := config.get(key))), None)
    return None if blocks is None else int(2 ** (len(blocks) - 1)) * square_of(vae)


def square_of(vae: Any) -> int:
    """Side of the squares of z that make one latent: where a batch norm has their statistics."""
    return int(vae.config.patch_size[0]) if _batch_norm(vae) else 1


def posterior(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Pixels (B, 3, H, W) in [-1, 1] -> mean and standard deviation of z, in the autoencoder's
    precision; no standard deviation where it is not variational."""
    pixels = to_device(pixels, vae.device).to(vae.dtype)
    encoded = vae.encode(pixels.unsqueeze(2) if _videos(vae) else pixels)
    if hasattr(encoded, "latent_dist"):
        mean, std = encoded.latent_dist.mean, encoded.latent_dist.std
        return (mean.squeeze(2), std.squeeze(2)) if _videos(vae) else (mean, std)
    return (encoded.latent if hasattr(encoded, "latent") else encoded.latents), None


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Latents (B, C, H, W) -> pixels (B, 3, H, W), about [-1, 1], float32."""
    shift, scale = _statistics(vae, latents)
    z = latents / scale + shift
    if (side := square_of(vae)) > 1:
        z = nn.functional.pixel_shuffle(z, side)
    z = z.to(vae.device, vae.dtype)
    if _videos(vae):
        return vae.decode(z.unsqueeze(2)).sample.squeeze(2).float()
    return vae.decode(z).sample.float()


def normalized(vae: Any, z: Tensor) -> Tensor:
    """z, float32 -> latents, about standard normal; a square's channels are (C, row, column)."""
    if (side := square_of(vae)) > 1:
        z = nn.functional.pixel_unshuffle(z, side)
    shift, scale = _statistics(vae, z)
    return (z - shift) * scale


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Shift and scale: numbers, or (1, C, 1, 1) where the config or a batch norm has a mean and a
    standard deviation for every channel."""
    config = vae.config
    if norm := _batch_norm(vae):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        shift, variance = (
            to_device(found, like.device).float().view(1, -1, 1, 1)
            for found in (norm.running_mean, norm.running_var)
        )
        return shift, (variance + norm.eps).rsqrt()
    scale = float(config.get("scaling_factor") or 1.0)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        return float(config.get("shift_factor") or 0.0), scale
    given = torch.tensor([mean, std], dtype=torch.float32).view(2, 1, -1, 1, 1)
    shift, deviation = to_device(given, like.device)
    return shift, scale / deviation


def _videos(vae: Any) -> bool:
    return bool(vae.config.get("temperal_downsample"))


def _batch_norm(vae: Any) -> nn.BatchNorm2d | None:
    found = getattr(vae, "bn", None)
    return found if isinstance(found, nn.BatchNorm2d) else None
