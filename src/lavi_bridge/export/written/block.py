"""The text step of a family's modular pipeline, with the text half of a bridge (diffusers >= 0.42).

from diffusers import ModularPipelineBlocks

blocks = ModularPipelineBlocks.from_pretrained(PLACE, trust_remote_code=True)
pipe = blocks.init_pipeline(PLACE)
pipe.load_components()
pipe(prompt="a red circle left of a blue square", output="images")[0].save("picture.png")
"""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers import ModularPipelineBlocks, SequentialPipelineBlocks
from diffusers.modular_pipelines import ComponentSpec, InputParam

from lavi_bridge.export.written.half import TextHalf

FAMILY = "StableDiffusionXLAutoBlocks"
WHOLE = getattr(diffusers, FAMILY)()
STOCK = WHOLE.sub_blocks["text_encoder"]
ENCODERS = ("text_encoder", "tokenizer")


class ReadPrompts(ModularPipelineBlocks):
    """Reads prompts as the bridge was trained to; hands on what the family's own text step does."""

    model_name = STOCK.model_name

    @property
    def expected_components(self) -> list[Any]:
        kept = [one for one in STOCK.expected_components if not one.name.startswith(ENCODERS)]
        return [*kept, ComponentSpec("text_half", TextHalf)]

    @property
    def expected_configs(self) -> list[Any]:
        return list(STOCK.expected_configs)

    @property
    def inputs(self) -> list[Any]:
        return [InputParam("prompt", required=True), InputParam("negative_prompt", default="")]

    @property
    def intermediate_outputs(self) -> list[Any]:
        return list(STOCK.intermediate_outputs)

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """Encode the prompts of `state`; the text half is loaded with the first ones."""
        if components.text_half is None:
            place = components._pretrained_model_name_or_path
            half = TextHalf.from_pretrained(
                place, subfolder="prompt_processor", dtype=components.dtype
            )
            components.update_components(text_half=half.to(components.device))
        block_state, wanted = (
            self.get_block_state(state),
            {o.name for o in self.intermediate_outputs},
        )
        prompts, negative = (
            [one] if isinstance(one, str) else list(one)
            for one in (block_state.prompt, block_state.negative_prompt or "")
        )
        for sign, texts in (("", prompts), ("negative_", negative)):
            text = components.text_half(texts)
            times, ones = len(prompts) // len(texts), text.hidden.new_ones(text.hidden.shape[:2])
            given = {
                "prompt_embeds": text.hidden.to(components.dtype),
                "pooled_prompt_embeds": text.pooled,
                "prompt_embeds_mask": ones.long() if text.mask is None else text.mask,
            }
            for name, tensor in given.items():
                if sign + name in wanted:
                    setattr(block_state, sign + name, tensor.repeat_interleave(times, 0))
        self.set_block_state(state, block_state)
        return components, state


class LaViBridgeBlocks(SequentialPipelineBlocks):
    """The family's whole pipeline, with this text step."""

    model_name = STOCK.model_name
    block_classes = [ReadPrompts, *list(type(WHOLE).block_classes)[1:]]
    block_names = list(type(WHOLE).block_names)

    @property
    def outputs(self) -> list[Any]:
        return list(WHOLE.outputs)
