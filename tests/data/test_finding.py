"""Which files belong to a data set: linked, dotted, hidden, indexed; the rest is counted and named,
and a data set that was read before is the same data set still."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lavi_bridge import BridgeError
from lavi_bridge.data import TSV, BadImage, Folder, HuggingFace, WebDataset
from lavi_bridge.data.sources.finding import left_out
from lavi_bridge.data.sources.opening import open_source
from lavi_bridge.evaluate.judging import reference_images
from lavi_bridge.plan.data_check import check
from lavi_bridge.train.caching import fill
from lavi_bridge.train.options import CacheConfig, TrainConfig
from lavi_bridge.train.run import Run
from tests.data.test_sources import png, shard


def captioned(path: Path, caption: str | None = None, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), "red").save(path, kind)
    path.with_suffix(".txt").write_text(caption or path.name)
    return path


def read(source: Folder | WebDataset | TSV | HuggingFace) -> list[str]:
    assert all(source.picture(i).mode == "RGB" for i in range(len(source)))
    return [source.texts(i)[0] for i in range(len(source))]


def saved(place: Path, captions: list[str | None]) -> Path:
    """A folder with one .parquet file."""
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": png(), "path": None}] * len(captions), "text": captions}
    data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    place.mkdir(parents=True, exist_ok=True)
    data.to_parquet(place / "0.parquet")
    return place


# ---- the same data set as before


def test_data_sets_of_every_kind_are_the_ones_that_they_were(tmp_path: Path) -> None:
    """The identities are what commit 23aaa31 gave: runs and caches remember them."""
    for name in (
        "texts/b.png",
        "texts/deep/A.jpg",
        "texts/deep/c.webp",
        "index/a.png",
        "index/b.png",
        "tsv/x/a.png",
        "tsv/b.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    texts = {"b": "a red wall", "deep/A": "grün", "deep/c": 'a sign that says "stop"'}
    for name, text in texts.items():
        (tmp_path / "texts" / f"{name}.txt").write_text(f"{text}\n", encoding="utf-8")
    (tmp_path / "index" / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "one"}\n\n'
        '{"file_name": "b.png", "captions": ["two", " three "]}\n'
    )
    (tmp_path / "tsv" / "c.tsv").write_text(
        'x/a.png\t"STOP"\nx/a.png\ta "red" sign, here\nb.png\t"A cat, sitting."\n'
    )
    shard(
        tmp_path / "shards" / "00000.tar",
        {
            "000.jpg": png(),
            "000.txt": b"a red wall\n",
            "000.json": b'{"caption": "from json"}',
            "001.png": png(),
            "001.json": b'{"caption": "a blue wall"}',
            "001.mask.png": png(),
            "001.cls": b"3",
        },
    )
    shard(tmp_path / "shards" / "00001.tar", {"a/000.webp": png(), "a/000.txt": "grün".encode()})
    identities = {
        "texts": "0e97637585dde1ce",
        "index": "eb9212e0f8f14f64",
        "tsv/c.tsv": "f83428476bbab031",
        "shards": "91e9278e1e4589ab",
    }
    for name, identity in identities.items():
        assert open_source(str(tmp_path / name)).identity() == identity
    mix = f"0.5*{tmp_path / 'texts'} + 0.5*{tmp_path / 'tsv' / 'c.tsv'}"
    assert open_source(mix).identity() == "128c505bfad4ab12"
    assert open_source(str(saved(tmp_path / "parquet", ["one", "two"]))).identity() == (
        "4e06d6ff0d82d6fd"
    )


# ---- linked folders


def test_linked_folders_are_walked_once(tmp_path: Path) -> None:
    captioned(tmp_path / "data" / "b" / "a.png")
    captioned(tmp_path / "else" / "b.png")
    (tmp_path / "data" / "a").symlink_to(tmp_path / "data" / "b")  # the folder itself comes first
    (tmp_path / "data" / "b" / "up").symlink_to(tmp_path / "data")  # a loop
    (tmp_path / "data" / "c").symlink_to(tmp_path / "else")
    (tmp_path / "data" / "d").symlink_to(tmp_path / "else")
    source = Folder(tmp_path / "data")
    assert read(source) == ["a.png", "b.png"]
    assert source.where(0) == str(tmp_path / "data" / "b" / "a.txt")
    assert source.left_out() == []


def test_a_link_to_a_folder_may_be_all_there_is(tmp_path: Path) -> None:
    captioned(tmp_path / "else" / "a.png")
    captioned(tmp_path / "else" / "b.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "more").symlink_to(tmp_path / "else")
    assert read(Folder(tmp_path / "images")) == ["a.png", "b.png"]
    assert len(reference_images(tmp_path / "images")) == 2
    saved(tmp_path / "tables", ["one"])
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "data").symlink_to(tmp_path / "tables")
    opened = open_source(str(tmp_path / "hub"))
    assert isinstance(opened, HuggingFace)
    assert read(opened) == ["one"]


# ---- names in shards


def test_names_in_shards_may_have_dots(tmp_path: Path) -> None:
    source = WebDataset(
        shard(
            tmp_path / "0.tar",
            {
                "22.05.png": png(),
                "22.05.txt": b"one",
                "photo.v1.jpg": png(),
                "photo.v1.json": b'{"caption": "two"}',
                "photo.v2.PNG": png(),
                "photo.v2.txt": b"three",
                "./v1.0/a.webp": png(),
                "./v1.0/a.txt": b"four",
            },
        )
    )
    assert read(source) == ["one", "two", "three", "four"]
    assert left_out(source) == []


def test_a_mask_beside_a_picture_is_no_sample_and_is_counted(tmp_path: Path) -> None:
    source = WebDataset(
        shard(
            tmp_path / "0.tar",
            {
                "a.jpg": png(),
                "a.mask.png": png(),
                "a.mask.json": b"[7]",
                "a.txt": b"one",
                "b.png": png(),
                "b.gif": png(),
                "b.txt": b"two",
                "c.heif": b"",
                "c.txt": b"three",
                "d.npy": b"",
            },
        )
    )
    assert read(source) == ["one", "two"]
    assert left_out(source) == [
        "further pictures of samples: 1 ('0.tar:b.gif')",
        "pictures without a caption of their own: 1 ('0.tar:a.mask.png')",
        "captions without a picture that can be read: 1 ('0.tar:c.txt')",
    ]


def test_a_shard_of_which_nothing_is_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"no captioned images; left out are .*'0\.tar:a\.x\.pn"):
        WebDataset(shard(tmp_path / "0.tar", {"a.x.png": png(), "a.txt": b"one"}))


# ---- suffixes


def test_pictures_of_every_format_of_pillow_are_read_where_they_have_captions(
    tmp_path: Path,
) -> None:
    kinds = {"png": "PNG", "jfif": "JPEG", "jpe": "JPEG", "gif": "GIF", "avif": "AVIF"}
    for number, (suffix, kind) in enumerate(kinds.items()):
        captioned(tmp_path / f"{number}.{suffix}", suffix, kind)
    assert read(Folder(tmp_path)) == list(kinds)
    members = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    assert read(WebDataset(shard(tmp_path / "0.tar", members))) == list(kinds)


def test_what_a_picture_was_made_from_is_no_sample_and_is_counted(tmp_path: Path) -> None:
    captioned(tmp_path / "a.png")
    for name in ("a.psd", "favicon.ico", "b.heif", "c.eps"):
        (tmp_path / name).write_bytes(b"")
    for name in ("b.txt", "c.txt", "README.txt"):
        (tmp_path / name).write_text("text")
    source = Folder(tmp_path)
    assert read(source) == ["a.png"]
    assert source.left_out() == [
        "text files without a picture that can be read: 3 ('README.txt', 'b.txt', 'c.txt')",
        "pictures without a caption: 2 ('a.psd', 'favicon.ico')",
    ]


# ---- hidden files


def test_what_macos_and_notebooks_leave_behind_is_passed_over_and_counted(tmp_path: Path) -> None:
    captioned(tmp_path / "data" / "a.png")
    for name in ("._a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/._a.png"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"")
    source = Folder(tmp_path / "data")
    assert read(source) == ["a.png"]
    assert source.left_out() == [
        "hidden files: 3 ('._a.png', '.ipynb_checkpoints/a-checkpoint.png', '__MACOSX/._a.png')"
    ]
    tar = shard(
        tmp_path / "shards" / "0.tar",
        {
            "a.png": png(),
            "a.txt": b"one",
            "._a.png": b"",
            "__MACOSX/a.png": b"",
            "._a.txt": b"\xff",
        },
    )
    (tmp_path / "shards" / "._0.tar").write_bytes(b"")
    shards = WebDataset(tar.parent)
    assert read(shards) == ["one"]
    assert shards.left_out() == ["hidden files: 2 ('0.tar:._a.png', '0.tar:__MACOSX/a.png')"]


def test_data_in_a_hidden_folder_and_hidden_files_that_are_named_are_read(tmp_path: Path) -> None:
    path = captioned(tmp_path / ".cache" / "a.png")
    assert read(Folder(path.parent)) == ["a.png"]
    path.rename(path.with_name(".a.png"))
    (path.parent / "c.tsv").write_text(".a.png\tnamed\n")
    assert read(TSV(path.parent / "c.tsv")) == ["named"]


# ---- indexes


def test_an_index_may_be_a_csv_or_lie_in_a_folder_below(tmp_path: Path) -> None:
    for name in ("train/a.png", "test/deep/b.png", "c.png"):
        captioned(tmp_path / name).with_suffix(".txt").unlink()
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "one"}\n')
    (tmp_path / "test" / "metadata.csv").write_bytes(
        b'\xef\xbb\xbffile_name,text\r\ndeep\\b.png,"two, ""2"",\r\nand more"\r\n'
    )
    with pytest.raises(BridgeError, match=r"c\.png' has no caption file .*metadata\.csv"):
        Folder(tmp_path)
    (tmp_path / "c.txt").write_text("three")
    source = Folder(tmp_path)
    assert read(source) == ["three", 'two, "2",\nand more', "one"]
    assert source.where(2) == f"{tmp_path / 'train' / 'metadata.jsonl'}:1"
    assert source.left_out() == []


def test_a_csv_of_another_country_and_a_bad_one(tmp_path: Path) -> None:
    captioned(tmp_path / "a.png").with_suffix(".txt").unlink()
    (tmp_path / "metadata.csv").write_text("caption;file_name\ngrün, rot;a.png\n", encoding="utf-8")
    assert read(Folder(tmp_path)) == ["grün, rot"]
    (tmp_path / "metadata.csv").write_text("name,text\na.png,one\n")
    with pytest.raises(BridgeError, match=r"metadata\.csv:2: expected columns `file_name` and"):
        Folder(tmp_path)


def test_what_an_index_does_not_name_is_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        captioned(tmp_path / name)
    (tmp_path / "0.tar.gz").write_bytes(b"")
    (tmp_path / "metadata.csv").write_text("not,read\n")
    assert read(Folder(tmp_path)) == ["a.png", "b.png"]  # both have their own captions
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "./a.png", "text": "one"}\n')
    source = Folder(tmp_path)
    assert read(source) == ["one"]
    assert set(source.left_out()) == {
        "pictures without a caption: 1 ('b.png')",
        "text files without a picture that can be read: 1 ('b.txt')",
        "indexes that are not read: 1 ('metadata.csv')",
        "files of another kind: 1 ('0.tar.gz')",
    }


# ---- no caption


def test_one_sample_without_caption_is_one_bad_picture(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "a.png").write_bytes(png())
    (tmp_path / "index" / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": null}\n{"file_name": "a.png", "text": "a cat"}\n'
    )
    members = {
        "a.png": png(),
        "a.json": b'{"caption": null}',
        "b.png": png(),
        "b.txt": b"a cat",
        "c.png": png(),
    }
    sources = {
        "0.tar:a.png": WebDataset(shard(tmp_path / "0.tar", members)),
        "parquet:row 0": HuggingFace(saved(tmp_path / "parquet", [None, "a cat"])),
        "metadata.jsonl:1": Folder(tmp_path / "index"),
    }
    for where, source in sources.items():
        assert source.captions(9) == ["a cat"]
        assert source.picture(1).size == (20, 12)
        with pytest.raises(BadImage, match=f"{where}: no caption"):
            source.picture(0)
    report = check(str(tmp_path / "0.tar"))
    assert [error.rpartition("0.tar:")[2] for error in report.errors] == [
        "a.png: no caption",
        "c.png: no caption",
    ]
    assert (report.pictures, report.captions) == (3, 1)


def test_training_counts_a_sample_without_caption(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    members = {f"{n}.png": png() for n in range(4)}
    captions = {
        f"{n}.json": json.dumps({"caption": f"cat {n}" if n else None}).encode() for n in range(4)
    }
    shard(tmp_path / "0.tar", members | captions)
    config = TrainConfig(
        language=str(tiny("t5")),
        vision=str(tiny("sd")),
        rank=2,
        steps=4,
        data=str(tmp_path / "0.tar"),
        out=tmp_path / "run",
        batch_size=2,
        sample_every=0,
        device="cpu",
        tracker="none",
        max_bad=0.5,
        validate_every=0,
    )
    assert Run(config).train().training_summary["skipped_images"] == 1
    assert "0.tar:0.png: no caption" in (tmp_path / "run" / "bad.txt").read_text()


def test_captions_missing_everywhere_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"parquet:row 0: the caption is empty, as all others"):
        HuggingFace(saved(tmp_path / "parquet", [None, " "]))


# ---- said in time


def test_what_is_left_out_is_said_by_the_check_and_before_training(
    tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        captioned(tmp_path / "data" / name)
    (tmp_path / "data" / "c.txt").write_text("of a .heif, say")
    line = "left out, text files without a picture that can be read: 1 ('c.txt')"
    report = check(str(tmp_path / "data"), out=tmp_path / "report")
    assert line in str(report).splitlines()
    assert "0 errors" in str(report)
    noted = json.loads((tmp_path / "report" / "report.json").read_text())["left_out"]
    assert noted == [line.removeprefix("left out, ")]
    assert "picture that can be read: 1 (" in (tmp_path / "report" / "index.html").read_text()
    config = TrainConfig(
        language=str(tiny("t5")),
        vision=str(tiny("sd")),
        rank=2,
        device="cpu",
        data=f"{tmp_path / 'data'} + shapes",
        out=tmp_path / "run",
        validate_every=0,
    )
    assert line in Run(config).summary().splitlines()
    capsys.readouterr()
    fill(
        CacheConfig(
            vision=str(tiny("sd")),
            data=str(tmp_path / "data"),
            device="cpu",
            cache=tmp_path / "latents",
            flip=False,
        )
    )
    assert line in capsys.readouterr().out.splitlines()


def test_a_data_set_that_is_read_whole_leaves_nothing_out(tmp_path: Path) -> None:
    captioned(tmp_path / "a.png")
    assert check(str(tmp_path)).left_out == []
    assert left_out(open_source("shapes")) == []
    shard(tmp_path / "shards" / "0.tar", {"a.png": png(), "a.txt": b"a", "a.json": b"{}"})
    assert left_out(open_source(str(tmp_path / "shards"))) == []


def test_files_beside_shards_and_tables_and_other_splits_are_counted(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    shard(tmp_path / "shards" / "0.tar", {"a.png": png(), "a.txt": b"a"})
    shard(tmp_path / "shards" / "more" / "1.tar", {})
    (tmp_path / "shards" / "2.tar.gz").write_bytes(b"")
    assert left_out(open_source(str(tmp_path / "shards"))) == [
        "files of another kind than the rest: 2 ('2.tar.gz', 'more/1.tar')"
    ]
    captioned(saved(tmp_path / "tables", ["one"]) / "a.png")
    assert left_out(open_source(str(tmp_path / "tables"))) == [
        "files of another kind than the rest: 1 ('a.png')"
    ]
    table = datasets.Dataset.from_parquet(str(tmp_path / "tables" / "0.parquet"))
    datasets.DatasetDict(train=table, test=table).save_to_disk(tmp_path / "both")
    assert left_out(open_source(str(tmp_path / "both"))) == [
        "splits other than 'train': 1 ('test')"
    ]


def test_names_beyond_the_first_are_counted_only(tmp_path: Path) -> None:
    captioned(tmp_path / "a.png")
    for number in range(1200):
        (tmp_path / f"x{number}.txt").touch()
    assert Folder(tmp_path).left_out() == [
        "text files without a picture that can be read: 1,200 ('x0.txt', 'x1.txt', 'x10.txt', …)"
    ]


def test_a_picture_with_its_own_caption_is_one_sample_whatever_an_index_says(
    tmp_path: Path,
) -> None:
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("its own")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,of the index\nb.png,of b\n")
    source = Folder(tmp_path)
    assert [list(source.texts(i)) for i in range(len(source))] == [["its own"], ["of b"]]


def test_a_csv_whose_columns_are_swapped_is_one_bad_picture(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(f"text,file_name\na.png,{'a long caption ' * 40}\n")
    source = Folder(tmp_path)
    with pytest.raises(BadImage, match=r"metadata.csv:2: no image .*too long"):
        source.picture(0)
