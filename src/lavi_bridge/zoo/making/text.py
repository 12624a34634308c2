"""What the language models learn from text alone: the next token, or the spans that were cut out.

The text is that of `grammar.document`: two or three sentences on one scene. No picture is drawn.
"""

from __future__ import annotations

import json
import random
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import read_safetensors
from lavi_bridge.running.seeds import seed_of
from lavi_bridge.shapes.grammar import document
from lavi_bridge.shapes.world import draw_scenes
from lavi_bridge.zoo.making.fitting import Objective
from lavi_bridge.zoo.making.tokens import SENTINELS

IGNORED = -100
"""A label that takes no part in the loss."""
HELD_OUT = 1024
"""Documents of which the held-out loss is the mean."""


def documents(count: int, *key: object) -> list[str]:
    """Documents of one place in a run; the same key gives the same ones."""
    rng = random.Random(seed_of(*key, "words"))
    return [document(scene, rng) for scene in draw_scenes(count, seed_of(*key, "scenes"))]


class TextObjective(Objective):
    """A language model, its tokenizer, and text without end."""

    length: ClassVar[int] = 64

    def __init__(self, model: nn.Module, tokenizer: Any, *, seed: int = 0) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer, self.seed = tokenizer, seed
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token

    def loss(self, step: int, batch: int) -> Tensor:
        return self.loss_on(documents(batch, self.seed, step), seed_of(self.seed, step, "cuts"))

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Cross-entropy per predicted token, in nats."""
        was_training = self.training
        self.eval()
        texts = documents(HELD_OUT, self.seed, "held out")
        parts = [
            self.loss_on(texts[i : i + 256], seed_of("held out", i)).item()
            for i in range(0, HELD_OUT, 256)
        ]
        self.train(was_training)
        return {"held_out_loss": sum(parts) / len(parts)}

    @abstractmethod
    def loss_on(self, texts: list[str], seed: int) -> Tensor:
        """Cross-entropy on these texts; `seed` for what is drawn on the way."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the language model, without what only pre-training needs, in float16."""

    def tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask (batch, longest text, at most `length`)."""
        encoded = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.length,
            padding_side="right",
            return_tensors="pt",
        )
        device = next(self.model.parameters()).device
        return encoded["input_ids"].to(device), encoded["attention_mask"].to(device)


class NextToken(TextObjective):
    """Predict every token from those before it: Llama, and CLIP's causal text tower.

    The output layer is one of its own and is dropped in the end. Were it the table of embeddings,
    the last states would hold the coming word and no longer the one that was read.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, seed: int = 0) -> None:
        super().__init__(model, tokenizer, seed=seed)
        size, width = self.model.get_input_embeddings().weight.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(width, size, bias=False)

    def loss_on(self, texts: list[str], seed: int) -> Tensor:
        ids, mask = self.tokens(texts)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        scores = self.head(hidden[:, :-1])
        labels = ids[:, 1:].masked_fill(mask[:, 1:] == 0, IGNORED)
        return nn.functional.cross_entropy(
            scores.flatten(0, 1), labels.flatten(), ignore_index=IGNORED
        )

    def save(self, folder: Path) -> None:
        save_half(self.model, folder)
        self.tokenizer.save_pretrained(folder)


class ShortNextToken(NextToken):
    """The same for a model of 32 positions; longer documents lose their end."""

    length: ClassVar[int] = 32


class Spans(TextObjective):
    """Predict cut-out spans from what is left: T5 (arXiv 1910.10683, section 3.1.4).

    A quarter of the tokens, in spans of three on average; the texts are short.
    """

    def loss_on(self, texts: list[str], seed: int) -> Tensor:
        rng = random.Random(seed)
        ids, mask = self.tokens(texts)
        first = self.tokenizer.convert_tokens_to_ids("<extra_id_0>")
        end = self.tokenizer.eos_token_id
        lefts, rights = [], []
        for row, real in zip(ids.tolist(), mask.sum(1).tolist(), strict=True):
            left, right = cut_spans(row[: real - 1], first, rng)
            lefts.append([*left, end])
            rights.append([*right, end])
        inputs, reads = _stack(lefts, self.tokenizer.pad_token_id, ids.device)
        labels, _ = _stack(rights, IGNORED, ids.device)
        return self.model(input_ids=inputs, attention_mask=reads, labels=labels).loss

    def save(self, folder: Path) -> None:
        """Only the encoder is kept: nothing of ours reads the decoder."""
        from transformers import T5EncoderModel

        encoder = T5EncoderModel(self.model.config)
        encoder.load_state_dict(self.model.state_dict(), strict=False)
        save_half(encoder, folder)
        self.tokenizer.save_pretrained(folder)


@torch.no_grad()
def go_on_from(task: TextObjective, folder: Path) -> int:
    """Take over earlier weights where names and shapes agree; return how many tensors did.

    Tokens may differ: a piece that is a whole word of the earlier vocabulary takes its embedding.
    """
    from transformers import AutoTokenizer

    earlier = {
        name: tensor.float()
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in read_safetensors(file).items()
    }
    own = task.model.state_dict()
    table = task.model.get_input_embeddings().weight
    tables = [name for name, tensor in own.items() if tensor.data_ptr() == table.data_ptr()]
    known = AutoTokenizer.from_pretrained(folder).get_vocab()
    taken = 0
    for name, tensor in own.items():
        if name not in tables and name in earlier and earlier[name].shape == tensor.shape:
            tensor.copy_(earlier[name])
            taken += 1
    for name in [n for n in tables if n in earlier and earlier[n].shape[1] == table.shape[1]]:
        for piece, index in task.tokenizer.get_vocab().items():
            word = piece.removeprefix("▁").removesuffix("</w>")
            if word in known:
                table[index] = earlier[name][known[word]]
        taken += 1
        break
    if not taken:
        raise BridgeError(f"'{folder}' holds no weights of this model's shapes")
    return taken


def cut_spans(ids: list[int], first: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """Token ids -> what is left, with a sentinel for each span, and the spans behind theirs.

    Args:
        first: id of `<extra_id_0>`; the others follow it.
    """
    spans = sorted(_spans(len(ids), rng))
    left: list[int] = []
    right: list[int] = []
    at = 0
    for number, (start, stop) in enumerate(spans):
        left += [*ids[at:start], first + number]
        right += [first + number, *ids[start:stop]]
        at = stop
    return left + ids[at:], right


def _spans(length: int, rng: random.Random) -> Iterator[tuple[int, int]]:
    """One span of one to five tokens in each of equal stretches of twelve."""
    stretches = max(1, min(SENTINELS, length // 12))
    for number in range(stretches):
        low, high = number * length // stretches, (number + 1) * length // stretches
        size = min(rng.randint(1, 5), high - low)
        start = rng.randint(low, high - size)
        yield start, start + size


def _stack(rows: list[list[int]], fill: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of different lengths -> (batch, longest), filled on the right, and its mask."""
    longest = max(map(len, rows))
    filled = torch.tensor([row + [fill] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor(
        [[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device
    )
    return filled, mask


def save_half(model: Any, folder: Path) -> None:
    """Save a copy of a model in float16."""
    import copy

    copy.deepcopy(model).half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # a path of the machine that made it
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
