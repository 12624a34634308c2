"""Settings of `expand`; a field's docstring is its help text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from lavi_bridge.config import Dtype, HomePaths, is_number
from lavi_bridge.errors import BridgeError


@dataclass
class ExpandConfig(HomePaths):
    """Write a long prompt for every short one with a language model, and keep them as pairs.

    The file has a JSON line a prompt (id, category, short, long) and is a suite itself; its
    settings lie beside it. Stopped and repeated it goes on. The paper used Llama-2
    (meta-llama/Llama-2-7b-chat-hf, say); the instruction is ours."""

    suite: Positional[str]
    """Short prompts: a suite (see `lavi-bridge list suites`), or a .txt, .tsv or .jsonl file."""
    language: str
    """Any causal language model, asked by its chat template if it has one: Hub id or folder."""
    out: Path
    """The file, which ends in .jsonl."""
    prompts: Path | None = None
    """Folder with copies of the public suites (unset: they are fetched)."""
    limit: int | None = None
    """Take so many prompts, evenly over the categories (unset: all)."""
    seed: int = 0
    """Source of all randomness; a prompt's own follows from this and its text."""
    temperature: float = 0.7
    """How freely words are chosen; 0: always the likeliest."""
    top_p: float = 0.9
    """Words are chosen among the likeliest that have this share of the probability."""
    max_new_tokens: int = 120
    """Tokens of the answer at most; one that is cut ends with its last whole sentence."""
    batch_size: int = 8
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
        for name in ("max_new_tokens", "batch_size", "limit"):
            if is_number(value := getattr(self, name)) and value < 1:
                raise BridgeError(f"'{name}' must be at least 1, not {value}")
        if is_number(self.temperature) and not self.temperature >= 0:
            raise BridgeError(f"'temperature' must not be negative, not {self.temperature}")
        if is_number(self.top_p) and not 0 < self.top_p <= 1:
            raise BridgeError(f"'top_p' is a fraction above 0 and up to 1, not {self.top_p}")
        if isinstance(self.out, Path) and self.out.suffix != ".jsonl":
            raise BridgeError(f"'out' must end in .jsonl, not '{self.out}'")
