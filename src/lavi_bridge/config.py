"""Typed settings: one source for YAML files, command-line flags and their help.

A field's docstring is its help text. A setting is looked up in the flags, then in the YAML
file, then in the recipe, then in the defaults beside its field (`*/options.py`).
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from tyro.constructors import PrimitiveConstructorSpec

from lavi_bridge.errors import BridgeError, nearest
from lavi_bridge.files.atomic import at_home

Dtype = Literal["float32", "bfloat16", "float16"]
Match = Literal["states", "predictions", "both", "sets"]
"""What a warm start makes equal to the vision model's own text encoder."""
Solve = Literal["none", "ridge", "procrustes"]
"""How a warm start solves the adapter's last layer before its first step."""

Compile = Literal["none", "blocks", "graphs"]
Quantize = Literal["none", "int8", "nf4"]
FlowWeighting = Literal["logit-normal", "uniform", "mode", "cosmap", "sigma-sqrt"]


SCALES = "language_scale", "vision_scale", "adapter_scale"
"""Settings of how strong the LoRA of either model is in sampling, and the adapter."""


@dataclass(frozen=True)
class LoRA:
    """What is injected into one model; enough to inject it again. Scale is 1 (alpha = rank)."""

    rank: int
    targets: str
    """Regular expression that a layer's whole dotted name must match."""
    dropout: float = 0.0
    """On the output of the low-rank branch, as published (PEFT's own falls on its input)."""


Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]


def amount(text: str) -> int:
    """`500000`, `500k` or `20M` as a number.

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)", text.strip().replace(",", ""))
    found = Decimal(match[1]) * SUFFIXES[match[2]] if match else None
    if found is None or found != found.to_integral_value():
        raise ValueError(f"expected a whole number such as 500000, 500k or 20M, not '{text}'")
    return int(found)


SUFFIXES = {"": 1, "k": 10**3, "M": 10**6}
Amount = Annotated[
    int,
    Ge(1),
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT|20M",
        instance_from_str=lambda given: amount(given[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A count that may be written with k or M."""
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]


class Settings:
    """A command's settings, whose bounds stand beside their fields.

    Paths may begin with `~`, wherever they come from: shells expand it in `--out ~/run`, but
    neither in `--out=~/run` nor in a YAML file.
    """

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, Path):
                setattr(self, name, at_home(value))
        check_bounds(self)


def check_bounds(settings: object) -> None:
    """Refuse numbers that lie outside of what their fields allow; NaN always does.

    Raises:
        BridgeError: one does; it is named.
    """
    for name, bounds in _bounds(type(settings)).items():
        value = getattr(settings, name)
        for number in filter(is_number, value if is_list(value) else [value]):
            for bound in bounds:
                if wanted := _missed(number, bound):
                    raise BridgeError(f"'{name}' must be {wanted}, not {number}")


def _missed(number: Any, bound: object) -> str | None:
    """What a bound asks for, where a number is not that."""
    match bound:
        case Ge(least):
            return None if number >= least else f"at least {least}"
        case Gt(least):
            return None if number > least else f"above {least}"
        case Le(most):
            return None if number <= most else f"at most {most}"
        case Lt(most):
            return None if number < most else f"below {most}"
    return None


def _bounds(kind: type) -> dict[str, list[Any]]:
    """By field, the bounds of a class's annotations: those of a list are of all in it."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: found for name, hint in hints.items() if (found := _bounds_in(hint))}


def _bounds_in(hint: Any) -> list[Any]:
    found = [b for b in getattr(hint, "__metadata__", ()) if isinstance(b, Ge | Gt | Le | Lt)]
    return found + [bound for part in typing.get_args(hint) for bound in _bounds_in(part)]


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn."""

    seed: int = 0
    """Seed of the first picture; picture i has seed + i."""
    steps: int | None = None
    """Denoising steps (unset: 50 for the paper's image models, else the own pipeline's)."""
    guidance: float | None = None
    """Weight of classifier-free guidance, 1 turns it off (unset: 7.5 for the paper's image models,
    else the own pipeline's)."""
    negative: str = ""
    """What to steer away from."""
    height: int | None = None
    """Height in pixels (unset: the vision model's own)."""
    width: int | None = None
    """Width in pixels (unset: the vision model's own)."""
    scheduler: str | None = None
    """Sampler: unipc (the paper's), ddim, ddpm, pndm, dpm++, euler, euler-a, heun; flow-euler,
    unipc, dpm++ for flow models (unset: the family's own)."""
    language_scale: float = 1.0
    """Strength of the language model's LoRA: 0 is the frozen model, 1 as trained."""
    vision_scale: float = 1.0
    """Strength of the vision model's LoRA: 0 is the frozen model, 1 as trained."""
    adapter_scale: float = 1.0
    """Strength of what the `fusion` adapter adds to the own encoder's states: 0 is the own encoder
    alone, 1 as trained."""
    batch_size: int = 4
    """Pictures drawn at once; does not change them."""
    compile: Compile = "none"
    """Compile the image model block by block: a slow first picture, then faster ones. `graphs`
    launches each block as one CUDA graph besides. Changes pictures by float rounding."""

    def __post_init__(self) -> None:
        if self.guidance is not None and is_number(self.guidance):
            check_guidance(self.guidance)
        for name, scale in self.scales.items():
            if is_number(scale):
                check_finite(name, scale)

    @property
    def scales(self) -> dict[str, float]:
        """Strengths of LoRA and adapter, by the name of their setting."""
        return {name: getattr(self, name) for name in SCALES}


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

    types, written = typing.get_type_hints(cls), typing.get_type_hints(cls, include_extras=True)
    known = [f.name for f in dataclasses.fields(cls)]
    result = {}
    for key, value in values.items():
        if key not in known:
            raise BridgeError(f"{source}: unknown key '{key}'{nearest(str(key), known)}")
        try:
            if isinstance(value, str) and written[key] == Amount | None:
                value = amount(value)
            result[key] = TypeAdapter(types[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise BridgeError(f"{source}: '{key}': {reason}, got {value!r}") from error
        except ValueError as error:
            raise BridgeError(f"{source}: '{key}': {error}") from error
    return result


def check_guidance(guidance: float) -> None:
    """Refuse a weight of guidance that makes every picture something else than numbers."""
    check_finite("guidance", guidance)


def check_finite(name: str, value: float) -> None:
    """Refuse a setting that is infinite or no number."""
    if not math.isfinite(value):
        raise BridgeError(f"'{name}' must be a finite number, not {value}")


def is_given(value: object) -> bool:
    """Whether a setting has been set: to text, a path, or a list that is not empty."""
    return isinstance(value, str | Path) or (is_list(value) and bool(value))


def is_list(value: object) -> bool:
    return isinstance(value, list)  # as with numbers


def is_number(value: object) -> bool:
    return isinstance(value, int | float)  # not yet so while a command line is being parsed
