"""The form of a drawing: what to draw and how, in the order of `Request`'s settings."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import gradio as gr

from lavi_bridge.page.models import Known
from lavi_bridge.page.request import Request
from lavi_bridge.visions.noise.process import Diffusion, Flow

OWN = "model's own"
NAMED = dict.fromkeys((*Diffusion.samplers, *Flow.samplers))
SAMPLERS = [(OWN, ""), *((name, name) for name in NAMED)]
STRENGTHS = {
    "language_scale": "Strength of the language model's LoRA",
    "vision_scale": "Strength of the image model's LoRA",
    "adapter_scale": "Strength of the adapter",
}
FIELDS = tuple(field.name for field in fields(Request))
EXAMPLE = "a large red circle left of a small blue square"


class Form:
    """The components that a visitor fills in; made inside of a page that is being built."""

    def __init__(self, known: Sequence[Known], *, grows: bool) -> None:
        """Lay it out.

        Args:
            grows: whether more bridges may come, with strengths of any kind.
        """
        names = [one.name for one in known]
        strengths = {name for one in known for name in one.strengths}
        plain = bool(known) and all(one.world for one in known)
        gr.HTML("<h1>LaVi-Bridge</h1>", elem_classes="lb-title")
        prompt = gr.Textbox(EXAMPLE, label="Prompt", lines=2, max_lines=6, autofocus=True)
        with gr.Row():
            self.start = gr.Button("Draw", variant="primary", min_width=120, elem_id="draw")
            self.halt = gr.Button("Stop", variant="stop", min_width=80, elem_id="stop")
        with gr.Row(elem_classes="lb-seed"):
            seed = gr.Textbox("0", label="Seed", min_width=120)
            dice = gr.Button("Dice", min_width=70, scale=0, elem_id="dice")
        with gr.Row():
            # text, as Gradio makes 0 of a number that is not given
            steps = gr.Textbox("20" if plain else "", label="Steps", placeholder=OWN, min_width=90)
            guidance = gr.Textbox(
                "4" if plain else "", label="Guidance", placeholder=OWN, min_width=90
            )
            scheduler = gr.Dropdown(
                SAMPLERS,
                value="dpm++" if plain else "",
                label="Sampler",
                allow_custom_value=True,
                min_width=130,
            )
        with gr.Accordion("More settings", open=False):
            self.ticked = gr.CheckboxGroup(names, value=names, label="Bridges that draw")
            negative = gr.Textbox(label="Negative prompt", lines=1)
            with gr.Row():
                width = gr.Textbox(label="Width", placeholder=OWN, min_width=90)
                height = gr.Textbox(label="Height", placeholder=OWN, min_width=90)
            scales = {
                name: gr.Slider(
                    0, 2, 1.0, step=0.05, label=label, visible=grows or name in strengths
                )
                for name, label in STRENGTHS.items()
            }
        with gr.Accordion("Change one word", open=False):
            with gr.Row():
                self.word = gr.Textbox("red", label="Word of the prompt", min_width=110)
                self.other = gr.Textbox(
                    "green", label="Instead", placeholder="left out", min_width=110
                )
            self.both = gr.Button("Draw both", elem_id="both")
        with gr.Accordion("Sheet of prompts", open=False):
            self.file = gr.File(label="Text file, one prompt a line", height=120)
            self.many = gr.Button("Draw the sheet", elem_id="sheet")
        sent = {
            "prompt": prompt,
            "seed": seed,
            "steps": steps,
            "guidance": guidance,
            "negative": negative,
            "height": height,
            "width": width,
            "scheduler": scheduler,
            **scales,
        }
        self.prompt = prompt
        self.inputs = [self.ticked, *(sent[name] for name in FIELDS)]
        dice.click(_thrown, None, seed, queue=False, api_visibility="private")


def shown(value: Any) -> Any:
    """A setting as the form has it: strengths are sliders, the others text."""
    return value if isinstance(value, float) else "" if value is None else str(value)


def _thrown() -> str:
    """A seed by chance."""
    return str(secrets.randbelow(2**31))
