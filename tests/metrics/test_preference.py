"""PickScore and HPSv3: small random models of the real classes, against their steps one by one."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import linear, relu

from lavi_bridge import BridgeError
from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.hpsv3 import (
    FILE,
    REWARD,
    TEMPLATE_URL,
    HPSv3,
    digest,
    read_template,
    renamed,
    resized,
)
from lavi_bridge.metrics.pickscore import PickScore
from lavi_bridge.prompts.prompt import Prompt
from tests.metrics.test_clip import embeddings, folder, pictures, prompts

__all__ = ["folder", "pictures", "prompts"]  # fixtures: a tiny CLIP, three pictures, three prompts

# ---- PickScore


def test_pickscore_is_the_scaled_cosine(
    folder: Path, pictures: list[Image.Image], prompts: list[Prompt], tmp_path: Path
) -> None:
    from transformers import CLIPModel

    metric = METRICS["pickscore"](scorer=folder)  # type: ignore[call-arg]
    assert isinstance(metric, PickScore)
    images, texts = embeddings(folder, pictures)
    scale = CLIPModel.from_pretrained(folder).logit_scale.exp().item()
    assert scale == pytest.approx(1 / 0.07, rel=1e-3)  # as CLIP begins; PickScore has about 100
    expected = [
        scale * (image @ text / (image.norm() * text.norm())).item()
        for image, text in zip(images, texts, strict=True)
    ]
    assert metric(pictures, prompts) == pytest.approx(expected, abs=1e-4)
    assert "1 of 3 texts are longer than the 20 tokens of PickScore's" in str(metric.note(prompts))
    with pytest.raises(BridgeError, match=r"'yuvalkirstain/PickScore_v1' .*a local folder"):
        PickScore()


# ---- HPSv3

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
WORDS += ["<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
OURS = f'''
INSTRUCTION = """
How good is this for "{{text_prompt}}"?
"""
prompt_with_special_token = """
Good: {REWARD}

END
"""
'''
SIZES = [(16, 1024), (1024, 16), (16, 2)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Config, tokenizer and image processor of a tiny Qwen2-VL, as in its Hub repository."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLImageProcessorPil

    path = tmp_path_factory.mktemp("qwen2-vl")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(vocab={letter: i for i, letter in enumerate(letters)}, merges=[])
    tokenizer.add_tokens(WORDS, special_tokens=True)
    tokenizer.pad_token = WORDS[0]
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(path)
    Qwen2VLImageProcessorPil(patch_size=14, merge_size=2).save_pretrained(path)
    ids = dict(zip(WORDS, tokenizer.convert_tokens_to_ids(WORDS), strict=True))
    Qwen2VLConfig(
        text_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": 400,  # more than the tokenizer has, as in the real one
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [1, 1, 2],
                "rope_theta": 1e4,
            },
        },
        vision_config={
            "depth": 1,
            "embed_dim": 16,
            "hidden_size": 16,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def hps(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, as published: of transformers 4.52's names, with head and lm_head."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    config = Qwen2VLConfig.from_pretrained(base)
    config.text_config.vocab_size = 256 + len(WORDS) + 1
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(config)
    for parameter in model.parameters():  # as made, tokens would hardly see each other
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for place, (n, m) in zip((0, 3, 5), SIZES, strict=True):
        state[f"rm_head.{place}.weight"] = torch.randn(m, n) / n**0.5
        state[f"rm_head.{place}.bias"] = torch.randn(m)
    path = tmp_path_factory.mktemp("hpsv3")
    save_file(state, path / FILE)
    return path


@pytest.fixture(scope="module")
def wording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wording") / "asked.py"
    path.write_text(OURS)
    return path


@pytest.fixture(scope="module")
def metric(base: Path, hps: Path, wording: Path) -> HPSv3:
    made = METRICS["hpsv3"](  # type: ignore[call-arg]
        scorer=hps, base=base, template=wording, dtype="float32", device="cpu"
    )
    assert isinstance(made, HPSv3)
    return made


def straight(base: Path, hps: Path, picture: Image.Image, text: str) -> Tensor:
    """One picture by transformers' whole model and the head's three layers by hand."""
    from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

    state = load_file(hps / FILE)
    head = {key: state.pop(key) for key in [*state] if key.startswith("rm_head")}
    config = Qwen2VLConfig.from_pretrained(base)
    config.text_config.vocab_size = len(state["model.language_model.embed_tokens.weight"])
    model = Qwen2VLForConditionalGeneration(config).eval()
    model.load_state_dict(state)
    # 200,704 pixels are 1,024 patches of 14 pixels a side, merged by fours
    width, height = picture.size
    beta = (width * height / 200_704) ** 0.5
    wide, high = (int(side / beta // 28) * 28 for side in (width, height))
    small = picture.convert("RGB").resize((wide, high), Image.Resampling.BICUBIC)
    mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
    spread = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
    pixels = torch.from_numpy((np.asarray(small, np.float32) / 255 - mean) / spread)
    # squares of four patches after one another; a patch holds each channel twice, as a still film
    squares = pixels.unflatten(0, (high // 28, 2, 14)).unflatten(3, (wide // 28, 2, 14))
    patches = squares.permute(0, 3, 1, 4, 6, 2, 5)[..., None, :, :].expand(*[-1] * 5, 2, -1, -1)
    said = OURS.split('"""')[1].replace("{text_prompt}", text) + OURS.split('"""')[3]
    pads = "<|image_pad|>" * (wide * high // 784)
    turns = f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>{said}<|im_end|>\n"
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([REWARD], special_tokens=True)
    ids = torch.tensor([tokenizer(f"{turns}<|im_start|>assistant\n")["input_ids"]])
    with torch.no_grad():
        states = model(
            input_ids=ids,
            mm_token_type_ids=(ids == config.image_token_id).int(),
            pixel_values=patches.reshape(-1, 3 * 2 * 14 * 14),
            image_grid_thw=torch.tensor([[1, high // 14, wide // 14]]),
            output_hidden_states=True,
        ).hidden_states[-1][0]
    (place,) = (ids[0] == 256 + len(WORDS)).nonzero().tolist()  # the last word
    x = states[place[0]]
    for number in (0, 3):
        x = relu(linear(x, head[f"rm_head.{number}.weight"], head[f"rm_head.{number}.bias"]))
    return linear(x, head["rm_head.5.weight"], head["rm_head.5.bias"])


@pytest.fixture(scope="module")
def large() -> list[Image.Image]:
    """Larger than the model sees, so that both are shrunk."""
    noise = np.random.default_rng(0).integers(0, 256, (700, 560, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    return [picture, picture.rotate(90, expand=True).resize((1200, 600))]


def test_hpsv3_is_its_definition_step_by_step(
    metric: HPSv3, base: Path, hps: Path, large: list[Image.Image]
) -> None:
    texts = ["a cat", "two dogs and {a} much longer text"]
    expected = [
        straight(base, hps, picture, text) for picture, text in zip(large, texts, strict=True)
    ]
    found = metric.outputs(large, texts)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-3)
    asked = [Prompt(str(n), text) for n, text in enumerate(texts)]
    assert metric(large, asked) == found[:, 0].tolist()
    assert found.shape == (2, 2)
    alone = metric.outputs(large[:1], texts[:1])
    torch.testing.assert_close(alone, found[:1], atol=1e-4, rtol=1e-3)  # padding has no part
    other = metric.outputs(large[:1], ["a dog"])
    assert (other - alone).abs().max() > 1e-3


def test_images_are_seen_at_about_256_squares_of_28_pixels() -> None:
    assert resized(Image.new("RGB", (512, 512))).size == (448, 448)
    assert resized(Image.new("L", (100, 50))).size == (644, 336)  # enlarged, to no less
    assert resized(Image.new("RGB", (1600, 800))).size == (616, 308)
    with pytest.raises(ValueError, match="aspect ratio"):
        resized(Image.new("RGB", (900, 3)))


def test_names_of_earlier_versions_are_read(
    metric: HPSv3, base: Path, hps: Path, wording: Path, tmp_path: Path, large: list[Image.Image]
) -> None:
    """`visual.` and `model.`, as transformers before 4.52 wrote them."""
    state = {
        re.sub(r"^model\.(visual|language_model)\.", replaced, key): tensor
        for key, tensor in load_file(hps / FILE).items()
        for replaced in ["visual." if key.startswith("model.visual") else "model."]
    }
    assert any(key.startswith("visual.") for key in state)
    assert renamed(state).keys() >= {"visual.merger.ln_q.weight", "language_model.norm.weight"}
    save_file(state, tmp_path / FILE)
    again = HPSv3(
        scorer=tmp_path / FILE, base=base, template=wording, dtype="float32", device="cpu"
    )
    assert torch.equal(metric.outputs(large[:1], ["x"]), again.outputs(large[:1], ["x"]))


def test_provenance_says_all_that_a_number_depends_on(metric: HPSv3, wording: Path) -> None:
    found = metric.provenance()
    assert found["precision"] == "float32"
    assert found["wording"] == digest(read_template(wording))
    assert len(found["weights"]) == 16
    assert HPSv3.higher


def test_a_prompt_with_the_rewards_word_is_refused(metric: HPSv3, large: list[Image.Image]) -> None:
    with pytest.raises(BridgeError, match=r"a prompt holds '<\|Reward\|>'"):
        metric.outputs(large[:1], [f"a cat {REWARD}"])


def test_what_is_missing_or_does_not_fit_is_one_line(
    base: Path, hps: Path, wording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAVI_BRIDGE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BridgeError, match=re.escape(f"download {TEMPLATE_URL} and put it at")):
        HPSv3(scorer=hps, base=base)
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "hpsv3-data_collator_qwen.py").write_text(OURS)
    with pytest.raises(BridgeError, match="has another wording than HPSv3's"):
        HPSv3(scorer=hps, base=base)
    for text, reason in {
        "raise SystemExit": "does not say how HPSv3 asks",
        "def": "cannot read HPSv3's wording",
    }.items():
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(BridgeError, match=reason):
            HPSv3(scorer=hps, base=base, template=tmp_path / "bad.py")
    with pytest.raises(BridgeError, match="'MizzenAI/HPSv3' is no folder here"):
        HPSv3(base=base, template=wording)
    with pytest.raises(BridgeError, match="Qwen/Qwen2-VL-7B-Instruct"):
        HPSv3(scorer=hps, template=wording)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BridgeError, match=rf"'{tmp_path}/empty' has no {FILE}"):
        HPSv3(scorer=tmp_path / "empty", base=base, template=wording)

    def refused(match: str, **changes: Tensor | None) -> None:
        state = load_file(hps / FILE)
        for name, tensor in changes.items():
            key = name.replace("__", ".")
            if tensor is None:
                del state[key]
            else:
                state[key] = tensor
        save_file(state, tmp_path / FILE)
        with pytest.raises(BridgeError, match=match):
            HPSv3(scorer=tmp_path, base=base, template=wording, dtype="float32")

    refused("has no head of HPSv3: .*rm_head.3.bias", rm_head__3__bias=None)
    refused("has no head of HPSv3", rm_head__5__weight=torch.zeros(1, 16))
    words = {"model__language_model__embed_tokens__weight": torch.zeros(400, 16)}
    refused("has 400 words, the tokenizer .* with .* 265", **words)
    refused("1 tensors as 'language_model.norm.weight'", model__language_model__norm__weight=None)
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for file in base.iterdir():
        (wrong / file.name).write_bytes(file.read_bytes())
    config = json.loads((base / "config.json").read_text()) | {"model_type": "qwen2_5_vl"}
    (wrong / "config.json").write_text(json.dumps(config))
    with pytest.raises(BridgeError, match="is no Qwen2-VL, but 'qwen2_5_vl'"):
        HPSv3(scorer=hps, base=wrong, template=wording)
