"""`lavi-bridge zoo build`: makes every bundled model from nothing, each by its recipe below.

A model is a sequence of stages; each stage is one task under one schedule and resumes by itself. A
finished model is a folder in the real layout that plain diffusers or transformers load.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lavi_bridge.bridge import Bridge
from lavi_bridge.curves import draw_curves, read_curve
from lavi_bridge.errors import BridgeError, nearest
from lavi_bridge.files import make_folder, new_folder, write_text
from lavi_bridge.locate import ZOO
from lavi_bridge.lock import held
from lavi_bridge.zoo.grammar import vocabulary
from lavi_bridge.zoo.pretrain import tokens
from lavi_bridge.zoo.pretrain.engine import Schedule, Task, fit
from lavi_bridge.zoo.pretrain.image import Autoencoding, Denoising, Latents, SameStates
from lavi_bridge.zoo.pretrain.text import (
    NextToken,
    ShortNextToken,
    Spans,
    TextTask,
    documents,
    go_on_from,
    save_half,
)

PIECES = 150
"""Merges of the language models' tokenizers: common words are whole, rare ones fall into pieces."""
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
         "num_train_timesteps": 1000, "prediction_type": "epsilon", "clip_sample": False,
         "steps_offset": 1}  # fmt: skip


@dataclass(frozen=True)
class Context:
    """Where a build reads and writes."""

    out: Path
    device: str
    check: bool
    """Reduced: smaller training set and batches, 40 steps."""
    start: Path | None = None
    """Folder of earlier weights that a language model goes on from."""

    def work(self, name: str) -> Path:
        """States, logs and caches of a model in the making."""
        return self.out / "work" / name

    @property
    def blocks(self) -> int:
        """Blocks of 256 scenes that the image models train on."""
        return 4 if self.check else 160

    def base(self, name: str) -> Path:
        """A finished model that another starts from: of this build, or else the bundled one.

        A reduced one could teach nothing.
        """
        built = self.out / name
        return built if built.is_dir() and not self.check else ZOO / name


@dataclass(frozen=True)
class Stage:
    """One task under one schedule."""

    name: str
    schedule: Schedule
    task: Callable[[Context], Task]
    finish: Callable[[Context, Task], None]
    """Writes what later stages, or the finished model, need."""


@dataclass(frozen=True)
class Model:
    """A bundled model: what it is in a line, and how it is made."""

    about: str
    stages: tuple[Stage, ...]
    needs: tuple[str, ...] = ()


# ---- language models: each learns from text alone


def _llama(context: Context) -> Task:
    from transformers import LlamaConfig, LlamaModel

    tokenizer = tokens.llama(_corpus(), PIECES)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=320, num_hidden_layers=4,
        num_attention_heads=4, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
        pad_token_id=None, use_cache=False,
    )  # fmt: skip
    return NextToken(_fresh(LlamaModel, config), tokenizer)


def _clip(context: Context) -> Task:
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = tokens.clip(_corpus(), PIECES)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return ShortNextToken(_fresh(CLIPTextModel, config), tokenizer)


def _t5(width: int, layers: int, heads: int, inner: int) -> Callable[[Context], Task]:
    def task(context: Context) -> Task:
        from transformers import T5Config, T5ForConditionalGeneration

        tokenizer = tokens.t5(_corpus(), PIECES)
        config = T5Config(
            vocab_size=len(tokenizer), d_model=width, d_kv=width // heads, d_ff=inner,
            num_layers=layers, num_decoder_layers=2, num_heads=heads, dropout_rate=0.0,
            feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1,
            decoder_start_token_id=0,
        )  # fmt: skip
        return Spans(_fresh(T5ForConditionalGeneration, config), tokenizer)

    return task


def _anew(folder: Path) -> AbstractContextManager[Path]:
    """A folder written whole or not at all, in place of whatever was there."""
    return new_folder(folder, own=[entry.name for entry in folder.glob("*")])


def _corpus() -> list[str]:
    return documents(4000, "tokenizer")


def _fresh(kind: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config)


def _language(name: str, about: str, task: Callable[[Context], Task], schedule: Schedule) -> Model:
    def begin(context: Context) -> Task:
        fresh = task(context)
        assert isinstance(fresh, TextTask)
        if context.start:
            go_on_from(fresh, context.start)
        return fresh.to(context.device)

    def finish(context: Context, trained: Task) -> None:
        assert isinstance(trained, TextTask)
        with _anew(context.out / name) as folder:
            trained.save(folder)
            further = ", going on from earlier weights" if context.start else ""
            text = (
                f"It has never seen a picture: it learned from text of the shapes world{further}."
            )
            write_card(folder, name, "transformers", about, text)

    return Model(about, (Stage("text", schedule, begin, finish),))


# ---- image models


def _vae(context: Context) -> Task:
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            block_out_channels=(16, 32, 64), norm_num_groups=8, latent_channels=4, sample_size=64,
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        )  # fmt: skip
    return Autoencoding(vae.to(context.device))


def _save_vae(context: Context, task: Task) -> None:
    assert isinstance(task, Autoencoding)
    task.set_scale()
    with _anew(context.work("tiny-sd") / "autoencoder") as folder:
        save_half(task.vae, folder)


UNET: dict[str, Any] = {
    "sample_size": 16, "in_channels": 4, "out_channels": 4, "layers_per_block": 1,
    "block_out_channels": (32, 64, 128), "norm_num_groups": 16, "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 64,
}  # fmt: skip
PRUNED: dict[str, Any] = UNET | {"mid_block_type": None}
"""tiny-sd's U-Net without its middle: 3.2 M of 4.1 M parameters. Cutting the text attentions of
the lowest rise as well would cost it which colour belongs to which shape."""
TRANSFORMER: dict[str, Any] = {
    "sample_size": 16, "patch_size": 2, "in_channels": 4, "out_channels": 8, "num_layers": 5,
    "num_attention_heads": 4, "attention_head_dim": 24, "cross_attention_dim": 96,
    "caption_channels": 64, "use_additional_conditions": False,
}  # fmt: skip


def _write_pipeline(folder: Path, pipeline: str, parts: dict[str, Any], vae: Path,
                    vae_folder: str) -> None:  # fmt: skip
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


def _start_sd(context: Context, folder: Path) -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = _words()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    parts = {
        "unet": UNet2DConditionModel(**UNET),
        "text_encoder": CLIPTextModel(text),
        "tokenizer": tokenizer,
    }
    vae = context.work("tiny-sd") / "autoencoder"
    _write_pipeline(folder, "StableDiffusionPipeline", parts, vae, "vae")


def _start_ldm(context: Context, folder: Path) -> None:
    from diffusers import UNet2DConditionModel
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
        LDMBertConfig,
        LDMBertModel,
    )

    tokenizer = _words()
    text = LDMBertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=77, encoder_layers=2,
        encoder_ffn_dim=256, encoder_attention_heads=4, head_dim=16, d_model=64, dropout=0.0,
        pad_token_id=0,
    )  # fmt: skip
    base = context.base("tiny-sd")
    unet = UNet2DConditionModel(**PRUNED)
    inherited = UNet2DConditionModel.from_pretrained(base / "unet", dtype=torch.float32)
    kept = unet.state_dict()
    unet.load_state_dict({k: v for k, v in inherited.state_dict().items() if k in kept})
    parts = {"unet": unet, "bert": LDMBertModel(text), "tokenizer": tokenizer}
    _write_pipeline(folder, "LDMTextToImagePipeline", parts, base / "vae", "vqvae")


def _start_pixart(context: Context, folder: Path) -> None:
    from diffusers import PixArtTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    tokenizer = _words()
    text = T5Config(
        vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, pad_token_id=0, eos_token_id=2,
        is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
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


def _image(name: str, start: Callable[[Context, Path], None], *, teacher: str | None = None,
           states: bool = False, folder: str = "first",
           **options: Any) -> Callable[[Context], Task]:  # fmt: skip
    """The task of one image model: `start` writes it with its first weights, into work/`folder`.

    `options` are those of `Denoising`.
    """

    def task(context: Context) -> Task:
        first = context.work(name) / folder
        if not first.is_dir():
            with torch.random.fork_rng(devices=[]), _anew(first) as made:
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


def _go_on(name: str) -> Callable[[Context, Path], None]:
    """Begin with what an earlier stage has finished."""

    def start(context: Context, folder: Path) -> None:
        shutil.copytree(context.out / name, folder, dirs_exist_ok=True)

    return start


def _save_states(name: str) -> Callable[[Context, Task], None]:
    def finish(context: Context, task: Task) -> None:
        assert isinstance(task, SameStates)
        save_half(task.language.model, context.work(name) / "first" / "bert")

    return finish


def _save_image(name: str) -> Callable[[Context, Task], None]:
    def finish(context: Context, task: Task) -> None:
        assert isinstance(task, Denoising)
        vision, language = task.student.vision, task.student.language
        with _anew(context.out / name) as folder:
            shutil.copytree(vision.place.root, folder, dirs_exist_ok=True)
            save_half(vision.backbone, folder / vision.backbone_folder)
            save_half(language.model, folder / vision.own_text_folder)
            text = "It draws procedurally made shapes, 64 × 64 px."
            write_card(folder, name, "diffusers", MODELS[name].about, text)

    return finish


def write_card(folder: Path, name: str, library: str, about: str, text: str) -> None:
    """Write the model card of a finished model."""
    card = f"""---
license: mit
library_name: {library}
---
# {name}

{about}.

{text}

Made by `lavi-bridge zoo build {name}`. Recipe, curves and scores: `docs/zoo.md` of LaVi-Bridge.
"""
    write_text(folder / "README.md", card)


# ---- the models

MODELS: dict[str, Model] = {
    "tiny-clip": _language(
        "tiny-clip",
        "CLIP text tower, 2 layers of 64, byte-level BPE; next token",
        _clip,
        Schedule(steps=1500, batch=128, lr=3e-3),
    ),
    "tiny-t5-small": _language(
        "tiny-t5-small",
        "T5 encoder, 2 layers of 48, unigram pieces; span corruption",
        _t5(48, 2, 3, 128),
        Schedule(steps=2000, batch=64, lr=3e-3),
    ),
    "tiny-t5-base": _language(
        "tiny-t5-base",
        "T5 encoder, 3 layers of 64, unigram pieces; span corruption",
        _t5(64, 3, 4, 170),
        Schedule(steps=2000, batch=64, lr=3e-3),
    ),
    "tiny-t5-large": _language(
        "tiny-t5-large",
        "T5 encoder, 4 layers of 128, unigram pieces; span corruption",
        _t5(128, 4, 4, 256),
        Schedule(steps=8000, batch=64, lr=1e-3),
    ),
    "tiny-llama": _language(
        "tiny-llama",
        "Llama, 4 layers of 128, BPE with byte fallback; next token",
        _llama,
        Schedule(steps=8000, batch=64, lr=1e-3),
    ),
    "tiny-sd": Model(
        "Stable Diffusion: U-Net of 4.1 M, CLIP text encoder; on rendered scenes",
        (
            Stage("vae", Schedule(steps=1000, batch=256, lr=2e-3), _vae, _save_vae),
            Stage(
                "unet",
                Schedule(steps=6200, batch=512, lr=1.2e-3, ema=0.998),
                _image("tiny-sd", _start_sd),
                _save_image("tiny-sd"),
            ),
            Stage(
                "textures",
                Schedule(steps=2400, batch=64, lr=3e-4, ema=0.998),
                _image("tiny-sd", _go_on("tiny-sd"), folder="further", full_captions=0.5,
                       textured=True),
                _save_image("tiny-sd"),
            ),
        ),
    ),
    "tiny-ldm": Model(
        "Latent Diffusion: tiny-sd's U-Net cut to 3.2 M, LDMBert text encoder; taught by tiny-sd",
        (
            Stage(
                "states",
                Schedule(steps=400, batch=64, lr=3e-3, warmup=40),
                _image("tiny-ldm", _start_ldm, teacher="tiny-sd", states=True),
                _save_states("tiny-ldm"),
            ),
            Stage(
                "unet",
                Schedule(steps=2000, batch=64, lr=8e-4, ema=0.995),
                _image("tiny-ldm", _start_ldm, teacher="tiny-sd"),
                _save_image("tiny-ldm"),
            ),
        ),
        needs=("tiny-sd",),
    ),
    "tiny-pixart": Model(
        "PixArt-α: transformer of 5 layers of 96, T5 text encoder; taught by tiny-sd",
        (
            Stage(
                "transformer",
                Schedule(steps=40_000, batch=64, lr=1e-3, ema=0.998),
                _image("tiny-pixart", _start_pixart, teacher="tiny-sd"),
                _save_image("tiny-pixart"),
            ),
        ),
        needs=("tiny-sd",),
    ),
}  # fmt: skip


def build(names: Sequence[str] = (), *, out: Path, check: bool = False, device: str = "cpu",
          start: Path | None = None, steps: int | None = None) -> list[Path]:  # fmt: skip
    """Make the named models (all of them by default), one after the other; resume what is there.

    Args:
        out: gets a folder a model, `curves.svg` of all losses, and `work` with states, logs and
            the encoded training set.
        check: a reduced version of each, in seconds to a minute, to see that it learns.
        start: earlier weights that the one named language model goes on from.
        steps: of every stage, instead of the recipe's.

    Returns:
        The finished models' folders.

    Raises:
        BridgeError: an unknown name, a build interrupted, a state of another recipe, a full disk,
            or (with `check`) a loss that does not fall.
    """
    for name in names:
        if name not in MODELS:
            known = ", ".join(MODELS)
            raise BridgeError(f"no recipe for '{name}'; known: {known}{nearest(name, MODELS)}")
    chosen = [name for name in MODELS if name in names] if names else list(MODELS)
    chosen.sort(key=lambda name: len(MODELS[name].needs))  # what others start from comes first
    if start and (len(names) != 1 or "text" not in [s.name for s in MODELS[names[0]].stages]):
        raise BridgeError("earlier weights are for one language model: name it")
    context = Context(out, device, check, start)
    make_folder(out)
    total = sum(len(MODELS[name].stages) for name in chosen)
    done = 0
    for name in chosen:
        with held(context.work(name)):  # calls that make other models may share the folder
            for stage in MODELS[name].stages:
                done += 1
                title = f"[{done}/{total}] {name} {stage.name}"
                schedule = reduced(stage.schedule) if check else stage.schedule
                if steps:
                    warmup = min(schedule.warmup, steps // 10)
                    schedule = replace(schedule, steps=steps, warmup=warmup)
                run_stage(context, name, replace(stage, schedule=schedule), title)
    logs = sorted((out / "work").glob("*/*/log.jsonl"))
    curves = {f"{log.parts[-3]} {log.parts[-2]}": read_curve(log, "loss") for log in logs}
    write_text(out / "curves.svg", draw_curves(curves))
    return [out / name for name in chosen]


def run_stage(context: Context, name: str, stage: Stage, title: str) -> None:
    """Train one stage to its end, unless an earlier call has; then write what it makes."""
    folder = context.work(name) / stage.name
    recipe = asdict(stage.schedule)
    if (folder / "done.json").is_file():
        done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        if done["recipe"] != recipe:
            raise BridgeError(
                f"'{folder}' was made by another recipe (reduced, perhaps); choose another --out"
            )
        print(f"{title}: done before", flush=True)
        return
    task = stage.task(context)
    seconds = fit(task, stage.schedule, folder, name=title)
    stage.finish(context, task)
    lines = [json.loads(x) for x in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    figure = next(key for key in lines[0] if key != "step")
    first, last = lines[0][figure], lines[-1][figure]
    print(f"{title}: {figure} {first:.4g} -> {last:.4g} in {seconds:.0f} s", flush=True)
    better = last > first if figure == "psnr_db" else last < first
    if context.check and not better:
        raise BridgeError(
            f"{title}: {figure} went from {first:.4g} to {last:.4g}; it learns nothing"
        )
    done = {"recipe": recipe, "seconds": round(seconds, 1), figure: last}
    write_text(folder / "done.json", json.dumps(done) + "\n")


def reduced(schedule: Schedule) -> Schedule:
    """The same schedule in small: enough to see the loss fall."""
    return replace(schedule, steps=40, batch=min(32, schedule.batch), warmup=5, ema=0.0)
