"""The nodes: load a bridge's text half, encode a prompt with it, put its LoRA into the model."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .folders import INDEX, BridgeError, Folder, Places, chosen, found
from .reader import DTYPES, Reader
from .text_half import Text

BRIDGE = "LAVI_BRIDGE"
CATEGORY = "LaVi-Bridge"
VISION_LORA = "vision_lora.safetensors"
LARGEST = 16384  # pixels, as ComfyUI's own nodes have it


def conditioning(text: Text, width: int = 0, height: int = 0) -> list[list[Any]]:
    """What is read of one prompt as ComfyUI hands it on.

    No mask reaches the models there: of those that mask padding only the real tokens are handed on.

    Args:
        width, height: of the picture as the model is told them; 0 for those of what is drawn.
    """
    hidden = text.hidden
    if text.mask is not None:
        hidden = hidden[:, text.mask[0].bool()]
    told: dict[str, Any] = {}
    if text.pooled is not None:
        told["pooled_output"] = text.pooled
    if width and height:
        told |= {"width": width, "height": height}
    return [[hidden, told]]


def apply(model: Any, folder: Folder, strength: float) -> Any:
    """A ComfyUI model with a bridge's LoRA.

    Raises:
        BridgeError: the model is of another kind or width, or does not have all of the layers.
    """
    _check(model, folder)
    if not folder.layers:
        return model
    known = import_module("comfy.lora")
    keys = known.model_lora_keys_unet(model.model, {})
    patched = model.clone()
    landed = patched.add_patches(known.load_lora(weights(folder), keys), strength)
    if len(landed) != folder.layers:
        raise BridgeError(
            f"{len(landed)} of {folder.layers} LoRA layers of '{folder.path.name}' have their "
            f"place in this model: it is not built as the {folder.pipeline} that it was trained on"
        )
    return patched


def weights(folder: Folder) -> dict[str, Tensor]:
    """The LoRA's weights by ComfyUI's names.

    Raises:
        BridgeError: the file is missing or damaged, or of another bridge.
    """
    path = folder.path / VISION_LORA
    try:
        with safe_open(path, framework="pt") as file:
            bridge = (file.metadata() or {}).get("bridge")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        said = str(error).splitlines()[0]
        raise BridgeError(f"'{path}' cannot be read: {said}; export the bridge again") from error
    if bridge != folder.id:
        raise BridgeError(f"'{path}' is of bridge {bridge}, {INDEX} beside it of {folder.id}")
    return state


def _check(model: Any, folder: Folder) -> None:
    """Refuse a model that the bridge's text is not for."""
    config = model.model.model_config.unet_config
    pixart = str(config.get("image_model", "")).startswith("pixart")
    family = "pixart" if pixart else "unet" if "num_res_blocks" in config else "another"
    if family != folder.family:
        raise BridgeError(
            f"'{folder.path.name}' is for a {folder.pipeline}, this model is of another kind"
        )
    width = config.get("context_dim")
    if pixart:
        width = model.model.diffusion_model.y_embedder.y_proj.fc1.weight.shape[1]
    if width != folder.width:
        raise BridgeError(
            f"'{folder.path.name}' gives texts of width {folder.width} ({folder.pipeline}), this "
            f"model reads {width}"
        )


def nodes(io: Any, places: Places) -> list[type]:
    """The node classes.

    Args:
        io: `comfy_api.latest.io`, or what stands in for it.
        places: the folders that bridges lie in.
    """
    bridge_type = io.Custom(BRIDGE)

    class Load(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> Any:
            return io.Schema(
                node_id="LaViBridgeLoad",
                display_name="LaVi-Bridge: load",
                category=CATEGORY,
                description="Language model and adapter of a bridge in models/lavi_bridges.",
                inputs=[
                    io.Combo.Input("name", options=list(found(places))),
                    io.Combo.Input("dtype", options=["auto", *DTYPES], default="auto"),
                ],
                outputs=[bridge_type.Output(display_name="bridge")],
            )

        @classmethod
        def fingerprint_inputs(cls, name: str, dtype: str) -> str:
            """Another one after a new export of the same name."""
            folder = chosen(name, places)
            return f"{folder.id} {(folder.path / INDEX).stat().st_mtime_ns}"

        @classmethod
        def execute(cls, name: str, dtype: str = "auto") -> Any:
            return io.NodeOutput(Reader(chosen(name, places), dtype))

    class Encode(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> Any:
            size = "What SDXL and PixArt are told; 0 for the picture's own."
            side = {"default": 0, "min": 0, "max": LARGEST, "optional": True, "tooltip": size}
            return io.Schema(
                node_id="LaViBridgeEncode",
                display_name="LaVi-Bridge: encode",
                category=CATEGORY,
                description="A prompt as the image model reads it, in the place of CLIP's.",
                inputs=[
                    bridge_type.Input("bridge"),
                    io.String.Input("text", multiline=True, dynamic_prompts=True),
                    io.Int.Input("width", **side),
                    io.Int.Input("height", **side),
                ],
                outputs=[io.Conditioning.Output()],
            )

        @classmethod
        def execute(cls, bridge: Reader, text: str, width: int = 0, height: int = 0) -> Any:
            return io.NodeOutput(conditioning(bridge(text), width, height))

    class Apply(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> Any:
            return io.Schema(
                node_id="LaViBridgeApply",
                display_name="LaVi-Bridge: apply",
                category=CATEGORY,
                description="A bridge's LoRA in the image model; all of it, or an error.",
                inputs=[
                    bridge_type.Input("bridge"),
                    io.Model.Input("model"),
                    io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.05),
                ],
                outputs=[io.Model.Output()],
            )

        @classmethod
        def execute(cls, bridge: Reader, model: Any, strength: float = 1.0) -> Any:
            return io.NodeOutput(apply(model, bridge.folder, strength))

    return [Load, Encode, Apply]
