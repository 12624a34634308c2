"""T5, mT5 and UMT5 encoders: the paper's T5-Small, -Base and -Large."""

from typing import Any, ClassVar

from torch import Tensor

from lavi_bridge.languages.base import LANGUAGES, Language


@LANGUAGES.register("t5", "mt5", "umt5")
class T5(Language):
    """Relative positions, so no limit on length; LoRA on q, k, v, o of every self-attention."""

    model_class: ClassVar[str] = "AutoModelForTextEncoding"
    lora_targets: ClassVar[str] = r".*SelfAttention\.(q|k|v|o)"
    float16_safe: ClassVar[bool] = False

    def _mask(self, mask: Tensor) -> Any:
        return self._prepared(mask, "create_bidirectional_mask")
