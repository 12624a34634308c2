"""Where a bridge lives and what travels there: devices, precision, draws, masks, tables."""

import copy
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from diffusers.models import embeddings
from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, nn

from lavi_bridge import Bridge, BridgeError, testing
from lavi_bridge.bridge import lora
from lavi_bridge.config import LoRA
from lavi_bridge.data import Sample
from lavi_bridge.data.examples import Example
from lavi_bridge.files.locate import locate
from lavi_bridge.languages import load_language
from lavi_bridge.metrics.base import exact
from lavi_bridge.running.blocks import compile_sampling
from lavi_bridge.running.device import (
    Agreement,
    choose_device,
    float32_products,
    own_device,
    to_device,
)
from lavi_bridge.text import Text
from lavi_bridge.train.run import Run
from lavi_bridge.visions.noise.process import gaussian
from tests.train.test_train import captions, config

__all__ = ["captions"]  # a fixture of the training tests

Tiny = Callable[[str], Path]


def seeded(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


# ---- devices


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(count))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "device", "message"),
    [
        (0, "cuda", "torch sees no GPU here; use cpu"),
        (0, "cuda:1", "torch sees no GPU here; use cpu"),
        (1, "cuda:7", "there is one: cuda:0"),
        (2, "cuda:2", "there are 2: cuda:0 to cuda:1"),
        (1, "mps", "torch sees none here; use cpu"),
        (0, "xpu:0", "torch sees none here; use cpu"),
        (0, "gpu", "; use cpu, cuda, cuda:1"),
    ],
)
def test_a_device_that_is_not_there_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, count: int, device: str, message: str
) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(BridgeError, match=f"'{device}'.*{message}"):
        choose_device(device)


@pytest.mark.parametrize(("cuda", "told"), [(None, True), ("12.8", False)])
def test_a_torch_for_cpus_says_so_where_a_gpu_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, told: bool
) -> None:
    gpus(monkeypatch, 0)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(BridgeError) as caught:
        choose_device("cuda")
    assert ("(this torch is built for CPUs; https://pytorch.org" in str(caught.value)) is told


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1", "cpu"])
def test_a_device_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    gpus(monkeypatch, 2)
    assert choose_device(device) == torch.device(device)


@pytest.mark.parametrize(("count", "rank", "number"), [(1, "3", 0), (8, "3", 3), (2, "5", 1)])
def test_a_process_takes_one_of_the_gpus_that_it_sees(
    monkeypatch: pytest.MonkeyPatch, count: int, rank: str, number: int
) -> None:
    gpus(monkeypatch, count)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert own_device(None) == torch.device("cuda", number)
    assert own_device("cuda:0") == torch.device("cuda:0")


def test_on_a_cpu_nothing_is_copied() -> None:
    tensor = torch.ones(3)
    assert to_device(tensor, torch.device("cpu")) is tensor


# ---- precision


def test_what_judges_multiplies_in_float32_whatever_trained_before() -> None:
    with float32_products("high"):
        with exact():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
        with pytest.raises(ZeroDivisionError), exact():
            _ = 1 / 0
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("steps", [1, 0])
def test_a_run_in_float32_multiplies_in_float32_and_leaves_no_setting_behind(
    tiny: Tiny, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    seen = []
    monkeypatch.setattr(
        Run, "_loop", lambda *_, **__: seen.append(torch.get_float32_matmul_precision())
    )
    run = Run(config(tiny, captions, tmp_path / "run", dry_run=not steps))
    with float32_products("high"):
        run.train()
        assert torch.get_float32_matmul_precision() == "high"
    assert seen == ["highest"] * steps


@pytest.mark.parametrize("cast", ["float", "bfloat16", "half"])
def test_a_bridge_has_an_id_and_is_saved_in_any_precision(
    tiny: Tiny, tmp_path: Path, cast: str
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=2, device="cpu")
    before = bridge.id
    getattr(bridge, cast)()
    assert (bridge.id == before) == (cast == "float")
    bridge.save(tmp_path / "bridge")
    bridge.adapter.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    assert bridge.id != before  # a single number counts, too


def test_fused_weights_stay_at_their_address() -> None:
    """CUDA graphs hold addresses."""
    net = nn.Sequential(nn.Linear(4, 4))
    lora.inject(net, LoRA(2, "0"))
    weight = lora.layers(net)["0"].get_base_layer().weight
    address, values = weight.data_ptr(), weight.detach().clone()
    with lora.fused(net):
        assert weight.data_ptr() == address
    assert weight.data_ptr() == address
    assert torch.equal(weight, values)


# ---- what models are given


@pytest.mark.parametrize("family", testing.LANGUAGES)
def test_a_mask_that_is_made_here_reads_to_the_same_bits(tiny: Tiny, family: str) -> None:
    """transformers would make it from the same numbers, and wait for a GPU to tell them."""
    language = load_language(locate(str(tiny(family))), dtype=torch.float32)
    for prompts in (["a", "a red wall"], ["a long red wall, and more"]):
        tokens = language.tokenize(prompts, 12)
        theirs = language.model(tokens.ids, attention_mask=tokens.mask, return_dict=True)
        assert torch.equal(language.hidden(tokens.ids, tokens.mask), theirs.last_hidden_state)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bart", "electra"])
def test_no_language_model_keeps_what_nobody_reads(tiny: Tiny, family: str) -> None:
    language = load_language(locate(str(tiny(family))), dtype=torch.float32)
    tokens = language.tokenize(["a"], 8)
    found = language.model(tokens.ids, attention_mask=tokens.mask)
    assert getattr(found, "past_key_values", None) is None


@pytest.mark.parametrize("family", ["ldmbert", "t5", "gpt2", "modernbert"])
def test_activations_are_computed_again_where_a_model_can(tiny: Tiny, family: str) -> None:
    bridge = Bridge.connect(tiny(family), tiny("pixart-alpha"), rank=2, device="cpu").train()
    bridge.checkpoint_activations()
    bridge.loss(
        latents=torch.zeros(1, *bridge.vision.latent_shape(16, 16)), captions=["a"]
    ).backward()
    assert all(p.grad is not None for p in bridge.trainable_parameters())


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 3, 1, 5), (1, 4, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_is_what_diffusers_draws(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    like = torch.empty(shape, dtype=dtype)
    each = range(len(like))
    theirs = randn_tensor(shape, seeded(*each), dtype=dtype)
    assert torch.equal(gaussian(like, seeded(*each)), theirs)
    theirs = randn_tensor(shape, seeded(7)[0], dtype=dtype)
    assert torch.equal(gaussian(like, seeded(7)[0]), theirs)
    assert torch.equal(gaussian(like, tuple(seeded(7))), theirs)
    torch.manual_seed(3)
    theirs = torch.randn(shape, dtype=dtype)
    torch.manual_seed(3)
    assert torch.equal(gaussian(like, None), theirs)


@pytest.mark.parametrize("vision", ["sd", "pixart-alpha", "ldm"])
def test_latents_are_drawn_as_the_autoencoder_draws_them(tiny: Tiny, vision: str) -> None:
    model = Bridge.connect(tiny("t5"), tiny(vision), rank=0, device="cpu").vision
    pixels = torch.rand(2, 3, 16, 16)
    posterior = model.vae.encode(pixels).latent_dist
    theirs = posterior.sample(seeded(1, 2)).float() * model.vae.config.scaling_factor
    assert torch.equal(model.encode(pixels, seeded(1, 2)), theirs)


def test_the_positions_of_a_size_are_computed_once(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("pixart-alpha"), rank=0, device="cpu")
    patches = bridge.vision.backbone.pos_embed
    plain = copy.deepcopy(patches)
    plain._forward_hooks.clear()
    plain._forward_pre_hooks.clear()
    own = patches.pos_embed
    sizes = [(8, 8), (4, 12), (12, 4), (8, 8), (4, 12)]
    latents = [torch.randn(1, 4, *size) for size in sizes]
    expected = [plain(x) for x in latents]
    with patch.object(
        embeddings, "get_2d_sincos_pos_embed", wraps=embeddings.get_2d_sincos_pos_embed
    ) as compute:
        assert all(torch.equal(patches(x), e) for x, e in zip(latents, expected, strict=True))
    assert compute.call_count == 2
    assert patches.pos_embed is own
    assert isinstance(patches, embeddings.PatchEmbed)
    with pytest.raises(RuntimeError, match="channels"):
        patches(torch.randn(1, 3, 4, 12))
    assert patches.pos_embed is own


@pytest.mark.parametrize("vision", ["pixart-alpha", "pixart-alpha-1024", "sana"])
def test_text_from_elsewhere_is_cast_and_masked_as_it_is(tiny: Tiny, vision: str) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny(vision), rank=0, device="cpu")
    text = bridge.encode(["a", "red"])
    there = text.to(dtype=torch.bfloat16, device=torch.device("cpu"))
    assert there.hidden.dtype == torch.bfloat16
    assert there.mask is text.mask
    assert text.to(dtype=torch.float32).hidden is text.hidden
    assert isinstance(there, Text)


# ---- training


def test_processes_agree_on_what_was_asked_a_step_before() -> None:
    patience = timedelta(minutes=1)
    alone = Agreement(1, patience=patience)
    assert [alone(asked) for asked in (False, True)] == [False, True]  # at once
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        several = Agreement(2, patience=patience)
        answers = [several(asked) for asked in (False, True, False, False)]
    finally:
        dist.destroy_process_group()
    assert answers == [False, False, True, False]


@pytest.mark.parametrize("min_snr", [0.0, 5.0])
@pytest.mark.parametrize("lacking", [0, 1, 3])
def test_a_batch_keeps_its_number_of_pictures_where_blocks_are_compiled(
    tiny: Tiny, captions: Path, tmp_path: Path, lacking: int, min_snr: float
) -> None:
    """The pictures that lack count nothing: the loss and its gradient are those of the others."""
    run = Run(config(tiny, captions, tmp_path / "run", batch_size=3, max_bad=1.0, min_snr=min_snr))
    pixels = torch.zeros(3, 16, 16, dtype=torch.uint8)
    examples = [
        Example(
            None if n < lacking else pixels + n,
            f"number {n}",
            n,
            Sample(n, False),
            "unreadable" if n < lacking else None,
        )
        for n in range(3)
    ]
    counts: list[int] = []
    predict = run.bridge.vision.predict

    def counted(x_t: torch.Tensor, *rest: Any) -> torch.Tensor:
        counts.append(len(x_t))
        return predict(x_t, *rest)

    run.bridge.vision.predict = counted  # type: ignore[method-assign, assignment]
    found = []
    for how in ("none", "blocks"):
        run.config.compile = how
        run.bridge.zero_grad()
        loss = run.loss(run.bridge, examples)
        loss.backward()
        grads = [p.grad.flatten() for p in run.bridge.adapter.parameters() if p.grad is not None]
        found.append(torch.cat([loss.detach().view(1), *grads]))
    assert counts == [max(1, 3 - lacking), 3]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-7)
    assert bool(found[1].any()) == (lacking < 3)


@pytest.mark.parametrize("how", ["none", "blocks", "graphs"])
def test_sampling_compiles_the_image_model_alone(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    compiled: list[str] = []
    marks: list[int] = []
    monkeypatch.setattr(nn.Module, "compile", lambda block, **_: compiled.append(str(type(block))))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(1))
    bridge = Bridge.connect(tiny("t5"), tiny("pixart-alpha"), rank=2, device="cpu")
    count = compile_sampling(bridge.vision.backbone, how)  # type: ignore[arg-type]
    assert count == len(compiled) == (0 if how == "none" else 2)
    bridge.generate("a", steps=3)
    assert len(marks) == (3 if how == "graphs" else 0)
