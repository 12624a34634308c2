"""Latent Diffusion's first text-to-image model (CompVis/ldm-text2im-large-256): U-Net(LDM).

Its pipeline folder keeps the autoencoder under `vqvae` and the text encoder under `bert`.
diffusers' pipeline for it takes no prompt embeddings, so exports use Stable Diffusion's, which
runs the same modules.
"""

from typing import ClassVar

from lavi_bridge.visions.base import VISIONS, Comfy
from lavi_bridge.visions.sd_unet import StableDiffusionUNet


@VISIONS.register("LDMTextToImagePipeline")
class LatentDiffusionUNet(StableDiffusionUNet):
    vae_folder: ClassVar[str] = "vqvae"
    own_text_folder: ClassVar[str] = "bert"
    default_side: ClassVar[int] = 32
    comfyui_names: ClassVar[Comfy] = None

    def _tokens(self) -> int:
        return self.default_tokens
