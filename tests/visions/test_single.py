"""Image models in one file, in the layouts that they were first published in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.files.locate import locate
from lavi_bridge.visions import load_vision
from lavi_bridge.visions.single import configs
from lavi_bridge.visions.single.checkpoint import Checkpoint
from lavi_bridge.visions.single.layouts import FRONT, recognise
from tests import originals, real

Tiny = Callable[[str], Path]

WIDTHS = {"block_out_channels": [64, 128], "layers_per_block": 1, "cross_attention_dim": 24}
LEVELS = {
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
SD = {"sample_size": 8} | WIDTHS | LEVELS  # heads: 8, as all of SD 1.x
XL = WIDTHS | {
    "sample_size": 128,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [1, 2],
    "transformer_layers_per_block": [1, 2],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 6 * 256 + 20,
}
SD3 = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 8,
    "out_channels": 8,
    "num_layers": 2,
    "attention_head_dim": 64,
    "num_attention_heads": 1,
    "joint_attention_dim": 24,
    "caption_projection_dim": 64,
    "pooled_projection_dim": 20,
    "pos_embed_max_size": 16,
    "qk_norm": "rms_norm",
    "dual_attention_layers": [0],
}
KL = {
    "block_out_channels": [32, 32],
    "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}
KL_SD3 = KL | {
    "latent_channels": 8,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
NOISE = real.NOISE | {"set_alpha_to_one": False, "clip_sample": False}
XL_NOISE = NOISE | {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
TINY: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # name: pipeline, backbone's class, its config, the autoencoder's, the scheduler's
    "sd": ("StableDiffusionPipeline", "UNet2DConditionModel", SD, KL, NOISE),
    "sdxl": (
        "StableDiffusionXLPipeline",
        "UNet2DConditionModel",
        XL,
        KL | {"scaling_factor": 0.13025, "force_upcast": True},
        XL_NOISE,
    ),
    "sd3": ("StableDiffusion3Pipeline", "SD3Transformer2DModel", SD3, KL_SD3, FLOW),
}


def both(
    folder: Path,
    name: str,
    more: dict[str, Tensor] | None = None,
    notes: dict[str, str] | None = None,
) -> tuple[Path, Path]:
    """A tiny random model as a pipeline folder and as one file."""
    pipeline, kind, config, vae_config, noise = TINY[name]
    torch.manual_seed(0)
    backbone = getattr(diffusers, kind)(**config)
    vae = diffusers.AutoencoderKL(**vae_config)
    for parameter in backbone.parameters():  # some start at zero
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    part = "unet" if "UNet" in kind else "transformer"
    backbone.save_pretrained(folder / name / part)
    vae.save_pretrained(folder / name / "vae")
    real.write(folder / name / "model_index.json", {"_class_name": pipeline})
    real.write(folder / name / "scheduler" / "scheduler_config.json", noise)
    tensors = originals.unet(backbone) if part == "unet" else originals.sd3(backbone)
    tensors |= originals.autoencoder(vae, "first_stage_model.") | (more or {})
    file = folder / f"{name}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file, notes)
    return folder / name, file


@pytest.mark.parametrize("name", TINY)
def test_one_file_draws_the_picture_of_the_folder_that_it_was_made_of(
    tiny: Tiny, tmp_path: Path, name: str
) -> None:
    drawn = []
    for source in both(tmp_path, name):
        bridge = Bridge.connect(tiny("t5"), source, rank=2, device="cpu", dtype="float32")
        drawn += [i.tobytes() for i in bridge.generate("a circle", steps=2, height=16, width=16)]
    assert drawn[0] == drawn[1]


SD2_UNET = real.SD_UNET | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
XL_UNET = real.SD_UNET | {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD3_MEDIUM = SD3 | {
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
    "qk_norm": None,
    "dual_attention_layers": [],
}
SD35_MEDIUM = SD3_MEDIUM | {
    "pos_embed_max_size": 384,
    "qk_norm": "rms_norm",
    "dual_attention_layers": [*range(13)],
}
SD35_LARGE = SD3_MEDIUM | {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}
FLUX_DEV = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": [16, 56, 56],
}
PUBLISHED: dict[str, tuple[Any, dict[str, Any], Any, Any]] = {
    # name: class, config from the Hub, to the original layout, from its shapes to the config
    "SD 1.5": (diffusers.UNet2DConditionModel, real.SD_UNET, originals.unet, configs.unet),
    "SD 2.1": (diffusers.UNet2DConditionModel, SD2_UNET, originals.unet, configs.unet),
    "SDXL": (diffusers.UNet2DConditionModel, XL_UNET, originals.unet, configs.unet_xl),
    "SD3": (diffusers.SD3Transformer2DModel, SD3_MEDIUM, originals.sd3, configs.sd3),
    "SD3.5 M": (diffusers.SD3Transformer2DModel, SD35_MEDIUM, originals.sd3, configs.sd3),
    "SD3.5 L": (diffusers.SD3Transformer2DModel, SD35_LARGE, originals.sd3, configs.sd3),
    "FLUX dev": (diffusers.FluxTransformer2DModel, FLUX_DEV, originals.flux, configs.flux),
    "FLUX schnell": (
        diffusers.FluxTransformer2DModel,
        FLUX_DEV | {"guidance_embeds": False},
        originals.flux,
        configs.flux,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shapes_of_a_published_file_tell_its_published_config(name: str) -> None:
    """At the real size, without memory: and diffusers' converter gives that model's tensors."""
    kind, config, original, derive = PUBLISHED[name]
    with torch.device("meta"):
        model = kind(**{k: v for k, v in config.items() if not k.startswith("_")})
        tensors = original(model)
    shapes = {key.removeprefix(FRONT): tuple(t.shape) for key, t in tensors.items()}
    layout, front = recognise(
        Checkpoint(Path(name), {f"{FRONT}{k}": shapes[k] for k in shapes}, {})
    )
    assert (layout.backbone, front) == (derive, FRONT)
    found = derive(shapes)
    assert {key: found.get(key) for key in config} == config
    convert = SINGLE_FILE_LOADABLE_CLASSES[kind.__name__]["checkpoint_mapping_fn"]
    converted = convert(checkpoint=tensors, config=found)
    assert {k: t.shape for k, t in converted.items()} == {
        k: t.shape for k, t in model.state_dict().items()
    }


@pytest.mark.parametrize(
    ("channels", "latent", "quant", "front"),
    [(4, 4, True, "first_stage_model."), (16, 16, False, "vae.")],
)
def test_the_shapes_of_a_published_autoencoder_tell_its_config(
    channels: int, latent: int, quant: bool, front: str
) -> None:
    config = real.VAE | {
        "latent_channels": latent,
        "use_quant_conv": quant,
        "use_post_quant_conv": quant,
    }
    told = {k: v for k, v in config.items() if k not in ("scaling_factor", "sample_size")}
    with torch.device("meta"):
        model = diffusers.AutoencoderKL(**{k: v for k, v in config.items() if k[0] != "_"})
    tensors = originals.autoencoder(model, front)
    found = configs.autoencoder({k.removeprefix(front): tuple(t.shape) for k, t in tensors.items()})
    assert {key: found[key] for key in told} == told


def test_a_bridge_on_one_file_is_saved_and_loaded_and_knows_other_weights(
    tiny: Tiny, tmp_path: Path
) -> None:
    _, file = both(tmp_path, "sd")
    bridge = Bridge.connect(tiny("t5"), file, rank=2, device="cpu", dtype="float32")
    bridge.save(tmp_path / "bridge")
    assert Bridge.load(tmp_path / "bridge", device="cpu", dtype="float32").id == bridge.id
    key = f"{FRONT}out.2.bias"
    both(tmp_path, "sd", {key: torch.ones(4)})
    with pytest.raises(BridgeError, match="was trained on another vision model"):
        Bridge.load(tmp_path / "bridge", device="cpu", dtype="float32")


def test_what_else_is_in_the_file_changes_no_fingerprint(tmp_path: Path) -> None:
    def fingerprint(more: dict[str, Tensor]) -> str:
        _, file = both(tmp_path, "sd", more)
        return load_vision(locate(file), dtype=torch.float32).fingerprint

    encoder = {"cond_stage_model.transformer.text_model.final_layer_norm.bias": torch.ones(4)}
    assert fingerprint({}) == fingerprint(encoder)


def test_an_outline_needs_no_weights(tmp_path: Path) -> None:
    vision = load_vision(locate(both(tmp_path, "sdxl")[1]))
    assert (vision.device.type, vision.text_width, vision.pooled_width) == ("meta", 24, 20)
    assert vision.size == (128 * 2, 128 * 2)


def test_half_and_8_bit_weights_are_cast(tmp_path: Path) -> None:
    folder, file = both(tmp_path, "sd")
    key = f"{FRONT}input_blocks.0.0.weight"
    kept = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet").conv_in.weight.detach()
    both(tmp_path, "sd", {key: kept.to(torch.float8_e4m3fn)})
    loaded = load_vision(locate(file), dtype=torch.float32).backbone.conv_in.weight
    assert torch.equal(loaded, kept.to(torch.float8_e4m3fn).float())


@pytest.mark.parametrize(
    ("notes", "more", "prediction"),
    [
        ({}, {}, "epsilon"),
        ({"modelspec.prediction_type": "v"}, {}, "v_prediction"),
        ({}, {"v_pred": torch.zeros(0)}, "v_prediction"),
    ],
    ids=["nothing", "metadata", "empty tensor"],
)
def test_a_file_says_what_its_model_answers(
    tmp_path: Path, notes: dict[str, str], more: dict[str, Tensor], prediction: str
) -> None:
    vision = load_vision(locate(both(tmp_path, "sdxl", more, notes)[1]))
    assert vision.process.config["prediction_type"] == prediction


def test_a_trainers_note_of_the_size_counts(tmp_path: Path) -> None:
    _, file = both(tmp_path, "sd", notes={"modelspec.resolution": "768x768"})
    assert load_vision(locate(file)).backbone.config.sample_size == 96


def test_an_autoencoder_may_lie_beside_as_flux_is_published(tmp_path: Path) -> None:
    pair = both(tmp_path, "sd3")
    tensors = load_file(pair[1])
    front = "first_stage_model."
    save_file({k: t for k, t in tensors.items() if not k.startswith(front)}, pair[1])
    with pytest.raises(BridgeError, match=r"no autoencoder: put .* beside it, as ae\.safetensors"):
        load_vision(locate(pair[1]))
    beside = {k.removeprefix(front): t for k, t in tensors.items() if k.startswith(front)}
    save_file(beside, tmp_path / "ae.safetensors")
    loaded, kept = (load_vision(locate(p), dtype=torch.float32).vae.state_dict() for p in pair)
    assert loaded.keys() == kept.keys()
    assert all(torch.equal(loaded[key], kept[key]) for key in kept)


ONE = torch.zeros(1)


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        ({"lora_unet_down_blocks_0.lora_down.weight": ONE}, "a LoRA, which adds"),
        ({"control_model.time_embed.0.weight": ONE}, "a ControlNet"),
        ({"down_blocks.0.resnets.0.conv1.weight": ONE}, "one part of a model's folder"),
        ({"encoder.down.0.block.0.conv1.weight": ONE}, "an autoencoder alone"),
        ({"text_model.embeddings.token_embedding.weight": ONE}, "a text encoder alone"),
        ({"anything": ONE}, "no image model that is known as one file"),
    ],
)
def test_a_file_of_something_else_is_told_in_one_line(
    tmp_path: Path, tensors: dict[str, Tensor], what: str
) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(
        BridgeError, match=rf"x\.safetensors' is {what}.*known as one .*SDXL.*FLUX"
    ) as told:
        load_vision(locate(tmp_path / "x.safetensors"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "more", "what"),
    [
        ("sd", {f"{FRONT}out.2.scale_weight": ONE}, "is quantized"),
        ("sd", {"edm_mean": ONE}, "EDM's noise levels"),
        ("sd", {"edm_vpred.sigma_max": ONE}, "EDM's noise levels"),
        ("sd", {f"{FRONT}input_blocks.0.0.weight": torch.zeros(64, 9, 3, 3)}, "takes 9 channels"),
        ("sdxl", {f"{FRONT}label_emb.0.0.weight": torch.zeros(256, 2560)}, "SDXL's refiner"),
        (
            "sd",
            {
                f"{FRONT}middle_block.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(
                    128, 1024
                )
            },
            "2.x, and nothing in it says whether it answers noise or velocity",
        ),
    ],
    ids=["quantized", "EDM", "EDM velocity", "inpainting", "refiner", "SD 2.x"],
)
def test_a_model_that_a_bridge_cannot_use_is_refused(
    tmp_path: Path, name: str, more: dict[str, Tensor], what: str
) -> None:
    _, file = both(tmp_path, name, more)
    with pytest.raises(BridgeError, match=what):
        load_vision(locate(file))


def test_a_file_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    _, file = both(tmp_path, "sd")
    tensors = load_file(file)
    del tensors[f"{FRONT}out.2.bias"]
    save_file(tensors, file)
    with pytest.raises(BridgeError, match=r"sd\.safetensors/unet'.*lacks some"):
        load_vision(locate(file), dtype=torch.float32)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.safetensors"])
def test_pickles_damaged_and_missing_files_are_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(BridgeError, match=r"no file .*hf download"):
        locate(tmp_path / name)
    (tmp_path / name).write_bytes(b"nothing")
    match = "no safetensors file, or damaged" if "safe" in name else "is a pickle, which can run"
    with pytest.raises(BridgeError, match=match):
        load_vision(locate(tmp_path / name))


def test_a_link_such_as_the_hubs_cache_has_is_read_under_its_own_name(
    tiny: Tiny, tmp_path: Path
) -> None:
    _, file = both(tmp_path, "sd")
    (tmp_path / "snapshot").mkdir()
    link = tmp_path / "snapshot" / "Model.SAFETENSORS"
    link.symlink_to(file.rename(tmp_path / "deadbeef"))
    bridge = Bridge.connect(tiny("t5"), link, rank=2, device="cpu")
    bridge.save(tmp_path / "bridge")
    assert Bridge.load(tmp_path / "bridge", device="cpu").vision.place.id == str(link)


def test_more_than_the_model_has_is_refused(tmp_path: Path) -> None:
    more = {"model.diffusion_model.encoder_hid_proj.weight": torch.zeros(4, 4)}
    _, file = both(tmp_path, "sd", more)
    with pytest.raises(BridgeError, match="has 16 numbers more than the UNet2DConditionModel"):
        load_vision(locate(file), dtype=torch.float32)


def test_a_scaled_text_encoder_beside_does_not_matter(tmp_path: Path) -> None:
    _, file = both(tmp_path, "sd", {"text_encoders.t5xxl.scaled_fp8": torch.zeros(1)})
    assert load_vision(locate(file), dtype=torch.float32).latent_channels == 4


def test_a_files_own_text_encoder_is_not_read(tmp_path: Path) -> None:
    _, file = both(tmp_path, "sd")
    with pytest.raises(BridgeError, match="no text encoder of its own; of one file only"):
        Bridge.own(file, dtype="float32", device="cpu")


def test_one_file_is_no_language_model(tiny: Tiny, tmp_path: Path) -> None:
    _, file = both(tmp_path, "sd")
    with pytest.raises(
        BridgeError, match="only image models are read, and of language models GGUF"
    ):
        Bridge.connect(file, tiny("sd"))
