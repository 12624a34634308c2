"""Which words moved a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.cli.draw import influence as command
from lavi_bridge.evaluate.influence import heat, influence, without

Tiny = Callable[[str], Path]
OPTIONS: dict[str, Any] = {"steps": 2, "guidance": 3.0}


def test_a_word_is_cut_out_or_replaced_with_its_blank() -> None:
    prompt = "a red-ish circle, please"
    assert without(prompt, (2, 9)) == "a circle, please"
    assert without(prompt, (2, 9), "thing") == "a thing circle, please"
    assert without(prompt, (18, 24)) == "a red-ish circle,"
    assert without("red circle", (0, 3)) == "circle"


def test_each_word_has_what_it_changes(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=2, device="cpu")
    drawn: list[None] = []
    image, words = influence(
        bridge, "a red circle", seed=3, on_picture=lambda: drawn.append(None), **OPTIONS
    )
    assert [(word.word, word.start) for word in words] == [("a", 0), ("red", 2), ("circle", 6)]
    assert len(drawn) == 7
    plain, cut = bridge.generate(["a red circle", "a circle"], seed=[3, 3], **OPTIONS)
    assert np.array_equal(np.asarray(image), np.asarray(plain))
    apart = np.abs(np.asarray(plain, float) - np.asarray(cut, float)).mean(-1) / 255
    assert np.allclose(words[1].left_out, apart, atol=1e-6)
    assert words[1].change > 0


def test_colour_words_move_more_than_articles_and_the_first_is_the_reddest() -> None:
    bridge = Bridge.own("zoo:tiny-sd", device="cpu")
    image, words = influence(
        bridge,
        "a red circle and a blue square",
        steps=20,
        guidance=4.0,
        scheduler="dpm++",
        batch_size=15,
    )
    a, red, _, _, an, blue, _ = (word.change for word in words)
    assert min(red, blue) > 2 * max(a, an)
    sheet = heat(image, words)
    strip = np.asarray(sheet, int)[sheet.width * image.height // image.width :]
    assert (strip == (255, 90, 70)).all(-1).any()


@pytest.mark.parametrize(
    ("prompt", "reason"), [("...", "without words"), ("a " * 201, "has 201 words; 200 at most")]
)
def test_a_prompt_with_no_words_or_too_many_is_refused(
    prompt: str, reason: str, tiny: Tiny
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=2, device="cpu")
    with pytest.raises(BridgeError, match=reason):
        influence(bridge, prompt, **OPTIONS)


def test_the_command_writes_picture_and_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "heat.png"
    command(["zoo:tiny-sd", "a red circle", "--out", str(out), "--steps", "2"])
    assert "left out" in capsys.readouterr().out
    with Image.open(out) as sheet:
        assert sheet.width == 256
