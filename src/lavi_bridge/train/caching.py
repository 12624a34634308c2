"""Filling a latent cache: in advance with `lavi-bridge cache`, or while training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.data import LatentCache, Sample, Source
from lavi_bridge.data.cache.features import FeatureCache, padded
from lavi_bridge.data.cache.latents import chunks
from lavi_bridge.data.examples import Examples, Look, Size, encoded, read, sizes_of
from lavi_bridge.data.pixels import READING
from lavi_bridge.data.sources.finding import left_out
from lavi_bridge.data.sources.opening import open_source
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import locate
from lavi_bridge.languages.asked import record
from lavi_bridge.languages.layers import Upper, frozen_layers
from lavi_bridge.running.device import choose_dtype, own_device, processes, to_device
from lavi_bridge.running.lock import held, refuse_if_held
from lavi_bridge.running.progress import progress
from lavi_bridge.running.run_state import stopping
from lavi_bridge.text import Text
from lavi_bridge.train.options import CacheConfig, TrainConfig
from lavi_bridge.visions import Vision, load_vision


def open_cache(
    vision: Vision, source: Source, config: TrainConfig | CacheConfig, sizes: Sequence[Size]
) -> LatentCache | None:
    """The cache that a configuration names, if it names one.

    Raises:
        BridgeError: it was made with another autoencoder, precision, size, or data set, or by a
            version that read pictures otherwise.
    """
    if config.cache is None:
        return None
    about: dict[str, Any] = {
        "format": 1,
        "reading": READING,
        "autoencoder": vision.vae_fingerprint,
        "precision of the autoencoder": str(vision.vae.dtype).removeprefix("torch."),
        "dtype": config.cache_dtype,
        "sizes": ["{}×{}".format(*size) for size in sizes],
        "crop": "center",
        "fast_decode": config.fast_decode,
        "min_size": config.min_size,
        "data set": source.identity(),
    }
    return LatentCache(config.cache, about, len(source))


def open_text_cache(bridge: Bridge, config: TrainConfig) -> FeatureCache | None:
    """The cache of encoded captions that a configuration names, if it names one.

    Raises:
        BridgeError: it was made by another language model, precision, or number of tokens.
    """
    if config.text_cache is None:
        return None
    about = {
        "format": 1,
        "language model": bridge.language.fingerprint,
        "family": type(bridge.language).__name__,
        "precision": str(bridge.language.dtype).removeprefix("torch."),
        "quantize": config.quantize,
        "tokens": bridge.tokens,
        "masked": bridge.vision.masks,
    }
    about |= {f"{key} asked for": value for key, value in record(bridge.language).items()}
    if bridge.language.lora is not None:
        reading = bridge.language.reading
        if reading is not None and len(reading.places) > 1:
            raise BridgeError(
                f"'text_cache' keeps what lies below the layers that train, and layers "
                f"'{reading.name}' reads that, too: set 'language_rank' 0, or read one layer"
            )
        about["layers"] = frozen_layers(bridge.language)
        if not about["layers"]:
            raise BridgeError(
                "'text_cache' keeps what lies below the layers that train, and here all of them "
                "do: choose fewer ('language_layers')"
            )
    if bridge.tokens > bridge.padding:
        about["padding"] = bridge.padding
    return FeatureCache(config.text_cache, about)


def cached_features(
    bridge: Bridge,
    cache: FeatureCache,
    captions: Sequence[str],
    *,
    trim: bool,
    upper: Upper | None = None,
) -> Text:
    """Hidden states of captions; what the cache lacks is encoded and added.

    The whole batch is encoded where one is lacking, so that a run that goes on with a half-filled
    cache gives a caption the same as before: what came of the first batch that had it.

    Args:
        upper: the layers that train, where some do: the cache has what enters them, and they run.
    """
    language = bridge.language
    before = language.template if upper else None  # what is kept begins with its states
    tokens = language.tokenize(captions, bridge.tokens)
    if not all(caption in cache for caption in captions):
        ids, mask = bridge.read(tokens)
        with torch.no_grad():
            fresh = (upper.below if upper else language.hidden)(ids, mask).cpu()
        real_ones = mask if mask is None or not before else before.widened(mask)
        masks = [None] * len(captions) if real_ones is None else real_ones.bool()
        for caption, hidden, real in zip(captions, fresh, masks, strict=True):
            cache.add(caption, hidden if real is None else hidden[real])
    ids, mask = bridge.read(tokens, trim=trim)
    device = bridge.vision.device
    length = ids.shape[1] + (len(before) if before else 0)
    hidden = to_device(padded([cache[caption] for caption in captions], length)[0], device)
    if upper:
        hidden = upper.above(hidden, ids, mask)
    return Text(hidden, None if mask is None else to_device(mask, device))


def fill(config: CacheConfig) -> tuple[int, list[str]]:
    """Encode what the cache lacks; under torchrun each process takes its part of the shards.

    Returns:
        How many pictures (mirrored ones counted) were encoded, and the errors of those that
        cannot be read.

    Raises:
        BridgeError: the cache is of something else or being filled by another call, the disk is
            full, too many pictures cannot be read, or it was stopped (what is done is kept).
    """
    assert config.cache is not None
    refuse_if_held(config.cache, option="--cache")
    (rank, world), device = processes(), own_device(config.device)
    source = open_source(config.data, seed=config.seed)
    vision = load_vision(locate(config.vision), dtype=choose_dtype(config.dtype, device))
    vision.vae.to(device)
    resolution = config.resolution or vision.resolution
    vision.latent_shape(resolution, resolution)  # refuses bad sizes
    for line in left_out(source) if rank == 0 else []:
        print(f"left out, {line}", flush=True)
    folder = config.cache if config.buckets else None
    sizes, size_of = sizes_of(source, vision, resolution, folder=folder, show=rank == 0)
    cache = open_cache(vision, source, config, sizes)
    assert cache is not None
    look = Look(fast_decode=config.fast_decode, min_size=config.min_size)
    examples = Examples(source, look, sizes, size_of)
    todo = [
        missing
        for keys in chunks(len(source), config.flip)[rank::world]
        if (missing := cache.missing(keys))
    ]
    batches = [_batches(examples, keys, config.batch_size) for keys in todo]
    errors: dict[int, str] = {}
    count = 0
    with (
        held(config.cache, option="--cache"),
        stopping() as asked,
        progress(total=sum(map(len, todo)), desc="encoding", unit="image", disable=rank > 0) as bar,
        read(examples, [keys for chunk in batches for keys in chunk], config.workers) as loader,
    ):
        for chunk in batches:
            for _ in chunk:
                found = next(loader)
                errors |= {e.sample.index: e.error for e in found if e.error}
                good = [e for e in found if e.good]
                count += len(encoded(good, vision, cache))
                bar.update(len(found))
            if len(errors) > config.max_bad * len(source) / world:
                raise BridgeError(
                    f"{next(reversed(errors.values()))} ({len(errors)} pictures cannot be read, "
                    f"more than max_bad = {config.max_bad} allows)"
                )
            cache.flush()
            if asked():
                raise BridgeError(
                    f"stopped; {len(cache):,} are in '{config.cache}', and the same command goes "
                    "on from there"
                )
    return count, list(errors.values())


def _batches(examples: Examples, samples: list[Sample], size: int) -> list[list[Sample]]:
    """Samples of a shard in batches of one image size."""
    by_size: dict[Size, list[Sample]] = {}
    for sample in samples:
        by_size.setdefault(examples.size(sample.index), []).append(sample)
    return [
        same[start : start + size]
        for same in by_size.values()
        for start in range(0, len(same), size)
    ]
