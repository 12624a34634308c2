"""A start without images: which state belongs to which; it learns, resumes, stops and reports."""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from lavi_bridge import Bridge, BridgeError, warm_start
from lavi_bridge.bridge import lora
from lavi_bridge.errors import Diverged, NotANumber
from lavi_bridge.shapes.world import ShapesWorld
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.run import Run
from lavi_bridge.train.warm_start import matching, predictions
from lavi_bridge.train.warm_start import warm_start as implementation
from lavi_bridge.train.warm_start.alignment import align
from lavi_bridge.train.warm_start.matching import Matched, Matcher
from lavi_bridge.train.warm_start.pairs import Pair
from lavi_bridge.train.warm_start.report import by_topic
from lavi_bridge.train.warm_start.warm_start import PASSES, WarmStart

Tiny = Callable[[str], Path]
CAPTIONS = ShapesWorld().captions(300)


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the teacher draws takes most of the time, and here only its kind matters."""
    monkeypatch.setattr(predictions, "BANK", 16)
    monkeypatch.setattr(predictions, "BANK_STEPS", 3)


MARK = PAD = (0, 0)
#                  start  a       red     crosses  end
THEIRS = [MARK, (0, 1), (2, 5), (6, 13), MARK, PAD, PAD, PAD]


def test_the_same_tokens_are_matched_place_by_place() -> None:
    assert align(THEIRS, THEIRS, 5, 5) == list(range(8))


def test_the_last_piece_of_a_word_takes_its_state_and_all_others_are_used_once() -> None:
    ours = [MARK, (0, 1), (2, 5), (6, 11), (11, 13), PAD, PAD, PAD]  # cross·es, and no end mark
    target = align(ours, THEIRS, 5, 5)
    assert [target[i] for i in (0, 1, 2, 4)] == [0, 1, 2, 3]
    assert target[5] == 4  # the end is learned by the first padding
    assert sorted(target) == list(range(8))  # cross-attention reads the very same set


def test_a_start_mark_that_is_lacking_is_learned_by_the_last_padding() -> None:
    ours = [(0, 1), (2, 5), (6, 13), MARK, PAD, PAD, PAD, PAD]  # as T5's
    target = align(ours, THEIRS, 4, 5)
    assert target[:4] == [1, 2, 3, 4]
    assert target[-1] == 0
    assert sorted(target) == list(range(8))


def test_where_padding_is_masked_pieces_repeat_the_state_of_their_word() -> None:
    ours = [MARK, (0, 1), (2, 5), (6, 11), (11, 13), PAD, PAD, PAD]
    assert align(ours, THEIRS, 5, 5, masked=True) == [0, 1, 2, 3, 3, -1, -1, -1]


def test_one_token_for_two_of_theirs_takes_the_last() -> None:
    ours = [MARK, (0, 5), (6, 13), MARK, PAD, PAD, PAD, PAD]
    target = align(ours, THEIRS, 4, 5)
    assert target[1] == 2
    assert sorted(target) == list(range(8))


def test_an_empty_caption_has_only_marks_and_padding() -> None:
    assert align([PAD] * 4, [PAD] * 4, 2, 2) == [0, 1, 2, 3]
    assert sorted(align([PAD] * 4, [PAD] * 4, 1, 2)) == [0, 1, 2, 3]


def test_the_zoos_tokenizers_meet_on_words() -> None:
    text = "a striped red cross beneath two diamonds"
    own = Bridge.own("zoo:tiny-sd").language
    for name in ("tiny-t5-base", "tiny-llama", "tiny-clip"):
        bridge = Bridge.connect(f"zoo:{name}", "zoo:tiny-sd", rank=2, device="cpu")
        ours, theirs = bridge.language.spans([text], 32)[0], own.spans([text], 32)[0]
        counts = [int(x.tokenize([text], 32).mask.sum()) for x in (bridge.language, own)]
        target = align(ours, theirs, *counts)
        assert sorted(target) == list(range(32))
        last = {stop: i for i, (start, stop) in enumerate(ours) if stop > start}
        for position, (start, stop) in enumerate(theirs):
            if stop > start:
                assert target[last[stop]] == position, text[start:stop]


def weights(bridge: Bridge) -> list[torch.Tensor]:
    return [p.detach().clone() for p in bridge.trainable_parameters()]


def stopped(start: WarmStart, after: int, fresh: Callable[[Path], WarmStart]) -> WarmStart:
    """What goes on from the folder of a warm start that was saved after so many steps."""
    steps = start.run()
    for _ in range(after):
        next(steps)
    start.save()
    assert start.state is not None
    return fresh(start.state.path.parent)


# ---- it learns


@pytest.mark.parametrize(
    "match",
    [
        "states",
        pytest.param("predictions", marks=pytest.mark.slow),
        pytest.param("both", marks=pytest.mark.slow),
    ],
)
def test_it_brings_the_bridge_close_to_the_own_encoder(match: str) -> None:
    bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", rank=8, dropout=0.0, device="cpu")
    before = [p.clone() for p in bridge.parts()["vision"]]
    start = WarmStart(bridge, CAPTIONS, steps=1, batch_size=8).report()
    report = warm_start(bridge, CAPTIONS, match=match, steps=16, batch_size=12, lr=6e-3)  # type: ignore[arg-type]
    assert report.steps <= 16
    assert report.captions["all"] == 30
    assert {"all"} <= set(report.predictions) <= set(report.captions)
    measure = "predictions" if match == "predictions" else "states"
    bar = 0.9 if match == "predictions" else 0.8  # slower
    assert getattr(report, measure)["all"] < bar * getattr(start, measure)["all"]
    assert all(torch.equal(a, b) for a, b in zip(before, bridge.parts()["vision"], strict=True))
    assert bridge.training_summary["warm_start_report"]["match"] == match
    assert "unmatched part, by topic" in str(report)


def test_its_teacher_is_the_vision_model_without_lora() -> None:
    bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", rank=4, dropout=0.0, device="cpu")
    warm = WarmStart(bridge, CAPTIONS, match="predictions", steps=2)
    before = warm.report().predictions["all"]
    for parameter in lora.parameters(bridge.vision.backbone):
        torch.nn.init.normal_(parameter, std=0.1)
    again = WarmStart(bridge, CAPTIONS, match="predictions", steps=2)
    torch.testing.assert_close(
        again._predictions.bank(None).latents, warm._predictions.bank(None).latents
    )
    assert again.report().predictions["all"] != before


def test_it_works_where_padding_is_masked_and_tokens_differ() -> None:
    bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-pixart", rank=4, device="cpu")
    report = warm_start(bridge, CAPTIONS, steps=8, batch_size=8, lr=3e-3)
    assert 0 < report.states["all"] < 3


def test_it_stops_early_where_nothing_is_gained() -> None:
    bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, dropout=0.0, device="cpu")
    warm = WarmStart(bridge, CAPTIONS, steps=100, batch_size=2, lr=0.0)  # cannot gain
    list(warm.run())
    assert warm.stopped_early
    assert warm.step == warm.end < 100
    assert "stopped early" in str(warm.report())


def test_a_caption_is_matched_once_and_read_in_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    matched: list[Pair] = []
    call = Matcher.__call__

    def noted(self: Matcher, pairs: Sequence[Pair]) -> Matched:
        matched.extend(pairs)
        return call(self, pairs)

    monkeypatch.setattr(Matcher, "__call__", noted)
    bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, dropout=0.0, device="cpu")
    warm = WarmStart(bridge, CAPTIONS[:40], steps=16, batch_size=10)
    read = [group for step in range(16) for group in warm._batch(step)]
    ids = [tuple(row.tolist()) for group in read for row in group.ids]
    assert set(Counter(ids).values()) == {PASSES}  # 36 captions, 9 of them a step
    list(warm.run())
    read_once = [Pair.same(""), *warm.held_out_pairs, *warm.pairs]
    assert sorted(pair.ours for pair in matched) == sorted(pair.ours for pair in read_once)


def test_a_language_model_that_does_not_train_reads_each_text_once() -> None:
    bridge = Bridge.connect(
        "zoo:tiny-t5-small", "zoo:tiny-sd", language_rank=0, layers="mix", tokens=48, device="cpu"
    )
    pairs = [Pair(f"{text} please", text, links=()) for text in CAPTIONS[:20]]
    warm = WarmStart(bridge, CAPTIONS[:20], pairs=pairs, steps=12, batch_size=8)
    texts: list[int] = []
    counting = bridge.language.model.register_forward_pre_hook(
        lambda _module, _args, options: texts.append(len(options["input_ids"])), with_kwargs=True
    )
    list(warm.run())
    counting.remove()
    assert sum(texts) <= len([Pair.same(""), *warm.held_out_pairs, *warm.pairs])
    kept = warm._matcher.hidden(warm._held_out).hidden
    read = bridge.language.hidden(warm._held_out.ids)
    torch.testing.assert_close(kept, read, atol=5e-3, rtol=5e-3)


def test_with_little_memory_captions_come_in_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kept in ("KEPT", "ALL_KEPT"):
        monkeypatch.setattr(implementation, kept, 1)
    for module in (implementation, matching):
        monkeypatch.setattr(module, "CHUNK", 2)

    def fresh(folder: Path) -> WarmStart:
        bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu")
        return WarmStart(bridge, CAPTIONS, steps=12, batch_size=5, folder=folder)

    whole, first = fresh(tmp_path / "whole"), fresh(tmp_path / "parts")
    assert whole._window == 2
    list(whole.run())
    assert len(whole._groups._kept) <= 2  # chunks, of nine that were read
    second = stopped(first, 5, fresh)
    list(second.run())
    for a, b in zip(weights(whole.bridge), weights(second.bridge), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_no_number_is_never_saved(tmp_path: Path) -> None:
    bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu")
    warm = WarmStart(bridge, CAPTIONS, steps=3, batch_size=4, folder=tmp_path)
    steps = warm.run(save_seconds=0)
    next(steps)
    kept = (tmp_path / "state.safetensors").read_bytes()
    with torch.no_grad():
        next(bridge.adapter.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, match="not a number at step 2; lower its rate"):
        next(steps)
    assert (tmp_path / "state.safetensors").read_bytes() == kept


# ---- it resumes


def test_stopped_and_repeated_it_ends_with_the_very_same_weights(tmp_path: Path) -> None:
    def fresh(folder: Path) -> WarmStart:
        # dropout is drawn, too
        bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu")
        return WarmStart(bridge, CAPTIONS, steps=10, batch_size=4, folder=folder)

    whole = fresh(tmp_path / "whole")
    list(whole.run())
    second = stopped(fresh(tmp_path / "parts"), 4, fresh)
    assert second.step == 4
    list(second.run())
    assert second.checks == whole.checks
    for a, b in zip(weights(whole.bridge), weights(second.bridge), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_both_resume_in_the_second_phase_whose_moments_were_cleared(tmp_path: Path) -> None:
    def fresh(folder: Path) -> WarmStart:
        bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu")
        return WarmStart(bridge, CAPTIONS, match="both", steps=8, batch_size=4, folder=folder)

    whole, first = fresh(tmp_path / "whole"), fresh(tmp_path / "parts")
    assert [step.match for step in whole.run()] == ["states"] * 6 + ["predictions"] * 2
    second = stopped(first, 7, fresh)
    list(second.run())
    for a, b in zip(weights(whole.bridge), weights(second.bridge), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu")
    list(WarmStart(bridge, CAPTIONS, steps=1, batch_size=2, folder=tmp_path).run())
    with pytest.raises(BridgeError, match=r"other settings \(lr: 0.003 there, 0.001 here\)"):
        WarmStart(bridge, CAPTIONS, steps=1, batch_size=2, lr=1e-3, folder=tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"cut short")
    with pytest.raises(BridgeError, match=r"state.safetensors is damaged"):
        WarmStart(bridge, CAPTIONS, steps=1, batch_size=2, folder=tmp_path)


def config(out: Path, **changes: object) -> TrainConfig:
    settings = {
        "language": "zoo:tiny-t5-small",
        "vision": "zoo:tiny-sd",
        "data": "shapes",
        "out": out,
        "rank": 2,
        "steps": 1,
        "batch_size": 2,
        "warm_start": 24,
        "warm_start_batch": 4,
        "sample_every": 0,
        "validate_every": 0,
        "device": "cpu",
        "log_every": 1,
    }
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_that_was_stopped_in_its_warm_start_goes_on(few: None, tmp_path: Path) -> None:
    def stop() -> None:
        metrics = tmp_path / "run" / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=stop).start()
    with pytest.raises(BridgeError, match=r"warm start stopped at step \d+ of 24; it goes on from"):
        Run(config(tmp_path / "run")).train()
    Run(config(tmp_path / "run")).train()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(x)["warm_start_step"] for x in lines if "warm_start_step" in x]
    assert steps == sorted(set(steps))
    report = json.loads((tmp_path / "run" / "warm-start" / "report.json").read_text())
    assert report["steps"] == steps[-1]
    assert Bridge.load(tmp_path / "run").training_summary["warm_start_report"]["seconds"] > 0
    assert (tmp_path / "run" / "step-0" / "bridge.json").exists()
    trained = Bridge.load(tmp_path / "run").id
    assert Run(config(tmp_path / "run")).train().id == trained  # it had finished


@pytest.mark.slow
def test_a_run_may_be_its_warm_start_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = {"warm_start": 2, "warm_start_report": False, "steps": 0, "sample_every": 5}
    made = Run(config(out, **settings, sample_steps=1, sample_prompts=["a red circle"])).train()
    assert Bridge.load(out).id == Bridge.load(out / "step-0").id == made.id
    assert (out / "samples" / "000000.png").exists()


# ---- bad input


def test_nothing_to_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="'steps' must be at least 1, not 0, where there is no"):
        config(tmp_path, warm_start=0, steps=0)


def test_captions_need_text() -> None:
    bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu")
    with pytest.raises(BridgeError, match="needs captions; none of 2 has any text"):
        warm_start(bridge, ["", "  "])


def test_a_folder_without_its_own_encoder_is_told_what_can_be_done(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=2, device="cpu")
    with pytest.raises(BridgeError, match=r"no text encoder of its own.*match predictions"):
        warm_start(bridge, CAPTIONS)
    with pytest.raises(BridgeError, match=r"reads text of width 24; '.*' gives 64"):
        warm_start(bridge, CAPTIONS, teacher="zoo:tiny-sd/text_encoder")


def test_other_token_lengths_offer_predictions(tiny: Tiny, tmp_path: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    from lavi_bridge.testing import make_tokenizer

    short = {
        "vocab_size": 300,
        "hidden_size": 16,
        "intermediate_size": 16,
        "eos_token_id": 2,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "bos_token_id": 1,
        "pad_token_id": 0,
        "max_position_embeddings": 16,
    }
    CLIPTextModel(CLIPTextConfig(**short)).save_pretrained(tmp_path / "short")
    make_tokenizer(tmp_path / "short")
    bridge = Bridge.connect(tmp_path / "short", "zoo:tiny-sd", rank=2, device="cpu")
    with pytest.raises(
        BridgeError,
        match=r"reads 32 tokens of its own encoder, padding included, but '.*' gives 16; "
        "match predictions instead",
    ):
        warm_start(bridge, CAPTIONS)
    report = warm_start(bridge, CAPTIONS[:40], match="predictions", steps=2, batch_size=4)
    assert report.states == {}
    assert report.predictions["all"] > 0


def test_an_unknown_match_names_the_known() -> None:
    bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu")
    with pytest.raises(BridgeError, match="unknown match 'x'; known: states, predictions, both"):
        warm_start(bridge, CAPTIONS, match="x")  # type: ignore[arg-type]


def test_captions_are_sorted_by_what_they_speak_of() -> None:
    topics = by_topic(["A red circle left of a ring and a cross.", "two wooden chairs", "hello"])
    assert topics == {
        "all": [0, 1, 2],
        "colour": [0],
        "texture": [1],
        "position": [0],
        "number": [1],
        "three things": [0],
    }


def test_pictures_of_the_teacher_that_are_no_numbers_are_an_error_but_a_report_goes_on() -> None:
    bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu")
    torch.nn.init.constant_(bridge.vision.backbone.conv_out.bias, torch.nan)
    message = "the picture of '.*' is not a number; its bridge or models have damaged weights"
    with pytest.raises(NotANumber, match=message):
        warm_start(bridge, CAPTIONS, match="predictions", steps=1, batch_size=2)
    with pytest.warns(UserWarning, match=f"predictions are not in the report: {message}"):
        report = warm_start(bridge, CAPTIONS, match="states", steps=1, batch_size=2)
    assert report.states
    assert not report.predictions
