"""Words and turns of speech for telling the shapes world freely: seen in training, or held out.

Each key is a word of the plain captions (`grammar`); its values mean the same to people. What is
held out appears in no training text, not even as a part of a word: a test holds the lists to that.
They were written down before the first model was trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass

SEEN: dict[str, tuple[str, ...]] = {
    "red": (
        "scarlet",
        "ruby",
        "cherry",
        "vermilion",
        "tomato",
        "brick",
        "poppy",
        "chili",
        "garnet",
        "claret",
    ),
    "green": (
        "emerald",
        "jade",
        "mint",
        "grass",
        "forest",
        "leaf",
        "clover",
        "pine",
        "basil",
        "spinach",
    ),
    "blue": ("navy", "azure", "sapphire", "cobalt", "midnight", "cornflower", "denim", "ink"),
    "yellow": (
        "golden",
        "lemon",
        "canary",
        "sunflower",
        "honey",
        "corn",
        "sunshine",
        "saffron",
        "maize",
    ),
    "purple": (
        "violet",
        "lilac",
        "plum",
        "mauve",
        "amethyst",
        "orchid",
        "mulberry",
        "heather",
        "wisteria",
    ),
    "orange": (
        "tangerine",
        "apricot",
        "pumpkin",
        "carrot",
        "amber",
        "copper",
        "marmalade",
        "persimmon",
    ),
    "cyan": ("turquoise", "aqua", "aquamarine", "sky", "ice", "pool", "glacier", "waterfall"),
    "circle": ("disc", "disk", "dot", "ball", "bubble", "coin", "globe"),
    "square": ("box", "tile", "cube", "quadrangle", "panel", "crate"),
    "triangle": ("pyramid", "wedge", "cone", "arrowhead", "three-sided figure"),
    "diamond": ("rhombus", "lozenge", "kite", "rhomb"),
    "ring": ("hoop", "donut", "loop", "annulus", "wreath"),
    "cross": ("plus", "plus sign", "addition sign", "plus symbol"),
    "solid": ("plain", "filled", "uniform", "one-tone"),
    "striped": ("stripy", "streaked", "banded", "zebra-patterned", "lined"),
    "dotted": ("spotted", "speckled", "polka-dot", "spotty"),
    "large": ("enormous", "giant", "massive", "oversized", "gigantic"),
    "small": ("mini", "miniature", "petite", "teeny", "compact"),
    "white": ("snowy", "snow-white", "chalky"),
    "gray": ("grey", "silver", "ashen", "slate"),
    "background": ("backdrop", "ground", "canvas"),
    "two": ("a pair of", "a couple of", "2"),
    "three": ("a trio of", "3", "a group of 3"),
    "four": ("a quartet of", "4", "a group of 4"),
    "left": ("on the left-hand side of", "west of", "to the left side of"),
    "right": ("on the right-hand side of", "east of", "to the right side of"),
    "above": ("higher than", "up above", "north of"),
    "below": ("lower than", "underneath", "south of"),
    "and": ("and", "and", "together with", "as well as", "along with"),
}
"""Words of training beside the plain one itself, the usual first."""

HELD_OUT: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "strawberry", "carmine"),
    "green": ("moss", "fern", "shamrock"),
    "blue": ("ultramarine", "lapis"),
    "yellow": ("mustard", "banana", "daffodil"),
    "purple": ("lavender", "grape", "eggplant"),
    "orange": ("mandarin", "papaya", "clementine"),
    "cyan": ("teal", "lagoon"),
    "circle": ("orb", "sphere"),
    "square": ("block", "quadrilateral"),
    "triangle": ("delta", "trigon"),
    "diamond": ("gem", "jewel"),
    "ring": ("bracelet", "bangle"),
    "cross": ("crucifix",),
    "solid": ("flat", "unpatterned"),
    "striped": ("ribbed", "barred"),
    "dotted": ("freckled", "peppered"),
    "large": ("colossal", "immense"),
    "small": ("minuscule", "wee"),
    "white": ("milky", "bleached"),
    "gray": ("smoky", "leaden"),
    "background": ("surface", "screen"),
    "two": ("a duo of", "a brace of"),
    "three": ("a threesome of", "a triplet of"),
    "four": ("a foursome of", "a tetrad of"),
    "left": ("leftward of", "on the western edge of"),
    "right": ("rightward of", "on the eastern edge of"),
    "above": ("atop", "skyward of"),
    "below": ("at the foot of", "downhill from"),
    "and": ("accompanied by", "flanked by"),
}
"""Words that no training text has."""

SURVEY: dict[str, tuple[str, ...]] = {
    "red": ("coral", "grapefruit", "watermelon", "auburn"),
    "green": ("algae", "apple", "asparagus", "seaweed"),
    "blue": ("azul", "blurple", "burple"),
    "yellow": ("dandelion", "custard", "straw", "ocre"),
    "purple": ("barney", "heliotrope", "fuchsia", "magenta"),
    "orange": ("mango", "umber", "caramel", "peach"),
    "cyan": ("topaz", "sea", "steel", "petrol"),
}
"""Names of colours from the xkcd colour survey of 2010 (xkcd.com/color/rgb.txt, CC0), by a rule:
of its names of one word, those that are nearest to a colour of the world in CIE Lab (within 50, and
at least 10 nearer than to the next), closest first, four at most. Left out are names that hold a
word of the lists above or a plain colour's, and those of what a body gives off."""


@dataclass(frozen=True)
class Phrases:
    """What stands around the things that are told; none of it is a fact of the picture."""

    openings: tuple[str, ...]
    """Begin a text; the first thing follows."""
    endings: tuple[str, ...]
    """End a sentence about things."""
    asides: tuple[str, ...]
    """Whole sentences beside the matter."""
    others: tuple[str, ...]
    """Begin a second sentence, of the second thing."""
    painted: tuple[str, ...]
    """Stand between a thing and its colour that follows it."""
    places: tuple[str, ...]
    """Stand before a relation: "…, sitting left of …"."""
    grounds: tuple[str, ...]
    """Stand before the background."""


SEEN_PHRASES = Phrases(
    openings=(
        "",
        "please draw",
        "i would like",
        "could you paint me",
        "my daughter wants",
        "show me",
        "we need",
        "a postcard with",
        "can i have",
        "let me see",
        "i am looking for",
        "hello, make me",
        "for the cover: ",
        "a poster of",
        "picture this: ",
        "our client wishes for",
        "it would be lovely to get",
        "sketch",
        "try",
        "i dreamt of",
    ),
    endings=(
        "",
        "",
        "please",
        "for the kitchen wall",
        "if you can",
        "thanks",
        "for my niece",
        "when you have time",
        "just like that",
        "in your own style",
        "and that is all",
        "for a birthday card",
    ),
    asides=(
        "it is for the living room.",
        "the old one got lost when we moved.",
        "take your time.",
        "my friends will love it.",
        "this is for a school project.",
        "we talked about it on the phone.",
        "i hope that this is clear.",
        "sorry for asking so late.",
        "the last version was fine, too.",
        "you did great work before.",
    ),
    others=("there should also be", "add", "next comes", "i also want"),
    painted=("that is", "in", "which is"),
    places=("", "", "sitting", "placed", "lying"),
    grounds=("on a", "against a", "in front of a"),
)

HELD_OUT_PHRASES = Phrases(
    openings=(
        "what about",
        "the boss asked for",
        "kindly produce",
        "imagine",
        "grandma always talks of",
        "would it be possible to get",
        "put up a sign that shows",
        "note to self: ",
    ),
    endings=(
        "as soon as possible",
        "and nothing else",
        "to hang in the office",
        "before friday",
        "like last summer",
        "or so the letter says",
    ),
    asides=(
        "nobody else has to know.",
        "money does not matter.",
        "the printer is waiting downstairs.",
        "do not tell my brother.",
        "everybody at work is curious.",
        "the frame has already been bought.",
        "we leave early tomorrow morning.",
        "it took weeks to decide.",
    ),
    others=("do not forget", "besides, you will need"),
    painted=("whose tone is", "coloured"),
    places=("which one finds", "resting"),
    grounds=("set before a", "surrounded by a"),
)
