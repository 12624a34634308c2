"""Exported folders: they draw what the bridge draws, and hold nothing of this machine."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge import lora
from lavi_bridge.cli.publish import export as command
from lavi_bridge.export import Form, export_bridge, source
from tests.export import alone, jobs
from tests.files.test_places import gguf
from tests.visions import checks

Tiny = Callable[[str], Path]
pytestmark = pytest.mark.filterwarnings(
    # diffusers' own, where a stock pipeline is handed another class of text encoder
    "ignore:.*:DeprecationWarning",
)


def off(bridge: Bridge, folder: Path, form: Form, *, servers: bool = True) -> int:
    """Grey levels between a bridge's pictures and those of its export, at most."""
    told = jobs.job(bridge, folder, form, servers=servers)
    pipe = alone.load(told["folder"], told["servers"])
    assert pipe.components
    found = alone.draw(pipe, told["prompts"], told["seed"], told["options"])
    return int(np.abs(found - np.array(told["expected"])).max())


OTHERS = (
    *("sd2-v", "ldm", "kolors", "flux-schnell", "flux2", "flux2-klein", "pixart-sigma"),
    *("pixart-alpha-1024", "lumina2", "auraflow", "cogview4", "ovis", "bria"),
)


@pytest.mark.parametrize(
    "vision", [*jobs.FAMILIES, *(pytest.param(v, marks=pytest.mark.slow) for v in OTHERS)]
)
def test_a_merged_folder_draws_what_the_bridge_draws(
    vision: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = jobs.trained(tiny("t5"), tiny(vision))
    assert checks.moved_by_prompt(bridge) > 8
    assert off(bridge, tmp_path / "out", "merged") <= 1


def test_a_pipeline_that_draws_one_prompt_at_a_time_does_so(tiny: Tiny, tmp_path: Path) -> None:
    bridge = jobs.trained(tiny("t5"), tiny("prx"))
    told = jobs.job(bridge, tmp_path / "out", "merged")
    pipe = alone.load(told["folder"], True)
    found = alone.draw(pipe, told["prompts"][:1], told["seed"], told["options"])
    assert np.abs(found - np.array(told["expected"][:1])).max() <= 1


@pytest.mark.parametrize("vision", ["sdxl", "sd3", "flux-dev", "qwen-image"])
def test_modular_pipelines_have_a_text_step(vision: str, tiny: Tiny, tmp_path: Path) -> None:
    from diffusers import ModularPipelineBlocks

    bridge = jobs.trained(tiny("t5"), tiny(vision))
    told = jobs.job(bridge, tmp_path / "out", "merged")
    blocks = ModularPipelineBlocks.from_pretrained(told["folder"], trust_remote_code=True)
    pipe = blocks.init_pipeline(told["folder"])
    pipe.load_components(names=["scheduler", "transformer", "unet", "vae"])
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": checks.STEPS, "output": "images"}
    if hasattr(pipe, "guider"):
        pipe.update_components(guider=type(pipe.guider)(guidance_scale=checks.GUIDANCE))
    else:  # guidance is an input of the model
        options["guidance_scale"] = checks.GUIDANCE
    height, width = bridge.vision.size
    seeds = [torch.Generator().manual_seed(checks.SEED + i) for i in range(len(told["prompts"]))]
    images = pipe(prompt=told["prompts"], generator=seeds, height=height, width=width, **options)
    found = np.stack([np.asarray(image, int) for image in images])
    assert np.abs(found - np.array(told["expected"])).max() <= 1


@pytest.mark.parametrize("vision", jobs.STOCK)
def test_the_stock_pipeline_draws_with_the_text_half_in_its_encoders_place(
    vision: str, tiny: Tiny, tmp_path: Path
) -> None:
    assert off(jobs.trained(tiny("t5"), tiny(vision)), tmp_path / "out", "stock") <= 1


@pytest.mark.parametrize("adapter", ["linear", "refiner", "resampler"])
@pytest.mark.parametrize("vision", ["sdxl", "pixart-alpha"])
def test_every_adapter_that_keeps_its_features_travels(
    adapter: str, vision: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = jobs.trained(tiny("llama"), tiny(vision), adapter=adapter)
    assert off(bridge, tmp_path / "out", "merged") <= 1


@pytest.mark.parametrize("adapter", ["fusion", "concat"])
@pytest.mark.parametrize("vision", ["sd", "sdxl", "sana", "qwen-image"])
def test_an_adapter_that_keeps_the_own_encoder_brings_it(
    adapter: str, vision: str, tiny: Tiny, whole: Tiny, tmp_path: Path
) -> None:
    bridge = jobs.trained(tiny("t5"), whole(vision), adapter=adapter)
    assert off(bridge, tmp_path / "out", "merged") <= 1


def test_an_own_encoder_whose_padding_is_masked_comes_along(tiny: Tiny, tmp_path: Path) -> None:
    bridge = jobs.trained(tiny("t5"), "zoo:tiny-pixart", adapter="concat", loud=False)
    assert off(bridge, tmp_path / "out", "merged") <= 1


@pytest.mark.parametrize(
    "asked",
    [
        {"layers": "penultimate"},
        {"layers": 1},
        {"layers": "mean"},
        {"layers": "mix"},
        {"layers": "stack:2"},
        {"template": "Draw this: "},
        {"tokens": 100},
        {"template": "Draw this: ", "layers": "mix", "tokens": 100},
    ],
    ids=str,
)
@pytest.mark.parametrize("language", ["t5", "llama", "bert"])
def test_what_is_asked_of_the_language_model_travels(
    language: str, asked: dict[str, Any], tiny: Tiny, tmp_path: Path
) -> None:
    bridge = jobs.trained(tiny(language), tiny("sd"), **asked)
    assert off(bridge, tmp_path / "out", "merged") <= 1


def test_prompts_of_all_lengths_are_read_as_the_bridge_reads_them(
    tiny: Tiny, tmp_path: Path
) -> None:
    prompts = ["", "a", "a red circle " * 30, "zwei Kreise, 😀 \ud800"]
    for vision in ("sd", "pixart-alpha"):
        bridge = jobs.trained(tiny("llama"), tiny(vision), tokens=100)
        export_bridge(bridge, tmp_path / vision)
        found = alone.load(str(tmp_path / vision), True).prompt_processor(prompts)
        ours = bridge.encode(prompts)
        torch.testing.assert_close(found.hidden, ours.hidden, rtol=1e-4, atol=1e-4)
        assert ours.mask is None or torch.equal(found.mask, ours.mask)


@pytest.mark.slow
def test_a_light_folder_copies_what_came_with_the_package(tiny: Tiny, tmp_path: Path) -> None:
    """No hub has it. Of published base models there is only a reference: test_environments."""
    bridge = jobs.trained("zoo:tiny-t5-small", "zoo:tiny-sd", loud=False)
    told = jobs.job(bridge, tmp_path / "out", "light")
    lines = tmp_path / "jobs.jsonl"
    jobs.write(iter([told]), lines)
    done = subprocess.run(
        [sys.executable, Path(alone.__file__), lines],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["off"] <= 1
    assert (tmp_path / "out" / "unet" / "lora" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("form", ["merged", "light", "stock"])
def test_nothing_of_this_machine_is_in_it(form: Form, tiny: Tiny, tmp_path: Path) -> None:
    vision = "zoo:tiny-sd" if form == "light" else tiny("sd")
    language = "zoo:tiny-t5-small" if form == "light" else tiny("t5")
    bridge = Bridge.connect(language, vision, rank=2, device="cpu")
    bridge.language.model.config.auto_map = {"AutoModel": "theirs.Model"}  # whose class is in use
    bridge.training_summary = {"data": str(tmp_path / "captions.tsv"), "steps": 3}
    export_bridge(bridge, tmp_path / "out", form=form)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    told = "".join(p.read_text("utf-8") for p in files if p.suffix in (".py", ".json", ".md"))
    assert str(tmp_path.parent) not in told
    assert str(Path.home()) not in told
    assert "captions.tsv" in told
    assert "theirs.Model" not in told
    assert not re.search(r"(from|import) lavi_bridge", told)


def test_its_code_is_whole(tmp_path: Path) -> None:
    """Every name is defined once, and no import is missing or too many."""
    written = {
        "half.py": source.text_half(["feedforward", "linear", "refiner", "resampler", "fusion"]),
        "encoder.py": source.text_half(["concat"], more=["encoder"]),
        "base.py": source.component(),
        "block.py": source.block("linear", "FluxAutoBlocks"),
    }
    for name, text in written.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        body = ast.parse(text).body
        defined = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        defined += [ast.unparse(node.targets[0]) for node in body if isinstance(node, ast.Assign)]
        assert len(defined) == len(set(defined)), name
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F,B", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


REFUSED = [
    ("sd", {"adapter": "timed"}, "merged", "'timed' adapter reads a prompt anew at every step"),
    ("z-image", {}, "merged", "diffusers' ZImagePipeline takes text in a form of its own"),
    ("sdxl", {}, "stock", "StableDiffusionXLPipeline reads prompts through several encoders"),
    ("qwen-image", {}, "stock", "QwenImagePipeline reads prompts through its own template"),
    ("sd", {"tokens": 100}, "stock", "masks no padding, which prompts of more than 77 tokens"),
    ("sd", {"template": "Draw: "}, "stock", "reads a prompt without the template"),
    ("pixart-alpha", {"adapter": "resampler"}, "stock", "masks one token a word"),
    ("sd", {}, "light", r"its language model '.*t5' is on this machine alone"),
    ("sd", {}, "heavy", "no form 'heavy' to export; known: light, merged, stock"),
]


@pytest.mark.parametrize(("vision", "options", "form", "reason"), REFUSED)
def test_what_a_form_does_not_hold_is_one_line(
    vision: str, options: dict[str, Any], form: Form, reason: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny(vision), rank=2, device="cpu", **options)
    with pytest.raises(BridgeError, match=reason) as error:
        export_bridge(bridge, tmp_path / "out", form=form)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_image_model_alone_and_fewer_bits_are_refused(whole: Tiny, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="plain diffusers draws with it"):
        export_bridge(Bridge.own(whole("sd"), device="cpu"), tmp_path / "out")


def test_the_command_says_what_it_wrote_and_how_it_is_loaded(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bridge = jobs.trained(tiny("t5"), tiny("sd"))
    with torch.no_grad():
        for name, parameter in bridge.vision.backbone.named_parameters():
            if "lora_B" in name:
                parameter.mul_(1e-3)
    bridge.save(tmp_path / "bridge")
    out = str(tmp_path / "out")
    command([str(tmp_path / "bridge"), "--out", out, "--dtype", "bfloat16"])
    told = capsys.readouterr().out
    assert f"form merged, bridge {bridge.id}" in told
    assert "note: rounding to bfloat16 changed what LoRA adds to the vision model by" in told
    assert f"from_pretrained('{out}', custom_pipeline='{out}', trust_remote_code=True)" in told
    assert (
        load_file(Path(out, "unet", "diffusion_pytorch_model.safetensors"))["conv_in.weight"].dtype
        == torch.bfloat16
    )


def test_an_earlier_export_is_replaced_and_nothing_else(tiny: Tiny, tmp_path: Path) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=2, device="cpu")
    out = tmp_path / "out"
    export_bridge(bridge, out, form="merged")
    (out / "notes.txt").write_text("mine")
    export_bridge(bridge, out, form="stock")
    assert {path.name for path in out.iterdir()} == {
        *("README.md", "bridge.json", "model_index.json", "notes.txt"),
        *("scheduler", "text_encoder", "tokenizer", "unet", "vae"),
    }
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(BridgeError, match="holds something else than an export"):
        export_bridge(bridge, other)
    with pytest.raises(BridgeError, match="is a file"):
        export_bridge(bridge, other / "thesis.txt")
    (out / "bridge.json").write_text("{")
    with pytest.raises(BridgeError, match=r"bridge\.json is not valid JSON"):
        export_bridge(bridge, out)
    bridge.save(tmp_path / "bridge")
    with pytest.raises(BridgeError, match="holds something else than an export"):
        export_bridge(bridge, tmp_path / "bridge")


def test_what_rounding_takes_of_lora_is_told(tiny: Tiny, tmp_path: Path) -> None:
    """A light LoRA lies between two numbers of 16 bits: its sum with the weights rounds away."""
    lost = []
    for scale in (1.0, 1e-3):
        bridge = jobs.trained(tiny("t5"), tiny("sd"))
        with torch.no_grad():
            for name, parameter in bridge.vision.backbone.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(scale)
        done = export_bridge(bridge, tmp_path / "out", dtype=torch.bfloat16)
        lost.append(done.lost["vision"])
    assert 0 < lost[0] < lost[1]
    assert lost[1] > 0.5
    assert export_bridge(bridge, tmp_path / "out").lost["vision"] == 0
    weights = load_file(tmp_path / "out" / "vae" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_lora_is_merged_into_16_bits_too(tiny: Tiny, tmp_path: Path) -> None:
    """A bridge that was loaded as on a GPU; sums are made in float32 and rounded once."""
    jobs.trained(tiny("t5"), tiny("sd")).save(tmp_path / "bridge")
    bridge = Bridge.load(tmp_path / "bridge", dtype="bfloat16", device="cpu")
    done = export_bridge(bridge, tmp_path / "out")
    assert 0 < done.lost["vision"] < 1
    found = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    layers = lora.layers(bridge.vision.backbone)
    for name, layer in layers.items():
        summed = layer.get_base_layer().weight.float() + layer.get_delta_weight(lora.NAME).float()
        assert torch.equal(found[f"{name}.weight"], summed.to(torch.bfloat16))


@pytest.mark.parametrize("form", ["merged", "stock"])
def test_a_tokenizer_that_pads_on_the_left_pads_on_the_right(
    form: Form, tiny: Tiny, tmp_path: Path
) -> None:
    language = Path(shutil.copytree(tiny("llama"), tmp_path / "llama"))
    config = json.loads((language / "tokenizer_config.json").read_text())
    (language / "tokenizer_config.json").write_text(json.dumps(config | {"padding_side": "left"}))
    assert off(jobs.trained(language, tiny("sd")), tmp_path / "out", form) <= 1


def test_a_stock_encoder_reads_as_many_tokens_as_the_bridge(tiny: Tiny, tmp_path: Path) -> None:
    """PixArt's pipeline pads to 120: real tokens beyond the bridge's are an error."""
    bridge = jobs.trained(tiny("llama"), tiny("pixart-alpha"), tokens=60)
    assert off(bridge, tmp_path / "out", "stock") <= 1
    pipe = alone.load(str(tmp_path / "out"), False)
    options = jobs.options_of(bridge, "stock")
    with pytest.raises(ValueError, match="call the pipeline with max_sequence_length=60"):
        pipe("a red circle " * 10, **options)
    seeds = [torch.Generator().manual_seed(checks.SEED)]
    cut = pipe("a red circle " * 10, max_sequence_length=60, generator=seeds, **options).images
    with pytest.warns(UserWarning, match="longer than 60 tokens"):
        ours = checks.pictures(bridge, ["a red circle " * 10])
    assert np.abs(ours - np.asarray(cut[0], int)).max() <= 1


def test_a_gguf_language_model_is_written_whole(tiny: Tiny, tmp_path: Path) -> None:
    bridge = jobs.trained(gguf(tmp_path / "model.gguf"), tiny("sd"))
    assert off(bridge, tmp_path / "out", "merged") <= 1
    assert bridge.language.model.config.quantization_config


def test_diffusers_writes_no_half_of_it(tiny: Tiny, tmp_path: Path) -> None:
    bridge = jobs.trained(tiny("llama"), tiny("sd"))
    for form in ("merged", "stock"):
        export_bridge(bridge, tmp_path / form, form=form)
        pipe = alone.load(str(tmp_path / form), form == "merged")
        with pytest.raises(NotImplementedError, match="copy the exported folder instead"):
            pipe.save_pretrained(tmp_path / "again")


def test_calls_that_are_not_plain_prompts(tiny: Tiny, tmp_path: Path) -> None:
    bridge = jobs.trained(tiny("t5"), tiny("sdxl"))
    export_bridge(bridge, tmp_path / "out")
    pipe = alone.load(str(tmp_path / "out"), True)
    options = jobs.options_of(bridge, "merged")

    def drawn(*args: Any, **more: Any) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        return np.asarray(pipe(*args, generator=generator, **options, **more).images[0], int)

    plain = drawn("a red circle")
    embeds = pipe.embeddings("a red circle")
    told = {k: v for k, v in embeds.items() if v is not None and not k.startswith("negative")}
    assert np.abs(drawn(**told) - plain).max() <= 1
    other = pipe.embeddings("a red circle", "blue")
    negative = {k: v for k, v in other.items() if v is not None and k.startswith("negative")}
    assert np.array_equal(
        drawn("a red circle", **negative), drawn("a red circle", negative_prompt="blue")
    )
    with pytest.raises(ValueError, match="leave prompt_2 out"):
        drawn("a red circle", prompt_2="a blue square")
    nothing: list[Any] = [None, []]
    for given in nothing:
        with pytest.raises(ValueError, match="give a prompt"):
            drawn(given)


def test_cast_to_float16_a_model_that_overflows_stays_in_float32(
    tiny: Tiny, tmp_path: Path
) -> None:
    export_bridge(jobs.trained(tiny("t5"), tiny("sd")), tmp_path / "out")
    half = alone.load(str(tmp_path / "out"), True).prompt_processor.to(torch.float16)
    assert half.dtype == torch.float16
    assert half.language.dtype == torch.float32
    assert half(["a red circle"]).hidden.dtype == torch.float32


@pytest.mark.parametrize("told", [{"export": None}, {"export": {"files": "abc"}}, {"files": []}])
def test_a_record_of_something_else_is_no_earlier_export(
    told: dict[str, Any], tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "bridge.json").write_text(json.dumps(told))
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=2, device="cpu")
    with pytest.raises(BridgeError, match="holds something else than an export"):
        export_bridge(bridge, tmp_path)
