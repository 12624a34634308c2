"""Settings of `push`; a field's docstring is its help text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from lavi_bridge.config import Dtype, Natural, Sampling, Settings
from lavi_bridge.errors import BridgeError

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
LONGEST = 96
"""Letters of a name on the Hub."""


@dataclass
class PushConfig(Settings):
    """Publish a bridge on the Hugging Face Hub: weights, card, sample pictures and scores, in one
    commit. `hf auth login` comes first, with a token that may write. The same call again sends
    only what has changed; what an earlier push left behind goes.

      lavi-bridge push runs/t5 me/t5-sd --dry-run look          # look/README.md is the card
      lavi-bridge push runs/t5 me/t5-sd --evaluation runs/evaluation
    """

    folder: Positional[str]
    """Folder of a bridge, of its training run (recipe and curves come with it), or of an export."""
    name: Positional[str]
    """OWNER/NAME on the Hub: you or an organisation of yours, and a name for the bridge."""
    private: bool = False
    """Make a new repository that only you can see."""
    dry_run: Path | None = None
    """Write what would be sent into this new folder instead; needs no token."""
    evaluation: Path | None = None
    """Folder that `evaluate` has written: scores with intervals, and pictures that are there."""
    benchmark: str | None = None
    """Data set on the Hub that the scores are of, for `.eval_results/`, too (leaderboards take
    those that the Hub has registered as a benchmark)."""
    samples: Natural = 4
    """Sample pictures with their prompts: from the evaluation if there is one, else drawn now."""
    prompts: Path | None = None
    """A text file with one prompt a line, for the samples (unset: the run's own, or four of ours);
    they are drawn now."""
    sampling: OmitArgPrefixes[Sampling] = field(default_factory=Sampling)
    """How samples are drawn."""
    licence: str | None = None
    """Licence of what you publish, as the Hub writes it: mit, creativeml-openrail-m … (unset: the
    stricter of the base models')."""
    yes: bool = False
    """Publish though the base models' licences are unknown, may conflict, or ask for more than
    --licence."""
    message: str | None = None
    """Of the commit (unset: which bridge it is)."""
    language: str | None = None
    """Hub id of the language model, where the bridge was trained on a folder of this machine."""
    vision: str | None = None
    """Hub id of the vision model, likewise."""
    dtype: Dtype | None = None
    """Precision of the models that draw (unset: bfloat16 on a GPU, float32 on a CPU)."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""
    trust_remote_code: bool = False
    """Run code that comes with the language model, to draw (read it first)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.name, str):
            check_name(self.name)
        if self.benchmark is not None and self.evaluation is None:
            raise BridgeError(
                "--benchmark says what the scores of an --evaluation are of; give one"
            )


def check_name(name: str) -> None:
    """Refuse what cannot name a repository.

    Raises:
        BridgeError: it is not OWNER/NAME, or has signs that the Hub does not take.
    """
    odd = "--" in name or ".." in name or name.endswith((".git", ".", "-"))
    if not NAME.fullmatch(name) or odd or len(name) > LONGEST:
        raise BridgeError(
            f"'{name}' is no name on the Hub: OWNER/NAME of letters, digits, '-', '_' and '.', "
            "as in me/t5-sd"
        )
