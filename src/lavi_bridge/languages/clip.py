"""CLIP's text tower: the text encoder that Stable Diffusion was trained with."""

from typing import ClassVar

from lavi_bridge.languages.base import LANGUAGES, Language


@LANGUAGES.register("clip_text_model", "clip")
class CLIPText(Language):
    """`last_hidden_state`, that is with the final norm, as Stable Diffusion reads it."""

    model_class: ClassVar[str] = "CLIPTextModel"
    lora_targets: ClassVar[str] = r".*self_attn\.(q_proj|k_proj|v_proj|out_proj)"
