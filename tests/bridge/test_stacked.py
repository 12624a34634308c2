"""Other people's LoRA: drawn as by diffusers whatever its names, counted, taken away whole."""

import json
import pickle
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge import lora
from lavi_bridge.bridge.drawing import draw, read_record
from lavi_bridge.bridge.foreign import LoRAFile
from lavi_bridge.bridge.stacked import parse
from lavi_bridge.cli import main as cli
from lavi_bridge.config import Sampling
from tests.fake_cuda import FakeCuda
from tests.visions.checks import GUIDANCE, PROMPTS, SEED, STEPS, pictures

Tiny = Callable[[str], Path]
Layers = dict[str, tuple[Tensor, Tensor, float]]
"""Down, up and alpha by the layer's name in the model."""


def connected(tiny: Tiny, vision: str, **options: Any) -> Bridge:
    """A bridge whose own LoRA changes pictures."""
    bridge = Bridge.connect(tiny("t5"), tiny(vision), device="cpu", **({"rank": 4} | options))
    seed = torch.Generator().manual_seed(0)
    for layer in lora.layers(bridge.vision.backbone).values():
        nn.init.normal_(layer.lora_B["default"].weight, std=0.05, generator=seed)
    return bridge


def of_others(bridge: Bridge, pattern: str = r".*", *, seed: int = 1, rank: int = 2) -> Layers:
    """A LoRA for every linear layer and convolution, also where the bridge has none of its own; of
    three ranks from `rank` on, and three alphas."""
    least = rank
    generator = torch.Generator().manual_seed(seed)
    found: Layers = {}
    for path, module in bridge.vision.backbone.named_modules():
        name = path.removesuffix(".base_layer")
        if not isinstance(module, nn.Linear | nn.Conv2d) or "lora_" in name or ".quant" in name:
            continue
        if not re.fullmatch(pattern, name):
            continue
        outputs, inputs, *kernel = module.weight.shape
        if isinstance(module, nn.Linear):
            outputs, inputs = module.out_features, module.in_features  # also where it is packed
        rank = least + len(found) % 3
        down = torch.randn(rank, inputs, *kernel, generator=generator) / 4
        up = torch.randn(outputs, rank, *(1 for _ in kernel), generator=generator) / 8
        found[name] = down, up, (float(rank), 1.0, 3.0)[len(found) % 3]
    return found


def off(a: np.ndarray, b: np.ndarray) -> int:
    """Grey levels between pictures, at most."""
    return int(np.abs(a - b).max())


# ---- the naming schemes, made by hand


def diffusers(layers: Layers, prefix: str = "unet.") -> dict[str, Tensor]:
    """As `save_lora_weights` has it, with alpha in the weights."""
    found: dict[str, Tensor] = {}
    for name, (down, up, alpha) in layers.items():
        found[f"{prefix}{name}.lora_A.weight"] = down
        found[f"{prefix}{name}.lora_B.weight"] = up * (alpha / len(down))
    return found


def peft(layers: Layers, adapter: str = "") -> dict[str, Tensor]:
    named = diffusers(layers, "base_model.model.")
    return {key.replace(".weight", f"{adapter}.weight"): tensor for key, tensor in named.items()}


def kohya(layers: Layers, called: Callable[[str], str] = str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, (down, up, alpha) in layers.items():
        own = "lora_unet_" + called(name).replace(".", "_")
        found |= {f"{own}.lora_down.weight": down, f"{own}.lora_up.weight": up}
        found[f"{own}.alpha"] = torch.tensor(alpha)
    return found


def processors(layers: Layers) -> dict[str, Tensor]:
    """As diffusers' first versions have attention."""
    found: dict[str, Tensor] = {}
    for key, tensor in diffusers(layers).items():
        layer, part, _ = key.replace(".to_out.0", ".to_out").rsplit(".", 2)
        block, _, own = layer.rpartition(".")
        way = {"lora_A": "down", "lora_B": "up"}[part]
        found[f"{block}.processor.{own}_lora.{way}.weight"] = tensor
    return found


def sgm(name: str) -> str:
    """What Stability's own code calls a layer of a U-Net with one layer a block."""
    for block in (0, 1):
        for number, kind in enumerate(("resnets", "attentions")):
            inputs, outputs = 1 + 2 * block, 2 * block
            name = name.replace(f"down_blocks.{block}.{kind}.0", f"input_blocks.{inputs}.{number}")
            for layer in (0, 1):
                there = f"output_blocks.{outputs + layer}.{number}"
                name = name.replace(f"up_blocks.{block}.{kind}.{layer}", there)
    middle = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}
    for kind, place in middle.items():
        name = name.replace(f"mid_block.{kind}", f"middle_block.{place}")
    for ours, theirs in (
        ("conv1", "in_layers.2"),
        ("conv2", "out_layers.3"),
        ("time_emb_proj", "emb_layers.1"),
        ("conv_shortcut", "skip_connection"),
    ):
        name = name.replace(ours, theirs)
    return name


def flux_by_its_makers(bridge: Bridge) -> dict[str, Tensor]:
    """A LoRA with FLUX' first names, where q, k and v are one layer."""
    generator = torch.Generator().manual_seed(2)
    width = bridge.vision.backbone.config.num_attention_heads
    width *= bridge.vision.backbone.config.attention_head_dim
    sides = {
        "double_blocks_0_img_attn_qkv": (width, 3 * width),
        "double_blocks_0_txt_attn_qkv": (width, 3 * width),
        "double_blocks_0_img_attn_proj": (width, width),
        "double_blocks_0_txt_mlp_0": (width, 4 * width),
        "single_blocks_0_linear2": (5 * width, width),
    }
    return kohya(
        {
            name: (
                torch.randn(4, inputs, generator=generator) / 4,
                torch.randn(outputs, 4, generator=generator) / 4,
                2.0,
            )
            for name, (inputs, outputs) in sides.items()
        }
    )


def write(tensors: dict[str, Tensor], path: Path, header: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, header)
    return path


# ---- as diffusers draws it


def by_diffusers(bridge: Bridge, file: Path, scale: float) -> np.ndarray:
    """What diffusers' own pipeline draws once it has loaded a file itself, beside our LoRA."""
    pipe = bridge.to_diffusers()
    pipe.set_progress_bar_config(disable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT tells that there is another one
        pipe.load_lora_weights(file, adapter_name="theirs")
    pipe.set_adapters(["default", "theirs"], [1.0, scale])
    return by_pipeline(bridge, pipe)


def by_pipeline(bridge: Bridge, pipe: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe(
        **bridge.prompt_embeds(PROMPTS),
        **bridge.vision.pipeline_guidance(GUIDANCE),
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(SEED + i) for i in range(len(PROMPTS))],
        height=bridge.vision.resolution,
        width=bridge.vision.resolution,
    )
    return np.stack([np.asarray(image, int) for image in drawn.images])


@pytest.mark.parametrize(
    "vision",
    ["sd", "flux-dev", *(pytest.param(v, marks=pytest.mark.slow) for v in ("sdxl", "sd3"))],
)
def test_every_naming_scheme_draws_as_diffusers_and_every_key_lands(
    vision: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = connected(tiny, vision)
    layers, before = of_others(bridge), pictures(bridge)
    prefix = "unet." if vision in ("sd", "sdxl") else "transformer."
    schemes = {
        "diffusers": diffusers(layers, prefix),
        "kohya": kohya(layers),
        "peft": peft(layers),
        "default": peft(layers, ".default"),
        "bare": diffusers(layers, ""),
    }
    files = {name: write(keys, tmp_path / f"{name}.safetensors") for name, keys in schemes.items()}
    expected = by_diffusers(connected(tiny, vision), files["diffusers"], 0.8)
    assert off(expected, before) > 20
    for name, file in files.items():
        report = bridge.load_lora(file, 0.8)
        assert (report.layers, report.keys) == (len(layers), len(schemes[name])), name
        assert off(pictures(bridge), expected) <= 1, name
        assert off(by_pipeline(bridge, bridge.to_diffusers()), expected) <= 1, name
        bridge.unload_lora()
    assert np.array_equal(pictures(bridge), before)


ATTENTION = r".*\.to_(q|k|v|out\.0)"
RENAMED = rf"{ATTENTION}|.*(conv1|conv2|time_emb_proj|conv_shortcut|proj_in|proj_out|ff\.net.*)"


@pytest.mark.parametrize(
    ("vision", "scheme", "pattern"),
    [
        ("sd", "processors", ATTENTION),
        ("sd", "kohya", ATTENTION),
        ("sdxl", "kohya", ATTENTION),
        ("sdxl", "sgm", RENAMED),
        ("flux-dev", "makers", ""),
    ],
)
def test_names_that_are_not_the_models_own_are_what_diffusers_makes_of_them(
    vision: str, scheme: str, pattern: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = connected(tiny, vision)
    # one alpha: where they differ, diffusers 0.42 gives all of kohya's attention the commonest
    layers = {n: (down, up, 6.0) for n, (down, up, _) in of_others(bridge, pattern).items()}
    keys = {
        "processors": lambda: processors(layers),
        "kohya": lambda: kohya(layers),
        "sgm": lambda: kohya(layers, sgm),
        "makers": lambda: flux_by_its_makers(bridge),
    }[scheme]()
    file, before = write(keys, tmp_path / "a.safetensors"), pictures(bridge)
    assert bridge.load_lora(file, 2.0).keys == len(keys)
    ours, theirs = pictures(bridge), by_diffusers(connected(tiny, vision), file, 2.0)
    assert off(ours, theirs) <= 1
    assert off(ours, before) > 5


@pytest.mark.parametrize("scheme", ["transformer.", "peft", "kohya"])
def test_pixart_draws_as_one_whose_weights_are_merged_by_hand(
    scheme: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge, merged = connected(tiny, "pixart-alpha"), connected(tiny, "pixart-alpha")
    layers, before = of_others(bridge), pictures(bridge)
    own = lora.layers(merged.vision.backbone)
    with torch.no_grad():
        for name, (down, up, alpha) in layers.items():
            path = f"{name}.base_layer" if name in own else name
            weight = merged.vision.backbone.get_parameter(f"{path}.weight")
            change = (up.flatten(1) @ down.flatten(1)) * alpha / len(down)
            weight += 0.8 * change.reshape(weight.shape)
    made = {"peft": peft(layers), "kohya": kohya(layers)}
    named = made.get(scheme) or diffusers(layers, scheme)
    report = bridge.load_lora(write(named, tmp_path / "a.safetensors"), 0.8)
    assert report.keys == len(named)
    assert off(pictures(bridge), pictures(merged)) <= 1
    assert off(pictures(bridge), before) > 20


def test_where_diffusers_notes_alpha_in_the_file_it_counts(tiny: Tiny, tmp_path: Path) -> None:
    bridge = connected(tiny, "sd")
    layers = {n: (down, up, float(len(down))) for n, (down, up, _) in of_others(bridge).items()}
    few = {n: f for n, f in layers.items() if len(f[0]) == 2}
    config = {"r": 2, "lora_alpha": 5, "target_modules": sorted(few), "use_rslora": True}
    noted = {"lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in config.items()})}
    file = write(diffusers(few), tmp_path / "a.safetensors", noted)
    assert LoRAFile.read(file).config == config
    bridge.load_lora(file)
    assert off(pictures(bridge), by_diffusers(connected(tiny, "sd"), file, 1.0)) <= 1


def test_a_folder_of_peft_has_its_scale_in_its_config(tiny: Tiny, tmp_path: Path) -> None:
    bridge = connected(tiny, "sd")
    layers = of_others(bridge, ATTENTION)
    names = sorted(layers)
    alphas = {name: 6.0 if name == names[0] else 4.0 for name in names}
    known = {n: (d, u, alphas[n] * len(d) ** 0.5) for n, (d, u, _) in layers.items()}
    bridge.load_lora(write(diffusers(known), tmp_path / "a.safetensors"))
    expected = pictures(bridge)
    bridge.unload_lora()
    plain = {n: (d, u, float(len(d))) for n, (d, u, _) in layers.items()}
    write(peft(plain), tmp_path / "style" / "adapter_model.safetensors")
    config = {"r": 2, "lora_alpha": 4, "alpha_pattern": {names[0]: 6}, "use_rslora": True}
    (tmp_path / "style" / "adapter_config.json").write_text(json.dumps(config))
    assert bridge.load_lora(tmp_path / "style").file == "style"
    assert off(pictures(bridge), expected) <= 1


def test_the_lora_of_one_bridge_can_be_stacked_on_another(tiny: Tiny, tmp_path: Path) -> None:
    one, two = connected(tiny, "sd"), connected(tiny, "sd", vision_rank=0)
    two.language.load_state_dict(one.language.state_dict())
    one.save(tmp_path / "bridge")
    two.load_lora(tmp_path / "bridge" / "vision_lora")
    assert off(pictures(two), pictures(one)) <= 1


# ---- beside the bridge's own


@pytest.fixture
def file(tiny: Tiny, tmp_path: Path) -> Path:
    """A LoRA for the tiny Stable Diffusion."""
    return write(kohya(of_others(connected(tiny, "sd"))), tmp_path / "style.safetensors")


def everything(bridge: Bridge) -> list[Any]:
    """All that loading could change."""
    backbone = bridge.vision.backbone
    return [
        {name: tensor.clone() for name, tensor in bridge.state_dict().items()},
        {name: p.requires_grad for name, p in bridge.named_parameters()},
        {name: (type(m), m.training) for name, m in bridge.named_modules()},
        {n: (m.active_adapters, dict(m.scaling)) for n, m in lora.wrapped(backbone).items()},
        sorted(vars(backbone)),
        sorted(getattr(backbone, "peft_config", {})),
    ]


def same(a: list[Any], b: list[Any]) -> bool:
    return (
        a[0].keys() == b[0].keys()
        and a[1:] == b[1:]
        and all(torch.equal(tensor, b[0][name]) for name, tensor in a[0].items())
    )


@pytest.mark.parametrize(("dtype", "rank"), [("float32", 4), ("bfloat16", 0)])
def test_two_add_up_in_any_order_and_leave_nothing_behind(
    rank: int, dtype: str, tiny: Tiny, file: Path, tmp_path: Path
) -> None:
    bridge = connected(tiny, "sd", vision_rank=rank, dtype=dtype)
    before, plain = everything(bridge), pictures(bridge)
    some = of_others(bridge, r"down.*", seed=9, rank=5)
    other = write(peft(some), tmp_path / "other.safetensors")
    drawn = []
    for order in ([(file, 0.5), (other, -1.0)], [(other, -1.0), (file, 0.5)], [(file, 0.5)]):
        for one, scale in order:
            bridge.load_lora(one, scale)
        drawn.append(pictures(bridge))
        assert len(bridge.stacked) == len(order)
        bridge.unload_lora()
        assert not bridge.stacked
    near = 1 if dtype == "float32" else 6
    assert off(drawn[0], drawn[1]) <= near
    assert min(off(drawn[0], drawn[2]), off(drawn[0], plain)) > 10
    assert same(everything(bridge), before)
    assert np.array_equal(pictures(bridge), plain)


def test_only_the_bridges_own_trains_is_saved_and_makes_its_id(
    tiny: Tiny, file: Path, tmp_path: Path
) -> None:
    bridge = connected(tiny, "sd")
    bridge.save(tmp_path / "before")
    own, known = bridge.trainable_parameters(), bridge.id
    bridge.load_lora(file)
    assert bridge.id == known
    assert list(map(id, bridge.trainable_parameters())) == list(map(id, own))
    bridge.train()
    bridge.loss(torch.zeros(1, 3, 16, 16), ["a"]).backward()
    with_gradient = {id(p) for p in bridge.parameters() if p.grad is not None}
    assert with_gradient == {id(p) for p in own}
    bridge.save(tmp_path / "after")
    for part in ("vision_lora/adapter_model.safetensors", "vision_lora/adapter_config.json"):
        assert (tmp_path / "after" / part).read_bytes() == (tmp_path / "before" / part).read_bytes()
    assert Bridge.load(tmp_path / "after", device="cpu").id == known


def test_the_bridges_strength_is_of_its_own_alone(tiny: Tiny, file: Path) -> None:
    bridge, without = connected(tiny, "sd"), connected(tiny, "sd", vision_rank=0)
    for one in (bridge, without):
        one.load_lora(file)
    without.language.load_state_dict(bridge.language.state_dict())
    expected = pictures(without)
    assert off(pictures(bridge, vision_scale=0), expected) <= 1
    assert off(pictures(bridge), expected) > 5
    with lora.disabled(bridge.vision.backbone):
        assert off(pictures(bridge), expected) <= 1


def answers(bridge: Bridge) -> tuple[Tensor, Tensor]:
    """One prediction as it is, and as it is while sampling."""
    text = bridge.encode("red")
    x_t = torch.randn(
        1, *bridge.vision.latent_shape(16, 16), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        plain = bridge.vision.predict(x_t, torch.tensor([3]), text)
        with lora.fused(bridge.vision.backbone):
            return plain, bridge.vision.predict(x_t, torch.tensor([3]), text)


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 1e-5),
        ({"dtype": "bfloat16"}, 0.1),
        ({"dtype": "bfloat16", "wide": True}, 0.1),
        ({"quantize_vision": "int8"}, 2e-2),
        ({"quantize_vision": "nf4"}, 1e-4),
    ],
)
def test_it_holds_in_every_precision(
    options: dict[str, Any],
    tolerance: float,
    tiny: Tiny,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = dict(options)
    wide = given.pop("wide", False)
    monkeypatch.setattr("lavi_bridge.running.widened.needs_widening", lambda: wide)
    bridge = connected(tiny, "sd", **given)
    exact = connected(tiny, "sd")
    before = answers(bridge)[0]
    for one in (bridge, exact):
        one.load_lora(file)
    plain, sampling = answers(bridge)
    assert (plain - sampling).abs().max() <= tolerance
    change = (plain - before).norm()
    assert (plain - answers(exact)[0]).norm() < 0.25 * change
    bridge.unload_lora()
    assert torch.equal(answers(bridge)[0], before)


@pytest.mark.parametrize("offload", [False, True])
def test_it_is_where_the_model_is(offload: bool, tiny: Tiny, file: Path, tmp_path: Path) -> None:
    made = connected(tiny, "sd")
    made.save(tmp_path / "bridge")
    made.load_lora(file)
    expected = pictures(made)
    with FakeCuda():
        bridge = Bridge.load(tmp_path / "bridge", dtype="float32", device="cuda", offload=offload)
        bridge.load_lora(file)
        assert off(pictures(bridge), expected) <= 1
        assert {p.device.type for p in bridge.parameters()} == {"cpu" if offload else "cuda"}


# ---- what does not land


def test_keys_of_a_text_encoder_are_told_with_their_count(tiny: Tiny, tmp_path: Path) -> None:
    bridge = connected(tiny, "sd")
    keys = kohya(of_others(bridge, ATTENTION))
    theirs = {
        "lora_te_text_model_a.lora_down.weight": torch.ones(2, 3),
        "text_encoder.b": torch.ones(1),
    }
    file = write(keys | theirs, tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match=r"^2 keys of 'a.safetensors' are of a text encoder"):
        report = bridge.load_lora(file)
    assert (report.left_out, report.keys) == (2, len(keys))


def ones(*names: str) -> dict[str, Tensor]:
    return {name: torch.ones(2, 2) for name in names}


Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (ones(f"unet.{Q}.dora_scale"), "no plain LoRA.*1 keys, such as .*dora_scale', are DoRA"),
        (ones("lora_unet_x.hada_w1_a", "lora_unet_x.hada_w1_b"), "2 keys, .* are LoHa"),
        (ones("lycoris_x.lokr_w1"), "are LoKr"),
        (ones(f"unet.{Q}.lora_B.bias"), "are LoRA with biases"),
        (ones("unet.conv_in.weight"), "are something else"),
        (ones("lora_te_a.lora_down.weight"), "holds nothing for an image model: 1 keys"),
        (ones(f"unet.{Q}.lora_A.weight"), r"has '.*lora_A.weight', but no up beside it"),
        (
            ones(*(f"transformer.blocks.7.x.lora_{x}.weight" for x in "AB")),
            r"2 of 2 keys of 'a.safetensors' are of no layer of .*, such as 'transformer.blocks.7.x"
            r".lora_A.weight': is it of another image model\?",
        ),
        (
            ones(*(f"unet.{name}.lora_{x}.weight" for name in (Q, "x.to_q") for x in "AB")),
            r"2 of 4 keys .* such as 'unet.x.to_q",
        ),
        (
            ones(*(f"lora_unet_input_blocks_1_1_x.lora_{x}.weight" for x in ("down", "up"))),
            r"2 of 2 keys .* such as 'lora_unet_input_blocks_1_1_x.lora_down",
        ),
        (
            ones(*(f"unet.{Q}.lora_{x}.weight" for x in "AB")),
            rf"layer '{Q}' of .* takes \(2, 32\), the file has \(2, 2\): is it of another image",
        ),
        (
            {f"{p}{Q}.lora_{x}.weight": torch.ones(2, 2) for p in ("unet.", "") for x in "AB"},
            rf"holds layer '{Q}' twice, under two names",
        ),
    ],
)
def test_what_does_not_land_is_one_line_and_nothing_is_loaded(
    keys: dict[str, Tensor], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = connected(tiny, "sd")
    before, file = everything(bridge), write(keys, tmp_path / "a.safetensors")
    with pytest.raises(BridgeError, match=message) as caught:
        bridge.load_lora(file)
    assert "\n" not in str(caught.value)
    assert same(everything(bridge), before)
    assert not bridge.stacked


def test_what_diffusers_converts_to_no_layer_is_counted(tiny: Tiny, tmp_path: Path) -> None:
    bridge = connected(tiny, "sdxl")
    keys = kohya(of_others(bridge, RENAMED), sgm)
    there = "lora_unet_output_blocks_2_1_transformer_blocks_0_attn1_to_q"
    more = {k.replace("blocks_2_", "blocks_8_"): t + 0 for k, t in keys.items() if there in k}
    file = write(keys | more, tmp_path / "a.safetensors")
    with pytest.raises(BridgeError, match=rf"^3 of {len(keys) + 3} keys .*output_blocks_8_1"):
        bridge.load_lora(file)


def pair(down: Tensor, up: Tensor, alpha: Tensor | None = None) -> dict[str, Tensor]:
    """One layer's factors as kohya's scripts have them."""
    own = "lora_unet_" + Q.replace(".", "_")
    found = {f"{own}.lora_down.weight": down, f"{own}.lora_up.weight": up}
    return found | ({} if alpha is None else {f"{own}.alpha": alpha})


DOWN, UP = torch.ones(2, 32), torch.ones(32, 2)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (pair(torch.ones(32), UP), r"lora_down.weight' has 1 dimensions"),
        (pair(torch.ones(32), torch.ones(32)), r"lora_down.weight' has 1 dimensions"),
        (pair(torch.tensor(1.0), UP), r"lora_down.weight' has 0 dimensions"),
        (pair(torch.ones(0, 32), torch.ones(32, 0)), r"has no values: its shape is"),
        (pair(DOWN, UP, torch.ones(2)), r"alpha' has 2 values; alpha is one"),
        (pair(DOWN, UP, torch.ones(0)), r"alpha' has no values"),
        (pair(DOWN, UP, torch.tensor(float("nan"))), r"alpha' holds values that are no finite"),
        (pair(DOWN, UP * float("nan")), r"lora_up.weight' holds values that are no finite"),
        (pair(DOWN, UP.index_fill(0, torch.tensor([3]), float("inf"))), "are no finite numbers"),
        (pair(DOWN, UP * 1e30, torch.tensor(1e30)), r"lora_up.weight' is infinite with its alpha"),
        (pair(DOWN.to(torch.int8), UP), r"lora_down.weight' holds int8, not weights"),
        (pair(DOWN, UP.to(torch.complex64)), r"lora_up.weight' holds complex64, not weights"),
        (pair(torch.ones(3, 32), UP), r"takes \(32, 3\), the file has \(32, 2\)"),
        (pair(torch.ones(2, 32, 3, 3), UP), r"takes \(2, 32\), the file has \(2, 32, 3, 3\)"),
    ],
)
def test_tensors_that_are_no_factors_are_a_line_that_names_the_key(
    keys: dict[str, Tensor], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = connected(tiny, "sd")
    before = everything(bridge)
    with pytest.raises(BridgeError, match=message) as error:
        bridge.load_lora(write(keys, tmp_path / "a.safetensors"))
    assert "\n" not in str(error.value)
    assert same(everything(bridge), before)


@pytest.mark.parametrize("where", ["header", "file"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[1]", r"is no JSON object, but \[1\]"),
        ('{"lora_alpha": "8"}', "'lora_alpha' is no finite number, but \"8\""),
        ('{"lora_alpha": true}', "'lora_alpha' is no finite number, but true"),
        ('{"lora_alpha": NaN}', "'lora_alpha' is no finite number, but NaN"),
        ('{"lora_alpha": 1' + "0" * 400 + "}", "'lora_alpha' is no finite number"),
        ('{"alpha_pattern": [4]}', r"'alpha_pattern' is no JSON object, but \[4\]"),
        ('{"alpha_pattern": {"to_q": "4"}}', "'to_q' is no finite number, but \"4\""),
        ('{"alpha_pattern": {"to_(q": 4}}', r"'alpha_pattern' has 'to_\(q', which is no pattern"),
        ('{"alpha_pattern": {"to_q": null}}', "'alpha_pattern' has no number for 'to_q'"),
        ('{"use_rslora": "no"}', "'use_rslora' is neither true nor false, but \"no\""),
    ],
)
def test_settings_of_another_type_are_a_line_that_names_the_key(
    where: str, text: str, message: str, tiny: Tiny, tmp_path: Path
) -> None:
    keys = {f"unet.{Q}.lora_A.weight": DOWN, f"unet.{Q}.lora_B.weight": UP}
    if where == "header":
        noted = re.sub(r'^\{"', '{"unet.', text)
        write(keys, tmp_path / "adapter_model.safetensors", {"lora_adapter_metadata": noted})
    else:
        write(keys, tmp_path / "adapter_model.safetensors")
        (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(BridgeError, match=message) as error:
        LoRAFile.read(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fault", [KeyError("a"), MemoryError(), KeyboardInterrupt()])
def test_whatever_goes_wrong_while_it_is_put_in_nothing_of_it_stays(
    fault: BaseException, tiny: Tiny, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = connected(tiny, "sd")
    bridge.load_lora(file, 0.5)
    before, filled = everything(bridge), []

    def fill(*given: Any) -> None:
        filled.append(given)
        if len(filled) == 3:
            raise fault

    monkeypatch.setattr("lavi_bridge.bridge.stacked._fill", fill)
    with pytest.raises(type(fault)):
        bridge.load_lora(file)
    assert len(bridge.stacked) == 1
    assert same(everything(bridge), before)


def test_where_warnings_are_errors_what_warns_is_not_loaded(tiny: Tiny, tmp_path: Path) -> None:
    bridge = connected(tiny, "sd")
    before = everything(bridge)
    theirs = {"lora_te_text_model_a.lora_down.weight": torch.ones(2, 3)}
    file = write(pair(DOWN, UP) | theirs, tmp_path / "a.safetensors")
    with pytest.raises(UserWarning, match="of a text encoder"):
        bridge.load_lora(file)
    assert same(everything(bridge), before)


def test_one_that_does_not_fit_leaves_those_that_do(tiny: Tiny, file: Path, tmp_path: Path) -> None:
    bridge = connected(tiny, "sd")
    bridge.load_lora(file, 0.5)
    before, drawn = everything(bridge), pictures(bridge)
    wrong = write(ones(*(f"unet.{Q}.lora_{x}.weight" for x in "AB")), tmp_path / "a.safetensors")
    with pytest.raises(BridgeError, match=r"takes \(2, 32\)"):
        bridge.load_lora(wrong)
    assert same(everything(bridge), before)
    assert np.array_equal(pictures(bridge), drawn)


def test_depthwise_convolutions_take_a_rank_that_is_a_multiple_of_their_width(
    tiny: Tiny, tmp_path: Path
) -> None:
    bridge = connected(tiny, "sana")
    depth = "transformer_blocks.0.ff.conv_depth"
    width = bridge.vision.backbone.get_submodule(depth).groups
    before, drawn = everything(bridge), pictures(bridge)
    for rank in (3, width):
        layer = torch.ones(rank, width, 3, 3) / 9, torch.ones(width, rank // width or 1, 1, 1) / 9
        known = of_others(bridge, ATTENTION) | {depth: (*layer, float(rank))}
        file = write(diffusers(known, "transformer."), tmp_path / "a.safetensors")
        if rank == width:
            bridge.load_lora(file)
            assert off(pictures(bridge), drawn) > 5
            bridge.unload_lora()
        else:
            with pytest.raises(
                BridgeError, match=r"'a.safetensors' does not fit .peft: Targeting a"
            ):
                bridge.load_lora(file)
        assert same(everything(bridge), before)


def test_files_that_are_none_or_unsafe_are_one_line(tiny: Tiny, file: Path, tmp_path: Path) -> None:
    bridge = connected(tiny, "sd")
    (tmp_path / "a.pt").write_bytes(pickle.dumps({}))
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:100])
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("a.pt", "is a pickle"),
        ("cut.safetensors", "damaged or cut short"),
        ("none.safetensors", "no file"),
        ("empty", "has no LoRA file: neither adapter_model"),
    ):
        with pytest.raises(BridgeError, match=message):
            bridge.load_lora(tmp_path / name)
    with pytest.raises(BridgeError, match="'scale' must be a finite number"):
        bridge.load_lora(file, float("nan"))


# ---- on disk


def test_a_picture_tells_of_it_and_is_never_mixed_with_others(
    tiny: Tiny, file: Path, tmp_path: Path
) -> None:
    bridge = connected(tiny, "sd")
    out, sampling = tmp_path / "png", Sampling(steps=1)
    [plain] = draw(bridge, ["a"], out, sampling)
    bytes_before = plain.read_bytes()
    found = {plain}
    for scale in (1.0, 0.5):
        report = bridge.load_lora(file, scale)
        [path] = draw(bridge, ["a"], out, sampling)
        record = read_record(path) or {}
        told = {"file": "style.safetensors", "digest": report.digest, "scale": scale}
        assert record == (read_record(plain) or {}) | {"lora": [told]}
        assert str(tmp_path) not in json.dumps(record)
        found.add(path)
        changed = path.stat().st_mtime_ns
        assert list(draw(bridge, ["a"], out, sampling)) == [path]
        assert path.stat().st_mtime_ns == changed
        bridge.unload_lora()
    assert len(found) == 3
    assert list(draw(bridge, ["a"], out, sampling)) == [plain]
    assert plain.read_bytes() == bytes_before
    assert "lora" not in (read_record(plain) or {})


def test_the_command_line_takes_several(
    tiny: Tiny,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connected(tiny, "sd").save(tmp_path / "bridge")
    flags = ["--lora", f"{file}:0.8", "--lora", str(file), "--steps", "1"]
    command = ["generate", str(tmp_path / "bridge"), "a", *flags, "--out", str(tmp_path / "png")]
    monkeypatch.setattr(sys, "argv", ["lavi-bridge", *command])
    cli.main()
    record = read_record(Path(capsys.readouterr().out.strip())) or {}
    assert [one["scale"] for one in record["lora"]] == [0.8, 1.0]


def test_a_strength_follows_the_last_colon(tmp_path: Path) -> None:
    assert parse("a.safetensors") == ("a.safetensors", 1.0)
    assert parse("C:/a.safetensors:-0.5") == ("C:/a.safetensors", -0.5)
    assert parse("C:/a.safetensors") == ("C:/a.safetensors", 1.0)
    (tmp_path / "a:2").mkdir()
    assert parse(str(tmp_path / "a:2")) == (str(tmp_path / "a:2"), 1.0)
    with pytest.raises(BridgeError, match="'lora' must be a finite number"):
        parse("a:nan")
