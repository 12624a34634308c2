"""What a run is: in lines for people before it begins, and in a record for its model card."""

from __future__ import annotations

from typing import Any

import numpy as np

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.data.examples import Examples
from lavi_bridge.data.sources.finding import left_out
from lavi_bridge.plan.plan import make_plan
from lavi_bridge.train.options import TrainConfig

ON_CARD = (
    "recipe",
    "data",
    "warm_start",
    "batch_size",
    "accumulate",
    "dropout",
    "schedule",
    "caption_dropout",
    "lr_adapter",
    "lr_language",
    "lr_vision",
    "min_snr",
    "ema",
    "seed",
)
"""Settings that the model card names."""


def summary(
    config: TrainConfig,
    bridge: Bridge,
    examples: Examples,
    *,
    samples: int,
    held_out: int,
    processes: int,
    memory: bool,
) -> str:
    """Say what is about to be trained, in a few lines.

    Args:
        samples: pairs that are trained on; `held_out` are not.
        memory: also how much a step is planned to need on a device.
    """
    captions = examples.source.captions(1000)
    cut = bridge.language.tokenize(captions, bridge.tokens).cut
    counts = ", ".join(f"{k} {sum(p.numel() for p in v):,}" for k, v in bridge.parts().items())
    batch = config.batch_size * processes * config.accumulate
    lines = [
        f"{config.language} × {config.vision}",
        f"{samples:,} pairs at {_sizes(examples)} from {config.data}"
        + (f", {held_out} held out" if held_out else ""),
        *(f"left out, {line}" for line in left_out(examples.source)),
        f"trained parameters: {counts}",
        f"{config.steps:,} steps of {batch} images, {config.steps * batch / samples:.2f} epochs",
        f"prompts: {bridge.tokens} tokens, {'masked' if bridge.vision.masks else 'no mask'}; "
        f"{cut} of the first {len(captions)} captions are longer and lose their end",
    ]
    if memory:
        lines.append(
            f"memory: about {_memory(config, bridge, examples, processes):.1f} GB on each device"
        )
    if not config.caption_dropout and config.recipe == "default":
        lines.append("note: without caption_dropout guidance has no trained null prompt")
    return "\n".join(lines)


def card(config: TrainConfig, *, processes: int, resolution: int) -> dict[str, Any]:
    """What the model card says about the training, before its first step."""
    rare = ("warm_start_solve", "quantize", "quantize_vision")
    asked = {name: value for name in rare if (value := getattr(config, name)) != "none"}
    return {
        **{name: getattr(config, name) for name in ON_CARD},
        **asked,
        "processes": processes,
        "resolution": resolution,
        "steps": 0,
        "skipped_images": 0,
    }


def _memory(config: TrainConfig, bridge: Bridge, examples: Examples, processes: int) -> float:
    """GB that a step is planned to need, from configs alone."""
    language_rank, vision_rank = (
        config.rank if r is None else r for r in (config.language_rank, config.vision_rank)
    )
    width, height = max(examples.sizes)
    side = round((width * height) ** 0.5) // bridge.vision.side_step
    plan = make_plan(
        config.language,
        config.vision,
        adapter=config.adapter,
        adapter_parameters=config.adapter_parameters,
        language_rank=language_rank,
        vision_rank=vision_rank,
        tokens=config.tokens,
        language_layers=config.language_layers,
        layers=config.layers,
        template=config.template,
        resolution=side * bridge.vision.side_step,
        batch_size=config.batch_size,
        dtype=str(bridge.vision.dtype).removeprefix("torch."),
        quantize=config.quantize,
        quantize_vision=config.quantize_vision,
        processes=processes if config.shard else 1,
        compute=False,
        checkpointing=config.gradient_checkpointing,
        trust_remote_code=config.trust_remote_code,
    )
    return plan.training_gb if plan.checkpointed_gb is None else plan.checkpointed_gb


def _sizes(examples: Examples) -> str:
    if examples.size_of is None:
        return f"{examples.sizes[0][0]} px"
    used, counts = np.unique(examples.size_of, return_counts=True)
    most = sorted(zip(counts.tolist(), used.tolist(), strict=True), reverse=True)
    shown = ", ".join(
        "{}×{}".format(*examples.sizes[number]) + f" ({count:,})" for count, number in most[:5]
    )
    return shown + (f" and {len(most) - 5} sizes more" if len(most) > 5 else "")
