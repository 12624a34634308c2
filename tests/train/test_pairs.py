"""A warm start from pairs: files of them, which words correspond; it learns and resumes."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lavi_bridge import Bridge, BridgeError, warm_start
from lavi_bridge.config import Match
from lavi_bridge.files.locate import locate
from lavi_bridge.languages import load_language
from lavi_bridge.shapes.world import ShapesWorld
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.warm_start import matching
from lavi_bridge.train.warm_start import pairs as module
from lavi_bridge.train.warm_start.alignment import align, equal_words, linked
from lavi_bridge.train.warm_start.matching import Matched, Matcher, assigned
from lavi_bridge.train.warm_start.pairs import (
    Pair,
    as_pairs,
    fitting,
    mixed,
    open_pairs,
    read_pairs,
    readable,
    write_pairs,
)
from lavi_bridge.train.warm_start.warm_start import WarmStart

Tiny = Callable[[str], Path]
MARK = (0, 0)


def made() -> list[Pair]:
    """Pairs that Llama's little tokenizer, which spells words it does not know, cuts none of."""
    tokenizer = load_language(locate("zoo:tiny-llama"), dtype=torch.float32)
    told = ShapesWorld().retold(160, asides=0, synonyms=2)
    pairs = [Pair(one.text, one.plain, one.links) for one in told]
    lengths = tokenizer.lengths([pair.ours for pair in pairs])
    return [pair for pair, length in zip(pairs, lengths, strict=True) if 34 < length <= 48]


PAIRS = made()


def connect(tiny: Tiny, vision: str = "zoo:tiny-sd", **options: object) -> Bridge:
    given: dict[str, object] = {"rank": 2, "dropout": 0.0, "device": "cpu", "tokens": 48} | options
    return Bridge.connect("zoo:tiny-llama", vision, **given)  # type: ignore[arg-type]


# Files


def test_a_file_of_pairs_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    pairs = [Pair("paint me a disc", "a circle", ((2, 0), (3, 1))), Pair("ein Kreis", "a circle")]
    assert read_pairs_of(tmp_path, "a disc\ta circle\t\n")[0].links is None
    path.write_text(write_pairs(pairs) + "\n", encoding="utf-8")
    found = read_pairs(path)
    assert [(p.ours, p.theirs, p.links) for p in found] == [
        (p.ours, p.theirs, p.links) for p in pairs
    ]
    assert found[1].where == f"{path}:2"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a disc", "2: no tab; a line is: what the bridge reads<TAB>what the own encoder reads"),
        ("a\tb\tc\td", "2: 3 tabs; a line is"),
        ("\ta circle", "2: what the bridge reads is empty"),
        ("a disc\t ", "2: what the own encoder reads is empty"),
        ("a disc\ta circle\t0-2", "2: '0-2' links no word to a word: the sides have 2 and 2"),
        ("a disc\ta circle\t0:0", "2: '0:0' links no word to a word"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(f"a disc\ta circle\n{line}\n", encoding="utf-8")
    with pytest.raises(BridgeError, match=message):
        read_pairs(path)


def test_a_file_that_is_missing_empty_or_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    with pytest.raises(BridgeError, match="cannot read pairs"):
        read_pairs(path)
    path.write_bytes(b"\n\n")
    with pytest.raises(BridgeError, match="holds no pairs"):
        read_pairs(path)
    path.write_bytes(b"a disc\ta circle\n\xff\tb\n")
    with pytest.raises(BridgeError, match="2: not UTF-8 text"):
        read_pairs(path)


def test_the_world_has_pairs_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GENERATED", 50)
    first = open_pairs("shapes")[0]
    told = ShapesWorld().retold(1)[0]
    assert (first.ours, first.theirs, first.links) == (told.text, told.plain, told.links)


def test_of_the_worlds_pairs_those_that_are_too_long_are_counted(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GENERATED", 50)
    bridge = connect(tiny)
    with pytest.warns(UserWarning, match=r"\d+ of 50 pairs .* more than the 48 tokens"):
        kept = as_pairs("shapes", bridge)
    assert kept == fitting(open_pairs("shapes"), bridge)
    assert 0 < len(kept) < 50


def test_captions_are_mixed_in_and_never_outnumber_the_pairs() -> None:
    pairs = [Pair(f"free {i}", f"plain {i}") for i in range(10)]
    found = mixed([f"caption {i}" for i in range(50)], [*pairs, pairs[0]], seed=0)
    assert sorted(pair.ours[:4] for pair in found) == ["capt"] * 10 + ["free"] * 10
    alone = mixed([], pairs, seed=0)
    assert sorted(pair.ours for pair in alone if pair.ours == pair.theirs) == sorted(
        pair.theirs for pair in pairs
    )


def read_pairs_of(folder: Path, content: str) -> list[Pair]:
    (folder / "other.tsv").write_text(content, encoding="utf-8")
    return read_pairs(folder / "other.tsv")


# Which tokens belong together


def test_linked_words_are_matched_wherever_they_stand() -> None:
    texts = ("paint a disc, a ruby one", "a red circle")
    #         paint    a       disc      ,        a       ruby      one
    ours = [MARK, (0, 5), (6, 7), (8, 12), (12, 13), (14, 15), (16, 20), (21, 24), MARK]
    theirs = [MARK, (0, 1), (2, 5), (6, 12), MARK, MARK, MARK, MARK, MARK]
    groups = linked(texts, (ours, theirs), [(1, 0), (2, 2), (4, 1)])
    assert groups == [([2], [1]), ([3], [3]), ([6], [2])]  # the comma is no part of the disc
    found = align(ours, theirs, 9, 5, groups=groups)
    assert (found[2], found[3], found[6]) == (1, 3, 2)
    assert sorted(found) == list(range(9))  # the vision model reads the same set


def test_several_words_may_stand_for_one() -> None:
    texts = ("an addition sign", "a cross")
    spans = [(0, 2), (3, 11), (12, 16)], [(0, 1), (2, 7)]
    assert linked(texts, spans, [(0, 0), (1, 1), (2, 1)]) == [([0], [0]), ([1, 2], [1])]


def test_equal_words_are_linked_where_they_are_the_only_ones() -> None:
    assert equal_words(("Draw a red disc, a disc", "a Red circle")) == [(2, 1)]


def test_more_tokens_than_the_teacher_reads_take_its_last_padding() -> None:
    spans = [(i, i + 1) for i in range(6)]
    assert align(spans, [(0, 1), MARK, MARK], 6, 1, groups=[([0], [0])]) == [0, 1, 2, 2, 2, 2]


def test_loose_states_are_dealt_to_the_nearest_tokens() -> None:
    states = torch.tensor([[[0.0], [1.0], [2.0], [3.0]]])
    given = torch.tensor([[[3.1], [1.9], [0.1], [0.2]]])
    loose = torch.tensor([[True, False, True, True]])
    assert assigned(given, states, loose).flatten().tolist() == [3.0, 1.0, 0.0, 2.0]


# Longer texts


def test_a_long_pair_is_read_to_its_end_and_a_short_one_as_ever(tiny: Tiny) -> None:
    long = Pair(" ".join(["a red circle and"] * 9), "a red circle", ((1, 1), (2, 2)))
    bridge = connect(tiny)
    matched = Matcher(bridge, Bridge.own("zoo:tiny-sd", device="cpu").language)(
        [Pair.same("a red circle"), long]
    )
    real = bridge.language.lengths([long.ours])[0]
    assert matched.mask.sum(1).tolist() == [bridge.padding, real]
    assert (matched.weights > 0).sum(1).tolist() == [bridge.padding, real]


# Learning


@pytest.mark.parametrize(
    "match", ["states", "sets", pytest.param("predictions", marks=pytest.mark.slow)]
)
def test_it_learns_what_the_own_encoder_cannot_read(tiny: Tiny, few: None, match: str) -> None:
    bridge = connect(tiny, rank=8)
    pairs = PAIRS if match == "states" else [Pair(p.ours, p.theirs) for p in PAIRS]
    warm = WarmStart(bridge, [], pairs=pairs, match=match, steps=6, batch_size=8)  # type: ignore[arg-type]
    before = warm.measure(match)  # type: ignore[arg-type]
    list(warm.run())
    assert warm.measure(match) < before  # type: ignore[arg-type]
    assert "pairs of two texts" in str(warm.report(predictions=False))


def test_pairs_may_be_given_as_two_texts(tiny: Tiny) -> None:
    pairs = [(p.ours, p.theirs) for p in PAIRS[:60]]
    report = warm_start(connect(tiny), pairs=pairs, match="sets", steps=2, batch_size=4)
    assert report.steps == 2


def test_what_cannot_be_matched_is_told(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("a disc\ta circle\n", encoding="utf-8")
    with pytest.raises(BridgeError, match=r"pairs.tsv:1: nothing says which words correspond .*1 "):
        warm_start(connect(tiny), pairs=path)
    long = " ".join(["disc"] * 60)
    path.write_text(f"{long}\ta circle\t0-1\n", encoding="utf-8")
    with pytest.raises(BridgeError, match=r":1: \d+ tokens, but the bridge reads 48 .*--to"):
        warm_start(connect(tiny), pairs=path)
    path.write_text(f"a disc\t{long}\t1-1\n", encoding="utf-8")
    with pytest.raises(BridgeError, match=r"tokens, but the own encoder reads 32 .*: shorten"):
        warm_start(connect(tiny), pairs=path)


def test_a_tokenizer_without_offsets_is_told(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = connect(tiny)
    slow = type("Slow", (type(bridge.language.tokenizer),), {"is_fast": False})
    monkeypatch.setattr(bridge.language.tokenizer, "__class__", slow)
    with pytest.raises(BridgeError, match="gives no character offsets; match predictions instead"):
        warm_start(bridge, pairs=PAIRS)


@pytest.mark.parametrize("layers", ["all", pytest.param("last:2", marks=pytest.mark.slow)])
def test_stopped_and_repeated_it_ends_with_the_same_bits(
    tiny: Tiny, tmp_path: Path, layers: str
) -> None:
    def started(folder: Path) -> WarmStart:
        bridge = connect(tiny, language_layers=layers)
        return WarmStart(bridge, [], pairs=PAIRS, steps=6, batch_size=8, folder=folder)

    whole = started(tmp_path / "whole")
    list(whole.run())
    first = started(tmp_path / "parts")
    steps = first.run(save_seconds=0.0)
    for _ in range(3):
        next(steps)
    steps.close()
    second = started(tmp_path / "parts")
    assert second.step == 3
    list(second.run())
    assert second.bridge.id == whole.bridge.id


@pytest.mark.parametrize("layers", ["all", "last:1"])
def test_the_frozen_models_own_dropout_is_off_and_put_back(
    tiny: Tiny, tmp_path: Path, layers: str
) -> None:
    """So a start that goes on ends with the same bits, though it matches chunks at other steps."""
    folder = shutil.copytree(tiny("t5"), tmp_path / "t5")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dropout_rate": 0.5}))

    def started(state: Path) -> WarmStart:
        bridge = Bridge.connect(
            folder, "zoo:tiny-sd", rank=2, dropout=0.1, device="cpu", language_layers=layers
        )
        captions = [pair.theirs for pair in PAIRS]
        return WarmStart(bridge, captions, steps=6, batch_size=8, folder=state)

    whole = started(tmp_path / "whole")
    list(whole.run())
    rates = [m.p for m in whole.bridge.language.model.modules() if isinstance(m, torch.nn.Dropout)]
    assert set(rates) == {0.5}
    first = started(tmp_path / "parts")
    steps = first.run(save_seconds=0.0)
    for _ in range(3):
        next(steps)
    steps.close()
    second = started(tmp_path / "parts")
    list(second.run())
    assert second.bridge.id == whole.bridge.id
    assert second.measure("states") == second.measure("states")


@pytest.mark.slow
def test_what_is_matched_once_is_kept_while_it_fits(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matching runs on the host and is slow beside a small model: not once a pass."""
    run = {"pairs": PAIRS[:40], "steps": 12, "batch_size": 16}
    matched, bits = [], []
    real = Matcher.__call__

    def counted(self: Matcher, pairs: Sequence[Pair]) -> Matched:
        matched.append(len(pairs))
        return real(self, pairs)

    monkeypatch.setattr(Matcher, "__call__", counted)
    for kept in (2**30, 0):
        monkeypatch.setattr(f"{WarmStart.__module__}.ALL_KEPT", kept)
        matched.clear()
        bridge = connect(tiny)
        start = WarmStart(bridge, [], **run)  # type: ignore[arg-type]
        for _ in start.run():
            pass
        bits.append(bridge.id)
        whole = len(start.pairs) + len(start.held_out_pairs) + 1
        assert (sum(matched) == whole) is bool(kept), (sum(matched), whole)
    assert bits[0] == bits[1]


@pytest.mark.parametrize(
    ("language", "options", "match"),
    [
        ("zoo:tiny-t5-small", {}, "states"),
        ("zoo:tiny-llama", {"language_layers": "last:1"}, "states"),
        ("zoo:tiny-t5-small", {"adapter": "fusion"}, "sets"),
        ("zoo:tiny-t5-small", {"language_rank": 0, "layers": "mix"}, "states"),
    ],
)
def test_texts_parted_by_length_are_matched_as_together(
    monkeypatch: pytest.MonkeyPatch, language: str, options: dict[str, Any], match: Match
) -> None:
    given: dict[str, Any] = {"rank": 2, "dropout": 0.0, "device": "cpu", "tokens": 64} | options
    bridge = Bridge.connect(language, "zoo:tiny-sd", **given)
    told = [Pair(one.text, one.plain, one.links) for one in ShapesWorld().retold(200)]
    captions, pairs = ShapesWorld().captions(100), fitting(told, bridge)
    warm = WarmStart(bridge, captions, pairs=pairs, match=match, batch_size=40, steps=4)
    step = Matched.cat(warm._batch(0))
    parts, _ = step.by_length()
    assert len(parts) > 1
    assert sum(part.ids.numel() for part in parts) <= 0.75 * step.ids.numel()
    bridge.eval()
    apart = warm._states(step)
    monkeypatch.setattr(matching, "SPARED", 0.0)
    assert len(step.by_length()[0]) == 1
    torch.testing.assert_close(apart, warm._states(step), rtol=1e-4, atol=1e-5)


def test_texts_of_about_one_length_stay_together() -> None:
    assert matching._cuts([10] * 40) == [40]
    assert matching._cuts([10] * 4 + [90]) == [5]  # too few to be parted
    assert matching._cuts([10] * 20 + [60] * 20) == [20, 20]
    assert matching._cuts([5] * 10 + [20] * 10 + [80] * 10) == [10, 10, 10]


def test_pairs_need_a_warm_start() -> None:
    with pytest.raises(BridgeError, match="'warm_start_pairs' are for a warm start"):
        TrainConfig("a", "b", "d", Path("out"), warm_start_pairs="shapes")


def test_captions_that_the_own_encoder_does_not_read_whole_are_left_out(tiny: Tiny) -> None:
    teacher = Bridge.own("zoo:tiny-sd", device="cpu").language
    captions = ["a red circle", " ".join(["a red circle and"] * 9)]
    bridge = connect(tiny)
    with pytest.warns(UserWarning, match="1 of 2 captions are left out"):
        assert readable(captions, bridge, teacher) == captions[:1]
    assert readable(captions, connect(tiny, tokens=None), teacher) == captions


def test_other_pairs_are_another_start(tiny: Tiny, tmp_path: Path) -> None:
    list(WarmStart(connect(tiny), [], pairs=PAIRS, steps=1, folder=tmp_path).run())
    with pytest.raises(BridgeError, match=r"with other settings .*captions"):
        WarmStart(connect(tiny), [], pairs=PAIRS[1:], steps=1, folder=tmp_path)
