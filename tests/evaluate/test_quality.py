"""The measures of quality through a whole evaluation: tiny random models of the real classes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lavi_bridge import BridgeError
from lavi_bridge.evaluate.judging import GROUPS, chosen
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.evaluate.run import evaluate
from lavi_bridge.metrics import METRICS, distances
from lavi_bridge.metrics.distances import kernel_distance
from tests.metrics.test_clip import folder as clip
from tests.metrics.test_compbench import owl
from tests.metrics.test_dino import dino
from tests.metrics.test_preference import base, hps, wording

__all__ = [
    "base",
    "clip",
    "dino",
    "hps",
    "owl",
    "wording",
]  # fixtures: tiny models in their layouts

DISTANCES = ("fid", "kid", "fd-dinov2", "cmmd", "mind")


@pytest.fixture
def inception(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means of squares of pixels stand in for Inception, whose 2,048 features take minutes here."""
    for name in ("fid", "kid", "mind"):
        kind = METRICS[name]

        class Small(kind):  # type: ignore[misc, valid-type]
            def __init__(self, **options: Any) -> None:
                super().__init__(extractor=squares, **options)

        monkeypatch.setitem(METRICS._entries, name, Small)


def squares(pixels: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(pixels, 100).flatten(1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folders of five pictures: `real`, noise; `near`, more of it; `far`, plain red."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("real", "near", "far"):
        (root / name).mkdir()
        for number in range(5):
            noise = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            picture = Image.fromarray(noise) if name != "far" else Image.new("RGB", (48, 40), "red")
            picture.save(root / name / f"{number}.png")
    return root


def settings(images: Path, out: Path, **changes: Any) -> EvaluateConfig:
    suite = images / "suite.txt"
    suite.write_text("\n".join(f"a cat {n}" for n in range(5)))
    given: dict[str, Any] = {
        "entries": [str(images / "near"), str(images / "far")],
        "suites": [str(suite)],
        "reference": images / "real",
        "out": out,
        "device": "cpu",
    }
    return EvaluateConfig(**(given | changes))


@pytest.mark.usefixtures("inception")
def test_all_of_them_judge_and_are_reported(
    images: Path,
    clip: Path,
    dino: Path,
    hps: Path,
    base: Path,
    wording: Path,
    tmp_path: Path,
) -> None:
    scorers = [f"fd-dinov2={dino}", f"cmmd={clip}", f"pickscore={clip}", f"hpsv3={hps}"]
    scorers += [f"hpsv3.base={base}", f"hpsv3.template={wording}"]
    config = settings(images, tmp_path, metrics=[*DISTANCES, "pickscore", "hpsv3"], scorers=scorers)
    run = evaluate(config)
    (suite,) = run.suites
    near, far = (suite.judged[name] for name in ("near", "far"))
    for name in DISTANCES:
        assert near.distances[name] < far.distances[name]
        low, high = near.intervals[name]
        assert low <= near.distances[name] <= high
    for name in ("pickscore", "hpsv3"):
        scores = [score for (score,) in near.scores[name]]
        assert len({round(score, 3) for score in scores if score is not None}) > 1
    assert len(list((tmp_path / "reference").iterdir())) == 3  # FID, KID and MIND share one
    for title in ("FD-DINOv2", "CMMD", "MIND"):
        assert title in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert any("MIND from 5 images is unreliable" in note for note in suite.notes)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["suites"][0]["intervals"]["near"].keys() == set(DISTANCES)
    assert report["metrics"]["hpsv3"]["provenance"]["precision"] == "bfloat16"

    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    evaluate(config)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.usefixtures("inception")
def test_kids_subsets_are_drawn_once_an_entry(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[float, float]] = []

    def watched(features: torch.Tensor, reference: torch.Tensor) -> tuple[float, float]:
        found.append(kernel_distance(features, reference))
        return found[-1]

    monkeypatch.setattr(distances, "kernel_distance", watched)
    (suite,) = evaluate(settings(images, tmp_path, metrics=["kid"])).suites
    assert [suite.judged[name].distances["kid"] for name in ("near", "far")] == [
        value for value, _ in found
    ]


def test_a_metric_is_asked_beforehand_about_its_own_categories(
    images: Path, owl: Path, tmp_path: Path
) -> None:
    suite, objects = tmp_path / "suite.jsonl", tmp_path / "objects.txt"
    rows = [("two cats", "color"), ("ten cats", "numeracy")]
    suite.write_text("\n".join(json.dumps({"prompt": p, "category": c}) for p, c in rows))
    objects.write_text("cat - cats")
    config = settings(
        images,
        tmp_path / "out",
        suites=[str(suite)],
        metrics=["numeracy-owlv2"],
        scorers=[f"numeracy-owlv2={owl}", f"numeracy-owlv2.objects={objects}"],
    )
    with pytest.raises(BridgeError, match=r"none of 1 prompts counts .* 'ten cats'"):
        evaluate(config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("suite", "metrics"),
    [
        ("t2i-compbench", ["blip-vqa", "spatial-owlv2", "clip-nonspatial"]),
        ("t2i-compbench-3d", ["spatial-3d"]),
        ("t2i-compbench-numeracy", ["numeracy-owlv2"]),
        ("drawbench", ["clip-score"]),
    ],
)
def test_a_suite_has_its_own_metrics(
    suite: str, metrics: list[str], images: Path, tmp_path: Path
) -> None:
    assert chosen(suite, settings(images, tmp_path)) == metrics


def test_quality_names_them_together(images: Path, tmp_path: Path) -> None:
    config = settings(images, tmp_path, metrics=["clip-score", "quality", "fid"])
    assert chosen("suite.txt", config) == ["clip-score", *GROUPS["quality"]]


def test_what_is_missing_is_said_before_anything_is_drawn(images: Path, tmp_path: Path) -> None:
    for name, reason in {
        "fd-dinov2": "'facebook/dinov2-large' is no folder here",
        "cmmd": "'openai/clip-vit-large-patch14-336' is no folder here",
        "pickscore": "'yuvalkirstain/PickScore_v1' is no folder here",
        "hpsv3": "HPSv3",
    }.items():
        config = settings(images, tmp_path / "out", entries=["zoo:tiny-sd"], metrics=[name])
        with pytest.raises(BridgeError, match=reason):
            evaluate(config)
    alone = settings(images, tmp_path / "out", metrics=["cmmd"], reference=None)
    with pytest.raises(BridgeError, match="cmmd compares with real images: give --reference"):
        evaluate(alone)
    assert not (tmp_path / "out").exists()
    wrong = settings(images, tmp_path / "out", metrics=["cmmd"], scorers=["cmmd.head=x"])
    with pytest.raises(BridgeError, match=r"known: .*aesthetic-v2\.head.*hpsv3\.base, hpsv3\.temp"):
        evaluate(wrong)
