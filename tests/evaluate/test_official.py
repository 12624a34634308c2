"""Images in the layouts of official scorers, and their results read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lavi_bridge import BridgeError
from lavi_bridge.evaluate.official.layouts import (
    RESULTS,
    export_compbench,
    export_dpg,
    export_geneval,
    read_compbench,
)
from lavi_bridge.files.fetch import checksum
from lavi_bridge.prompts.prompt import Prompt

COLORS = ("red", "green", "blue", "white", "black", "yellow", "cyan", "magenta")
BENCH = Prompt("color-0", "a green bench and a blue bowl")
CAT = Prompt("color-1", "A cat's hat.")


def picture(folder: Path, color: str, size: tuple[int, int] = (8, 8), suffix: str = "png") -> Path:
    path = folder / f"{color}-{size[0]}x{size[1]}.{suffix}"
    Image.new("RGB", size, color).save(path)
    return path


@pytest.fixture
def drawn(tmp_path: Path) -> list[tuple[Prompt, Path]]:
    """Two prompts with four images each."""
    owners = [prompt for prompt in (BENCH, CAT) for _ in range(4)]
    return [(p, picture(tmp_path, c)) for p, c in zip(owners, COLORS, strict=True)]


# ---- T2I-CompBench


def test_images_are_named_by_prompt_and_number(
    tmp_path: Path, drawn: list[tuple[Prompt, Path]]
) -> None:
    drawn[1] = (BENCH, picture(tmp_path, "gray", suffix="jpg"))
    assert export_compbench(tmp_path / "out", drawn) == 8
    names = sorted(path.name for path in (tmp_path / "out" / "samples").iterdir())
    assert names[0] == "A cat's hat._000004.png"
    assert names[-1] == "a green bench and a blue bowl_000003.png"
    # the official code takes the prompt and the number from the name in these two ways
    assert {name.split("_")[0] for name in names} == {BENCH.text, CAT.text}
    assert sorted(int(name.split("_")[-1].split(".")[0]) for name in names) == list(range(8))
    copied = tmp_path / "out" / "samples" / f"{BENCH.text}_000000.png"
    assert copied.read_bytes() == drawn[0][1].read_bytes()
    with Image.open(tmp_path / "out" / "samples" / f"{BENCH.text}_000001.png") as converted:
        assert converted.format == "PNG"
    rows = [json.loads(x) for x in (tmp_path / "out" / "images.jsonl").read_text().splitlines()]
    digest = checksum(drawn[4][1])[:16]
    assert rows[4] == {
        "question_id": 4,
        "prompt": "color-1",
        "image": "A cat's hat._000004.png",
        "sha256": digest,
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cats and/or dogs", r"'1' cannot be exported: .* no(ne|t) .*with '/' in it"),
        ("snake_case", "with '_' in it"),
        ("two\nlines", r"with '\\n' in it"),
        ("a" * 2000, "of 2000 bytes"),
        ("ä" * 125, "of 250 bytes"),  # 11 more for _000000.png
        (" ", "that is empty"),
    ],
)
def test_a_prompt_that_no_file_name_holds_is_one_line(
    tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(BridgeError, match=reason):
        export_compbench(tmp_path / "out", [(Prompt("1", text), picture(tmp_path, "red"))])
    assert not (tmp_path / "out").exists()
    fits = Prompt("1", "ä" * 122)  # 244 + 11 = 255 bytes
    assert export_compbench(tmp_path / "out", [(fits, picture(tmp_path, "red"))]) == 1


def test_a_folder_in_use_and_a_damaged_image_are_named(tmp_path: Path) -> None:
    image = picture(tmp_path, "red")
    with pytest.raises(BridgeError, match="is in use; export into a new folder"):
        export_compbench(tmp_path, [(BENCH, image)])
    with pytest.raises(BridgeError, match=r"no image '.*none\.png'"):
        export_compbench(tmp_path / "out", [(BENCH, tmp_path / "none.png")])
    image.write_bytes(image.read_bytes()[:50])
    with pytest.raises(BridgeError, match=r"cannot read image '.*red-8x8\.png'"):
        export_compbench(tmp_path / "out", [(BENCH, image)])
    assert not (tmp_path / "out").exists()


def score(folder: Path, part: str, answers: list[Any], average: str = "") -> Path:
    """Write a result as an official scorer does."""
    path = folder / RESULTS[part].scores
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"question_id": i, "answer": answer} for i, answer in enumerate(answers)]
    path.write_text(json.dumps(entries))
    if average:
        (folder / RESULTS[part].average).write_text(average)
    return path


@pytest.mark.parametrize(
    ("part", "file", "answers", "average"),
    [
        (
            "blip",
            "annotation_blip/vqa_result.json",
            ["0.6900", "0.7110", "0.0000", "1.0000"] * 2,
            "BLIP-VQA score:0.60025",
        ),
        (
            "spatial",
            "labels/annotation_obj_detection_2d/vqa_result.json",
            [0, 0.9, 0.75, 0.5] * 2,
            "score avg:0.5375",
        ),
        (
            "3d_spatial",
            "labels/annotation_obj_detection_3d/vqa_result.json",
            [0.25, 0, 0, 0.75] * 2,
            "avg score is 0.25",
        ),
        (
            "numeracy",
            "annotation_num/vqa_result.json",
            [0.5, 1.0, 0, 0.5] * 2,
            "total:4.0 num:8 avg:0.5",
        ),
        ("clip", "annotation_clip/vqa_result.json", [0.3, 0.31, 0.29, 0.3] * 2, "score avg:0.3"),
        (
            "3_in_1",
            "annotation_3_in_1/vqa_result.json",
            [1e-05, 0.0, 0.0, 0.0] * 2,
            "score avg:2.5e-06",
        ),
    ],
)
def test_official_results_are_read_by_prompt(
    tmp_path: Path,
    drawn: list[tuple[Prompt, Path]],
    part: str,
    file: str,
    answers: list[Any],
    average: str,
) -> None:
    export_compbench(tmp_path / "out", drawn)
    assert score(tmp_path / "out", part, answers, average) == tmp_path / "out" / file
    numbers = [float(answer) for answer in answers]
    assert read_compbench(tmp_path / "out", part) == {
        "color-0": numbers[:4],
        "color-1": numbers[4:],
    }


def spoiled(change: Callable[[list[Any]], Any]) -> Callable[[Path], object]:
    def apply(path: Path) -> object:
        entries = json.loads(path.read_text())
        changed = change(entries)
        return path.write_text(json.dumps(entries if changed is None else changed))

    return apply


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "no file .*vqa_result.json': run the official scorer"),
        (lambda path: path.write_text("[{"), "vqa_result.json is not valid JSON"),
        (lambda path: path.write_bytes(b"\xff"), "vqa_result.json is not UTF-8"),
        (spoiled(lambda entries: {"answer": 1}), "is no list of scores"),
        (spoiled(lambda entries: []), "is no list of scores"),
        (
            spoiled(lambda entries: entries[3].pop("answer") and None),
            "entry 3 lacks 'question_id' or 'answer'",
        ),
        (spoiled(lambda entries: entries[3].update(answer="yes")), "entry 3 is not of numbers"),
        (spoiled(lambda entries: entries[3].update(answer="nan")), "image 3 has the score nan"),
        (spoiled(lambda entries: entries[3].update(question_id=2)), "image 2 is scored twice"),
        (
            spoiled(lambda entries: entries[:7]),
            "has 7 scores for 8 images; the first difference is at 7",
        ),
        (
            spoiled(lambda entries: entries[3].update(answer=0.9)),
            "blip_vqa_score.txt says 0.5, its scores have the mean 0.55",
        ),
        (lambda path: path.with_name("blip_vqa_score.txt").write_text("?"), "holds no number"),
        (
            lambda path: (path.parents[1] / "images.jsonl").write_text('{"prompt": "a"}\n'),
            "images.jsonl:1: lacks 'question_id'",
        ),
    ],
)
def test_a_damaged_result_is_one_line(
    tmp_path: Path, drawn: list[tuple[Prompt, Path]], damage: Callable[[Path], object], reason: str
) -> None:
    export_compbench(tmp_path / "out", drawn)
    path = score(tmp_path / "out", "blip", ["0.5000"] * 8, "BLIP-VQA score:0.5")
    assert len(read_compbench(tmp_path / "out", "blip")) == 2
    damage(path)
    with pytest.raises(BridgeError, match=reason):
        read_compbench(tmp_path / "out", "blip")


def test_an_unknown_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="unknown result 'unidet'; known: blip, spatial"):
        read_compbench(tmp_path, "unidet")


# ---- GenEval


def test_geneval_has_a_folder_a_prompt_with_its_own_line(
    tmp_path: Path, drawn: list[tuple[Prompt, Path]]
) -> None:
    facts = {"tag": "single_object", "include": [{"class": "bench", "count": 1}]}
    bench = Prompt("0", "a photo of a bench", facts=facts)
    cow = Prompt("1", "a photo of a cow", facts=facts)
    owners = [bench, cow] * 4  # in any order
    pairs = [(prompt, path) for prompt, (_, path) in zip(owners, drawn, strict=True)]
    assert export_geneval(tmp_path / "out", pairs) == 8
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert found == [
        f"0000{i}/{name}"
        for i in (0, 1)
        for name in (
            "metadata.jsonl",
            "samples/0000.png",
            "samples/0001.png",
            "samples/0002.png",
            "samples/0003.png",
        )
    ]
    line = (tmp_path / "out" / "00000" / "metadata.jsonl").read_text()
    assert line == json.dumps(facts | {"prompt": "a photo of a bench"})
    second = tmp_path / "out" / "00001" / "samples" / "0000.png"
    assert second.read_bytes() == drawn[1][1].read_bytes()
    with pytest.raises(BridgeError, match="prompt 'color-0' is none of GenEval's"):
        export_geneval(tmp_path / "other", drawn)


# ---- DPG-Bench


def test_dpg_cuts_four_images_out_of_a_square(
    tmp_path: Path, drawn: list[tuple[Prompt, Path]]
) -> None:
    assert export_dpg(tmp_path / "out", drawn) == 8
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "color-0.png",
        "color-1.png",
    ]
    with Image.open(tmp_path / "out" / "color-1.png") as square:
        assert square.size == (16, 16)
        # the crops of compute_dpg_bench.py, in its order
        crops = [(0, 0, 8, 8), (8, 0, 16, 8), (0, 8, 8, 16), (8, 8, 16, 16)]
        for crop, color in zip(crops, COLORS[4:], strict=True):
            expected = np.asarray(Image.new("RGB", (8, 8), color))
            assert (np.asarray(square.crop(crop)) == expected).all()


def test_dpg_wants_four_images_of_one_square_size(
    tmp_path: Path, drawn: list[tuple[Prompt, Path]]
) -> None:
    with pytest.raises(BridgeError, match="'color-1' has 3 images; DPG-Bench wants 4"):
        export_dpg(tmp_path / "out", drawn[:7])
    drawn[5] = (CAT, picture(tmp_path, "red", (8, 9)))
    with pytest.raises(BridgeError, match=r"has 8x9 pixels; .* here 8x8"):
        export_dpg(tmp_path / "out", drawn)
    assert not (tmp_path / "out").exists()
