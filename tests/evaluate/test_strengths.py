"""Entries with strengths of their own, and the curve that the report draws of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge import lora
from lavi_bridge.bridge.drawing import read_record
from lavi_bridge.config import Sampling
from lavi_bridge.evaluate.entries import contestants_of
from lavi_bridge.evaluate.report.sweep import curve, sweeps
from lavi_bridge.evaluate.results import Entry
from lavi_bridge.evaluate.run import evaluate
from lavi_bridge.evaluate.statistics import Estimate
from tests.bridge.test_scales import trained
from tests.evaluate.test_evaluate import settings

WEAK = Sampling(steps=1, guidance=2.0, language_scale=0.5)


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bridge of two bundled models whose LoRA changes pictures."""
    folder = tmp_path_factory.mktemp("bridges") / "mine"
    made = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu")
    trained(made).save(folder)
    return folder


def test_entries_may_have_strengths_and_are_called_by_them(bridge: Path) -> None:
    weak, named, plain = contestants_of(
        [f"{bridge},language-scale=0.5,vision-scale=0", f"x={bridge},vision-scale=2", str(bridge)]
    )
    assert weak.name == "mine language-scale=0.5 vision-scale=0"
    assert weak.scales == {"language_scale": 0.5, "vision_scale": 0.0}
    assert (named.name, named.scales) == ("x", {"vision_scale": 2.0})
    assert (plain.name, plain.scales) == ("mine", {})
    assert {one.spec for one in (weak, named, plain)} == {str(bridge)}


def test_a_folder_may_be_called_as_if_it_had_a_strength(tmp_path: Path) -> None:
    folder = tmp_path / "a,vision-scale=0"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (entry,) = contestants_of([f"x={folder}"])
    assert (entry.name, entry.spec, entry.scales) == ("x", str(folder), {})


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("{},langage-scale=1", "unknown option 'langage-scale'; did you mean 'language-scale'?"),
        ("{},vision-scale=much", "vision-scale is a number, not 'much'"),
        ("{},vision-scale=nan", "'vision-scale' must be a finite number, not nan"),
        ("zoo:tiny-sd,vision-scale=0", "a strength is of a bridge; this is none"),
    ],
)
def test_bad_strengths_are_one_line(bridge: Path, entry: str, reason: str) -> None:
    with pytest.raises(BridgeError) as caught:
        contestants_of([entry.format(bridge)])
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_lora_is_named_before_anything_is_drawn(tmp_path: Path) -> None:
    made = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", language_rank=0, device="cpu")
    made.save(tmp_path / "half")
    with pytest.raises(BridgeError, match="'half' has no LoRA in its language model, and so no"):
        evaluate(settings(tmp_path / "out", tmp_path / "half", sampling=WEAK))
    assert not (tmp_path / "out").exists()


def pictures(folder: Path) -> list[bytes]:
    return [Image.open(path).tobytes() for path in sorted((folder / "shapes").rglob("*.png"))]


def test_a_sweep_is_drawn_judged_and_shown_as_a_curve(bridge: Path, tmp_path: Path) -> None:
    entries = [f"{bridge},language-scale={scale}" for scale in (0, 0.5, 1)]
    run = evaluate(settings(tmp_path, *entries, limit=6, sampling=Sampling(steps=1, guidance=2)))
    names = [entry.name for entry in run.entries]
    assert names == [f"mine language-scale={scale}" for scale in (0, 0.5, 1)]
    drawn = [pictures(tmp_path / name) for name in names]
    assert len(drawn[0]) == 6
    assert drawn[0] != drawn[1] != drawn[2]
    abouts = [json.loads((tmp_path / n / "shapes" / "settings.json").read_text()) for n in names]
    assert [about.get("language_scale") for about in abouts] == [0.0, 0.5, None]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h3>By strength" in page
    assert page.count("<polyline") == len(run.metrics)


def test_the_adapters_strength_is_drawn_and_shown_as_a_curve(tmp_path: Path) -> None:
    made = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", adapter="fusion", rank=0, device="cpu")
    torch.nn.init.normal_(made.adapter.get_submodule("add").weight, std=0.1)  # type: ignore[arg-type]
    made.save(tmp_path / "mine")
    entries = [f"{tmp_path / 'mine'},adapter-scale={scale}" for scale in (0, 0.5, 1)]
    run = evaluate(settings(tmp_path, *entries, limit=6, sampling=Sampling(steps=1, guidance=2)))
    names = [entry.name for entry in run.entries]
    assert names == [f"mine adapter-scale={scale}" for scale in (0, 0.5, 1)]
    assert [entry.about.get("adapter_scale") for entry in run.entries] == [0.0, 0.5, None]
    drawn = [pictures(tmp_path / name) for name in names]
    assert drawn[0] != drawn[1] != drawn[2]
    assert "adapter scale of bridge" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_adapter_that_adds_nothing_is_named_before_anything_is_drawn(
    bridge: Path, tmp_path: Path
) -> None:
    with pytest.raises(BridgeError, match="'feedforward' adapter of 'mine adapter-scale=0' adds"):
        evaluate(settings(tmp_path / "out", f"{bridge},adapter-scale=0"))
    assert not (tmp_path / "out").exists()


def test_strengths_of_all_are_those_of_bridges_without_their_own(
    bridge: Path, tmp_path: Path
) -> None:
    entries = ["zoo:tiny-sd", bridge, f"strong={bridge},language-scale=1"]
    run = evaluate(settings(tmp_path, *entries, limit=6, sampling=WEAK))
    assert [entry.about.get("language_scale") for entry in run.entries] == [None, 0.5, None]
    (one, *_) = sorted((tmp_path / "mine").rglob("*.png"))
    assert (read_record(one) or {})["language_scale"] == 0.5
    assert "By strength" not in (tmp_path / "report.html").read_text(encoding="utf-8")


# ---- other people's LoRA


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of the bundled image model."""
    made = trained(Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu"))
    file = tmp_path_factory.mktemp("lora") / "style.safetensors"
    save_file(lora.state(made.vision.backbone), file)
    return file


def test_entries_may_have_lora_of_others_and_are_called_by_it(bridge: Path, style: Path) -> None:
    weak, named, alone = contestants_of(
        [
            f"{bridge},lora={style}:0.5,vision-scale=0",
            f"x={bridge},lora={style},lora={style}:-1",
            f"zoo:tiny-sd,lora={style}",
        ]
    )
    (whole,) = contestants_of([f"{bridge},lora={style}"])
    assert (whole.spec, whole.loras) == (str(bridge), [str(style)])
    assert (weak.name, weak.loras) == ("mine vision-scale=0 lora=style 0.5", [f"{style}:0.5"])
    assert (named.name, named.loras) == ("x", [str(style), f"{style}:-1"])
    assert (alone.name, alone.spec) == ("tiny-sd lora=style 1", "zoo:tiny-sd")


def test_lora_of_others_changes_the_images_and_is_told(
    bridge: Path, style: Path, tmp_path: Path
) -> None:
    entries = [bridge, f"x={bridge},lora={style}:0.5", f"zoo:tiny-sd,lora={style}"]
    run = evaluate(settings(tmp_path, *entries, limit=6, sampling=Sampling(steps=1, guidance=2)))
    names = [entry.name for entry in run.entries]
    assert pictures(tmp_path / names[0]) != pictures(tmp_path / names[1])
    abouts = [json.loads((tmp_path / n / "shapes" / "settings.json").read_text()) for n in names]
    assert [[x["scale"] for x in about.get("lora", [])] for about in abouts] == [[], [0.5], [1.0]]
    assert abouts[1]["bridge"] == abouts[0]["bridge"]


def test_a_lora_that_is_nowhere_or_of_images_is_one_line_before_anything_is_drawn(
    bridge: Path, tmp_path: Path
) -> None:
    with pytest.raises(BridgeError, match=r"no file '.*none.safetensors'"):
        evaluate(settings(tmp_path / "out", f"{bridge},lora={tmp_path}/none.safetensors"))
    assert not (tmp_path / "out").exists()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(BridgeError, match="a LoRA is of what draws; these are images"):
        contestants_of([f"{tmp_path},lora=style.safetensors"])


# ---- the curve


def entry(name: str, bridge: str = "1f3a", **about: Any) -> Entry:
    return Entry(name, {"kind": "bridge", "bridge": bridge} | about)


def test_a_sweep_is_entries_of_one_bridge_that_differ_in_one_strength() -> None:
    entries = [
        entry("c"),
        entry("a", language_scale=0.0),
        entry("b", language_scale=0.5),
        entry("other", "77aa", language_scale=0.7),
        entry("both", language_scale=0.2, vision_scale=0.5),
        entry("all", language_scale=0.3, adapter_scale=0.5),
        Entry("folder", {"kind": "images"}),
        entry("styled", vision_scale=0.5, lora=[{"file": "s", "digest": "0a", "scale": 1.0}]),
        entry("weak", language_scale=0.9, lora=[{"file": "s", "digest": "0a", "scale": 1.0}]),
    ]
    (found,) = sweeps(entries)
    assert found.points == [(0.0, "a"), (0.5, "b"), (1.0, "c")]
    assert found.title == "language scale of bridge 1f3a"
    assert sweeps(entries[:2]) == []
    weak = [entry(f"w{x}", language_scale=x, adapter_scale=0.5) for x in (0.0, 0.5, 1.0)]
    assert sweeps(weak)[0].title == "language scale of bridge 1f3a, adapter scale 0.5"


def test_a_curve_has_a_point_with_its_interval_for_every_strength() -> None:
    (sweep,) = sweeps([entry(f"<{x}>", vision_scale=x) for x in (0.0, 0.5, 2.0)])
    found = {
        "<0.0>": Estimate(0.2, 0.1, 0.3, 9),
        "<0.5>": Estimate(0.6, 0.5, 0.7, 9),
        "<2.0>": Estimate(0.4, None, None, 1),
    }
    svg = str(curve("Exact", sweep, found))
    points = svg.partition('points="')[2].partition('"')[0].split()
    across, down = zip(*(map(float, point.split(",")) for point in points), strict=True)
    assert across[1] - across[0] == pytest.approx((across[2] - across[0]) / 4)
    assert down[1] < down[2] < down[0]
    assert "&lt;0.5&gt;: 0.6 (0.5 to 0.7)" in svg
    assert "&lt;2.0&gt;: 0.4<" in svg
    assert curve("Exact", sweep, {"<0.0>": found["<0.0>"]}) is None
