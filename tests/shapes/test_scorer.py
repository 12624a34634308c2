import dataclasses
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lavi_bridge.shapes.scorer import Verdict, detect, score
from lavi_bridge.shapes.world import (
    CATEGORIES,
    COLORS,
    SHAPES,
    TEXTURES,
    FactPrompt,
    Facts,
    ObjectFact,
    Relation,
    Scenes,
    evaluation_set,
    render,
)

Evaluation = tuple[list[FactPrompt], Tensor]

RED_CIRCLE, BLUE_SQUARE = ObjectFact("circle", "red"), ObjectFact("square", "blue")
CIRCLE_LEFT_OF_SQUARE = Facts((RED_CIRCLE, BLUE_SQUARE), (Relation(0, 1, "left"),), count=2)


def scene_of(*figures: tuple[str, str, str, float, float, float]) -> Scenes:
    """One scene on white paper, of figures (shape, color, texture, x, y, radius)."""
    shapes, colors, textures, *places = zip(*figures, strict=True)
    rows = [
        [SHAPES.index(word) for word in shapes],
        [COLORS.index(word) for word in colors],
        [TEXTURES.index(word) for word in textures],
    ]
    x, y, radius = (np.array([place], np.float32) for place in places)
    background, kind, count = np.array([0]), np.array([1]), np.array([len(figures)])
    shape, color, texture = (np.array([row]) for row in rows)
    return Scenes(background, kind, count, shape, color, texture, radius > 8, x, y, radius)


@pytest.fixture(scope="module")
def circle_and_square() -> Tensor:
    circle = ("circle", "red", "solid", 16.0, 30.0, 10.0)
    square = ("square", "blue", "striped", 46.0, 34.0, 6.0)
    return render(scene_of(circle, square))


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Prompts and the images of the scenes that they were written from."""
    prompts, scenes = evaluation_set(192)
    return prompts, render(scenes)


# Finding figures


def test_it_finds_what_was_drawn(circle_and_square: Tensor) -> None:
    figures, backgrounds = detect(circle_and_square)
    found = sorted(figures[0], key=lambda figure: figure.x)
    assert [(f.shape, f.color, f.texture, f.large) for f in found] == [
        ("circle", "red", "solid", True),
        ("square", "blue", "striped", False),
    ]
    assert [f.x for f in found] == pytest.approx([16, 46], abs=0.5)
    assert [f.y for f in found] == pytest.approx([30, 34], abs=0.5)
    assert [f.radius for f in found] == pytest.approx([10, 6], abs=0.5)
    assert backgrounds == [0]


def test_it_finds_nothing_on_plain_paper() -> None:
    assert detect(torch.full((2, 3, 64, 64), 0.72)) == ([[], []], [1, 1])


def test_no_images_have_no_figures() -> None:
    assert detect([]) == ([], [])


def test_a_patch_that_winds_through_the_image_is_one() -> None:
    snake = torch.ones(1, 3, 64, 64)
    for turn, row in enumerate(range(4, 56, 4)):
        snake[..., row, 4:60] = 0
        snake[..., row : row + 5, (59, 4)[turn % 2]] = 0  # down to the next row
    assert len(detect(snake)[0][0]) == 1


# Judging


def test_a_red_circle_left_of_a_blue_square_meets_its_facts(circle_and_square: Tensor) -> None:
    assert score(circle_and_square, [CIRCLE_LEFT_OF_SQUARE]) == [Verdict(1.0, True)]


def test_its_mirror_image_misses_the_relation_alone(circle_and_square: Tensor) -> None:
    # six facts: two shapes, two colours, the count and the relation
    assert score(circle_and_square.flip(-1), [CIRCLE_LEFT_OF_SQUARE]) == [Verdict(5 / 6, False)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"objects": (ObjectFact("circle", "green"), BLUE_SQUARE)},
        {"objects": (ObjectFact("ring", "red"), BLUE_SQUARE)},
        {"objects": (ObjectFact("circle", "red", texture="dotted"), BLUE_SQUARE)},
        {"objects": (ObjectFact("circle", "red", large=False), BLUE_SQUARE)},
        {"relations": (Relation(0, 1, "above"),)},
        {"count": 3},
        {"background": "gray"},
    ],
)
def test_one_wrong_fact_is_not_exact(circle_and_square: Tensor, wrong: dict[str, Any]) -> None:
    facts = dataclasses.replace(CIRCLE_LEFT_OF_SQUARE, **wrong)
    (result,) = score(circle_and_square, [facts])
    assert not result.exact
    assert 0.5 < result.partial < 1


def test_colours_do_not_change_places(circle_and_square: Tensor) -> None:
    swapped = Facts((ObjectFact("circle", "blue"), ObjectFact("square", "red")), (), count=2)
    assert not score(circle_and_square, [swapped])[0].exact


def test_a_missing_figure_costs_its_facts(circle_and_square: Tensor) -> None:
    three = Facts((RED_CIRCLE, BLUE_SQUARE, RED_CIRCLE), (), count=3)
    assert score(circle_and_square, [three]) == [Verdict(4 / 7, False)]


def test_pil_images_score_as_tensors_do(evaluation: Evaluation) -> None:
    prompts, images = evaluation
    few = slice(0, len(images), 32)
    pixels = (images[few] * 255).round().byte().permute(0, 2, 3, 1).numpy()
    facts = [prompt.facts for prompt in prompts[few]]
    assert score([Image.fromarray(p) for p in pixels], facts) == score(images[few], facts)


def test_rendered_scenes_meet_their_captions_in_every_category(evaluation: Evaluation) -> None:
    prompts, images = evaluation
    scores = score(images, [prompt.facts for prompt in prompts])
    for category in CATEGORIES:
        exact = [s.exact for s, p in zip(scores, prompts, strict=True) if p.category == category]
        assert fmean(exact) >= 0.98


def test_shuffled_images_do_not_meet_the_captions(evaluation: Evaluation) -> None:
    prompts, images = evaluation
    for category in CATEGORIES:
        rows = [i for i, prompt in enumerate(prompts) if prompt.category == category]
        order = torch.tensor(rows).roll(1)
        scores = score(images[order], [prompts[i].facts for i in rows])
        assert fmean(found.exact for found in scores) < 0.08


def test_an_image_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="image 0 has 128x64 pixels; expected 64x64"):
        score([Image.new("RGB", (128, 64))], [CIRCLE_LEFT_OF_SQUARE])
    with pytest.raises(ValueError, match=r"shape \(1, 3, 32, 32\); expected \(N, 3, 64, 64\)"):
        score(torch.zeros(1, 3, 32, 32), [CIRCLE_LEFT_OF_SQUARE])


def test_images_and_facts_of_different_number_are_an_error(circle_and_square: Tensor) -> None:
    with pytest.raises(ValueError, match="1 images for 2 captions"):
        score(circle_and_square, [CIRCLE_LEFT_OF_SQUARE] * 2)
