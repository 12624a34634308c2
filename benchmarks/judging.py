"""How fast does a judge answer, and in how much memory? `python benchmarks/judging.py`

A judge of Qwen3-VL-2B's sizes with random weights in bfloat16 is asked three questions of about 20
tokens about a picture, as `Judge` asks them: the picture is read once. Beside it, in turns, the
same prompts as GenEval 2's script has them: each is a pass of its own over picture and question.
The tiny judge's tokens are bytes, so the questions are short. Seconds are of processor time, which
other processes beside do not change much.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lavi_bridge import testing
from lavi_bridge.files.locate import locate
from lavi_bridge.metrics.judge.model import Judge
from lavi_bridge.metrics.judge.processor import load_processor
from lavi_bridge.running.widened import needs_widening, widen

QUESTIONS = ("Is there a red dog?", "Is there one cat?", "Are the cats wet?")
TEXT: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 262144,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5e6,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    },
}
SEES: dict[str, Any] = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "patch_size": 16,
    "out_hidden_size": 2048,
    "deepstack_visual_indexes": [5, 11, 17],
}


def made(folder: Path, dtype: torch.dtype) -> Judge:
    """A judge of Qwen3-VL-2B's sizes, with the tiny judge's tokens."""
    from transformers import AutoModelForImageTextToText, Qwen2VLImageProcessorPil, Qwen3VLConfig

    place = locate(testing.make_judge(folder, "qwen3_vl"))
    processor = load_processor(place)
    sizes = {"shortest_edge": 65536, "longest_edge": 16777216}
    processor.image_processor = Qwen2VLImageProcessorPil(patch_size=16, size=sizes)
    ids = {key: value for key, value in place.json("config.json").items() if key.endswith("_id")}
    config = Qwen3VLConfig(text_config=TEXT, vision_config=SEES, tie_word_embeddings=True, **ids)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    model.eval().requires_grad_(False)
    widen(model)
    named = str(dtype).removeprefix("torch.")
    return Judge(model, processor, place, device=torch.device("cpu"), precision=named)


def one_by_one(judge: Judge, picture: Image.Image) -> list[float]:
    """A pass over picture and question for each, from whose last place the answer is read."""
    (token,) = judge.tokens("7")
    found = []
    with torch.no_grad():
        for question in QUESTIONS:
            given = judge.inputs(picture, question)
            given["pixel_values"] = given["pixel_values"].to(judge.model.dtype)
            logits = judge.model(**given, logits_to_keep=1).logits[0, -1]
            found.append(logits.float().softmax(0)[token].item())
    return found


def together(judge: Judge, picture: Image.Image) -> list[float]:
    """As `Judge` asks."""
    each = [["7"]] * len(QUESTIONS)
    return [p for (p,) in judge.probabilities([picture] * len(QUESTIONS), QUESTIONS, each)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=256, help="pixels of the picture")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        judge = made(Path(folder), getattr(torch, given.dtype))
    size = sum(p.numel() * p.element_size() for p in judge.model.parameters())
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (given.side, given.side, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    tokens = [judge.inputs(picture, question)["input_ids"].shape[1] for question in QUESTIONS]
    print(
        f"{size / 1e9:.2f} GB of weights, prompts of {tokens} tokens; widened: {needs_widening()}"
    )
    times: dict[str, list[float]] = {"one by one": [], "together": []}
    answers: dict[str, list[float]] = {}
    for _ in range(given.rounds + 1):
        for name, ask in (("one by one", one_by_one), ("together", together)):
            begun = time.process_time()
            answers[name] = ask(judge, picture)
            times[name].append(time.process_time() - begun)
            print(f"{name}: {times[name][-1]:.1f} s of a core", flush=True)
    for name, found in times.items():
        median = statistics.median(found[1:])
        print(
            f"{name}: {len(QUESTIONS)} questions in {median:.1f} s of a core "
            f"({min(found[1:]):.1f} to {max(found[1:]):.1f})"
        )
    pairs = zip(*answers.values(), strict=True)
    print(f"relative difference of answers: {max(abs(a - b) / a for a, b in pairs):.1%}")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


if __name__ == "__main__":
    main()
