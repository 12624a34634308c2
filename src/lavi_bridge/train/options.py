"""Settings of `train` and `cache`; a field's docstring is its help text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lavi_bridge.config import (
    Amount,
    Compile,
    Count,
    Dtype,
    FlowWeighting,
    Fraction,
    Match,
    Natural,
    NonNegative,
    Quantize,
    Settings,
    Solve,
    is_given,
    is_number,
)
from lavi_bridge.errors import BridgeError


@dataclass
class TrainConfig(Settings):
    """Train a bridge: adapter and both LoRAs, while language and vision model stay frozen."""

    language: str
    """Language model: Hub id (owner/name[@revision]), folder, or zoo:NAME."""
    vision: str
    """Vision model: Hub id, folder, .safetensors file, or zoo:NAME."""
    data: str
    """Captioned images: a .tsv of `path<TAB>caption` lines; a folder of images (with .txt files of
    the same name, or metadata.jsonl), of WebDataset .tar shards, or of .parquet files;
    hf:OWNER/NAME[:SPLIT] of the Hub; or `shapes`, the procedurally drawn world (`shapes:long`, with
    full captions; `shapes:free`, told as people talk). Several at once: "0.6*coco.tsv +
    0.4*others/" (the numbers are their shares of what is drawn)."""
    out: Path
    """Folder of the run: the finished bridge, checkpoints, sample grids, metrics.jsonl."""
    recipe: str = "default"
    """Where unset values come from: `default`, `paper`, or a row of `lavi-bridge list recipes`."""

    dry_run: bool = False
    """Print the plan, memory included, and stop before the first step."""

    steps: Natural = 50_000
    """Optimizer steps (paper: 50,000); 0 ends after a warm start."""
    batch_size: Count = 8
    """Images per step and process."""
    accumulate: Count = 1
    """Batches whose gradients are averaged before a step."""
    resolution: Count | None = None
    """Side of the square training images, in pixels (unset: the vision model's own)."""
    buckets: bool = False
    """Keep the pictures' shapes: every batch has one of several sizes (width × height) of about
    the same area, and each picture falls to the nearest."""
    crop: Literal["center", "random"] = "center"
    """Which part is cropped where picture and training size differ in shape."""
    min_size: Natural = 0
    """Pictures with a shorter side than this, in pixels, count as unreadable."""
    fast_decode: bool = True
    """Decode large JPEGs at half, a quarter or an eighth of their size where that is still enough
    (differs from the published loader by about a grey level)."""
    flip: bool = True
    """Mirror every second image (turn off where captions speak of left and right)."""
    caption_dropout: Fraction = 0.1
    """Fraction of captions replaced by the empty one, so that guidance has a null prompt."""

    cache: Path | None = None
    """Folder of encoded pictures, made by `lavi-bridge cache` with the same settings; what it lacks
    is added while training, so that each picture is encoded once."""
    cache_dtype: Literal["float16", "float32"] = "float16"
    """Precision of what the cache keeps."""

    text_cache: Path | None = None
    """Folder of encoded captions, filled while training, where the language model does not train
    (`language_rank` 0), or its last layers alone (`language_layers`): the rest of it reads every
    caption once. Takes 2 to 4 bytes x its width a token (of all `layers` for a mix)."""

    tokens: Count | None = None
    """Tokens that a prompt may have (unset: the vision model's own number). A U-Net and PixArt can
    read more; where padding is not masked, it is read up to the own number."""
    adapter: str = "feedforward"
    """Adapter between the models (see `lavi-bridge list adapters`)."""
    adapter_parameters: Amount | None = None
    """Parameters that the adapter may have, such as 500k or 20M; it is as wide inside as fits
    (unset: its usual size)."""
    rank: Natural = 32
    """LoRA rank on both models (paper: 32)."""
    language_rank: Natural | None = None
    """LoRA rank on the language model alone; 0 leaves it untouched (unset: rank)."""
    language_layers: str = "all"
    """Layers of the language model that get LoRA (not which are read: that is `layers`): `all`, or
    `last:K` of those that count for what is read. What lies below the last K is
    the same in every step and computed once, so that large models train in less time."""
    layers: int | str = "last"
    """Layers of the language model that are read (not which get LoRA: that is `language_layers`):
    `last`; `penultimate`; a number (0 the embeddings, -1 the last); `mean` of all; `mix`, their
    mean by weights that are learned; `stack:K`, K of them side by side."""
    mix_frozen_after: Natural | None = None
    """Steps on pictures after which the weights of `layers` mix stay as they are (unset: never):
    while they move, so does the condition that the image model learns to read."""
    template: str | None = None
    """A text before every prompt, which the language model reads and does not hand on, or `chat`:
    what its tokenizer puts before a user's message."""
    vision_rank: Natural | None = None
    """LoRA rank on the vision model alone; 0 leaves it untouched (unset: rank)."""
    dropout: Fraction = 0.1
    """Dropout inside the adapter and on the output of every LoRA layer (paper: 0.1)."""

    lr_adapter: NonNegative = 1e-4
    """Learning rate of the adapter."""
    lr_language: NonNegative = 5e-6
    """Learning rate of the language model's LoRA."""
    lr_vision: NonNegative = 1e-4
    """Learning rate of the vision model's LoRA."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning-rate schedule after the warm-up."""
    warmup: Natural = 500
    """Steps over which the learning rates rise from zero (at most a tenth of all steps)."""
    weight_decay: NonNegative = 1e-2
    """AdamW's weight decay."""
    optimizer: Literal["adamw", "adamw-8bit", "schedule-free"] = "adamw"
    """AdamW (fused on a GPU); with its state in 8 bits (extra `quantize`); or schedule-free
    (arXiv 2405.15682, extra `schedule-free`), whose averaged weights are what is saved."""
    clip: NonNegative = 1.0
    """Largest norm of the gradient over all trained parameters."""
    min_snr: NonNegative = 0.0
    """γ of the min-SNR weighting of noise levels (arXiv 2303.09556; 5 is usual); 0: none, as in
    the paper. For diffusion models alone."""
    flow_weighting: FlowWeighting = "logit-normal"
    """Which noise levels a flow-matching model is trained on (arXiv 2403.03206, section 3.1):
    `logit-normal`, `mode`, `uniform` draw them, `cosmap` and `sigma-sqrt` weigh uniform ones."""
    ema: Fraction = 0.0
    """Decay of an average of the trained weights (0.999, say), which then is what is validated,
    sampled and saved; 0: none."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, about a third more time."""
    quantize: Quantize = "none"
    """Hold the frozen language model in fewer bits, under LoRA in float32: `int8` or `nf4` (4 bits;
    extra `quantize`). The saved bridge is joined to the model as it was."""
    quantize_vision: Quantize = "none"
    """The same for the frozen image model: the linear layers of its blocks. Convolutions,
    embeddings, norms, the final projection and the autoencoder stay as they are."""
    trust_remote_code: bool = False
    """Run code that comes with the language model (read it first); without this nothing of it runs,
    and no bridge or run remembers the consent."""
    compile: Compile = "none"
    """Compile both models block by block: a slow first step, then faster ones. `graphs` launches
    each block as one CUDA graph besides, for batches so small that launching takes the time."""
    shard: bool = False
    """Spread weights, gradients and optimizer over the processes (FSDP2) instead of a copy in each;
    checkpoints are the same with and without."""

    warm_start: Natural = 0
    """Steps of text-only warm start before the first image, at most: adapter and language LoRA are
    fitted to the vision model's own text encoder. It ends earlier where nothing more is gained."""
    warm_start_match: Match = "states"
    """What is fitted: the encoder's hidden `states`, the vision model's `predictions` (slower; for
    any pair and adapter), `both`, one after the other, or `sets` of states, whatever their order
    (for pairs whose words nothing links)."""
    warm_start_solve: Solve = "none"
    """First give the adapter's last linear layer the weights that fit the encoder's states best, in
    closed form and in seconds: `ridge` regression, whose penalty held-out captions choose, or, for
    the `linear` adapter, `procrustes`, an orthogonal map with one scale. Before the steps of
    `warm_start`, or alone; for adapters of one feature a token."""
    warm_start_pairs: str | None = None
    """File of pairs for the warm start, beside as many plain captions: lines of what the bridge
    reads<TAB>what the own encoder reads, and perhaps <TAB>0-0 3-1 … (which words correspond); or
    `shapes`, free-form language of the drawn world."""
    warm_start_teacher: str | None = None
    """Text encoder to fit to, where the vision model's folder lacks its own: Hub id or folder."""
    warm_start_batch: Count = 32
    """Captions per warm-start step."""
    lr_warm_start: NonNegative = 3e-3
    """Learning rate of the warm start (Muon, at AdamW's rates)."""
    warm_start_report: bool = True
    """After a warm start on states, also measure how far predictions are from those under the own
    encoder; the vision model draws pictures for it."""

    dtype: Dtype | None = None
    """Precision of the frozen models (unset: bfloat16 on a GPU, float32 on a CPU). Trained
    parameters and the loss are always float32."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""
    workers: Natural = 0
    """Processes that read images."""
    seed: Natural = 0
    """Source of all randomness."""

    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Where figures and sample grids also go (`tensorboard --logdir OUT`); metrics.jsonl has the
    figures in any case."""
    log_every: Count = 10
    """Steps between two lines of metrics.jsonl."""
    sample_every: Natural = 1000
    """Steps between two sample grids (0: none)."""
    sample_prompts: list[str] = field(default_factory=list)
    """Prompts of the sample grids (unset: four captions from all over the data)."""
    sample_steps: Count = 20
    """Denoising steps of the sample grids."""
    validation: Natural = 64
    """Pairs that are held out (a twentieth of the data at most) and whose loss at fixed noise and
    timesteps is followed."""
    validate_every: Natural = 500
    """Steps between two validations (0: none)."""
    save_every: Natural = 1000
    """Steps between two checkpoints `out/step-N`; the same command goes on from the last one
    (0: only the finished bridge, nothing to go on from)."""
    keep: Count = 2
    """Checkpoints that are kept, the best by validation loss besides."""
    max_bad: Fraction = 0.01
    """Fraction of unreadable images past which training stops; below it they are counted and
    listed in out/bad.txt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps == 0 and not self.begins_without_images:
            raise BridgeError("'steps' must be at least 1, not 0, where there is no --warm-start")
        if self.cache and self.crop == "random":
            raise BridgeError("a cache keeps one crop of each picture: 'crop' must be center")
        if is_given(self.warm_start_pairs) and not self.begins_without_images:
            raise BridgeError(
                "'warm_start_pairs' are for a warm start: give its steps (--warm-start)"
            )
        rank = self.rank if self.language_rank is None else self.language_rank
        if self.text_cache and rank and self.language_layers == "all":
            raise BridgeError(
                "'text_cache' is for what stays as it is: set 'language_rank' 0, or train the last "
                "layers alone ('language_layers' last:K)"
            )
        if self.dtype == "float16":
            raise BridgeError("'dtype' float16 underflows in training; use bfloat16 or float32")
        if self.optimizer == "schedule-free" and (self.ema or self.schedule != "constant"):
            raise BridgeError(
                "'optimizer' schedule-free averages by itself: no 'ema', and a constant 'schedule'"
            )
        bits = self.quantize != "none" or self.quantize_vision != "none"
        if self.shard and (bits or self.optimizer == "adamw-8bit"):
            raise BridgeError("'shard' cannot spread weights or optimizer states of 8 or 4 bits")
        if self.shard and self.text_cache:
            raise BridgeError(
                "'text_cache' with 'shard': processes that lack different captions would wait for "
                "each other; leave one out"
            )
        if self.shard and self.layers != "last":
            raise BridgeError(
                "'shard' hides the inner layers of the language model: 'layers' must be last"
            )
        if is_number(self.mix_frozen_after) and self.layers != "mix":
            raise BridgeError(
                "'mix_frozen_after' is for layers that are mixed by learned weights: 'layers' must "
                "be mix"
            )
        if self.compile == "graphs" and (
            self.accumulate > 1 or self.shard or self.gradient_checkpointing
        ):
            raise BridgeError(
                "'compile' graphs is for one small batch a step, without 'accumulate', 'shard' and "
                "'gradient_checkpointing'; compile blocks instead"
            )

    @property
    def begins_without_images(self) -> bool:
        """Whether there is a warm start: steps, or the solution that comes before them."""
        return self.warm_start != 0 or self.warm_start_solve != "none"


GROUPS = {
    "main": ("language", "vision", "data", "out", "recipe", "dry_run"),
    "the paper's": (
        "adapter",
        "adapter_parameters",
        "rank",
        "dropout",
        "steps",
        "batch_size",
        "resolution",
        "crop",
        "flip",
        "caption_dropout",
        "lr_adapter",
        "lr_language",
        "lr_vision",
        "schedule",
        "warmup",
        "weight_decay",
        "clip",
        "seed",
    ),
    "warm-start": (
        "warm_start",
        "warm_start_pairs",
        "warm_start_match",
        "warm_start_solve",
        "warm_start_teacher",
        "warm_start_batch",
        "lr_warm_start",
        "warm_start_report",
    ),
    "monitoring": (
        "log_every",
        "sample_every",
        "sample_prompts",
        "sample_steps",
        "validation",
        "validate_every",
        "tracker",
    ),
    "saving": ("save_every", "keep", "max_bad"),
    "advanced data": (
        "buckets",
        "min_size",
        "fast_decode",
        "cache",
        "cache_dtype",
        "text_cache",
        "workers",
    ),
    "advanced bridge": (
        "language_rank",
        "language_layers",
        "layers",
        "mix_frozen_after",
        "template",
        "vision_rank",
        "tokens",
        "trust_remote_code",
    ),
    "advanced optimizer": ("optimizer", "accumulate", "min_snr", "flow_weighting", "ema"),
    "advanced speed and memory": (
        "device",
        "dtype",
        "compile",
        "gradient_checkpointing",
        "quantize",
        "quantize_vision",
        "shard",
    ),
}
"""The titles that `train --help` shows the settings under."""


@dataclass
class CacheConfig(Settings):
    """Encode every picture of a data set once, for `train --cache` with the same settings.

    Shards are written whole or not at all; stopped and repeated it goes on. Several processes:
    `torchrun --nproc_per_node 8 -m lavi_bridge cache …`."""

    vision: str
    """Vision model whose autoencoder encodes: Hub id, folder, .safetensors file, or zoo:NAME."""
    data: str
    """What `train --data` takes."""
    cache: Path
    """Folder for the encoded pictures."""
    resolution: Count | None = None
    """Side of the square training images, in pixels (unset: the vision model's own)."""
    buckets: bool = False
    """Keep the pictures' shapes; see `train --help`."""
    flip: bool = True
    """Encode every picture mirrored, too, as `train --flip` draws both."""
    fast_decode: bool = True
    """Decode large JPEGs at a fraction of their size; see `train --help`."""
    min_size: Natural = 0
    """Pictures with a shorter side than this, in pixels, count as unreadable."""
    cache_dtype: Literal["float16", "float32"] = "float16"
    """Precision of what is kept."""
    dtype: Dtype | None = None
    """Precision of the autoencoder (unset: bfloat16 on a GPU, float32 on a CPU)."""
    batch_size: Count = 16
    """Pictures encoded at once."""
    workers: Natural = 0
    """Processes that read images."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""
    max_bad: Fraction = 0.01
    """Fraction of unreadable pictures past which it stops."""
    seed: Natural = 0
    """Which `shapes` are drawn, where those are the data; as in `train`."""
