"""What the loaders of vLLM-Omni and SGLang ask of an exported folder, as docs/serving.md tells."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from lavi_bridge import Bridge
from lavi_bridge.export import export_bridge
from lavi_bridge.export.written.half import ADAPTER
from tests.export import jobs
from tests.visions import checks

Tiny = Callable[[str], Path]
pytestmark = pytest.mark.filterwarnings(
    # the releases that the engines pin know no other name
    "ignore:`torch_dtype` is deprecated:FutureWarning",
)
FAMILIES = ("sd", "sd3", "qwen-image")
ASKED = (
    *("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "height", "width"),
    *("generator", "num_images_per_prompt", "output_type"),
)
"""Arguments that the engines hand to a pipeline, where its signature names them."""
ALWAYS = {"eta": 0.0, "guidance_rescale": 0.0, "num_frames": 1}
"""What vLLM-Omni adds of itself, where the signature names it."""
FEW: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 7.5}


@dataclass
class Served:
    """An exported folder, its pipeline in float32, and what the bridge draws itself."""

    folder: Path
    pipe: Any
    size: tuple[int, int]
    options: dict[str, Any]
    drawn: np.ndarray

    def draw(self, prompt: Any = "a red circle", seed: int = checks.SEED, **options: Any) -> Any:
        """Ask as SGLang does: a seed on the processor, and pictures as a tensor."""
        generator = torch.Generator("cpu").manual_seed(seed)
        return self.pipe(prompt=prompt, generator=generator, output_type="pt", **options).images


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Load as both engines do in the end."""
    pipe = DiffusionPipeline.from_pretrained(
        str(folder),
        custom_pipeline=str(folder),
        trust_remote_code=True,
        torch_dtype=dtype,
        revision=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module", params=FAMILIES)
def served(
    request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Served:
    folder = tmp_path_factory.mktemp("served") / "out"
    bridge = jobs.trained(tiny("t5"), tiny(request.param))
    export_bridge(bridge, folder)
    options = jobs.options_of(bridge, "merged")
    drawn = checks.pictures(bridge, checks.PROMPTS[:1])
    return Served(folder, load(folder), bridge.vision.size, options, drawn)


def test_a_folder_without_its_code_is_refused_in_the_words_that_sglang_waits_for(
    served: Served,
) -> None:
    index = json.loads((served.folder / "model_index.json").read_text())
    assert isinstance(index["_class_name"], str)
    assert index["_diffusers_version"]
    with pytest.raises(AttributeError, match="has no attribute"):
        DiffusionPipeline.from_pretrained(str(served.folder), trust_remote_code=True)


def test_the_class_is_taken_for_one_that_draws_pictures(served: Served) -> None:
    name = type(served.pipe).__name__.lower()
    assert not [word for word in ("video", "animat", "cogvideo", "wan", "hunyuan") if word in name]


def test_every_component_has_its_folder_and_its_weights_right_there(served: Served) -> None:
    index = json.loads((served.folder / "model_index.json").read_text())
    parts = {k for k, v in index.items() if not k.startswith("_") and v != [None, None]}
    parts = {name for name in parts if isinstance(index[name], list)}
    assert {"prompt_processor", "vae", "scheduler"} < parts
    for name in parts:
        assert (served.folder / name).is_dir()
        if not any(hint in name for hint in ("tokenizer", "scheduler", "processor")):
            assert [*(served.folder / name).glob("*.safetensors")], name


def test_the_call_names_every_argument_that_is_handed_to_it(served: Served) -> None:
    named = inspect.signature(served.pipe.__call__).parameters
    assert set(ASKED) <= set(named)


def test_the_dummy_run_of_vllm_omni_ends_in_a_picture(served: Served) -> None:
    named = inspect.signature(served.pipe.__call__).parameters
    height, width = (2 * side for side in served.size)  # 512 there, whatever the model draws
    with torch.inference_mode():
        drawn = served.pipe(
            prompt="dummy run",
            height=height,
            width=width,
            num_inference_steps=2,
            guidance_scale=0.0,
            num_images_per_prompt=1,
            output_type="pil",
            generator=torch.Generator(),
            **{name: value for name, value in ALWAYS.items() if name in named},
        )
    assert [image.size for image in drawn.images] == [(width, height)]


def test_the_warm_up_of_sglang_ends_in_a_picture(served: Served) -> None:
    height, width = served.size
    drawn = served.draw("warmup", height=height, width=width, **FEW)
    assert torch.isfinite(drawn).all()


def test_pictures_as_tensors_lie_between_0_and_1(served: Served) -> None:
    height, width = served.size
    drawn = served.draw(num_images_per_prompt=2, **served.options)
    assert drawn.shape == (2, 3, height, width)
    assert torch.isfinite(drawn).all()
    assert 0 <= drawn.min() < drawn.max() <= 1


def test_a_seed_on_the_processor_draws_what_the_bridge_draws(served: Served) -> None:
    found = served.draw(checks.PROMPTS[0], **served.options)
    levels = (found.permute(0, 2, 3, 1) * 255).round().numpy()
    assert np.abs(levels - served.drawn).max() <= 1


def test_of_several_pictures_each_is_another(served: Served) -> None:
    one, two = served.draw(num_images_per_prompt=2, **served.options)
    assert not torch.equal(one, two)


def test_a_negative_prompt_moves_the_picture_and_an_empty_one_does_not(served: Served) -> None:
    plain = served.draw(**served.options)
    assert torch.equal(plain, served.draw(negative_prompt="", **served.options))
    told = served.draw(negative_prompt="two blue squares", **served.options)
    assert not torch.equal(plain, told)


def test_several_prompts_are_answered_at_once(served: Served) -> None:
    drawn = served.draw(list(checks.PROMPTS), negative_prompt=["", ""], **served.options)
    assert len(drawn) == len(checks.PROMPTS)


def test_loaded_with_bfloat16_as_default_the_adapter_keeps_its_precision(served: Served) -> None:
    torch.set_default_dtype(torch.bfloat16)  # vLLM-Omni's while it loads
    try:
        pipe = load(served.folder, torch.bfloat16)
    finally:
        torch.set_default_dtype(torch.float32)
    drawn = pipe("a red circle", output_type="pt", **served.options).images
    assert torch.isfinite(drawn).all()
    kept = load_file(served.folder / "prompt_processor" / ADAPTER)
    found = pipe.prompt_processor.adapter.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in kept.items())


def test_models_that_wait_on_the_processor_draw_the_same(served: Served) -> None:
    pipe = load(served.folder)
    pipe.enable_model_cpu_offload(device="cpu")  # SGLang does so of itself
    waiting = replace(served, pipe=pipe).draw(**served.options)
    torch.testing.assert_close(waiting, served.draw(**served.options), rtol=0, atol=1e-3)


def test_own_encoders_that_wait_are_asked_where_they_will_run(
    tiny: Tiny, whole: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge.connect(tiny("t5"), whole("sdxl"), adapter="concat", rank=4, device="cpu")
    export_bridge(bridge, tmp_path / "out")
    pipe = load(tmp_path / "out")
    pipe.enable_model_cpu_offload(device="cpu")
    asked, encode = [], pipe.encode_prompt

    @wraps(encode)
    def spy(*args: Any, **options: Any) -> Any:
        asked.append(options["device"])
        return encode(*args, **options)

    monkeypatch.setattr(pipe, "encode_prompt", spy)
    pipe.own_text(["a red circle"])
    assert pipe.text_encoder.device == torch.device("cpu")  # and cpu:0 when its turn comes
    assert asked == [pipe._execution_device] == [torch.device("cpu:0")]


def test_several_pictures_come_where_a_pipeline_calls_them_videos(
    tiny: Tiny, tmp_path: Path
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("wan"), rank=4, device="cpu")
    export_bridge(bridge, tmp_path / "out")
    pipe = load(tmp_path / "out")
    drawn = pipe(prompt=["a", "b"], num_videos_per_prompt=2, num_inference_steps=2, num_frames=1)
    assert [len(frames) for frames in drawn.frames] == [1] * 4
