"""Tiny image models: a pipeline class, its parts with their configs, and a scheduler each."""

from __future__ import annotations

from typing import Any

_UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    "cross_attention_dim": 24,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
_KL = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "sample_size": 16,
}
_PIXART = {
    "sample_size": 8,
    "num_layers": 2,
    "patch_size": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "in_channels": 4,
    "out_channels": 8,
    "cross_attention_dim": 32,
    "caption_channels": 24,
}
_PIXART_1024 = _PIXART | {
    "sample_size": 128,
    "patch_size": 8,
    "attention_head_dim": 24,
    "cross_attention_dim": 48,
}
_DC = {
    "in_channels": 3,
    "latent_channels": 8,
    "attention_head_dim": 8,
    "encoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
    "decoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
    "encoder_block_out_channels": (8, 16, 16),
    "decoder_block_out_channels": (8, 16, 16),
    "encoder_layers_per_block": (1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1),
    "encoder_qkv_multiscales": ((), (), (5,)),
    "decoder_qkv_multiscales": ((), (), (5,)),
    "scaling_factor": 0.41407,
}
_SANA = {
    "sample_size": 8,
    "in_channels": 8,
    "out_channels": 8,
    "num_layers": 2,
    "patch_size": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": 24,
}
_SD_NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}

_KL8 = _KL | {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "sample_size": 64,
}
_KL16 = _KL8 | {
    "latent_channels": 8,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_VIDEO = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "latents_mean": [-0.7, 0.1, 0.4, -0.2],
    "latents_std": [2.8, 1.4, 2.3, 1.6],
}
_FLOW = "FlowMatchEulerDiscreteScheduler"
_DYNAMIC = {"use_dynamic_shifting": True, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15}
_XL = _UNET | {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 20,
    "transformer_layers_per_block": 1,
    "use_linear_projection": True,
}
_HEADS = {"attention_head_dim": 8, "num_attention_heads": 2}
_PATCHED = {"sample_size": 8, "patch_size": 2, "in_channels": 8}
_FLUX = _HEADS | {
    "in_channels": 32,
    "num_layers": 1,
    "num_single_layers": 1,
    "joint_attention_dim": 24,
    "axes_dims_rope": (2, 2, 4),
}
_SD3 = (
    _PATCHED
    | _HEADS
    | {
        "out_channels": 8,
        "num_layers": 2,
        "joint_attention_dim": 24,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 20,
        "pos_embed_max_size": 16,
        "qk_norm": "rms_norm",
        "dual_attention_layers": (0,),
    }
)
_LUMINA2 = _PATCHED | {
    "hidden_size": 24,
    "num_layers": 1,
    "num_refiner_layers": 1,
    "num_attention_heads": 2,
    "num_kv_heads": 1,
    "multiple_of": 8,
    "axes_dim_rope": (4, 4, 4),
    "axes_lens": (300, 32, 32),
    "cap_feat_dim": 24,
}
_QWEN_IMAGE = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 12,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (4, 4, 4),
}
_Z_IMAGE = {
    "in_channels": 8,
    "dim": 24,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": 24,
    "axes_dims": [4, 4, 4],
    "axes_lens": [512, 32, 32],
}
_AURAFLOW = _HEADS | {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_mmdit_layers": 1,
    "num_single_dit_layers": 1,
    "joint_attention_dim": 24,
    "caption_projection_dim": 16,
    "pos_embed_max_size": 64,
}
_COGVIEW4 = (
    _PATCHED
    | _HEADS
    | {
        "out_channels": 8,
        "num_layers": 2,
        "text_embed_dim": 24,
        "time_embed_dim": 16,
        "condition_dim": 8,
        "pos_embed_max_size": 16,
        "rope_axes_dim": (16, 16),
    }
)
_CHROMA = _FLUX | {
    "approximator_num_channels": 8,
    "approximator_hidden_dim": 16,
    "approximator_layers": 1,
}
_OVIS = _FLUX | {"out_channels": 32}
_WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 24,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}
_PRX = {
    "in_channels": 8,
    "patch_size": 2,
    "context_in_dim": 24,
    "hidden_size": 16,
    "num_heads": 2,
    "depth": 2,
    "axes_dim": [4, 4],
}

Part = tuple[str, dict[str, Any]]


def _flow(
    pipeline: str,
    transformer: str,
    config: dict[str, Any],
    noise: dict[str, Any],
    vae: Part = ("AutoencoderKL", _KL16),
) -> tuple[str, dict[str, Part], Part]:
    """A transformer that flow matching trains."""
    return pipeline, {"transformer": (transformer, config), "vae": vae}, (_FLOW, noise)


VISIONS: dict[str, tuple[str, dict[str, Part], Part]] = {
    # name: pipeline class, {folder: (diffusers class, config)}, scheduler
    "sd": (
        "StableDiffusionPipeline",
        {"unet": ("UNet2DConditionModel", _UNET), "vae": ("AutoencoderKL", _KL)},
        ("PNDMScheduler", _SD_NOISE | {"skip_prk_steps": True, "set_alpha_to_one": False}),
    ),
    "sd2-v": (
        "StableDiffusionPipeline",
        {
            "unet": ("UNet2DConditionModel", _UNET | {"use_linear_projection": True}),
            "vae": ("AutoencoderKL", _KL),
        },
        ("DDIMScheduler", _SD_NOISE | {"prediction_type": "v_prediction"}),
    ),
    "ldm": (
        "LDMTextToImagePipeline",
        {"unet": ("UNet2DConditionModel", _UNET), "vqvae": ("AutoencoderKL", _KL)},
        ("DDIMScheduler", _SD_NOISE | {"clip_sample": False}),
    ),
    "pixart-alpha": (
        "PixArtAlphaPipeline",
        {"transformer": ("PixArtTransformer2DModel", _PIXART), "vae": ("AutoencoderKL", _KL)},
        ("DPMSolverMultistepScheduler", {"beta_start": 0.0001, "beta_end": 0.02}),
    ),
    "pixart-sigma": (
        "PixArtSigmaPipeline",
        {"transformer": ("PixArtTransformer2DModel", _PIXART), "vae": ("AutoencoderKL", _KL)},
        ("DPMSolverMultistepScheduler", {"beta_start": 0.0001, "beta_end": 0.02}),
    ),
    "pixart-alpha-1024": (  # told the image's size, as the 1024-px checkpoints are
        "PixArtAlphaPipeline",
        {
            "transformer": ("PixArtTransformer2DModel", _PIXART_1024),
            "vae": ("AutoencoderKL", _KL),
        },
        ("DPMSolverMultistepScheduler", {"beta_start": 0.0001, "beta_end": 0.02}),
    ),
    "sana": (
        "SanaPipeline",
        {"transformer": ("SanaTransformer2DModel", _SANA), "vae": ("AutoencoderDC", _DC)},
        (
            "DPMSolverMultistepScheduler",
            {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
        ),
    ),
    "sdxl": (
        "StableDiffusionXLPipeline",
        {"unet": ("UNet2DConditionModel", _XL), "vae": ("AutoencoderKL", _KL8)},
        ("EulerDiscreteScheduler", _SD_NOISE),
    ),
    "sdxl-statistics": (  # an autoencoder whose channels have statistics of their own
        "StableDiffusionXLPipeline",
        {
            "unet": ("UNet2DConditionModel", _XL),
            "vae": (
                "AutoencoderKL",
                _KL8 | {"latents_mean": [-1.6, 0.3, 0.5, 0.1], "latents_std": [8.4, 5.9, 7.2, 5.1]},
            ),
        },
        ("EulerDiscreteScheduler", _SD_NOISE),
    ),
    "kolors": (
        "KolorsPipeline",
        {
            "unet": (
                "UNet2DConditionModel",
                _XL | {"encoder_hid_dim": 28, "encoder_hid_dim_type": "text_proj"},
            ),
            "vae": ("AutoencoderKL", _KL8),
        },
        ("EulerDiscreteScheduler", _SD_NOISE),
    ),
    "sd3": _flow("StableDiffusion3Pipeline", "SD3Transformer2DModel", _SD3, {"shift": 3.0}),
    "flux-dev": _flow(
        "FluxPipeline",
        "FluxTransformer2DModel",
        _FLUX | {"pooled_projection_dim": 20, "guidance_embeds": True},
        _DYNAMIC,
    ),
    "flux-schnell": _flow(
        "FluxPipeline",
        "FluxTransformer2DModel",
        _FLUX | {"pooled_projection_dim": 20},
        {"shift": 1.0},
    ),
    "chroma": _flow("ChromaPipeline", "ChromaTransformer2DModel", _CHROMA, _DYNAMIC),
    "lumina2": _flow("Lumina2Pipeline", "Lumina2Transformer2DModel", _LUMINA2, {"shift": 6.0}),
    "qwen-image": _flow(
        "QwenImagePipeline",
        "QwenImageTransformer2DModel",
        _QWEN_IMAGE,
        _DYNAMIC
        | {"shift": 1.0, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02},
        ("AutoencoderKLQwenImage", _VIDEO),
    ),
    "z-image": _flow("ZImagePipeline", "ZImageTransformer2DModel", _Z_IMAGE, {"shift": 3.0}),
    "auraflow": _flow(
        "AuraFlowPipeline",
        "AuraFlowTransformer2DModel",
        _AURAFLOW,
        {"shift": 1.73},
        ("AutoencoderKL", _KL8),
    ),
    "cogview4": _flow(
        "CogView4Pipeline",
        "CogView4Transformer2DModel",
        _COGVIEW4,
        {
            "use_dynamic_shifting": True,
            "base_shift": 0.25,
            "max_shift": 0.75,
            "time_shift_type": "linear",
        },
        ("AutoencoderKL", _KL16 | {"shift_factor": None}),
    ),
    "ovis": _flow("OvisImagePipeline", "OvisImageTransformer2DModel", _OVIS, _DYNAMIC),
    "wan": (
        "WanPipeline",
        {"transformer": ("WanTransformer3DModel", _WAN), "vae": ("AutoencoderKLWan", _VIDEO)},
        (
            "UniPCMultistepScheduler",
            {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
        ),
    ),
    "prx": _flow("PRXPipeline", "PRXTransformer2DModel", _PRX, {"shift": 3.0}),
}
