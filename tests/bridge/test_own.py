"""An image model with the text encoders it came with: as its own pipeline draws from a string."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from lavi_bridge import Bridge, warm_start
from lavi_bridge.errors import BridgeError
from lavi_bridge.testing import ENCODERS

Tiny = Callable[[str], Path]
PROMPT, GUIDANCE = "a red circle", 3.0
OPTIONS: dict[str, dict[str, Any]] = {
    "longcat": {"negative_prompt": "", "enable_prompt_rewrite": False},
    "wan": {"num_frames": 1, "output_type": "pil"},
    "flux-schnell": {"negative_prompt": ""},  # asks for no guidance where it is told none
    "qwen-image": {"negative_prompt": ""},
}
CLEANS = ("prx",)
"""Their pipelines clean prompts by a package (ftfy) that we do not need."""


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")  # inside diffusers
@pytest.mark.parametrize("vision", [name for name in ENCODERS if name not in CLEANS])
def test_the_baseline_is_the_stock_pipeline(vision: str, whole: Tiny) -> None:
    own = Bridge.own(whole(vision), device="cpu")
    height, width = own.vision.size
    ours = own.generate([PROMPT], seed=3, steps=3, guidance=GUIDANCE)[0]

    kind = getattr(diffusers, own.vision.pipeline_class)
    lacks = {"text_processor": None} if vision == "longcat" else {}  # it rewrites prompts
    pipe = kind.from_pretrained(str(whole(vision)), **lacks)
    pipe.scheduler = own.vision.process.scheduler(own.vision.default_scheduler)
    pipe.set_progress_bar_config(disable=True)
    options = OPTIONS.get(vision, {})
    if "use_resolution_binning" in inspect.signature(kind.__call__).parameters:
        options = options | {"use_resolution_binning": False}
    drawn = pipe(
        prompt=PROMPT,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(3),
        height=height,
        width=width,
        **own.vision.pipeline_guidance(GUIDANCE),
        **options,
    )
    theirs = drawn.frames[0][0] if vision == "wan" else drawn.images[0]
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1


def test_it_is_saved_and_loaded_as_any_bridge(whole: Tiny, tmp_path: Path) -> None:
    own = Bridge.own(whole("sdxl"), device="cpu")
    own.save(tmp_path / "own")
    again = Bridge.load(tmp_path / "own", device="cpu")
    assert again.id == own.id
    ours, theirs = again.encode(PROMPT), own.encode(PROMPT)
    assert torch.equal(ours.hidden, theirs.hidden)
    assert ours.pooled is not None
    assert theirs.pooled is not None
    assert torch.equal(ours.pooled, theirs.pooled)


def test_prompts_are_read_alike_alone_and_beside_the_empty_one(whole: Tiny) -> None:
    own = Bridge.own(whole("lumina2"), device="cpu")
    both, alone = own.encode(["", PROMPT]), own.encode(PROMPT)
    count = alone.hidden.shape[1]
    torch.testing.assert_close(both.hidden[1:, :count], alone.hidden)
    assert alone.mask is not None
    assert both.mask is not None
    assert int(both.mask[1].sum()) == int(alone.mask.sum())
    assert int(both.mask[0].sum()) < int(alone.mask.sum())  # without the system prompt


def test_what_its_pipeline_needs_is_named(whole: Tiny) -> None:
    with pytest.raises(BridgeError, match=r"needs the package 'ftfy': pip install ftfy"):
        Bridge.own(whole("prx"), device="cpu").encode(PROMPT)


def test_several_sequences_of_own_encoders_are_refused(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("hidream"), rank=4, device="cpu")
    with pytest.raises(BridgeError, match="no baseline and no start without images"):
        warm_start(bridge, CAPTIONS, steps=1)
    with pytest.raises(BridgeError, match="no baseline and no start without images"):
        Bridge.own(tiny("hidream"))


def test_a_folder_without_encoders_says_so(tiny: Tiny) -> None:
    with pytest.raises(BridgeError, match="has no text encoder of its own"):
        Bridge.own(tiny("sdxl"), device="cpu")


# ---- as the teacher of a warm start

CAPTIONS = [f"a {c} {s}" for c in ("red", "green", "blue", "grey") for s in ("box", "ring", "cone")]


def test_states_and_pooled_vectors_are_learned(whole: Tiny, tiny: Tiny) -> None:
    bridge = Bridge.connect(
        tiny("clip_text_model"), whole("sdxl"), rank=4, dropout=0.0, device="cpu"
    )
    before = bridge.encode(CAPTIONS)
    report = warm_start(bridge, CAPTIONS, steps=40, batch_size=8, lr=1e-2)
    after, taught = bridge.encode(CAPTIONS), Bridge.own(whole("sdxl")).encode(CAPTIONS)
    assert taught.pooled is not None
    assert report.states["all"] < 1
    assert error(after.pooled, taught.pooled) < 0.5 * error(before.pooled, taught.pooled)
    assert error(after.hidden, taught.hidden) < 0.5 * error(before.hidden, taught.hidden)


def error(given: torch.Tensor | None, wanted: torch.Tensor) -> float:
    assert given is not None
    return float((given.detach() - wanted).square().mean())


def test_predictions_are_matched_where_states_cannot_be(whole: Tiny, tiny: Tiny, few: None) -> None:
    bridge = Bridge.connect(tiny("t5"), whole("sd3"), rank=4, dropout=0.0, device="cpu")
    with pytest.raises(BridgeError, match=r"give no state for each token .* match predictions"):
        warm_start(bridge, CAPTIONS, steps=1)
    report = warm_start(bridge, CAPTIONS, match="predictions", steps=4, batch_size=4)
    assert report.predictions["all"] > 0


def test_another_pipeline_can_be_the_teacher(whole: Tiny, tiny: Tiny, few: None) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sdxl"), rank=4, dropout=0.0, device="cpu")
    with pytest.raises(BridgeError, match=r"no text encoder of its own"):
        warm_start(bridge, CAPTIONS, steps=1)
    report = warm_start(bridge, CAPTIONS, steps=2, batch_size=4, teacher=whole("sdxl"))
    assert report.states
