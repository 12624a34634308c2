"""Tiny image-and-text models with their processors: a class of transformers and its config each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
_WORDS = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_TEXT = _WORDS | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
_SEES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


@dataclass(frozen=True)
class Made:
    """How a tiny judge is made."""

    model: str
    """Class of transformers."""
    config: dict[str, Any]
    """Token ids stand in it by name."""
    processor: str
    settings: dict[str, Any]
    """Of the processor."""
    image: tuple[str, dict[str, Any]]
    """Class of the image processor, and its settings."""
    tokens: dict[str, str]
    """Its special tokens by the names that the tokenizer has for them."""
    template: str
    named: dict[str, str] = field(default_factory=dict)
    """Keys of the config that hold the id of one of these tokens."""


def _turns(before: str, picture: str, after: str) -> str:
    """A chat template of one user's turn."""
    return (
        "{% for m in messages %}" + before + "{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}" + picture + "{% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}" + after + "{% endfor %}"
    )


_TURNS = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "mrope_section": [2, 1, 1],
    "mrope_interleaved": True,
}
_QWEN_SEES = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
}
_QWEN = Made(
    "Qwen3VLForConditionalGeneration",
    {
        "text_config": _TEXT | {"rope_parameters": _TURNS},
        "vision_config": _QWEN_SEES | {"deepstack_visual_indexes": [0]},
    },
    "Qwen3VLProcessor",
    {},
    (
        "Qwen2VLImageProcessorPil",
        {
            "patch_size": 4,
            "merge_size": 2,
            "temporal_patch_size": 2,
            "size": {"shortest_edge": 256, "longest_edge": 1024},
        },
    ),
    {
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "end_of_turn_token": "<|im_end|>",
    },
    _turns("user\n", "<|vision_start|><|image_pad|><|vision_end|>", "<|im_end|>\nassistant\n"),
    {
        "image_token_id": "image_token",
        "video_token_id": "video_token",
        "vision_start_token_id": "vision_start_token",
        "vision_end_token_id": "vision_end_token",
    },
)
_LINEAR = {
    # three of four layers have a state in place of keys and values
    "num_hidden_layers": 4,
    "full_attention_interval": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "rope_parameters": _TURNS | {"partial_rotary_factor": 1.0},
}

JUDGES: dict[str, Made] = {
    "qwen3_vl": _QWEN,
    "qwen3_5": replace(
        _QWEN,
        model="Qwen3_5ForConditionalGeneration",
        config={"text_config": _TEXT | _LINEAR, "vision_config": _QWEN_SEES},
    ),
    "gemma3": Made(
        "Gemma3ForConditionalGeneration",
        {
            "text_config": _TEXT
            | {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
            "vision_config": _SEES,
            "mm_tokens_per_image": 4,
        },
        "Gemma3Processor",
        {"image_seq_length": 4},
        ("Gemma3ImageProcessorPil", {"size": {"height": 16, "width": 16}}),
        {
            "boi_token": "<start_of_image>",
            "image_token": "<image_soft_token>",
            "eoi_token": "<end_of_image>",
        },
        _turns("{{ bos_token }}user\n", "<start_of_image>", "\nmodel\n"),
        {
            "boi_token_index": "boi_token",
            "eoi_token_index": "eoi_token",
            "image_token_index": "image_token",
        },
    ),
    "llava": Made(
        "LlavaForConditionalGeneration",
        {
            "text_config": _TEXT | {"model_type": "llama"},
            "vision_config": _SEES | {"model_type": "clip_vision_model"},
        },
        "LlavaProcessor",
        {
            "patch_size": 4,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
        (
            "CLIPImageProcessorPil",
            {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}},
        ),
        {"image_token": "<image>"},
        _turns("{{ bos_token }}USER: ", "<image>\n", " ASSISTANT:"),
        {"image_token_index": "image_token"},
    ),
    "internvl": Made(
        "InternVLForConditionalGeneration",
        {
            "text_config": _TEXT | {"model_type": "qwen2"},
            "vision_config": _SEES | {"image_size": [16, 16], "patch_size": [4, 4]},
            "downsample_ratio": 0.5,
            "image_seq_length": 4,
        },
        "InternVLProcessor",
        {"image_seq_length": 4},
        (
            "GotOcr2ImageProcessorPil",
            {"size": {"height": 16, "width": 16}, "crop_to_patches": False},
        ),
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        _turns("user\n", "<IMG_CONTEXT>\n", "\nassistant\n"),
        {"image_token_id": "context_image_token"},
    ),
}


def make_judge(folder: Path, name: str, *, seed: int = 0) -> Path:
    """Write a tiny random image-and-text model with its processor into `folder`.

    Its tokens are bytes, so that `Yes` has three and `7` has one.
    """
    import transformers

    made = JUDGES[name]
    tokenizer = _tokenizer(made.tokens)
    ids = {key: tokenizer.convert_tokens_to_ids(token) for key, token in made.tokens.items()}
    kind = getattr(transformers, made.model)
    named = {key: ids[token] for key, token in made.named.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(kind.config_class(**made.config, **named))
        for parameter in model.parameters():  # wide, so that pictures and questions matter
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder)
    image_class, settings = made.image
    image_processor = getattr(transformers, image_class)(**settings)
    processor = _without_video(getattr(transformers, made.processor))(
        image_processor=image_processor,
        tokenizer=tokenizer,
        chat_template=made.template,
        **made.settings,
    )
    processor.save_pretrained(folder)
    return folder


def _without_video(kind: Any) -> Any:
    """A class of processors without what is for videos, which needs another package."""
    parts = [part for part in kind.get_attributes() if part != "video_processor"]
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda _: parts)})


def _tokenizer(tokens: dict[str, str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens.values()])
    pad, bos, eos, unk = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        extra_special_tokens=tokens,
    )
