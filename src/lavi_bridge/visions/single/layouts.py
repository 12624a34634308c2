"""The image models that are known as one file: how each is told, and what no shape says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lavi_bridge.errors import BridgeError
from lavi_bridge.visions.single import configs
from lavi_bridge.visions.single.checkpoint import Checkpoint, Shapes

FRONT = "model.diffusion_model."
"""Begins the names of a backbone where other parts are beside it."""
VAE_FRONTS = ("first_stage_model.", "vae.")
NOISE = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
Told = Callable[[Checkpoint, Shapes], dict[str, Any]]


@dataclass(frozen=True)
class Layout:
    """A family as one file."""

    name: str
    pipeline: str
    folder: str
    signs: tuple[str, ...]
    """Tensors of the backbone that only this family has together."""
    backbone: Callable[[Shapes], dict[str, Any]]
    vae: dict[str, Any]
    """What the autoencoder's shapes do not say."""
    scheduler: Told


def diffusion(checkpoint: Checkpoint, shapes: Shapes) -> dict[str, Any]:
    """Noise, or velocity where the file says so; of SD 2.x, which comes as either, it must.

    `modelspec.*` is what trainers note in a file's metadata; `v_pred` and `ztsnr` are empty tensors
    by which community models tell velocity and a last step without signal.

    Raises:
        BridgeError: it does not; or the model is of EDM's process.
    """
    told = checkpoint.notes.get("modelspec.prediction_type", "").lower()
    velocity = told.startswith("v") or "v_pred" in checkpoint.shapes
    if any(name.startswith(("edm_mean", "edm_vpred")) for name in checkpoint.shapes):
        raise BridgeError(f"'{checkpoint.path}' has EDM's noise levels, which are not known here")
    second = shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1] == 1024
    if second and not (velocity or told.startswith("eps")):
        raise BridgeError(
            f"'{checkpoint.path}' is a Stable Diffusion 2.x, and nothing in it says whether it "
            "answers noise or velocity (modelspec.prediction_type); give the model's folder"
        )
    kind = {"prediction_type": "v_prediction" if velocity else "epsilon"}
    return NOISE | kind | ({"rescale_betas_zero_snr": True} if "ztsnr" in checkpoint.shapes else {})


def diffusion_xl(checkpoint: Checkpoint, shapes: Shapes) -> dict[str, Any]:
    """The same, sampled at other steps.

    Raises:
        BridgeError: it is the refiner.
    """
    if shapes["label_emb.0.0.weight"][1] == 2560:  # the base model has 2816
        raise BridgeError(
            f"'{checkpoint.path}' is SDXL's refiner, which ends another model's pictures; give a "
            "base model"
        )
    spacing = "trailing" if "ztsnr" in checkpoint.shapes else "leading"
    return diffusion(checkpoint, shapes) | {"timestep_spacing": spacing}


def flow(_checkpoint: Checkpoint, _shapes: Shapes) -> dict[str, Any]:
    """SD3's fixed shift."""
    return FLOW | {"shift": 3.0}


def flow_by_size(_checkpoint: Checkpoint, shapes: Shapes) -> dict[str, Any]:
    """Shifted by the number of image tokens where guidance is an input (dev); not in schnell."""
    if "guidance_in.in_layer.weight" not in shapes:
        return FLOW | {"shift": 1.0, "use_dynamic_shifting": False}
    tokens = {"base_image_seq_len": 256, "max_image_seq_len": 4096}
    shifts = {"shift": 3.0, "base_shift": 0.5, "max_shift": 1.15}
    return FLOW | tokens | shifts | {"use_dynamic_shifting": True}


LDM = ("input_blocks.0.0.weight", "middle_block.1.transformer_blocks.0.attn2.to_k.weight")
LAYOUTS = (  # the first that fits
    Layout(
        "SDXL",
        "StableDiffusionXLPipeline",
        "unet",
        (*LDM, "label_emb.0.0.weight"),
        configs.unet_xl,
        {"scaling_factor": 0.13025, "force_upcast": True, "sample_size": 1024},
        diffusion_xl,
    ),
    Layout(
        "Stable Diffusion 1.x and 2.x",
        "StableDiffusionPipeline",
        "unet",
        LDM,
        configs.unet,
        {"scaling_factor": 0.18215, "sample_size": 512},
        diffusion,
    ),
    Layout(
        "Stable Diffusion 3 and 3.5",
        "StableDiffusion3Pipeline",
        "transformer",
        ("joint_blocks.0.x_block.attn.qkv.weight", "pos_embed", "y_embedder.mlp.0.weight"),
        configs.sd3,
        {"scaling_factor": 1.5305, "shift_factor": 0.0609, "sample_size": 1024},
        flow,
    ),
    Layout(
        "FLUX.1",
        "FluxPipeline",
        "transformer",
        (
            "double_blocks.0.img_attn.norm.key_norm.scale",
            "single_blocks.0.linear1.weight",
            "vector_in.in_layer.weight",  # Chroma and FLUX.2 read no pooled vector
        ),
        configs.flux,
        {"scaling_factor": 0.3611, "shift_factor": 0.1159, "sample_size": 1024},
        flow_by_size,
    ),
)
BACKBONES = (FRONT, "double_blocks.", "model.double_layers.")
"""Begin the names of a backbone, of a known family or not."""
FIRST = ("down_blocks.", "transformer_blocks.")
"""Marks that tell something at the beginning of a name alone."""
OTHERS = {  # what else a file may be -> names that tell it
    "a LoRA, which adds to a model and is none": ("lora_", ".lora", "hada_w1", "lokr_w"),
    "a ControlNet, which steers a model and is none": ("control_model.", "controlnet_"),
    "one part of a model's folder (the one to give has a model_index.json)": (*FIRST,),
    "an autoencoder alone": ("encoder.down.", "first_stage_model."),
    "a text encoder alone": ("text_model.", "encoder.block.", "cond_stage_model.", "model.layers."),
}


def recognise(checkpoint: Checkpoint) -> tuple[Layout, str]:
    """The family of a file, and what begins the names of its backbone.

    Raises:
        BridgeError: it holds no image model that is known.
    """
    for front in (FRONT, ""):
        shapes = checkpoint.part(front)
        for layout in LAYOUTS:
            if all(sign in shapes for sign in layout.signs):
                return layout, front
    names = list(checkpoint.shapes)
    whole = any(name.startswith(BACKBONES) for name in names)
    told = (
        what
        for what, marks in OTHERS.items()
        if any(m in name if m not in FIRST else name.startswith(m) for name in names for m in marks)
        and not (whole and what.endswith("alone"))
    )
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise BridgeError(
        f"'{checkpoint.path}' is {next(told, 'no image model that is known as one file')}; known "
        f"as one .safetensors file, in the layout first published: {known}"
    )
