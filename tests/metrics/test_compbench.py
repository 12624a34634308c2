"""T2I-CompBench's scores: every quirk of the official code in both modes, worked out by hand, and
the formulas on small random models of the real classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavi_bridge import BridgeError, testing
from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.compbench import blip_vqa, chunks, nonspatial, spatial
from lavi_bridge.metrics.compbench import quirks as compbench
from lavi_bridge.metrics.compbench import three_in_one as three
from lavi_bridge.metrics.compbench.boxes import Box, iou
from lavi_bridge.metrics.compbench.quirks import Mode
from lavi_bridge.metrics.compbench.relations import Wanted
from lavi_bridge.metrics.compbench.spatial import official_size, position, spatial_score
from lavi_bridge.prompts.prompt import Prompt

pytest.importorskip("spacy", reason="needs spaCy: pip install 'lavi-bridge[compbench]'")


def doc(tagged: str) -> Any:
    """A parsed prompt from `word/part of speech/head/dependency` a word."""
    import spacy
    from spacy.tokens import Doc

    words, parts, heads, relations = zip(*(word.split("/") for word in tagged.split()), strict=True)
    return Doc(
        spacy.blank("en").vocab,
        words=words,
        pos=parts,
        heads=[int(h) for h in heads],
        deps=relations,
    )


BENCH = doc(
    "a/DET/2/det green/ADJ/2/amod bench/NOUN/2/ROOT and/CCONJ/2/cc"
    " a/DET/6/det blue/ADJ/6/amod bowl/NOUN/2/conj"
)
FROG = doc(
    "a/DET/1/det girl/NOUN/1/ROOT on/ADP/1/prep the/DET/4/det top/NOUN/2/pobj of/ADP/4/prep"
    " a/DET/7/det frog/NOUN/5/pobj"
)
IT = doc("the/DET/1/det dog/NOUN/2/nsubj sees/VERB/2/ROOT it/PRON/2/dobj")
RACK = doc(
    "The/DET/2/det red/ADJ/2/amod hat/NOUN/3/nsubj was/AUX/3/ROOT on/ADP/3/prep"
    " top/NOUN/4/pobj of/ADP/5/prep the/DET/10/det brown/ADJ/10/amod coat/NOUN/10/compound"
    " rack/NOUN/6/pobj ./PUNCT/3/punct"
)
LAMP = doc(
    "a/DET/1/det cat/NOUN/1/ROOT on/ADP/1/prep the/DET/4/det left/NOUN/2/pobj of/ADP/4/prep"
    " a/DET/8/det desk/NOUN/8/compound lamp/NOUN/5/pobj near/ADP/1/prep a/DET/11/det"
    " box/NOUN/9/pobj"
)


def box(label: str, x: float, y: float, *, side: float = 40, confidence: float = 0.8) -> Box:
    """A square box around (x, y)."""
    half = side / 2
    return Box(label, confidence, x - half, y - half, x + half, y + half)


SQUARE = (479, 479)  # pixels: the official code's own size
CAT, DOG = box("cat", 100, 200), box("dog", 400, 250)
MAN = box("person", 100, 100)


def words(relation: Wanted) -> str:
    return f"{relation.first}|{relation.relation}|{relation.second}"


def judged(boxes: list[Box], wanted: Wanted, mode: Mode) -> float:
    return max(
        spatial_score(a, b, wanted.relation, size=SQUARE, mode=mode)
        for a, b in spatial.pairs(boxes, wanted, mode=mode)
    )


LISTS: dict[three.Kind, list[str]] = {
    "spatial": ["A cat near a dog. It sleeps.", "both"],
    "action": ["a man runs", "both"],
    "spatialaction": ["a man runs near a dog"],
}
Case = tuple[Callable[[Mode], object], object, object]
CASES: dict[str, Case] = {
    # name of the quirk: what is computed, what the official code gives, what is meant
    "underscore": (
        lambda mode: compbench.said(Prompt("1", "a snake_case cat"), mode),
        "a snake",
        "a snake_case cat",
    ),
    "place words": (
        lambda mode: chunks.noun_chunks(FROG, mode=mode),
        ["a girl", "the top", "a frog"],
        ["a girl", "a frog"],
    ),
    "pronouns": (lambda mode: chunks.noun_chunks(IT, mode=mode), ["the dog", "it"], ["the dog"]),
    "eight chunks": (lambda mode: len(blip_vqa.questions("", ["a cat"] * 10, mode=mode)), 8, 10),
    "no chunks": (lambda mode: blip_vqa.questions("Run!", [], mode=mode), [], ["run?"]),
    # float32's 0.0001 is a little less, so that half of it falls to 0
    "four places": (
        lambda mode: blip_vqa.product([0.50004, 0.00014], mode=mode),
        0.0,
        0.50004 * 0.00014,
    ),
    # the middles are 300 px apart across, and 50 px down
    "near in one direction": (
        lambda mode: position(CAT, DOG, "next to", size=SQUARE, mode=mode),
        1.0,
        150 / 300,
    ),
    "on top of": (
        lambda mode: position(
            box("hat", 99, 99), box("rack", 99, 300), "on top of", size=SQUARE, mode=mode
        ),
        0.0,
        1.0,
    ),
    "order of relations": (
        lambda mode: words(spatial.relation_in(LAMP, mode=mode)).split("|")[1],
        "near",
        "on the left of",
    ),
    "first and last noun": (
        lambda mode: words(spatial.relation_in(LAMP, mode=mode)),
        "cat|near|box",
        "cat|on the left of|desk lamp",
    ),
    "two relations": (
        lambda mode: words(spatial.relation_in(LAMP, compound=True, mode=mode)),
        "None|near|None",
        "cat|on the left of|desk lamp",
    ),
    "persons": (
        lambda mode: words(spatial.relation_in(FROG, mode=mode)),
        "person|on the top of|frog",
        "girl|on the top of|frog",
    ),
    # 0.25 * 0.8 twice, and a half for standing next to oneself
    "one object twice": (
        lambda mode: judged([MAN], Wanted("person", "near", "person"), mode),
        0.9,
        0.0,
    ),
    "first detection": (
        lambda mode: judged(
            [CAT, box("cat", 100, 250, confidence=1), DOG],
            Wanted("cat", "on the left of", "dog"),
            mode,
        ),
        0.9,
        0.95,
    ),
    "first sentence": (
        lambda mode: three.kind_of("a cat NEAR a dog", LISTS, mode=mode),
        "spatial",
        "error",
    ),
    "unlisted": (lambda mode: three.kind_of("a stone", LISTS, mode=mode), "spatialaction", "error"),
    "listed twice": (
        lambda mode: three.kind_of("both", LISTS, mode=mode),
        "spatial",
        "spatialaction",
    ),
}


@pytest.mark.parametrize("quirk", CASES)
def test_a_quirk_is_reproduced_and_fixed(quirk: str) -> None:
    compute, official, meant = CASES[quirk]
    modes: list[tuple[Mode, object]] = [("faithful", official), ("fixed", meant)]
    for mode, expected in modes:
        if expected == "error":
            with pytest.raises(BridgeError):
                compute(mode)
        elif isinstance(expected, float):
            assert compute(mode) == pytest.approx(expected, rel=1e-12), mode
        else:
            assert compute(mode) == expected, mode


def test_every_quirk_has_a_case() -> None:
    modules = (compbench, chunks, blip_vqa, nonspatial, spatial, three)
    names = [quirk.name for module in modules for quirk in module.QUIRKS]
    assert sorted(names) == sorted([*CASES, "long prompt"])  # that one needs a tokenizer; below


# ---- prompts


def test_noun_chunks_name_the_objects_with_their_attributes() -> None:
    modes: list[Mode] = ["faithful", "fixed"]
    for mode in modes:
        assert chunks.noun_chunks(BENCH, mode=mode) == ["a green bench", "a blue bowl"]
        assert chunks.noun_chunks(RACK, mode=mode) == ["The red hat", "the brown coat rack"]
    assert chunks.without_adjectives(BENCH) == "a bench and a bowl"


def test_questions_are_lower_case_without_marks_and_of_fifty_words() -> None:
    asked = blip_vqa.questions("", ["The (red) hat", "a " * 60])
    assert asked == ["the red hat?", " ".join(["a"] * 50)]


def test_the_objects_of_simple_and_complex_prompts_are_read() -> None:
    assert words(spatial.relation_in(RACK, compound=True)) == "hat|on top of|coat"
    assert words(spatial.relation_in(RACK, mode="fixed")) == "hat|on the top of|coat rack"
    assert words(spatial.relation_in(FROG)) == "person|on the top of|frog"
    assert words(spatial.relation_in(BENCH)) == "bench|None|bowl"
    assert words(spatial.relation_in(BENCH, compound=True)) == "None|None|None"
    assert words(spatial.relation_in(BENCH, mode="fixed")) == "None|None|None"
    assert words(spatial.relation_in(doc("run/VERB/0/ROOT"))) == "None|None|None"


def test_a_name_after_a_preposition_counts_unless_it_is_the_last_word() -> None:
    name = "cats/NOUN/1/nsubj sit/VERB/1/ROOT next/ADV/1/advmod to/ADP/1/prep Paris/PROPN/3/pobj"
    assert words(spatial.relation_in(doc(name), compound=True)) == "None|next to|None"
    assert words(spatial.relation_in(doc(f"{name} ./PUNCT/1/punct"), compound=True)) == (
        "cats|next to|Paris"
    )


def test_a_missing_english_model_is_one_line_and_another_can_be_used(tmp_path: Path) -> None:
    import spacy

    with pytest.raises(BridgeError, match="python -m spacy download en_core_web_none"):
        chunks.english("en_core_web_none")
    spacy.blank("en").to_disk(tmp_path / "mine")
    assert [token.text for token in chunks.english(str(tmp_path / "mine"))("a cat.")] == [
        "a",
        "cat",
        ".",
    ]


# ---- products


def test_a_product_of_probabilities_is_rounded_as_in_the_official_result_file() -> None:
    assert blip_vqa.product([0.98765, 0.5]) == 0.4938  # 0.9877 (rounded) * 0.5 = 0.49385, below
    assert blip_vqa.product([0.98765, 0.5], mode="fixed") == 0.493825
    assert blip_vqa.product([]) == 1


# ---- spatial relations


@pytest.mark.parametrize(
    ("first", "second", "relation", "expected"),
    [
        (CAT, DOG, "on the left of", 1.0),
        (CAT, DOG, "on the right of", 0.0),
        (DOG, CAT, "on the right of", 1.0),
        (CAT, DOG, "on the top of", 0.0),  # higher, but farther across than down
        (box("a", 99, 50), box("b", 99, 400), "on the top of", 1.0),
        (box("a", 99, 400), box("b", 99, 50), "on the bottom of", 1.0),
        (box("a", 99, 99), box("b", 200, 200), "on the left of", 0.0),  # as far down as across
        (box("a", 100, 100), box("b", 120, 100), "on the left of", 0.1 / (1 / 3)),  # IoU 1/3
        (box("a", 99, 99), box("b", 99, 99), "on the left of", 0.0),
        (CAT, DOG, "near", 1.0),  # 50 px down is near enough
        (box("a", 50, 50), box("b", 199.5, 400), "near", 1.0),
        (box("a", 50, 50), box("b", 200, 350), "next to", 150 / 300),
        (box("a", 50, 50), box("b", 250, 350), "on side of", 150 / 300),
        (CAT, DOG, "in", 0.0),
        (CAT, DOG, None, 0.0),
    ],
)
def test_positions(first: Box, second: Box, relation: str | None, expected: float) -> None:
    assert position(first, second, relation, size=SQUARE) == pytest.approx(expected, rel=1e-12)


def test_a_spatial_score_is_half_confidence_half_position_and_cut_below_a_half() -> None:
    sure, unsure = box("cat", 50, 200, confidence=0.9), box("dog", 400, 200, confidence=0.3)
    left = spatial_score(sure, unsure, "on the left of", size=SQUARE)
    assert left == pytest.approx(0.25 * 0.9 + 0.25 * 0.3 + 0.5)
    assert spatial_score(sure, unsure, "on the right of", size=SQUARE) == 0  # 0.3 alone
    assert spatial_score(sure, None, "on the left of", size=SQUARE) == 0
    assert spatial_score(None, None, "on the left of", size=SQUARE) == 0
    cat, dog = box("cat", 9, 9, confidence=1), box("dog", 9, 9, confidence=1)
    assert spatial_score(cat, dog, "on top of", size=SQUARE) == 0.5  # 0.5 is not under 0.5


def test_near_means_the_same_part_of_every_image() -> None:
    assert official_size(512, 512) == (479, 479)
    assert official_size(1024, 512) == (480, 240)  # 958 x 479 is wider than 480
    assert official_size(512, 1024) == (240, 480)
    assert official_size(513, 512) == (479, 479)
    a, b = box("a", 50, 50), box("b", 250, 350)
    assert position(a, b, "near", size=SQUARE) == 150 / 300
    large = position(a.scaled(4, 4), b.scaled(4, 4), "near", size=(4 * 479, 4 * 479))
    assert large == pytest.approx(150 / 300)


def test_identical_objects_are_related_in_the_order_that_suits() -> None:
    dogs = [box("dog", 400, 99), box("dog", 50, 99, confidence=0.6)]
    left = Wanted("dog", "on the left of", "dog")
    assert judged(dogs, left, "fixed") == pytest.approx(0.25 * (0.8 + 0.6) + 0.5)
    assert judged(dogs, left, "faithful") == 0


# ---- 3-in-1


def test_the_complex_score_is_the_mean_of_the_parts_that_apply() -> None:
    assert three.three_in_one(0.5, 0.8, 0.25, "spatial") == 0.65
    assert three.three_in_one(0.5, 0.8, 0.25, "action") == 0.375
    assert three.three_in_one(0.5, 0.75, 0.25, "spatialaction") == 0.5


def test_the_official_lists_say_what_applies(shared: Path) -> None:
    folder = shared / "prompts" / "t2i_compbench"
    lists: dict[three.Kind, list[str]] = {
        "spatial": (folder / "complex_val_spatial.txt").read_text().splitlines(),
        "action": (folder / "complex_val_action.txt").read_text().splitlines(),
        "spatialaction": (folder / "complex_val_spatialaction.txt").read_text().splitlines(),
    }
    texts = (folder / "complex_val.txt").read_text().splitlines()
    modes: list[Mode] = ["faithful", "fixed"]
    for mode in modes:
        kinds = Counter(three.kind_of(text, lists, mode=mode) for text in texts)
        assert kinds == {"spatial": 58, "action": 212, "spatialaction": 30}
    # as the table of quirks says
    assert sum("on top of" in text for text in lists["spatial"] + lists["spatialaction"]) == 33


# ---- scores with models


def images(count: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (24 + 8 * i, 32, 3), dtype=np.uint8))
        for i in range(count)
    ]


def prompts(*texts: str, category: str = "") -> list[Prompt]:
    return [Prompt(str(i), text, category) for i, text in enumerate(texts)]


SIZE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def small(folder: Path, kind: Any, config: Any) -> Path:
    """Save a small random model; its weights are larger than usual, so that its outputs differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    testing.make_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BlipConfig, BlipForQuestionAnswering

    config = BlipConfig(text_config=SIZE, vision_config=SIZE | {"image_size": 96, "patch_size": 48})
    return small(tmp_path_factory.mktemp("blip"), BlipForQuestionAnswering, config)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    text = SIZE | {"vocab_size": 300, "max_position_embeddings": 32}
    config = CLIPConfig(text_config=text, vision_config=SIZE | {"image_size": 32, "patch_size": 16})
    folder = small(tmp_path_factory.mktemp("clip"), CLIPModel, config)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def owl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Owlv2Config, Owlv2ForObjectDetection

    text, vision = SIZE | {"vocab_size": 300}, SIZE | {"image_size": 64}
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
    return small(tmp_path_factory.mktemp("owl"), Owlv2ForObjectDetection, config)


def by_blanks(text: str) -> list[str]:
    """A user's own noun chunks."""
    return [part for part in text.split(" and ") if part]


def test_blip_vqa_follows_its_formula(blip: Path) -> None:
    from transformers import AutoTokenizer, BlipForQuestionAnswering

    metric = blip_vqa.BLIPVQA(scorer=str(blip), device="cpu", chunks=by_blanks, mode="fixed")
    picture = images(1)[0]
    answers = metric.yes([picture], [["a green bench?", "a blue bowl?"]])[0]

    model, tokenizer = (
        kind.from_pretrained(blip) for kind in (BlipForQuestionAnswering, AutoTokenizer)
    )
    pixels = np.asarray(picture.resize((480, 480), Image.Resampling.BICUBIC), np.float32) / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
    spread = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
    pixels = ((pixels - mean) / spread).transpose(2, 0, 1)
    with torch.no_grad():
        seen = model.vision_model(torch.tensor(pixels[None]), interpolate_pos_encoding=True)[0]
        for question, answer in zip(("a green bench?", "a blue bowl?"), answers, strict=True):
            ids = torch.tensor([[30523, *tokenizer(question)["input_ids"][1:]]])  # [ENC] …
            states = model.text_encoder(ids, encoder_hidden_states=seen)[0]
            first = model.text_decoder(torch.tensor([[30522]]), encoder_hidden_states=states)
            odds = first.logits[0, 0, 2748] - first.logits[0, 0, 2053]  # yes, no
            assert answer == pytest.approx(float(torch.sigmoid(odds)), abs=1e-6)
    assert abs(answers[0] - answers[1]) > 1e-3
    product = metric([picture], prompts("a green bench and a blue bowl"))
    assert product == [pytest.approx(answers[0] * answers[1])]


def test_a_batch_of_images_scores_as_one_at_a_time(blip: Path) -> None:
    metric = METRICS["blip-vqa"](scorer=str(blip), device="cpu", chunks=by_blanks)  # type: ignore[call-arg]
    assert isinstance(metric, blip_vqa.BLIPVQA)
    asked = prompts("a cat", "a red dog and a blue bird and a fish", "")
    together = metric(images(), asked)
    assert together[2] == 1  # nothing was asked
    alone = [metric([image], [prompt])[0] for image, prompt in zip(images(), asked, strict=True)]
    assert together == pytest.approx(alone, abs=1.5e-4)  # rounding to 4 places may go either way
    assert together == [round(score, 4) for score in together]
    assert metric.provenance() | {"fingerprint": ""} == {
        "weights": str(blip),
        "fingerprint": "",
        "mode": "faithful",
        "parser": "the caller's own",
    }
    assert len(metric.provenance()["fingerprint"]) == 16


def test_the_nonspatial_score_is_a_raw_cosine(clip: Path) -> None:
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    metric = nonspatial.CLIPNonSpatial(scorer=str(clip), device="cpu")
    found = metric(images(), prompts("a cat", "two dogs", "a cat"))
    model, tokenizer = (kind.from_pretrained(clip) for kind in (CLIPModel, AutoTokenizer))
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    with torch.no_grad():
        for image, text, score in zip(images(), ("a cat", "two dogs", "a cat"), found, strict=True):
            pixels = processor(image, return_tensors="pt")["pixel_values"]
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            a = model.get_image_features(pixel_values=pixels).pooler_output[0]
            b = model.get_text_features(input_ids=ids).pooler_output[0]
            assert score == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-6)
    assert len({round(score, 3) for score in found}) == 3


def test_complex_prompts_are_read_without_adjectives(clip: Path) -> None:
    metric = nonspatial.CLIPNonSpatial(
        scorer=str(clip), device="cpu", plain=lambda text: text.replace("red ", "")
    )
    assert metric.text(Prompt("0", "a red hat")) == "a red hat"
    assert metric.text(Prompt("0", "a red hat", "complex")) == "a hat"


def test_a_prompt_too_long_for_clip_is_an_error_as_officially_or_is_cut(clip: Path) -> None:
    faithful = nonspatial.CLIPNonSpatial(scorer=str(clip), device="cpu")
    fixed = nonspatial.CLIPNonSpatial(scorer=str(clip), device="cpu", mode="fixed")
    picture, long = images(1), "a" * 29 + "bc"  # with two marks 33 tokens
    with pytest.raises(BridgeError, match=r"prompt '0' has 33 tokens, CLIP reads 32"):
        faithful(picture, prompts(long))
    assert fixed(picture, prompts(long)) == faithful(picture, prompts(long[:30]))


def test_owlv2_finds_boxes_in_pixels_and_they_are_judged(owl: Path) -> None:
    from transformers import AutoTokenizer, Owlv2ForObjectDetection

    wanted = Wanted("cat", "on the left of", "dog")
    metric = spatial.SpatialOWLv2(
        scorer=str(owl),
        device="cpu",
        threshold=0.0,
        read=lambda prompt: wanted if prompt.text else Wanted(None, None, None),
    )
    picture = images()[2]  # 32 x 40 px: the square that OWLv2 sees has a side of 40
    boxes = metric.detect([picture], [("cat", "dog")])[0]
    assert [box.confidence for box in boxes] == sorted((b.confidence for b in boxes), reverse=True)
    assert all(iou(a, b) <= 0.5 for a in boxes for b in boxes if a != b and a.label == b.label)

    model, tokenizer = (
        kind.from_pretrained(owl) for kind in (Owlv2ForObjectDetection, AutoTokenizer)
    )
    queries = tokenizer(["cat", "dog"], padding="max_length", max_length=16, return_tensors="pt")
    pixels = metric.processor(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = model(
            pixel_values=pixels,
            input_ids=queries["input_ids"],
            attention_mask=queries["attention_mask"],
        )
    best = int(output.logits[0].max(1).values.argmax())
    x, y, width, height = (output.pred_boxes[0, best] * 40).tolist()
    assert boxes[0].label == ("cat", "dog")[int(output.logits[0, best].argmax())]
    assert boxes[0].confidence == pytest.approx(float(output.logits[0, best].max().sigmoid()))
    edges = (boxes[0].left, boxes[0].top, boxes[0].right, boxes[0].bottom)
    expected = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    assert edges == pytest.approx(expected, abs=1e-3)

    pair = spatial.pairs(boxes, wanted)[0]
    score = spatial_score(*pair, "on the left of", size=picture.size)
    assert metric([picture, picture], prompts("cats", "")) == [score, 0.0]


def test_detections_in_a_batch_are_those_of_one_image(owl: Path) -> None:
    metric = spatial.SpatialOWLv2(
        scorer=str(owl), device="cpu", threshold=0.0, read=lambda _: Wanted("", "", "")
    )
    names = [("cat", "dog"), ("dog", "dog"), ("a very long name of a thing", "cat")]
    together = metric.detect(images(), names)
    for image, both, boxes in zip(images(), names, together, strict=True):
        alone = metric.detect([image], [both])[0]
        assert [box.label for box in alone] == [box.label for box in boxes]
        assert [box.left for box in alone] == pytest.approx([b.left for b in boxes], abs=1e-3)
    assert metric.detect([], []) == []
    none = spatial.SpatialOWLv2(
        scorer=str(owl), device="cpu", threshold=1.0, read=lambda _: Wanted("", "", "")
    )
    assert none.detect(images(1), [("cat", "dog")]) == [[]]


# ---- bad input


def test_missing_and_wrong_weights_and_an_unknown_mode_are_one_line(
    clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(BridgeError, match="the Hub cannot be reached"):
        blip_vqa.BLIPVQA(device="cpu")
    with pytest.raises(BridgeError, match="is a 'clip', no 'blip'"):
        blip_vqa.BLIPVQA(scorer=str(clip), device="cpu")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(BridgeError, match="cannot load CLIP"):
        nonspatial.CLIPNonSpatial(scorer=str(tmp_path), device="cpu")
    with pytest.raises(BridgeError, match="unknown mode 'exact'; known: faithful, fixed"):
        nonspatial.CLIPNonSpatial(scorer=str(clip), device="cpu", mode="exact")  # type: ignore[arg-type]
