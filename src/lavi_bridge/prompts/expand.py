"""Long or free prompts from short ones, written by a language model, and kept as pairs.

The paper judges long prompts that Llama-2 made of its short ones. Pairs also teach a bridge to read
such texts (`train --warm-start-pairs`); those that no longer say what the short one said are
counted and left out there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import disk_trouble, write_text
from lavi_bridge.files.locate import locate
from lavi_bridge.files.weights import fingerprint_of
from lavi_bridge.prompts.instructions import INSTRUCTIONS
from lavi_bridge.prompts.kept import check
from lavi_bridge.prompts.options import ExpandConfig
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.suite import prompt_hash
from lavi_bridge.prompts.suites import duplicates, load_suite
from lavi_bridge.running import claims
from lavi_bridge.running.progress import progress as bar
from lavi_bridge.running.seeds import seeded

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DESCRIPTIVE = ("language", "suite", "versions")
"""What a result says of itself that does not keep it from being continued."""


@dataclass(frozen=True)
class Expansion:
    """What came of an expansion."""

    pairs: int
    """Pairs in the file."""
    made: int
    """Those made by this call; the others were there."""
    empty: int
    """Pairs for which the model wrote nothing, so that the long prompt is the short one."""
    repeated: int
    """Short prompts that repeat earlier ones."""
    lost: int
    """Long prompts that no longer tell a number, a basic colour or a side of their short one."""
    contradicted: int
    """Of these, those that tell another number, or the other side."""
    kept: int
    """Pairs in the file for a warm start: the others."""


def expand(config: ExpandConfig, *, progress: bool = False) -> Expansion:
    """Write a JSON line `id, category, short, long` for every prompt, and the settings beside them.

    What is in the file already is kept, and the same call goes on after it. A prompt's answer
    depends on its text, the seed and the settings; on the batch only by float rounding, and the
    batches are the same ones after an interruption.

    Raises:
        BridgeError: the prompts or the model cannot be read, the model cannot take a prompt's
            length, the file was made with other settings, or another call is at it.
    """
    from lavi_bridge.running.device import choose_device, choose_dtype
    from lavi_bridge.running.lock import held, refuse_if_held

    refuse_if_held(config.out)

    prompts = load_suite(config.suite, folder=config.prompts, limit=config.limit)
    device = choose_device(config.device)
    writer = Writer(config, device, choose_dtype(config.dtype, device))
    requests = [writer.request(prompt) for prompt in prompts]
    about = {"prompts": prompt_hash(prompts), "count": len(prompts), **writer.about()}
    with held(config.out):
        return _expand(config, prompts, requests, writer, about, progress)


def _expand(
    config: ExpandConfig,
    prompts: Sequence[Prompt],
    requests: Sequence[str],
    writer: Writer,
    about: dict[str, Any],
    progress: bool,
) -> Expansion:
    """Write what is missing."""
    _same_settings(config.out, about)
    pairs = _finished(config.out, prompts)
    kept = len(pairs)
    left = len(prompts) - kept
    with bar(total=left, desc="expanding", unit="prompt", disable=not progress) as at:
        for start in range(0, len(prompts), config.batch_size):
            batch = slice(start, start + config.batch_size)
            skip = max(0, kept - start)
            if skip >= len(prompts[batch]):
                continue
            answers = writer(requests[batch], [prompt.text for prompt in prompts[batch]])
            # all of an interrupted batch was written anew, for the same rounding; the rest is kept
            for prompt, answer in list(zip(prompts[batch], answers, strict=True))[skip:]:
                pairs.append((prompt.text, answer or prompt.text))
                _append(config.out, prompt, pairs[-1][1])
                at.update()
    empty = sum(short == long for short, long in pairs)
    checks = [check(short, long) for short, long in pairs]
    good = [pair for pair, found in zip(pairs, checks, strict=True) if found.good]
    good = [(short, long) for short, long in dict.fromkeys(good) if short != long]
    if config.pairs is not None:
        # a tab is what parts them
        rows = [f"{' '.join(long.split())}\t{' '.join(short.split())}\n" for short, long in good]
        with _writing(config.pairs):
            write_text(config.pairs, "".join(rows))
    return Expansion(
        len(pairs),
        left,
        empty,
        duplicates(prompts),
        sum(not found.good for found in checks),
        sum(bool(found.contradicted) for found in checks),
        len(good),
    )


class Writer:
    """A language model that follows the instruction."""

    def __init__(self, config: ExpandConfig, device: torch.device, dtype: torch.dtype) -> None:
        from transformers import GenerationConfig

        from lavi_bridge.languages.loading.causal import load_causal

        self.config, self.place = config, locate(config.language)
        self.instruction = INSTRUCTIONS[config.form]
        self.model, self.tokenizer = load_causal(
            self.place, dtype=dtype, trust_remote_code=config.trust_remote_code
        )
        self.model.to(device)
        self.chat = self.tokenizer.chat_template is not None
        end = self.model.generation_config.eos_token_id
        end = self.tokenizer.eos_token_id if end is None else end
        self.ends: list[int] = [] if end is None else end if isinstance(end, list) else [end]
        # nothing else of the checkpoint's own settings: all that matters is in ours
        self.model.generation_config = GenerationConfig(
            max_new_tokens=config.max_new_tokens,
            do_sample=False,
            eos_token_id=self.ends or None,
            pad_token_id=self.tokenizer.pad_token_id,
        )

    def request(self, prompt: Prompt) -> str:
        """What the model reads, with as many of the examples as leave room for an answer.

        Raises:
            BridgeError: without examples there is no room either.
        """
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        examples = self.instruction.examples
        for count in range(len(examples), -1, -1):
            request = self._worded(" ".join(prompt.text.split()), examples[:count])
            length = len(self._encode([request])["input_ids"][0])
            if limit is None or length + self.config.max_new_tokens <= limit:
                return request
        raise BridgeError(
            f"prompt '{prompt.id}' takes {length} tokens with the instruction, and "
            f"{self.config.max_new_tokens} more are to be written, but '{self.place.id}' has room "
            f"for {limit}; use another model, or fewer --max-new-tokens"
        )

    def _worded(self, short: str, examples: Sequence[tuple[str, str]]) -> str:
        """A request by the model's chat template, or else as text to go on from."""
        if not self.chat:
            return self.instruction.plain(short, examples)
        turns = [text for pair in examples for text in pair] + [short]
        turns[0] = f"{self.instruction.text}\n\n{turns[0]}"  # many templates know no system role
        roles = ("user", "assistant")
        chat = [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
        return self.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )

    def about(self) -> dict[str, Any]:
        """All that the answers depend on, and what was used."""
        import torch
        import transformers

        config = self.config
        template = self.tokenizer.chat_template
        return {
            "seed": config.seed,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_new_tokens": config.max_new_tokens,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "model": fingerprint_of(self.place),
            "template": sha256(str(template).encode()).hexdigest()[:16] if self.chat else None,
            "instruction_version": self.instruction.version,
            "instruction": self.instruction.text,
            "examples": [list(pair) for pair in self.instruction.examples],
            "language": self.place.id,
            "suite": config.suite,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }

    def __call__(self, requests: Sequence[str], shorts: Sequence[str]) -> list[str]:
        """Answers to a batch of requests, cleaned; an empty one where the model wrote nothing."""
        import torch
        from transformers import LogitsProcessorList

        inputs = self._encode(requests, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            written = self.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                logits_processor=LogitsProcessorList(self._chance(shorts)),
            )[:, inputs["input_ids"].shape[1] :].cpu()
        ended = torch.isin(written, torch.tensor(self.ends, dtype=torch.long)).any(dim=1).tolist()
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [cleaned(text, cut=not end) for text, end in zip(texts, ended, strict=True)]

    def _encode(self, requests: Sequence[str], **options: Any) -> Any:
        return self.tokenizer(
            list(requests),
            padding=True,
            padding_side="left",
            add_special_tokens=not self.chat,  # a template brings its own
            **options,
        )

    def _chance(self, shorts: Sequence[str]) -> list[Callable[[Tensor, Tensor], Tensor]]:
        """Sampling as an argmax: of logits plus Gumbel noise (Gumbel 1954), drawn row by row.

        So a row's randomness is its own, whatever stands beside it in the batch.
        """
        from torch import empty, stack
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        if self.config.temperature == 0:
            return []
        sources = [seeded(self.config.seed, "expand", short) for short in shorts]

        def noisy(ids: Tensor, scores: Tensor) -> Tensor:
            waits = [empty(scores.shape[1]).exponential_(generator=source) for source in sources]
            return scores - stack(waits).log().to(scores.device)

        warpers = [TemperatureLogitsWarper(self.config.temperature)]
        return [*warpers, TopPLogitsWarper(self.config.top_p), noisy]


def cleaned(answer: str, *, cut: bool) -> str:
    """The description in a model's answer: its first paragraph, on one line, without quotes.

    Args:
        cut: whether the answer was stopped by the limit of tokens; then it ends with its last whole
            sentence, if it has one.
    """
    answer = answer.rpartition("</think>")[2].strip()
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n|\n(?=Short:)", answer)]
    if len(paragraphs) > 1 and paragraphs[0].endswith(":"):  # "Sure, here it is:"
        paragraphs = paragraphs[1:]
    text = " ".join(paragraphs[0].split())
    if cut and len(paragraphs) == 1 and (ends := list(re.finditer(r"[.!?][\"'”’]?(?= |$)", text))):
        text = text[: ends[-1].end()]
    for opening, closing in ('""', "''", "“”"):
        inside = text[1:].removesuffix(closing)  # an answer that was cut has lost the closing one
        if text.startswith(opening) and opening not in inside and closing not in inside:
            text = inside.strip()
    return text


def _append(out: Path, prompt: Prompt, long: str) -> None:
    pair = {"id": prompt.id, "category": prompt.category, "short": prompt.text, "long": long}
    line = json.dumps(pair | prompt.facts | pair, ensure_ascii=False) + "\n"
    with _writing(out), out.open("ab") as file:
        file.write(line.encode())


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BridgeError(
            f"cannot write '{out}': {disk_trouble(error)}; the same command goes on later"
        ) from error


def _same_settings(out: Path, about: dict[str, Any]) -> None:
    """Keep the settings beside `out`, or refuse to go on where it was made with others."""
    path = out.with_name(f"{out.name}.meta.json")
    if out.exists() and not path.exists():
        raise BridgeError(
            f"'{out}' is there, but the settings it was made with ('{path.name}') are not; "
            "choose another --out"
        )
    with _writing(path):
        if not out.exists():
            path.unlink(missing_ok=True)
        found = claims.noted(path, about, advice="choose another --out")
    if changed := claims.difference(found, about, apart_from=DESCRIPTIVE, ours_alone=True):
        raise BridgeError(
            f"'{out}' was made with other settings ({changed}); repeat those, or choose another "
            "--out"
        )


def _finished(out: Path, prompts: Sequence[Prompt]) -> list[tuple[str, str]]:
    """The short and long prompts in `out`; a line that was cut by a kill is taken off its end."""
    content = out.read_bytes() if out.exists() else b""
    whole = content.rfind(b"\n") + 1
    pairs = []
    for number, line in enumerate(content[:whole].split(b"\n")[:-1]):
        try:
            entry = json.loads(line)
            expected = number < len(prompts) and (prompts[number].id, prompts[number].text)
            if (entry["id"], entry["short"]) != expected:
                raise ValueError("another prompt")
            pairs.append((entry["short"], str(entry["long"])))
        except (ValueError, KeyError, TypeError) as error:
            raise BridgeError(
                f"{out}:{number + 1}: damaged ({error}); delete this line and all after it, and "
                "the same command makes them again"
            ) from error
    if whole < len(content):
        os.truncate(out, whole)
    return pairs
