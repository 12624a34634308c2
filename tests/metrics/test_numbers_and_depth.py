"""T2I-CompBench++'s numeracy and 3-D spatial score: worked examples, quirks, tiny real models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lavi_bridge import BridgeError
from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.compbench import depth, numeracy
from lavi_bridge.metrics.compbench.boxes import Box, iou
from lavi_bridge.metrics.compbench.depth import Spatial3D, depth_position, depth_score
from lavi_bridge.metrics.compbench.numeracy import (
    FILE,
    URL,
    NumeracyOWLv2,
    counted,
    numeracy_score,
    read_objects,
    same_object,
)
from lavi_bridge.metrics.compbench.quirks import Mode
from lavi_bridge.metrics.compbench.relations import Wanted
from tests.metrics.test_compbench import doc, images, owl, prompts, words

__all__ = ["owl"]  # a fixture: a tiny OWLv2

OBJECTS = {
    "cats": "cat",
    "dogs": "dog",
    "girls": "girl",
    "boys": "boy",
    "alarm clocks": "alarm clock",
    "clocks": "clock",
    "sheep": "sheep",
}


def box(label: str, left: float, top: float, right: float, bottom: float) -> Box:
    return Box(label, 0.8, left, top, right, bottom)


# ---- numeracy

CAT, DOG = box("cat", 0, 0, 10, 10), box("dog", 50, 0, 60, 10)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("three cats", [("cat", 3)]),
        ("a dog and two alarm clocks", [("dog", 1), ("alarm clock", 2)]),
        ("seven sheep, one clock", [("sheep", 7), ("clock", 1)]),
        ("two unicorns and the cats", []),
    ],
)
def test_numbers_before_known_objects_are_read(text: str, found: list[tuple[str, int]]) -> None:
    assert counted(text, OBJECTS) == counted(text, OBJECTS, mode="fixed") == found


@pytest.mark.parametrize(
    ("boxes", "score"),
    [
        ([CAT, replace(CAT, left=20, right=30), DOG], 1.0),
        ([CAT, DOG], 0.75),  # cats are there, and not two
        ([CAT, replace(CAT, left=20, right=30)], 0.5),
        ([DOG] * 2, 0.25),
        ([], 0.0),
    ],
)
def test_an_object_has_half_for_being_there_and_half_for_its_number(
    boxes: list[Box], score: float
) -> None:
    assert numeracy_score(boxes, [("cat", 2), ("dog", 1)]) == score


def test_detections_inside_each_other_are_one_object_officially() -> None:
    small = replace(CAT, left=2, top=2, right=5, bottom=5)
    assert same_object(CAT, small)
    assert same_object(small, CAT)
    assert not same_object(CAT, replace(CAT, left=5, right=15))


def test_the_quirks_of_numeracy() -> None:
    labels = counted("three girls and two boys", OBJECTS)
    assert labels == [("person", 3), ("person", 2)]
    five = [box("person", 20 * n, 0, 20 * n + 10, 10) for n in range(5)]
    assert numeracy_score(five, labels) == 0.5  # never both
    meant = counted("three girls and two boys", OBJECTS, mode="fixed")
    assert meant == [("girl", 3), ("boy", 2)]
    assert counted("Three cats", OBJECTS) == []
    assert counted("Three cats", OBJECTS, mode="fixed") == [("cat", 3)]
    assert len(numeracy.QUIRKS) == 3  # these two, and one inside the other


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    path = tmp_path / FILE
    path.write_text("Cat - Cats\ndog - dogs\n\n")
    return path


@pytest.mark.parametrize("mode", ["faithful", "fixed"])
def test_numeracy_counts_what_owlv2_finds(mode: Mode, owl: Path, objects: Path) -> None:
    metric = METRICS["numeracy-owlv2"](  # type: ignore[call-arg]
        scorer=str(owl), objects=objects, device="cpu", mode=mode, threshold=0.0
    )
    assert isinstance(metric, NumeracyOWLv2)
    picture = images()[2]
    (boxes,) = metric.detect([picture], [("cat", "dog", "cow")])  # any number of names
    assert {found.label for found in boxes} <= {"cat", "dog", "cow"}
    scores = metric([picture, picture], prompts("two cats and a dog", "five dogs"))
    for score, wanted in zip(scores, [[("cat", 2), ("dog", 1)], [("dog", 5)]], strict=True):
        (boxes,) = metric.detect([picture], [tuple(name for name, _ in wanted)])
        kept: list[Box] = []
        for one in boxes:
            twin = any(o.label == one.label and same_object(one, o) for o in kept)
            if mode == "fixed" or not twin:
                kept.append(one)
        expected = sum(
            0.5 * any(b.label == name for b in kept)
            + 0.5 * (len([b for b in kept if b.label == name]) == number)
            for name, number in wanted
        )
        assert score == pytest.approx(expected / len(wanted))
    with pytest.raises(BridgeError, match="prompt '0' counts none of the official objects"):
        metric([picture], prompts("a picture of peace"))
    assert metric.provenance()["parser"].startswith(f"{FILE} ")


def test_prompts_that_count_nothing_are_told_beforehand(owl: Path, objects: Path) -> None:
    metric = NumeracyOWLv2(scorer=str(owl), objects=objects, device="cpu")
    some = prompts("two cats", "ten dogs", "two big dogs")
    metric.check(some)
    assert metric.note(some) == (
        "2 of 3 prompts count none of the official objects and have no numeracy, such as "
        "prompt '1': 'ten dogs'"
    )
    assert metric.note(some[:1]) is None
    with pytest.raises(BridgeError, match=r"none of 2 prompts counts .* prompt '1': 'ten dogs'"):
        metric.check(some[1:])


def test_the_official_objects_are_fetched_or_said_to_be_missing(
    owl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAVI_BRIDGE_CACHE", str(tmp_path))
    with pytest.raises(BridgeError, match=f"download {URL} and put it at"):
        NumeracyOWLv2(scorer=str(owl), device="cpu")
    (tmp_path / "list.txt").write_text("cup, cups")
    with pytest.raises(BridgeError, match=r"list\.txt is no list of objects"):
        read_objects(tmp_path / "list.txt")


# ---- 3-D spatial

NEAR = torch.zeros(100, 200)  # height, width
NEAR[:, 100:] = 1.0  # the right half is nearer
LEFT, RIGHT = box("cat", 50, 20, 110, 80), box("dog", 90, 20, 150, 80)


def test_depth_and_what_boxes_share_make_the_position() -> None:
    share = iou(LEFT, RIGHT)
    assert share == pytest.approx(20 / 100)
    score = depth_score(LEFT, RIGHT, "behind", NEAR, mode="fixed")
    assert score == pytest.approx(0.25 * 0.8 * 2 + 0.5 * share / 0.5)
    assert depth_position(LEFT, RIGHT, "hidden", NEAR, mode="fixed") == pytest.approx(share / 0.5)
    assert depth_position(LEFT, RIGHT, "in front of", NEAR, mode="fixed") == 0
    assert depth_position(RIGHT, LEFT, "in front of", NEAR, mode="fixed") > 0
    apart = replace(RIGHT, left=120)
    assert depth_position(LEFT, apart, "behind", NEAR, mode="fixed") == 0  # they do not touch
    close = replace(LEFT, left=70, right=130)
    assert iou(close, RIGHT) > 0.5 - 1e-9
    assert depth_position(close, RIGHT, "behind", NEAR, mode="fixed") == pytest.approx(1)
    assert depth_position(LEFT, RIGHT, "above", NEAR, mode="fixed") == 0
    assert depth_score(LEFT, None, "behind", NEAR) == pytest.approx(0.2)  # also under one half
    assert depth_score(None, None, "behind", NEAR) == 0


def test_the_quirks_of_depth() -> None:
    assert depth_position(LEFT, RIGHT, "behind", NEAR) == 0  # rows 50 to 110 and 90 to 150: none
    assert depth_position(LEFT, RIGHT, "behind", NEAR, mode="fixed") == pytest.approx(0.4)
    assert depth_position(LEFT, RIGHT, "behind", NEAR.T) == pytest.approx(0.4)  # as it is read
    half = box("dog", 50, 20, 110, 50), box("cat", 50, 20, 110, 80)
    map_ = torch.arange(200.0).repeat(200, 1).T  # nearer below
    assert iou(*half) == 0.5
    assert depth_position(*half, "behind", map_) == 0
    assert depth_position(*half, "behind", map_, mode="fixed") == 1
    assert len(depth.QUIRKS) == 2


@pytest.mark.parametrize(
    ("tagged", "official", "meant"),
    [
        (
            "a/DET/1/det dog/NOUN/1/ROOT in/ADP/1/prep front/NOUN/2/pobj of/ADP/3/prep"
            " a/DET/6/det desk/NOUN/4/pobj",
            "dog|in front of|desk",
            "dog|in front of|desk",
        ),
        (
            "a/DET/1/det girl/NOUN/1/ROOT behind/ADP/1/prep a/DET/4/det cow/NOUN/2/pobj",
            "person|behind|cow",
            "girl|behind|cow",
        ),
        (
            "a/DET/1/det vase/NOUN/1/ROOT hidden/VERB/1/acl by/ADP/2/agent a/DET/5/det"
            " candle/NOUN/3/pobj",
            "vase|hidden|candle",
            "vase|hidden|candle",
        ),
        (
            "a/DET/1/det dog/NOUN/1/ROOT hidden/VERB/1/acl behind/ADP/2/prep a/DET/5/det"
            " tree/NOUN/3/pobj",
            "dog|behind|tree",
            "dog|hidden|tree",
        ),
        (
            "a/DET/1/det cat/NOUN/1/ROOT near/ADP/1/prep a/DET/4/det box/NOUN/2/pobj",
            "cat|None|box",
            "None|None|None",
        ),
    ],
)
def test_relations_in_depth_are_read(tagged: str, official: str, meant: str) -> None:
    assert words(depth.depth_relation_in(doc(tagged))) == official
    assert words(depth.depth_relation_in(doc(tagged), mode="fixed")) == meant


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Depth Anything of the real class, with its image processor."""
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessorPil,
    )

    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        out_features=stages,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("depth")
    model = DepthAnythingForDepthEstimation(config)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    model.save_pretrained(path)
    DPTImageProcessorPil(
        size={"height": 56, "width": 56}, ensure_multiple_of=14, keep_aspect_ratio=True
    ).save_pretrained(path)
    return path


def test_the_3d_score_follows_boxes_and_depth(owl: Path, eyes: Path) -> None:
    from transformers import DepthAnythingForDepthEstimation, DPTImageProcessorPil

    wanted = Wanted("cat", "behind", "dog")
    metric = METRICS["spatial-3d"](  # type: ignore[call-arg]
        scorer=str(owl),
        depth=str(eyes),
        device="cpu",
        threshold=0.0,
        mode="fixed",
        read=lambda prompt: wanted if prompt.text else Wanted(None, None, None),
    )
    assert isinstance(metric, Spatial3D)
    picture = images()[1]
    found = metric.depths(picture)
    assert found.shape == (picture.height, picture.width)
    assert 0 <= found.min() < 0.5 < found.max() <= 1
    processor = DPTImageProcessorPil.from_pretrained(eyes)
    model = DepthAnythingForDepthEstimation.from_pretrained(eyes).eval()
    with torch.no_grad():
        raw = model(**processor(picture, return_tensors="pt")).predicted_depth[0]
    corner = ((raw[0, 0] - raw.min()) / (raw.max() - raw.min())).item()
    assert found[0, 0].item() == pytest.approx(corner, abs=1e-5)  # corners stay corners

    (boxes,) = metric.detect([picture], [("cat", "dog")])
    first, second = (next((b for b in boxes if b.label == name), None) for name in ("cat", "dog"))
    expected = depth_score(first, second, "behind", found, mode="fixed")
    assert metric([picture, picture], prompts("x", "")) == [expected, 0.0]
    assert metric.provenance()["depth"] == str(eyes)


def test_depth_models_that_do_not_do_are_one_line(owl: Path, eyes: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"scorer": str(owl), "device": "cpu", "read": lambda _: None}
    with pytest.raises(BridgeError, match="depth-anything/Depth-Anything-V2-Small-hf"):
        Spatial3D(**given)
    with pytest.raises(BridgeError, match=r"is no Depth Anything .* but 'owlv2' \(relative\)"):
        Spatial3D(**given | {"depth": str(owl)})
    (tmp_path / "config.json").write_text(
        '{"model_type": "depth_anything", "depth_estimation_type": "metric"}'
    )
    with pytest.raises(BridgeError, match=r"but 'depth_anything' \(metric\)"):
        Spatial3D(**given | {"depth": str(tmp_path)})
