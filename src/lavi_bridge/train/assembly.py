"""What a run is made of, from its configuration: a bridge, samples, and what identifies it."""

from __future__ import annotations

import re
import warnings
from dataclasses import asdict
from typing import Any

import torch
from accelerate import Accelerator

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.data import Source
from lavi_bridge.data.examples import Examples, Look, sizes_of
from lavi_bridge.languages.asked import record
from lavi_bridge.languages.layers import ALL
from lavi_bridge.running.blocks import compile_blocks, shard
from lavi_bridge.train.caching import open_cache
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.warm_start.closed import check_solvable
from lavi_bridge.train.warm_start.pairs import digest, open_pairs
from lavi_bridge.visions import Vision

FREE = {
    "language",
    "vision",
    "data",
    "out",
    "recipe",
    "steps",
    "device",
    "workers",
    "log_every",
    "sample_every",
    "sample_prompts",
    "sample_steps",
    "validate_every",
    "save_every",
    "keep",
    "max_bad",
    "batch_size",
    "tracker",
    "cache",
    "text_cache",
    "dry_run",
    "shard",
    "compile",
    "warm_start_report",
    "warm_start_pairs",
    "trust_remote_code",
}
"""Settings that may change when a run goes on, or that are compared by what they stand for."""


FEW_STEPS = re.compile(
    r"schnell|turbo|lightning|lcm|hyper-?sd|sprint|dmd|distill|hidream-i1-(fast|dev)",
    re.IGNORECASE,
)
"""Names of checkpoints that were distilled; in most of them nothing else says so."""


def connect(config: TrainConfig, device: torch.device) -> Bridge:
    """Make the bridge that is to be trained: checkpointed, compiled and spread as asked for.

    Raises:
        BridgeError: see `Bridge.connect`; or the noise process has no such weighting.
    """
    bridge = Bridge.connect(
        config.language,
        config.vision,
        adapter=config.adapter,
        adapter_parameters=config.adapter_parameters,
        rank=config.rank,
        language_rank=config.language_rank,
        vision_rank=config.vision_rank,
        dropout=config.dropout,
        dtype=config.dtype,
        quantize=config.quantize,
        quantize_vision=config.quantize_vision,
        tokens=config.tokens,
        language_layers=config.language_layers,
        layers=config.layers,
        template=config.template,
        device=device,
        seed=config.seed,
        trust_remote_code=config.trust_remote_code,
    )
    check_solvable(config.warm_start_solve, bridge.adapter, None)
    if bridge.vision.few_steps or FEW_STEPS.search(bridge.vision.place.id):
        warnings.warn(
            f"'{bridge.vision.place.id}' seems to be distilled for a few steps, which training on "
            "pictures undoes by and by; train with the model it was made of, then draw with this",
            stacklevel=2,
        )
    bridge.vision.process.weigh_flow(config.flow_weighting)
    bridge.vision.process.weights(torch.zeros(1, dtype=torch.long), config.min_snr)
    if config.gradient_checkpointing:
        bridge.checkpoint_activations()
    models = [bridge.language.model, bridge.adapter, bridge.vision.backbone]
    compile_blocks(models, config.compile)
    if config.shard:
        shard(models, device)
    return bridge


def samples(
    config: TrainConfig, vision: Vision, source: Source, resolution: int, accelerator: Accelerator
) -> Examples:
    """Make the samples of a source, in their sizes and with their cache."""
    folder = (config.cache or config.out) if config.buckets else None
    with accelerator.main_process_first():  # the others find what it has read
        sizes, size_of = sizes_of(
            source, vision, resolution, folder=folder, show=accelerator.is_main_process
        )
        cache = open_cache(vision, source, config, sizes)
    look = Look(
        seed=config.seed,
        caption_dropout=config.caption_dropout,
        flip=config.flip,
        crop=config.crop,
        fast_decode=config.fast_decode,
        min_size=config.min_size,
    )
    return Examples(source, look, sizes, size_of, cache)


def identity(
    config: TrainConfig, bridge: Bridge, source: Source, batch: int, resolution: int
) -> dict[str, Any]:
    """What must be equal where a run goes on."""
    about = {k: v for k, v in asdict(config).items() if k not in FREE} | {
        "cached": config.cache is not None,
        "language model": bridge.language.fingerprint,
        "vision model": bridge.vision.fingerprint,
        "data set": source.identity(),
        "images per batch": batch,
        "resolution": resolution,
    }
    if config.warm_start_pairs:
        about["pairs of texts"] = digest(open_pairs(config.warm_start_pairs, seed=config.seed))
    if config.warm_start_solve == "none":
        del about["warm_start_solve"]  # runs from before there was a choice go on
    if config.language_layers == ALL:
        del about["language_layers"]  # likewise
    if config.adapter_parameters is None:
        del about["adapter_parameters"]  # likewise
    if config.mix_frozen_after is None:
        del about["mix_frozen_after"]  # likewise
    if config.quantize_vision == "none":
        del about["quantize_vision"]  # likewise
    if bridge.own_encoders is not None:
        about["own encoder"] = bridge.own_encoders.fingerprint
    if bridge.vision.framed:
        about["framing"] = "each picture's own"  # at first all were told to be whole
    del about["layers"], about["template"]
    about |= {f"{key} asked for": value for key, value in record(bridge.language).items()}
    about["dtype"] = str(bridge.vision.dtype)
    if config.schedule != "constant":
        about["steps"] = config.steps
    return about
