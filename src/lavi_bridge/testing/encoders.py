"""Tiny text encoders of image models: components of a pipeline, a class of transformers each."""

from __future__ import annotations

from typing import Any

_WORDS = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_LAYERS = {"intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
_CLIP = _WORDS | _LAYERS | {"max_position_embeddings": 77}
_DECODER = (
    _WORDS
    | _LAYERS
    | {"hidden_size": 24, "num_key_value_heads": 1, "head_dim": 12, "max_position_embeddings": 2048}
)
_T5 = _WORDS | {"d_model": 24, "d_kv": 12, "d_ff": 32, "num_layers": 2, "num_heads": 2}
_SEES = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 24,
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}

Encoder = tuple[str, dict[str, Any]]

ENCODERS: dict[str, dict[str, Encoder]] = {
    # image model: {component: (transformers class, config)}; widths are those that it reads
    "sdxl": {
        "text_encoder": ("CLIPTextModel", _CLIP | {"hidden_size": 8}),
        "text_encoder_2": (
            "CLIPTextModelWithProjection",
            _CLIP | {"hidden_size": 16, "projection_dim": 20},
        ),
    },
    "sd3": {
        "text_encoder": (
            "CLIPTextModelWithProjection",
            _CLIP | {"hidden_size": 8, "projection_dim": 8},
        ),
        "text_encoder_2": (
            "CLIPTextModelWithProjection",
            _CLIP | {"hidden_size": 12, "projection_dim": 12},
        ),
        "text_encoder_3": ("T5EncoderModel", _T5),
    },
    "flux-dev": {
        "text_encoder": ("CLIPTextModel", _CLIP | {"hidden_size": 20}),
        "text_encoder_2": ("T5EncoderModel", _T5),
    },
    "flux-schnell": {
        "text_encoder": ("CLIPTextModel", _CLIP | {"hidden_size": 20}),
        "text_encoder_2": ("T5EncoderModel", _T5),
    },
    "flux2-klein": {
        "text_encoder": (
            "Qwen3Model",
            _DECODER | {"hidden_size": 8, "num_hidden_layers": 28, "num_attention_heads": 1},
        )
    },
    "longcat": {
        "text_encoder": (
            "Qwen2_5_VLForConditionalGeneration",
            {"text_config": _DECODER | {"rope_parameters": _ROPE}, "vision_config": _SEES},
        )
    },
    "krea2": {
        "text_encoder": (
            "Qwen3VLModel",
            {
                "text_config": _DECODER | {"hidden_size": 16, "rope_parameters": _ROPE},
                "vision_config": {
                    "depth": 1,
                    "deepstack_visual_indexes": [0],
                    "hidden_size": 16,
                    "intermediate_size": 16,
                    "num_heads": 2,
                    "out_hidden_size": 16,
                },
            },
        )
    },
    "bria": {"text_encoder": ("T5EncoderModel", _T5)},
    "chroma": {"text_encoder": ("T5EncoderModel", _T5)},
    "lumina2": {"text_encoder": ("Gemma2Model", _DECODER)},
    "qwen-image": {
        "text_encoder": (
            "Qwen2_5_VLForConditionalGeneration",
            {"text_config": _DECODER | {"rope_parameters": _ROPE}, "vision_config": _SEES},
        )
    },
    "z-image": {"text_encoder": ("Qwen3Model", _DECODER)},
    "cogview4": {"text_encoder": ("GlmModel", _DECODER)},
    "prx": {"text_encoder": ("T5EncoderModel", _T5)},  # its T5Gemma is asked alike
    "ovis": {"text_encoder": ("Qwen3Model", _DECODER)},
    "auraflow": {"text_encoder": ("UMT5EncoderModel", _T5)},
    "wan": {"text_encoder": ("UMT5EncoderModel", _T5)},
    "sd": {"text_encoder": ("CLIPTextModel", _CLIP | {"hidden_size": 24})},
    "pixart-sigma": {"text_encoder": ("T5EncoderModel", _T5)},
    "sana": {"text_encoder": ("Gemma2Model", _DECODER)},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "krea2": {"text_encoder_select_layers": [1, 2, 3]},
    "sdxl": {"force_zeros_for_empty_prompt": True},
}
"""What some model_index.json say of how the encoders are read."""
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
"""A chat template, which some pipelines put around a prompt."""
