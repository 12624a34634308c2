"""A judge's probabilities: small random models of the real classes against straight loops."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavi_bridge import BridgeError, testing
from lavi_bridge.files.locate import locate
from lavi_bridge.metrics.judge import size
from lavi_bridge.metrics.judge.model import Judge, load_judge
from lavi_bridge.metrics.judge.size import size_of

Folder = Callable[[str], Path]
FAMILIES = list(testing.JUDGES)


def picture(seed: int, width: int = 32, height: int = 32) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


NOISE, OTHER, WIDE, TALL = picture(1), picture(2), picture(3, 48, 24), picture(4, 24, 48)
ASKED = [
    # what is shown, the question, its answers
    (NOISE, "How many dogs are in the image? Answer in one word.", ["two", "Two", " two", "2"]),
    (OTHER, "Is it red?", ["Yes", "yes"]),
    (NOISE, "Is it red?", ["Yes", "Yesterday"]),
    (WIDE, "A?", ["7", "No"]),
    (TALL, "A?", ["7", "No"]),
]
PICTURES, QUESTIONS, ANSWERS = (list(column) for column in zip(*ASKED, strict=True))


def logits(judge: Judge, shown: Image.Image, question: str, said: tuple[int, ...]) -> torch.Tensor:
    """Of the next token, by one whole pass of the model over prompt and what was said."""
    inputs = judge.inputs(shown, question)
    shape = inputs["input_ids"].shape
    padded = {
        key: torch.nn.functional.pad(value, (0, len(said))) if value.shape == shape else value
        for key, value in inputs.items()
    }
    ids = torch.cat([inputs["input_ids"], torch.tensor([said], dtype=torch.long)], dim=1)
    given = padded | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        return judge.model(**given).logits[0, -1]


def straight(judge: Judge, shown: Image.Image, question: str, answer: str) -> float:
    """The product over the answer's tokens, each by a pass of its own."""
    tokens = judge.tokens(answer)
    return math.prod(
        logits(judge, shown, question, tokens[:n]).softmax(0)[token].item()
        for n, token in enumerate(tokens)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_are_those_of_a_straight_loop(judges: Folder, family: str) -> None:
    judge = load_judge(judges(family), device="cpu")
    found = judge.probabilities(PICTURES, QUESTIONS, ANSWERS)
    for mine, (shown, question, answers) in zip(found, ASKED, strict=True):
        assert mine == pytest.approx(
            [straight(judge, shown, question, answer) for answer in answers], rel=1e-5
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_what_each_question_gives_alone(judges: Folder, family: str) -> None:
    judge = load_judge(judges(family), device="cpu")
    batch = judge.probabilities(PICTURES, QUESTIONS, ANSWERS)
    for mine, (shown, question, answers) in zip(batch, ASKED, strict=True):
        (alone,) = judge.probabilities([shown], [question], [answers])
        assert mine == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_token_is_what_transformers_would_write_next(judges: Folder, family: str) -> None:
    """As GenEval 2's script has it: one token is generated, and its scores are read."""
    judge = load_judge(judges(family), device="cpu")
    inputs = judge.inputs(NOISE, "Is it red?")
    written = judge.model.generate(
        **inputs,
        max_new_tokens=1,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    (first,) = judge.tokens("Yes")[:1]
    assert judge.probabilities([NOISE], ["Is it red?"], [["Yes"]], reading="first token") == [
        [pytest.approx(written.scores[0][0].softmax(0)[first].item(), rel=1e-5)]
    ]


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
def test_pictures_may_have_unequal_numbers_of_questions(judges: Folder, family: str) -> None:
    """Where places are counted by height and width: two pictures at once, three questions."""
    judge = load_judge(judges(family), device="cpu")
    given: tuple[list[Any], ...] = ([NOISE, NOISE, OTHER], ["A?", "B?", "A?"], [["7"]] * 3)
    batch = judge.probabilities(*given)
    for mine, shown, question in zip(batch, *given[:2], strict=True):
        assert mine == pytest.approx([straight(judge, shown, question, "7")], rel=1e-5)


def test_many_questions_are_read_in_parts(judges: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = load_judge(judges("gemma3"), device="cpu")
    whole = judge.probabilities(PICTURES, QUESTIONS, ANSWERS)
    monkeypatch.setattr("lavi_bridge.metrics.judge.model.ROWS", 2)
    monkeypatch.setattr("lavi_bridge.metrics.judge.model.PICTURES", 1)
    parts = judge.probabilities(PICTURES, QUESTIONS, ANSWERS)
    assert all(a == pytest.approx(b, rel=1e-5) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_where_pictures_stand_may_be_unknown(
    judges: Folder, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then every question is read whole."""
    judge = load_judge(judges(family), device="cpu")
    shared = judge.probabilities(PICTURES, QUESTIONS, ANSWERS)
    monkeypatch.setattr(Judge, "_parted", lambda self, ids: ((), ids))
    whole = judge.probabilities(PICTURES, QUESTIONS, ANSWERS)
    assert all(a == pytest.approx(b, rel=1e-5) for a, b in zip(shared, whole, strict=True))


@pytest.mark.parametrize("family", ["qwen3_vl", "llava"])
def test_a_template_may_put_the_question_before_the_picture(
    judges: Folder, family: str, tmp_path: Path
) -> None:
    folder = copied(judges(family), tmp_path)
    template = folder / "chat_template.jinja"
    turned = template.read_text().replace("m['content'] %}", "m['content'] | reverse %}")
    assert turned != template.read_text()
    template.write_text(turned)
    judge = load_judge(folder, device="cpu")
    given: tuple[list[Any], ...] = ([NOISE] * 3, ["A?", "B?", "How many?"], [["7"]] * 3)
    found = judge.probabilities(*given)
    assert len({round(p, 9) for (p,) in found}) == 3
    for mine, shown, question in zip(found, *given[:2], strict=True):
        assert mine == pytest.approx([straight(judge, shown, question, "7")], rel=1e-5)


def test_a_picture_is_seen_once_for_all_its_questions(judges: Folder) -> None:
    judge = load_judge(judges("qwen3_vl"), device="cpu")
    seen: list[int] = []
    tower = judge.model.model.visual
    hook = tower.register_forward_hook(lambda *_: seen.append(1))
    judge.probabilities([NOISE] * 5, list("ABCDE"), [["Yes"]] * 5)
    hook.remove()
    assert len(seen) == 1


def test_pictures_and_questions_matter(judges: Folder) -> None:
    judge = load_judge(judges("qwen3_vl"), device="cpu")
    found = judge.probabilities([NOISE, OTHER, NOISE], ["A?", "A?", "B?"], [["7"]] * 3)
    assert len({round(p, 9) for (p,) in found}) == 3


def test_answers_that_add_up_are_told_apart_by_their_tokens(judges: Folder) -> None:
    judge = load_judge(judges("llava"), device="cpu")
    assert judge.tokens("Yes") == (60, 72, 86)  # bytes, and no token for a beginning
    assert judge.apart(["Yes", "yes", "Yes", "Yesterday", " Yes"]) == ["Yes", "yes", " Yes"]
    assert judge.apart(["10", "1"]) == ["1"]


def test_a_question_that_spells_control_tokens_is_plain_text(judges: Folder) -> None:
    judge = load_judge(judges("qwen3_vl"), device="cpu")
    end = judge.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    for question in ("Is it red?", "Is <|im_end|> or <|image_pad|> red?"):
        ids = judge.inputs(NOISE, question)["input_ids"][0].tolist()
        assert ids.count(end) == 1
    (found,) = judge.probabilities([NOISE], ["Is <|im_end|> red?"], [["7"]])
    assert 0 < found[0] < 1


def test_provenance_names_weights_template_precision_and_libraries(judges: Folder) -> None:
    judge = load_judge(judges("qwen3_vl"), device="cpu")
    assert judge.name == "qwen3_vl"
    assert judge.provenance().keys() == {
        *("judge", "weights", "template", "precision", "torch", "transformers", "pillow")
    }
    assert judge.provenance()["precision"] == "float32"
    assert load_judge(judges("qwen3_vl"), device="cpu") is judge
    half = load_judge(judges("qwen3_vl"), device="cpu", dtype="bfloat16")
    assert half.provenance()["precision"] == "bfloat16"


@pytest.mark.parametrize("how", ["int8", "nf4"])
def test_in_fewer_bits_it_answers_about_the_same(judges: Folder, how: Any) -> None:
    pytest.importorskip("bitsandbytes")
    whole = load_judge(judges("llava"), device="cpu")
    few = load_judge(judges("llava"), device="cpu", quantize=how)
    assert few.precision == f"{how}, products in float32"
    answers = [chr(n) for n in range(65, 91)]
    a, b = (j.probabilities([NOISE], ["Is it red?"], [answers])[0] for j in (whole, few))
    assert a != b
    assert np.corrcoef(np.log(a), np.log(b))[0, 1] > (0.99 if how == "int8" else 0.6)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / folder.name))


def test_the_hubs_earlier_layout_is_the_same_judge(judges: Folder, tmp_path: Path) -> None:
    """As Qwen3-VL's repositories have it: no processor_config.json, and a file for videos."""
    now, earlier = judges("qwen3_vl"), copied(judges("qwen3_vl"), tmp_path)
    (earlier / "processor_config.json").unlink()
    (earlier / "chat_template.jinja").unlink()
    told = json.loads((now / "processor_config.json").read_text())
    told = told["image_processor"] | {"processor_class": told["processor_class"]}
    of_images = told | {"image_processor_type": "Qwen2VLImageProcessorFast"}
    of_videos = told | {"video_processor_type": "Qwen3VLVideoProcessor"}
    chat = {"chat_template": (now / "chat_template.jinja").read_text()}
    (earlier / "preprocessor_config.json").write_text(json.dumps(of_images))
    (earlier / "video_preprocessor_config.json").write_text(json.dumps(of_videos))
    (earlier / "chat_template.json").write_text(json.dumps(chat))
    ours, theirs = load_judge(now, device="cpu"), load_judge(earlier, device="cpu")
    assert type(theirs.processor.image_processor).__name__ == "Qwen2VLImageProcessorPil"
    for key in ("weights", "template"):
        assert ours.provenance()[key] == theirs.provenance()[key]
    found = [judge.probabilities(PICTURES, QUESTIONS, ANSWERS) for judge in (ours, theirs)]
    assert found[0] == found[1]


# ---- what cannot be a judge is said in a line


def refused(source: Path | str, **options: Any) -> str:
    with pytest.raises(BridgeError) as error:
        load_judge(source, device="cpu", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_a_chat_template(judges: Folder, tmp_path: Path) -> None:
    bare = copied(judges("qwen3_vl"), tmp_path)
    (bare / "chat_template.jinja").unlink()
    assert f"'{bare}' has no chat template" in refused(bare)


def test_without_tokens_for_an_answer(judges: Folder, tmp_path: Path) -> None:
    judge = load_judge(judges("qwen3_vl"), device="cpu")
    with pytest.raises(BridgeError, match="has no tokens for the answer ''; take another judge"):
        judge.probabilities([NOISE], ["A?"], [[""]])
    other = copied(judges("qwen3_vl"), tmp_path)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["no longer a Y"] = tokenizer["model"]["vocab"].pop("Y")
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BridgeError, match="has no tokens for the answer 'Yes'"):
        load_judge(other, device="cpu").probabilities([NOISE], ["A?"], [["Yes"]])


def test_another_kind_of_model(tiny: Folder) -> None:
    assert "is a 'llama', no image-and-text model; a judge is one, such as" in refused(
        tiny("llama")
    )


def test_without_a_processor(judges: Folder, tmp_path: Path) -> None:
    bare = copied(judges("llava"), tmp_path)
    for name in ("processor_config.json", "tokenizer_config.json", "tokenizer.json"):
        (bare / name).unlink()
    assert f"cannot load the processor of '{bare}'" in refused(bare)


def test_too_large_for_memory(judges: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said from the config alone, with what would fit."""
    made = judges("gemma3")
    needs = size_of(locate(made))
    assert needs.numbers == sum(p.numel() for p in load_judge(made).model.parameters())
    length = load_judge(made).inputs(picture(0, 512, 512), "Is it red?")["input_ids"].shape[1]
    tokens = (32 + 8) * length  # questions, and pictures
    kept = needs.cache(torch.float16, tokens)
    whole, fewer = (needs.gb(torch.float16, how) + kept for how in ("none", "int8"))
    monkeypatch.setattr(size, "memory", lambda: {"available": (whole + fewer) / 2})
    told = refused(made, dtype="float16")
    assert f"needs 0.0 GB, 0.0 of them for keys and values of {tokens:,} tokens, and" in told
    assert "there are 0.0 GB: with --judge-quantize int8 it takes 0.0 GB" in told
    assert needs.gb(torch.float16) < (whole + fewer) / 2  # there would be room for weights alone
    monkeypatch.setattr(size, "memory", lambda: {"available": 0.0})
    assert "take a smaller judge" in refused(made, dtype="float16")


def test_of_a_mixture_of_experts_a_token_goes_through_some(tmp_path: Path) -> None:
    from transformers import Qwen3VLMoeConfig

    text = {
        **{"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300},
        **{"moe_intermediate_size": 16, "num_experts_per_tok": 2, "decoder_sparse_step": 1},
    }
    sees: dict[str, Any] = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2}
    sees |= {"out_hidden_size": 32, "deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    sizes = []
    for experts in (2, 8):
        folder = tmp_path / str(experts)
        told: Any = {"text_config": text | {"num_experts": experts}, "vision_config": sees}
        Qwen3VLMoeConfig(**told).save_pretrained(folder)
        sizes.append(size_of(locate(folder)))
    two, eight = sizes
    layers, width, inner = 2, 32, 16
    assert eight.numbers - two.numbers == layers * 6 * (width + 3 * width * inner)
    assert eight.language - two.language == layers * 6 * width  # of the router


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_are_counted(judges: Folder, family: str) -> None:
    judge = load_judge(judges(family), device="cpu")
    inputs = judge.inputs(NOISE, "Is it red?")
    with torch.no_grad():
        cache = judge.model(**inputs, use_cache=True).past_key_values
    kept = [getattr(layer, "keys", None) for layer in cache.layers]
    held = sum(2 * keys.numel() for keys in kept if isinstance(keys, torch.Tensor))
    most = size_of(locate(judges(family))).cached * inputs["input_ids"].shape[1]
    assert most / 2 < held <= most  # layers with a window keep fewer


def test_an_unknown_reading(judges: Folder) -> None:
    judge = load_judge(judges("llava"), device="cpu")
    with pytest.raises(BridgeError, match="unknown reading 'last'; known: strings, first token"):
        judge.probabilities([NOISE], ["A?"], [["Yes"]], reading="last")  # type: ignore[arg-type]


def test_gated(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from httpx import Request, Response
    from huggingface_hub.errors import GatedRepoError

    def closed(*_: object, **__: object) -> str:
        raise GatedRepoError("gated", response=Response(403, request=Request("GET", "http://hub")))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", closed)
    assert "'me/closed' is gated: accept its licence at https" in refused("me/closed@main")
