"""`generate`, `evaluate`, `expand` and `reproduce`: what draws or is drawn from."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction

from lavi_bridge.config import Count, Dtype, Quantize, Sampling, Settings
from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.prompts.options import ExpandConfig
from lavi_bridge.reproduce.options import ReproduceConfig


@dataclass
class Generate(Settings):
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
    per_prompt: Count = 1
    """Pictures of every prompt, each with its own seed."""
    sampling: OmitArgPrefixes[Sampling] = field(default_factory=Sampling)
    """How they are drawn."""
    lora: UseAppendAction[list[str]] = field(default_factory=list)
    """A LoRA file that others made for the image model, beside the bridge's own: FILE, or FILE:0.8
    for a strength; may be given several times."""
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
    quantize: Quantize = "none"
    """Hold the language model in 8 or 4 bits, however the bridge was trained (extra `quantize`)."""
    quantize_vision: Quantize = "none"
    """Hold the blocks of the image model in 8 or 4 bits."""
    offload: bool = False
    """Have each model on the GPU only while it is used: less memory, and more time for each batch.
    What is held in 8 or 4 bits stays there."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""


def generate(args: list[str]) -> None:
    """Draw pictures from prompts with a trained bridge."""
    options = tyro.cli(Generate, args=args, prog="lavi-bridge generate")
    from lavi_bridge.bridge.bridge import Bridge
    from lavi_bridge.bridge.drawing import draw, read_prompts
    from lavi_bridge.bridge.folder import is_pipeline
    from lavi_bridge.bridge.stacked import parse
    from lavi_bridge.running.blocks import compile_sampling

    prompts = options.prompts + (read_prompts(options.file) if options.file else [])
    if not prompts:
        raise BridgeError("no prompts: give some in quotes, or a --file with one a line")
    prompts = [p + options.suffix for p in prompts for _ in range(options.per_prompt)]
    if options.offload and options.sampling.compile == "graphs":
        raise BridgeError(
            "'compile' graphs holds the models' addresses, which 'offload' changes; compile blocks "
            "instead"
        )
    place: dict[str, Any] = {
        "dtype": options.dtype,
        "quantize_vision": options.quantize_vision,
        "offload": options.offload,
        "device": options.device,
    }
    if is_pipeline(options.bridge):
        given = {
            "--quantize": options.quantize != "none",
            "--language": options.language,
            "--vision": options.vision,
        }
        if unread := [name for name, value in given.items() if value]:
            raise BridgeError(
                f"{unread[0]} is of a bridge, and '{options.bridge}' is an image model alone"
            )
        bridge = Bridge.own(options.bridge, **place)
    else:
        bridge = Bridge.load(
            options.bridge,
            language=options.language,
            vision=options.vision,
            quantize=options.quantize,
            trust_remote_code=options.trust_remote_code,
            **place,
        )
    for file, scale in map(parse, options.lora):
        bridge.load_lora(file, scale)
    compile_sampling(bridge.vision.backbone, options.sampling.compile)
    for path in draw(bridge, prompts, options.out, options.sampling, progress=sys.stderr.isatty()):
        print(path)


@dataclass
class Influence(Settings):
    """Show which words of a prompt moved its picture.

    The prompt is drawn, and drawn again without each word and with a neutral one in its place, from
    the same seed. The redder a word in the picture's strip, the more it moved.
    """

    bridge: Positional[str]
    """Folder of a bridge or of its training run, a Hub id, or an image model (zoo:tiny-sd, say)."""
    prompt: Positional[str]
    """In quotes; every word costs two pictures."""
    out: Path = Path("influence.png")
    """The picture with its words."""
    neutral: str = "thing"
    """What stands in a word's place."""
    sampling: OmitArgPrefixes[Sampling] = field(default_factory=Sampling)
    """How they are drawn."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""


def influence(args: list[str]) -> None:
    """Show which words of a prompt moved its picture."""
    options = tyro.cli(Influence, args=args, prog="lavi-bridge influence")
    from lavi_bridge.bridge.bridge import Bridge
    from lavi_bridge.bridge.drawing import save_png, settings_of
    from lavi_bridge.bridge.folder import is_pipeline
    from lavi_bridge.evaluate.influence import heat, influence
    from lavi_bridge.running.progress import progress
    from lavi_bridge.show.tables import aligned

    load = Bridge.own if is_pipeline(options.bridge) else Bridge.load
    bridge = load(options.bridge, device=options.device)
    settings = settings_of(bridge, options.sampling)
    with progress(desc="drawing", unit="image") as bar:
        image, words = influence(
            bridge,
            options.prompt,
            seed=options.sampling.seed,
            neutral=options.neutral,
            on_picture=bar.update,
            batch_size=options.sampling.batch_size,
            **settings,
        )
    record = {"prompt": options.prompt, "seed": options.sampling.seed} | settings
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_png(heat(image, words), options.out, record)
    rows = [
        (word.word, f"{word.left_out.mean():.4f}", f"{word.replaced.mean():.4f}") for word in words
    ]
    print(aligned([("word", "left out", "replaced"), *rows], "lrr"))
    print(f"\nmean change of the picture, 0 to 1; '{options.out}'")


def evaluate(args: list[str]) -> None:
    """Draw prompt suites, judge the images, and report with intervals."""
    options = tyro.cli(EvaluateConfig, args=args, prog="lavi-bridge evaluate")
    if options.plan:
        from lavi_bridge.plan.evaluation import planned
        from lavi_bridge.show.tables import aligned

        print(aligned([[line.what, line.text] for line in planned(options)]))
        return
    from lavi_bridge.evaluate.report.tables import console
    from lavi_bridge.evaluate.run import evaluate
    from lavi_bridge.running.device import processes

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
    """Write long or free prompts for short ones with a language model."""
    from lavi_bridge.prompts.expand import expand
    from lavi_bridge.prompts.instructions import INSTRUCTIONS, Form

    if "--show-instruction" in args:
        form: Form = "free" if "free" in args or "--form=free" in args else "long"
        print(INSTRUCTIONS[form].show())
        return
    first = INSTRUCTIONS["long"]
    about = (
        f"{inspect.getdoc(ExpandConfig)}\n\nThe instruction (version {first.version}): {first.text}"
    )
    options = tyro.cli(ExpandConfig, args=args, prog="lavi-bridge expand", description=about)
    done = expand(options, progress=True)
    print(f"'{options.out}': {done.pairs:,} pairs, {done.made:,} of them made now")
    if done.repeated:
        print(f"{done.repeated:,} prompts repeat earlier ones, and so do their long ones")
    if done.lost:
        print(
            f"{done.lost:,} no longer tell a number, colour or side of their short prompt; "
            f"{done.contradicted:,} of them tell another one"
        )
    if options.pairs:
        print(f"'{options.pairs}': {done.kept:,} pairs for a warm start")
    if done.empty:
        print(f"nothing was written for {done.empty:,}: there the long prompt is the short one")
