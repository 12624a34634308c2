"""LoRA in the last layers alone: which get it, and that what lies below may be computed apart."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.data.cache.features import FeatureCache, padded
from lavi_bridge.languages import layers
from lavi_bridge.languages.layers import Upper, frozen_layers, lora_targets, stack_of
from lavi_bridge.train.caching import cached_features, open_text_cache
from lavi_bridge.train.options import TrainConfig

Tiny = Callable[[str], Path]
PROMPTS = ["a red circle", "two blue squares on a gray background"]


def connect(language: str | Path, layers: str, vision: str | Path = "zoo:tiny-sd") -> Bridge:
    bridge = Bridge.connect(
        language, vision, rank=2, vision_rank=0, dropout=0.0, device="cpu", language_layers=layers
    )
    for parameter in bridge.parts()["language"]:
        torch.nn.init.normal_(parameter, std=0.1)
    return bridge


@pytest.mark.parametrize("kind", ["t5", "llama", "bert", "clip", "gpt2", "roberta", "modernbert"])
@pytest.mark.parametrize("masked", [False, True])
def test_from_the_states_below_the_rest_gives_the_same(tiny: Tiny, kind: str, masked: bool) -> None:
    bridge = connect(tiny(kind), "last:1", tiny("sd"))
    language = bridge.language
    count = len(stack_of(language)[1])
    assert frozen_layers(language) == count - 1 > 0
    tokens = language.tokenize(PROMPTS, 8)
    mask = tokens.mask if masked else None
    upper = Upper(language)
    states = upper.below(tokens.ids, mask)
    assert states.dtype == torch.float16
    given, whole = upper.above(states, tokens.ids, mask), language.hidden(tokens.ids, mask)
    torch.testing.assert_close(given, whole, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(language.hidden(tokens.ids, mask), whole, atol=0, rtol=0)
    given.sum().backward()
    assert all(p.grad is not None for p in bridge.parts()["language"])


def test_states_that_16_bits_do_not_hold_are_kept_in_32(tiny: Tiny) -> None:
    language = connect(tiny("llama"), "last:1", tiny("sd")).language
    with torch.no_grad():
        language.model.embed_tokens.weight *= 1e8
    assert Upper(language).below(language.tokenize(PROMPTS, 8).ids).dtype == torch.float32


def test_only_the_last_layers_get_lora_and_a_saved_bridge_knows_it(tmp_path: Path) -> None:
    bridge = connect("zoo:tiny-llama", "last:2")
    assert len(bridge.parts()["language"]) == 2 * 4 * 2  # layers, projections, down and up
    bridge.save(tmp_path / "bridge")
    loaded = Bridge.load(tmp_path / "bridge", device="cpu")
    assert loaded.id == bridge.id
    assert frozen_layers(loaded.language) == 2


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("last:9", "'zoo:tiny-llama' has 4 layers, fewer than 'last:9'"),
        ("first:2", "language layers are 'all' or 'last:K', not 'first:2'"),
        ("last:0", "language layers are 'all' or 'last:K', not 'last:0'"),
    ],
)
def test_layers_that_there_are_not_are_told(layers: str, message: str) -> None:
    with pytest.raises(BridgeError, match=message):
        connect("zoo:tiny-llama", layers)


def test_a_model_whose_layers_do_not_follow_one_another_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    language = connect("zoo:tiny-llama", "last:2").language
    below = Upper.below
    monkeypatch.setattr(Upper, "below", lambda *args: below(*args) * 2)
    with pytest.raises(BridgeError, match="do not simply follow one another"):
        Upper(language)


def test_a_model_without_a_stack_of_layers_has_none_that_is_frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    language = connect("zoo:tiny-llama", "all").language
    monkeypatch.setattr(layers, "_stacks", lambda _: [])
    assert frozen_layers(language) == 0
    with pytest.raises(BridgeError, match="has no stack of layers"):
        stack_of(language)


def test_a_text_cache_needs_layers_that_do_not_train(tmp_path: Path) -> None:
    bridge = connect("zoo:tiny-llama", "last:4")
    config = TrainConfig(
        "a", "b", "d", tmp_path, text_cache=tmp_path / "text", language_layers="last:4"
    )
    with pytest.raises(BridgeError, match="here all of them do"):
        open_text_cache(bridge, config)


def test_rows_of_16_and_32_bits_are_padded_in_32() -> None:
    rows = [torch.ones(1, 2).half(), torch.full((2, 2), 1e6)]
    assert padded(rows, 3)[0].dtype == torch.float32
    assert padded(rows, 3)[0].max() == 1e6


def test_all_layers_have_the_published_targets() -> None:
    language = connect("zoo:tiny-llama", "all").language
    assert lora_targets(language) == language.lora_targets
    assert frozen_layers(language) == 0


def test_a_text_cache_keeps_what_enters_the_layers_that_train(tmp_path: Path) -> None:
    bridge = connect("zoo:tiny-llama", "last:2")
    cache = FeatureCache(tmp_path / "text", {"of": "this"})
    upper = Upper(bridge.language)
    fresh = cached_features(bridge, cache, PROMPTS, trim=True, upper=upper)
    assert cache.waiting() == len(PROMPTS)
    cache.flush()
    again = cached_features(bridge, cache, PROMPTS[::-1], trim=True, upper=upper)
    torch.testing.assert_close(again.hidden.flip(0), fresh.hidden, atol=0, rtol=0)
    torch.testing.assert_close(fresh.hidden, bridge.features(PROMPTS).hidden, atol=5e-3, rtol=5e-3)
    assert fresh.hidden.requires_grad
