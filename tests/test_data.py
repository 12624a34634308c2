"""Captioned images: what is read, and what is refused with file and line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lavi_bridge import BridgeError
from lavi_bridge.data import TSV, BadImage, Folder, normalise, to_pixels


def picture(path: Path, color: str = "red", size: tuple[int, int] = (20, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def test_the_published_caption_file_has_paths_relative_to_itself(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "captions.tsv").write_text("images/a.png\ta red wall\n\nimages/b.png\tünïcode\n")
    source = TSV(tmp_path / "captions.tsv")
    assert len(source) == 2
    assert source.picture(0).size == source.size(0) == (20, 12)
    assert source.texts(0) == ["a red wall"]
    assert source.captions(5) == ["a red wall", "ünïcode"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a.png\tfine\nb.png no tab\n", r"captions\.tsv:2: expected `image path<TAB>caption`"),
        (b"a.png\t\n", r"captions\.tsv:1: expected"),
        (b"\tcaption\n", r"captions\.tsv:1: expected"),
        (b"a.png\tfine\nb.png\t\xff\xfe\n", r"captions\.tsv:2: not UTF-8"),
        (b"\n\n", "holds no captions"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "captions.tsv").write_bytes(content)
    with pytest.raises(BridgeError, match=reason):
        TSV(tmp_path / "captions.tsv")


def test_a_missing_and_a_damaged_image_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(picture(tmp_path / "whole.png").read_bytes()[:45])
    (tmp_path / "captions.tsv").write_text("gone.png\ta\ntorn.png\tb\n")
    source = TSV(tmp_path / "captions.tsv")
    with pytest.raises(BadImage, match=r"captions\.tsv:1: no image '.*gone\.png'"):
        source.picture(0)
    with pytest.raises(BadImage, match=r"captions\.tsv:2: cannot read '.*torn\.png'"):
        source.picture(1)


def test_a_folder_is_captioned_by_text_files_or_by_an_index(tmp_path: Path) -> None:
    picture(tmp_path / "texts" / "deep" / "a.jpg")
    (tmp_path / "texts" / "deep" / "a.txt").write_text("from a text file\n")
    assert Folder(tmp_path / "texts").captions(1) == ["from a text file"]
    picture(tmp_path / "index" / "a.jpg")
    (tmp_path / "index" / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "x"}\n')
    assert Folder(tmp_path / "index").texts(0) == ["x"]


def test_a_folder_says_which_image_has_no_caption_and_which_line_is_bad(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "lonely.png")
    with pytest.raises(BridgeError, match=r"lonely\.png' has no caption file 'lonely\.txt'"):
        Folder(tmp_path / "a")
    (tmp_path / "a" / "metadata.jsonl").write_text('{"file_name": "lonely.png"}\n')
    with pytest.raises(BridgeError, match=r"metadata\.jsonl:1: expected"):
        Folder(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BridgeError, match="holds no images"):
        Folder(tmp_path / "empty")


def test_a_line_separator_inside_a_caption_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a\u2028b"}\n')
    assert Folder(tmp_path).captions(1) == ["a\u2028b"]


def test_captions_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(BridgeError, match=r"a\.txt: not UTF-8"):
        Folder(tmp_path)


def test_pixels_are_resized_cropped_in_the_middle_and_scaled(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (10, 0, 30, 20))  # the middle square
    pixels = to_pixels(image, 20)
    assert pixels.shape == (3, 20, 20)
    assert torch.equal(normalise(pixels), torch.ones(3, 20, 20))
    assert to_pixels(image, 10).shape == (3, 10, 10)
    assert normalise(to_pixels(Image.new("RGB", (3, 7)), 16)).min() == -1


def test_mirroring_swaps_left_and_right() -> None:
    array = np.zeros((8, 8, 3), np.uint8)
    array[:, :4] = 255
    image = Image.fromarray(array)
    assert torch.equal(to_pixels(image, 8, mirror=True), to_pixels(image, 8).flip(-1))
