"""The configs of diffusers' modules, from the shapes of tensors in the published layouts.

Each says in a comment which of its values no shape tells.
"""

from __future__ import annotations

from typing import Any

from lavi_bridge.visions.single.checkpoint import Shapes, count

HEAD = 64
"""Width of an attention head of SD 2.x, SDXL and SD3."""


def unet(shapes: Shapes) -> dict[str, Any]:
    """A U-Net of latent diffusion (arXiv 2112.10752): SD 1.x, SD 2.x and SDXL."""
    blocks = count(shapes, "input_blocks.{}.")
    ends = [i for i in range(blocks) if f"input_blocks.{i}.0.op.weight" in shapes] + [blocks]
    starts = [1, *(end + 1 for end in ends[:-1])]
    widths = [shapes[f"input_blocks.{i}.0.out_layers.3.weight"][0] for i in starts]
    depths = [count(shapes, f"input_blocks.{i}.1.transformer_blocks." + "{}.") for i in starts]
    middle = "middle_block.1."
    # linear projections came with heads of one width; before, there were 8 of any width
    linear = len(shapes[f"{middle}proj_in.weight"]) == 2
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths]
    up = ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in depths]
    deepest = count(shapes, middle + "transformer_blocks.{}.")
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,  # no shape tells
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": ends[0] - starts[0],
        "down_block_types": down,
        "up_block_types": up[::-1],
        # the middle has as many as the last stage, which may itself have none and not be asked
        "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-1]), deepest],
        "cross_attention_dim": shapes[f"{middle}transformer_blocks.0.attn2.to_k.weight"][1],
        "attention_head_dim": [width // HEAD for width in widths] if linear else 8,
        "use_linear_projection": linear,
    }


def unet_xl(shapes: Shapes) -> dict[str, Any]:
    """SDXL's U-Net: the same, told a pooled text and six numbers of the size."""
    return unet(shapes) | {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,  # of each number: no shape tells
        "projection_class_embeddings_input_dim": shapes["label_emb.0.0.weight"][1],
        "sample_size": 128,
    }


def sd3(shapes: Shapes) -> dict[str, Any]:
    """SD3 and SD3.5 (arXiv 2403.03206): an MMDiT."""
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    normed = "joint_blocks.0.x_block.attn.ln_q.weight" in shapes
    layers = count(shapes, "joint_blocks.{}.")
    dual = [i for i in range(layers) if f"joint_blocks.{i}.x_block.attn2.qkv.weight" in shapes]
    return {
        "_class_name": "SD3Transformer2DModel",
        "sample_size": 128,  # no shape tells
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": shapes["final_layer.linear.weight"][0] // patch**2,
        "num_layers": layers,
        "attention_head_dim": HEAD,
        "num_attention_heads": width // HEAD,
        "joint_attention_dim": shapes["context_embedder.weight"][1],
        "caption_projection_dim": shapes["context_embedder.weight"][0],
        "pooled_projection_dim": shapes["y_embedder.mlp.0.weight"][1],
        "pos_embed_max_size": round(shapes["pos_embed"][1] ** 0.5),
        "dual_attention_layers": dual,
        "qk_norm": "rms_norm" if normed else None,
    }


def flux(shapes: Shapes) -> dict[str, Any]:
    """FLUX.1: blocks of two streams, then of one."""
    width, channels = shapes["img_in.weight"]
    head = shapes["double_blocks.0.img_attn.norm.key_norm.scale"][0]
    return {
        "_class_name": "FluxTransformer2DModel",
        "patch_size": 1,
        "in_channels": channels,
        "out_channels": shapes["final_layer.linear.weight"][0],
        "num_layers": count(shapes, "double_blocks.{}."),
        "num_single_layers": count(shapes, "single_blocks.{}."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes["txt_in.weight"][1],
        "pooled_projection_dim": shapes["vector_in.in_layer.weight"][1],
        "guidance_embeds": "guidance_in.in_layer.weight" in shapes,
        "axes_dims_rope": [head // 8, head // 16 * 7, head // 16 * 7],  # no shape tells
    }


def autoencoder(shapes: Shapes) -> dict[str, Any]:
    """The autoencoder of all of these; its statistics are the family's."""
    stages = count(shapes, "encoder.down.{}.")
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": [
            shapes[f"encoder.down.{i}.block.0.conv2.weight"][0] for i in range(stages)
        ],
        "layers_per_block": count(shapes, "encoder.down.0.block.{}."),
        "down_block_types": ["DownEncoderBlock2D"] * stages,
        "up_block_types": ["UpDecoderBlock2D"] * stages,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }
