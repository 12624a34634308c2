"""The bundled image models: what they begin as, how they learn, and how they are saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.files.atomic import write_text
from lavi_bridge.shapes.grammar import vocabulary
from lavi_bridge.zoo.making import tokens
from lavi_bridge.zoo.making.fitting import Objective
from lavi_bridge.zoo.making.image import Autoencoding, Denoising, Latents, SameStates
from lavi_bridge.zoo.making.language_models import clip_config
from lavi_bridge.zoo.making.stages import Context, anew, write_card
from lavi_bridge.zoo.making.text import (
    save_half,
)

NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "steps_offset": 1,
}


def begin_vae(context: Context) -> Objective:
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            block_out_channels=(16, 32, 64),
            norm_num_groups=8,
            latent_channels=4,
            sample_size=64,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
        )
    return Autoencoding(vae.to(context.device))


def save_vae(context: Context, task: Objective) -> None:
    assert isinstance(task, Autoencoding)
    task.set_scale()
    with anew(context.work("tiny-sd") / "autoencoder") as folder:
        save_half(task.vae, folder)


UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (32, 64, 128),
    "norm_num_groups": 16,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 64,
}
PRUNED: dict[str, Any] = UNET | {"mid_block_type": None}
"""tiny-sd's U-Net without its middle: 3.2 M of 4.1 M parameters. Cutting the text attentions of
the lowest rise as well would cost it which colour belongs to which shape."""
TRANSFORMER: dict[str, Any] = {
    "sample_size": 16,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 6,
    "num_attention_heads": 5,
    "attention_head_dim": 32,
    "cross_attention_dim": 160,
    "caption_channels": 64,
    "use_additional_conditions": False,
}


def _write_pipeline(
    folder: Path, pipeline: str, parts: dict[str, Any], vae: Path, vae_folder: str
) -> None:
    """Write a pipeline folder in diffusers' layout, weights in float16."""
    import diffusers

    tokenizer = parts["tokenizer"]
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    for part, model in parts.items():
        library = type(model).__module__.partition(".")[0]
        if type(model).__name__ == "LDMBertModel":
            library = "latent_diffusion"
        index[part] = [library, type(model).__name__]
        if model is not tokenizer:
            save_half(model, folder / part)
    tokenizer.model_max_length = 120 if pipeline.startswith("PixArt") else 77
    if pipeline.startswith("Stable"):
        tokenizer.model_max_length = 32
        index |= {part: [None, None] for part in ("safety_checker", "feature_extractor")}
        index["image_encoder"] = [None, None]
        index["requires_safety_checker"] = False
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    tokenizer.save_pretrained(folder / "tokenizer")
    shutil.copytree(vae, folder / vae_folder, dirs_exist_ok=True)
    index[vae_folder] = ["diffusers", "AutoencoderKL"]
    index["scheduler"] = ["diffusers", "DDPMScheduler"]
    diffusers.DDPMScheduler(**NOISE).save_pretrained(folder / "scheduler")
    write_text(folder / "model_index.json", json.dumps(index, indent=2) + "\n")


def _words() -> Any:
    return tokens.words([" ".join(vocabulary())], 100)


def start_sd(context: Context, folder: Path) -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    tokenizer = _words()
    parts = {
        "unet": UNet2DConditionModel(**UNET),
        "text_encoder": CLIPTextModel(clip_config(tokenizer)),
        "tokenizer": tokenizer,
    }
    vae = context.work("tiny-sd") / "autoencoder"
    _write_pipeline(folder, "StableDiffusionPipeline", parts, vae, "vae")


def start_ldm(context: Context, folder: Path) -> None:
    from diffusers import UNet2DConditionModel
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
        LDMBertConfig,
        LDMBertModel,
    )

    tokenizer = _words()
    text = LDMBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=77,
        encoder_layers=2,
        encoder_ffn_dim=256,
        encoder_attention_heads=4,
        head_dim=16,
        d_model=64,
        dropout=0.0,
        pad_token_id=0,
    )
    base = context.base("tiny-sd")
    unet = UNet2DConditionModel(**PRUNED)
    inherited = UNet2DConditionModel.from_pretrained(base / "unet", dtype=torch.float32)
    kept = unet.state_dict()
    unet.load_state_dict({k: v for k, v in inherited.state_dict().items() if k in kept})
    parts = {"unet": unet, "bert": LDMBertModel(text), "tokenizer": tokenizer}
    _write_pipeline(folder, "LDMTextToImagePipeline", parts, base / "vae", "vqvae")


def start_pixart(context: Context, folder: Path) -> None:
    from diffusers import PixArtTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    tokenizer = _words()
    text = T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=2,
        is_encoder_decoder=False,
        use_cache=False,
    )
    transformer = PixArtTransformer2DModel(**TRANSFORMER)
    as_published(transformer)
    parts = {
        "transformer": transformer,
        "text_encoder": T5EncoderModel(text),
        "tokenizer": tokenizer,
    }
    base = context.base("tiny-sd")
    _write_pipeline(folder, "PixArtAlphaPipeline", parts, base / "vae", "vae")


@torch.no_grad()
def as_published(transformer: Any) -> None:
    """First weights as PixArt's own code draws them: text and output begin at zero.

    diffusers leaves torch's defaults, with which a small model hardly starts to learn.
    """
    for name, parameter in transformer.named_parameters():
        if parameter.ndim == 2 and "scale_shift" not in name:
            torch.nn.init.xavier_uniform_(parameter)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        if name.endswith("weight") and ("timestep_embedder" in name or "adaln" in name):
            torch.nn.init.normal_(parameter, std=0.02)
        if "attn2.to_out" in name or name.startswith("proj_out"):
            torch.nn.init.zeros_(parameter)


def begin_image(
    name: str,
    start: Callable[[Context, Path], None],
    *,
    teacher: str | None = None,
    states: bool = False,
    folder: str = "first",
    **options: Any,
) -> Callable[[Context], Objective]:
    """The task of one image model: `start` writes it with its first weights, into work/`folder`.

    `options` are those of `Denoising`.
    """

    def task(context: Context) -> Objective:
        first = context.work(name) / folder
        if not first.is_dir():
            with torch.random.fork_rng(devices=[]), anew(first) as made:
                torch.manual_seed(0)
                start(context, made)
        student = Bridge.own(first, dtype="float32", device=context.device)
        data = Latents(student.vision, context.out / "work", blocks=context.blocks)
        guide = None
        if teacher:
            guide = Bridge.own(context.base(teacher), dtype="float32", device=context.device)
        if states:
            assert guide is not None
            return SameStates(student, guide, data)
        return Denoising(student, data, teacher=guide, **options)

    return task


def go_on(name: str) -> Callable[[Context, Path], None]:
    """Begin with what an earlier stage has finished."""

    def start(context: Context, folder: Path) -> None:
        shutil.copytree(context.out / name, folder, dirs_exist_ok=True)

    return start


def save_states(name: str) -> Callable[[Context, Objective], None]:
    def finish(context: Context, task: Objective) -> None:
        assert isinstance(task, SameStates)
        student = task.student
        folder = context.work(name) / "first" / student.vision.own_text_folder
        save_half(student.language.model, folder)

    return finish


def save_image(name: str, about: str) -> Callable[[Context, Objective], None]:
    def finish(context: Context, task: Objective) -> None:
        assert isinstance(task, Denoising)
        vision, language = task.student.vision, task.student.language
        with anew(context.out / name) as folder:
            shutil.copytree(vision.place.root, folder, dirs_exist_ok=True)
            save_half(vision.backbone, folder / vision.backbone_folder)
            save_half(language.model, folder / vision.own_text_folder)
            text = "It draws procedurally made shapes, 64 × 64 px."
            write_card(folder, name, "diffusers", about, text)

    return finish
