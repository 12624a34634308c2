"""A judge that is told what to answer: everything of it is real but the logits.

Its chat template, tokens, pictures, cache and batches are those of a tiny random model, which
computes all it would; of its logits those of the answer are replaced. Which picture a question is
about is read from the cache that the model is given, and the question from its tokens.
"""

from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image
from torch import Tensor

from lavi_bridge.metrics.judge.model import Judge

START, END, REPLY = "<|vision_end|>", "<|im_end|>", "\nassistant\n"
SURE = 1e4
"""A logit beside which all others are nothing."""


def told(judge: Judge, answers: Mapping[tuple[bytes, str], str]) -> Callable[..., Any]:
    """A `forward` for the model of a judge (`qwen3_vl` of `testing`) that answers as it is told.

    Args:
        answers: by picture, as `key_of` has it, and question.
    """
    real, tokenizer = judge.model.forward, judge.processor.tokenizer
    end = tokenizer.convert_tokens_to_ids(END)
    reply = len(tokenizer(REPLY, add_special_tokens=False)["input_ids"])
    pictures: dict[bytes, bytes] = {}  # by what the cache has of one

    def forward(**given: Any) -> Any:
        if "pixel_values" in given:
            out = real(**given)
            shown = given["pixel_values"].chunk(len(given["input_ids"]))
            pictures.update({_kept(out, n): _bytes(one) for n, one in enumerate(shown)})
            return out
        rows = range(len(given["input_ids"]))
        about = [pictures[_kept(given, n)] for n in rows]
        out = real(**given)
        first = given["input_ids"].shape[1] - out.logits.shape[1]
        for row, (picture, ids) in enumerate(zip(about, given["input_ids"].tolist(), strict=True)):
            asked = ids.index(end)
            question = tokenizer.decode(ids[:asked], clean_up_tokenization_spaces=False)
            right = judge.tokens(answers[picture, question.removeprefix(START)])
            for place, token in enumerate(right, asked + reply - first):
                if place < out.logits.shape[1]:
                    out.logits[row, place] = -SURE
                    out.logits[row, place, token] = SURE
        return out

    return forward


def key_of(judge: Judge, picture: Image.Image) -> bytes:
    """What the model sees of a picture."""
    return _bytes(judge.inputs(picture, "?")["pixel_values"])


def _kept(holder: Any, row: int) -> bytes:
    """What a cache has of a row's picture."""
    return _bytes(holder["past_key_values"].layers[-1].keys[row])


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().numpy().tobytes()
