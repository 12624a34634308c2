"""diffusers' modules by the names of the layouts that these models were first published in.

The other way round from diffusers' own loaders, and written without them: what those make of this
must be the module again. Works on the meta device, too.
"""

import re
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
FRONT = "model.diffusion_model."


def renamed(tensors: Tensors, rules: dict[str, str]) -> Tensors:
    """Each name with the first rule that fits applied."""
    found = {}
    for name, tensor in tensors.items():
        rule = next(old for old in rules if re.match(old, name))
        found[re.sub(f"^{rule}", rules[rule], name)] = tensor
    return found


def unet(model: Any) -> Tensors:
    """SD 1.x, 2.x and SDXL: `model.diffusion_model.*`."""
    step = model.config.layers_per_block + 1
    inner = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }
    outer = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    tensors, found = model.state_dict(), {}
    for name, tensor in tensors.items():
        match name.split("."):
            case ["down_blocks", block, "downsamplers", *_, last]:
                new = f"input_blocks.{(int(block) + 1) * step}.0.op.{last}"
            case ["down_blocks", block, kind, layer, *rest]:
                at = 1 + int(block) * step + int(layer)
                new = ".".join([f"input_blocks.{at}", "0" if kind == "resnets" else "1", *rest])
            case ["mid_block", kind, layer, *rest]:
                new = ".".join([f"middle_block.{2 * int(layer) + (kind != 'resnets')}", *rest])
            case ["up_blocks", block, "upsamplers", *_, last]:
                beside = f"up_blocks.{block}.attentions.0.norm.weight" in tensors
                at = (int(block) + 1) * step - 1
                new = f"output_blocks.{at}.{2 if beside else 1}.conv.{last}"
            case ["up_blocks", block, kind, layer, *rest]:
                at = int(block) * step + int(layer)
                new = ".".join([f"output_blocks.{at}", "0" if kind == "resnets" else "1", *rest])
            case [*front, last]:
                new = f"{outer['.'.join(front)]}.{last}"
        if "resnets" in name:
            head, part, last = new.rsplit(".", 2)
            new = f"{head}.{inner[part]}.{last}"
        found[f"model.diffusion_model.{new}"] = tensor
    return found


def autoencoder(model: Any, front: str) -> Tensors:
    """`first_stage_model.*`, or `vae.*`."""
    stages, found = len(model.config.block_out_channels), {}
    for name, tensor in model.state_dict().items():
        new = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        for kind, old in (("block", "resnets"), ("upsample", r"upsamplers\.0")):
            if found_at := re.search(rf"up_blocks\.(\d+)\.{old}", new):
                stage = stages - 1 - int(found_at[1])
                new = new.replace(found_at[0], f"up.{stage}.{kind}")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        if "attentions" in new:
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor  # was a convolution
        new = new.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
        new = re.sub(r"\.to_([qkv])\.", r".\1.", new).replace("to_out.0", "proj_out")
        new = new.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        found[front + new] = tensor
    return found


def joined(tensors: Tensors, names: tuple[str, ...], new: str) -> None:
    """Put layers one below the other into one, in place."""
    for last in ("weight", "bias"):
        tensors[f"{new}.{last}"] = torch.cat([tensors.pop(f"{name}.{last}") for name in names])


def swapped(tensors: Tensors, name: str) -> None:
    """Shift before scale, in place."""
    for last in ("weight", "bias"):
        tensors[f"{name}.{last}"] = torch.cat(tensors[f"{name}.{last}"].chunk(2)[::-1])


def sd3(model: Any) -> Tensors:
    """SD3 and SD3.5: `model.diffusion_model.joint_blocks.*`."""
    tensors, last = model.state_dict(), model.config.num_layers - 1
    for i in range(last + 1):
        at = f"transformer_blocks.{i}"
        for attention in (
            ("attn", "attn2") if i in model.config.dual_attention_layers else ("attn",)
        ):
            queries = tuple(f"{at}.{attention}.to_{part}" for part in "qkv")
            joined(tensors, queries, f"{at}.x_block.{attention}.qkv")
        added = tuple(f"{at}.attn.add_{part}_proj" for part in "qkv")
        joined(tensors, added, f"{at}.context_block.attn.qkv")
    swapped(tensors, f"transformer_blocks.{last}.norm1_context.linear")
    swapped(tensors, "norm_out.linear")
    block = r"transformer_blocks\.(\d+)"
    return renamed(
        tensors,
        {
            rf"{block}\.(x|context)_block": r"model.diffusion_model.joint_blocks.\1.\2_block",
            rf"{block}\.(attn2?)\.norm_([qk])": _of("x", r"\2.ln_\3"),
            rf"{block}\.attn\.norm_added_([qk])": _of("context", r"attn.ln_\2"),
            rf"{block}\.(attn2?)\.to_out\.0": _of("x", r"\2.proj"),
            rf"{block}\.attn\.to_add_out": _of("context", "attn.proj"),
            rf"{block}\.norm1\.linear": _of("x", "adaLN_modulation.1"),
            rf"{block}\.norm1_context\.linear": _of("context", "adaLN_modulation.1"),
            rf"{block}\.ff\.net\.0\.proj": _of("x", "mlp.fc1"),
            rf"{block}\.ff\.net\.2": _of("x", "mlp.fc2"),
            rf"{block}\.ff_context\.net\.0\.proj": _of("context", "mlp.fc1"),
            rf"{block}\.ff_context\.net\.2": _of("context", "mlp.fc2"),
            r"pos_embed\.pos_embed": f"{FRONT}pos_embed",
            r"pos_embed\.proj": f"{FRONT}x_embedder.proj",
            r"time_text_embed\.timestep_embedder\.linear_1": f"{FRONT}t_embedder.mlp.0",
            r"time_text_embed\.timestep_embedder\.linear_2": f"{FRONT}t_embedder.mlp.2",
            r"time_text_embed\.text_embedder\.linear_1": f"{FRONT}y_embedder.mlp.0",
            r"time_text_embed\.text_embedder\.linear_2": f"{FRONT}y_embedder.mlp.2",
            r"context_embedder": f"{FRONT}context_embedder",
            r"norm_out\.linear": f"{FRONT}final_layer.adaLN_modulation.1",
            r"proj_out": f"{FRONT}final_layer.linear",
        },
    )


def _of(side: str, rest: str) -> str:
    return rf"model.diffusion_model.joint_blocks.\1.{side}_block.{rest}"


def flux(model: Any) -> Tensors:
    """FLUX.1 as it was published: without anything in front."""
    tensors = model.state_dict()
    for i in range(model.config.num_layers):
        at = f"transformer_blocks.{i}.attn"
        joined(tensors, tuple(f"{at}.to_{p}" for p in "qkv"), f"double_blocks.{i}.img_attn.qkv")
        added = tuple(f"{at}.add_{p}_proj" for p in "qkv")
        joined(tensors, added, f"double_blocks.{i}.txt_attn.qkv")
    for i in range(model.config.num_single_layers):
        at = f"single_transformer_blocks.{i}"
        parts = *(f"{at}.attn.to_{p}" for p in "qkv"), f"{at}.proj_mlp"
        joined(tensors, parts, f"single_blocks.{i}.linear1")
    swapped(tensors, "norm_out.linear")
    double, single = r"transformer_blocks\.(\d+)", r"single_transformer_blocks\.(\d+)"
    rules = {
        r"(double|single)_blocks": r"\1_blocks",
        rf"{single}\.norm\.linear": r"single_blocks.\1.modulation.lin",
        rf"{single}\.attn\.norm_q\.weight": r"single_blocks.\1.norm.query_norm.scale",
        rf"{single}\.attn\.norm_k\.weight": r"single_blocks.\1.norm.key_norm.scale",
        rf"{single}\.proj_out": r"single_blocks.\1.linear2",
        rf"{double}\.norm1\.linear": r"double_blocks.\1.img_mod.lin",
        rf"{double}\.norm1_context\.linear": r"double_blocks.\1.txt_mod.lin",
        rf"{double}\.attn\.to_out\.0": r"double_blocks.\1.img_attn.proj",
        rf"{double}\.attn\.to_add_out": r"double_blocks.\1.txt_attn.proj",
        r"context_embedder": "txt_in",
        r"x_embedder": "img_in",
        r"norm_out\.linear": "final_layer.adaLN_modulation.1",
        r"proj_out": "final_layer.linear",
    }
    for kind, whole in (("q", "query"), ("k", "key")):
        for old, side in (("norm_", "img"), ("norm_added_", "txt")):
            rules[rf"{double}\.attn\.{old}{kind}\.weight"] = (
                rf"double_blocks.\1.{side}_attn.norm.{whole}_norm.scale"
            )
    for old, side in (("ff", "img"), ("ff_context", "txt")):
        rules[rf"{double}\.{old}\.net\.0\.proj"] = rf"double_blocks.\1.{side}_mlp.0"
        rules[rf"{double}\.{old}\.net\.2"] = rf"double_blocks.\1.{side}_mlp.2"
    for old, new in (("timestep", "time"), ("text", "vector"), ("guidance", "guidance")):
        rules[rf"time_text_embed\.{old}_embedder\.linear_1"] = f"{new}_in.in_layer"
        rules[rf"time_text_embed\.{old}_embedder\.linear_2"] = f"{new}_in.out_layer"
    return renamed(tensors, rules)
