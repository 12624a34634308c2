"""What is evaluated: a bridge, an image model alone, or a folder of images drawn elsewhere."""

from __future__ import annotations

import gc
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch

from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.drawing import made_by, settings_of
from lavi_bridge.bridge.folder import find_bridge, is_pipeline, opened
from lavi_bridge.bridge.foreign import LoRAFile
from lavi_bridge.bridge.stacked import parse
from lavi_bridge.config import SCALES, Sampling, check_finite
from lavi_bridge.errors import BridgeError, nearest
from lavi_bridge.evaluate.drawing import Picture, draw, drawn, finish, found
from lavi_bridge.evaluate.judging import sizes_note
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.evaluate.results import Entry
from lavi_bridge.files.atomic import at_home
from lavi_bridge.files.locate import locate
from lavi_bridge.files.weights import joined
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.suite import prompt_hash
from lavi_bridge.recipes import RECIPES
from lavi_bridge.running.blocks import compile_sampling
from lavi_bridge.running.device import own_device, processes, wait_for_all
from lavi_bridge.version import __version__

Files = list[list[Path]]
"""The images of every prompt."""


@dataclass(frozen=True)
class Asked:
    """One suite, as every entry is asked for it."""

    suite: str
    prompts: list[Prompt]
    images: int
    """How many are drawn of every prompt."""
    jobs: list[Picture]

    @property
    def folder(self) -> str:
        """Its folder in that of an entry."""
        return suite_folder(self.suite)


def suite_folder(suite: str) -> str:
    """The name of a suite's folder in that of an entry."""
    return re.sub(r"[^\w.-]+", "-", suite)


@dataclass
class Contestant(ABC):
    """An entry before it is loaded."""

    kind: ClassVar[str]
    """As the report calls it."""
    name: str
    spec: str
    """The place or id that the user gave."""
    scales: dict[str, float] = field(default_factory=dict)
    """Its strengths by their settings, where it is a bridge."""
    loras: list[str] = field(default_factory=list)
    """LoRA files of others that it draws with, as FILE or FILE:0.8."""

    def check(self, suites: Sequence[Asked]) -> None:  # noqa: B027 - what is drawn cannot lack yet
        """Raise where something is missing, before anything is drawn."""

    @abstractmethod
    def images(
        self, suites: Sequence[Asked], config: EvaluateConfig
    ) -> tuple[Entry, dict[str, Files]]:
        """Draw the images, or find them: by suite, and where they come from.

        Raises:
            BridgeError: the model cannot be loaded, images are missing or of other settings, or it
                was stopped.
        """

    def note(self, files: Files) -> str | None:
        """What a reader must know of the images."""
        return None


class Images(Contestant):
    """A folder of images, which lie there as an evaluation or a benchmark leaves them."""

    kind = "images"

    def check(self, suites: Sequence[Asked]) -> None:
        self._found(suites)

    def images(
        self, suites: Sequence[Asked], config: EvaluateConfig
    ) -> tuple[Entry, dict[str, Files]]:
        about = {"kind": self.kind, "folder": Path(self.spec).name}
        return Entry(self.name, about), self._found(suites)

    def note(self, files: Files) -> str | None:
        return sizes_note(self.name, files)

    def _found(self, suites: Sequence[Asked]) -> dict[str, Files]:
        return {one.suite: found(Path(self.spec), one.prompts, one.images) for one in suites}


class Drawn(Contestant):
    """A model that draws; what is there already is not drawn again."""

    def check(self, suites: Sequence[Asked]) -> None:
        for file, _ in map(parse, self.loras):
            LoRAFile.read(file)

    @abstractmethod
    def load(self, config: EvaluateConfig, device: torch.device) -> Bridge:
        """The model, ready to draw."""

    def recipe(self, bridge: Bridge) -> str | None:
        """The paper's row of the same models, if it has one."""
        return None

    def sampling(self, config: EvaluateConfig) -> Sampling:
        """How it draws: with strengths of its own."""
        scales: Any = {option: self.scales.get(option, 1.0) for option in SCALES}
        return replace(config.sampling, **scales)

    def images(
        self, suites: Sequence[Asked], config: EvaluateConfig
    ) -> tuple[Entry, dict[str, Files]]:
        device = own_device(config.device)
        bridge = self.load(config, device)
        for file, scale in map(parse, self.loras):
            bridge.load_lora(file, scale)
        compile_sampling(bridge.vision.backbone, config.sampling.compile)
        identity = _identity(bridge, config, self.sampling(config))
        files = {one.suite: self._draw(bridge, one, identity, config) for one in suites}
        about = {"kind": self.kind, **identity, **_about(bridge, device)}
        recipe = self.recipe(bridge)
        del bridge
        gc.collect()  # before the next one is loaded
        return Entry(self.name, about, recipe), files

    def _draw(
        self, bridge: Bridge, asked: Asked, identity: dict[str, Any], config: EvaluateConfig
    ) -> Files:
        folder = config.out / self.name / asked.folder
        about = {"prompts": prompt_hash(asked.prompts), "images per prompt": asked.images}
        draw(
            bridge,
            asked.jobs,
            folder,
            self.sampling(config),
            identity=identity | about,
            suffix=config.suffix,
            name=f"{self.name}, {asked.suite}",
        )
        wait_for_all()
        if processes()[0] == 0:
            finish(folder, asked.jobs)
        wait_for_all()
        there = drawn(folder)
        if missing := [job.file for job in asked.jobs if job.file not in there]:
            raise BridgeError(f"{len(missing)} images are missing in '{folder}', as {missing[0]}")
        names = [folder / "images" / job.file for job in asked.jobs]
        size = asked.images
        return [names[start : start + size] for start in range(0, len(names), size)]


class ImageModel(Drawn):
    """An image model with its own text encoder."""

    kind = "image model"

    def load(self, config: EvaluateConfig, device: torch.device) -> Bridge:
        return Bridge.own(self.spec, dtype=config.dtype, device=device)


@dataclass
class Joined(Drawn):
    """A bridge."""

    kind = "bridge"
    moved: dict[str, str] = field(default_factory=dict)
    """Where its language and vision model are now, if not where they were in training."""

    def check(self, suites: Sequence[Asked]) -> None:
        super().check(suites)
        _, record = opened(self.spec)
        for option, scale in self.scales.items():
            side = option.removesuffix("_scale")
            if scale == 1:
                continue
            if side == "adapter":
                if not ADAPTERS[kind := record.get(side, "feedforward")].adds:
                    raise BridgeError(
                        f"the '{kind}' adapter of '{self.name}' adds nothing to an own encoder, "
                        f"and so has no {_flag(option)}"
                    )
            elif not record[side].get("lora"):
                raise BridgeError(
                    f"'{self.name}' has no LoRA in its {side} model, and so no {_flag(option)}"
                )

    def load(self, config: EvaluateConfig, device: torch.device) -> Bridge:
        return Bridge.load(
            self.spec,
            language=self.moved.get("language"),
            vision=self.moved.get("vision"),
            dtype=config.dtype,
            device=device,
            trust_remote_code=config.trust_remote_code,
        )

    def recipe(self, bridge: Bridge) -> str | None:
        pair = bridge.language.place.id.partition("@")[0], bridge.vision.place.id.partition("@")[0]
        return next((n for n, r in RECIPES.items() if (r.language, r.vision) == pair), None)


def contestants_of(specs: Sequence[str]) -> list[Contestant]:
    """What is evaluated, under names of its own; nothing is loaded yet.

    Raises:
        BridgeError: none is given, one is nowhere, or two have the same name.
    """
    if not specs:
        raise BridgeError("nothing to evaluate: give bridges, image models, or folders of images")
    all_of_them: list[Contestant] = []
    for text in specs:
        name, spec, scales, loras = _read(text)
        spec = str(at_home(spec)) if spec.startswith("~") else spec
        told = "".join(f" {_flag(option)}={scale:g}" for option, scale in scales.items())
        told += "".join(f" lora={Path(f).stem} {scale:g}" for f, scale in map(parse, loras))
        one = _class_of(spec)(name or _name(spec) + told, spec, scales, loras)
        if scales and not isinstance(one, Joined):
            raise BridgeError(f"'{text}': a strength is of a bridge; this is none")
        if loras and not isinstance(one, Drawn):
            raise BridgeError(f"'{text}': a LoRA is of what draws; these are images")
        all_of_them.append(one)
    names = [one.name.casefold() for one in all_of_them]
    for one in all_of_them:
        if not re.fullmatch(r"[\w +=-][\w. +=-]{0,79}", one.name):
            raise BridgeError(f"'{one.name}' cannot name a folder; give NAME=…")
        if names.count(one.name.casefold()) > 1:
            raise BridgeError(f"two entries are called '{one.name}'; give NAME=… to tell them")
    return all_of_them


def _read(text: str) -> tuple[str, str, dict[str, float], list[str]]:
    """`NAME=PLACE,language-scale=0.5,lora=FILE:0.8` -> name (or nothing), place, strengths, LoRA
    files.

    Raises:
        BridgeError: an option is not known, or its value is no number.
    """
    name, given, spec = text.partition("=")
    if at_home(text).exists():  # a folder may be called anything
        return "", text, {}, []
    if given and "," not in name and at_home(spec).exists():  # else it may be that of an option
        return name, spec, {}, []
    found = re.fullmatch(r"(.*?)((?:,(?:[\w-]*-scale|lora)=[^,]*)*)", text, re.DOTALL)
    assert found is not None  # anything matches
    first, known = found[1], {_flag(scale): scale for scale in SCALES}
    scales, loras = {}, []
    for option, _, value in (part.partition("=") for part in found[2].split(",")[1:]):
        if option == "lora":
            loras.append(value)
            continue
        if option not in known:
            raise BridgeError(f"'{text}': unknown option '{option}'{nearest(option, known)}")
        try:
            scales[known[option]] = float(value)
        except ValueError:
            raise BridgeError(f"'{text}': {option} is a number, not '{value}'") from None
        check_finite(option, scales[known[option]])
    name, given, spec = first.partition("=")
    if not given or at_home(first).exists():
        name, spec = "", first
    return name, spec, scales, loras


def _flag(option: str) -> str:
    return option.replace("_", "-")


def place_bases(contestants: Sequence[Contestant], config: EvaluateConfig) -> None:
    """Note where the base models of each bridge are now: NAME=PLACE goes before PLACE.

    Raises:
        BridgeError: a name is no entry's, or there are two places for one model.
    """
    bridges = {one.name: one for one in contestants if isinstance(one, Joined)}
    for option in ("language", "vision"):
        common: list[str] = []
        for text in getattr(config, option):
            name, given, place = text.partition("=")
            if not given or at_home(text).exists():
                common.append(text)
            elif name not in bridges:
                known = ", ".join(bridges) or "none"
                raise BridgeError(
                    f"--{option} {text}: no bridge '{name}' among the entries; bridges: {known}"
                )
            else:
                bridges[name].moved[option] = place
        if len(common) > 1:
            raise BridgeError(f"--{option} {' '.join(common)}: one place for all; for one NAME=…")
        for bridge in bridges.values():
            if common:
                bridge.moved.setdefault(option, common[0])


def share_scales(contestants: Sequence[Contestant], sampling: Sampling) -> None:
    """Give every bridge the strengths that are asked of all, where it has none of its own."""
    for one in contestants:
        if isinstance(one, Joined):
            one.scales = sampling.scales | one.scales


def _class_of(spec: str) -> type[Contestant]:
    if is_pipeline(spec):
        return ImageModel
    folder = Path(spec)
    bridged = folder.is_dir() and any(folder.glob("**/bridge.json"))
    begun = any((folder / name).exists() for name in ("lora_vis.pt", "metrics.jsonl"))
    if folder.is_dir() and not bridged and not begun:
        return Images
    try:
        find_bridge(spec)
    except BridgeError:
        place = locate(spec)
        if place.local or place.file("model_index.json") is None:
            raise
        return ImageModel  # a pipeline on the Hub
    return Joined


def _name(spec: str) -> str:
    path = Path(spec.removeprefix("zoo:").partition("@")[0])
    return path.parent.name if path.name == "bridge" and path.parent.name else path.resolve().name


def _identity(bridge: Bridge, config: EvaluateConfig, sampling: Sampling) -> dict[str, Any]:
    """What the images depend on beside prompts and seeds."""
    settings, made = settings_of(bridge, sampling), made_by(bridge)
    if not bridge.trainable_parameters():  # then its id is of the two models alone
        made["bridge"] = joined(bridge.language.fingerprint, bridge.vision.fingerprint, digits=12)
    return made | {"seed": sampling.seed} | settings | {"suffix": config.suffix}


def _about(bridge: Bridge, device: torch.device) -> dict[str, Any]:
    """Further provenance: fingerprints, what was trained, versions."""
    names = ("torch", "diffusers", "transformers", "peft")
    return {
        "language fingerprint": bridge.language.fingerprint,
        "vision fingerprint": bridge.vision.fingerprint,
        "adapter": bridge.adapter.kind,
        "language LoRA rank": bridge.language.lora.rank if bridge.language.lora else 0,
        "vision LoRA rank": bridge.vision.lora.rank if bridge.vision.lora else 0,
        "training": bridge.training_summary,
        "device": device.type,
        "versions": {"lavi-bridge": __version__} | {name: version(name) for name in names},
    }
