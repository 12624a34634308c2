"""A judge: an image-and-text model of transformers and the probabilities of its answers.

It is asked by its own chat template, one turn with a picture and a question, as in GenEval 2
(arXiv 2512.16853) and VQAScore (arXiv 2404.01291). What precedes the question is computed once for
all questions about a picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from lavi_bridge.config import Quantize
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place, locate
from lavi_bridge.files.pretrained import load_pretrained
from lavi_bridge.files.weights import fingerprint_of
from lavi_bridge.languages.loading.quantize import quantized
from lavi_bridge.metrics.base import exact
from lavi_bridge.metrics.judge.processor import (
    asked,
    blank_picture,
    load_processor,
    template_hash,
)
from lavi_bridge.metrics.judge.rows import (
    Row,
    Seen,
    Tokens,
    by_token,
    extended,
    leading,
    noted,
    parted,
)
from lavi_bridge.metrics.judge.size import size_of
from lavi_bridge.running.device import choose_device, choose_dtype, stays
from lavi_bridge.running.quantize import keep_trainable
from lavi_bridge.running.widened import widen

if TYPE_CHECKING:
    from PIL.Image import Image

Reading = Literal["strings", "first token"]
"""How the probability of an answer is read.

`strings`: the product of the probabilities of all of the answer's tokens, as the reply's first
tokens. The answer is tokenised by itself, without special tokens; one that begins with a space is
another answer than one that does not. The end of the reply is not asked for: "Yes" is the
probability of a reply that begins with Yes, so that "1" is a part of "10".

`first token`: the probability of the answer's first token alone, as GenEval 2's script reads it.
"""
PICTURES = 8
"""Pictures that the model reads at once."""
ROWS = 32
"""Questions that it continues at once."""
USUAL = 512
"""Pixels of the pictures for which there must be room when a judge is loaded."""
SIDE = 64
"""Pixels of the blank picture by which it is seen how a question is asked."""


class Judge:
    """An image-and-text model that is asked about pictures.

    Made by `load_judge`. The model goes to its device when it is first asked.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        place: Place,
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        self.model = model
        self.processor = processor
        self.place = place
        self.device = device
        self.precision = precision
        # of a few tokens transformers cuts a view, for which torch on a CPU copies the vocabulary's
        # weights, once for each row
        model.get_output_embeddings().register_forward_pre_hook(_whole)
        self._tokens: dict[str, Tokens] = {}
        self._known_around: dict[str, tuple[Tokens, Tokens]] = {}

    @property
    def name(self) -> str:
        """What a table calls it: the last part of its id, as `Qwen3-VL-8B-Instruct`."""
        return self.place.id.partition("@")[0].rstrip("/").rpartition("/")[2]

    @cached_property
    def _known(self) -> dict[str, str]:
        commit = self.place.commit()
        return {
            "judge": self.place.id,
            "weights": fingerprint_of(self.place),
            **({"commit": commit} if commit else {}),
            "template": template_hash(self.processor),
            "precision": self.precision,
            **{name: version(name) for name in ("torch", "transformers", "pillow")},
        }

    def provenance(self) -> dict[str, str]:
        """What its answers depend on: id, fingerprint and Hub commit of the weights, chat template,
        precision, and the libraries that run it."""
        return dict(self._known)

    def tokens(self, answer: str) -> Tokens:
        """The tokens of an answer.

        Raises:
            BridgeError: it has none, or some that the tokenizer does not know.
        """
        if answer not in self._tokens:
            tokenizer = self.processor.tokenizer
            found = tuple(tokenizer(answer, add_special_tokens=False)["input_ids"])
            if not found or tokenizer.unk_token_id in found:
                raise BridgeError(
                    f"the tokenizer of '{self.place.id}' has no tokens for the answer {answer!r}; "
                    "take another judge"
                )
            self._tokens[answer] = found
        return self._tokens[answer]

    def apart(self, answers: Sequence[str]) -> list[str]:
        """The answers without repetitions and without those that go on from another one, by tokens:
        no reply begins with two of what is left, so that their probabilities add up."""
        kept: dict[Tokens, str] = {}
        for answer in sorted(dict.fromkeys(answers), key=lambda a: len(self.tokens(a))):
            tokens = self.tokens(answer)
            if not any(tokens[: len(known)] == known for known in kept):
                kept[tokens] = answer
        return [answer for answer in dict.fromkeys(answers) if answer in kept.values()]

    @exact()
    def probabilities(
        self,
        pictures: Sequence[Image],
        questions: Sequence[str],
        answers: Sequence[Sequence[str]],
        *,
        reading: Reading = "strings",
    ) -> list[list[float]]:
        """For every question, about the picture in the same place, the probability of each of its
        answers, in [0, 1].

        A picture that is asked about several times should be the same object each time: then it is
        read once. Batches are made here; they change numbers by rounding alone.

        Args:
            reading: see `Reading`.

        Raises:
            BridgeError: an answer has no tokens, or the reading is unknown.
        """
        if reading not in get_args(Reading):
            raise BridgeError(f"unknown reading '{reading}'; known: {', '.join(get_args(Reading))}")
        end = None if reading == "strings" else 1
        wanted = [[self.tokens(answer)[:end] for answer in mine] for mine in answers]
        groups: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for number, (picture, question, _) in enumerate(
            zip(pictures, questions, answers, strict=True)
        ):
            groups[id(picture)].append((number, question))
        alike: dict[object, list[Seen]] = defaultdict(list)
        for mine in groups.values():
            seen = self._see(pictures[mine[0][0]], mine, wanted)
            alike[seen.alike].append(seen)
        found: list[dict[Tokens, float]] = [{} for _ in questions]
        if not stays(self.model):
            self.model.to(self.device)
        for same in alike.values():
            for start in range(0, len(same), PICTURES):
                self._read(same[start : start + PICTURES], wanted, found)
        return [[found[n][tokens] for tokens in mine] for n, mine in enumerate(wanted)]

    def inputs(self, picture: Image, question: str) -> dict[str, Tensor]:
        """What the model reads where a question is asked about a picture, a batch of one."""
        return asked(self.processor, picture, question)

    def _see(
        self, picture: Image, mine: Sequence[tuple[int, str]], wanted: Sequence[Sequence[Tokens]]
    ) -> Seen:
        first = self.inputs(picture, mine[0][1])
        ids = tuple(first["input_ids"][0].tolist())
        prefix, tail = self._parted(ids)
        # a template may put the question before the picture, which is then another for each
        before, after = self._around(mine[0][1])
        shared = bool(prefix) and after == tail
        shared = shared and all(self._around(question)[0] == before for _, question in mine)
        rows = []
        for number, question in mine:
            if shared:
                prompt, more = prefix + self._around(question)[1], {}
            else:
                whole = self.inputs(picture, question)
                prompt, more = tuple(whole["input_ids"][0].tolist()), by_token(whole)
            heads = {tokens[:-1] for tokens in wanted[number]}
            # a head that another one goes on from is read on the way
            longest = [h for h in heads if not any(o != h and o[: len(h)] == h for o in heads)]
            rows += [Row(number, prompt, head, more) for head in sorted(longest)]
        return Seen(first, rows, prefix if shared else ())

    def _parted(self, ids: Tokens) -> tuple[Tokens, Tokens]:
        return parted(ids, self.model.config)

    def _around(self, question: str) -> tuple[Tokens, Tokens]:
        """What precedes and what follows the picture where a question is asked, as a blank one
        shows: to prepare the same picture anew for each would take longer than to answer."""
        if question not in self._known_around:
            blank = self.inputs(blank_picture(SIDE), question)["input_ids"][0].tolist()
            before = leading(tuple(blank), self.model.config)
            self._known_around[question] = before, self._parted(tuple(blank))[1]
        return self._known_around[question]

    def _read(
        self,
        batch: Sequence[Seen],
        wanted: Sequence[Sequence[Tokens]],
        found: Sequence[dict[Tokens, float]],
    ) -> None:
        """Read pictures that are alike up to their questions, then all their rows."""
        length = len(batch[0].prefix)
        rows = [(place, row) for place, seen in enumerate(batch) for row in seen.rows]
        if not length:  # nothing precedes the questions: each is read whole
            for place, row in rows:
                more = len(row.ids) + len(row.answer)
                whole = {k: extended(v, more) for k, v in row.of_token.items()}
                ids = torch.tensor([[*row.ids, *row.answer]])
                given = self._here(batch[place].of_picture | whole | {"input_ids": ids})
                logits = self.model(**given, use_cache=False).logits
                noted(logits, [row], 0, wanted, found)
            return
        first = {k: [seen.of_picture[k] for seen in batch] for k in batch[0].of_picture}
        given = {key: torch.cat(values) for key, values in first.items()}
        given |= {
            key: torch.cat([seen.of_token[key][:, :length] for seen in batch])
            for key in batch[0].of_token
        }
        given["input_ids"] = torch.tensor([seen.prefix for seen in batch])
        cache = self.model(**self._here(given), use_cache=True, logits_to_keep=1).past_key_values
        for at in range(0, len(rows), ROWS):
            some = rows[at : at + ROWS]
            known = deepcopy(cache) if len(rows) > ROWS else cache
            known.reorder_cache(torch.tensor([p for p, _ in some], device=self.device))
            tails = [[*row.ids[length:], *row.answer] for _, row in some]
            longest = max(map(len, tails))
            # on the right, where no token looks: what stands there does not matter
            ids = torch.tensor([tail + [tail[-1]] * (longest - len(tail)) for tail in tails])
            start = min(len(row.ids) for _, row in some) - length - 1
            given = {
                "input_ids": ids,
                "past_key_values": known,
                "logits_to_keep": longest - start,
            } | self._positions(length, ids)
            logits = self.model(**self._here(given)).logits
            noted(logits, [row for _, row in some], length + start, wanted, found)

    def _positions(self, length: int, ids: Tensor) -> dict[str, Tensor]:
        """Where tokens stand after a picture in models that count its height and width and not its
        tokens; others count by themselves."""
        shift = getattr(getattr(self.model, "model", None), "rope_deltas", None)
        if shift is None:
            return {}
        places = torch.arange(length, length + ids.shape[1]) + shift[0].item()
        return {"position_ids": places.expand(3, *ids.shape)}

    def _here(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs on the model's device, pictures in its precision."""
        dtype = self.model.dtype
        return {
            key: value
            if not isinstance(value, Tensor)
            else value.to(self.device, dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
            if key != "attention_mask"  # without padding it says nothing
        }


def _whole(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.clone(memory_format=torch.contiguous_format) for value in given)


_LOADED: WeakValueDictionary[tuple[object, ...], Judge] = WeakValueDictionary()


def load_judge(
    source: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    quantize: Quantize = "none",
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
) -> Judge:
    """The judge of a Hub id (with @revision) or folder; all that ask for the same one share it.

    Args:
        dtype: float32, bfloat16 or float16; None is bfloat16 on a GPU, else float32.
        quantize: hold its linear layers in 8 or 4 bits (int8, nf4).
        trust_remote_code: run code that comes with the model.

    Raises:
        BridgeError: there is none, or it is gated; it is no image-and-text model, has no chat
            template, or needs more memory than there is.
    """
    where, place = choose_device(device), locate(source)
    precision = choose_dtype(dtype, where)
    key = place.id, precision, quantize, where
    judge = _LOADED.get(key)
    if judge is None:
        judge = _load(place, precision, quantize, where, trust_remote_code)
        _LOADED[key] = judge
    return judge


def _load(
    place: Place, dtype: torch.dtype, quantize: Quantize, device: torch.device, trust: bool
) -> Judge:
    from transformers import AutoModelForImageTextToText

    size = size_of(place, trust_remote_code=trust)
    processor = load_processor(place, trust_remote_code=trust)
    length = asked(processor, blank_picture(USUAL), "Is it red?")["input_ids"].shape[1]
    size.check(place.id, dtype, quantize, device, (ROWS + PICTURES) * length)
    model = load_pretrained(
        AutoModelForImageTextToText,
        place,
        f"the judge '{place.id}'",
        trust_remote_code=trust,
        dtype=dtype,
        **quantized(quantize, dtype, device),
    )
    model.eval().requires_grad_(False)
    widen(model)
    keep_trainable(model)  # what is repacked for a CPU must have widths that many models have not
    named = str(dtype).removeprefix("torch.")
    return Judge(
        model,
        processor,
        place,
        device=device,
        precision=named if quantize == "none" else f"{quantize}, products in {named}",
    )
