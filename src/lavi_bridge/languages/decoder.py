"""Decoder-only models (Llama, Mistral, Qwen, Gemma): the paper's Llama-2.

The features are the last hidden states after the final norm, which is `hidden_states[-1]` in the
published code. Causal attention makes them independent of padding on the right.
"""

from typing import Any, ClassVar

from torch import Tensor

from lavi_bridge.languages.base import LANGUAGES, Language


@LANGUAGES.register("llama", "mistral", "qwen2", "qwen3")
class Decoder(Language):
    """LoRA on the four projections of every self-attention; the paper pads Llama-2 with unk."""

    lora_targets: ClassVar[str] = r".*self_attn\.(q_proj|k_proj|v_proj|o_proj)"
    pads: ClassVar[tuple[str, ...]] = ("unk", "eos", "bos")

    @classmethod
    def prepare(cls, model: Any) -> Any:
        """Keep the text part of a multi-modal checkpoint; a prompt is read once, so no cache."""
        model = getattr(model, "language_model", model)
        model.config.use_cache = False
        return model

    def _mask(self, mask: Tensor) -> Any:
        if getattr(self.config, "use_bidirectional_attention", False):
            return super()._mask(mask)  # of embedding models, whose masks only they can make
        return self._prepared(mask, "create_masks_for_generate")


@LANGUAGES.register("gemma", "gemma2", "gemma3_text", "gemma3")
class Gemma(Decoder):
    """As the others, but its activations overflow in float16; the larger Gemma 3 see pictures."""

    float16_safe: ClassVar[bool] = False


@LANGUAGES.register("phi3")
class Phi3(Decoder):
    """Query, key and value are one fused projection."""

    lora_targets: ClassVar[str] = r".*self_attn\.(qkv_proj|o_proj)"
