"""What the T2I-CompBench metrics share: how they read the official code, and how weights load.

"Official" is Karine-Huang/T2I-CompBench@1b7094991a57f3c22abdd4f6e8ba6c1a15517073 (MIT; its UniDet
part is non-commercial). Where that code does what its paper does not say, a metric has two modes:
`faithful` gives the official number to the digit, `fixed` does what is evidently meant. What
differs is listed in each module's QUIRKS, and in nothing else do the modes differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import locate
from lavi_bridge.files.pretrained import load_pretrained, loading, quiet
from lavi_bridge.files.weights import fingerprint_of
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.running.device import choose_device

Mode = Literal["faithful", "fixed"]

COMPLEX = "complex"
"""The category whose prompts the official scorers read differently (their flag `--complex`)."""


@dataclass(frozen=True)
class Quirk:
    """One thing that the official code does and that `fixed` does not."""

    name: str
    official: str
    """What the official code does, and `faithful` with it."""
    fixed: str
    where: str
    """File and function of the official code."""


QUIRKS = (
    Quirk(
        "underscore",
        official="reads the prompt from the file name, up to its first underscore",
        fixed="reads the prompt itself",
        where="every scorer: file_name.split('_')[0]",
    ),
)


def checked(mode: Mode) -> Mode:
    """The mode, if there is such a one."""
    if mode not in get_args(Mode):
        raise BridgeError(f"unknown mode '{mode}'; known: {', '.join(get_args(Mode))}")
    return mode


def said(prompt: Prompt, mode: Mode) -> str:
    """The text that the scorers see."""
    return prompt.text.partition("_")[0] if mode == "faithful" else prompt.text


class Scorer:
    """A model of transformers with its tokenizer, frozen and in float32.

    Args:
        kind: name of the model's class in transformers.
        source: folder or Hub id.
        device: None is the GPU where there is one.

    Raises:
        BridgeError: the weights are not here and cannot be fetched, or are those of another model.
    """

    def __init__(self, kind: str, source: str, device: str | torch.device | None) -> None:
        import transformers

        self.place = locate(source)
        self.device = choose_device(device)
        model_class = getattr(transformers, kind)
        known, found = model_class.config_class.model_type, self.place.json("config.json")
        if found.get("model_type") != known:
            raise BridgeError(f"'{source}' is a '{found.get('model_type')}', no '{known}' ({kind})")
        what = f"the scorer '{source}'"
        with loading(what), quiet():
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(**self.place.pretrained())
        self.tokenizer.truncation_side = "right"  # whatever its files say
        model = load_pretrained(model_class, self.place, what, dtype=torch.float32)
        self.model: Any = model.eval().requires_grad_(False).to(self.device)

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Which weights these are: id, Hub commit and fingerprint (see `weights.fingerprint`)."""
        found = {"weights": self.place.id, "fingerprint": fingerprint_of(self.place)}
        commit = self.place.commit()
        return found | ({"commit": commit} if commit else {})
