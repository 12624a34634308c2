"""Typed settings: one source for YAML files, command-line flags and their help.

A field's docstring is its help text. A setting is looked up in the flags, then in the YAML
file, then in the recipe, then in the defaults here.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tyro.conf import OmitArgPrefixes, Positional

from lavi_bridge.errors import BridgeError, nearest
from lavi_bridge.files import at_home

Dtype = Literal["float32", "bfloat16", "float16"]
Match = Literal["states", "predictions", "both"]
"""What a warm start makes equal to the vision model's own text encoder."""

Compile = Literal["none", "blocks", "graphs"]
Quantize = Literal["none", "int8", "nf4"]
FlowWeighting = Literal["logit-normal", "uniform", "mode", "cosmap", "sigma-sqrt"]


@dataclass(frozen=True)
class LoRA:
    """What is injected into one model; enough to inject it again. Scale is 1 (alpha = rank)."""

    rank: int
    targets: str
    """Regular expression that a layer's whole dotted name must match."""
    dropout: float = 0.0
    """On the output of the low-rank branch, as published (PEFT's own falls on its input)."""


class HomePaths:
    """Settings whose paths may begin with `~`, wherever they come from: shells expand it in
    `--out ~/run`, but neither in `--out=~/run` nor in a YAML file."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, Path):
                setattr(self, name, at_home(value))


@dataclass
class TrainConfig(HomePaths):
    """Train a bridge: adapter and both LoRAs, while language and vision model stay frozen."""

    language: str
    """Language model: Hub id (owner/name[@revision]), folder, or zoo:NAME."""
    vision: str
    """Vision model: Hub id, folder, or zoo:NAME."""
    data: str
    """Captioned images: a .tsv of `path<TAB>caption` lines; a folder of images (with .txt files of
    the same name, or metadata.jsonl), of WebDataset .tar shards, or of .parquet files;
    hf:OWNER/NAME[:SPLIT] of the Hub; or `shapes`, the procedurally drawn world. Several at once:
    "0.6*coco.tsv + 0.4*others/" (the numbers are their shares of what is drawn)."""
    out: Path
    """Folder of the run: the finished bridge, checkpoints, sample grids, metrics.jsonl."""
    recipe: str = "default"
    """Where unset values come from: `default`, `paper`, or a row of `lavi-bridge list recipes`."""

    dry_run: bool = False
    """Print the plan, memory included, and stop before the first step."""

    steps: int = 50_000
    """Optimizer steps (paper: 50,000)."""
    batch_size: int = 8
    """Images per step and process."""
    accumulate: int = 1
    """Batches whose gradients are averaged before a step."""
    resolution: int | None = None
    """Side of the square training images, in pixels (unset: the vision model's own)."""
    buckets: bool = False
    """Keep the pictures' shapes: every batch has one of several sizes (width × height) of about
    the same area, and each picture falls to the nearest."""
    crop: Literal["center", "random"] = "center"
    """Which part is cropped where picture and training size differ in shape."""
    min_size: int = 0
    """Pictures with a shorter side than this, in pixels, count as unreadable."""
    fast_decode: bool = True
    """Decode large JPEGs at half, a quarter or an eighth of their size where that is still enough
    (differs from the published loader by about a grey level)."""
    flip: bool = True
    """Mirror every second image (turn off where captions speak of left and right)."""
    caption_dropout: float = 0.1
    """Fraction of captions replaced by the empty one, so that guidance has a null prompt."""

    cache: Path | None = None
    """Folder of encoded pictures, made by `lavi-bridge cache` with the same settings; what it lacks
    is added while training, so that each picture is encoded once."""
    cache_dtype: Literal["float16", "float32"] = "float16"
    """Precision of what the cache keeps."""

    text_cache: Path | None = None
    """Folder of encoded captions, filled while training, where the language model does not train
    (`language_rank` 0): it reads every caption once."""

    adapter: str = "feedforward"
    """Adapter between the models (see `lavi-bridge list adapters`)."""
    rank: int = 32
    """LoRA rank on both models (paper: 32)."""
    language_rank: int | None = None
    """LoRA rank on the language model alone; 0 leaves it untouched (unset: rank)."""
    vision_rank: int | None = None
    """LoRA rank on the vision model alone; 0 leaves it untouched (unset: rank)."""
    dropout: float = 0.1
    """Dropout inside the adapter and on the output of every LoRA layer (paper: 0.1)."""

    lr_adapter: float = 1e-4
    """Learning rate of the adapter."""
    lr_language: float = 5e-6
    """Learning rate of the language model's LoRA."""
    lr_vision: float = 1e-4
    """Learning rate of the vision model's LoRA."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning-rate schedule after the warm-up."""
    warmup: int = 500
    """Steps over which the learning rates rise from zero (at most a tenth of all steps)."""
    weight_decay: float = 1e-2
    """AdamW's weight decay."""
    optimizer: Literal["adamw", "adamw-8bit", "schedule-free"] = "adamw"
    """AdamW (fused on a GPU); with its state in 8 bits (extra `quantize`); or schedule-free
    (arXiv 2405.15682, extra `schedule-free`), whose averaged weights are what is saved."""
    clip: float = 1.0
    """Largest norm of the gradient over all trained parameters."""
    min_snr: float = 0.0
    """γ of the min-SNR weighting of noise levels (arXiv 2303.09556; 5 is usual); 0: none, as in
    the paper. For diffusion models alone."""
    flow_weighting: FlowWeighting = "logit-normal"
    """Which noise levels a flow-matching model is trained on (arXiv 2403.03206, section 3.1):
    `logit-normal`, `mode`, `uniform` draw them, `cosmap` and `sigma-sqrt` weigh uniform ones."""
    ema: float = 0.0
    """Decay of an average of the trained weights (0.999, say), which then is what is validated,
    sampled and saved; 0: none."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, about a third more time."""
    quantize: Quantize = "none"
    """Hold the frozen language model in fewer bits, under LoRA in float32: `int8` or `nf4` (4 bits;
    extra `quantize`). The saved bridge is joined to the model as it was."""
    trust_remote_code: bool = False
    """Run code that comes with the language model (read it first); without this nothing of it runs,
    and no bridge or run remembers the consent."""
    compile: Compile = "none"
    """Compile both models block by block: a slow first step, then faster ones. `graphs` launches
    each block as one CUDA graph besides, for batches so small that launching takes the time."""
    shard: bool = False
    """Spread weights, gradients and optimizer over the processes (FSDP2) instead of a copy in each;
    checkpoints are the same with and without."""

    warm_start: int = 0
    """Steps of text-only warm start before the first image, at most: adapter and language LoRA are
    fitted to the vision model's own text encoder. It ends earlier where nothing more is gained."""
    warm_start_match: Match = "states"
    """What is fitted: the encoder's hidden `states`, the vision model's `predictions` (slower; for
    any pair and adapter), or `both`, one after the other."""
    warm_start_teacher: str | None = None
    """Text encoder to fit to, where the vision model's folder lacks its own: Hub id or folder."""
    warm_start_batch: int = 32
    """Captions per warm-start step."""
    lr_warm_start: float = 3e-3
    """Learning rate of the warm start (Muon, at AdamW's rates)."""
    warm_start_report: bool = True
    """After a warm start on states, also measure how far predictions are from those under the own
    encoder; the vision model draws pictures for it."""

    dtype: Dtype | None = None
    """Precision of the frozen models (unset: bfloat16 on a GPU, float32 on a CPU). Trained
    parameters and the loss are always float32."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""
    workers: int = 0
    """Processes that read images."""
    seed: int = 0
    """Source of all randomness."""

    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Where figures and sample grids also go (`tensorboard --logdir OUT`); metrics.jsonl has the
    figures in any case."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    sample_every: int = 1000
    """Steps between two sample grids (0: none)."""
    sample_prompts: list[str] = field(default_factory=list)
    """Prompts of the sample grids (unset: four captions from all over the data)."""
    sample_steps: int = 20
    """Denoising steps of the sample grids."""
    validation: int = 64
    """Pairs that are held out (a twentieth of the data at most) and whose loss at fixed noise and
    timesteps is followed."""
    validate_every: int = 500
    """Steps between two validations (0: none)."""
    save_every: int = 1000
    """Steps between two checkpoints `out/step-N`; the same command goes on from the last one
    (0: only the finished bridge, nothing to go on from)."""
    keep: int = 2
    """Checkpoints that are kept, the best by validation loss besides."""
    max_bad: float = 0.01
    """Fraction of unreadable images past which training stops; below it they are counted and
    listed in out/bad.txt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "batch_size", "accumulate", "resolution", "warm_start_batch",
                     "log_every", "sample_steps", "keep"):  # fmt: skip
            if _is_number(value := getattr(self, name)) and value < 1:
                raise BridgeError(f"'{name}' must be at least 1, not {value}")
        for name in ("rank", "language_rank", "vision_rank", "warmup", "warm_start", "workers",
                     "sample_every", "save_every", "validate_every", "validation", "min_size",
                     "min_snr", "lr_adapter", "lr_language", "lr_vision", "lr_warm_start",
                     "weight_decay", "clip", "seed"):  # fmt: skip
            if _is_number(value := getattr(self, name)) and not value >= 0:  # nan is not, either
                raise BridgeError(f"'{name}' must not be negative, not {value}")
        for name in ("caption_dropout", "dropout", "max_bad", "ema"):
            if _is_number(value := getattr(self, name)) and not 0 <= value <= 1:
                raise BridgeError(f"'{name}' is a fraction between 0 and 1, not {value}")
        if self.cache and self.crop == "random":
            raise BridgeError("a cache keeps one crop of each picture: 'crop' must be center")
        if self.text_cache and (self.rank if self.language_rank is None else self.language_rank):
            raise BridgeError(
                "'text_cache' is for a language model that stays as it is: set 'language_rank' 0"
            )
        if self.dtype == "float16":
            raise BridgeError("'dtype' float16 underflows in training; use bfloat16 or float32")
        if self.optimizer == "schedule-free" and (self.ema or self.schedule != "constant"):
            raise BridgeError(
                "'optimizer' schedule-free averages by itself: no 'ema', and a constant 'schedule'"
            )
        if self.shard and (self.quantize != "none" or self.optimizer == "adamw-8bit"):
            raise BridgeError("'shard' cannot spread weights or optimizer states of 8 or 4 bits")
        if self.shard and self.text_cache:
            raise BridgeError(
                "'text_cache' with 'shard': processes that lack different captions would wait for "
                "each other; leave one out"
            )
        if self.compile == "graphs" and (
            self.accumulate > 1 or self.shard or self.gradient_checkpointing
        ):
            raise BridgeError(
                "'compile' graphs is for one small batch a step, without 'accumulate', 'shard' and "
                "'gradient_checkpointing'; compile blocks instead"
            )


@dataclass
class CacheConfig(HomePaths):
    """Encode every picture of a data set once, for `train --cache` with the same settings.

    Shards are written whole or not at all; stopped and repeated it goes on. Several processes:
    `torchrun --nproc_per_node 8 -m lavi_bridge cache …`."""

    vision: str
    """Vision model whose autoencoder encodes: Hub id, folder, or zoo:NAME."""
    data: str
    """What `train --data` takes."""
    cache: Path
    """Folder for the encoded pictures."""
    resolution: int | None = None
    """Side of the square training images, in pixels (unset: the vision model's own)."""
    buckets: bool = False
    """Keep the pictures' shapes; see `train --help`."""
    flip: bool = True
    """Encode every picture mirrored, too, as `train --flip` draws both."""
    fast_decode: bool = True
    """Decode large JPEGs at a fraction of their size; see `train --help`."""
    min_size: int = 0
    """Pictures with a shorter side than this, in pixels, count as unreadable."""
    cache_dtype: Literal["float16", "float32"] = "float16"
    """Precision of what is kept."""
    dtype: Dtype | None = None
    """Precision of the autoencoder (unset: bfloat16 on a GPU, float32 on a CPU)."""
    batch_size: int = 16
    """Pictures encoded at once."""
    workers: int = 0
    """Processes that read images."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""
    max_bad: float = 0.01
    """Fraction of unreadable pictures past which it stops."""
    seed: int = 0
    """Which `shapes` are drawn, where those are the data; as in `train`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("batch_size", 1), ("resolution", 1), ("workers", 0), ("min_size", 0)):
            if _is_number(value := getattr(self, name)) and value < least:
                raise BridgeError(f"'{name}' must be at least {least}, not {value}")
        if _is_number(self.max_bad) and not 0 <= self.max_bad <= 1:
            raise BridgeError(f"'max_bad' is a fraction between 0 and 1, not {self.max_bad}")


@dataclass
class ExpandConfig(HomePaths):
    """Write a long prompt for every short one with a language model, and keep them as pairs.

    The file has a JSON line a prompt (id, category, short, long) and is a suite itself; its
    settings lie beside it. Stopped and repeated it goes on. The paper used Llama-2
    (meta-llama/Llama-2-7b-chat-hf, say); the instruction is ours."""

    suite: Positional[str]
    """Short prompts: a suite (see `lavi-bridge list suites`), or a .txt, .tsv or .jsonl file."""
    language: str
    """Any causal language model, asked by its chat template if it has one: Hub id or folder."""
    out: Path
    """The file, which ends in .jsonl."""
    prompts: Path | None = None
    """Folder with copies of the public suites (unset: they are fetched)."""
    limit: int | None = None
    """Take so many prompts, evenly over the categories (unset: all)."""
    seed: int = 0
    """Source of all randomness; a prompt's own follows from this and its text."""
    temperature: float = 0.7
    """How freely words are chosen; 0: always the likeliest."""
    top_p: float = 0.9
    """Words are chosen among the likeliest that have this share of the probability."""
    max_new_tokens: int = 120
    """Tokens of the answer at most; one that is cut ends with its last whole sentence."""
    batch_size: int = 8
    """Prompts at once; changes answers only by float rounding."""
    dtype: Dtype | None = None
    """Precision of the model (unset: bfloat16 on a GPU, float32 on a CPU)."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""
    trust_remote_code: bool = False
    """Run code that comes with the language model (read it first)."""
    show_instruction: bool = False
    """Print the instruction with its version and examples, and do nothing else."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_new_tokens", "batch_size", "limit"):
            if _is_number(value := getattr(self, name)) and value < 1:
                raise BridgeError(f"'{name}' must be at least 1, not {value}")
        if _is_number(self.temperature) and not self.temperature >= 0:
            raise BridgeError(f"'temperature' must not be negative, not {self.temperature}")
        if _is_number(self.top_p) and not 0 < self.top_p <= 1:
            raise BridgeError(f"'top_p' is a fraction above 0 and up to 1, not {self.top_p}")
        if isinstance(self.out, Path) and self.out.suffix != ".jsonl":
            raise BridgeError(f"'out' must end in .jsonl, not '{self.out}'")


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn."""

    seed: int = 0
    """Seed of the first picture; picture i has seed + i."""
    steps: int = 50
    """Denoising steps (paper: 50)."""
    guidance: float = 7.5
    """Weight of classifier-free guidance (paper: 7.5); 1 turns it off."""
    negative: str = ""
    """What to steer away from."""
    height: int | None = None
    """Height in pixels (unset: the vision model's own)."""
    width: int | None = None
    """Width in pixels (unset: the vision model's own)."""
    scheduler: str | None = None
    """Sampler: unipc (the paper's), ddim, ddpm, pndm, dpm++, euler, euler-a, heun; flow-euler,
    unipc, dpm++ for flow models (unset: the family's own)."""
    batch_size: int = 4
    """Pictures drawn at once; does not change them."""
    compile: Compile = "none"
    """Compile the image model block by block: a slow first picture, then faster ones. `graphs`
    launches each block as one CUDA graph besides. Changes pictures by float rounding."""

    def __post_init__(self) -> None:
        if _is_number(self.guidance):
            check_guidance(self.guidance)


@dataclass
class EvaluateConfig(HomePaths):
    """Draw prompt suites with bridges and image models, judge the images, and report.

    Everything finished is kept: the same command goes on wherever it was stopped. Several
    processes: `torchrun --nproc_per_node 8 -m lavi_bridge evaluate …`."""

    entries: Positional[list[str]]
    """Bridges (folders, runs, Hub ids), image models (zoo:tiny-sd, Hub ids of pipelines in a
    folder) with their own text encoders, and folders of images; NAME=… gives one another name.
    Others are compared with the first."""
    suites: list[str]
    """Prompt suites (`lavi-bridge list suites`), SUITE:CATEGORY, or .txt, .tsv, .jsonl files."""
    metrics: list[str] = field(default_factory=list)
    """What to measure (`lavi-bridge list metrics`; unset: what is usual for each suite)."""
    out: Path = Path("runs/evaluation")
    """Folder for the images, their scores, and report.html, report.md, report.json."""
    prompts: Path | None = None
    """Folder with copies of the public prompt files."""
    limit: int | None = None
    """Prompts of each suite at most, evenly over its categories."""
    images: int | None = None
    """Images of every prompt (unset: as the suite's authors ask)."""
    reference: Path | None = None
    """Folder of real images, which fid and kid compare with."""
    resize: Literal["clean", "pytorch", "tf1"] = "clean"
    """How fid and kid shrink images: as clean-fid, pytorch-fid or torch-fidelity."""
    mode: Literal["faithful", "fixed"] = "faithful"
    """T2I-CompBench's metrics with the quirks of the official code, or as they are meant."""
    scorers: list[str] = field(default_factory=list)
    """METRIC=FOLDER for scorers' weights that are neither on the Hub nor in its cache."""
    export: Path | None = None
    """Also copy the images here in the layouts of the official scorers (T2I-CompBench, GenEval,
    DPG-Bench); what T2I-CompBench's leave there, the same command then reads into the report."""
    sampling: OmitArgPrefixes[Sampling] = field(default_factory=Sampling)
    """How images are drawn."""
    suffix: str = ""
    """Appended to every prompt when drawing (the paper's ", best quality, extremely detailed, 4k
    resolution"); scorers see the prompt without it."""
    dtype: Dtype | None = None
    """Precision of the models that draw (unset: bfloat16 on a GPU, float32 on a CPU)."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""
    language: list[str] = field(default_factory=list)
    """Where the bridges' language model is now, if it has moved since training; NAME=… is for one
    entry."""
    vision: list[str] = field(default_factory=list)
    """Where the bridges' vision model is now, if it has moved; NAME=… is for one entry."""
    trust_remote_code: bool = False
    """Run code that comes with the bridges' language models (read it first)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if _is_number(self.images) and self.images < 1:  # type: ignore[operator]
            raise BridgeError(f"'images' must be at least 1, not {self.images}")
        if _is_list(self.suites) and not self.suites:
            raise BridgeError("no suite: `lavi-bridge list suites` shows them")


@dataclass
class ReproduceConfig(HomePaths):
    """Make the paper's tables again: train every row with several seeds, evaluate, compare.

    On the bundled models (the default) it takes a laptop hours and needs nothing else; with --full
    it takes the real models, the paper's settings, and days on large GPUs: its plan is shown first.
    A row, a seed, a stage at a time is kept: the same command goes on wherever it was stopped, and
    several of them share the work."""

    tables: Positional[list[Literal["languages", "visions", "ablations"]]]
    """Which tables: language models with one image model, image models with one language model,
    what each part is worth. Rows of two tables that are the same are trained once."""
    zoo: bool = False
    """With the bundled models (the default)."""
    full: bool = False
    """With the real models and the paper's settings."""
    seeds: int = 3
    """Training seeds of every row; intervals are over these and over prompts."""
    out: Path | None = None
    """Folder for rows and tables (unset: runs/reproduce, or runs/reproduce-full)."""
    page: Path | None = None
    """Also write the page as this Markdown file, its pictures beside it."""
    prompts: int | None = None
    """Prompts of each suite (unset: 384 of the shapes world; all, with --full)."""
    scale: float = 1.0
    """Multiplies the numbers of training steps (0.1 for a quick look)."""
    rates: list[float] = field(default_factory=list)
    """Factors on all learning rates that are tried for every row, by the loss on held-out pairs
    after a third of the steps (unset: 0.4 1; with --full the recipe's rates, untried)."""
    workers: int | None = None
    """Rows trained at the same time, each in a process of its own (unset: one for each GPU, or for
    each core). With --full, `torchrun` instead lets all GPUs share every row."""
    dry_run: bool = False
    """Print the plan and stop."""
    yes: bool = False
    """With --full: start without asking."""

    data: str | None = None
    """With --full: captioned images, as for `train --data`."""
    batch_size: int = 32
    """With --full: images per training step, over all processes (the paper's is not published)."""
    suites: list[str] = field(default_factory=list)
    """With --full: prompt suites, whole ones (unset: short long t2i-compbench, as in the paper);
    others are in the report of each row alone."""
    prompt_files: Path | None = None
    """With --full: folder with copies of the public prompt files."""
    reference: Path | None = None
    """With --full: folder of real images, which FID compares with."""
    scorers: list[str] = field(default_factory=list)
    """With --full: METRIC=FOLDER for scorers' weights, as for `evaluate --scorers`."""
    models: list[str] = field(default_factory=list)
    """ID=FOLDER for models that are neither on the Hub nor in its cache."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cpu; with --full cuda where there is one)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zoo and self.full:
            raise BridgeError("--zoo and --full exclude each other")
        if _is_list(self.tables) and not self.tables:
            raise BridgeError("no table: languages, visions, ablations")
        for name in ("seeds", "prompts", "workers", "batch_size"):
            if _is_number(value := getattr(self, name)) and value < 1:
                raise BridgeError(f"'{name}' must be at least 1, not {value}")
        if not self.full:
            for name in ("data", "suites", "prompt_files", "reference", "scorers", "models"):
                if _is_given(getattr(self, name)):
                    raise BridgeError(f"'{name}' is for --full: the bundled models need nothing")
            if _is_number(self.prompts) and self.prompts < 6:  # type: ignore[operator]
                raise BridgeError(f"'prompts' must be at least 6, one a category: {self.prompts}")
        if _is_list(self.suites) and (part := next((s for s in self.suites if ":" in s), None)):
            raise BridgeError(f"tables are of whole suites, not of '{part}'")
        if _is_number(self.scale) and not 0 < self.scale < math.inf:
            raise BridgeError(f"'scale' must be positive and finite, not {self.scale}")
        if _is_list(self.rates) and any(not rate > 0 for rate in self.rates):
            raise BridgeError("'rates' are factors above 0")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        BridgeError: the file is missing, is no YAML, or is no mapping.
    """
    import yaml

    if not path.is_file():
        raise BridgeError(f"no config file '{path}'")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f"{path}:{line + 1}" if line is not None else str(path)
        reason = getattr(error, "problem", None) or "not UTF-8 text"
        raise BridgeError(f"{where}: not valid YAML: {reason}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise BridgeError(f"{path}: expected `key: value` lines")
    return values


def checked(cls: type, values: dict[str, Any], source: str) -> dict[str, Any]:
    """Convert `values` to the field types of the dataclass `cls` (YAML reads 2e-5 as text).

    Args:
        source: what to name in an error, usually the file's path.

    Raises:
        BridgeError: an unknown key (the nearest one is named) or a value of the wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    types = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    result = {}
    for key, value in values.items():
        if key not in known:
            raise BridgeError(f"{source}: unknown key '{key}'{nearest(str(key), known)}")
        try:
            result[key] = TypeAdapter(types[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise BridgeError(f"{source}: '{key}': {reason}, got {value!r}") from error
    return result


def check_guidance(guidance: float) -> None:
    """Refuse a weight of guidance that makes every picture something else than numbers."""
    if not math.isfinite(guidance):
        raise BridgeError(f"'guidance' must be a finite number, not {guidance}")


def _is_given(value: object) -> bool:
    """Whether a setting has been set: to text, a path, or a list that is not empty."""
    return isinstance(value, str | Path) or (_is_list(value) and bool(value))


def _is_list(value: object) -> bool:
    return isinstance(value, list)  # as with numbers


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)  # not yet so while a command line is being parsed
