"""BLIP-VQA of T2I-CompBench (colour, shape, texture): every noun chunk is asked about, as
"a green bench?", and the probabilities of "yes" are multiplied.

Follows BLIPvqa_eval/ of the official code (arXiv 2307.06350, section 4.1).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lavi_bridge.metrics.base import METRICS, Score, exact
from lavi_bridge.metrics.compbench.chunks import english, noun_chunks, parsed, parser
from lavi_bridge.metrics.compbench.quirks import Mode, Quirk, Scorer, checked, said
from lavi_bridge.prompts.prompt import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 480  # pixels, whatever the image's own shape
YES, NO = 2748, 2053  # ids of BERT's tokens
LONGEST = 35  # tokens of a question
WORDS = 50  # of a question
CHUNKS = 8

QUIRKS = (
    Quirk(
        "eight chunks",
        official="asks about the first 8 noun chunks and leaves out the others",
        fixed="asks about all",
        where="BLIPvqa_eval/BLIP_vqa.py: parse_args, --np_num",
    ),
    Quirk(
        "no chunks",
        official="scores 1, the product of no probabilities, whatever the image shows",
        fixed="asks about the whole prompt",
        where="BLIPvqa_eval/BLIP_vqa.py: main, reward[k][i] = 1",
    ),
    Quirk(
        "four places",
        official="rounds each probability to 4 places, multiplies in float32 and rounds the "
        "product to 4 places",
        fixed="rounds nothing and multiplies in float64",
        where="BLIPvqa_eval/models/blip_vqa.py: forward; BLIPvqa_eval/BLIP_vqa.py: main",
    ),
)


@METRICS.register("blip-vqa")
class BLIPVQA(Score):
    """The probability, in [0, 1], that an image shows everything its prompt names.

    The official weights are BLIP's own model_base_vqa_capfilt_large.pth. The default,
    Salesforce/blip-vqa-base, is their conversion (transformers'
    convert_blip_original_pytorch_to_hf.py), with one loss: the grid of positions was resampled from
    480 to 384 px, and is resampled back here, so that official numbers are not met to the digit.

    Args:
        scorer: folder or Hub id of a BlipForQuestionAnswering.
        device: None is the GPU where there is one.
        mode: see QUIRKS, here and in `chunks`.
        chunks: noun chunks of a text; None takes those of spaCy's English model.
    """

    title = "BLIP-VQA"
    scorer = "Salesforce/blip-vqa-base"
    licence = "BSD-3-Clause"
    download = memory = 1.5
    needs = "extra compbench"

    def __init__(
        self,
        *,
        scorer: str = scorer,
        device: str | torch.device | None = None,
        mode: Mode = "faithful",
        chunks: Callable[[str], list[str]] | None = None,
    ) -> None:
        from transformers import BlipImageProcessorPil

        self.mode = checked(mode)
        self.parser = "the caller's own" if chunks else parser()
        self.chunks = chunks or (lambda text: noun_chunks(parsed(text), mode=mode))
        self.blip = Scorer("BlipForQuestionAnswering", scorer, device)
        self.processor = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
        if chunks is None:
            english()  # say now that it is missing, not at every image

    def provenance(self) -> dict[str, str]:
        return self.blip.provenance | {"mode": self.mode, "parser": self.parser}

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        texts = [said(prompt, self.mode) for prompt in prompts]
        asked = [questions(text, self.chunks(text), mode=self.mode) for text in texts]
        return [product(answers, mode=self.mode) for answers in self.yes(images, asked)]

    @exact()
    def yes(self, images: Sequence[Image], asked: Sequence[Sequence[str]]) -> list[list[float]]:
        """P(yes) / (P(yes) + P(no)) of the first word of the answer to each image's questions."""
        pixels = self.processor(list(images), return_tensors="pt")["pixel_values"]
        seen = self.blip.model.vision_model(
            pixels.to(self.blip.device), interpolate_pos_encoding=True
        ).last_hidden_state
        # questions of one length at a time: transformers' BLIP ignores the mask of padded questions
        # when it answers (BlipTextLayer hands it on under a name that is not read)
        groups: dict[int, list[tuple[int, int, list[int]]]] = defaultdict(list)
        for image, mine in enumerate(asked):
            for place, question in enumerate(mine):
                ids = self.blip.tokenizer(question, truncation=True, max_length=LONGEST)
                groups[len(ids["input_ids"])].append((image, place, ids["input_ids"]))
        answers = [[0.0] * len(mine) for mine in asked]
        for group in groups.values():
            found = self._answer(seen[[image for image, _, _ in group]], [ids for *_, ids in group])
            for (image, place, _), answer in zip(group, found, strict=True):
                answers[image][place] = answer
        return answers

    def _answer(self, seen: Tensor, tokens: Sequence[Sequence[int]]) -> list[float]:
        """What is seen (N, patches, width) and N questions of one length -> N probabilities."""
        blip, ids = self.blip.model, torch.tensor(tokens, device=self.blip.device)
        # BLIP's two own tokens follow BERT's: [DEC] begins an answer, [ENC] a question about an
        # image. transformers leaves BERT's [CLS] in the latter's place; BLIP was not trained so.
        start = blip.config.text_config.bos_token_id
        ids[:, 0] = start + 1
        understood = blip.text_encoder(ids, encoder_hidden_states=seen).last_hidden_state
        logits = blip.text_decoder(
            torch.full_like(ids[:, :1], start), encoder_hidden_states=understood, use_cache=False
        ).logits[:, 0]
        chances = logits.softmax(1)
        return (chances[:, YES] / (chances[:, YES] + chances[:, NO])).tolist()


def questions(text: str, chunks: Sequence[str], *, mode: Mode = "faithful") -> list[str]:
    """What is asked about an image of `text`, whose noun chunks are given.

    Spelled as in BLIPvqa_eval/data/utils.py: pre_question.
    """
    chunks = chunks[:CHUNKS] if mode == "faithful" else chunks or [text]
    plain = (re.sub(r'[.!"()*#:;~]', "", f"{chunk}?".lower()).rstrip(" ") for chunk in chunks)
    return [" ".join(question.split(" ")[:WORDS]) for question in plain]


def product(answers: Sequence[float], *, mode: Mode = "faithful") -> float:
    """The score of an image whose questions have these probabilities of "yes"."""
    if mode == "fixed":
        return math.prod(answers)
    whole = math.prod((np.float32(round(answer, 4)) for answer in answers), start=np.float32(1))
    return round(float(whole), 4)
