"""A start in closed form: it solves what can be solved, once, and leaves the rest as it is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lavi_bridge import Bridge, BridgeError, warm_start
from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.bridge import lora
from lavi_bridge.shapes.world import ShapesWorld
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.run import Run
from lavi_bridge.train.warm_start import closed
from lavi_bridge.train.warm_start import warm_start as implementation
from lavi_bridge.train.warm_start.closed import PENALTIES, Sums, procrustes, ridge, solve_last
from lavi_bridge.train.warm_start.matching import Matcher
from lavi_bridge.train.warm_start.pairs import Pair
from lavi_bridge.train.warm_start.teacher import find_teacher
from lavi_bridge.train.warm_start.warm_start import WarmStart

Tiny = Callable[[str], Path]
CAPTIONS = ShapesWorld().captions(160)


def connect(adapter: str = "linear", *, dropout: float = 0.1) -> Bridge:
    return Bridge.connect(
        "zoo:tiny-llama", "zoo:tiny-sd", adapter=adapter, rank=2, dropout=dropout, device="cpu"
    )


def solved(bridge: Bridge, how: str = "ridge", captions: list[str] = CAPTIONS) -> WarmStart:
    """A start that solves and makes no steps."""
    start = WarmStart(bridge, captions, steps=0, solve=how)  # type: ignore[arg-type]
    assert list(start.run()) == []
    return start


# ---- the mathematics


def rows(count: int, x_width: int, y_width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random x, y and weights."""
    chance = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, x_width, generator=chance) + 3,
        torch.randn(count, y_width, generator=chance) - 2,
        torch.rand(count, generator=chance),
    )


def summed(*parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> Sums:
    found = Sums.of(torch.nn.Linear(parts[0][0].shape[1], parts[0][1].shape[1]))
    for part in parts:
        found.add(*part)
    return found


def test_batch_by_batch_it_is_the_weighted_least_squares_of_all_at_once() -> None:
    x, y, weights = rows(200, 5, 3)
    sums = summed(*zip(x.split(60), y.split(60), weights.split(60), strict=True))
    penalty, weight = next(ridge(*sums.spread()))
    assert penalty == PENALTIES[0]
    mean_x, mean_y = sums.means()
    bias = mean_y - mean_x @ weight
    ones = torch.cat([x, torch.ones(200, 1)], 1).double()
    scale = weights.double().sqrt().unsqueeze(1)
    whole = torch.linalg.lstsq(scale * ones, scale * y.double()).solution
    torch.testing.assert_close(torch.cat([weight, bias.unsqueeze(0)]), whole, rtol=1e-6, atol=1e-6)


def test_its_r2_is_that_of_the_residuals() -> None:
    x, y, weights = rows(50, 4, 2)
    origin = x.double().mean(0), y.double().mean(0)
    weight = torch.randn(4, 2, generator=torch.Generator().manual_seed(1)).double()
    test = Sums.of(torch.nn.Linear(4, 2), *origin)
    test.add(x, y, weights)
    error = (y - origin[1] - (x - origin[0]) @ weight).square().sum(1)
    around = (y - origin[1]).square().sum(1)
    expected = 1 - (weights * error).sum() / (weights * around).sum()
    assert test.fit(weight) == pytest.approx(expected.item())


def test_procrustes_finds_a_turn_and_its_scale() -> None:
    x, _, weights = rows(100, 6, 6)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2))).Q
    found = procrustes(*summed((x, 0.7 * x @ turn + 5, weights)).spread())
    torch.testing.assert_close(found, 0.7 * turn.double(), rtol=1e-5, atol=1e-5)


# ---- what is solved


def test_an_exactly_linear_relation_gives_the_very_weights() -> None:
    bridge = connect()
    matcher = Matcher(bridge, find_teacher(bridge, None))
    chance = torch.Generator().manual_seed(0)
    width = bridge.language.width
    weight = torch.randn(bridge.vision.text_width, width, generator=chance)
    bias = torch.randn(bridge.vision.text_width, generator=chance)
    parts = []
    for captions in (CAPTIONS[:120], CAPTIONS[120:]):
        matched = matcher([Pair.same(caption) for caption in captions])
        hidden = matcher.hidden(matched).hidden.detach()
        parts.append(replace(matched, states=hidden @ weight.T + bias))
    found = solve_last("ridge", bridge, matcher, [(parts[0], 1.0)], parts[1])
    assert found.r2 > 0.999999
    layer = bridge.adapter.last
    assert layer is not None
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-2, atol=1e-2)
    given = bridge.adapt(matcher.hidden(parts[1])).hidden
    torch.testing.assert_close(given, parts[1].states, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("adapter", ["linear", "feedforward", "refiner"])
def test_much_less_is_unmatched_on_held_out_captions(adapter: str) -> None:
    bridge = connect(adapter)
    before = {name: p.detach().clone() for name, p in bridge.named_parameters()}
    unmatched = WarmStart(bridge, CAPTIONS, steps=1).measure("states")
    start = solved(bridge)
    assert start.measure("states") < 0.65 * unmatched
    assert start.solved is not None
    assert start.solved.r2 > 0.3
    changed = {n for n, p in bridge.named_parameters() if not torch.equal(p, before[n])}
    layer = next(n for n, m in bridge.named_modules() if m is bridge.adapter.last)
    assert changed == {f"{layer}.weight", f"{layer}.bias"}  # LoRA is as it was


def test_procrustes_gives_an_orthogonal_map_with_one_scale() -> None:
    bridge = connect()
    unmatched = WarmStart(bridge, CAPTIONS, steps=1).measure("states")
    start = solved(bridge, "procrustes")
    layer = bridge.adapter.last
    assert layer is not None
    weight = layer.weight.detach()
    weight = weight if weight.shape[0] <= weight.shape[1] else weight.T
    gram = weight @ weight.T
    scale = gram.diagonal().mean()
    torch.testing.assert_close(gram / scale, torch.eye(len(gram)), rtol=0, atol=1e-5)
    assert start.measure("states") < unmatched
    assert start.solved is not None
    assert start.solved.penalty is None
    assert 0 < start.solved.r2 < 1


def test_pooled_vectors_are_solved_too(whole: Tiny, tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("clip_text_model"), whole("sdxl"), rank=2, device="cpu")
    prompts = CAPTIONS[:40]
    taught = Bridge.own(whole("sdxl"), device="cpu").encode(prompts).pooled
    before = bridge.encode(prompts).pooled
    start = solved(bridge)
    after = bridge.encode(prompts).pooled
    assert taught is not None
    assert before is not None
    assert after is not None
    assert (after - taught).square().mean() < 0.2 * (before - taught).square().mean()
    assert start.solved is not None
    assert start.solved.pooled_r2 is not None
    assert start.solved.pooled_r2 > 0
    assert "of pooled vectors" in str(start.report(predictions=False))


def test_it_works_where_padding_is_masked() -> None:
    bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-pixart", rank=2, device="cpu")
    unmatched = WarmStart(bridge, CAPTIONS, steps=1).measure("states")
    assert solved(bridge).measure("states") < 0.65 * unmatched


def test_tokens_whose_state_nothing_tells_are_left_out() -> None:
    pairs = [Pair(f"please draw {n} discs", f"{n} red circles") for n in ("one", "two", "three")]
    known = WarmStart(connect(), CAPTIONS, steps=0, match="sets", solve="ridge")
    mixed = WarmStart(connect(), CAPTIONS, steps=0, match="sets", solve="ridge", pairs=pairs)
    for start in (known, mixed):
        list(start.run())
    assert known.solved is not None
    assert mixed.solved is not None
    each = known.solved.tokens / known.solved.captions
    assert mixed.solved.tokens < each * mixed.solved.captions


def test_the_empty_caption_alone_solves_nothing() -> None:
    bridge = connect()
    matcher = Matcher(bridge, find_teacher(bridge, None))
    empty, known = matcher([Pair.same("")]), matcher([Pair.same("a ring")])
    loose = matcher([Pair("please draw some discs", "two red circles")])
    before = bridge.id
    with pytest.raises(BridgeError, match="nothing can be solved: give captions, too"):
        solve_last("ridge", bridge, matcher, [(empty, 0.1), (loose, 0.9)], known)
    assert bridge.id == before


def test_captions_count_as_in_the_loss() -> None:
    start = WarmStart(connect(), CAPTIONS, steps=1)
    parts = list(closed.weighed(start._null, start._null_share, start._groups, keep=True))
    assert parts[0][1] == pytest.approx(1 / 16)
    assert sum(len(part) * share for part, share in parts) == pytest.approx(1)


# ---- the same again


def test_the_weights_are_the_same_whatever_the_dropout_and_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = connect("feedforward", dropout=0.0), connect("feedforward", dropout=0.5)
    solved(first)
    monkeypatch.setattr(implementation, "ALL_KEPT", 1)
    start = solved(second)
    assert not start._groups._kept
    assert first.adapter.last is not None
    assert second.adapter.last is not None
    assert torch.equal(first.adapter.last.weight, second.adapter.last.weight)


def test_so_many_captions_are_read_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed, "LIMIT", 64)
    start = solved(connect())
    assert start.solved is not None
    assert start.solved.captions == 64 // start._groups.size * start._groups.size + 1


def test_a_start_that_goes_on_does_not_solve_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh(folder: Path) -> WarmStart:
        return WarmStart(
            connect(), CAPTIONS, steps=4, batch_size=4, solve="ridge", folder=tmp_path / folder
        )

    whole, first = fresh(Path("whole")), fresh(Path("parts"))
    list(whole.run())
    next(first.run())
    first.save()
    second = fresh(Path("parts"))
    assert second.step == 1
    monkeypatch.delattr(implementation, "solve_last")
    list(second.run())
    assert second.solved == first.solved
    for a, b in zip(
        whole.bridge.trainable_parameters(), second.bridge.trainable_parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_a_start_that_solved_in_another_way_is_refused(tmp_path: Path) -> None:
    list(WarmStart(connect(), CAPTIONS, steps=0, solve="ridge", folder=tmp_path).run())
    with pytest.raises(BridgeError, match=r"other settings \(solve: ridge there, procrustes here"):
        WarmStart(connect(), CAPTIONS, steps=0, solve="procrustes", folder=tmp_path)
    with pytest.raises(BridgeError, match=r"other settings \(.*there"):
        WarmStart(connect(), CAPTIONS, steps=1, folder=tmp_path)


# ---- the doors


@pytest.mark.slow
def test_in_python_it_may_be_all_of_a_start(few: None) -> None:
    bridge = connect()
    report = warm_start(bridge, CAPTIONS, solve="ridge", steps=0)
    assert report.steps == 0
    assert report.solved is not None
    assert str(report).startswith("solved (ridge): R² 0.")
    assert bridge.training_summary["warm_start_report"]["solved"]["r2"] == report.solved.r2


def config(out: Path, **changes: object) -> TrainConfig:
    settings = {
        "language": "zoo:tiny-t5-small",
        "vision": "zoo:tiny-sd",
        "data": "shapes",
        "out": out,
        "rank": 2,
        "steps": 1,
        "batch_size": 2,
        "warm_start_solve": "ridge",
        "warm_start_report": False,
        "sample_every": 0,
        "validate_every": 0,
        "tracker": "none",
        "device": "cpu",
    }
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_solves_before_its_first_picture(
    few: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(closed, "LIMIT", 200)
    trained = Run(config(tmp_path / "run")).train()
    assert "solved (ridge): R² 0." in capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "warm-start" / "report.json").read_text())
    assert report["steps"] == 0
    assert report["solved"]["r2"] > 0
    loaded = Bridge.load(tmp_path / "run").training_summary
    assert loaded["warm_start_report"]["solved"] == report["solved"]
    assert loaded["warm_start_solve"] == "ridge"
    assert Run(config(tmp_path / "run")).train().id == trained.id  # it had finished
    with pytest.raises(BridgeError, match="warm_start_solve: ridge there, None here"):
        Run(config(tmp_path / "run", warm_start_solve="none")).train()


# ---- what cannot be solved


def test_every_adapter_of_one_feature_a_token_names_the_layer_that_gives_it() -> None:
    for kind, adapter in ((kind, ADAPTERS[kind](32, 32)) for kind in ADAPTERS):
        trains = any(True for _ in adapter.parameters())  # the identity does not
        assert (adapter.last is not None) == (adapter.per_token and trains), kind
        if adapter.last is not None:
            assert adapter.last.out_features == 32


@pytest.mark.parametrize("adapter", ["resampler", "fusion", "concat", "timed"])
def test_adapters_without_one_feature_a_token_are_refused(adapter: str) -> None:
    message = (
        f"nothing can be solved: the '{adapter}' adapter does not keep one feature a token; leave "
        "it out"
    )
    with pytest.raises(BridgeError, match=message):
        WarmStart(connect(adapter), CAPTIONS, match="predictions", solve="ridge")


def test_procrustes_is_for_one_linear_layer() -> None:
    with pytest.raises(BridgeError, match=r"for the 'linear' adapter alone, not 'feedforward': so"):
        WarmStart(connect("feedforward"), CAPTIONS, solve="procrustes")


def test_predictions_can_follow_where_states_are_comparable(whole: Tiny, tiny: Tiny) -> None:
    start = WarmStart(connect(), CAPTIONS, match="predictions", steps=0, solve="ridge")
    list(start.run())
    assert start.solved is not None
    bridge = Bridge.connect(tiny("t5"), whole("sd3"), rank=2, device="cpu")
    with pytest.raises(BridgeError, match=r"nothing can be solved: .* give no state for each tok"):
        WarmStart(bridge, CAPTIONS, match="predictions", solve="ridge")


def test_an_unknown_way_names_the_known() -> None:
    with pytest.raises(BridgeError, match="unknown solve 'x'; known: none, ridge, procrustes"):
        WarmStart(connect(), CAPTIONS, solve="x")  # type: ignore[arg-type]


def test_features_that_are_no_numbers_are_an_error() -> None:
    bridge = connect()
    torch.nn.init.constant_(lora.parameters(bridge.language.model)[-1], torch.nan)
    with pytest.raises(BridgeError, match="are not numbers: use --dtype float32"):
        solved(bridge)
