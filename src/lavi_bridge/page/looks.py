"""How the page looks: the fonts of the reader's system, and nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

import gradio as gr

HEAD = '<meta name="referrer" content="no-referrer">'


def theme() -> gr.themes.Base:
    """Gradio's own looks with the fonts of the reader's system."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    return gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"])


def css() -> str:
    """The looks of the cards."""
    return files("lavi_bridge.page").joinpath("page.css").read_text(encoding="utf-8")
