"""Sources of many kinds, their order, and the sizes of batches."""

import gzip
import io
import json
import lzma
import random
import tarfile
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavi_bridge import BridgeError
from lavi_bridge.data import (
    TSV,
    BadImage,
    Folder,
    HuggingFace,
    Mix,
    Order,
    WebDataset,
    buckets,
    nearest_bucket,
    to_pixels,
)
from lavi_bridge.data.sources.base import plain_captions
from lavi_bridge.data.sources.opening import open_source
from lavi_bridge.plan.data_check import check


def png(color: str = "red", size: tuple[int, int] = (20, 12)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


# ---- WebDataset


def test_shards_in_the_layout_of_img2dataset_are_read_by_position(tmp_path: Path) -> None:
    shard(
        tmp_path / "00000.tar",
        {
            "000000000.jpg": png("red"),
            "000000000.txt": b"a red wall\n",
            "000000000.json": json.dumps({"caption": "from the json", "width": 20}).encode(),
            "000000001.png": png("blue", (8, 9)),
            "000000001.json": b'{"caption": "a blue wall"}',
        },
    )
    shard(tmp_path / "00001.tar", {"a/000000000.webp": png(), "a/000000000.txt": "grün".encode()})
    source = open_source(str(tmp_path))
    assert isinstance(source, WebDataset)
    assert source.captions(9) == ["a red wall", "a blue wall", "grün"]
    assert source.size(1) == source.picture(1).size == (8, 9)
    assert source.picture(1).getpixel((0, 0)) == (0, 0, 255)
    assert source.where(2).endswith("00001.tar:a/000000000.webp")
    assert open_source(str(tmp_path / "00001.tar")).captions(9) == ["grün"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"../x.png": png()}, r"0\.tar: member '\.\./x\.png' leaves the shard; refused"),
        ({"/x.png": png()}, r"0\.tar: member '/x\.png' leaves the shard"),
        ({"x.png": png()}, r"0\.tar:x\.png: no caption"),
        ({"x.png": png(), "x.txt": b"  "}, r"0\.tar:x\.png: no caption"),
        ({"x.png": png(), "x.txt": b"\xff\xfe"}, r"0\.tar:x\.txt: not UTF-8"),
        ({"x.png": png(), "x.json": b"[1"}, r"0\.tar:x\.json: not a JSON object"),
        ({"x.txt": b"alone"}, "holds no captioned images"),
    ],
)
def test_a_bad_shard_is_named_with_its_member(
    tmp_path: Path, members: dict[str, bytes], reason: str
) -> None:
    with pytest.raises(BridgeError, match=reason):
        WebDataset(shard(tmp_path / "0.tar", members))


def test_a_torn_shard_and_a_torn_image_are_named(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", {"x.png": png(), "x.txt": b"a"})
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(BridgeError, match=r"0\.tar is (cut short|no whole tar)"):
        WebDataset(path)
    torn = WebDataset(shard(tmp_path / "1.tar", {"x.png": png()[:40], "x.txt": b"a"}))
    with pytest.raises(BadImage, match=r"1\.tar:x\.png: cannot read 'x\.png'"):
        torn.picture(0)
    empty = WebDataset(shard(tmp_path / "2.tar", {"x.png": b"", "x.txt": b"a"}))
    with pytest.raises(BadImage, match=r"2\.tar:x\.png: the image is empty"):
        empty.picture(0)


# ---- Hugging Face data sets


def test_parquet_files_and_saved_data_sets_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "a.png").write_bytes(png("green"))
    rows = {"image": [str(tmp_path / "a.png")] * 2, "caption": ["one", ["two", "deux"][0]]}
    data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    (tmp_path / "parquet").mkdir()
    data.to_parquet(tmp_path / "parquet" / "0.parquet")
    data.save_to_disk(tmp_path / "saved")
    for folder in ("parquet", "saved"):
        source = open_source(str(tmp_path / folder))
        assert isinstance(source, HuggingFace)
        assert source.captions(9) == ["one", "two"]
        assert source.picture(0).getpixel((0, 0)) == (0, 128, 0)
        assert source.size(1) == (20, 12)


def test_a_data_set_without_the_columns_or_offline_is_one_line(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "0.parquet")
    with pytest.raises(BridgeError, match=r"needs an image column and one of text.*it has text"):
        HuggingFace(tmp_path)
    with pytest.raises(BridgeError, match="cannot load the data set 'nobody/nothing'"):
        open_source("hf:nobody/nothing")


# ---- several captions, several sources


def test_one_image_may_have_several_captions(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "c.tsv").write_text("a.png\tone\na.png\ttwo\nb.png\tother\n")
    assert [TSV(tmp_path / "c.tsv").texts(i) for i in (0, 1)] == [["one", "two"], ["other"]]
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": ["x", "y"]}\n')
    assert Folder(tmp_path).texts(0) == ["x", "y"]
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": " "}\n')
    with pytest.raises(BridgeError, match=r"metadata\.jsonl:1: the caption of 'a\.png' is empty"):
        Folder(tmp_path)


def test_a_mix_draws_from_each_source_its_share(tmp_path: Path) -> None:
    for name, count in (("a", 30), ("b", 10)):
        (tmp_path / f"{name}.png").write_bytes(png())
        lines = "".join(f"{name}.png\t{name}\n{name}2.png\t{name}{i}\n" for i in range(count // 2))
        (tmp_path / f"{name}.tsv").write_text(lines)
    mix = open_source(f"0.4*{tmp_path}/a.tsv + 0.6*{tmp_path}/b.tsv")
    assert isinstance(mix, Mix)
    assert len(mix) == 40
    assert mix.where(30).endswith("b.tsv:1")
    order = Order([0] * 40, batch=8, seed=1, lengths=mix.lengths, weights=mix.weights)
    keys = [key for batch in islice(order.batches(), 25) for key in batch]  # five epochs
    shares = Counter("a" if key.index < 30 else "b" for key in keys)
    assert shares == {"a": 80, "b": 120}
    visits = Counter(key.index for key in keys)
    assert max(v for i, v in visits.items() if i >= 30) == 12  # 120 visits of ten pictures
    assert {visits[i] for i in range(30)} == {2, 3}
    assert mix.captions(1) == ["a", "b"]  # of each source one at least
    with pytest.raises(BridgeError, match="no data 'nowhere'"):
        open_source(f"{tmp_path}/a.tsv + nowhere")
    with pytest.raises(BridgeError, match="has no weight"):
        open_source(f"0*{tmp_path}/a.tsv + 1*{tmp_path}/b.tsv")
    with pytest.raises(BridgeError, match="or no weights at all"):
        open_source(f"0.5*{tmp_path}/a.tsv + {tmp_path}/b.tsv")


# ---- order


@pytest.mark.parametrize("seed", range(6))
def test_every_sample_is_visited_once_a_pass_and_batches_have_one_size(seed: int) -> None:
    rng = random.Random(seed)
    count, batch = rng.randint(5, 60), rng.randint(1, 9)
    sizes = [rng.randint(0, 3) for _ in range(count)]
    held_out = rng.sample(range(count), 2)
    order = Order(sizes, batch, seed, held_out=held_out)
    batches = list(islice(order.batches(), 12 * count // batch))
    keys = [key for keys in batches for key in keys]
    assert all(len(keys) == batch for keys in batches)
    assert all(len({sizes[key.index] for key in keys}) == 1 for keys in batches)
    assert len(set(keys)) == len(keys)
    assert not {key.index for key in keys} & set(held_out)
    visits = Counter(key.index for key in keys)
    for size in set(sizes):
        counts = [visits[i] for i in range(count) if sizes[i] == size and i not in held_out]
        assert not counts or max(counts) - min(counts) <= 1
        assert not counts or abs(np.mean(counts) - 12) <= 2 + batch / len(counts)
    for first in (1, 7, len(batches) - 1):
        assert next(order.batches(first)) == batches[first]


def test_data_smaller_than_a_batch_is_repeated() -> None:
    keys = next(Order([0, 0, 0], batch=8, seed=0).batches())
    assert Counter(key.number for key in keys) == {0: 3, 1: 3, 2: 2}


# ---- sizes


def test_buckets_have_about_the_same_area_and_sides_of_whole_steps() -> None:
    sizes = buckets(512, 64)
    assert sizes[0] == (512, 512)
    assert (704, 320) not in sizes  # too wide
    assert {(576, 448), (448, 576), (704, 352 // 64 * 64 + 64)} & set(sizes)
    for width, height in sizes:
        assert width % 64 == height % 64 == 0
        assert 0.8 * 512**2 <= width * height <= 512**2
    assert len(sizes) == len(set(sizes)) > 4
    assert sizes[nearest_bucket((1024, 1024), sizes)] == (512, 512)
    wide = sizes[nearest_bucket((1600, 900), sizes)]
    assert 1.4 < wide[0] / wide[1] <= 2


def test_a_picture_fills_its_size_and_the_crop_can_move() -> None:
    picture = Image.new("RGB", (100, 50))
    picture.paste("white", (50, 0, 100, 50))  # the right half
    assert to_pixels(picture, (40, 24)).shape == (3, 24, 40)
    square = [to_pixels(picture, 50, corner=(place, 0.5)).float().mean() for place in (0, 0.5, 1)]
    assert square[0] == 0
    assert abs(square[1] - 127.5) < 1
    assert square[2] == 255


def test_large_jpegs_decode_smaller_but_not_too_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(128, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).resize((1024, 768), 3).save(tmp_path / "a.jpg", quality=95)
    (tmp_path / "c.tsv").write_text("a.jpg\ta\n")
    source = TSV(tmp_path / "c.tsv")
    assert source.picture(0).size == (1024, 768)
    assert source.picture(0, at_least=256).size == (512, 384)
    near = to_pixels(source.picture(0, at_least=256), 256).float()
    assert (near - to_pixels(source.picture(0), 256).float()).abs().mean() < 1.5


# ---- bad input


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.tar.gz", gzip.compress(b"x"), r"is compressed \(gzip\): unpack it, to \.tar or \.tsv"),
        ("c.tsv.xz", lzma.compress(b"a.png\ta"), r"is compressed \(xz\): unpack it"),
        ("x.tar", gzip.compress(b"x"), r"is compressed \(gzip\): unpack it"),
        ("x.tar", b"PK\3\4\0", "is a zip archive: unpack it, and give the folder"),
        ("x.zip", b"PK\3\4\0", "is a zip archive: unpack it, and give the folder"),
        ("x.parquet", b"PAR1\xff", r"is one file of a data set: give its folder '.*'"),
        ("x.arrow", b"\xff\xff\xff\xff\0", r"is one file of a data set: give its folder '.*'"),
        ("x.png", png(), r"is one picture: give its folder '.*', or a caption file \(\.tsv\)"),
        ("x.jfif", b"", "is one picture: give its folder"),
        ("metadata.jsonl", b"{}", r"is the index of a folder: give the folder '.*'"),
        ("x.safetensors", b"\x10\0\0\0\0\0\0\0{}", "is no caption file, as it is no text"),
        ("x.tsv", "a.png\ta".encode("utf-16"), r"x\.tsv:1: not UTF-8 text; save the file as UTF-8"),
    ],
    ids=[
        "tar.gz",
        "tsv.xz",
        "gzip as tar",
        "zip as tar",
        "zip",
        "parquet",
        "arrow",
        "png",
        "jfif",
        "index",
        "safetensors",
        "UTF-16",
    ],
)
def test_a_file_of_the_wrong_kind_is_told_what_to_do(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BridgeError, match=reason):
        open_source(str(tmp_path / name))
    with pytest.raises(BridgeError, match=reason):
        open_source(f"shapes + {tmp_path / name}")
    if not name.endswith(".tsv"):
        with pytest.raises(BridgeError, match=reason):
            check(str(tmp_path / name))


def test_files_of_the_right_kind_may_have_any_name(tmp_path: Path) -> None:
    content = shard(tmp_path / "0.tar", {"x.png": png(), "x.txt": b"a"}).read_bytes()
    for name in ("0.TAR", "0.shard"):
        (tmp_path / name).write_bytes(content)
        assert open_source(str(tmp_path / name)).captions(1) == ["a"]
    for name in ("c.txt", "captions", "c.csv"):
        (tmp_path / name).write_text("x.png\ta\n")
        assert open_source(str(tmp_path / name)).captions(1) == ["a"]


def test_a_folder_without_pictures_says_what_else_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(BridgeError, match=r"holds no images .*; left out are .*'x\.tar\.gz'"):
        open_source(str(tmp_path))


def test_a_name_that_no_file_can_have_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text("a very long caption " * 40 + "\ta.png\n")
    with pytest.raises(BadImage, match=r"c\.tsv:1: no image"):
        TSV(tmp_path / "c.tsv").picture(0)


def test_an_enormous_and_an_empty_image_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png(size=(40, 40)))
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.tsv").write_text("a.png\ta\nb.png\tb\n")
    source = TSV(tmp_path / "c.tsv")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BadImage, match=r"c\.tsv:1: cannot read '.*a\.png': it is too large"):
        source.picture(0)
    with pytest.raises(BadImage, match=r"c\.tsv:2: '.*b\.png' is empty"):
        source.size(1)


def test_random_bytes_never_give_a_traceback_or_lose_a_good_row(tmp_path: Path) -> None:
    """Files with random damage: each is one line that names the place, and all else is read."""
    rng = random.Random(3)
    whole = png()
    refused = bad = good = 0
    for _ in range(300):
        lines = []
        for number in range(6):
            data = bytearray(whole)
            for _ in range(rng.choice((0, 0, 1, 5))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            (tmp_path / f"{number}.png").write_bytes(data[: rng.choice((len(data), 30, 0))])
            lines.append(f"{number}.png\tpicture {number}\n".encode())
        text = bytearray(b"".join(lines))
        for _ in range(rng.choice((0, 0, 1, 3))):
            text[rng.randrange(len(text))] = rng.randrange(256)
        (tmp_path / "c.tsv").write_bytes(text)
        try:
            source = TSV(tmp_path / "c.tsv")
        except BridgeError as error:
            refused += "c.tsv" in str(error)
            continue
        rows = [line for line in bytes(text).split(b"\n") if line.strip()]
        assert sum(len(source.texts(i)) for i in range(len(source))) == len(rows)
        for index in range(len(source)):
            try:
                good += source.picture(index).mode == "RGB"
            except BadImage as error:
                bad += "c.tsv:" in str(error)
    assert min(refused, bad, good) > 50


def test_the_drawn_world_may_be_told_freely_with_the_same_pictures() -> None:
    long, free = open_source("shapes:long"), open_source("shapes:free")
    assert free.captions(20) == [free.texts(i)[0] for i in range(20)]
    assert not set(free.captions(20)) & set(long.captions(20))
    assert all(long.picture(i).tobytes() == free.picture(i).tobytes() for i in range(5))
    assert free.identity() != long.identity()


def test_an_own_encoder_is_given_the_plain_captions_of_what_is_told_freely(tmp_path: Path) -> None:
    long, free = open_source("shapes:long"), open_source("shapes:free")
    assert plain_captions(free, 20) == long.captions(20)
    mix = open_source("0.5*shapes:long + 0.5*shapes:free")
    assert plain_captions(mix, 20) == 2 * long.captions(10)
    assert mix.captions(20) == long.captions(10) + free.captions(10)
    (tmp_path / "a.png").touch()
    (tmp_path / "c.tsv").write_text("a.png\ta caption\n")
    assert plain_captions(open_source(str(tmp_path / "c.tsv")), 20) == ["a caption"]


def test_the_drawn_world_has_captions_of_several_lengths() -> None:
    short, mixed, long = (open_source(f"shapes:{kind}") for kind in ("short", "mixed", "long"))
    words = [sum(len(text.split()) for text in one.captions(50)) for one in (short, mixed, long)]
    assert words[0] < words[1] < words[2]
    assert open_source("shapes").captions(50) == mixed.captions(50)
    with pytest.raises(BridgeError, match=r"shapes:brief.*shapes:mixed, shapes:long, shapes:free"):
        open_source("shapes:brief")
