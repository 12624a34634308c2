"""Which layers of a language model are read, and what trains, is saved and is counted with each."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge import lora
from lavi_bridge.data.cache.features import FeatureCache
from lavi_bridge.languages.layers import Upper, frozen_layers, stack_of
from lavi_bridge.languages.reading import reading
from lavi_bridge.plan.plan import Plan, make_plan
from lavi_bridge.train.caching import cached_features, open_text_cache
from lavi_bridge.train.options import TrainConfig
from tests.test_battery import battery

Tiny = Callable[[str], Path]
LAYERS = ("penultimate", "0", "-1", "mean", "mix", "stack:2")
FAMILIES = ("t5", "llama", "clip", "bert", "qwen3", "gemma2")
PAIRS = [("llama", layers) for layers in LAYERS]
PAIRS += [(family, "mix") for family in FAMILIES if family != "llama"]
MORE = [("t5", layers) for layers in LAYERS if layers != "mix"]
MORE += [(family, "penultimate") for family in FAMILIES[2:]]
"""A decoder with all, the others with all layers at once; by name an encoder with all, the others
with one."""
SLOW = [pytest.param(*pair, marks=pytest.mark.slow) for pair in MORE]
PROMPTS = ["a red circle", "two blue squares"]


def connect(
    layers: str | int,
    language: str | Path = "zoo:tiny-llama",
    vision: str | Path = "zoo:tiny-sd",
    **options: object,
) -> Bridge:
    given = {"rank": 2, "vision_rank": 0, "dropout": 0.0, "device": "cpu"} | options
    return Bridge.connect(language, vision, layers=layers, **given)  # type: ignore[arg-type]


def plan_of(layers: str | int, vision: Path, rank: int = 4) -> Plan:
    options = {"compute": False, "checkpointing": False, "language_rank": rank, "vision_rank": 0}
    return make_plan("zoo:tiny-llama", str(vision), layers=layers, **options)  # type: ignore[arg-type]


def states(bridge: Bridge) -> list[torch.Tensor]:
    """All hidden states of a model as transformers gives them."""
    ids = bridge.language.tokenize(PROMPTS, bridge.tokens).ids
    return list(bridge.language.model(input_ids=ids, output_hidden_states=True).hidden_states)


@pytest.mark.parametrize(("language", "layers"), [*PAIRS, *SLOW])
def test_a_pair_trains_samples_saves_and_loads(
    language: str, layers: str, tiny: Tiny, tmp_path: Path
) -> None:
    adapter = "linear" if layers in ("0", "mix") else "feedforward"
    bridge = Bridge.connect(tiny(language), tiny("sd"), adapter=adapter, rank=4, layers=layers)
    battery(bridge, tmp_path / "out")


def test_a_loaded_bridge_draws_the_same_picture(tmp_path: Path) -> None:
    bridge = connect("mix")
    nn.init.normal_(bridge.adapter.mix.logits)
    bridge.save(tmp_path / "bridge")
    again = Bridge.load(tmp_path / "bridge", device="cpu")
    drawn = [b.generate(PROMPTS[0], steps=2)[0].tobytes() for b in (bridge, again)]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(("layers", "place"), [("penultimate", 3), (0, 0), (2, 2), (-4, 1)])
@pytest.mark.parametrize("language", ["zoo:tiny-llama", "zoo:tiny-t5-large"])
def test_one_layer_is_read_as_it_is_and_the_others_above_are_let_go(
    language: str, layers: str | int, place: int
) -> None:
    whole, read = connect("last", language, rank=0), connect(layers, language, rank=0)
    count = len(stack_of(whole.language)[1])
    place += (count - 4) * (layers in ("penultimate", -4))
    found = read.features(PROMPTS).hidden
    torch.testing.assert_close(found, states(whole)[place], atol=0, rtol=0)
    assert len(stack_of(read.language)[1]) == min(place + 1, count)


def test_the_mean_of_layers_is_that_of_their_normalised_states() -> None:
    bridge = connect("mean", rank=0)
    rows = [nn.functional.layer_norm(state, state.shape[-1:]) for state in states(bridge)]
    torch.testing.assert_close(bridge.features(PROMPTS).hidden, torch.stack(rows).mean(0))


def test_a_stack_is_of_layers_spread_over_the_depth_side_by_side() -> None:
    bridge = connect("stack:2", rank=0)
    assert bridge.language.reading is not None
    assert bridge.language.reading.places == (2, 4)
    assert bridge.adapter.width_in == 2 * bridge.language.width
    found = bridge.features(PROMPTS).hidden.unflatten(-1, (2, -1))
    for given, state in zip(found.unbind(-2), (states(bridge)[i] for i in (2, 4)), strict=True):
        torch.testing.assert_close(given, nn.functional.layer_norm(state, state.shape[-1:]))


def test_a_mix_begins_as_the_mean_and_its_weights_are_the_adapters() -> None:
    mixed, mean = connect("mix", rank=0), connect("mean", rank=0)
    given = mixed.adapter.mix(mixed.features(PROMPTS).hidden)
    torch.testing.assert_close(given, mean.features(PROMPTS).hidden)
    logits = mixed.adapter.mix.logits
    assert any(logits is parameter for parameter in mixed.parts()["adapter"])
    before = mixed.id
    with torch.no_grad():
        logits[0] = 1
    assert mixed.id != before


@pytest.mark.parametrize(("layers", "count"), [("penultimate", 3), (1, 1), (0, 0), ("mean", 4)])
def test_layers_that_do_not_count_get_no_lora_and_all_others_have_a_gradient(
    layers: str | int, count: int
) -> None:
    bridge = connect(layers)
    assert len(lora.layers(bridge.language.model)) == 4 * count
    for parameter in bridge.parts()["language"]:
        nn.init.normal_(parameter, std=0.1)
    bridge.encode(PROMPTS).hidden.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in bridge.trainable_parameters())


def test_the_last_layers_with_lora_are_the_last_that_are_read() -> None:
    bridge = connect("penultimate", language_layers="last:2")
    assert {name.split(".")[1] for name in lora.layers(bridge.language.model)} == {"1", "2"}
    with pytest.raises(BridgeError, match="is read after 3 layers, fewer than 'last:4'"):
        connect("penultimate", language_layers="last:4")


def test_other_layers_make_another_bridge() -> None:
    assert connect("last", rank=0).id == connect("last", rank=0).id
    assert connect(2, rank=0).id != connect(3, rank=0).id


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("first", "layers are 'last', .* not 'first'"),
        (5, "'zoo:tiny-llama' has 4 layers: its states are 0 to 4, or -1 to -5, not 5"),
        (-6, "has 4 layers: .* not -6"),
        ("stack:5", "'zoo:tiny-llama' has 4 layers, fewer than 'stack:5'"),
        ("stack:0", "not 'stack:0'"),
    ],
)
def test_layers_that_there_are_not_are_told(layers: str | int, message: str) -> None:
    with pytest.raises(BridgeError, match=message):
        connect(layers)


def test_a_model_that_gives_no_hidden_states_is_told() -> None:
    read = reading("mean", 4, "a model")
    assert read is not None
    with pytest.raises(BridgeError, match="'a model' gives 0 hidden states, not one for each"):
        read(None)


@pytest.mark.parametrize("kind", ["t5", "llama", "bert", "clip"])
def test_from_the_states_below_an_inner_layer_comes_the_same(tiny: Tiny, kind: str) -> None:
    bridge = connect(-1, tiny(kind), language_layers="last:1")
    for parameter in bridge.parts()["language"]:
        nn.init.normal_(parameter, std=0.1)
    upper, tokens = Upper(bridge.language), bridge.language.tokenize(PROMPTS, 8)
    given = upper.above(upper.below(tokens.ids, tokens.mask), tokens.ids, tokens.mask)
    whole = bridge.language.hidden(tokens.ids, tokens.mask)
    torch.testing.assert_close(given, whole, atol=5e-3, rtol=5e-3)


def test_what_lies_below_is_not_computed_apart_where_it_is_read() -> None:
    assert frozen_layers(connect("penultimate", language_layers="last:1").language) == 2
    assert frozen_layers(connect("mean", language_layers="last:1").language) == 0


def test_a_text_cache_knows_the_layers_and_keeps_each_of_a_mix(tmp_path: Path) -> None:
    config = TrainConfig("a", "b", "d", tmp_path, rank=0, text_cache=tmp_path / "text")
    bridge = connect("mix", rank=0)
    cache = open_text_cache(bridge, config)
    assert isinstance(cache, FeatureCache)
    text = cached_features(bridge, cache, PROMPTS, trim=True)
    assert text.hidden.shape[-1] == 5 * bridge.language.width
    torch.testing.assert_close(bridge.adapt(text).hidden, bridge.encode(PROMPTS).hidden)
    with pytest.raises(BridgeError, match="layers asked for"):
        open_text_cache(connect("penultimate", rank=0), config)
    with pytest.raises(BridgeError, match="layers 'mean' reads that, too"):
        open_text_cache(connect("mean", language_layers="last:1"), config)


def test_what_is_let_go_takes_no_memory_and_is_fetched_all_the_same(tiny: Tiny) -> None:
    plans = [plan_of(layers, tiny("sd")) for layers in ("last", 1)]
    assert plans[1].language_parameters < plans[0].language_parameters
    assert plans[1].download_gb == plans[0].download_gb


@pytest.mark.parametrize("layers", LAYERS)
def test_a_plan_is_of_what_is_read(layers: str, tiny: Tiny) -> None:
    plan = plan_of(layers, tiny("sd"))
    bridge = connect(layers, vision=tiny("sd"), rank=4)
    counts = {name: sum(p.numel() for p in part) for name, part in bridge.parts().items()}
    assert (plan.adapter_parameters, plan.language_lora_parameters) == (
        counts["adapter"],
        counts["language"],
    )
    assert plan.language_width == bridge.language.handed_width
