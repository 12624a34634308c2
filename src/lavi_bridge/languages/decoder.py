"""Decoder-only models (Llama, Mistral, Qwen, Gemma): the paper's Llama-2.

The features are the last hidden states after the final norm, which is `hidden_states[-1]` in the
published code. Causal attention makes them independent of padding on the right.
"""

from typing import Any, ClassVar

from lavi_bridge.languages.base import LANGUAGES, Language


@LANGUAGES.register(
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"
)  # fmt: skip
class Decoder(Language):
    """LoRA on the four projections of every self-attention; the paper pads Llama-2 with unk."""

    lora_targets: ClassVar[str] = r".*self_attn\.(q_proj|k_proj|v_proj|o_proj)"
    pads: ClassVar[tuple[str, ...]] = ("unk", "eos", "bos")

    @classmethod
    def prepare(cls, model: Any) -> Any:
        """Switch the key-value cache off: a prompt is read once."""
        model.config.use_cache = False
        return model


@LANGUAGES.register("phi3")
class Phi3(Decoder):
    """Query, key and value are one fused projection."""

    lora_targets: ClassVar[str] = r".*self_attn\.(qkv_proj|o_proj)"
