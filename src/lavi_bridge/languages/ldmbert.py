"""LDMBert: the text encoder that Latent Diffusion was trained with (CompVis/ldm-text2im-large-256).

transformers does not know it; the class comes with diffusers.
"""

from typing import Any, ClassVar

from torch import Tensor

from lavi_bridge.languages.base import LANGUAGES, Language


@LANGUAGES.register("ldmbert")
class LDMBert(Language):
    """Absolute positions, bidirectional; its pipeline never masks padding."""

    lora_targets: ClassVar[str] = r".*self_attn\.(q_proj|k_proj|v_proj|out_proj)"

    @classmethod
    def _model_class(cls) -> Any:
        from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel

        return LDMBertModel

    def _run(self, input_ids: Tensor, mask: Any, **options: bool) -> Any:
        # return_dict: without it the class asks for a deprecated setting, which warns
        return self.model(input_ids, attention_mask=mask, return_dict=True, **options)
