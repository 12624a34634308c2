"""`list`, `convert`, `interpolate`, `demo` and `zoo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from tyro.conf import Positional

from lavi_bridge.config import Fraction, Settings
from lavi_bridge.errors import BridgeError, nearest


@dataclass
class List:
    """Show what is known: families, adapters, recipes with the published scores, bundled models,
    prompt suites, metrics, and what T2I-CompBench's official code does besides its paper."""

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
            "quirks",
        ]
    ] = "all"
    """One part of the list."""


@dataclass
class Convert(Settings):
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
class Interpolate(Settings):
    """Write the bridge between two bridges of one pair, linear in all that they have learned."""

    a: Positional[str]
    """Folder of a bridge or of its training run, or a Hub id."""
    b: Positional[str]
    """Another of the same models, with the same adapter."""
    out: Path
    """Folder for the new bridge; its LoRA has the ranks of both together."""
    at: Fraction = 0.5
    """How far from the first to the second: 0 is the first, 1 the second."""
    language: str | None = None
    """Where the language model is now, if it has moved since training."""
    vision: str | None = None
    """Where the vision model is now, if it has moved since training."""
    trust_remote_code: bool = False
    """Run code that comes with the language model (read it first)."""


@dataclass
class Demo(Settings):
    """Prompts as people tell them, read by an image model's own encoder, by a small language model
    that is joined to it on the spot, and by a real one; drawn and scored."""

    out: Path = Path("runs/demo")
    """Folder for scores.json, grid.png, index.html and the bridge that is trained."""
    prompts: int = 96
    """Prompts to score, plain ones and as many free ones, a sixth of each category."""
    scale: float = 1.0
    """Multiplies the number of training steps (0.1 for a quick look)."""


@dataclass
class ZooBuild(Settings):
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
class ZooScore(Settings):
    """Score the bundled image models with their own text encoders, and their autoencoders."""

    names: Positional[list[str]] = field(default_factory=list)
    """Models to score (unset: all image models)."""
    prompts: int = 384
    """Prompts to score, a sixth of each category."""
    zoo: Path | None = None
    """Folder of models made by `zoo build` (unset: the bundled ones)."""
    json: Path | None = None
    """Also write the figures into this file."""


def show_list(args: list[str]) -> None:
    """Show families, adapters, recipes, the bundled models and prompt suites."""
    options = tyro.cli(List, args=args, prog="lavi-bridge list")
    from lavi_bridge.cli.listing import listing

    print(listing(options.what))


def convert(args: list[str]) -> None:
    """Turn a published checkpoint into a bridge folder."""
    options = tyro.cli(Convert, args=args, prog="lavi-bridge convert")
    from lavi_bridge.bridge.bridge import Bridge

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


def interpolate(args: list[str]) -> None:
    """Write the bridge that lies between two bridges of one pair."""
    options = tyro.cli(Interpolate, args=args, prog="lavi-bridge interpolate")
    from lavi_bridge.bridge.bridge import Bridge

    bridge = Bridge.interpolated(
        options.a,
        options.b,
        options.at,
        language=options.language,
        vision=options.vision,
        device="cpu",
        trust_remote_code=options.trust_remote_code,
    )
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
        print(
            "\n".join(
                [
                    "usage: lavi-bridge zoo ACTION …",
                    "",
                    *lines,
                    "",
                    "`lavi-bridge zoo ACTION --help` explains an action.",
                ]
            )
        )
        return
    if args[0] not in actions:
        known = ", ".join(actions)
        raise BridgeError(f"unknown action '{args[0]}'; known: {known}{nearest(args[0], actions)}")
    actions[args[0]](args[1:])


def zoo_build(args: list[str]) -> None:
    """Make bundled models from nothing; stopped and repeated it goes on."""
    options = tyro.cli(ZooBuild, args=args, prog="lavi-bridge zoo build")
    from lavi_bridge.running.device import choose_device
    from lavi_bridge.zoo.making.build import build

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
    from lavi_bridge.zoo.making.scores import score_zoo

    print(
        score_zoo(options.names, prompts=options.prompts, zoo=options.zoo, json_file=options.json)
    )
