import pickle
import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from lavi_bridge.shapes.world import (
    BACKGROUND_COLORS,
    CATEGORIES,
    COLORS,
    PALETTE,
    SHAPES,
    SIZE,
    TEXTURES,
    Length,
    Relation,
    Scenes,
    ShapesWorld,
    caption,
    draw_scenes,
    evaluation_set,
    render,
    vocabulary,
)

LENGTHS = ("short", "mixed", "long")

# the first prompt of each category; scores are only comparable while these stay
PUBLISHED = [
    "a red cross with a blue ring",
    "a picture of a red cross and an orange square",
    "a drawing showing a dotted red diamond and a striped yellow triangle",
    "a picture of an orange square beneath a cyan diamond",
    "a picture of four striped green circles",
    "a picture of a huge solid cyan diamond right of a big green cross on a gray background",
]


def same_scenes(a: Scenes, b: Scenes) -> bool:
    return list(a) == list(b)


# Scenes


def test_a_seed_draws_the_same_scenes_again() -> None:
    assert same_scenes(draw_scenes(50, seed=3), draw_scenes(50, seed=3))
    assert not same_scenes(draw_scenes(50, seed=3), draw_scenes(50, seed=4))


def test_slices_and_concatenation_undo_each_other() -> None:
    scenes = draw_scenes(10, seed=0)
    assert same_scenes(Scenes.concatenate([scenes[:4], scenes[4:]]), scenes)


def test_an_unknown_category_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown category 'size'; known: color, shape, texture"):
        draw_scenes(1, seed=0, category="size")


def test_figures_lie_inside_the_canvas_and_apart() -> None:
    for scene in draw_scenes(300, seed=0):
        for figure in scene.figures:
            assert figure.radius + 1 < figure.x < SIZE - figure.radius - 1
            assert figure.radius + 1 < figure.y < SIZE - figure.radius - 1
        for a, b in pairwise(scene.figures):
            assert max(abs(a.x - b.x), abs(a.y - b.y)) > a.radius + b.radius


def test_colour_prompts_have_two_colours_and_two_shapes() -> None:
    for scene in draw_scenes(100, seed=0, category="color"):
        first, second = scene.figures
        assert first.color != second.color
        assert first.shape != second.shape


def test_count_prompts_have_two_to_four_equal_figures() -> None:
    scenes = draw_scenes(100, seed=0, category="count")
    assert {len(scene.figures) for scene in scenes} == {2, 3, 4}
    for scene in scenes:
        assert len({(f.shape, f.color, f.texture, f.large) for f in scene.figures}) == 1


# Pixels


def test_images_are_float_rgb_from_zero_to_one() -> None:
    images = render(draw_scenes(7, seed=0))
    assert images.shape == (7, 3, SIZE, SIZE)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1


def test_a_solid_square_has_its_colour_inside_and_the_paper_around() -> None:
    scenes = draw_scenes(1, seed=0, category="spatial")
    scenes.shape[0, 0] = SHAPES.index("square")
    scenes.texture[0, 0] = TEXTURES.index("solid")
    image = render(scenes)[0].numpy()
    x, y = int(scenes.x[0, 0]), int(scenes.y[0, 0])
    assert np.allclose(image[:, y, x], PALETTE[scenes.color[0, 0]])
    assert np.allclose(image[:, 0, 0], BACKGROUND_COLORS[scenes.background[0]])


def test_stripes_are_three_dark_and_three_plain_rows() -> None:
    scenes = draw_scenes(1, seed=0, category="spatial")
    scenes.shape[0, 0] = SHAPES.index("square")
    scenes.texture[0, 0] = TEXTURES.index("striped")
    scenes.color[0, 0] = COLORS.index("red")
    scenes.x[0, 0] = scenes.y[0, 0] = 30
    scenes.radius[0, 0], scenes.count[0] = 10, 1
    red = render(scenes)[0, 0, 24:36, 30].numpy()
    dark, plain = [0.86 * 0.28] * 3, [0.86] * 3
    assert np.allclose(red, dark + plain + dark + plain)


def test_an_image_does_not_depend_on_its_batch() -> None:
    scenes = draw_scenes(130, seed=0)
    assert torch.equal(render(scenes)[100:101], render(scenes[100:101]))


# Captions


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("category", [None, *CATEGORIES])
def test_captions_keep_to_the_vocabulary_and_to_30_words(
    category: str | None, length: Length
) -> None:
    rng, known = random.Random(0), set(vocabulary())
    for scene in draw_scenes(300, seed=0, category=category):
        words = caption(scene, rng, category, length)[0].split()
        assert set(words) <= known
        assert len(words) <= 30


def test_the_vocabulary_has_63_sorted_words() -> None:
    words = vocabulary()
    assert len(words) == 63
    assert list(words) == sorted(set(words))
    assert {"circles", "crosses", "huge", "beneath", "zero", "."} <= set(words)


def test_short_captions_tell_shapes_and_colours_only() -> None:
    rng = random.Random(0)
    for scene in draw_scenes(100, seed=0):
        facts = caption(scene, rng, length="short")[1]
        assert facts.background is None
        assert all(fact.texture is None and fact.large is None for fact in facts.objects)


def test_long_captions_tell_everything() -> None:
    rng = random.Random(0)
    for scene in draw_scenes(100, seed=0):
        facts = caption(scene, rng, length="long")[1]
        assert facts.background == scene.background
        assert [(f.shape, f.color, f.texture, f.large) for f in facts.objects] == [
            (f.shape, f.color, f.texture, f.large) for f in scene.figures
        ]
        assert bool(facts.relations) == (scene.kind in ("pair", "complex"))


def test_an_unknown_length_names_the_known_ones() -> None:
    scene = draw_scenes(1, seed=0)[0]
    with pytest.raises(ValueError, match="unknown length 'tiny'; known: short, mixed, long"):
        caption(scene, random.Random(0), length="tiny")  # type: ignore[arg-type]


# The evaluation set


def test_evaluation_prompts_are_the_published_ones() -> None:
    prompts, _ = evaluation_set(64)
    assert [prompt.text for prompt in prompts[::64]] == PUBLISHED


def test_evaluation_facts_are_the_published_ones() -> None:
    facts = evaluation_set(64)[0][192].facts
    assert [(f.shape, f.color) for f in facts.objects] == [
        ("square", "orange"),
        ("diamond", "cyan"),
    ]
    assert facts.relations == (Relation(0, 1, "below"),)
    assert facts.count == 2


def test_evaluation_scenes_are_in_the_order_of_the_prompts() -> None:
    prompts, scenes = evaluation_set(5)
    assert [p.category for p in prompts] == [c for c in CATEGORIES for _ in range(5)]
    for prompt, scene in zip(prompts, scenes, strict=True):
        assert [f.color for f in prompt.facts.objects] == [f.color for f in scene.figures]


# The training set


def test_an_item_does_not_depend_on_the_order_of_access() -> None:
    world, again = ShapesWorld(600, seed=5), ShapesWorld(600, seed=5)
    forwards = {i: world[i] for i in (0, 3, 255, 256, 599)}
    for i in (599, 256, 255, 3, 0):
        picture, text = again[i]
        assert picture.tobytes() == forwards[i][0].tobytes()
        assert text == forwards[i][1]


def test_an_item_is_a_picture_and_its_caption() -> None:
    picture, text = ShapesWorld(10)[0]
    assert (picture.size, picture.mode) == ((SIZE, SIZE), "RGB")
    assert set(text.split()) <= set(vocabulary())


def test_captions_are_those_of_the_items() -> None:
    world = ShapesWorld(4, length="long")
    assert world.captions(4) == [world[i][1] for i in range(4)]


def test_seeds_make_different_training_sets() -> None:
    assert ShapesWorld(20, seed=1).captions(20) != ShapesWorld(20, seed=2).captions(20)


def test_an_item_beyond_the_end_is_an_error() -> None:
    with pytest.raises(IndexError, match="item 4 of a training set of 4"):
        ShapesWorld(4)[4]


def test_a_training_set_travels_to_other_processes() -> None:
    world = ShapesWorld(4, seed=2)
    assert pickle.loads(pickle.dumps(world)).captions(4) == world.captions(4)
