"""Squares of latents as tokens, as FLUX and its kin read them."""

import torch
from torch import Tensor

JOINT = r"(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
"""The projections of an attention that text and image share."""


def pack(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H/2 · W/2, 4 C); a token's channels are (C, row, column)."""
    return torch.nn.functional.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo `pack`, for latents with these sides."""
    square = tokens.transpose(1, 2).unflatten(2, (height // 2, width // 2))
    return torch.nn.functional.pixel_shuffle(square, 2)


def places(
    height: int, width: int, like: Tensor, first: tuple[int, int, int] = (0, 0, 0)
) -> Tensor:
    """(height · width, 3): 0, row and column of each token, counted from `first`."""
    rows = torch.arange(height, device=like.device).repeat_interleave(width) + first[1]
    columns = torch.arange(width, device=like.device).repeat(height) + first[2]
    return torch.stack([torch.full_like(rows, first[0]), rows, columns], 1).to(like.dtype)


def diagonal(words: Tensor) -> Tensor:
    """Numbers of words (length,) -> (length, 3): 0 and the number along both axes."""
    return torch.stack([torch.zeros_like(words), words, words], 1)
