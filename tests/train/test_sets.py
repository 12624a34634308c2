"""Adapters that add to the own encoder's states learn from pairs by sets of these."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lavi_bridge import Bridge, BridgeError, warm_start
from lavi_bridge.train.warm_start.matching import Matcher, assigned
from lavi_bridge.train.warm_start.pairs import Pair
from lavi_bridge.train.warm_start.warm_start import WarmStart
from tests.train.test_pairs import PAIRS

Tiny = Callable[[str], Path]
UNLINKED = [Pair(pair.ours, pair.theirs) for pair in PAIRS]
SAME = [Pair.same(pair.theirs) for pair in PAIRS]


def connect(vision: str | Path = "zoo:tiny-sd") -> Bridge:
    return Bridge.connect(
        "zoo:tiny-llama", vision, adapter="fusion", rank=4, tokens=48, dropout=0.0, device="cpu"
    )


def matcher(bridge: Bridge) -> Matcher:
    assert bridge.own_encoders is not None
    return Matcher(bridge, bridge.own_encoders)


def test_one_text_on_both_sides_is_matched_before_the_first_step(few: None) -> None:
    warm = WarmStart(connect(), [], pairs=UNLINKED, match="sets", batch_size=4)
    assert warm._states(warm._matcher(SAME)).tolist() == [0] * len(SAME)
    assert warm.measure("sets") > 0


def test_captions_alone_are_refused_for_they_teach_nothing() -> None:
    for pairs in ([], SAME):
        with pytest.raises(BridgeError, match=r"nothing to learn .*\(--warm-start-pairs\)"):
            WarmStart(connect(), ["a ring", "a disc"], pairs=pairs, match="sets")


def test_it_learns_what_the_own_encoder_misreads(few: None) -> None:
    warm = WarmStart(connect(), [], pairs=UNLINKED, match="sets", steps=6, batch_size=8)
    before = warm.measure("sets")
    list(warm.run())
    assert 0 < warm.measure("sets") < before
    report = warm.report(predictions=False)
    assert report.states["pairs of two texts"] > report.states["all"]


def test_two_texts_are_a_set_and_one_is_not() -> None:
    bridge = connect()
    found = matcher(bridge)([Pair.same("a ring"), UNLINKED[0], Pair.same("")])
    assert found.loose.all(1).tolist() == [False, True, False]
    assert found.loose.any(1).tolist() == [False, True, False]
    assert found.own.shape == found.states.shape == (3, bridge.vision.tokens, 64)
    assert found.ids.shape[1] > bridge.vision.tokens


def test_states_are_dealt_at_once_as_row_by_row() -> None:
    torch.manual_seed(0)
    given, states = torch.randn(3, 32, 8), torch.randn(3, 32, 8)
    loose = torch.tensor([True, False, True]).unsqueeze(1).expand(3, 32)
    alone = [assigned(given[i : i + 1], states[i : i + 1], loose[i : i + 1]) for i in range(3)]
    dealt = assigned(given, states, loose)
    assert torch.equal(dealt, torch.cat(alone))
    assert torch.equal(dealt[1], states[1])
    assert (given - dealt).square().sum() < (given - states).square().sum()


@pytest.mark.parametrize("vision", ["sdxl", "sd3"])
def test_several_own_encoders_are_one_set(vision: str, whole: Tiny, few: None) -> None:
    bridge = connect(whole(vision))
    pairs = [(f"please draw {n} crimson discs", f"{n} red circles") for n in ("one", "two")]
    before = bridge.id
    assert warm_start(bridge, pairs=pairs, match="sets", steps=2, batch_size=4).states
    assert bridge.id != before


@pytest.mark.parametrize("match", ["states", "both"])
def test_states_one_by_one_are_refused(match: str) -> None:
    with pytest.raises(BridgeError, match="own encoder; match sets or predictions instead"):
        warm_start(connect(), ["a ring"], match=match)  # type: ignore[arg-type]


def test_where_padding_is_masked_there_are_no_sets(whole: Tiny) -> None:
    with pytest.raises(BridgeError, match=r"masks the padding .*; match predictions instead"):
        warm_start(connect(whole("lumina2")), pairs=UNLINKED, match="sets")
    with pytest.raises(BridgeError, match=r"leaves out the padding .*; match predictions instead"):
        warm_start(connect(whole("cogview4")), pairs=UNLINKED, match="sets")


def test_a_teacher_of_another_length_is_told() -> None:
    with pytest.raises(BridgeError, match="gives 32 tokens and the own encoder 77"):
        warm_start(
            connect("zoo:tiny-ldm"), ["a ring"], match="sets", teacher="zoo:tiny-sd/text_encoder"
        )


@pytest.mark.slow
def test_stopped_and_repeated_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    def started(folder: Path) -> WarmStart:
        return WarmStart(
            connect(), [], pairs=UNLINKED, match="sets", steps=6, batch_size=8, folder=folder
        )

    whole = started(tmp_path / "whole")
    list(whole.run())
    first = started(tmp_path / "parts").run(save_seconds=0.0)
    for _ in range(3):
        next(first)
    first.close()
    second = started(tmp_path / "parts")
    assert second.step == 3
    list(second.run())
    assert second.bridge.id == whole.bridge.id
