"""Prompts of more tokens than the vision model's own encoder reads, or of fewer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Image, new

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.plan.data_check import check
from lavi_bridge.plan.plan import make_plan
from lavi_bridge.text import Text

Tiny = Callable[[str], Path]
SHORT = "a red circle"
LONG = "a red circle left of a blue square and then many more words that nobody has seen"
OPTIONS: dict[str, Any] = {"steps": 3, "scheduler": "ddim"}


def connect(vision: str | Path = "zoo:tiny-sd", **options: object) -> Bridge:
    given: dict[str, Any] = {"rank": 2, "dropout": 0.0, "device": "cpu"} | options
    bridge = Bridge.connect("zoo:tiny-t5-large", vision, **given)
    for number, parameter in enumerate(bridge.trainable_parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(number))
    return bridge


def apart(a: Image, b: Image) -> int:
    """The largest difference of two pictures in grey levels."""
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


@pytest.fixture(scope="module")
def long() -> Bridge:
    return connect(tokens=64)


def test_a_short_prompt_is_read_as_without(long: Bridge) -> None:
    own = connect()
    assert (own.tokens, own.padding) == (32, 32)
    assert (long.tokens, long.padding) == (64, 32)
    torch.testing.assert_close(long.encode(SHORT).hidden, own.encode(SHORT).hidden, atol=0, rtol=0)
    assert long.encode(SHORT).mask is None
    assert long.generate(SHORT, **OPTIONS)[0] == own.generate(SHORT, **OPTIONS)[0]


def test_a_long_prompt_is_read_to_its_end(long: Bridge) -> None:
    count = long.language.lengths([LONG])[0]
    assert long.padding < count < long.tokens
    assert long.encode(LONG).hidden.shape[1] == count


def test_compiled_models_get_one_length_for_all_batches(long: Bridge) -> None:
    fixed = long.features(SHORT, trim=False)
    assert fixed.mask is not None
    assert (fixed.hidden.shape[1], int(fixed.mask.sum())) == (64, 32)
    torch.testing.assert_close(
        fixed.hidden[:, :32], long.features(SHORT).hidden, atol=1e-5, rtol=1e-5
    )


def test_prompts_drawn_together_are_those_drawn_alone(long: Bridge) -> None:
    together = long.generate([SHORT, LONG], **OPTIONS)
    alone = [long.generate(p, seed=i, **OPTIONS)[0] for i, p in enumerate([SHORT, LONG])]
    assert [apart(a, b) <= 1 for a, b in zip(together, alone, strict=True)] == [True, True]


def test_diffusers_pipeline_reads_as_many(long: Bridge) -> None:
    pipeline = long.to_diffusers("ddim")
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    drawn = pipeline(
        **long.prompt_embeds([SHORT, LONG]),
        generator=generators,
        num_inference_steps=3,
        guidance_scale=7.5,
        height=64,
        width=64,
    ).images
    ours = long.generate([SHORT, LONG], **OPTIONS)
    assert [apart(a, b) <= 1 for a, b in zip(drawn, ours, strict=True)] == [True, True]


def test_a_saved_bridge_knows_it(long: Bridge, tmp_path: Path) -> None:
    long.save(tmp_path / "bridge")
    loaded = Bridge.load(tmp_path / "bridge", device="cpu")
    assert (loaded.tokens, loaded.padding, loaded.id) == (64, 32, long.id)


def test_the_loss_has_a_gradient_for_either(long: Bridge) -> None:
    pixels = torch.zeros(2, 3, 64, 64)
    loss = long.loss(pixels, [SHORT, LONG], generator=torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None for p in long.parts()["language"])
    long.zero_grad()


def test_where_padding_is_masked_more_tokens_change_nothing_for_short_prompts() -> None:
    bridges = connect("zoo:tiny-pixart"), connect("zoo:tiny-pixart", tokens=160)
    assert [bridge.tokens for bridge in bridges] == [120, 160]
    few, many = (bridge.generate(SHORT, **OPTIONS)[0] for bridge in bridges)
    assert apart(few, many) <= 1


def test_fewer_tokens_may_be_asked_for() -> None:
    bridge = connect(tokens=8)
    assert (bridge.tokens, bridge.padding) == (8, 8)
    assert bridge.encode(SHORT).hidden.shape[1] == 8


def test_more_than_the_language_model_reads_is_told() -> None:
    with pytest.raises(BridgeError, match="'zoo:tiny-llama' reads 64 tokens at most, not 100"):
        Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", tokens=100, device="cpu")
    with pytest.raises(BridgeError, match="a prompt has at least 1 token"):
        connect(tokens=0)


def test_plan_and_data_check_count_with_them(tiny: Tiny, tmp_path: Path) -> None:
    made = make_plan(
        "zoo:tiny-t5-large", str(tiny("sd")), tokens=64, compute=False, checkpointing=False
    )
    assert made.tokens == 64
    new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "data.tsv").write_text(f"a.png\t{LONG}\n")
    data = str(tmp_path / "data.tsv")
    report = check(data, language="zoo:tiny-t5-large", vision="zoo:tiny-sd", tokens=48)
    assert (report.token_limit, report.truncated) == (48, 0)


def test_texts_of_different_lengths_are_joined_with_masks() -> None:
    joined = Text.cat([Text(torch.ones(1, 2, 3)), Text(torch.ones(1, 4, 3))])
    assert joined.mask is not None
    assert joined.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert joined.hidden[0, 2:].abs().sum() == 0
