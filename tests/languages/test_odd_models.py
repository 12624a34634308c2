"""Models as people have them: odd configs and tokenizers are read, or refused in one line."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.files.locate import locate
from lavi_bridge.languages import load_language
from lavi_bridge.plan.data_check import check
from lavi_bridge.prompts.expand import expand
from lavi_bridge.prompts.options import ExpandConfig
from lavi_bridge.visions import Vision, load_vision

Tiny = Callable[[str], Path]


def changed(model: Path, folder: Path, file: str, **values: Any) -> Path:
    """A copy of a model with other values in one of its JSON files."""
    copy = Path(shutil.copytree(model, folder))
    path = copy / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return copy


def loaded(folder: Path) -> list[Vision]:
    """A vision model as a plan has it, and as training has it."""
    return [load_vision(locate(folder), dtype=dtype) for dtype in (None, torch.float32)]


def refused(folder: Path, reason: str) -> None:
    """Neither a plan nor training takes a vision model; both say why in a line."""
    for dtype in (None, torch.float32):
        with pytest.raises(BridgeError, match=reason) as caught:
            load_vision(locate(folder), dtype=dtype)
        assert "\n" not in str(caught.value)


# ---- sizes and widths


@pytest.mark.parametrize(
    ("name", "given", "size", "square"),
    [
        ("sd", 8, (16, 16), 16),
        ("sd", None, (128, 128), 128),
        ("sd", [8, 8], (16, 16), 16),
        ("sd", [8, 16], (16, 32), 22),
        ("ldm", None, (64, 64), 64),
    ],
)
def test_a_size_may_be_one_number_two_or_none(
    tiny: Tiny, tmp_path: Path, name: str, given: object, size: tuple[int, int], square: int
) -> None:
    folder = changed(tiny(name), tmp_path / "v", "unet/config.json", sample_size=given)
    for vision in loaded(folder):
        assert (vision.size, vision.resolution) == (size, square)


def test_a_picture_has_the_models_own_height_and_width(tiny: Tiny, tmp_path: Path) -> None:
    folder = changed(tiny("sd"), tmp_path / "v", "unet/config.json", sample_size=[8, 16])
    bridge = Bridge.connect(tiny("t5"), folder, rank=2)
    assert bridge.generate("a", steps=1)[0].size == (32, 16)
    assert bridge.generate("a", steps=1, width=16)[0].size == (16, 16)


@pytest.mark.parametrize("given", [[8, 8, 8], "auto", -8, [8, None]])
def test_what_is_no_size_is_named(tiny: Tiny, tmp_path: Path, given: object) -> None:
    folder = changed(tiny("sd"), tmp_path / "v", "unet/config.json", sample_size=given)
    with pytest.raises(BridgeError, match=r"sample_size in the config of the unet of .* is "):
        _ = load_vision(locate(folder)).resolution


def test_equal_widths_of_text_are_one(tiny: Tiny, tmp_path: Path) -> None:
    folder = changed(tiny("sd"), tmp_path / "v", "unet/config.json", cross_attention_dim=[24, 24])
    bridge = Bridge.connect(tiny("t5"), folder, rank=2)
    assert bridge.vision.text_width == 24
    bridge.generate("a", steps=1)


@pytest.mark.parametrize(
    ("name", "file", "values"),
    [
        ("sd", "unet/config.json", {"cross_attention_dim": [24, 32]}),
        ("pixart-alpha", "transformer/config.json", {"caption_channels": None}),
    ],
)
def test_text_of_no_one_width_is_one_line(
    tiny: Tiny, tmp_path: Path, name: str, file: str, values: dict[str, Any]
) -> None:
    folder = changed(tiny(name), tmp_path / "v", file, **values)
    with pytest.raises(BridgeError, match=r"names no width of its text|cannot load") as caught:
        Bridge.outline(tiny("t5"), folder, language_rank=2, vision_rank=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [None, ["my_pipeline", "Mine"], 7])
def test_a_pipeline_of_no_known_class_is_named(tiny: Tiny, tmp_path: Path, name: object) -> None:
    folder = changed(tiny("sd"), tmp_path / "v", "model_index.json", _class_name=name)
    refused(folder, r"names no pipeline class that is known \(_class_name: .*StableDiffusionP")


@pytest.mark.parametrize(
    "file",
    ["model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"],
)
def test_a_config_that_is_a_list_is_named(tiny: Tiny, tmp_path: Path, file: str) -> None:
    folder = Path(shutil.copytree(tiny("sd"), tmp_path / "v"))
    (folder / file).write_text("[]")
    refused(folder, f"{file} holds no JSON object, but a list")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model_type": ["t5"]}, "names no model_type"),
        ({"d_model": None}, "cannot load language model"),
    ],
)
def test_an_odd_config_of_a_language_model_is_one_line(
    tiny: Tiny, tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    folder = changed(tiny("t5"), tmp_path / "t5", "config.json", **values)
    for dtype in (None, torch.float32):
        with pytest.raises(BridgeError, match=reason) as caught:
            load_language(locate(folder), dtype=dtype)
        assert "\n" not in str(caught.value)


# ---- other than text to image


def as_if(model: Path, folder: Path, part: str, **values: Any) -> Path:
    """A copy of an image model whose backbone takes something else, with weights that fit."""
    import diffusers

    copy = Path(shutil.copytree(model, folder))
    config = json.loads((copy / part / "config.json").read_text()) | values
    kind = getattr(diffusers, config["_class_name"])
    kind.from_config(config).save_pretrained(copy / part)
    return copy


@pytest.mark.parametrize(
    ("name", "part", "values", "taken"),
    [
        ("sd", "unet", {"in_channels": 9}, "takes 9 channels and answers 4"),  # inpainting
        ("sd", "unet", {"in_channels": 8}, "takes 8 channels and answers 4"),  # editing
        ("ldm", "unet", {"in_channels": 5}, "takes 5 channels and answers 4"),  # depth
        ("sd", "unet", {"out_channels": 3}, "takes 4 channels and answers 3"),
        ("pixart-alpha", "transformer", {"in_channels": 9, "out_channels": 8}, "takes 9 channels"),
        ("sana", "transformer", {"in_channels": 4}, "takes 4 channels and answers 8"),
    ],
)
def test_a_backbone_of_other_channels_is_no_text_to_image_model(
    tiny: Tiny, tmp_path: Path, name: str, part: str, values: dict[str, Any], taken: str
) -> None:
    folder = as_if(tiny(name), tmp_path / "v", part, **values)
    refused(folder, rf"is no text-to-image model: its {part} {taken}.*autoencoder gives \d")


def test_a_learned_variance_is_no_other_channel(tiny: Tiny, tmp_path: Path) -> None:
    folder = as_if(tiny("sd"), tmp_path / "v", "unet", out_channels=8)
    Bridge.connect(tiny("t5"), folder, rank=2).generate("a", steps=1)


@pytest.mark.parametrize("values", [{"num_class_embeds": 10}, {"encoder_hid_dim": 8}])
def test_a_u_net_with_further_inputs_is_refused(
    tiny: Tiny, tmp_path: Path, values: dict[str, Any]
) -> None:
    folder = changed(tiny("sd"), tmp_path / "v", "unet/config.json", **values)
    with pytest.raises(BridgeError, match="asks for more than a bridge gives"):
        load_vision(locate(folder))


# ---- tokenizers: long texts


@pytest.mark.parametrize("model", ["t5", "llama", "clip_text_model", "bert"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_long_prompt_loses_its_end_whatever_the_tokenizer_says(
    tiny: Tiny, tmp_path: Path, model: str, side: str
) -> None:
    file = "tokenizer_config.json"
    folder = changed(tiny(model), tmp_path / "m", file, truncation_side=side)
    language = load_language(locate(folder), dtype=torch.float32)
    prompt = "BEGIN " + "x" * 200 + " END"
    tokens = language.tokenize([prompt], 20)
    assert language.tokenizer.decode(tokens.ids[0]).startswith("<s>BEGIN xx")
    assert (tokens.longest, tokens.cut) == (len(prompt) + 2, 1)
    (spans,) = language.spans([prompt], 20)
    assert [prompt[start:stop] for start, stop in spans[1:6]] == list("BEGIN")


# ---- tokenizers: tokens without an embedding


def with_tokens(
    model: Path, folder: Path, *, pad: str | None = None, named: bool = True, filled: bool = True
) -> Path:
    """A copy of a language model whose tokenizer was given tokens, and the model (300) was not."""
    copy = Path(shutil.copytree(model, folder))
    tokenizer = AutoTokenizer.from_pretrained(copy)
    if filled:
        tokenizer.add_tokens([f"<extra{i}>" for i in range(300 - len(tokenizer))])
    if pad:
        tokenizer.add_special_tokens({"pad_token": pad})
        if not named:
            tokenizer.pad_token = None  # in the vocabulary alone
    else:
        tokenizer.add_tokens(["<sks>"])
    tokenizer.save_pretrained(copy)
    return copy


@pytest.mark.parametrize(("model", "chosen"), [("llama", "<pad>"), ("t5", "<pad>")])
@pytest.mark.parametrize("named", [True, False])
def test_a_pad_token_beyond_the_embeddings_gives_way_to_the_next(
    tiny: Tiny, tmp_path: Path, model: str, chosen: str, named: bool
) -> None:
    folder = with_tokens(tiny(model), tmp_path / "m", pad="[PAD]", named=named)
    bridge = Bridge.connect(folder, tiny("sd"), rank=2)
    assert bridge.language.tokenizer.pad_token == chosen
    assert bridge.encode(["a cat", ""]).hidden.isfinite().all()


def test_an_added_pad_token_with_an_embedding_is_kept(tiny: Tiny, tmp_path: Path) -> None:
    folder = with_tokens(tiny("llama"), tmp_path / "m", pad="[PAD]", filled=False)
    language = load_language(locate(folder), dtype=torch.float32)
    assert language.tokenizer.pad_token == "[PAD]"


def test_without_a_pad_token_that_has_an_embedding_both_numbers_are_named(
    tiny: Tiny, tmp_path: Path
) -> None:
    from lavi_bridge.languages.loading.tokenizer import choose_pad_token

    folder = with_tokens(tiny("llama"), tmp_path / "m", pad="[PAD]")
    tokenizer, place = AutoTokenizer.from_pretrained(folder), locate(folder)
    with pytest.raises(BridgeError, match=r"no token to pad with \(\[PAD\] is 300 of 0 embedd"):
        choose_pad_token(tokenizer, ("unk",), 0, place)


def test_a_token_beyond_the_embeddings_is_named_before_the_model_sees_it(
    tiny: Tiny, tmp_path: Path
) -> None:
    folder = with_tokens(tiny("t5"), tmp_path / "m")
    bridge = Bridge.connect(folder, tiny("sd"), rank=2)
    reason = r"token '<sks>', number 300 of the tokenizer, but .* has 300 embeddings"
    for way in (
        lambda: bridge.encode(["a <sks> dog"]),
        lambda: bridge.generate("a <sks> dog", steps=1),
        lambda: bridge.loss(torch.zeros(1, 3, 16, 16), ["a <sks> dog"]),
    ):
        with pytest.raises(BridgeError, match=reason):
            way()
    assert bridge.encode(["a dog <extra0>"]).hidden.isfinite().all()  # has an embedding


def test_data_check_names_the_token(tiny: Tiny, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "data").mkdir()
    for name, caption in (("a", "a <sks> dog"), ("b", "a dog")):
        Image.new("RGB", (16, 16)).save(tmp_path / "data" / f"{name}.png")
        (tmp_path / "data" / f"{name}.txt").write_text(caption)
    folder = with_tokens(tiny("t5"), tmp_path / "m")
    pair = {"language": str(folder), "vision": str(tiny("sd"))}
    (error,) = check(str(tmp_path / "data"), **pair).errors  # type: ignore[arg-type]
    assert "token '<sks>', number 300" in error


def test_a_model_that_writes_text_pads_with_a_token_it_has(tiny: Tiny, tmp_path: Path) -> None:
    folder = with_tokens(tiny("llama"), tmp_path / "m", pad="[PAD]")
    (tmp_path / "p.txt").write_text("a cat\na much longer prompt\n")
    # of 128 positions few are left: the instruction without examples takes most
    config = ExpandConfig(
        str(tmp_path / "p.txt"), str(folder), tmp_path / "o.jsonl", device="cpu", max_new_tokens=2
    )
    path = folder / "config.json"
    wide = json.loads(path.read_text()) | {"max_position_embeddings": 4096}
    path.write_text(json.dumps(wide))
    assert expand(config).pairs == 2


# ---- code that comes with a model

CODE = """
from transformers import BertConfig, BertModel

open("{ran}", "w").close()


class MineConfig(BertConfig):
    model_type = "mine"


class MineModel(BertModel):
    config_class = MineConfig
"""


@pytest.fixture
def mine(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A language model with code of its own, which leaves `ran` beside it."""
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks on the terminal"))
    code = {"AutoConfig": "mine.MineConfig", "AutoModel": "mine.MineModel"}
    folder = changed(
        tiny("bert"), tmp_path / "mine", "config.json", model_type="mine", auto_map=code
    )
    (folder / "mine.py").write_text(CODE.format(ran=tmp_path / "ran"))
    return folder


def test_code_of_a_model_does_not_run_unasked(mine: Path, tiny: Tiny, tmp_path: Path) -> None:
    for way in (Bridge.connect, Bridge.outline):
        with pytest.raises(BridgeError, match=r"code of its own.*--trust-remote-code \(") as caught:
            way(mine, tiny("sd"), language_rank=2, vision_rank=2)
        assert "\n" not in str(caught.value)
    (tmp_path / "p.txt").write_text("a cat\n")
    config = ExpandConfig(str(tmp_path / "p.txt"), str(mine), tmp_path / "o.jsonl", device="cpu")
    with pytest.raises(BridgeError, match="give --trust-remote-code"):
        expand(config)
    assert not (tmp_path / "ran").exists()


def test_consent_runs_it_and_a_saved_bridge_asks_again(
    mine: Path, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = Bridge.connect(mine, tiny("sd"), rank=2, trust_remote_code=True)
    assert (tmp_path / "ran").exists()
    bridge.save(tmp_path / "out")
    assert "trust" not in (tmp_path / "out" / "bridge.json").read_text()
    with pytest.raises(BridgeError, match="code of its own"):
        Bridge.load(tmp_path / "out")
    assert Bridge.load(tmp_path / "out", trust_remote_code=True).id == bridge.id


def test_a_model_without_code_takes_the_consent_as_nothing(tiny: Tiny) -> None:
    with warnings.catch_warnings():
        ids = [
            Bridge.connect(tiny("t5"), tiny("sd"), rank=2, trust_remote_code=t).id
            for t in (False, True)
        ]
    assert ids[0] == ids[1]
