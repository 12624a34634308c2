"""An exported folder: components in the layouts of their libraries, and the code that joins them.

`model_index.json`, `pipeline.py`, `text/` (language model, adapter, and their code), the components
of the image model, and `bridge.json`, which says what it was made of. For ComfyUI, whose nodes have
the code: `text/`, the image model's LoRA and `bridge.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from lavi_bridge.bridge import lora
from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.card import model_card
from lavi_bridge.bridge.folder import INDEX
from lavi_bridge.bridge.own import OwnEncoders
from lavi_bridge.bridge.parts import Side
from lavi_bridge.errors import BridgeError
from lavi_bridge.export import comfyui, models, pipelines, source
from lavi_bridge.export.forms import FORMS, Form, bundled, refusal
from lavi_bridge.export.usage import PARTS, usage
from lavi_bridge.export.written.base import LORA
from lavi_bridge.export.written.half import LANGUAGE
from lavi_bridge.files.atomic import at_home, new_folder
from lavi_bridge.files.locate import Place
from lavi_bridge.files.private import without_folders
from lavi_bridge.visions import Vision

TEXT, README = "prompt_processor", "README.md"
"""The component that reads prompts: without weights right in its folder diffusers fetches all of it
from the Hub, and of a "processor" SGLang does not ask for any."""

PIPELINE, MODEL_INDEX = "pipeline.py", "model_index.json"
MODULAR = "modular_config.json"
WEIGHTS = "weights"
"""Of a component with LoRA beside: diffusers fetches no more than weights where they lie openly."""
NAMES = ("_name_or_path", "name_or_path")
"""Keys by which the libraries keep where a model was loaded from: folders of this machine."""
CODE = "auto_map"
"""The key by which a config asks for code of its own, which no export brings."""


@dataclass
class Exported:
    """What was written."""

    folder: Path
    form: str
    bytes: int
    lost: dict[str, float] = field(default_factory=dict)
    """Of language and vision: which part of what LoRA adds was lost by rounding to 16 bits."""
    servers: bool = True
    """Whether the pipeline is named by a string."""

    def how(self) -> str:
        """How it is loaded, in Python; or where it belongs."""
        if self.form == "comfyui":
            return f"put '{self.folder}' into models/lavi_bridges of ComfyUI; see docs/comfyui.md"
        place = repr(str(self.folder))
        custom = f"custom_pipeline={place}, " * (self.servers and self.form != "stock")
        return f"DiffusionPipeline.from_pretrained({place}, {custom}trust_remote_code=True)"


def export_bridge(
    bridge: Bridge,
    folder: str | Path,
    *,
    form: Form = "merged",
    dtype: torch.dtype | None = None,
    servers: bool = True,
) -> Exported:
    """Write a bridge as a folder that runs without this package.

    Args:
        folder: an earlier export there is replaced, whole or not at all.
        form: see docs/export.md.
        dtype: of the weights that are written; as the bridge has them by default.
        servers: whether the pipeline is named by a string, as servers want it; plain diffusers then
            needs `custom_pipeline=`, too. Without, it finds the pipeline by itself.

    Raises:
        BridgeError: there is no such form, the bridge has none of it, its base models are held in
            fewer bits, or `folder` holds something else.
    """
    if form not in FORMS:
        raise BridgeError(f"no form '{form}' to export; known: {', '.join(FORMS)}")
    if reason := refusal(bridge, form):
        raise BridgeError(f"no export in form '{form}': {reason}")
    if form != "light" and any(_quantized(side.trunk) for side in (bridge.language, bridge.vision)):
        raise BridgeError(
            "weights in 4 or 8 bits cannot be merged: load the bridge without quantize"
        )
    target = at_home(folder)
    with new_folder(target, own=_earlier(target)) as scratch:
        writer = Writer(bridge, scratch, form, dtype)
        writer.write(servers=servers)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return Exported(target, form, size, writer.lost, servers)


def _quantized(model: nn.Module) -> bool:
    return any(not p.is_floating_point() for p in model.parameters())


def _earlier(target: Path) -> list[str]:
    """What an earlier export left in a folder.

    Raises:
        BridgeError: it is a file, or holds something else.
    """
    if target.is_file():
        raise BridgeError(f"'{target}' is a file; give a folder for the export")
    if not target.is_dir() or not any(target.iterdir()):
        return []
    index = target / INDEX
    told = Place(str(target), str(target)).json(INDEX) if index.is_file() else {}
    match told.get("export"):
        case {"files": [*names]} if all(isinstance(name, str) for name in names):
            return names
    raise BridgeError(f"'{target}' holds something else than an export; choose another folder")


class Writer:
    """Writes the parts of one export into an empty folder."""

    def __init__(self, bridge: Bridge, folder: Path, form: str, dtype: torch.dtype | None) -> None:
        self.bridge, self.folder, self.form, self.dtype = bridge, folder, form, dtype
        self.lost: dict[str, float] = {}
        self.module = f"text_{bridge.id}"
        """The file of the text half's code: diffusers holds one of a name at a time."""

    def write(self, *, servers: bool) -> None:
        """Write all that the form consists of."""
        if self.form == "comfyui":
            self.for_comfyui()
            return
        stock = self.form == "stock"
        half = "text_encoder" if stock else TEXT
        self.text_half(half)
        code = source.text_half([self.bridge.adapter.kind], more=["encoder"] if stock else [])
        (self.folder / half / f"{self.module}.py").write_text(code, encoding="utf-8")
        index: dict[str, Any] = {
            "_class_name": self.class_name(servers),
            "_diffusers_version": diffusers.__version__,
            half: [self.module, "TextEncoder" if stock else "TextHalf"],
        }
        index |= dict(self.image_model())
        if stock:
            self.tokenizer(self.folder / "tokenizer")
            index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
            vision = self.bridge.vision
            absent = [name for name in pipelines.components(vision) if name not in index]
            index |= {name: [None, None] for name in absent}
            index |= {k: v for k, v in vision.pipeline_options.items() if k not in index}
        else:
            index |= dict(self.own_encoders())
            text = pipelines.source(self.bridge, self.form, servers=servers)
            (self.folder / PIPELINE).write_text(text, encoding="utf-8")
            self.blocks()
        self.json(MODEL_INDEX, index)
        self.tell(servers=servers)

    def for_comfyui(self) -> None:
        """Write the text half without code, and the image model's LoRA."""
        self.text_half(comfyui.TEXT)
        if self.bridge.vision.lora is not None:
            path = self.folder / comfyui.VISION_LORA
            self.lost["vision"] = comfyui.write_lora(self.bridge, path, self.dtype)
        self.tell(fits=asdict(comfyui.fits(self.bridge)))

    def tell(self, *, servers: bool = True, **more: Any) -> None:
        """Write at last what the folder was made of, how it is used, and of what it consists."""
        self.forget_places()
        record, pipeline = self.bridge.record(), self.bridge.vision.pipeline_class
        record = without_folders(json.loads(json.dumps(record, default=str)), {})
        call = self.bridge.vision.stock_text if self.form == "stock" else {}
        use = usage(self.form, pipeline, "this folder", servers=servers, call=call)
        card = model_card(record, parts=PARTS[self.form], use=use)
        (self.folder / README).write_text(card, encoding="utf-8")
        files = sorted({path.name for path in self.folder.iterdir()} | {INDEX})
        told = {"form": self.form, "pipeline": pipeline, "servers": servers, "lost": self.lost}
        told["call"] = call or {}
        self.json(INDEX, record | {"export": {**told, **more, "files": files}})

    def blocks(self) -> None:
        """Write the text step of the family's modular pipeline, where diffusers has one."""
        vision, adapter = self.bridge.vision, self.bridge.adapter
        family = vision.modular_class
        if family is None or adapter.needs_own or self.form != "merged":
            return
        code = source.block(adapter.kind, family)
        (self.folder / "block.py").write_text(code, encoding="utf-8")
        named = {"ModularPipelineBlocks": "block.LaViBridgeBlocks"}
        self.json(MODULAR, {CODE: named})

    def class_name(self, servers: bool) -> str | list[str]:
        """How model_index.json names the pipeline."""
        if self.form == "stock":
            return self.bridge.vision.pipeline_class
        return "LaViBridgePipeline" if servers else ["pipeline", "LaViBridgePipeline"]

    def json(self, name: str, content: Any) -> None:
        text = json.dumps(content, indent=2, default=str) + "\n"
        (self.folder / name).write_text(text, encoding="utf-8")

    # ---- the text half

    def text_half(self, name: str) -> None:
        """Write language model, tokenizer and adapter."""
        folder, adapter = self.folder / name, self.bridge.adapter
        self.language(folder / LANGUAGE)
        self.tokenizer(folder / LANGUAGE)
        adapter.save(folder / "adapter")
        self.json(f"{name}/config.json", half_config(self.bridge))

    def language(self, folder: Path) -> None:
        """Write the language model, or where it was published and its LoRA."""
        language, fused = self.bridge.language, self.form != "light"
        loads = models.beside(language)
        if fused or bundled(language.place):
            self.lost["language"] = models.save_language(
                language, folder, dtype=self.dtype, fused=fused
            )
        else:
            loads = models.published(language)
        loads.write(folder)
        self.lora(language, folder, loads)

    def tokenizer(self, folder: Path) -> None:
        """Write the tokenizer, which cuts prompts as the bridge does and pads on the right."""
        self.bridge.language.tokenizer.save_pretrained(folder)
        path = folder / "tokenizer_config.json"
        told = json.loads(path.read_text(encoding="utf-8"))
        told |= {"model_max_length": self.bridge.tokens, "padding_side": "right"}
        path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def lora(self, side: Side, folder: Path, loads: models.Loads) -> None:
        """Write the LoRA layers of a model that does not have them in its weights."""
        if self.form == "light" and side.lora is not None:
            base = loads.place.root if loads.place else side.place.published
            lora.save(side.trunk, folder / LORA, base=base)

    # ---- the image model

    def image_model(self) -> Iterator[tuple[str, list[str]]]:
        """Write backbone, autoencoder and sampler; yield their entries of model_index.json."""
        vision = self.bridge.vision
        backbone = vision.backbone_folder
        yield backbone, self.component(backbone, vision.backbone, vision.place / backbone, vision)
        yield "vae", self.component("vae", vision.vae, vision.place / vision.vae_folder)
        sampler = vision.process.scheduler(vision.default_scheduler)
        sampler.save_pretrained(self.folder / "scheduler")
        yield "scheduler", ["diffusers", type(sampler).__name__]

    def component(
        self, name: str, model: Any, place: Place, side: Vision | None = None
    ) -> list[str]:
        """Write a model of diffusers; return its entry of model_index.json.

        Args:
            place: where it was published.
            side: whose LoRA is in it.
        """
        folder, light, kind = self.folder / name, self.form == "light", type(model).__name__
        whole = not light or bundled(place)
        refers = light and (not whole or (side is not None and side.lora is not None))
        if whole:
            upcast = self.dtype == torch.float16 and model.config.get("force_upcast")
            dtype = None if upcast else self.dtype  # it overflows in float16
            where = folder / WEIGHTS if refers else folder
            lost = models.save_diffusers(model, where, dtype=dtype, fused=not light)
            if side is not None:
                self.lost["vision"] = lost
        if not refers:
            return ["diffusers", kind]
        loads = models.Loads("diffusers", kind, place=None if whole else place, subfolder=WEIGHTS)
        loads.write(folder)
        if side is not None:
            self.lora(side, folder, loads)
        return self.base(folder)

    def base(self, folder: Path) -> list[str]:
        """Write the code of a component by reference; return its entry of model_index.json."""
        (folder / "base.py").write_text(source.component(), encoding="utf-8")
        return ["base", "Base"]

    # ---- the encoders that the image model came with

    def own_encoders(self) -> Iterator[tuple[str, list[str]]]:
        """Write what adapters read beside the language model; yield model_index.json's entries."""
        own, vision = self.bridge.own_encoders, self.bridge.vision
        if own is None:
            return
        if isinstance(own, OwnEncoders):
            told = vision.place.json(MODEL_INDEX)
            wanted = pipelines.encoders(own.pipeline)
            parts = {name: (getattr(own.pipeline, name), told[name]) for name in wanted}
        else:
            kind = type(own.model).__name__
            parts = {
                "text_encoder": (own.model, ["transformers", kind]),
                "tokenizer": (own.tokenizer, ["transformers", type(own.tokenizer).__name__]),
            }
        for name, (part, entry) in parts.items():
            folder = self.folder / name
            if isinstance(part, nn.Module) and self.form == "light" and not bundled(vision.place):
                place = own.place if part is getattr(own, "model", None) else vision.place / name
                models.Loads(entry[0], entry[1], place=place).write(folder)
                entry = self.base(folder)
            elif isinstance(part, nn.Module):
                state, _ = models.plain_state(part, self.dtype, fused=False)
                models.save_transformers(part, folder, state)
            else:
                part.save_pretrained(folder)
            yield name, entry

    # ---- nothing of this machine

    def forget_places(self) -> None:
        """Take out of the configs from which folders, and with which code, models were loaded."""
        for path in self.folder.rglob("*config.json"):
            if path.name == MODULAR:
                continue
            config = json.loads(path.read_text(encoding="utf-8"))
            kept = _without(config, (*NAMES, CODE))
            if kept != config:
                path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _without(told: Any, keys: tuple[str, ...]) -> Any:
    """JSON without some keys, also deep inside."""
    if isinstance(told, dict):
        return {key: _without(value, keys) for key, value in told.items() if key not in keys}
    return [_without(value, keys) for value in told] if isinstance(told, list) else told


def half_config(bridge: Bridge) -> dict[str, Any]:
    """How prompts are read: what a `TextHalf` is made of."""
    language, adapter = bridge.language, bridge.adapter.config()
    reading, template = language.reading, language.template
    return {
        "_class_name": "TextHalf",
        "_diffusers_version": diffusers.__version__,
        "adapter_config": {k: v for k, v in adapter.items() if k != "dropout"},
        "tokens": bridge.tokens,
        "padding": bridge.padding,
        "masking": bridge.vision.padding,
        "layers": None if reading is None else list(reading.places),
        "averaged": reading is not None and reading.averaged,
        "template": template and {**template.record(), "ids": template.ids},
        "first": language.first_token,
        "pad": language.tokenizer.pad_token_id,
        "float16": language.float16_safe,
    }
