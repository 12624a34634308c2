"""Captioned images: what is read, and what is refused with file and line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge.drawing import draw, read_record
from lavi_bridge.config import Sampling
from lavi_bridge.data import TSV, BadImage, Folder, WebDataset, normalise, to_pixels
from lavi_bridge.plan.data_check import check
from tests.data.test_sources import shard


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


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_machine(tmp_path: Path, end: str) -> None:
    lines = ["a.png\tone", "b.png\ttwo", "", "c.png\tthree"]
    (tmp_path / "c.tsv").write_bytes(end.join([*lines, ""]).encode("utf-8-sig"))
    source = TSV(tmp_path / "c.tsv")
    assert [source.texts(i) for i in range(len(source))] == [["one"], ["two"], ["three"]]
    assert source.where(2).endswith("c.tsv:4")
    (tmp_path / "c.tsv").write_bytes(end.join(["a.png\tone", "no tab", "c.png\tthree"]).encode())
    with pytest.raises(BridgeError, match=r"c\.tsv:2: expected .* got 'no tab'"):
        TSV(tmp_path / "c.tsv")
    index = ['{"file_name": "a.png", "text": "one"}', '{"file_name": "b.png", "text": "two"}']
    (tmp_path / "metadata.jsonl").write_bytes(end.join(index).encode())
    assert Folder(tmp_path).captions(9) == ["one", "two"]
    (tmp_path / "metadata.jsonl").unlink()
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_bytes(end.join(["file_name,text", "a.png,one"]).encode())
    assert Folder(tmp_path).captions(9) == ["one"]


def test_lines_of_two_machines_in_one_file(tmp_path: Path) -> None:
    """A CR alone ends a line where another follows; inside a caption it is a space like others."""
    (tmp_path / "c.tsv").write_bytes(b"a.png\tone\rb.png\ttwo\nc.png\tthree\rfour\n")
    assert TSV(tmp_path / "c.tsv").captions(9) == ["one", "two", "three\rfour"]


def test_the_quotes_of_spreadsheets_are_taken_off(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text(
        'a.png\t"a ""red"" cat"\n"b, 2.png"\t"a cat"\nc.png\t"a cat, asleep"\n'
        'd.png\t"a cat\n\non a ""mat"""\n"e.png"\t"STOP"\nf.png\tplain\n'
    )
    source = TSV(tmp_path / "c.tsv")
    assert source.captions(9) == [
        'a "red" cat',
        "a cat",
        "a cat, asleep",
        'a cat on a "mat"',
        "STOP",
        "plain",
    ]
    assert [source.path(i).name for i in (1, 4)] == ["b, 2.png", "e.png"]
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text('file_name,text\na.png,"a ""red"" cat"\n')
    assert Folder(tmp_path).captions(1) == ['a "red" cat']


@pytest.mark.parametrize(
    "captions",
    [
        ['"STOP"'],
        ['"A cat, asleep."', "A dog, awake."],  # no spreadsheet quotes one of these alone
        ['"A cat, asleep."', 'a sign that says "stop"'],
        ['"Go" and "stop"', '"unclosed', 'inches: 5"', '""', "'a'"],
    ],
)
def test_the_quotes_of_captions_stay(tmp_path: Path, captions: list[str]) -> None:
    lines = "".join(f"{n}.png\t{caption}\n" for n, caption in enumerate(captions))
    (tmp_path / "c.tsv").write_text(lines)
    assert TSV(tmp_path / "c.tsv").captions(9) == captions


def test_an_unclosed_quote_swallows_no_line(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text('a.png\t"unclosed\nno tab\nb.png\tand "closed"\n')
    problems: list[str] = []
    assert TSV(tmp_path / "c.tsv", problems).captions(9) == ['"unclosed', 'and "closed"']
    assert problems == [f"{tmp_path / 'c.tsv'}:2: expected `image path<TAB>caption`, got 'no tab'"]


def test_paths_may_be_those_of_windows(tmp_path: Path) -> None:
    picture(tmp_path / "x" / "a.png")
    (tmp_path / "c.tsv").write_text("x\\a.png\tone\nx/a.png\ttwo\n.\\x\\b.png\tthree\n")
    source = TSV(tmp_path / "c.tsv")
    assert source.size(0) == source.size(1) == (20, 12)
    with pytest.raises(BadImage, match=r"c\.tsv:3: no image '.*x/b\.png'"):
        source.picture(2)
    line = '{"file_name": "x\\\\a.png", "text": "one"}\n'
    (tmp_path / "metadata.jsonl").write_text(line)
    indexed = Folder(tmp_path)
    assert indexed.picture(0).size == (20, 12)
    assert indexed.left_out() == []
    picture(tmp_path / "x\\a.png", size=(5, 5))  # where there is a file of that very name, it is it
    assert source.size(0) == indexed.size(0) == (5, 5)


def test_half_an_emoji_becomes_a_replacement_character(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    cut = '{"file_name": "a.png", "text": ["a cat \\ud83d", "\\ud83d\\ude3a", "grün \\udcff!"]}\n'
    (tmp_path / "metadata.jsonl").write_text(cut, encoding="utf-8")
    assert Folder(tmp_path).texts(0) == ["a cat \ufffd", "\U0001f63a", "grün \ufffd!"]
    content = (tmp_path / "a.png").read_bytes()
    members = {"a.png": content, "a.json": b'{"caption": "a cat \\ude3a"}'}
    assert WebDataset(shard(tmp_path / "0.tar", members)).texts(0) == ["a cat \ufffd"]


def test_prompts_and_names_that_are_no_utf_8_are_written_all_the_same(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu")
    (path,) = draw(bridge, ["a cat \ud83d"], tmp_path / "out", Sampling(steps=1))
    record = read_record(path)
    assert record is not None
    assert record["prompt"] == "a cat \ufffd"
    (tmp_path / "data").mkdir()
    name = "gr\udcfcn.png"  # as Latin-1 has it, which the file system keeps
    (tmp_path / "data" / name).write_bytes(b"")
    (tmp_path / "data" / "gr\udcfcn.txt").write_text("green")
    captioned = picture(tmp_path / "data" / "gr\udcfc.png").with_suffix(".txt")
    captioned.write_text("green")
    report = check(str(tmp_path / "data"), out=tmp_path / "report")
    assert "gr\ufffd.txt" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert any("gr\ufffdn.png' is empty" in error for error in report.errors)


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


def test_half_an_emoji_in_a_prompt_or_a_negative_one_draws(tiny: Callable[[str], Path]) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=2, device="cpu")
    halves = bridge.generate("a cat \ud83d", negative="\ude00", steps=1, seed=0)
    named = bridge.generate("a cat \ufffd", negative="\ufffd", steps=1, seed=0)
    assert halves[0].tobytes() == named[0].tobytes()
