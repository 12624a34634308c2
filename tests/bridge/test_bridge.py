"""The bridge itself: what it joins, what it draws, what it refuses."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavi_bridge import Bridge, BridgeError, Text, testing
from lavi_bridge.visions import VISIONS

Tiny = Callable[[str], Path]


@pytest.fixture
def bridge(tiny: Tiny) -> Bridge:
    return Bridge.connect(tiny("t5"), tiny("sd"), rank=4)


def test_the_same_seed_makes_the_same_fresh_bridge(tiny: Tiny) -> None:
    ids = [Bridge.connect(tiny("t5"), tiny("sd"), rank=4, seed=s).id for s in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_a_fresh_bridge_leaves_the_callers_random_state_alone(tiny: Tiny) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    Bridge.connect(tiny("t5"), tiny("sd"), rank=4)
    assert torch.equal(torch.rand(1), expected)


def test_loss_takes_pictures_or_latents_and_captions_or_text(bridge: Bridge) -> None:
    pixels, captions = torch.rand(2, 3, 16, 16), ["a", "b"]
    latents = bridge.vision.encode(pixels, torch.Generator().manual_seed(0))
    given = {"noise": torch.randn(2, 4, 8, 8), "timesteps": torch.tensor([3, 800])}
    from_latents = bridge.loss(latents=latents, captions=captions, **given)  # type: ignore[arg-type]
    from_both = bridge.loss(latents=latents, text=bridge.encode(captions), **given)  # type: ignore[arg-type]
    from_pixels = bridge.loss(pixels, captions, generator=torch.Generator().manual_seed(0), **given)  # type: ignore[arg-type]
    assert torch.equal(from_latents, from_both)
    assert torch.equal(from_latents, from_pixels)


@pytest.mark.parametrize(
    "arguments", [{}, {"captions": ["a"]}, {"pixels": torch.zeros(1, 3, 16, 16)}]
)
def test_loss_says_what_it_lacks(bridge: Bridge, arguments: dict[str, object]) -> None:
    with pytest.raises(BridgeError, match="loss needs"):
        bridge.loss(**arguments)  # type: ignore[arg-type]


def test_one_generator_for_each_picture_makes_noise_independent_of_the_batch(
    bridge: Bridge,
) -> None:
    x0 = torch.zeros(3, 4, 8, 8)
    generators = [torch.Generator().manual_seed(s) for s in (5, 6, 7)]
    together = bridge.vision.noise(x0, generator=generators)
    alone = bridge.vision.noise(x0[1:2], generator=[torch.Generator().manual_seed(6)])
    assert torch.equal(together.noise[1:2], alone.noise)
    assert torch.equal(together.timesteps[1:2], alone.timesteps)


def test_noise_unpacks_as_the_three_things_that_training_needs(bridge: Bridge) -> None:
    noised = bridge.vision.noise(torch.zeros(1, 4, 8, 8))
    x_t, timesteps, target = noised
    assert (x_t is noised.x_t, timesteps is noised.timesteps, target is noised.target) == (
        True,
    ) * 3


def test_a_caption_for_every_picture(bridge: Bridge) -> None:
    for captions in ("ab", ["a"]):
        with pytest.raises(BridgeError, match="2 pictures need a list of as many captions"):
            bridge.loss(torch.zeros(2, 3, 16, 16), captions)


def test_sampling_yields_every_step_and_the_caller_decides(bridge: Bridge) -> None:
    text, null = bridge.encode(["a", "b"]), bridge.encode("")
    latents = torch.randn(2, 4, 8, 8)
    steps = bridge.sample(text, null, latents=latents, scheduler="ddim", steps=5, guidance=2.0)
    seen = [(step.index, step.latents.shape) for step in steps]
    assert seen == [(i, (2, 4, 8, 8)) for i in range(5)]


def test_guidance_one_needs_no_null_prompt_and_equals_none(bridge: Bridge) -> None:
    text, latents = bridge.encode(["a"]), torch.randn(1, 4, 8, 8)
    *_, a = bridge.sample(text, latents=latents, scheduler="ddim", steps=3)
    *_, b = bridge.sample(text, text, latents=latents, scheduler="ddim", steps=3, guidance=1.0)
    assert torch.equal(a.latents, b.latents)


def test_generate_keeps_the_training_mode_and_the_weights(bridge: Bridge) -> None:
    bridge.train()
    before = {name: tensor.clone() for name, tensor in bridge.state_dict().items()}
    bridge.generate("a", steps=1)
    assert bridge.training
    assert not bridge.vision.vae.training
    assert all(torch.equal(before[name], tensor) for name, tensor in bridge.state_dict().items())


def test_picture_i_starts_from_seed_plus_i(bridge: Bridge) -> None:
    several = bridge.generate(["a"] * 3, steps=2, seed=10, batch_size=2)
    chosen = bridge.generate(["a"], steps=2, seed=12)
    assert np.abs(np.asarray(several[2], int) - np.asarray(chosen[0], int)).max() <= 1
    assert several[0].tobytes() != several[1].tobytes()


def test_sizes_other_than_square_are_drawn(bridge: Bridge) -> None:
    assert bridge.generate("a", steps=1, height=16, width=32)[0].size == (32, 16)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"height": 17}, "must be a positive multiple of 2 pixels"),
        ({"scheduler": "dmp++"}, r"no scheduler 'dmp\+\+' .*; known: .*did you mean 'dpm\+\+'"),
        ({"seed": [1, 2]}, "1 prompts, but 2 seeds"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seed": 2**64}, "seeds must lie between"),
    ],
)
def test_generate_refuses_what_it_cannot_do(
    bridge: Bridge, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BridgeError, match=reason):
        bridge.generate("a", **options)


def test_long_prompts_are_cut_with_a_warning_that_counts_them(bridge: Bridge) -> None:
    with pytest.warns(UserWarning, match=r"1 of 2 prompts are longer than 77 tokens .*has 202"):
        bridge.generate(["short", "x" * 200], steps=1)


def test_an_empty_prompt_keeps_a_real_token_and_padding_is_on_the_right(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("pixart-alpha"), rank=4)
    tokens = bridge.language.tokenize(["", "ab"], 6)
    assert tokens.mask.tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    assert tokens.ids[:, 0].tolist() == [1, 1]


def test_the_vision_model_decides_length_and_mask(tiny: Tiny) -> None:
    unet = Bridge.connect(tiny("t5"), tiny("sd"), rank=4)
    pixart = Bridge.connect(tiny("t5"), tiny("pixart-alpha"), rank=4)
    assert (unet.tokens, unet.encode("a").mask) == (77, None)
    assert pixart.tokens == 120
    mask = pixart.encode("ab").mask
    assert mask is not None
    assert mask.sum() == 4


def test_a_shorter_language_model_limits_the_tokens(tiny: Tiny) -> None:
    assert Bridge.connect(tiny("clip_text_model"), tiny("pixart-alpha"), rank=4).tokens == 77


def test_the_own_encoder_is_the_baseline() -> None:
    own = Bridge.own("zoo:tiny-sd")
    assert own.trainable_parameters() == []
    assert own.encode("a red circle").hidden.shape == (1, 32, 64)


def test_the_baseline_is_saved_and_loaded_as_any_bridge(tmp_path: Path) -> None:
    own = Bridge.own("zoo:tiny-sd")
    own.save(tmp_path / "own")
    again = Bridge.load(tmp_path / "own")
    assert again.id == own.id
    assert again.language.place.id == "zoo:tiny-sd/text_encoder"


def test_a_vision_folder_without_an_encoder_of_its_own_says_so(tiny: Tiny) -> None:
    with pytest.raises(BridgeError, match="has no text encoder of its own"):
        Bridge.own(tiny("sd"))


def test_an_adapter_of_the_wrong_width_is_refused(tiny: Tiny) -> None:
    from lavi_bridge.adapters import ADAPTERS

    parts = Bridge.connect(tiny("t5"), tiny("sd"), rank=4)
    with pytest.raises(BridgeError, match="adapter maps 8 to 24, but these models need 32 to 24"):
        Bridge(parts.language, parts.vision, ADAPTERS["linear"](8, 24))


# ---- on disk


def test_a_bridge_folder_holds_safetensors_and_a_card_with_both_licences(
    bridge: Bridge, tmp_path: Path
) -> None:
    bridge.save(tmp_path / "out")
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert names == [
        "README.md",
        "adapter/config.json",
        "adapter/diffusion_pytorch_model.safetensors",
        "bridge.json",
        "language_lora/adapter_config.json",
        "language_lora/adapter_model.safetensors",
        "vision_lora/adapter_config.json",
        "vision_lora/adapter_model.safetensors",
    ]
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("not stated beside the weights") == 2
    assert "base_model:" not in card  # local folders are no Hub ids, and nobody's business
    assert "pipeline_tag: text-to-image" in card
    record = json.loads((tmp_path / "out" / "bridge.json").read_text())
    assert record["language"]["lora"]["rank"] == 4
    assert record["tokens"] == 77


def test_saving_replaces_an_earlier_bridge_but_nothing_else(bridge: Bridge, tmp_path: Path) -> None:
    bridge.save(tmp_path / "out")
    bridge.save(tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(BridgeError, match="holds something else than a bridge"):
        bridge.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_saving_again_keeps_what_others_put_beside_the_bridge(
    bridge: Bridge, tmp_path: Path
) -> None:
    bridge.save(tmp_path / "out")
    (tmp_path / "out" / ".git").mkdir()
    (tmp_path / "out" / "notes.md").write_text("mine")
    bridge.save(tmp_path / "out")
    assert (tmp_path / "out" / ".git").is_dir()
    assert (tmp_path / "out" / "notes.md").read_text() == "mine"
    assert Bridge.load(tmp_path / "out").id == bridge.id


def test_a_file_is_no_place_for_a_bridge(bridge: Bridge, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BridgeError, match="is a file; give a folder"):
        bridge.save(tmp_path / "file")


def test_an_unreadable_model_card_of_a_base_model_does_not_stop_saving(
    tiny: Tiny, tmp_path: Path
) -> None:
    model = testing.make_language(tmp_path / "model", "t5")
    (model / "README.md").write_text("---\n: : {broken\n---\n")
    Bridge.connect(model, tiny("sd"), rank=2).save(tmp_path / "out")
    assert "not stated beside the weights" in (tmp_path / "out" / "README.md").read_text()


def test_the_licence_of_a_base_model_is_in_the_card(tmp_path: Path) -> None:
    Bridge.connect("zoo:tiny-t5-base", "zoo:tiny-sd", rank=2).save(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- language: zoo:tiny-t5-base: mit" in card
    assert "- vision: zoo:tiny-sd: mit" in card


def test_weights_from_another_save_are_noticed(bridge: Bridge, tmp_path: Path) -> None:
    import shutil

    bridge.save(tmp_path / "out")
    with torch.no_grad():
        bridge.trainable_parameters()[0].add_(1)
    bridge.save(tmp_path / "other")
    shutil.rmtree(tmp_path / "out" / "adapter")
    shutil.copytree(tmp_path / "other" / "adapter", tmp_path / "out" / "adapter")
    with pytest.raises(BridgeError, match="are not those of bridge"):
        Bridge.load(tmp_path / "out")


def test_a_changed_noise_process_is_another_base_model(
    bridge: Bridge, tiny: Tiny, tmp_path: Path
) -> None:
    bridge.save(tmp_path / "out")
    vision = testing.make_vision(tmp_path / "vision", "sd")
    assert Bridge.load(tmp_path / "out", vision=vision).id == bridge.id
    path = vision / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    with pytest.raises(BridgeError, match="was trained on another vision model"):
        Bridge.load(tmp_path / "out", vision=vision)


def test_a_variant_beside_the_weights_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    import shutil

    from lavi_bridge.files.weights import fingerprint

    folder = testing.make_vision(tmp_path / "vision", "sd") / "unet"
    before = fingerprint(folder)
    name = "diffusion_pytorch_model"
    shutil.copy(folder / f"{name}.safetensors", folder / f"{name}.non_ema.safetensors")
    assert fingerprint(folder) == before


def test_an_index_that_lacks_a_key_says_which(bridge: Bridge, tmp_path: Path) -> None:
    bridge.save(tmp_path / "out")
    (tmp_path / "out" / "bridge.json").write_text('{"format": 1, "id": "x"}')
    with pytest.raises(BridgeError, match=r"bridge\.json of '.*' lacks 'language'"):
        Bridge.load(tmp_path / "out")


def test_loading_leaves_the_callers_random_state_alone(bridge: Bridge, tmp_path: Path) -> None:
    bridge.save(tmp_path / "out")
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    Bridge.load(tmp_path / "out")
    assert torch.equal(torch.rand(1), expected)


def test_a_failed_save_leaves_the_earlier_bridge(
    bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge.save(tmp_path / "out")

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with torch.no_grad():
        bridge.trainable_parameters()[0].add_(1)
    monkeypatch.setattr("lavi_bridge.bridge.folder.model_card", full_disk)
    with pytest.raises(BridgeError, match="no space left"):
        bridge.save(tmp_path / "out")
    monkeypatch.undo()
    assert Bridge.load(tmp_path / "out").id != bridge.id
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_a_bridge_on_other_base_models_is_refused(bridge: Bridge, tmp_path: Path) -> None:
    bridge.save(tmp_path / "out")
    other = testing.make_language(tmp_path / "other", "t5", seed=1)
    with pytest.raises(BridgeError, match="was trained on another language model"):
        Bridge.load(tmp_path / "out", language=other)


def test_a_moved_base_model_is_named_and_can_be_given(tiny: Tiny, tmp_path: Path) -> None:
    model = testing.make_language(tmp_path / "model", "t5", seed=1)
    bridge = Bridge.connect(model, tiny("sd"), rank=4)
    bridge.save(tmp_path / "out")
    moved = model.rename(tmp_path / "moved")
    with pytest.raises(
        BridgeError, match=r"needs its language model, but no folder .*pass language=…"
    ):
        Bridge.load(tmp_path / "out")
    assert Bridge.load(tmp_path / "out", language=moved).id == bridge.id


@pytest.mark.parametrize(
    "part", ["adapter/diffusion_pytorch_model.safetensors", "vision_lora/adapter_model.safetensors"]
)
def test_a_truncated_file_is_named(bridge: Bridge, tmp_path: Path, part: str) -> None:
    bridge.save(tmp_path / "out")
    path = tmp_path / "out" / part
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BridgeError, match=f"{part} is damaged or cut short"):
        Bridge.load(tmp_path / "out")


def test_a_missing_part_is_named(bridge: Bridge, tmp_path: Path) -> None:
    bridge.save(tmp_path / "out")
    (tmp_path / "out" / "language_lora" / "adapter_model.safetensors").unlink()
    with pytest.raises(BridgeError, match=r"language_lora' has no adapter_model\.safetensors"):
        Bridge.load(tmp_path / "out")


def test_a_folder_that_is_no_bridge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"is no bridge: it has no bridge\.json"):
        Bridge.load(tmp_path)


# ---- models that cannot be had


@pytest.mark.parametrize(
    ("language", "reason"),
    [
        ("nosuch", "no folder 'nosuch', and it is neither a Hub id"),
        (
            "zoo:nosuch",
            "no model 'nosuch' in the zoo; known: tiny-clip, tiny-ldm, tiny-llama",
        ),
        ("owner/nosuch", "'owner/nosuch' is no folder here, and the Hub cannot be reached for it"),
    ],
)
def test_an_unknown_model_is_one_line(tiny: Tiny, language: str, reason: str) -> None:
    with pytest.raises(BridgeError, match=reason) as caught:
        Bridge.connect(language, tiny("sd"))
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_config_says_so(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"has no config\.json: is it a model folder"):
        Bridge.connect(tmp_path, tiny("sd"))
    with pytest.raises(BridgeError, match=r"has no model_index\.json"):
        Bridge.connect(tiny("t5"), tmp_path)


def test_an_unsupported_pipeline_lists_the_known_ones(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDifusionPipeline"}')
    with pytest.raises(BridgeError) as caught:
        Bridge.connect(tiny("t5"), tmp_path)
    assert str(caught.value) == (
        f"unknown vision class 'StableDifusionPipeline'; known: {', '.join(VISIONS)}; "
        "did you mean 'StableDiffusionPipeline'?"
    )


def test_truncated_base_weights_are_one_line(tmp_path: Path, tiny: Tiny) -> None:
    model = testing.make_language(tmp_path / "model", "t5")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(BridgeError, match="cannot load language model") as caught:
        Bridge.connect(model, tiny("sd"))
    assert "\n" not in str(caught.value)


def test_base_weights_with_a_hole_are_refused(tmp_path: Path, tiny: Tiny) -> None:
    from safetensors.torch import load_file, save_file

    model = testing.make_language(tmp_path / "model", "llama")
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.self_attn.q_proj.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BridgeError, match=r"lacks 1 of the model's weights, such as 'layers\.1"):
        Bridge.connect(model, tiny("sd"))


def test_t5_refuses_float16_where_it_overflows(tiny: Tiny) -> None:
    with pytest.raises(BridgeError, match="overflows in float16; use bfloat16 or float32"):
        Bridge.connect(tiny("t5"), tiny("sd"), dtype="float16")


def test_a_tokenizer_without_a_pad_token_gets_one(tmp_path: Path, tiny: Tiny) -> None:
    model = testing.make_language(tmp_path / "model", "llama")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    with warnings.catch_warnings():
        bridge = Bridge.connect(model, tiny("sd"), rank=4)
    assert bridge.language.tokenizer.pad_token == "<pad>"  # its vocabulary has one
    assert isinstance(bridge.encode(["a"]), Text)
    assert isinstance(bridge.generate("a", steps=1)[0], Image.Image)


def test_the_names_that_outside_scripts_rely_on_are_there(tiny: Tiny) -> None:
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=2, device="cpu")
    named = page.split("## Names to rely on")[1].split("`bridge.language")[0]
    doors = re.findall(r"`(?:Bridge)?\.(\w+)", named)
    assert len(doors) == 18
    assert all(hasattr(bridge, name) for name in doors)
    ids = bridge.language.tokenize(["a red circle"], bridge.tokens).ids
    hidden = bridge.language.hidden(ids, attention_mask=None)
    text = Text(bridge.adapter(hidden))
    latents = bridge.vision.encode(torch.zeros(1, 3, 16, 16))
    noised = bridge.vision.noise(latents, generator=None)
    assert bridge.vision.predict(noised.x_t, noised.timesteps, text).shape == latents.shape
    assert bridge.vision.decode(latents).shape == (1, 3, 16, 16)
