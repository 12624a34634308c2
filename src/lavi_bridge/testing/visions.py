"""Tiny image models: a pipeline class, its parts with their configs, and a scheduler each."""

from __future__ import annotations

from typing import Any

from lavi_bridge.testing.backbones import (
    AURAFLOW,
    BRIA,
    CHROMA,
    COGVIEW4,
    FLUX,
    FLUX2,
    HIDREAM,
    HUNYUAN_DIT,
    KREA2,
    LUMINA2,
    OVIS,
    PIXART,
    PIXART_1024,
    PRX,
    QWEN_IMAGE,
    SANA,
    SD3,
    UNET,
    WAN,
    XL,
    Z_IMAGE,
)

_KL = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "sample_size": 16,
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
        {"unet": ("UNet2DConditionModel", UNET), "vae": ("AutoencoderKL", _KL)},
        ("PNDMScheduler", _SD_NOISE | {"skip_prk_steps": True, "set_alpha_to_one": False}),
    ),
    "sd2-v": (
        "StableDiffusionPipeline",
        {
            "unet": ("UNet2DConditionModel", UNET | {"use_linear_projection": True}),
            "vae": ("AutoencoderKL", _KL),
        },
        ("DDIMScheduler", _SD_NOISE | {"prediction_type": "v_prediction"}),
    ),
    "ldm": (
        "LDMTextToImagePipeline",
        {"unet": ("UNet2DConditionModel", UNET), "vqvae": ("AutoencoderKL", _KL)},
        ("DDIMScheduler", _SD_NOISE | {"clip_sample": False}),
    ),
    "pixart-alpha": (
        "PixArtAlphaPipeline",
        {"transformer": ("PixArtTransformer2DModel", PIXART), "vae": ("AutoencoderKL", _KL)},
        ("DPMSolverMultistepScheduler", {"beta_start": 0.0001, "beta_end": 0.02}),
    ),
    "pixart-sigma": (
        "PixArtSigmaPipeline",
        {"transformer": ("PixArtTransformer2DModel", PIXART), "vae": ("AutoencoderKL", _KL)},
        ("DPMSolverMultistepScheduler", {"beta_start": 0.0001, "beta_end": 0.02}),
    ),
    "pixart-alpha-1024": (  # told the image's size, as the 1024-px checkpoints are
        "PixArtAlphaPipeline",
        {
            "transformer": ("PixArtTransformer2DModel", PIXART_1024),
            # latents are 128 wide, as the pipeline knows them by: attention there takes seconds
            "vae": ("AutoencoderKL", _KL | {"mid_block_add_attention": False}),
        },
        ("DPMSolverMultistepScheduler", {"beta_start": 0.0001, "beta_end": 0.02}),
    ),
    "sana": (
        "SanaPipeline",
        {"transformer": ("SanaTransformer2DModel", SANA), "vae": ("AutoencoderDC", _DC)},
        (
            "DPMSolverMultistepScheduler",
            {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
        ),
    ),
    "sdxl": (
        "StableDiffusionXLPipeline",
        {"unet": ("UNet2DConditionModel", XL), "vae": ("AutoencoderKL", _KL8)},
        ("EulerDiscreteScheduler", _SD_NOISE),
    ),
    "sdxl-statistics": (  # an autoencoder whose channels have statistics of their own
        "StableDiffusionXLPipeline",
        {
            "unet": ("UNet2DConditionModel", XL),
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
                XL | {"encoder_hid_dim": 28, "encoder_hid_dim_type": "text_proj"},
            ),
            "vae": ("AutoencoderKL", _KL8),
        },
        ("EulerDiscreteScheduler", _SD_NOISE),
    ),
    "sd3": _flow("StableDiffusion3Pipeline", "SD3Transformer2DModel", SD3, {"shift": 3.0}),
    "flux-dev": _flow(
        "FluxPipeline",
        "FluxTransformer2DModel",
        FLUX | {"pooled_projection_dim": 20, "guidance_embeds": True},
        _DYNAMIC,
    ),
    "flux-schnell": _flow(
        "FluxPipeline",
        "FluxTransformer2DModel",
        FLUX | {"pooled_projection_dim": 20},
        {"shift": 1.0},
    ),
    "flux2": _flow(
        "Flux2Pipeline",
        "Flux2Transformer2DModel",
        FLUX2,
        _DYNAMIC,
        ("AutoencoderKLFlux2", _KL8 | {"latent_channels": 8}),
    ),
    "flux2-klein": _flow(
        "Flux2KleinPipeline",
        "Flux2Transformer2DModel",
        FLUX2 | {"guidance_embeds": False},
        _DYNAMIC,
        ("AutoencoderKLFlux2", _KL8 | {"latent_channels": 8}),
    ),
    "chroma": _flow("ChromaPipeline", "ChromaTransformer2DModel", CHROMA, _DYNAMIC),
    "lumina2": _flow("Lumina2Pipeline", "Lumina2Transformer2DModel", LUMINA2, {"shift": 6.0}),
    "qwen-image": _flow(
        "QwenImagePipeline",
        "QwenImageTransformer2DModel",
        QWEN_IMAGE,
        _DYNAMIC
        | {"shift": 1.0, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02},
        ("AutoencoderKLQwenImage", _VIDEO),
    ),
    "z-image": _flow("ZImagePipeline", "ZImageTransformer2DModel", Z_IMAGE, {"shift": 3.0}),
    "auraflow": _flow(
        "AuraFlowPipeline",
        "AuraFlowTransformer2DModel",
        AURAFLOW,
        {"shift": 1.73},
        ("AutoencoderKL", _KL8),
    ),
    "cogview4": _flow(
        "CogView4Pipeline",
        "CogView4Transformer2DModel",
        COGVIEW4,
        {
            "use_dynamic_shifting": True,
            "base_shift": 0.25,
            "max_shift": 0.75,
            "time_shift_type": "linear",
        },
        ("AutoencoderKL", _KL16 | {"shift_factor": None}),
    ),
    "ovis": _flow("OvisImagePipeline", "OvisImageTransformer2DModel", OVIS, _DYNAMIC),
    "bria": _flow("BriaPipeline", "BriaTransformer2DModel", BRIA, _DYNAMIC),
    "bria-fixed": _flow("BriaPipeline", "BriaTransformer2DModel", BRIA, {"shift": 3.0}),
    "longcat": _flow(  # its pipeline draws 16 channels, whatever the autoencoder has
        "LongCatImagePipeline",
        "LongCatImageTransformer2DModel",
        FLUX | {"in_channels": 64, "pooled_projection_dim": 24},
        _DYNAMIC,
        ("AutoencoderKL", _KL16 | {"latent_channels": 16}),
    ),
    "krea2": _flow(
        "Krea2Pipeline",
        "Krea2Transformer2DModel",
        KREA2,
        _DYNAMIC | {"max_image_seq_len": 6400},
        ("AutoencoderKLQwenImage", _VIDEO),
    ),
    "hunyuan-dit": (
        "HunyuanDiTPipeline",
        {"transformer": ("HunyuanDiT2DModel", HUNYUAN_DIT), "vae": ("AutoencoderKL", _KL8)},
        ("DDPMScheduler", _SD_NOISE | {"beta_end": 0.018, "prediction_type": "v_prediction"}),
    ),
    "hidream": _flow("HiDreamImagePipeline", "HiDreamImageTransformer2DModel", HIDREAM, _DYNAMIC),
    "wan": (
        "WanPipeline",
        {"transformer": ("WanTransformer3DModel", WAN), "vae": ("AutoencoderKLWan", _VIDEO)},
        (
            "UniPCMultistepScheduler",
            {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
        ),
    ),
    "prx": _flow("PRXPipeline", "PRXTransformer2DModel", PRX, {"shift": 3.0}),
}
