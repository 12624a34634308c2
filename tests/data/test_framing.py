"""What SDXL is told of a training picture: its original size, and where it was cropped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lavi_bridge import Bridge
from lavi_bridge.data import LatentCache, Sample, Visit
from lavi_bridge.data.cache import latents
from lavi_bridge.data.examples import Examples, Look, inputs
from lavi_bridge.data.sources.opening import open_source
from lavi_bridge.data.transforms import framing, to_pixels
from lavi_bridge.train.caching import fill
from lavi_bridge.train.run import Run
from tests.data.test_cache import cached, config, losses

Tiny = Callable[[str], Path]


def bridge(tiny: Tiny, vision: str) -> tuple[Bridge, list[Tensor]]:
    """A bridge, and the sizes that its U-Net is told at each call."""
    made = Bridge.connect(tiny("t5"), tiny(vision), rank=2, device="cpu", dtype="float32")
    told: list[Tensor] = []

    def note(_module: nn.Module, _args: Any, options: dict[str, Any]) -> None:
        told.append(options["added_cond_kwargs"]["time_ids"])

    if made.vision.framed:
        made.vision.backbone.register_forward_pre_hook(note, with_kwargs=True)
    return made, told


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Twelve noisy pictures of three shapes."""
    rng = np.random.default_rng(0)
    shapes = [(24, 24), (20, 40), (40, 20)] * 4  # height and width
    noise = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    return data(tmp_path, **{f"p{n}_png": Image.fromarray(x) for n, x in enumerate(noise)})


def data(folder: Path, **pictures: Image.Image) -> Path:
    """Pictures in a folder with their names for captions."""
    for name, picture in pictures.items():
        picture.save(folder / name.replace("_", "."), quality=95)
    path = folder / "captions.tsv"
    names = [name.replace("_", ".") for name in pictures]
    path.write_text("".join(f"{name}\tpicture {name}\n" for name in names))
    return path


@pytest.mark.parametrize("vision", ["sdxl", "kolors"])
def test_the_model_is_told_a_pictures_size_and_its_crop(
    tiny: Tiny, tmp_path: Path, vision: str
) -> None:
    """One of 40×20 pixels becomes 128×64, of which the middle 64×64 is taken."""
    source = open_source(str(data(tmp_path, a_png=Image.new("RGB", (40, 20)))), seed=0)
    made, told = bridge(tiny, vision)
    batch = inputs([Examples(source, Look(), [(64, 64)])[Visit(0, 0)]], made.vision)
    made.loss(**vars(batch))
    assert told[0].tolist() == [[20, 40, 0, 32, 64, 64]]


@pytest.mark.parametrize(("corner", "mirror", "left"), [(1.0, False, 64), (1.0, True, 0)])
def test_a_mirrored_pictures_crop_is_counted_in_the_mirrored_picture(
    corner: float, mirror: bool, left: int
) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (64, 128, 3), np.uint8))
    place = (corner, 0.5)
    told = framing(picture, (64, 64), original=(40, 20), mirror=mirror, corner=place)
    assert told == (20, 40, 0, left)
    shown = ImageOps.mirror(picture) if mirror else picture
    there = np.asarray(shown.crop((left, 0, left + 64, 64)))
    made = to_pixels(picture, (64, 64), mirror=mirror, corner=place)
    assert np.array_equal(made.permute(1, 2, 0).numpy(), there)


def test_the_size_is_the_files_also_where_it_was_decoded_smaller_and_turned(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (640, 480)).save(tmp_path / "b.jpg", exif=turned)
    path = data(tmp_path, a_jpg=Image.new("RGB", (640, 480)))
    path.write_text("a.jpg\tlying\nb.jpg\tstanding\n")
    source = open_source(str(path), seed=0)
    assert source.picture(0, at_least=64).size == (160, 120)
    examples = Examples(source, Look(), [(64, 64)])
    assert [examples[Visit(0, n)].framing for n in (0, 1)] == [
        (480, 640, 0, 10),
        (640, 480, 10, 0),
    ]


def test_in_drawing_a_picture_is_whole(tiny: Tiny) -> None:
    made, told = bridge(tiny, "sdxl")
    made.generate("a", steps=1, height=32, width=64)
    assert told[0].tolist() == [[32, 64, 0, 0, 32, 64]] * 2


def test_another_original_size_is_another_loss_and_a_whole_picture_the_same(tiny: Tiny) -> None:
    made, _ = bridge(tiny, "sdxl")
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1

    def loss(told: list[float] | None) -> float:
        given = None if told is None else torch.tensor([told])
        source = torch.Generator().manual_seed(0)
        return made.loss(pixels, ["a"], framing=given, generator=source).item()

    assert loss([64.0, 64, 0, 0]) == loss(None)
    assert len({loss(None), loss([640.0, 64, 0, 0]), loss([64.0, 64, 0, 8])}) == 3


@pytest.mark.parametrize("vision", ["sd", "sd3"])
def test_a_model_that_is_not_told_has_the_same_loss(tiny: Tiny, vision: str) -> None:
    made, _ = bridge(tiny, vision)
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    found = {
        made.loss(pixels, ["a"], framing=told, generator=torch.Generator().manual_seed(0)).item()
        for told in (None, torch.tensor([[640.0, 64, 0, 8]]))
    }
    assert len(found) == 1


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_encoded_pictures_keep_it(
    tiny: Tiny,
    captions: Path,
    tmp_path: Path,
    workers: int,
) -> None:
    same = {"vision": str(tiny("sdxl")), "resolution": 32, "workers": workers, "validate_every": 4}
    fill(cached(tiny, captions, vision=same["vision"], resolution=32))
    Run(config(tiny, captions, tmp_path / "plain", **same)).train()
    Run(config(tiny, captions, tmp_path / "kept", cache=tmp_path / "latents", **same)).train()
    assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)


def test_a_run_that_goes_on_tells_the_same(tiny: Tiny, captions: Path, tmp_path: Path) -> None:
    same = {"vision": str(tiny("sdxl")), "resolution": 32, "crop": "random", "workers": 2}
    straight = Run(config(tiny, captions, tmp_path / "straight", **same)).train()
    Run(config(tiny, captions, tmp_path / "halves", **(same | {"steps": 4}))).train()
    assert Run(config(tiny, captions, tmp_path / "halves", **same)).train().id == straight.id


def test_a_cache_of_an_earlier_version_says_nothing_and_still_serves(
    tiny: Tiny,
    captions: Path,
    tmp_path: Path,
) -> None:
    made, told = bridge(tiny, "sdxl")
    fill(cached(tiny, captions, vision=str(tiny("sdxl")), resolution=32, flip=False))
    (shard,) = (tmp_path / "latents").glob("*.safetensors")
    tensors = load_file(shard)
    assert tensors.pop("framing")[1].tolist() == [20, 40, 0, 16]
    rows = tensors["moments"]
    tensors["crc"] = torch.tensor([latents._checksum(row, None) for row in rows])
    save_file(tensors, shard, {"variational": "1"})
    run = Run(
        config(
            tiny,
            captions,
            tmp_path / "run",
            vision=str(tiny("sdxl")),
            resolution=32,
            cache=tmp_path / "latents",
        )
    )
    assert isinstance(run.examples.cache, LatentCache)
    example = run.examples[Sample(1, False)]
    assert example.framing is None
    made.loss(**vars(inputs([example], made.vision, run.examples.cache)))
    assert told[0].tolist() == [[32, 32, 0, 0, 32, 32]]


def test_damage_to_it_is_noticed(
    tiny: Tiny,
    captions: Path,
    tmp_path: Path,
) -> None:
    settings = cached(tiny, captions, flip=False)
    fill(settings)
    (shard,) = (tmp_path / "latents").glob("*.safetensors")
    tensors = load_file(shard)
    tensors["framing"][0, 0] += 1
    save_file(tensors, shard, {"variational": "1", "framed": "1"})
    run = Run(config(tiny, captions, tmp_path / "run", cache=tmp_path / "latents", flip=False))
    assert run.examples[Sample(0, False)].fatal
    assert run.examples[Sample(1, False)].good
