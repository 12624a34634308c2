"""The bundled language models: each learns from text alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lavi_bridge.zoo.making import tokens
from lavi_bridge.zoo.making.fitting import Objective, Schedule
from lavi_bridge.zoo.making.stages import Bundled, Context, Stage, anew, fresh, write_card
from lavi_bridge.zoo.making.text import (
    NextToken,
    ShortNextToken,
    Spans,
    TextObjective,
    documents,
    go_on_from,
)

PIECES = 150
"""Merges of the language models' tokenizers: common words are whole, rare ones fall into pieces."""


def llama(context: Context) -> Objective:
    from transformers import LlamaConfig, LlamaModel

    tokenizer = tokens.llama(_corpus(), PIECES)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
        use_cache=False,
    )
    return NextToken(fresh(LlamaModel, config), tokenizer)


def clip_config(tokenizer: Any) -> Any:
    """The config of a small CLIP text encoder: tiny-clip, and tiny-sd's own."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def clip(context: Context) -> Objective:
    from transformers import CLIPTextModel

    tokenizer = tokens.clip(_corpus(), PIECES)
    return ShortNextToken(fresh(CLIPTextModel, clip_config(tokenizer)), tokenizer)


def t5(width: int, layers: int, heads: int, inner: int) -> Callable[[Context], Objective]:
    def task(context: Context) -> Objective:
        from transformers import T5Config, T5ForConditionalGeneration

        tokenizer = tokens.t5(_corpus(), PIECES)
        config = T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=width // heads,
            d_ff=inner,
            num_layers=layers,
            num_decoder_layers=2,
            num_heads=heads,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
        return Spans(fresh(T5ForConditionalGeneration, config), tokenizer)

    return task


def _corpus() -> list[str]:
    return documents(4000, "tokenizer")


def language_model(
    name: str, about: str, task: Callable[[Context], Objective], schedule: Schedule
) -> Bundled:
    def begin(context: Context) -> Objective:
        fresh = task(context)
        assert isinstance(fresh, TextObjective)
        if context.start:
            go_on_from(fresh, context.start)
        return fresh.to(context.device)

    def finish(context: Context, trained: Objective) -> None:
        assert isinstance(trained, TextObjective)
        with anew(context.out / name) as folder:
            trained.save(folder)
            further = ", going on from earlier weights" if context.start else ""
            text = (
                f"It has never seen a picture: it learned from text of the shapes world{further}."
            )
            write_card(folder, name, "transformers", about, text)

    return Bundled(about, (Stage("text", schedule, begin, finish),))
