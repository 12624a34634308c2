"""Settings of `expand`; a field's docstring is its help text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Gt, Le
from tyro.conf import Positional

from lavi_bridge.config import Count, Dtype, NonNegative, Settings
from lavi_bridge.errors import BridgeError
from lavi_bridge.prompts.instructions import Form


@dataclass
class ExpandConfig(Settings):
    """Write a long or free prompt for every short one with a language model, and keep the pairs.

    The file has a JSON line a prompt (id, category, short, long) and is a suite itself; its
    settings lie beside it. Stopped and repeated it goes on. The paper used Llama-2
    (meta-llama/Llama-2-7b-chat-hf, say); the instruction is ours."""

    suite: Positional[str]
    """Short prompts: a suite (see `lavi-bridge list suites`), or a .txt, .tsv or .jsonl file."""
    language: str
    """Any causal language model, asked by its chat template if it has one: Hub id or folder."""
    out: Path
    """The file, which ends in .jsonl."""
    form: Form = "long"
    """What is written: `long`, a longer description; `free`, what a person would say."""
    pairs: Path | None = None
    """Also write a .tsv for `train --warm-start-pairs`: what was written<TAB>the short one, without
    those that lost a number, a basic colour or a side (they are counted)."""
    prompts: Path | None = None
    """Folder with copies of the public suites (unset: they are fetched)."""
    limit: Count | None = None
    """Take so many prompts, evenly over the categories (unset: all)."""
    seed: int = 0
    """Source of all randomness; a prompt's own follows from this and its text."""
    temperature: NonNegative = 0.7
    """How freely words are chosen; 0: always the likeliest."""
    top_p: Annotated[float, Gt(0), Le(1)] = 0.9
    """Words are chosen among the likeliest that have this share of the probability."""
    max_new_tokens: Count = 120
    """Tokens of the answer at most; one that is cut ends with its last whole sentence."""
    batch_size: Count = 8
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
        if isinstance(self.out, Path) and self.out.suffix != ".jsonl":
            raise BridgeError(f"'out' must end in .jsonl, not '{self.out}'")
        if isinstance(self.pairs, Path) and self.pairs.suffix != ".tsv":
            raise BridgeError(f"'pairs' must end in .tsv, not '{self.pairs}'")
