"""`train`, and what comes before it: `plan`, `data`, `cache`."""

from __future__ import annotations

import itertools
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

from lavi_bridge.cli.groups import parse
from lavi_bridge.config import Amount, Count, Dtype, Quantize, Settings, checked, read_yaml
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import at_home
from lavi_bridge.train.options import GROUPS, CacheConfig, TrainConfig


@dataclass
class PlanOptions:
    """Say what a pair would need, from the models' configs alone: no weights are fetched."""

    language: str
    """Language model: Hub id, folder or zoo:NAME."""
    vision: str
    """Vision model: Hub id, folder, .safetensors file or zoo:NAME."""
    adapter: str = "feedforward"
    """Adapter between them (see `lavi-bridge list adapters`)."""
    adapter_parameters: Amount | None = None
    """Parameters that it may have (unset: its usual size)."""
    rank: int = 32
    """LoRA rank on both models."""
    language_rank: int | None = None
    """LoRA rank on the language model alone; 0 leaves it untouched."""
    vision_rank: int | None = None
    """LoRA rank on the vision model alone; 0 leaves it untouched."""
    language_layers: str = "all"
    """Layers of the language model that get LoRA (not which are read): `all`, or `last:K`."""
    layers: int | str = "last"
    """Layers of the language model that are read (not which get LoRA); see `train --help`."""
    template: str | None = None
    """A text before every prompt, or `chat`; see `train --help`."""
    tokens: Count | None = None
    """Tokens that a prompt may have (unset: the vision model's own number)."""
    resolution: int | None = None
    """Side of the square images in pixels (unset: the vision model's own)."""
    batch_size: int = 1
    """Images per training step and device."""
    dtype: Dtype = "bfloat16"
    """Precision of the frozen models."""
    quantize: Quantize = "none"
    """Hold the language model in 8 or 4 bits while training."""
    quantize_vision: Quantize = "none"
    """Hold the blocks of the vision model in 8 or 4 bits."""
    trust_remote_code: bool = False
    """Run code that comes with the language model (read it first)."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass
class DataCheck(Settings):
    """Read every picture and caption of a data set: what is unreadable and where, the sizes, and
    how many captions a pair's token limit cuts short. Exit code 1 where there are errors."""

    data: Positional[str]
    """What `train --data` takes: a .tsv, a folder, shards, hf:OWNER/NAME, or a mix."""
    language: str | None = None
    """Language model whose tokenizer counts (with --vision): Hub id, folder or zoo:NAME."""
    vision: str | None = None
    """Vision model that limits the tokens: Hub id, folder or zoo:NAME."""
    tokens: Count | None = None
    """Tokens that a prompt may have (unset: the vision model's own number)."""
    template: str | None = None
    """A text before every caption, or `chat`, whose tokens do not count; see `train --help`."""
    trust_remote_code: bool = False
    """Run code that comes with the language model (read it first)."""
    resolution: int | None = None
    """Side of the training images, in pixels (unset: the vision model's own)."""
    out: Path | None = None
    """Folder for index.html and report.json."""


def train(args: list[str]) -> None:
    """Train a bridge from a YAML file, flags, or both."""
    config = train_config(args)
    from lavi_bridge.train.run import Run

    run = Run(config)
    run.train()
    if run.main and not config.dry_run:
        caption = run.source.captions(1)[0]
        dash = ["--"] * caption.startswith("-")
        command = shlex.join(["lavi-bridge", "generate", str(config.out), *dash, caption])
        print(f"done: the bridge is in '{config.out}'; try:\n  {command}")


def train_config(args: list[str]) -> TrainConfig:
    """Flags over the YAML file over the recipe over the defaults.

    Raises:
        BridgeError: an unknown key or a bad value in the YAML file, or an unknown recipe.
    """
    from lavi_bridge.recipes import recipe

    values: dict[str, object] = {}
    files = [i for i, arg in enumerate(args) if arg.endswith((".yaml", ".yml"))]
    if files or (args and not args[0].startswith("-")):
        at = files[0] if files else 0
        path, args = at_home(args[at]), args[:at] + args[at + 1 :]
        values = checked(TrainConfig, read_yaml(path), str(path))
    named = [v for flag, v in itertools.pairwise(args) if flag == "--recipe"]
    named += [flag.removeprefix("--recipe=") for flag in args if flag.startswith("--recipe=")]
    chosen = recipe(str(named[-1] if named else values.get("recipe", "default")))
    required = dict.fromkeys(("language", "vision", "data", "out"), tyro.MISSING)
    default = TrainConfig(**(required | chosen.defaults() | values))
    return parse(default, GROUPS, args, prog="lavi-bridge train [CONFIG.yaml]")


def plan(args: list[str]) -> None:
    """Print widths, LoRA layers, parameters, memory and disk of a pair, reading only configs."""
    options = tyro.cli(PlanOptions, args=args, prog="lavi-bridge plan")
    from lavi_bridge.plan.plan import make_plan

    made = make_plan(
        options.language,
        options.vision,
        adapter=options.adapter,
        adapter_parameters=options.adapter_parameters,
        language_rank=options.rank if options.language_rank is None else options.language_rank,
        vision_rank=options.rank if options.vision_rank is None else options.vision_rank,
        language_layers=options.language_layers,
        layers=options.layers,
        template=options.template,
        tokens=options.tokens,
        resolution=options.resolution,
        batch_size=options.batch_size,
        dtype=options.dtype,
        quantize=options.quantize,
        quantize_vision=options.quantize_vision,
        trust_remote_code=options.trust_remote_code,
    )
    print(made.json() if options.json else made.table())


def data(args: list[str]) -> None:
    """Look for what is wrong with a data set (data check)."""
    if not args or args[0] != "check":
        if args and args[0] not in ("-h", "--help"):
            raise BridgeError(f"unknown action '{args[0]}'; known: check")
        print(
            "usage: lavi-bridge data check DATA …\n\n`lavi-bridge data check --help` explains it."
        )
        return
    options = tyro.cli(DataCheck, args=args[1:], prog="lavi-bridge data check")
    if bool(options.language) != bool(options.vision):
        raise BridgeError("a pair is a --language and a --vision: give both, or neither")
    from lavi_bridge.plan.data_check import check

    report = check(
        options.data,
        language=options.language,
        vision=options.vision,
        resolution=options.resolution,
        tokens=options.tokens,
        template=options.template,
        out=options.out,
        trust_remote_code=options.trust_remote_code,
    )
    print(report)
    if options.out:
        print(f"page: '{options.out / 'index.html'}'")
    if report.errors:
        sys.exit(1)


def cache(args: list[str]) -> None:
    """Encode every picture of a data set once, for `train --cache`."""
    options = tyro.cli(CacheConfig, args=args, prog="lavi-bridge cache")
    from lavi_bridge.train.caching import fill

    encoded, errors = fill(options)
    print(f"'{options.cache}': {encoded:,} pictures encoded")
    for error in errors:
        print(f"left out: {error}", file=sys.stderr)
