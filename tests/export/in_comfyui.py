"""Puts exported bridges into models of a ComfyUI checkout: run as a script, by its own Python.

    python in_comfyui.py CHECKOUT jobs.jsonl

prints, for every job, how many LoRA layers have their place in ComfyUI's own maps, and by how much
its answer differs from the expected one. Nothing of ComfyUI is part of this project.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

PACK = Path(__file__).parents[2] / "comfyui"


def pack() -> list[Any]:
    """The pack's nodes, loaded from its folder as ComfyUI loads them."""
    spec = importlib.util.spec_from_file_location("a_custom_node", PACK / "__init__.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    extension = asyncio.run(module.comfy_entrypoint())
    found = asyncio.run(extension.get_node_list())
    for node in found:
        node.GET_SCHEMA()  # ComfyUI's own check of it
    return list(found)


def unet(config: dict[str, Any]) -> dict[str, Any]:
    """What ComfyUI calls the settings of a U-Net of diffusers."""
    channels, count = config["block_out_channels"], config["layers_per_block"]
    ups = config.get("up_block_types", ["UpBlock2D"] + 3 * ["CrossAttnUpBlock2D"])
    downs = config.get("down_block_types", 3 * ["CrossAttnDownBlock2D"] + ["DownBlock2D"])
    depths = config.get("transformer_layers_per_block", 1)
    depths = depths if isinstance(depths, list) else [depths] * len(channels)
    down, up = [], []
    for kind, depth in zip(downs, depths, strict=True):
        down += [depth if "CrossAttn" in kind else 0] * count
    for kind, depth in zip(ups, reversed(depths), strict=True):
        up += [depth if "CrossAttn" in kind else 0] * (count + 1)
    heads = config["attention_head_dim"]
    each = isinstance(heads, list)
    told = config.get("projection_class_embeddings_input_dim")
    return {
        "image_size": 32,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": channels[0],
        "num_res_blocks": [count] * len(channels),
        "channel_mult": [width // channels[0] for width in channels],
        "transformer_depth": down,
        "transformer_depth_output": up[::-1],
        "transformer_depth_middle": depths[-1],
        "context_dim": config["cross_attention_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": bool(config.get("use_linear_projection")),
        "num_heads": -1 if each else heads,
        "num_head_channels": channels[0] // heads[0] if each else -1,
        "legacy": False,
        **({"adm_in_channels": told, "num_classes": "sequential"} if told else {}),
    }


def pixart(config: dict[str, Any]) -> dict[str, Any]:
    """What ComfyUI calls the settings of a PixArt of diffusers."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    sized = config["sample_size"] == 128
    return {
        "image_model": "pixart_alpha" if sized else "pixart_sigma",
        "micro_condition": sized,
        "input_size": config["sample_size"],
        "patch_size": config["patch_size"],
        "in_channels": config["in_channels"],
        "hidden_size": width,
        "depth": config["num_layers"],
        "num_heads": config["num_attention_heads"],
        "caption_channels": config["caption_channels"],
        "pe_interpolation": max(config["sample_size"] // 64, 1),
    }


def made(config: dict[str, Any], device: str) -> tuple[Any, dict[str, Any]]:
    """A model of ComfyUI, and diffusers' names of its weights -> its own."""
    base = import_module("comfy.supported_models_base").BASE
    models, utils = import_module("comfy.model_base"), import_module("comfy.utils")
    transformer = "caption_channels" in config
    told = {**(pixart if transformer else unet)(config), "dtype": torch.float32}
    kind = type("Made", (base,), {"unet_extra_config": {}, "supported_inference_dtypes": []})
    settings = kind(told)
    if transformer:
        return models.PixArt(settings, device=device).eval(), utils.pixart_to_diffusers(told)
    cls = models.SDXL if "adm_in_channels" in told else models.BaseModel
    return cls(settings, device=device).eval(), utils.unet_to_diffusers(told)


def fill(model: Any, names: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Put diffusers' weights into ComfyUI's model, all of them."""
    own = model.diffusion_model.state_dict()
    left = set(weights)
    with torch.no_grad():
        for name, target in names.items():
            if name not in weights:
                continue
            where = None if isinstance(target, str) else target[1]
            weight = own[target if isinstance(target, str) else target[0]]
            if len(target) > 2 and not isinstance(target, str):
                weight.copy_(target[2](weights[name]))
            else:
                (weight if where is None else weight.narrow(*where)).copy_(weights[name])
            left.discard(name)
    assert not left, left


@torch.inference_mode()
def answer(model: Any, conditioning: list[Any], x_t: Tensor, timestep: Tensor) -> Tensor:
    """What ComfyUI's model answers to noised latents, by its own way of reading conditioning."""
    helpers, samplers = import_module("comfy.sampler_helpers"), import_module("comfy.samplers")
    conds = helpers.convert_cond(conditioning)
    conds = samplers.encode_model_conds(model.extra_conds, conds, x_t, x_t.device, "positive")
    given = {
        name: cond.process_cond(batch_size=1, device=x_t.device, area=None).cond
        for name, cond in conds[0]["model_conds"].items()
    }
    context = given.pop("c_crossattn")
    return model.diffusion_model(x_t, timestep, context=context, **given)


def main() -> None:
    checkout, jobs = sys.argv[1:]
    sys.path.insert(0, checkout)
    import_module("comfy.cli_args").args.cpu = True
    sys.modules["lavi_bridge"] = None  # type: ignore[assignment]  # importing it is an error
    load, encode, apply = pack()
    for line in Path(jobs).read_text(encoding="utf-8").splitlines():
        job = json.loads(line)
        import_module("folder_paths").add_model_folder_path("lavi_bridges", job["home"])
        model, names = made(job["config"], "cpu" if job["case"] else "meta")
        patcher = import_module("comfy.model_patcher").ModelPatcher(
            model, load_device=torch.device("cpu"), offload_device=torch.device("cpu")
        )
        with torch.inference_mode():
            bridge = load.execute(name=job["name"], dtype="float32").result[0]
            patched = apply.execute(bridge=bridge, model=patcher, strength=1.0).result[0]
        done = {"name": job["name"], "layers": sum(len(p) for p in patched.patches.values())}
        if job["case"]:
            fill(model, names, load_file(job["weights"]))
            case = load_file(job["case"])
            with torch.inference_mode():
                told = encode.execute(bridge=bridge, text=job["prompt"], **job["size"]).result[0]
            plain = answer(model, told, case["x_t"], case["timestep"])
            patched.patch_model()
            found = answer(model, told, case["x_t"], case["timestep"])
            largest = case["expected"].abs().max()
            done["off"] = float((found - case["expected"]).abs().max() / largest)
            done["moved"] = float((plain - case["expected"]).abs().max() / largest)
        print("JOB", json.dumps(done), flush=True)


if __name__ == "__main__":
    main()
