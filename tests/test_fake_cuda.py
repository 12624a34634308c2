"""The simulated GPU: it refuses and counts what CUDA does, and the GPU's tests run on it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.fake_cuda import FakeCuda


@pytest.mark.slow
def test_all_tests_for_a_gpu_pass_on_a_simulated_one() -> None:
    """In a process of its own: libraries remember for good whether there is a GPU."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "tests.fake_cuda",
        "-p",
        "no:cacheprovider",
        "tests/test_gpu.py",
    ]
    alone = os.environ | {"CUDA_VISIBLE_DEVICES": ""}  # the simulated one, beside a real one, too
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        env=alone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert " 3 skipped" in done.stdout, "Z-Image, CogView4 and HiDream, and nothing else"


def test_tensors_tell_where_they_are_and_what_comes_of_them_stays_there() -> None:
    with FakeCuda(2):
        a, b = torch.ones(3, device="cuda"), torch.ones(3)
        assert (a.device, a.is_cuda, b.is_cuda) == (torch.device("cuda:0"), True, False)
        assert all(x.is_cuda for x in (a + a, a[:2], torch.zeros_like(a), a.new_zeros(2)))
        assert (a + torch.tensor(2.0)).is_cuda  # a number may come from the host
        assert torch.zeros_like(a, device="cpu").device.type == "cpu"
        assert a.to("cuda:1").get_device() == 1
    assert b.sum() == 3
    assert not torch.cuda.is_available()


REFUSED: dict[str, tuple[str, Callable[[torch.Tensor, torch.Tensor], object]]] = {
    "two devices": ("same device", lambda a, b: a + b),
    "joined": ("same device", lambda a, b: torch.cat([a, b])),
    "two GPUs": ("same device", lambda a, b: a.to("cuda:1") + a),
    "a layer": ("same device", lambda a, b: torch.nn.Linear(3, 3).to("cuda")(b)),
    "indices": ("indices", lambda a, b: b[torch.zeros(1, dtype=torch.long, device="cuda")]),
    "numpy": ("numpy", lambda a, b: a.numpy()),
    "a generator of the host's": (
        "generator",
        lambda a, b: torch.randn(2, device="cuda", generator=torch.Generator()),
    ),
    "in place": ("generator", lambda a, b: a.normal_(generator=torch.Generator())),
    "no such GPU": ("invalid device ordinal", lambda a, b: torch.ones(1, device="cuda:2")),
    "pinned on the device": ("only dense CPU tensors", lambda a, b: a.pin_memory()),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cuda_refuses_is_refused(what: str) -> None:
    message, call = REFUSED[what]
    with FakeCuda(2):
        a, b = torch.ones(3, device="cuda"), torch.ones(3)
        with pytest.raises((RuntimeError, TypeError), match=message):
            call(a, b)


WAITS: dict[str, tuple[int, Callable[[torch.Tensor, torch.Tensor], object]]] = {
    "item": (1, lambda a, b: a.sum().item()),
    "a branch": (1, lambda a, b: bool(a.any())),
    "to the host": (1, lambda a, b: a.cpu()),
    "a list": (1, lambda a, b: a.tolist()),
    "from the host": (1, lambda a, b: b.to("cuda")),
    "from pageable memory, whatever is asked": (1, lambda a, b: b.to("cuda", non_blocking=True)),
    "from pinned memory": (0, lambda a, b: b.pin_memory().to("cuda", non_blocking=True)),
    "from pinned memory, blocking": (1, lambda a, b: b.pin_memory().to("cuda")),
    "from memory made pinned": (
        0,
        lambda a, b: torch.ones(3, pin_memory=True)[1:].to("cuda", non_blocking=True),
    ),
    "into another type": (
        1,
        lambda a, b: b.pin_memory().to("cuda", torch.float16, non_blocking=True),
    ),
    "into another layout": (
        1,
        lambda a, b: b.pin_memory().expand(2, 3).to("cuda", non_blocking=True),
    ),
    "into a tensor": (1, lambda a, b: a.copy_(b)),
    "into a tensor, pinned": (0, lambda a, b: a.copy_(b.pin_memory(), non_blocking=True)),
    "back without waiting": (0, lambda a, b: a.to("cpu", non_blocking=True)),
    "made of numbers": (1, lambda a, b: torch.tensor([1.0], device="cuda")),
    "filled": (0, lambda a, b: torch.full((3,), 1.0, device="cuda")),
    "a mask": (1, lambda a, b: a[a > 0]),
    "the same device": (0, lambda a, b: a.to("cuda", torch.float16)),
}


@pytest.mark.parametrize("what", WAITS)
def test_every_wait_of_the_host_is_counted(what: str) -> None:
    expected, call = WAITS[what]
    with FakeCuda() as gpu:
        a, b = torch.ones(3, device="cuda"), torch.ones(3)
        gpu.reset()
        call(a, b)
        assert gpu.waits.total() == expected, gpu.report()


def test_a_step_of_training_is_real_and_waits_for_nothing() -> None:
    with FakeCuda() as gpu:
        layer = torch.nn.Linear(3, 3)
        kept = layer.weight
        layer.to("cuda")
        assert layer.weight is kept
        assert kept.is_cuda
        optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
        before = kept.detach().clone()
        gpu.reset()
        layer(torch.ones(2, 3, device="cuda")).sum().backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        assert gpu.waits.total() == 0, gpu.report()
        assert not torch.equal(kept, before)
        assert all(v.is_cuda for state in optimizer.state.values() for v in state.values())


def test_what_is_computed_again_in_the_backward_pass_sees_the_device() -> None:
    with FakeCuda():
        x = torch.ones(3, device="cuda", requires_grad=True)
        made = torch.utils.checkpoint.checkpoint(
            lambda y: y * torch.ones(3, device=y.device), x, use_reentrant=False
        )
        made.sum().backward()
        assert x.grad is not None
        assert x.grad.is_cuda


def test_double_precision_and_what_is_not_finite_are_listed() -> None:
    with FakeCuda(nan=True) as gpu:
        a = torch.zeros(2, device="cuda")
        assert (1 / a).double().isinf().all()
        assert gpu.doubles.total() >= 1
        assert any(line.startswith("reciprocal") for line in gpu.not_finite)
        assert "float64" in gpu.report()
