"""The latent cache: the same training from encoded pictures, and nothing stale or damaged."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.data import LatentCache
from lavi_bridge.data.cache.features import FeatureCache
from lavi_bridge.train.caching import fill
from lavi_bridge.train.options import CacheConfig, TrainConfig
from lavi_bridge.train.run import Run
from tests.processes import run_distributed

Tiny = Callable[[str], Path]
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Twelve noisy pictures of three shapes."""
    rng = np.random.default_rng(0)
    for number in range(12):
        size = [(24, 24), (40, 20), (20, 40)][number % 3]
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(
            tmp_path / f"{number}.png"
        )
    path = tmp_path / "captions.tsv"
    path.write_text("".join(f"{n}.png\tpicture {n}\n" for n in range(12)))
    return path


def cached(tiny: Tiny, data: Path, **changes: object) -> CacheConfig:
    settings: dict[str, object] = {
        "vision": str(tiny("sd")),
        "data": str(data),
        "cache": data.parent / "latents",
        "device": "cpu",
        "cache_dtype": "float32",
        "batch_size": 1,
    }
    return CacheConfig(**(settings | changes))  # type: ignore[arg-type]


def config(tiny: Tiny, data: Path, out: Path, **changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "language": str(tiny("t5")),
        "vision": str(tiny("sd")),
        "data": str(data),
        "out": out,
        "rank": 4,
        "steps": 8,
        "batch_size": 2,
        "log_every": 1,
        "sample_every": 0,
        "device": "cpu",
        "tracker": "none",
        "cache_dtype": "float32",
        "validate_every": 0,
    }
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


def losses(out: Path) -> list[float]:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize(("vision", "buckets"), [("sd", True), ("sana", False)])
def test_cached_latents_train_as_encoding_does(
    tiny: Tiny, captions: Path, tmp_path: Path, vision: str, buckets: bool
) -> None:
    side = 32 if vision == "sana" else None
    common = {"vision": str(tiny(vision)), "buckets": buckets, "resolution": side}
    assert fill(cached(tiny, captions, **common)) == (24, [])
    assert fill(cached(tiny, captions, **common)) == (0, [])  # nothing is left to do
    Run(config(tiny, captions, tmp_path / "plain", **common)).train()
    for path in tmp_path.glob("*.png"):
        path.unlink()  # not a single picture is read
    run = Run(config(tiny, captions, tmp_path / "cached", cache=tmp_path / "latents", **common))
    run.train()
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    assert not run.unreadable


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_fills_its_cache(tiny: Tiny, captions: Path, tmp_path: Path, workers: int) -> None:
    settings = config(
        tiny,
        captions,
        tmp_path / "run",
        cache=tmp_path / "latents",
        steps=12,
        workers=workers,
        flip=False,
    )
    first = Run(settings).train()
    assert fill(cached(tiny, captions, flip=False)) == (0, [])  # two epochs have seen all
    for path in tmp_path.glob("*.png"):
        path.unlink()
    settings.out = tmp_path / "again"
    assert losses(tmp_path / "run") == pytest.approx(
        (Run(settings).train(), losses(tmp_path / "again"))[1], rel=1e-4
    )
    assert first.training_summary["skipped_images"] == 0


def test_killed_and_repeated_nothing_is_lost_or_doubled(
    tiny: Tiny, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavi_bridge.data.cache.latents.SHARD", 5)
    settings = cached(tiny, captions)
    fill(cached(tiny, captions, cache=tmp_path / "straight"))

    def slowly() -> None:
        flush = LatentCache.flush

        def slow(cache: LatentCache) -> None:
            time.sleep(0.1)
            flush(cache)

        LatentCache.flush = slow  # type: ignore
        fill(settings)

    process = FORK.Process(target=slowly)
    process.start()
    while len(list(settings.cache.glob("*.safetensors"))) < 2:
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    before = len(list(settings.cache.glob("*.safetensors")))
    assert 2 <= before < 5
    encoded, _ = fill(settings)
    assert encoded == 24 - 5 * before
    run = Run(config(tiny, captions, tmp_path / "a", cache=settings.cache))
    other = Run(config(tiny, captions, tmp_path / "b", cache=tmp_path / "straight"))
    assert run.train().id == other.train().id


def test_what_was_missing_is_added_and_nothing_is_replaced(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(b"")
    assert fill(cached(tiny, captions, flip=False, max_bad=0.5))[0] == 11
    (tmp_path / "3.png").write_bytes(whole)
    assert fill(cached(tiny, captions, flip=False)) == (1, [])
    assert fill(cached(tiny, captions)) == (12, [])  # the mirror images
    assert fill(cached(tiny, captions)) == (0, [])


@pytest.mark.slow
def test_two_processes_share_the_work(tiny: Tiny, captions: Path, tmp_path: Path) -> None:
    run_distributed(
        "cache",
        "--vision",
        tiny("sd"),
        "--data",
        captions,
        "--cache",
        tmp_path / "latents",
        "--device",
        "cpu",
    )
    assert fill(cached(tiny, captions, cache_dtype="float16")) == (0, [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cache_dtype": "float16"}, r"another dtype \(float32 there, float16 here\)"),
        ({"resolution": 24}, r"another sizes \(\['16×16'\] there, \['24×24'\] here\)"),
        ({"vision": "sd-v"}, "another autoencoder"),
        ({"fast_decode": False}, "another fast_decode"),
        ({"data": "other"}, "another data set"),
    ],
)
def test_a_cache_of_something_else_is_refused(
    tiny: Tiny, captions: Path, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    fill(cached(tiny, captions, flip=False))
    if "vision" in change:
        import shutil

        from safetensors.torch import load_file, save_file

        other = tmp_path / "vision"
        shutil.copytree(tiny("sd"), other)
        (path,) = (other / "vae").glob("*.safetensors")
        save_file({k: v + 1e-3 for k, v in load_file(path).items()}, path, {"format": "pt"})
        change = {"vision": str(other)}
    if "data" in change:
        (tmp_path / "other.tsv").write_text(captions.read_text().replace("picture 3", "a cat"))
        change = {"data": str(tmp_path / "other.tsv")}
    data = Path(str(change.pop("data", captions)))
    settings = config(tiny, data, tmp_path / "run", cache=tmp_path / "latents", **change)
    with pytest.raises(BridgeError, match=reason):
        Run(settings)


def test_damage_is_noticed(tiny: Tiny, captions: Path, tmp_path: Path) -> None:
    fill(cached(tiny, captions, flip=False))
    (shard,) = (tmp_path / "latents").glob("*.safetensors")
    whole = shard.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    begin = json.loads(whole[8:header])["moments"]["data_offsets"][0] + header
    shard.write_bytes(whole[: begin + 9] + bytes([whole[begin + 9] ^ 1]) + whole[begin + 10 :])
    settings = config(tiny, captions, tmp_path / "run", cache=tmp_path / "latents", flip=False)
    with pytest.raises(BridgeError, match=r"\.safetensors is damaged \(row 0\); delete it"):
        Run(settings).train()
    shard.write_bytes(whole[:100])
    with pytest.raises(BridgeError, match=r"\.safetensors is damaged"):
        Run(settings)


def test_unreadable_pictures_are_counted_and_many_stop_it(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    (tmp_path / "3.png").write_bytes(b"")
    encoded, errors = fill(cached(tiny, captions, flip=False, max_bad=0.5))
    assert (encoded, len(errors)) == (11, 1)
    assert "captions.tsv:4" in errors[0]
    with pytest.raises(BridgeError, match=r"captions\.tsv:4.*more than max_bad"):
        fill(cached(tiny, captions, flip=False, cache=tmp_path / "strict"))


def test_a_random_crop_cannot_be_cached(tiny: Tiny, captions: Path, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="a cache keeps one crop"):
        config(tiny, captions, tmp_path, cache=tmp_path / "latents", crop="random")


def test_moments_give_the_very_latents_of_encoding(tiny: Tiny) -> None:
    for name in ("sd", "sana"):
        vision = Bridge.connect(tiny("t5"), tiny(name), rank=1, device="cpu").vision
        side = vision.resolution
        pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
        generators = [[torch.Generator().manual_seed(n) for n in (1, 2)] for _ in range(2)]
        mean, std = vision.moments(pixels)
        drawn = vision.draw(mean, std, generators[0])
        assert torch.equal(drawn, vision.encode(pixels, generators[1]))


# ---- encoded captions


def told(tiny: Tiny, data: Path, out: Path, **changes: object) -> TrainConfig:
    return config(tiny, data, out, **({"language_rank": 0, "rank": 4} | changes))


@pytest.mark.parametrize("vision", ["sd", "pixart-alpha"])
def test_training_from_encoded_captions_is_the_same_training(
    tiny: Tiny, captions: Path, tmp_path: Path, vision: str
) -> None:
    """Without a mask padding is kept, with one it is left out; on disk it is the same again."""
    same = {"vision": str(tiny(vision)), "resolution": 16, "caption_dropout": 0.0}
    Run(told(tiny, captions, tmp_path / "plain", **same)).train()
    for name in ("first", "second"):
        out = tmp_path / name
        run = Run(told(tiny, captions, out, text_cache=tmp_path / "text", **same))
        assert run.text_cache is not None
        assert len(run.text_cache) == (0 if name == "first" else 12)
        run.train()
        assert losses(out) == pytest.approx(losses(tmp_path / "plain"), abs=1e-6)
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
    assert run.text_cache is not None
    longest = max(len(run.text_cache[f"picture {n}"]) for n in range(12))
    assert longest == (77 if vision == "sd" else 12)  # bytes, start and end


def test_a_caption_is_kept_once(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {"format": 1})
    for value in (1.0, 2.0):
        cache.add("a wall", torch.full((3, 4), value))
        cache.add(f"number {value}", torch.zeros(2, 4))
        cache.flush()
    again = FeatureCache(tmp_path, {"format": 1})
    assert len(again) == 3
    assert again["a wall"].unique().tolist() == [1.0]
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_language_model_that_trains_has_no_text_cache(tiny: Tiny, captions: Path) -> None:
    with pytest.raises(BridgeError, match="stays as it is: set 'language_rank' 0"):
        config(tiny, captions, captions.parent / "run", text_cache=captions.parent / "text")


def test_encoded_captions_of_another_precision_are_refused(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    Run(told(tiny, captions, tmp_path / "one", text_cache=tmp_path / "text")).train()
    with pytest.raises(BridgeError, match=r"another precision \(float32 there, bfloat16 here\)"):
        Run(told(tiny, captions, tmp_path / "two", text_cache=tmp_path / "text", dtype="bfloat16"))
    with pytest.raises(BridgeError, match=r"another tokens \(77 there, 120 here\)"):
        Run(
            told(
                tiny,
                captions,
                tmp_path / "two",
                text_cache=tmp_path / "text",
                vision=str(tiny("pixart-alpha")),
            )
        )


def test_damaged_features_are_named(tiny: Tiny, captions: Path, tmp_path: Path) -> None:
    folder = tmp_path / "text"
    Run(told(tiny, captions, tmp_path / "one", text_cache=folder)).train()
    for shard in folder.glob("*.safetensors"):
        raw = bytearray(shard.read_bytes())
        raw[-5000:-100] = bytes(4900)
        shard.write_bytes(raw)
    with pytest.raises(BridgeError, match=r"safetensors is damaged .* it is made again"):
        Run(told(tiny, captions, tmp_path / "two", text_cache=folder)).train()
    shard.write_bytes(b"cut")
    with pytest.raises(BridgeError, match=r"safetensors is damaged .* it is made again"):
        Run(told(tiny, captions, tmp_path / "three", text_cache=folder))
