"""Filling a latent cache: in advance with `lavi-bridge cache`, or while training."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from lavi_bridge.config import CacheConfig, TrainConfig
from lavi_bridge.data import LatentCache, Source
from lavi_bridge.data.cache import chunks
from lavi_bridge.data.opening import open_source
from lavi_bridge.device import choose_device, choose_dtype
from lavi_bridge.errors import BridgeError
from lavi_bridge.locate import locate
from lavi_bridge.progress import progress
from lavi_bridge.resume import stopping
from lavi_bridge.train.examples import Examples, Size, inputs, sizes_of
from lavi_bridge.visions import Vision, load_vision


def open_cache(vision: Vision, source: Source, config: TrainConfig | CacheConfig,
               sizes: Sequence[Size]) -> LatentCache | None:  # fmt: skip
    """The cache that a configuration names, if it names one.

    Raises:
        BridgeError: it was made with another autoencoder, precision, size, or data set.
    """
    if config.cache is None:
        return None
    about: dict[str, Any] = {
        "format": 1,
        "autoencoder": vision.vae_fingerprint,
        "precision of the autoencoder": str(vision.vae.dtype).removeprefix("torch."),
        "dtype": config.cache_dtype,
        "sizes": ["{}×{}".format(*size) for size in sizes],
        "crop": "center",
        "fast_decode": config.fast_decode,
        "min_size": config.min_size,
        "data set": source.identity(),
    }
    return LatentCache(config.cache, about)


def flush(cache: LatentCache, *, rank: int) -> None:
    """Write what was encoded while training."""
    cache.flush(f"live-{rank}-{uuid.uuid4().hex[:12]}")


def fill(config: CacheConfig) -> tuple[int, list[str]]:
    """Encode what the cache lacks; under torchrun each process takes its part of the shards.

    Returns:
        How many pictures (mirrored ones counted) were encoded, and the errors of those that
        cannot be read.

    Raises:
        BridgeError: the cache is of something else, the disk is full, too many pictures cannot be
            read, or it was stopped (what is done is kept).
    """
    assert config.cache is not None
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(config.device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    source = open_source(config.data)
    vision = load_vision(locate(config.vision), dtype=choose_dtype(config.dtype, device))
    vision.vae.to(device)
    resolution = config.resolution or vision.resolution
    vision.latent_shape(resolution, resolution)  # refuses bad sizes
    sizes, size_of = sizes_of(source, vision, resolution, config, show=rank == 0)
    cache = open_cache(vision, source, config, sizes)
    assert cache is not None
    settings = TrainConfig(language="", vision="", data="", out=config.cache, flip=False,
                           caption_dropout=0.0, fast_decode=config.fast_decode,
                           min_size=config.min_size)  # fmt: skip
    examples = Examples(source, settings, sizes, size_of)
    shards = list(enumerate(chunks(len(source), config.flip)))[rank::world]
    todo = [(number, missing) for number, keys in shards if (missing := cache.missing(keys))]
    errors: list[str] = []
    encoded = 0
    with (
        stopping() as asked,
        progress(total=sum(len(keys) for _, keys in todo), desc="encoding", unit="image",
                 disable=rank > 0) as bar,
    ):  # fmt: skip
        for number, keys in todo:
            by_size: dict[Size, list[tuple[int, bool]]] = {}
            for key in keys:
                by_size.setdefault(examples.size(key[0]), []).append(key)
            batches = [
                [examples.at(key) for key in same[start : start + config.batch_size]]
                for same in by_size.values()
                for start in range(0, len(same), config.batch_size)
            ]
            loader = DataLoader(examples, batch_sampler=batches, num_workers=config.workers,
                                collate_fn=list)  # fmt: skip
            for found in loader:
                errors += [e.error for e in found if e.error]
                if good := [e for e in found if e.good]:
                    inputs(good, vision, cache)
                encoded += len(good)
                bar.update(len(found))
            if len(errors) > config.max_bad * len(source):
                raise BridgeError(
                    f"{errors[-1]} ({len(errors)} pictures cannot be read, more than max_bad = "
                    f"{config.max_bad} allows)"
                )
            cache.flush(f"{number:06d}")
            if asked():
                raise BridgeError(
                    f"stopped; {len(cache):,} are in '{config.cache}', and the same command goes "
                    "on from there"
                )
    return encoded, errors
