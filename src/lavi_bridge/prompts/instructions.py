"""What a language model is told to do with short prompts; the wording is ours.

Each instruction has a version, which goes into every result made by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Form = Literal["long", "free"]


@dataclass(frozen=True)
class Instruction:
    """An instruction with examples."""

    version: int
    """A new one for every change of the wording, of the examples' too."""
    text: str
    examples: tuple[tuple[str, str], ...]
    label: str
    """Stands before an answer where there is no chat template."""

    def plain(self, short: str, examples: Sequence[tuple[str, str]] | None = None) -> str:
        """The request to a model without a chat template."""
        given = self.examples if examples is None else examples
        shown = [f"Short: {a}\n{self.label}: {b}" for a, b in given]
        return "\n\n".join([self.text, *shown, f"Short: {short}\n{self.label}:"])

    def show(self) -> str:
        """It as a person reads it, for `lavi-bridge expand --show-instruction`."""
        return f"version {self.version}\n\n{self.plain('<the short prompt>')}"


INSTRUCTIONS: dict[Form, Instruction] = {
    "long": Instruction(
        1,
        "Rewrite a short description of an image as one longer description of the same image, of "
        "at most 60 words. Keep every object, number, colour and position. Add materials, light, "
        "background and style. Answer with the description alone.",
        (
            (
                "a cat on a sofa",
                "A fluffy grey cat lies curled up on a worn green velvet sofa, one paw hanging "
                "over the edge, while warm afternoon light falls through a window behind it.",
            ),
            (
                "two red boats",
                "Two small wooden boats, their red paint faded by salt and sun, rest side by side "
                "on a pebble beach under a pale morning sky, with a calm sea beyond them.",
            ),
        ),
        "Long",
    ),
    "free": Instruction(
        1,
        "Someone wants exactly the image that a short description tells of. Write what they would "
        "say to a painter, in everyday words and at most 40 of them: other words for things and "
        "colours, another order, a word beside the matter. Keep every object, number, colour and "
        "position, and add none. Answer with what they say alone.",
        (
            (
                "a cat on a sofa",
                "My sister would love to have a kitty lying on her couch, if you find the time.",
            ),
            (
                "two red boats left of a white house",
                "Could you do me a pair of boats in red? To the right of them there should be a "
                "house, a white one.",
            ),
        ),
        "Said",
    ),
}
