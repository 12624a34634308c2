"""ComfyUI: every LoRA layer has its place, and the nodes read what the bridge reads."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comfyui import allowed, folders, text_half
from comfyui.nodes import conditioning, nodes
from comfyui.reader import Reader
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertModel, LlamaModel

from lavi_bridge import Bridge, BridgeError, Text, testing
from lavi_bridge.bridge import lora
from lavi_bridge.cli.publish import export
from lavi_bridge.export import comfyui, export_bridge
from lavi_bridge.export.written.half import ADAPTER
from lavi_bridge.languages.base import LANGUAGES
from tests import real
from tests.export import jobs, stand_in
from tests.visions import checks

Tiny = Callable[[str], Path]
ROOT = Path(__file__).parents[2]
PACK = ROOT / "comfyui"
FAMILIES = ("sd", "sd2-v", "sdxl", "pixart-alpha", "pixart-sigma", "pixart-alpha-1024")


@pytest.fixture(autouse=True)
def _comfy(monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI's maps by their rules; its accounts of memory are not there."""
    monkeypatch.setitem(sys.modules, "comfy.lora", stand_in.lora)


def exported(bridge: Bridge, home: Path, name: str = "mine", **options: Any) -> Path:
    """A bridge's folder among ComfyUI's bridges."""
    return export_bridge(bridge, home / name, form="comfyui", **options).folder


def model_of(bridge: Bridge) -> stand_in.Model:
    """The bridge's image model without LoRA, as ComfyUI would hold it."""
    vision = bridge.vision
    with lora.disabled(vision.backbone):
        weights = {
            name.replace(".base_layer", ""): tensor.detach().clone()
            for name, tensor in vision.backbone.state_dict().items()
            if ".lora_" not in name
        }
    if vision.comfyui_names == "pixart":
        return stand_in.Model(weights, {"image_model": "pixart_sigma"}, vision.text_width)
    return stand_in.Model(weights, {"num_res_blocks": [1], "context_dim": vision.text_width})


def real_model(model: str, folder: Path) -> Path:
    """The config of a real image model, without weights."""
    make = {"sd": real.stable_diffusion, "pixart": real.pixart}.get(model)
    return make(folder) if make else real.today(folder, model)


def run(home: Path, node: int, **inputs: Any) -> Any:
    """What a node answers as ComfyUI runs it: 0 load, 1 encode, 2 apply."""
    with torch.inference_mode():
        return nodes(stand_in.io, lambda: [home])[node].execute(**inputs).result[0]  # type: ignore[attr-defined]


@torch.no_grad()
def off(found: Tensor, expected: Tensor | None) -> float:
    """By how much tensors differ at most, as a part of the largest number."""
    assert expected is not None
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


# ---- the image model's LoRA


@pytest.mark.parametrize(("model", "layers"), [("sd", 224), ("sdxl", 692), ("pixart", 224)])
def test_every_layer_of_the_real_models_has_a_name_that_comfyui_looks_for(
    model: str, layers: int, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = Bridge.outline(tiny("t5"), real_model(model, tmp_path / model), vision_rank=1)
    keys = stand_in.model_lora_keys_unet(model_of(bridge).model, {})
    landed = stand_in.load_lora(
        {
            name: torch.zeros(tensor.shape)
            for name, tensor in comfyui.lora_state(bridge, None).items()
        },
        keys,
    )
    assert len(landed) == comfyui.fits(bridge).layers == layers


@pytest.mark.parametrize("vision", FAMILIES)
def test_applied_the_lora_adds_what_the_bridge_adds(
    vision: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = jobs.trained(tiny("t5"), tiny(vision))
    for layer in lora.layers(bridge.vision.backbone).values():
        layer.scaling[lora.NAME] = 0.75
    exported(bridge, tmp_path)
    model = model_of(bridge)
    loaded = run(tmp_path, 0, name="mine", dtype="float32")
    patched = run(tmp_path, 2, bridge=loaded, model=model, strength=0.5)
    assert model.patches == {}  # ComfyUI keeps the earlier node's answer
    layers = lora.layers(bridge.vision.backbone)
    assert len(patched.patches) == len(layers)
    for name, layer in layers.items():
        added = patched.patched(f"{name}.weight") - model.model.weights[f"{name}.weight"]
        expected = 0.5 * layer.get_delta_weight(lora.NAME)
        torch.testing.assert_close(added, expected, atol=1e-6, rtol=1e-4)
        assert expected.any()


def test_the_file_says_what_it_is(tiny: Tiny, tmp_path: Path) -> None:
    from safetensors import safe_open

    bridge = jobs.trained(tiny("t5"), tiny("sdxl"))
    folder = exported(bridge, tmp_path, dtype=torch.bfloat16)
    with safe_open(folder / comfyui.VISION_LORA, framework="pt") as file:
        told = file.metadata()
        name = next(name for name in file.keys() if "lora_up" in name)  # noqa: SIM118
        assert file.get_tensor(name).dtype == torch.bfloat16
    assert (told["bridge"], told["family"], told["width"]) == (bridge.id, "unet", "24")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "bridge.json", "text", "vision_lora.safetensors")
    ]
    assert not list(folder.rglob("*.py"))


def test_without_lora_the_model_is_left_as_it_is(tiny: Tiny, tmp_path: Path) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=0, device="cpu")
    exported(bridge, tmp_path)
    model = model_of(bridge)
    loaded = run(tmp_path, 0, name="mine")
    assert run(tmp_path, 2, bridge=loaded, model=model) is model


def test_the_command_says_where_the_folder_goes_and_what_float16_loses(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bridge = jobs.trained(tiny("t5"), tiny("pixart-sigma"))
    bridge.save(tmp_path / "saved")
    export([str(tmp_path / "saved"), "--out", str(tmp_path / "mine"), "--form", "comfyui"])
    told = capsys.readouterr().out
    assert "into models/lavi_bridges of ComfyUI" in told
    assert "float16, rounding changes what LoRA adds to it by" in told
    lost = json.loads((tmp_path / "mine" / "bridge.json").read_text())["export"]["lost"]
    assert 0.01 < lost["vision"] < 1
    assert lost["language"] == 0


# ---- conditioning


@pytest.mark.parametrize("vision", ["sd", "sdxl", "pixart-alpha"])
@pytest.mark.parametrize("adapter", ["feedforward", "refiner", "resampler"])
def test_conditioning_is_what_the_bridge_encodes(
    vision: str, adapter: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = jobs.trained(tiny("t5"), tiny(vision), adapter=adapter)
    exported(bridge, tmp_path)
    loaded = run(tmp_path, 0, name="mine", dtype="float32")
    for prompt in ("", checks.PROMPTS[1]):
        ((hidden, told),) = run(tmp_path, 1, bridge=loaded, text=prompt)
        ours = bridge.encode(prompt)
        if ours.mask is not None:
            ours = replace(ours, hidden=ours.hidden[:, ours.mask[0].bool()])
        assert off(hidden, ours.hidden) < 1e-5
        assert hidden.dtype == torch.float32
        if vision == "sdxl":
            assert off(told.pop("pooled_output"), ours.pooled) < 1e-5
        assert told == {}


def test_masked_families_are_handed_only_the_real_tokens(tiny: Tiny, tmp_path: Path) -> None:
    bridge = jobs.trained(tiny("t5"), tiny("pixart-alpha"))
    exported(bridge, tmp_path)
    loaded = run(tmp_path, 0, name="mine")
    ((hidden, _),) = run(tmp_path, 1, bridge=loaded, text="red")
    assert hidden.shape == (1, 5, 24)  # a letter is a token; start and end
    bridge = jobs.trained(tiny("t5"), tiny("sd"))
    exported(bridge, tmp_path, "unmasked")
    loaded = run(tmp_path, 0, name="unmasked")
    ((hidden, _),) = run(tmp_path, 1, bridge=loaded, text="red")
    assert hidden.shape == (1, 77, 24)


@pytest.mark.parametrize("vision", ["pixart-alpha", "pixart-sigma"])
def test_the_real_tokens_alone_draw_what_all_of_them_draw_masked(
    vision: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = jobs.trained(tiny("t5"), tiny(vision))
    prompt = checks.PROMPTS[1]
    masked = checks.pictures(bridge, [prompt])
    assert checks.moved_by_prompt(bridge) > 8
    exported(bridge, tmp_path)
    loaded = run(tmp_path, 0, name="mine")
    real_tokens = {}
    for asked in (prompt, ""):
        ((hidden, _),) = run(tmp_path, 1, bridge=loaded, text=asked)
        real_tokens[hidden.shape[1]] = hidden
    assert len(real_tokens) == 2
    predict, lengths = bridge.vision.predict, []

    def one_by_one(x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """As ComfyUI asks, where the conditions of a batch differ in length."""
        assert text.mask is not None
        lengths.extend(text.mask.sum(1).tolist())
        each = [Text(real_tokens[length]) for length in lengths[-len(x_t) :]]
        return torch.cat([predict(x_t[i : i + 1], timesteps, one) for i, one in enumerate(each)])

    monkeypatch.setattr(bridge.vision, "predict", one_by_one)
    assert abs(checks.pictures(bridge, [prompt]) - masked).max() <= 1
    assert set(lengths) == set(real_tokens)


def test_the_model_is_told_another_size_where_one_is_given() -> None:
    text = text_half.Text(torch.zeros(1, 2, 3))
    assert conditioning(text, 640, 512)[0][1] == {"width": 640, "height": 512}
    assert conditioning(text, 640)[0][1] == {}


def test_longer_prompts_than_the_own_encoder_reads(tiny: Tiny, tmp_path: Path) -> None:
    bridge = jobs.trained(tiny("t5"), tiny("sd"), tokens=120)
    exported(bridge, tmp_path)
    loaded = run(tmp_path, 0, name="mine")
    ((hidden, _),) = run(tmp_path, 1, bridge=loaded, text="r" * 100)
    assert off(hidden, bridge.encode("r" * 100).hidden) < 1e-5
    assert hidden.shape[1] == 102


# ---- what is wrong, in a line


def line(error: pytest.ExceptionInfo[Exception]) -> str:
    (said,) = str(error.value).splitlines()
    return said


def test_an_unknown_name_is_an_error_that_names_what_is_there(tiny: Tiny, tmp_path: Path) -> None:
    exported(Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu"), tmp_path, "one")
    with pytest.raises(
        folders.BridgeError, match=r"no bridge 'two' in .*; there are: one"
    ) as error:
        run(tmp_path, 0, name="two")
    line(error)


def test_other_exports_and_bridges_are_not_listed(tiny: Tiny, tmp_path: Path) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu")
    export_bridge(bridge, tmp_path / "merged")
    bridge.save(tmp_path / "saved")
    exported(bridge, tmp_path, "within/one")
    assert list(folders.found(lambda: [tmp_path])) == ["within/one"]


def test_a_damaged_folder_says_what_is_wrong(tiny: Tiny, tmp_path: Path) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu")
    index = exported(bridge, tmp_path) / "bridge.json"
    whole = index.read_text()
    told = json.loads(whole)
    del told["export"]["fits"]["width"]
    for text, reason in (
        (whole[:-40], "is damaged: "),
        (json.dumps(told), "is damaged: it has no 'width'"),
    ):
        index.write_text(text)
        with pytest.raises(folders.BridgeError, match=reason) as error:
            run(tmp_path, 0, name="mine")
        assert "export it again" in line(error)
    index.write_text(whole)
    (index.parent / "text" / ADAPTER).write_bytes(b"no")
    with pytest.raises(folders.BridgeError, match="cannot be loaded") as error:
        run(tmp_path, 0, name="mine")
    line(error)


def changed(path: Path, **values: Any) -> None:
    """A JSON file with other values."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(home: Path, reason: str) -> None:
    with pytest.raises(folders.BridgeError, match=reason) as error:
        run(home, 0, name="mine")
    line(error)


EVIL = "open('ran', 'w'); raise SystemExit"


def evil_pipeline(language: Path) -> None:
    """What diffusers runs of a folder that it takes for a pipeline."""
    index = {"_class_name": ["evil", "Evil"], "_diffusers_version": "0.37.0"}
    (language / "model_index.json").write_text(json.dumps(index))
    (language / "evil.py").write_text(EVIL)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"module": "somewhere.else"}, "code of 'somewhere.else'"),
        ({"module": "diffusers", "class": "DiffusionPipeline"}, "code of 'diffusers'"),
        ({"module": "transformers", "class": "AutoModel"}, "code of 'transformers'"),
        ({"module": "transformers.dynamic_module_utils"}, "which is not run"),
        ({"module": "transformers.models.t5.modeling_t5.torch.hub"}, "which is not run"),
        ({"module": "transformers.models..modeling_t5"}, "which is not run"),
        ({"module": ["transformers"]}, "which is not run"),
        ({"class": "T5EncoderModel.from_pretrained"}, "which is none"),
        ({"class": "torch"}, "'torch' of .*, which is no model"),
        ({"class": "nn"}, "which is no model"),
        ({"class": "PreTrainedModel"}, "which is no model"),
        ({"class": "T5NewModel"}, r"with transformers 5.* gives no T5NewModel of .*modeling_t5'"),
        ({"module": "transformers.models.t6.modeling_t6"}, "No module named 'transformers.models"),
        ({"options": {"trust_remote_code": True}}, "trust_remote_code=True"),
        ({"options": {"custom_pipeline": "evil"}}, "custom_pipeline='evil'"),
        ({"options": {"attn_implementation": "me/kernel"}}, "attn_implementation='me/kernel'"),
        ({"options": {"add_pooling_layer": 0}}, "add_pooling_layer=0"),
        ({"id": "owner/name"}, "elsewhere.*: id='owner/name'"),
        ({"subfolder": "../../other"}, r"elsewhere.*: subfolder='../../other'"),
        ({"subfolder": "/etc"}, "elsewhere.*: subfolder='/etc'"),
        ({"part": "encoder"}, "elsewhere.*: part='encoder'"),
        ({"revision": "main"}, "elsewhere.*: revision='main'"),
    ],
)
def test_only_what_an_export_asks_for_is_loaded(
    values: dict[str, Any],
    reason: str,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu")
    language = exported(bridge, tmp_path) / "text" / "language"
    if values.get("class") == "DiffusionPipeline":
        evil_pipeline(language)
    changed(language / "base.json", **values)
    refused(tmp_path, reason)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("file", "values", "reason"),
    [
        ("language/config.json", {"auto_map": {"AutoModel": "evil.Evil"}}, "auto_map="),
        ("language/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["e.E"]}}, "auto_map="),
        ("language/config.json", {"text_config": {"auto_map": {"AutoConfig": "e.E"}}}, "auto_map="),
        ("language/config.json", {"attn_implementation": "me/kernel"}, "='me/kernel'"),
        ("language/config.json", {"_attn_implementation": {"": "me/kernel"}}, "me/kernel"),
        ("language/config.json", {"experts_implementation": "me/kernel"}, "='me/kernel'"),
        ("language/config.json", {"quantization_config": {"quant_method": "eetq"}}, "eetq"),
        ("language/config.json", {"transformers_weights": "../../x.safetensors"}, "weights='../"),
    ],
)
def test_configs_that_bring_code_or_weights_are_refused(
    file: str, values: dict[str, Any], reason: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu")
    changed(exported(bridge, tmp_path) / "text" / file, **values)
    refused(tmp_path, rf"asks in '{file}' for .*{reason}")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("evil.py", EVIL, "'language/evil.py', which no export has"),
        ("pytorch_model.bin", "", "'language/pytorch_model.bin', which no export has"),
        ("lora/adapter_config.json", "{}", "'language/lora', which names a model elsewhere"),
        ("adapter_config.json", "{}", "which names a model elsewhere"),
        ("x.index.json", '{"weight_map": {"a": "../x.safetensors"}}', "lies elsewhere: '../x"),
        ("x.index.json", '{"weight_map": {"a": "/x.safetensors"}}', "lies elsewhere: '/x"),
        ("x.index.json", '["a"]', "is damaged"),
        ("x_config.json", "[" * 100_000, "is damaged: its JSON is too deep"),
    ],
)
def test_files_that_no_export_has_are_refused(
    name: str, text: str, reason: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu")
    path = exported(bridge, tmp_path) / "text" / "language" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    refused(tmp_path, reason)


def test_what_a_system_leaves_in_a_folder_is_in_nobodys_way(tiny: Tiny, tmp_path: Path) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu")
    (exported(bridge, tmp_path) / "text" / ".DS_Store").touch()
    assert run(tmp_path, 0, name="mine").folder.id == bridge.id


def test_what_every_language_family_asks_for_is_allowed() -> None:
    kinds = [LANGUAGES[name] for name in LANGUAGES]
    asked = {key: value for kind in kinds for key, value in kind.model_options.items()}
    assert asked == allowed.OPTIONS
    own = [kind._model_class() for kind in kinds if not kind.model_class.startswith("Auto")]
    own.append(LANGUAGES["ldmbert"]._model_class())
    for model in [*own, BertModel, LlamaModel]:
        if not model.__name__.startswith("Auto"):
            assert allowed.MODULE.fullmatch(model.__module__), model


def test_a_lora_that_lands_only_in_part_is_an_error_with_the_count(
    tiny: Tiny, tmp_path: Path
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu")
    exported(bridge, tmp_path)
    model = model_of(bridge)
    gone = [name for name in model.model.weights if "mid_block" in name and "attn2" in name]
    for name in gone:
        del model.model.weights[name]
    layers = len(lora.layers(bridge.vision.backbone))
    loaded = run(tmp_path, 0, name="mine")
    with pytest.raises(
        folders.BridgeError, match=f"^{layers - 4} of {layers} LoRA layers"
    ) as error:
        run(tmp_path, 2, bridge=loaded, model=model)
    line(error)


def test_another_width_or_kind_of_model_is_an_error(tiny: Tiny, tmp_path: Path) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu")
    exported(bridge, tmp_path)
    loaded = run(tmp_path, 0, name="mine")
    for told, reason in (
        ({"num_res_blocks": [2], "context_dim": 768}, "width 24 .*, this model reads 768"),
        ({"image_model": "pixart_alpha"}, "another kind"),
        ({"image_model": "flux"}, "another kind"),
    ):
        with pytest.raises(folders.BridgeError, match=reason) as error:
            run(tmp_path, 2, bridge=loaded, model=stand_in.Model({}, told, 24))
        line(error)


def test_the_lora_of_another_bridge_is_an_error(tiny: Tiny, tmp_path: Path) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu")
    path = exported(bridge, tmp_path) / comfyui.VISION_LORA
    loaded, model = run(tmp_path, 0, name="mine"), model_of(bridge)
    save_file(load_file(path), path, metadata={"bridge": "another"})
    with pytest.raises(folders.BridgeError, match=f"of bridge another, .* of {bridge.id}") as error:
        run(tmp_path, 2, bridge=loaded, model=model)
    line(error)
    path.unlink()
    with pytest.raises(folders.BridgeError, match="cannot be read") as error:
        run(tmp_path, 2, bridge=loaded, model=model)
    line(error)


@pytest.mark.parametrize(
    ("vision", "adapter", "reason"),
    [
        ("sana", "feedforward", "SDXL and PixArt, not SanaPipeline"),
        ("sd3", "feedforward", "not StableDiffusion3Pipeline"),
        ("sd", "timed", "anew at every step"),
        ("sd", "fusion", "reads the own encoder"),
        ("sd", "concat", "reads the own encoder"),
    ],
)
def test_what_the_nodes_cannot_read_is_not_exported(
    vision: str, adapter: str, reason: str, tiny: Tiny, whole: Tiny, tmp_path: Path
) -> None:
    model = (whole if vision == "sd" else tiny)(vision)
    bridge = Bridge.connect(tiny("t5"), model, adapter=adapter, rank=1, device="cpu")
    with pytest.raises(BridgeError, match=f"no export in form 'comfyui': .*{reason}") as error:
        exported(bridge, tmp_path)
    line(error)
    assert not list(tmp_path.iterdir())


# ---- the pack


def test_the_pack_brings_the_text_half_as_it_is_here() -> None:
    kept = (PACK / "text_half.py").read_text(encoding="utf-8")
    assert kept == comfyui.text_half(), "comfyui/text_half.py is not of these sources: make comfyui"


def test_the_pack_imports_nothing_of_this_package() -> None:
    for path in PACK.glob("*.py"):
        assert "lavi_bridge." not in path.read_text(encoding="utf-8"), path


def test_loading_the_pack_needs_neither_comfyui_nor_torch() -> None:
    code = "import sys, comfyui; print({'torch', 'comfy_api'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_the_nodes_say_what_they_take_and_give(tmp_path: Path) -> None:
    found = nodes(stand_in.io, lambda: [tmp_path])
    for node in found:
        schema = node.define_schema()  # type: ignore[attr-defined]
        names = node.execute.__code__.co_varnames[1 : node.execute.__code__.co_argcount]  # type: ignore[attr-defined]
        assert [part.id for part in schema.inputs] == list(names)
    assert [node.define_schema().node_id for node in found] == [  # type: ignore[attr-defined]
        "LaViBridgeLoad",
        "LaViBridgeEncode",
        "LaViBridgeApply",
    ]


def test_the_workflow_gives_the_nodes_what_they_take(tmp_path: Path) -> None:
    workflow = json.loads((PACK / "workflow.json").read_text(encoding="utf-8"))
    schemas = [node.define_schema() for node in nodes(stand_in.io, lambda: [tmp_path])]  # type: ignore[attr-defined]
    known = {schema.node_id: schema for schema in schemas}
    ours = [one for one in workflow.values() if one["class_type"] in known]
    assert {one["class_type"] for one in ours} == set(known)
    for one in ours:
        parts = known[one["class_type"]].inputs
        assert list(one["inputs"]) == [part.id for part in parts]
        for part in parts:
            if part.kind == "LAVI_BRIDGE":
                node, output = one["inputs"][part.id]
                assert known[workflow[node]["class_type"]].outputs[output].kind == part.kind


def test_a_new_export_of_the_same_name_is_loaded_anew(tiny: Tiny, tmp_path: Path) -> None:
    load: Any = nodes(stand_in.io, lambda: [tmp_path])[0]
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=1, device="cpu")
    exported(bridge, tmp_path)
    before = load.fingerprint_inputs(name="mine", dtype="auto")
    assert load.fingerprint_inputs(name="mine", dtype="auto") == before
    exported(bridge, tmp_path, dtype=torch.bfloat16)
    assert load.fingerprint_inputs(name="mine", dtype="auto") != before


def test_the_registry_is_told_what_it_asks_for() -> None:
    import tomllib

    told = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
    project = told["project"]
    assert "comfyui" not in project["name"].lower()
    assert len(project["version"].split(".")) == 3
    assert (PACK / project["license"]["file"]).read_text() == (ROOT / "LICENSE").read_text()
    assert project["urls"]["Repository"]
    assert told["tool"]["comfy"]["PublisherId"]
    needed = {name.partition(">")[0] for name in project["dependencies"]}
    assert needed == {"torch", "transformers", "diffusers", "safetensors"}


def test_comfyui_may_put_the_text_half_aside(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = jobs.trained(tiny("t5"), tiny("sdxl"))
    exported(bridge, tmp_path)
    loads: list[Any] = []
    device = torch.device("cpu")
    memory = SimpleNamespace(
        text_encoder_device=lambda: device,
        text_encoder_offload_device=lambda: device,
        intermediate_device=lambda: device,
        should_use_bf16=lambda device: True,
        load_models_gpu=lambda models, force_full_load: loads.extend(models),
    )

    class Patcher:
        def __init__(self, model: Any, load_device: Any, offload_device: Any) -> None:
            model.device = offload_device  # as ComfyUI's does
            self.load_device = load_device

    monkeypatch.setitem(sys.modules, "comfy", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "comfy.model_management", memory)
    patching = SimpleNamespace(ModelPatcher=Patcher)
    monkeypatch.setitem(sys.modules, "comfy.model_patcher", patching)
    loaded: Reader = run(tmp_path, 0, name="mine", dtype="auto")
    assert next(loaded.held.reads.language.parameters()).dtype == torch.bfloat16
    ((hidden, told),) = run(tmp_path, 1, bridge=loaded, text="red")
    assert loads == [loaded.patcher]
    assert hidden.dtype == told["pooled_output"].dtype == torch.float32


# ---- ComfyUI itself


NORMED: dict[str, Any] = {"block_out_channels": (32, 64), "norm_num_groups": 32}
"""ComfyUI's U-Nets have 32 groups."""
LIKE: dict[str, dict[str, Any]] = {
    "sd": NORMED,
    "sdxl": NORMED
    | {"addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 6 * 256 + 20},
    "pixart-sigma": {"sample_size": 64},
    "pixart-alpha-1024": {},
}
"""How tiny models differ so that ComfyUI has their like."""


def in_comfyui(tmp_path: Path, written: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a ComfyUI checkout says of jobs, by their names; skips where there is none."""
    checkout = os.environ.get("COMFYUI")
    if not checkout:
        pytest.skip("needs a checkout of ComfyUI and what it imports: COMFYUI=/path/to/it")
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in written))
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    script = Path(__file__).with_name("in_comfyui.py")
    done = subprocess.run(
        [python, str(script), checkout, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("JOB ")]
    told = [json.loads(line.removeprefix("JOB ")) for line in lines]
    return {one["name"]: one for one in told}


def test_every_layer_of_the_real_models_has_its_place_in_comfyuis_own_maps(
    tiny: Tiny, tmp_path: Path
) -> None:
    if not os.environ.get("COMFYUI"):
        pytest.skip("needs a checkout of ComfyUI and what it imports: COMFYUI=/path/to/it")
    written = []
    for name in ("sd", "sdxl", "pixart"):
        small = {"pixart": "pixart-alpha"}.get(name, name)
        folder = exported(
            Bridge.connect(tiny("t5"), tiny(small), rank=1, device="cpu"), tmp_path, name
        )
        bridge = Bridge.outline(
            tiny("t5"), real_model(name, tmp_path / f"{name}-real"), vision_rank=1
        )
        state = {k: torch.zeros(v.shape) for k, v in comfyui.lora_state(bridge, None).items()}
        told = json.loads((folder / "bridge.json").read_text())
        told["export"]["fits"] = vars(comfyui.fits(bridge))
        (folder / "bridge.json").write_text(json.dumps(told))
        save_file(state, folder / comfyui.VISION_LORA, metadata={"bridge": told["id"]})
        config = {"sd": real.SD_UNET, "sdxl": real.SDXL_UNET, "pixart": real.PIXART}[name]
        written.append({"home": str(tmp_path), "name": name, "config": config, "case": None})
    found = in_comfyui(tmp_path, written)
    assert {name: one["layers"] for name, one in found.items()} == {
        "sd": 224,
        "sdxl": 692,
        "pixart": 224,
    }


def test_comfyuis_models_answer_what_ours_answer(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.environ.get("COMFYUI"):
        pytest.skip("needs a checkout of ComfyUI and what it imports: COMFYUI=/path/to/it")
    written = []
    for name, changes in LIKE.items():
        pipeline, parts, noise = testing.VISIONS[name]
        ((part, (kind, config)),) = [item for item in parts.items() if item[0] != "vae"]
        config = config | changes
        monkeypatch.setitem(
            testing.VISIONS, name, (pipeline, parts | {part: (kind, config)}, noise)
        )
        vision = testing.make_vision(tmp_path / "models" / name, name)
        weights = vision / part / "diffusion_pytorch_model.safetensors"
        bridge = Bridge.connect(tiny("t5"), vision, rank=4, device="cpu")
        checks.train_a_little(bridge)
        with torch.no_grad():
            for parameter in lora.parameters(bridge.vision.backbone):
                parameter.normal_(std=0.1)  # enough to be seen
        exported(bridge, tmp_path, name)
        side = bridge.vision.backbone.config.sample_size if "pixart" in name else 8
        scale = bridge.vision.scale
        x_t = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
        timestep, prompt = torch.tensor([500.0]), checks.PROMPTS[1]
        with torch.no_grad():
            expected = bridge.vision.predict(x_t, timestep, bridge.encode(prompt))
        case = {"x_t": x_t, "timestep": timestep, "expected": expected.contiguous()}
        save_file(case, tmp_path / f"{name}.safetensors")
        written.append(
            {
                "home": str(tmp_path),
                "name": name,
                "config": config,
                "weights": str(weights),
                "case": str(tmp_path / f"{name}.safetensors"),
                "prompt": prompt,
                # ComfyUI takes 8 pixels a latent for granted; this tiny autoencoder has fewer
                "size": {"width": side * scale, "height": side * scale} if scale != 8 else {},
            }
        )
    for name, one in in_comfyui(tmp_path, written).items():
        assert one["off"] < 1e-4, (name, one)
        assert one["moved"] > 0.01, (name, one)
