"""Bidirectional encoders: BERT, RoBERTa and ModernBERT."""

from typing import Any, ClassVar

from torch import Tensor

from lavi_bridge.languages.base import LANGUAGES, Language


@LANGUAGES.register("bert")
class BERT(Language):
    """LoRA on query, key, value and the attention's output projection."""

    model_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": False}
    lora_targets: ClassVar[str] = r".*attention\.(self\.(query|key|value)|output\.dense)"

    def _mask(self, mask: Tensor) -> Any:
        return self._prepared(mask, "create_bidirectional_mask")


@LANGUAGES.register("roberta", "xlm-roberta")
class RoBERTa(BERT):
    """Positions start after the padding index, which shortens the longest text by it."""

    @property
    def max_tokens(self) -> int:
        return int(self.config.max_position_embeddings - self.config.pad_token_id - 1)


@LANGUAGES.register("modernbert")
class ModernBERT(Language):
    """Query, key and value are one fused projection."""

    lora_targets: ClassVar[str] = r".*attn\.(Wqkv|Wo)"
