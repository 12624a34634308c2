"""What only a GPU shows: run by name with `pytest -m gpu`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lavi_bridge import Bridge

Tiny = Callable[[str], Path]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("vision", ["sd", "pixart-alpha", "sana"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_pair_trains_and_samples_on_the_gpu(tiny: Tiny, vision: str, dtype: str) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny(vision), rank=4, dtype=dtype, device="cuda").train()
    side = bridge.vision.resolution
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    bridge.loss(torch.zeros(2, 3, side, side), ["a", "b"], generator=generators).backward()
    assert all(p.grad is not None for p in bridge.trainable_parameters())
    assert len(bridge.generate(["a", "b"], steps=2)) == 2


def test_gpu_and_cpu_start_from_the_same_noise(tiny: Tiny) -> None:
    pictures = []
    for device in ("cpu", "cuda"):
        bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=4, dtype="float32", device=device)
        pictures.append(np.asarray(bridge.generate("a", steps=2, seed=3)[0], int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 2
