"""Configs of tiny backbones, as small as their classes allow; the text is 24 wide in most."""

UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    "cross_attention_dim": 24,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
PIXART = {
    "sample_size": 8,
    "num_layers": 2,
    "patch_size": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "in_channels": 4,
    "out_channels": 8,
    "cross_attention_dim": 32,
    "caption_channels": 24,
}
PIXART_1024 = PIXART | {
    "sample_size": 128,
    "patch_size": 8,
    "attention_head_dim": 24,
    "cross_attention_dim": 48,
}
SANA = {
    "sample_size": 8,
    "in_channels": 8,
    "out_channels": 8,
    "num_layers": 2,
    "patch_size": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": 24,
}
XL = UNET | {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 20,
    "transformer_layers_per_block": 1,
    "use_linear_projection": True,
}
HEADS = {"attention_head_dim": 8, "num_attention_heads": 2}
PATCHED = {"sample_size": 8, "patch_size": 2, "in_channels": 8}
FLUX = HEADS | {
    "in_channels": 32,
    "num_layers": 1,
    "num_single_layers": 1,
    "joint_attention_dim": 24,
    "axes_dims_rope": (2, 2, 4),
}
FLUX2 = HEADS | {
    "in_channels": 32,
    "num_layers": 1,
    "num_single_layers": 1,
    "joint_attention_dim": 24,
    "timestep_guidance_channels": 16,
    "axes_dims_rope": (2, 2, 2, 2),
}
KREA2 = {
    "in_channels": 16,
    "num_layers": 1,
    "attention_head_dim": 12,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "timestep_embed_dim": 16,
    "text_hidden_dim": 16,
    "num_text_layers": 3,
    "text_num_attention_heads": 2,
    "text_num_key_value_heads": 2,
    "text_intermediate_size": 24,
    "num_layerwise_text_blocks": 1,
    "num_refiner_text_blocks": 1,
    "axes_dims_rope": (4, 4, 4),
}
SD3 = (
    PATCHED
    | HEADS
    | {
        "out_channels": 8,
        "num_layers": 2,
        "joint_attention_dim": 24,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 20,
        "pos_embed_max_size": 16,
        "qk_norm": "rms_norm",
        "dual_attention_layers": (0,),
    }
)
LUMINA2 = PATCHED | {
    "hidden_size": 24,
    "num_layers": 1,
    "num_refiner_layers": 1,
    "num_attention_heads": 2,
    "num_kv_heads": 1,
    "multiple_of": 8,
    "axes_dim_rope": (4, 4, 4),
    "axes_lens": (300, 32, 32),
    "cap_feat_dim": 24,
}
QWEN_IMAGE = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 12,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (4, 4, 4),
}
Z_IMAGE = {
    "in_channels": 8,
    "dim": 24,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": 24,
    "axes_dims": [4, 4, 4],
    "axes_lens": [512, 32, 32],
}
AURAFLOW = HEADS | {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_mmdit_layers": 1,
    "num_single_dit_layers": 1,
    "joint_attention_dim": 24,
    "caption_projection_dim": 16,
    "pos_embed_max_size": 64,
}
COGVIEW4 = (
    PATCHED
    | HEADS
    | {
        "out_channels": 8,
        "num_layers": 2,
        "text_embed_dim": 24,
        "time_embed_dim": 16,
        "condition_dim": 8,
        "pos_embed_max_size": 16,
        "rope_axes_dim": (16, 16),
    }
)
CHROMA = FLUX | {
    "approximator_num_channels": 8,
    "approximator_hidden_dim": 16,
    "approximator_layers": 1,
}
BRIA = FLUX | {"pooled_projection_dim": None}
OVIS = FLUX | {"out_channels": 32}
WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 24,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}
PRX = {
    "in_channels": 8,
    "patch_size": 2,
    "context_in_dim": 24,
    "hidden_size": 16,
    "num_heads": 2,
    "depth": 2,
    "axes_dim": [4, 4],
}
HUNYUAN_DIT = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "hidden_size": 16,
    "cross_attention_dim": 24,
    "cross_attention_dim_t5": 16,
    "pooled_projection_dim": 16,
    "text_len": 17,
    "text_len_t5": 64,
}
HIDREAM = {
    "patch_size": 2,
    "in_channels": 8,
    "out_channels": 8,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "caption_channels": [24, 20],
    "text_emb_dim": 20,
    "num_routed_experts": 2,
    "num_activated_experts": 1,
    "axes_dims_rope": (4, 2, 2),
    "max_resolution": (16, 16),
    "llama_layers": [0, 1],
}
