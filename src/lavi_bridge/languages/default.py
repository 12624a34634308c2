"""Any other text model that transformers can load: last hidden states, LoRA on its attention."""

import re
from typing import Any, ClassVar

from torch import nn

from lavi_bridge.languages.base import LANGUAGES, Language


@LANGUAGES.register("default")
class AnyLanguage(Language):
    """Finds the attention projections by class name; all linear layers where there are none."""

    shortens: ClassVar[bool] = False  # some count their layers otherwise than by the list of them

    @classmethod
    def prepare(cls, model: Any) -> Any:
        """Keep what reads the prompt: the encoder, or the text part of a multi-modal model."""
        model = getattr(model, "language_model", model)
        model = model.get_encoder() if model.config.is_encoder_decoder else model
        model.config.use_cache = False  # a prompt is read once
        return model

    @property
    def lora_targets(self) -> str:  # type: ignore[override]
        layers = {n for n, m in self.model.named_modules() if _linear(m) and ".lora_" not in n}
        owners = [n for n, m in self.model.named_modules() if "Attention" in type(m).__name__]
        inside = {n for n in layers if any(n.startswith(f"{owner}.") for owner in owners)}
        # one alternative a kind of layer, whatever its depth: encoder.layer.\d+.attention.query
        kinds = {re.sub(r"\d+", r"\\d+", re.escape(name)) for name in inside or layers}
        return "|".join(sorted(kinds))


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's
