"""A start without images: fit adapter and language LoRA to the vision model's own text encoder.

The vision model already reads the hidden states of the encoder it was trained with. On captions
alone, the adapter and the language model's LoRA learn to produce the same states; diffusion
training then starts from a vision model that understands. Positions must correspond, so both
encoders have to cut captions into the same tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from lavi_bridge.bridge import Bridge, own_encoder
from lavi_bridge.errors import BridgeError
from lavi_bridge.languages import Language


def warm_start(
    bridge: Bridge,
    captions: Sequence[str],
    *,
    steps: int,
    batch_size: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
) -> Iterator[float]:
    """Fit the bridge's text features to the own encoder's; yield the loss of every step.

    A sixteenth of every batch is the empty caption, because guidance needs its states, too. The
    loss is the mean squared error over the variance of the states that are to be matched:
    1 is a constant guess, 0 a perfect match. The rate rises over the first tenth
    of the steps, then falls to zero along a cosine.

    Raises:
        BridgeError: there are no captions, no own encoder, or its tokens are not the bridge's.
    """
    if not captions:
        raise BridgeError("a warm start needs captions")
    vision = bridge.vision
    teacher = own_encoder(vision, dtype=bridge.language.dtype).to(vision.device).eval()
    _require_same_tokens(bridge, teacher, captions[:64])
    parts = bridge.parts()
    parameters = parts["adapter"] + parts["language"]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=max(1, steps // 10),
                             num_training_steps=steps)  # fmt: skip
    rng = random.Random(seed)
    was_training = bridge.training
    bridge.train()
    for _ in range(steps):
        batch = rng.choices(captions, k=batch_size)
        batch[: -(-batch_size // 16)] = [""] * -(-batch_size // 16)
        wanted = _states(teacher, batch, bridge)
        loss = nn.functional.mse_loss(bridge.encode(batch).hidden, wanted) / wanted.var()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        yield loss.item()
    bridge.train(was_training)


@torch.no_grad()
def _states(teacher: Language, captions: Sequence[str], bridge: Bridge) -> Tensor:
    tokens = teacher.tokenize(captions, bridge.tokens)
    return teacher.hidden(tokens.ids, tokens.mask if bridge.vision.masks else None).float()


def _require_same_tokens(bridge: Bridge, teacher: Language, captions: Sequence[str]) -> None:
    ours = bridge.language.tokenize(captions, bridge.tokens).ids
    theirs = teacher.tokenize(captions, bridge.tokens).ids
    if not torch.equal(ours, theirs):
        raise BridgeError(
            f"'{bridge.language.place.id}' cuts captions into other tokens than the text encoder "
            f"of '{bridge.vision.place.id}': their states cannot be matched one by one; "
            "train without a warm start"
        )
