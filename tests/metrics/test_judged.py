"""Soft-TIFA, VQAScore and DPG by a judge: against straight loops, and quirks in both modes."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lavi_bridge import BridgeError
from lavi_bridge.metrics import METRICS
from lavi_bridge.metrics.compbench.quirks import Mode
from lavi_bridge.metrics.judge import dpg, soft_tifa, vqascore
from lavi_bridge.metrics.judge.asked import ByJudge
from lavi_bridge.metrics.judge.dpg import DPGJudge, graph_score
from lavi_bridge.metrics.judge.model import Judge, load_judge
from lavi_bridge.metrics.judge.soft_tifa import (
    SoftTIFA,
    SoftTIFAGM,
    geometric_mean,
    spellings,
)
from lavi_bridge.metrics.judge.vqascore import VQAScore
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.questions import Question

Folder = Callable[[str], Path]
MODES: tuple[Mode, ...] = ("faithful", "fixed")
PROMPTS = [
    Prompt(
        "two",
        'two "red" cats',
        facts={
            "questions": [
                {"question": "How many cats are in the image?", "answer": "two", "kind": "count"},
                {"question": "Are the cats red?", "answer": "Yes", "kind": "attribute"},
            ]
        },
    ),
    Prompt(
        "dog",
        "a dog",
        facts={
            "questions": [
                {"question": "Is there a dog?"},
                {"question": "Does it sleep?", "parents": [1]},
                {"question": "How many dogs are in the image?", "answer": "one"},
            ]
        },
    ),
]


@pytest.fixture(scope="module")
def judge(judges: Folder) -> Judge:
    return load_judge(judges("qwen3_vl"), device="cpu")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), "RGB") for _ in PROMPTS
    ]


def distribution(judge: Judge, image: Image.Image, question: str, said: list[int]) -> torch.Tensor:
    """Of the next token, as transformers writes it after what was said."""
    inputs = judge.inputs(image, question)
    ids = torch.cat([inputs["input_ids"], torch.tensor([said], dtype=torch.long)], 1)
    more = {
        "mm_token_type_ids": torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(said)))
    }
    inputs = inputs | more | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    written = judge.model.generate(
        **inputs,
        max_new_tokens=1,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    return written.scores[0][0].softmax(0)


def chance(judge: Judge, image: Image.Image, question: str, answer: str, mode: Mode) -> float:
    tokens = judge.processor.tokenizer.encode(answer, add_special_tokens=False)
    if mode == "faithful":
        return distribution(judge, image, question, [])[tokens[0]].item()
    return math.prod(
        distribution(judge, image, question, tokens[:n])[token].item()
        for n, token in enumerate(tokens)
    )


WANTED = {
    # by question, the spellings of the right answer, as in GenEval 2's script
    "How many cats are in the image?": ["two", "Two", " two", " Two", "2", " 2"],
    "How many dogs are in the image?": ["one", "One", " one", " One", "1", " 1"],
}
YES = ["Yes", "yes", " yes", " Yes"]


@pytest.mark.parametrize("mode", MODES)
def test_soft_tifa_is_a_straight_loop_over_atoms(
    judge: Judge, images: list[Image.Image], mode: Mode
) -> None:
    mean = SoftTIFA(judge=judge, mode=mode)(images, PROMPTS)
    geometric = SoftTIFAGM(judge=judge, mode=mode)(images, PROMPTS)
    for place, (image, prompt) in enumerate(zip(images, PROMPTS, strict=True)):
        atoms = []
        for told in prompt.facts["questions"]:
            question = told["question"]
            asked = f"{question} Answer in one word."
            atoms.append(
                sum(chance(judge, image, asked, a, mode) for a in WANTED.get(question, YES))
            )
        assert mean[place] == pytest.approx(sum(atoms) / len(atoms), rel=1e-4)
        assert geometric[place] == pytest.approx(math.prod(atoms) ** (1 / len(atoms)), rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_vqascore_is_the_chance_of_yes(judge: Judge, images: list[Image.Image], mode: Mode) -> None:
    found = VQAScore(judge=judge, mode=mode)(images, PROMPTS)
    for image, prompt, score in zip(images, PROMPTS, found, strict=True):
        asked = f'Does this figure show "{prompt.text}"? Please answer Yes or No.'
        assert score == pytest.approx(chance(judge, image, asked, "Yes", mode), rel=1e-4)


def test_dpg_asks_for_yes_rather_than_no(judge: Judge, images: list[Image.Image]) -> None:
    metric = DPGJudge(judge=judge)
    expected = []
    for image, prompt in zip(images[1:], PROMPTS[1:], strict=True):
        yes = []
        for told in prompt.facts["questions"]:
            asked = f"{told['question']} Answer with Yes or No."
            for_it, against = (
                sum(
                    chance(judge, image, asked, space + word, "fixed")
                    for space in ("", " ")
                    for word in (answer, answer.lower())
                )
                for answer in ("Yes", "No")
            )
            yes.append(for_it > against)
        yes[1] = yes[1] and yes[0]
        expected.append(sum(yes) / len(yes))
    assert metric(images[1:], PROMPTS[1:]) == pytest.approx(expected)


def test_both_means_share_their_answers(
    judge: Judge, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    answer = Judge.probabilities

    def counted(self: Judge, pictures: list[Image.Image], *rest: object, **more: object) -> object:
        asked.append(len(pictures))
        return answer(self, pictures, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Judge, "probabilities", counted)
    fresh = [image.copy() for image in images]
    for kind in (SoftTIFA, SoftTIFAGM, SoftTIFA):
        kind(judge=judge)(fresh, PROMPTS)
    assert asked == [5]  # questions of the two prompts
    SoftTIFA(judge=judge, mode="fixed")(fresh, PROMPTS)  # another reading is another question
    assert asked == [5, 5]


def test_the_column_names_the_judge_and_provenance_the_question(judge: Judge) -> None:
    metric = SoftTIFA(judge=judge)
    assert metric.title == "Soft-TIFA AM, qwen3_vl"
    told = metric.provenance()
    assert (told["mode"], told["reading"]) == ("faithful", "first token")
    assert told["question"] == "{} Answer in one word."
    assert told["weights"] == judge.provenance()["weights"]
    assert SoftTIFA(judge=judge, mode="fixed").provenance()["reading"] == "strings"


# ---- by hand


def test_the_geometric_mean_is_zero_where_an_atom_is() -> None:
    assert geometric_mean([0.5, 0.125]) == pytest.approx(0.25)
    assert geometric_mean([0.9, 0.0, 0.9]) == 0
    assert geometric_mean([1e-300] * 9) == pytest.approx(1e-300)  # their product is no float


GRAPH = [Question("a cat?"), Question("red?", parents=(0,)), Question("ears?", parents=(1,))]


@pytest.mark.parametrize(
    ("yes", "expected"),
    [
        ([True, True, True], 1),
        ([False, True, True], 0),
        ([True, False, True], 1 / 3),
        ([True, True, False], 2 / 3),
    ],
)
def test_a_question_counts_only_with_its_parents(yes: list[bool], expected: float) -> None:
    for mode in MODES:
        assert graph_score(GRAPH, yes, mode=mode) == pytest.approx(expected)


def count(answer: str) -> Question:
    return Question("How many cats are there?", answer)


def added(judge: Judge, image: Image.Image, mode: Mode) -> bool:
    """Whether the sum is as if " two" and " Two", which begin with the same token, were one."""
    metric = SoftTIFA(judge=judge, mode=mode)
    asked = [[("A?", (" two", " Two"))]]
    ((both,),) = metric._asked([image], asked)
    ((first,),) = metric._asked([image], [[("A?", (" two",))]])
    return both == pytest.approx(2 * first, rel=1e-4)


BACK = [Question("ears?", parents=(1,)), Question("red?", parents=(2,)), Question("a cat?")]
FIRST = [Question("a cat?", lost=True), Question("a dog?")]
Case = tuple[Callable[[Judge, Image.Image, Mode], object], object, object]
CASES: dict[str, Case] = {
    # name of the quirk: what is computed, what the official code gives, what is meant
    "first token": (lambda j, i, m: SoftTIFA(judge=j, mode=m).reading, "first token", "strings"),
    "spellings twice": (added, True, False),
    "numbers beyond ten": (
        lambda j, i, m: spellings(count("eleven"), mode=m)[-2:],
        ("other", " other"),
        ("Eleven", " Eleven"),
    ),
    "every other answer is yes": (
        lambda j, i, m: spellings(Question("Is it red?", "No"), mode=m)[:2],
        ("Yes", "yes"),
        ("No", " No"),
    ),
    "first token of Yes": (
        lambda j, i, m: VQAScore(judge=j, mode=m)([i], PROMPTS[:1])[0] > 1e-4,
        True,  # that of a Y: this judge's tokens are bytes
        False,
    ),
    "first row": (lambda j, i, m: graph_score(FIRST, [True, False], mode=m), 0.0, 0.5),
    # in the table's order the ears are looked at before the cat has failed for being red
    "order of questions": (
        lambda j, i, m: graph_score(BACK, [True, True, False], mode=m),
        1 / 3,
        0.0,
    ),
}


@pytest.mark.parametrize("quirk", CASES)
def test_a_quirk_is_reproduced_and_fixed(
    judge: Judge, images: list[Image.Image], quirk: str
) -> None:
    compute, official, meant = CASES[quirk]
    assert compute(judge, images[0], "faithful") == official
    assert compute(judge, images[0], "fixed") == meant


def test_every_quirk_has_a_case() -> None:
    modules = (soft_tifa, vqascore, dpg)
    assert [q.name for module in modules for q in module.QUIRKS] == [*CASES]


def test_what_the_official_script_fails_on_fails_where_it_is_followed() -> None:
    lost = [Question("a cat?", lost=True), Question("red?", parents=(0,))]
    with pytest.raises(BridgeError, match=r"the official script fails here: .*'red\?' depends on"):
        graph_score(lost, [True, True])
    assert graph_score(lost, [True, True], mode="fixed") == 1


def test_a_prompt_whose_only_question_is_left_out_is_refused(
    judge: Judge, images: list[Image.Image]
) -> None:
    alone = Prompt("7", "a cat", facts={"questions": [{"question": "a cat?", "lost": True}]})
    with pytest.raises(BridgeError, match=r"^prompt '7': .* leaves out its only question, 'a cat"):
        DPGJudge(judge=judge).check([alone])
    with pytest.raises(BridgeError, match=r"^the official script fails here: it leaves out 'a cat"):
        DPGJudge(judge=judge)(images[:1], [alone])
    DPGJudge(judge=judge, mode="fixed").check([alone])
    assert DPGJudge(judge=judge, mode="fixed")(images[:1], [alone])[0] in (0, 1)


def test_in_a_circle_one_that_fails_takes_the_others_with_it() -> None:
    circle = [Question("a?", parents=(1,)), Question("b?", parents=(0,))]
    assert graph_score(circle, [True, True], mode="fixed") == 1
    assert graph_score(circle, [True, False], mode="fixed") == 0


# ---- what cannot be asked is said in a line


@pytest.mark.parametrize("name", ["soft-tifa", "soft-tifa-gm", "vqascore", "dpg-judge"])
def test_without_a_judge(name: str) -> None:
    assert issubclass(METRICS[name], ByJudge)
    with pytest.raises(
        BridgeError, match=f"^{name} asks a judge: give --judge MODEL, an image-and"
    ):
        METRICS[name]()


def test_prompts_without_questions(judge: Judge) -> None:
    with pytest.raises(BridgeError, match=r"^prompt '7' has no questions: take a suite that has"):
        SoftTIFA(judge=judge).check([Prompt("7", "a cat")])
    VQAScore(judge=judge).check([Prompt("7", "a cat")])
