"""Kolors: SDXL's U-Net, taught to read ChatGLM3, whose states it projects by itself."""

from typing import Any, ClassVar

from lavi_bridge.visions.base import VISIONS, Comfy
from lavi_bridge.visions.sdxl import StableDiffusionXL


@VISIONS.register("KolorsPipeline")
class Kolors(StableDiffusionXL):
    """ChatGLM masks its padding; the U-Net reads all of it."""

    other_inputs: ClassVar[tuple[str, ...]] = ("class_embed_type", "num_class_embeds")
    text_config: ClassVar[str] = "encoder_hid_dim"
    default_tokens: ClassVar[int] = 256
    own_tokenizer: ClassVar[str | None] = None  # ChatGLM pads on the left
    pipeline_class: ClassVar[str] = "KolorsPipeline"
    modular_class: ClassVar[str | None] = None
    comfyui_names: ClassVar[Comfy] = None
    pipeline_options: ClassVar[dict[str, Any]] = {}
