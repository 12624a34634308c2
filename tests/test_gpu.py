"""What only a GPU shows: run by name, `pytest -m gpu`.

Without one they run on a simulated GPU, in the default suite, too: see `test_fake_cuda.py`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from lavi_bridge import Bridge, BridgeError, testing, warm_start
from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.running.device import choose_device
from lavi_bridge.shapes.world import ShapesWorld
from lavi_bridge.train.caching import fill
from lavi_bridge.train.options import CacheConfig, TrainConfig
from lavi_bridge.train.run import Run
from lavi_bridge.visions.noise.process import Diffusion, Flow
from tests.fake_cuda import SIMULATED, FakeCuda
from tests.train.test_train import COLORS, captions, config, metrics

__all__ = ["captions"]  # a fixture of the training tests

Tiny = Callable[[str], Path]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def own_state() -> Iterator[None]:
    """accelerate keeps the first run's device for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.cuda.set_device(0)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def on_gpu(tiny: Tiny, data: Path, out: Path, **changes: object) -> TrainConfig:
    return config(tiny, data, out, **({"device": "cuda", "validate_every": 0} | changes))


def devices(bridge: Bridge) -> set[str]:
    """Where all weights and buffers of a bridge are."""
    return {str(tensor.device) for tensor in [*bridge.parameters(), *bridge.buffers()]}


@pytest.mark.parametrize(
    ("vision", "dtype"),
    [("sd", "float32"), *((vision, "bfloat16") for vision in testing.VISIONS)],
)
def test_a_pair_trains_and_samples_on_the_gpu(
    tiny: Tiny, vision: str, dtype: str, request: pytest.FixtureRequest
) -> None:
    if SIMULATED in request.config.stash and vision in ("z-image", "cogview4", "hidream"):
        pytest.skip(
            "the simulated GPU loses what one_hot, pad_sequence or a split's gradient makes"
        )
    bridge = Bridge.connect(tiny("t5"), tiny(vision), rank=4, dtype=dtype, device="cuda").train()
    side = bridge.vision.resolution
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    bridge.loss(torch.zeros(2, 3, side, side), ["a", "b"], generator=generators).backward()
    assert all(p.grad is not None for p in bridge.trainable_parameters())
    assert len(bridge.generate(["a", "b"], steps=2)) == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", sorted(set(ADAPTERS) - {"identity"}))
def test_every_adapter_trains_and_samples_on_the_gpu(
    whole: Tiny, tiny: Tiny, kind: str, dtype: str
) -> None:
    bridge = Bridge.connect(
        tiny("llama"), whole("sd"), adapter=kind, rank=4, tokens=40, dtype=dtype, device="cuda"
    ).train()
    assert devices(bridge) == {"cuda:0"}
    optimizer = torch.optim.AdamW(bridge.trainable_parameters(), lr=1e-3)
    bridge.loss(
        latents=torch.zeros(2, *bridge.vision.latent_shape(16, 16), device="cuda"),
        captions=["a red wall", ""],
        generator=torch.Generator().manual_seed(0),
    ).backward()
    assert all(p.grad is not None and p.grad.is_cuda for p in bridge.trainable_parameters())
    before = bridge.id
    optimizer.step()
    assert bridge.id != before
    assert len(bridge.generate(["a", "b"], steps=2)) == 2


def test_gpu_and_cpu_start_from_the_same_noise(tiny: Tiny) -> None:
    pictures = []
    for device in ("cpu", "cuda"):
        bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=4, dtype="float32", device=device)
        pictures.append(np.asarray(bridge.generate("a", steps=2, seed=3)[0], int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 2


@pytest.mark.parametrize(
    ("language", "vision"),
    [
        ("llama", "pixart-alpha-1024"),
        ("clip_text_model", "pixart-alpha"),
        ("gemma3", "pixart-sigma"),
        ("gpt2", "ldm"),
        ("ldmbert", "sana"),
    ],
)
def test_every_kind_of_language_model_reads_on_the_gpu(
    tiny: Tiny, language: str, vision: str
) -> None:
    bridge = Bridge.connect(tiny(language), tiny(vision), rank=2, device="cuda").train()
    bridge.checkpoint_activations()
    assert devices(bridge) == {"cuda:0"}
    bridge.loss(
        latents=torch.zeros(1, *bridge.vision.latent_shape(16, 16), device="cuda"),
        captions=["a red wall"],
    ).backward()
    assert all(p.grad is not None and p.grad.is_cuda for p in bridge.trainable_parameters())


@pytest.mark.parametrize(
    ("vision", "sampler"),
    [("pixart-alpha", name) for name in Diffusion.samplers]
    + [("sana", name) for name in Flow.samplers],
)
def test_every_sampler_draws_on_the_gpu(tiny: Tiny, vision: str, sampler: str) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny(vision), rank=2, device="cuda")
    assert len(bridge.generate("a", steps=3, scheduler=sampler)) == 1


def test_a_bridge_is_saved_and_loaded_on_the_gpu(tiny: Tiny, tmp_path: Path) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("pixart-alpha"), rank=2, device="cuda")
    bridge.save(tmp_path / "bridge")
    there = Bridge.load(tmp_path / "bridge", device="cuda")
    assert devices(there) == {"cuda:0"}
    assert there.id == bridge.id == Bridge.load(tmp_path / "bridge", device="cpu").id


def test_a_run_trains_samples_validates_and_goes_on(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    def settings(steps: int) -> TrainConfig:
        return on_gpu(
            tiny,
            captions,
            tmp_path / "run",
            steps=steps,
            accumulate=2,
            ema=0.5,
            vision=str(tiny("pixart-alpha")),
            min_snr=5.0,
            sample_every=2,
            sample_steps=1,
            sample_prompts=["a wall"],
            save_every=2,
            validate_every=2,
            batch_size=8,
        )

    Run(settings(1)).train()
    trained = Run(settings(2)).train()
    assert [m["step"] for m in metrics(tmp_path / "run") if "loss" in m] == [1, 2]
    assert devices(trained) == {"cuda:0"}
    assert Bridge.load(tmp_path / "run", device="cpu").id == trained.id


def test_pictures_and_captions_are_cached_from_the_gpu(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    cache = CacheConfig(
        str(tiny("pixart-alpha")), str(captions), tmp_path / "latents", flip=False, device="cuda"
    )
    assert fill(cache) == (8, [])
    settings = on_gpu(
        tiny,
        captions,
        tmp_path / "run",
        vision=str(tiny("pixart-alpha")),
        cache=cache.cache,
        text_cache=tmp_path / "captions",
        language_rank=0,
        steps=2,
    )
    Run(settings).train()
    assert [m["step"] for m in metrics(tmp_path / "run")] == [1, 2]


def test_buckets_and_missing_pictures_on_the_gpu(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    for color in COLORS[:4]:
        Image.new("RGB", (40, 16), color).save(captions.parent / f"{color}.png")
    (captions.parent / "black.png").write_bytes(b"no picture")
    settings = on_gpu(
        tiny,
        captions,
        tmp_path / "run",
        vision=str(tiny("pixart-sigma")),
        buckets=True,
        max_bad=0.5,
        batch_size=4,
        cache=tmp_path / "latents",
        caption_dropout=0.5,
        steps=3,
    )
    Run(settings).train()
    assert metrics(tmp_path / "run")[-1]["skipped_images"] == 1


def test_the_second_gpu_is_taken_where_it_is_asked_for(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two")
    settings = on_gpu(
        tiny, captions, tmp_path / "run", device="cuda:1", steps=1, vision=str(tiny("sana"))
    )
    trained = Run(settings).train()
    assert devices(trained) == {"cuda:1"}


def test_a_gpu_that_is_not_there_is_an_error_of_one_line() -> None:
    with pytest.raises(BridgeError, match=r"device 'cuda:9' asked for, but there "):
        choose_device("cuda:9")


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> FakeCuda:
    """The simulated GPU, which counts."""
    if SIMULATED not in request.config.stash:
        pytest.skip("a real GPU counts no waits")
    return request.config.stash[SIMULATED]


@pytest.mark.parametrize(
    ("language", "vision"),
    [("t5", "sd"), ("llama", "pixart-alpha-1024"), ("gemma3", "pixart-alpha"), ("bert", "sana")],
)
def test_the_host_waits_for_nothing_in_a_step(
    tiny: Tiny, gpu: FakeCuda, language: str, vision: str
) -> None:
    bridge = Bridge.connect(tiny(language), tiny(vision), rank=2, device="cuda").train()
    side = bridge.vision.side_step * 2

    def step() -> None:
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        loss = bridge.loss(
            torch.zeros(2, 3, side, side), ["a", "a red wall"], trim=True, generator=generators
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bridge.trainable_parameters(), 1.0)

    step()
    gpu.reset()
    step()
    assert gpu.waits.total() == 0, gpu.report()
    assert not gpu.doubles  # a foreign size's positions are kept


@pytest.mark.parametrize(
    ("sampler", "most"), [("unipc", 10), ("ddim", 0), ("euler", 0), ("dpm++", 0), ("pndm", 0)]
)
def test_samplers_wait_where_they_solve_and_nowhere_else(
    tiny: Tiny, gpu: FakeCuda, sampler: str, most: int
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("pixart-alpha"), rank=2, device="cuda")
    latents = torch.randn(1, *bridge.vision.latent_shape(16, 16), device="cuda")
    text = bridge.encode("a")
    gpu.reset()
    with torch.no_grad():
        steps = list(bridge.sample(text, latents=latents, scheduler=sampler, steps=10))
    assert gpu.waits.total() <= most, gpu.report()
    assert steps[0].latents.is_cuda


def test_a_warm_start_runs_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On states, solved first, with the report on predictions."""
    monkeypatch.setattr("lavi_bridge.train.warm_start.predictions.BANK", 4)
    monkeypatch.setattr("lavi_bridge.train.warm_start.predictions.BANK_STEPS", 1)
    bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-pixart", rank=2, device="cuda")
    captions = ShapesWorld().captions(24)
    report = warm_start(bridge, captions, solve="ridge", steps=1, batch_size=4)
    assert report.steps == 1
    assert report.solved is not None


def test_pairs_teach_by_sets_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lavi_bridge.train.warm_start.predictions.BANK", 4)
    monkeypatch.setattr("lavi_bridge.train.warm_start.predictions.BANK_STEPS", 1)
    bridge = Bridge.connect(
        "zoo:tiny-llama", "zoo:tiny-sd", adapter="fusion", rank=4, device="cuda"
    )
    pairs = [(f"please draw {n} crimson discs", f"{n} red circles") for n in ("one", "two")]
    report = warm_start(bridge, pairs=pairs, match="sets", steps=3, batch_size=4)
    assert report.states["all"] > 0
    assert len(bridge.generate("a", steps=2, adapter_scale=0.5)) == 1
