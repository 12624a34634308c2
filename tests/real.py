"""The real sizes of the paper's models, as config-only folders in the Hub's layout.

Figures from the models' own config.json files on the Hub.
"""

import json
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

T5_LARGE = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 1024,
    "d_kv": 64,
    "d_ff": 4096,
    "num_layers": 24,
    "num_heads": 16,
    "vocab_size": 32128,
    "is_encoder_decoder": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
LLAMA2_7B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}
SD_UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
PIXART = {
    "_class_name": "Transformer2DModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "norm_elementwise_affine": False,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
    "sample_size": 512,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
NOISE = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def stable_diffusion(folder: Path) -> Path:
    write(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    write(folder / "unet" / "config.json", SD_UNET)
    write(folder / "vae" / "config.json", VAE)
    write(folder / "scheduler" / "scheduler_config.json", NOISE)
    return folder


def pixart(folder: Path) -> Path:
    write(folder / "model_index.json", {"_class_name": "PixArtAlphaPipeline"})
    write(folder / "transformer" / "config.json", PIXART)
    write(folder / "vae" / "config.json", VAE)
    write(folder / "scheduler" / "scheduler_config.json", NOISE)
    return folder


def language(folder: Path, config: dict[str, Any]) -> Path:
    write(folder / "config.json", config)
    return folder


class Kernels(TorchDispatchMode):
    """Notes the operations that launch a kernel, by name: all but views and empty memory."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        alias = func._schema.returns[0].alias_info if func._schema.returns else None
        view = alias is not None and not alias.is_write
        if not view and not name.startswith(("empty", "new_empty", "_unsafe_view", "detach")):
            self.names.append(name)
        return func(*args, **(kwargs or {}))
