"""PixArt-α and PixArt-Σ: the paper's Transformer(PixArt).

Text is masked, in the transformer and in the language model. The published checkpoint calls its
transformer by the older name `Transformer2DModel`; the weights are the same.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lavi_bridge.files.locate import Place
from lavi_bridge.text import Text
from lavi_bridge.visions.base import VISIONS, Comfy, Padding, Vision
from lavi_bridge.visions.noise.process import Process


class Positions:
    """Hooks that keep the table of positions for each size of picture but the model's own.

    diffusers would compute it anew, in float64, in every call.
    """

    def __init__(self) -> None:
        self.tables: dict[tuple[int, int, torch.device], Tensor] = {}
        self.own: tuple[int, int, Tensor] | None = None

    def give(self, module: Any, inputs: tuple[Tensor]) -> None:
        """Before the call: lend the module the size's table."""
        height, width = (side // module.patch_size for side in inputs[0].shape[-2:])
        if (height, width) == (module.height, module.width) or inputs[0].is_meta:
            return
        key = height, width, inputs[0].device
        if key not in self.tables:
            self.tables[key] = _table(module, height, width, inputs[0].device)
        self.own = module.height, module.width, module.pos_embed
        module.height, module.width, module.pos_embed = height, width, self.tables[key]

    def take_back(self, module: Any, _inputs: object, _output: object) -> None:
        """After it: its own again."""
        if self.own is not None:
            module.height, module.width, module.pos_embed = self.own
            self.own = None


def _table(module: Any, height: int, width: int, device: torch.device) -> Tensor:
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    made: Tensor = get_2d_sincos_pos_embed(
        module.pos_embed.shape[-1],
        (height, width),
        base_size=module.base_size,
        interpolation_scale=module.interpolation_scale,
        device=device,
        output_type="pt",
    )
    return made.float().unsqueeze(0)


@VISIONS.register("PixArtAlphaPipeline")
class PixArtAlpha(Vision):
    """LoRA on the attentions (the published list names GEGLU too, which PixArt does not have)."""

    backbone_class: ClassVar[str] = "PixArtTransformer2DModel"
    default_tokens: ClassVar[int] = 120
    padding: ClassVar[Padding] = "masked"
    lora_targets: ClassVar[str] = r".*attn\d\.(to_q|to_k|to_v|to_out\.0)"
    paper_sampling: ClassVar[tuple[int, float] | None] = 50, 7.5
    pipeline_class: ClassVar[str] = "PixArtAlphaPipeline"
    stock_text: ClassVar[dict[str, Any] | None] = {}
    comfyui_names: ClassVar[Comfy] = "pixart"

    def __init__(self, backbone: nn.Module, vae: nn.Module, process: Process, place: Place) -> None:
        super().__init__(backbone, vae, process, place)
        positions = Positions()
        self.backbone.pos_embed.register_forward_pre_hook(positions.give)
        self.backbone.pos_embed.register_forward_hook(positions.take_back, always_call=True)

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        return self.backbone(
            x_t,
            encoder_hidden_states=text.hidden,
            encoder_attention_mask=text.mask,
            timestep=timesteps,
            added_cond_kwargs=self._size(x_t),
        ).sample

    def _size(self, x_t: Tensor) -> dict[str, Any]:
        """The 1024-px checkpoints are told the image's size; the smaller ones are not."""
        if not self.backbone.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (side * self.scale for side in x_t.shape[-2:])
        # filled on the device: numbers from the host would be copied, and waited for
        sides = [x_t.new_full((len(x_t), 1), side) for side in (height, width)]
        resolution, ratio = torch.cat(sides, 1), x_t.new_full((len(x_t), 1), height / width)
        return {"resolution": resolution, "aspect_ratio": ratio}


@VISIONS.register("PixArtSigmaPipeline")
class PixArtSigma(PixArtAlpha):
    """Trained on longer captions; never told the image's size."""

    default_tokens: ClassVar[int] = 300
    pipeline_class: ClassVar[str] = "PixArtSigmaPipeline"
