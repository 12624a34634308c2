"""The command line: one lazy import per command, so that `--help` costs nothing."""

from __future__ import annotations

import inspect
import itertools
import shlex
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from lavi_bridge import __version__
from lavi_bridge.config import (
    CacheConfig,
    Dtype,
    EvaluateConfig,
    ExpandConfig,
    HomePaths,
    Quantize,
    ReproduceConfig,
    Sampling,
    TrainConfig,
    checked,
    read_yaml,
)
from lavi_bridge.errors import BridgeError, nearest
from lavi_bridge.files import at_home
from lavi_bridge.openmp import sleep_while_waiting
from lavi_bridge.output import tolerate_all_signs

EPILOG = """\
A model is a folder, a Hub id (owner/name[/subfolder][@revision]) or zoo:NAME.

  lavi-bridge plan --language google-t5/t5-large --vision CompVis/stable-diffusion-v1-4
  lavi-bridge train --language zoo:tiny-llama --vision zoo:tiny-sd --data shapes --no-flip \\
      --out runs/first
  lavi-bridge generate runs/first "a red circle left of a blue square"

`lavi-bridge COMMAND --help` explains a command."""


@dataclass
class Generate(HomePaths):
    """Draw pictures with a trained bridge. Repeat an interrupted call and it goes on."""

    bridge: Positional[str]
    """Folder of a bridge or of its training run, or a Hub id. An image model (zoo:tiny-sd, say)
    draws with its own text encoder, for comparison."""
    prompts: Positional[list[str]] = field(default_factory=list)
    """One or more prompts, each in quotes; before one that starts with a dash put `--`."""
    file: Path | None = None
    """A text file with one prompt a line, instead of or after the prompts given here."""
    out: Path = Path("images")
    """Folder for the PNGs; prompt, seed and bridge id are inside each."""
    per_prompt: int = 1
    """Pictures of every prompt, each with its own seed."""
    sampling: OmitArgPrefixes[Sampling] = field(default_factory=Sampling)
    """How they are drawn."""
    suffix: str = ""
    """Appended to every prompt (the paper always adds ", best quality, extremely detailed, 4k
    resolution")."""
    language: str | None = None
    """Where the language model is now, if it has moved since training."""
    vision: str | None = None
    """Where the vision model is now, if it has moved since training."""
    trust_remote_code: bool = False
    """Run code that comes with the language model (read it first)."""
    dtype: Dtype | None = None
    """Precision of the models (unset: bfloat16 on a GPU, float32 on a CPU)."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""


@dataclass
class Plan:
    """Say what a pair would need, from the models' configs alone: no weights are fetched."""

    language: str
    """Language model: Hub id, folder or zoo:NAME."""
    vision: str
    """Vision model: Hub id, folder or zoo:NAME."""
    adapter: str = "feedforward"
    """Adapter between them (see `lavi-bridge list adapters`)."""
    rank: int = 32
    """LoRA rank on both models."""
    language_rank: int | None = None
    """LoRA rank on the language model alone; 0 leaves it untouched."""
    vision_rank: int | None = None
    """LoRA rank on the vision model alone; 0 leaves it untouched."""
    resolution: int | None = None
    """Side of the square images in pixels (unset: the vision model's own)."""
    batch_size: int = 1
    """Images per training step and device."""
    dtype: Dtype = "bfloat16"
    """Precision of the frozen models."""
    quantize: Quantize = "none"
    """Hold the language model in 8 or 4 bits while training."""
    trust_remote_code: bool = False
    """Run code that comes with the language model (read it first)."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass
class DataCheck(HomePaths):
    """Read every picture and caption of a data set: what is unreadable and where, the sizes, and
    how many captions a pair's token limit cuts short. Exit code 1 where there are errors."""

    data: Positional[str]
    """What `train --data` takes: a .tsv, a folder, shards, hf:OWNER/NAME, or a mix."""
    language: str | None = None
    """Language model whose tokenizer counts (with --vision): Hub id, folder or zoo:NAME."""
    vision: str | None = None
    """Vision model that limits the tokens: Hub id, folder or zoo:NAME."""
    trust_remote_code: bool = False
    """Run code that comes with the language model (read it first)."""
    resolution: int | None = None
    """Side of the training images, in pixels (unset: the vision model's own)."""
    out: Path | None = None
    """Folder for index.html and report.json."""


@dataclass
class List:
    """Show what is known: families, adapters, recipes with the published scores, bundled models,
    prompt suites, metrics."""

    what: Positional[
        Literal[
            "all",
            "languages",
            "visions",
            "adapters",
            "recipes",
            "zoo",
            "suites",
            "metrics",
            "matrix",
        ]
    ] = "all"
    """One part of the list."""


@dataclass
class Convert(HomePaths):
    """Turn a checkpoint of the published code (lora_vis.pt, lora_text.pt, adapter/) into ours."""

    published: Positional[Path]
    """Folder of the published checkpoint."""
    out: Positional[Path]
    """Folder for the bridge."""
    language: str
    """The language model that it was trained with."""
    vision: str
    """The vision model that it was trained with."""
    trust_remote_code: bool = False
    """Run code that comes with the language model (read it first)."""


@dataclass
class Demo(HomePaths):
    """Join two small bundled language models to a bundled image model, train, draw and score."""

    out: Path = Path("runs/demo")
    """Folder for scores.json, grid.png, index.html and the two bridges."""
    prompts: int = 144
    """Prompts to score, a sixth of each category."""
    scale: float = 1.0
    """Multiplies the numbers of training steps (0.1 for a quick look)."""


@dataclass
class ZooBuild(HomePaths):
    """Make the bundled models from nothing, each by its recipe (docs/zoo.md has them all).

    Every stage saves its state once a minute and when it is stopped; the same command goes on from
    there. On a GPU the whole zoo takes minutes; on two cores the image models take hours."""

    names: Positional[list[str]] = field(default_factory=list)
    """Models to make (unset: all)."""
    out: Path = Path("runs/zoo")
    """Gets a folder a model, and `work` with states, logs and the encoded training set."""
    check: bool = False
    """A reduced version of every model in minutes; fails where a loss does not fall."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""
    start: Path | None = None
    """Earlier weights that the one named language model goes on from; tokens may differ."""
    steps: int | None = None
    """Steps of every stage, instead of the recipe's."""


@dataclass
class ZooScore(HomePaths):
    """Score the bundled image models with their own text encoders, and their autoencoders."""

    names: Positional[list[str]] = field(default_factory=list)
    """Models to score (unset: all image models)."""
    prompts: int = 384
    """Prompts to score, a sixth of each category."""
    zoo: Path | None = None
    """Folder of models made by `zoo build` (unset: the bundled ones)."""
    json: Path | None = None
    """Also write the figures into this file."""


def train(args: list[str]) -> None:
    """Train a bridge from a YAML file, flags, or both."""
    config = train_config(args)
    from lavi_bridge.train.loop import Run

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
    return tyro.cli(TrainConfig, args=args, default=default, prog="lavi-bridge train [CONFIG.yaml]")


def generate(args: list[str]) -> None:
    """Draw pictures from prompts with a trained bridge."""
    options = tyro.cli(Generate, args=args, prog="lavi-bridge generate")
    from lavi_bridge.blocks import compile_sampling
    from lavi_bridge.bridge import Bridge
    from lavi_bridge.generation import draw, read_prompts
    from lavi_bridge.storage import is_pipeline

    if options.per_prompt < 1:
        raise BridgeError(f"--per-prompt must be at least 1, not {options.per_prompt}")
    prompts = options.prompts + (read_prompts(options.file) if options.file else [])
    if not prompts:
        raise BridgeError("no prompts: give some in quotes, or a --file with one a line")
    prompts = [p + options.suffix for p in prompts for _ in range(options.per_prompt)]
    place = {"dtype": options.dtype, "device": options.device}
    if is_pipeline(options.bridge):
        bridge = Bridge.own(options.bridge, **place)
    else:
        bridge = Bridge.load(options.bridge, language=options.language, vision=options.vision,
                             trust_remote_code=options.trust_remote_code, **place)  # fmt: skip
    compile_sampling(bridge.vision.backbone, options.sampling.compile)
    for path in draw(bridge, prompts, options.out, options.sampling, progress=sys.stderr.isatty()):
        print(path)


def evaluate(args: list[str]) -> None:
    """Draw prompt suites, judge the images, and report with intervals."""
    options = tyro.cli(EvaluateConfig, args=args, prog="lavi-bridge evaluate")
    from lavi_bridge.device import processes
    from lavi_bridge.evaluate.run import evaluate
    from lavi_bridge.evaluate.tables import console

    done = evaluate(options)
    if processes()[0] == 0:
        print(f"{console(done)}\n\nWith intervals, tests and pictures: '{options.out}/report.html'")


def reproduce(args: list[str]) -> None:
    """Make the paper's tables again, on the bundled models or on the real ones."""
    options = tyro.cli(ReproduceConfig, args=args, prog="lavi-bridge reproduce")
    from lavi_bridge.reproduce.run import reproduce

    page = reproduce(options)
    if page:
        print(f"\nthe tables, with intervals, tests and pictures: '{page}'")


def expand(args: list[str]) -> None:
    """Write long prompts for short ones with a language model."""
    from lavi_bridge.evaluate.expand import INSTRUCTION, VERSION, expand, instruction

    if "--show-instruction" in args:
        print(instruction())
        return
    about = f"{inspect.getdoc(ExpandConfig)}\n\nThe instruction (version {VERSION}): {INSTRUCTION}"
    options = tyro.cli(ExpandConfig, args=args, prog="lavi-bridge expand", description=about)
    done = expand(options, progress=True)
    print(f"'{options.out}': {done.pairs:,} pairs, {done.made:,} of them made now")
    if done.repeated:
        print(f"{done.repeated:,} prompts repeat earlier ones, and so do their long ones")
    if done.empty:
        print(f"nothing was written for {done.empty:,}: there the long prompt is the short one")


def plan(args: list[str]) -> None:
    """Print widths, LoRA layers, parameters, memory and disk of a pair, reading only configs."""
    options = tyro.cli(Plan, args=args, prog="lavi-bridge plan")
    from lavi_bridge.plan import make_plan

    made = make_plan(
        options.language,
        options.vision,
        adapter=options.adapter,
        language_rank=options.rank if options.language_rank is None else options.language_rank,
        vision_rank=options.rank if options.vision_rank is None else options.vision_rank,
        resolution=options.resolution,
        batch_size=options.batch_size,
        dtype=options.dtype,
        quantize=options.quantize,
        trust_remote_code=options.trust_remote_code,
    )
    print(made.json() if options.json else made.table())


def data(args: list[str]) -> None:
    """Look for what is wrong with a data set (data check)."""
    if not args or args[0] != "check":
        if args and args[0] not in ("-h", "--help"):
            raise BridgeError(f"unknown action '{args[0]}'; known: check")
        print("usage: lavi-bridge data check DATA …\n\n"
              "`lavi-bridge data check --help` explains it.")  # fmt: skip
        return
    options = tyro.cli(DataCheck, args=args[1:], prog="lavi-bridge data check")
    if bool(options.language) != bool(options.vision):
        raise BridgeError("a pair is a --language and a --vision: give both, or neither")
    from lavi_bridge.train.check import check

    report = check(options.data, language=options.language, vision=options.vision,
                   resolution=options.resolution, out=options.out,
                   trust_remote_code=options.trust_remote_code)  # fmt: skip
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


def show_list(args: list[str]) -> None:
    """Show families, adapters, recipes, the bundled models and prompt suites."""
    options = tyro.cli(List, args=args, prog="lavi-bridge list")
    from lavi_bridge.plan import listing

    print(listing(options.what))


def convert(args: list[str]) -> None:
    """Turn a published checkpoint into a bridge folder."""
    options = tyro.cli(Convert, args=args, prog="lavi-bridge convert")
    from lavi_bridge.bridge import Bridge

    bridge = Bridge.from_published(
        options.published,
        language=options.language,
        vision=options.vision,
        dtype="float32",
        device="cpu",
        trust_remote_code=options.trust_remote_code,
    )
    bridge.training_summary = {"converted_from": str(options.published)}
    bridge.save(options.out)
    print(f"'{options.out}' holds bridge {bridge.id}")


def demo(args: list[str]) -> None:
    """The whole story in minutes, on the bundled models."""
    options = tyro.cli(Demo, args=args, prog="lavi-bridge demo")
    from lavi_bridge.zoo.demo import run

    run(options.out, prompts=options.prompts, scale=options.scale)


def zoo(args: list[str]) -> None:
    """Make the bundled models from nothing (zoo build), or score them (zoo score)."""
    actions = {"build": zoo_build, "score": zoo_score}
    if not args or args[0] in ("-h", "--help"):
        width = max(map(len, actions))
        lines = [f"  {name:{width}}  {act.__doc__}" for name, act in actions.items()]
        print("\n".join(["usage: lavi-bridge zoo ACTION …", "", *lines, "",
                         "`lavi-bridge zoo ACTION --help` explains an action."]))  # fmt: skip
        return
    if args[0] not in actions:
        known = ", ".join(actions)
        raise BridgeError(f"unknown action '{args[0]}'; known: {known}{nearest(args[0], actions)}")
    actions[args[0]](args[1:])


def zoo_build(args: list[str]) -> None:
    """Make bundled models from nothing; stopped and repeated it goes on."""
    options = tyro.cli(ZooBuild, args=args, prog="lavi-bridge zoo build")
    from lavi_bridge.device import choose_device
    from lavi_bridge.zoo.pretrain.build import build

    made = build(
        options.names,
        out=options.out,
        check=options.check,
        device=str(choose_device(options.device)),
        start=options.start,
        steps=options.steps,
    )
    print("\n".join(map(str, made)))


def zoo_score(args: list[str]) -> None:
    """Score the image models of the zoo."""
    options = tyro.cli(ZooScore, args=args, prog="lavi-bridge zoo score")
    from lavi_bridge.zoo.pretrain.scores import score_zoo

    print(
        score_zoo(options.names, prompts=options.prompts, zoo=options.zoo, json_file=options.json)
    )


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "generate": generate,
    "evaluate": evaluate,
    "reproduce": reproduce,
    "expand": expand,
    "plan": plan,
    "data": data,
    "cache": cache,
    "list": show_list,
    "convert": convert,
    "demo": demo,
    "zoo": zoo,
}


def overview() -> str:
    """What `lavi-bridge --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {run.__doc__}" for name, run in COMMANDS.items()]
    return "\n".join(
        ["usage: lavi-bridge COMMAND …", "",
         "Join any pre-trained language model to any pre-trained image-diffusion model.", "",
         *lines, "", EPILOG]
    )  # fmt: skip


def main() -> None:
    """Run the command that the arguments name; bad input is one line on stderr and exit code 2."""
    sleep_while_waiting()  # before a command imports torch
    tolerate_all_signs()
    args = sys.argv[1:]
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return
    if args[0] in ("-V", "--version"):
        print(f"lavi-bridge {__version__}")
        return
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        if args[0] not in COMMANDS:
            known = ", ".join(COMMANDS)
            hint = nearest(args[0], COMMANDS)
            raise BridgeError(f"unknown command '{args[0]}'; known: {known}{hint}")
        COMMANDS[args[0]](args[1:])
    except BridgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
