"""A picture is read as viewers show it, from every source, and nothing kept of other pixels is
used: turned as EXIF says, over white, with 8 bits."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin
from safetensors.torch import load_file, save_file

from lavi_bridge import BridgeError
from lavi_bridge.data import TSV, BadImage, Folder, HuggingFace, Source, WebDataset
from lavi_bridge.data.examples import assign_sizes
from lavi_bridge.data.pixels import READING
from lavi_bridge.plan.data_check import check
from lavi_bridge.train.caching import fill
from lavi_bridge.train.options import CacheConfig
from tests.data.test_sources import shard

SOURCES = ["folder", "tsv", "shard", "hf"]


def file_of(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def read(content: bytes, place: Path, source: str = "tsv", suffix: str = "png") -> Source:
    """A data set of one picture."""
    if source == "shard":
        return WebDataset(shard(place / "a.tar", {f"a.{suffix}": content, "a.txt": b"a cat"}))
    if source == "hf":
        datasets = pytest.importorskip("datasets")
        rows = {"image": [{"bytes": content, "path": None}], "text": ["a cat"]}
        data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
        data.to_parquet(place / "a.parquet")
        return HuggingFace(place)
    (place / f"a.{suffix}").write_bytes(content)
    (place / "a.txt").write_text("a cat")
    (place / "c.tsv").write_text(f"a.{suffix}\ta cat\n")
    return TSV(place / "c.tsv") if source == "tsv" else Folder(place)


def first(source: Source) -> tuple[int, ...]:
    """The colour of the upper left corner."""
    return tuple(np.asarray(source.picture(0))[0, 0].tolist())


def png(rows: list[bytes], depth: int, color: int, *before: bytes, after: bytes = b"") -> bytes:
    """A PNG three pixels wide, written chunk by chunk."""
    header = struct.pack(">IIBBBBB", 3, len(rows), depth, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *before,
            chunk(b"IDAT", pixels),
            after,
            chunk(b"IEND", b""),
        ]
    )


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# ---- EXIF


@pytest.mark.parametrize("source", SOURCES)
def test_a_photo_is_turned_as_exif_says(tmp_path: Path, source: str) -> None:
    photo = Image.new("RGB", (64, 32), "red")
    photo.paste("blue", (32, 0, 64, 32))
    seen = read(file_of(photo, exif=turned(6)), tmp_path, source)
    assert seen.picture(0).size == seen.size(0) == (32, 64)
    assert first(seen) == (255, 0, 0)
    assert seen.picture(0).getpixel((0, 63)) == (0, 0, 255)  # red above blue


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tiff", "avif"])
def test_every_orientation_of_every_format(tmp_path: Path, kind: str, orientation: int) -> None:
    photo = Image.new("RGB", (64, 32), "red")
    photo.paste("blue", (32, 0, 64, 16))
    (tmp_path / "a").mkdir()
    photo.save(tmp_path / "a" / f"b.{kind}", exif=turned(orientation))
    content = (tmp_path / "a" / f"b.{kind}").read_bytes()
    with Image.open(io.BytesIO(content)) as file:
        right = ImageOps.exif_transpose(file).convert("RGB")
    seen = read(content, tmp_path, suffix=kind)
    assert seen.size(0) == right.size == ((64, 32) if orientation < 5 else (32, 64))
    assert seen.picture(0).tobytes() == right.tobytes()


def test_a_large_photo_is_decoded_smaller_and_turned(tmp_path: Path) -> None:
    photo = Image.new("RGB", (1024, 512), "red")
    seen = read(file_of(photo, "JPEG", exif=turned(8)), tmp_path, suffix="jpg")
    assert seen.picture(0, at_least=128).size == (128, 256)
    assert seen.size(0) == (512, 1024)


def test_an_orientation_behind_the_pixels_is_found(tmp_path: Path) -> None:
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    for name, said in ((b"eXIf", turned(6).tobytes()[6:]), (b"iTXt", xmp)):
        late = chunk(b"tEXt", b"date\0now") + chunk(name, said)
        seen = read(png([bytes(9)], 8, 2, after=late), tmp_path)
        assert seen.size(0) == seen.picture(0).size == (1, 3)
    plain = read(png([bytes(9)], 8, 2, after=chunk(b"tEXt", b"date\0now")), tmp_path)
    assert plain.size(0) == plain.picture(0).size == (3, 1)


def test_damaged_exif_turns_nothing_and_the_picture_is_read(tmp_path: Path) -> None:
    seen = read(png([bytes(9)], 8, 2, chunk(b"eXIf", b"garbage!")), tmp_path)
    assert seen.size(0) == seen.picture(0).size == (3, 1)


def test_the_report_shows_photos_upright(tmp_path: Path) -> None:
    read(file_of(Image.new("RGB", (160, 80)), exif=turned(6)), tmp_path)
    assert check(str(tmp_path / "c.tsv"), resolution=128).sizes == {"96×160": 1}


# ---- transparency


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_transparent_lies_over_white(tmp_path: Path, source: str) -> None:
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    half.paste((9, 9, 9, 0), (0, 0, 1, 1))
    seen = read(file_of(half), tmp_path, source).picture(0)
    assert (seen.getpixel((0, 0)), seen.getpixel((1, 1))) == ((255, 255, 255), (255, 127, 127))


def with_palette(mode: str = "P") -> Image.Image:
    picture = Image.new(mode, (3, 1))
    picture.putpalette([200, 30, 30, 0, 0, 255])
    return picture


@pytest.mark.parametrize(
    ("content", "corner"),
    [
        (file_of(Image.new("LA", (3, 1), (0, 0))), 255),
        (file_of(Image.new("LA", (3, 1), (0, 51))), 204),
        (file_of(with_palette(), transparency=0), 255),
        (file_of(with_palette(), "GIF", transparency=0), 255),
        (file_of(Image.new("L", (3, 1), 7), transparency=7), 255),
        (file_of(Image.new("RGB", (3, 1), (7, 8, 9)), transparency=(7, 8, 9)), 255),
        (file_of(Image.new("RGBA", (3, 1), (7, 8, 9, 0)), "WEBP", lossless=True), 255),
        (file_of(Image.new("RGBA", (3, 1), (7, 8, 9, 0)), "TIFF"), 255),
        (png([b"\x33\x30"], 4, 0, chunk(b"tRNS", b"\0\x03")), 255),
        (png([struct.pack(">3H", 100, 0, 0)], 16, 0, chunk(b"tRNS", b"\0\x64")), 255),
        (png([struct.pack(">9H", *[4660] * 9)], 16, 2, chunk(b"tRNS", b"\x12\x34" * 3)), 255),
    ],
    ids=["LA", "LA 51", "P", "GIF", "L", "RGB", "WebP", "TIFF", "4 bits", "16 bits", "48 bits"],
)
def test_every_kind_of_transparency(tmp_path: Path, content: bytes, corner: int) -> None:
    assert first(read(content, tmp_path)) == (corner,) * 3


def test_opaque_pictures_keep_their_colours(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    opaque = np.dstack([noise, np.full((5, 7), 255, np.uint8)])
    seen = read(file_of(Image.fromarray(opaque)), tmp_path).picture(0)
    assert np.array_equal(np.asarray(seen), noise)
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    with Image.open(io.BytesIO(file_of(ink, "JPEG"))) as file:
        right = file.convert("RGB").getpixel((0, 0))
    assert first(read(file_of(ink, "JPEG"), tmp_path, suffix="jpg")) == right


# ---- 16 bits

RAMP = np.linspace(0, 65535, 8).astype(np.uint16)[None]
SHOWN = [0, 36, 73, 109, 146, 182, 219, 255]


@pytest.mark.parametrize("source", SOURCES)
def test_greys_of_16_bits_keep_their_shades(tmp_path: Path, source: str) -> None:
    seen = read(file_of(Image.fromarray(RAMP)), tmp_path, source).picture(0)
    assert np.asarray(seen)[0, :, 1].tolist() == SHOWN


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4"])
def test_tiff_has_16_bits_in_several_ways(tmp_path: Path, dtype: str) -> None:
    content = file_of(Image.fromarray(RAMP.astype(dtype)), "TIFF")
    assert np.asarray(read(content, tmp_path).picture(0))[0, :, 0].tolist() == SHOWN


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 70000]], np.int32), "its values go from 0 to 70000; save it with 8 or 16"),
        (np.array([[-1, 5]], np.int32), "its values go from -1 to 5"),
        (np.array([[0.5, 1]], np.float32), "fractions of no known range; save it with 8 or 16"),
    ],
)
def test_values_of_no_known_range_are_a_bad_picture(
    tmp_path: Path, values: np.ndarray, reason: str
) -> None:
    seen = read(file_of(Image.fromarray(values), "TIFF"), tmp_path)
    with pytest.raises(BadImage, match=rf"c\.tsv:1: cannot read .*{reason}"):
        seen.picture(0)


# ---- long texts


@pytest.mark.parametrize("late", [False, True])
def test_a_workflow_inside_a_png_does_not_make_it_unreadable(tmp_path: Path, late: bool) -> None:
    text = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"node " * 400_000))
    content = png([bytes(9)], 8, 2, after=text) if late else png([bytes(9)], 8, 2, text)
    seen = read(content, tmp_path)
    assert seen.picture(0).size == seen.size(0) == (3, 1)


def test_a_bomb_of_text_is_still_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 100_000)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 100_000)
    text = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(200_000)))
    with pytest.raises(BadImage, match="too large"):
        read(png([bytes(9)], 8, 2, text), tmp_path).picture(0)


# ---- what was kept of other pixels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(3):
        photo = Image.new("RGB", (32, 16), (80 * number, 0, 0))
        photo.save(tmp_path / f"{number}.png", exif=turned(6))
    lines = "".join(f"{number}.png\tpicture {number}\n" for number in range(3))
    (tmp_path / "c.tsv").write_text(lines)
    return tmp_path / "c.tsv"


def test_latents_of_an_earlier_way_of_reading_are_refused(
    tiny: Callable[[str], Path], data: Path
) -> None:
    config = CacheConfig(
        vision=str(tiny("sd")),
        data=str(data),
        cache=data.parent / "latents",
        device="cpu",
        flip=False,
    )
    assert fill(config) == (3, [])
    assert fill(config) == (0, [])
    about = json.loads((data.parent / "latents" / "cache.json").read_text())
    assert about.pop("reading") == READING
    (data.parent / "latents" / "cache.json").write_text(json.dumps(about))  # as 23aaa31 wrote it
    with pytest.raises(BridgeError, match=r"read pictures otherwise \(orientation.*delete that"):
        fill(config)
    later = json.dumps(about | {"reading": READING + 1})
    (data.parent / "latents" / "cache.json").write_text(later)
    with pytest.raises(BridgeError, match=r"read pictures otherwise.*or choose another --cache"):
        fill(config)


def test_sizes_of_an_earlier_way_of_reading_are_measured_again(data: Path) -> None:
    source, cache = TSV(data), data.parent / "headers.safetensors"
    lying = torch.tensor([[32, 16]] * 3, dtype=torch.int32)
    save_file({source.identity(): lying}, cache)  # as 23aaa31 kept them
    among = [(16, 16), (16, 32), (32, 16)]
    assert assign_sizes(source, among, cache=cache, show=True).tolist() == [1, 1, 1]
    ((_, kept),) = load_file(cache).items()
    assert kept.tolist() == [[16, 32]] * 3
    for path in data.parent.glob("*.png"):
        path.unlink()
    assert assign_sizes(source, among, cache=cache, show=True).tolist() == [1, 1, 1]
