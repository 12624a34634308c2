"""The optimizer of the warm start: orthogonal steps for matrices, Adam's for all else."""

import pytest
import torch
from torch import nn

from lavi_bridge.train.warm_start.muon import RMS, Muon, orthogonal


@pytest.mark.parametrize("shape", [(16, 128), (128, 16), (64, 64)])
def test_singular_values_become_alike(shape: tuple[int, int]) -> None:
    random = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(random, full_matrices=False)
    made = orthogonal(random)
    assert made.shape == random.shape
    values = u.mT @ made @ v.mT  # diagonal: the directions are those of the matrix
    torch.testing.assert_close(
        values, torch.diag_embed(values.diagonal(dim1=1, dim2=2)), atol=1e-4, rtol=0
    )
    lasting = values.diagonal(dim1=1, dim2=2)[s > s.amax() / 30]
    assert 0.6 < lasting.min() <= lasting.max() < 1.25


def test_a_matrix_of_zeros_stays_one() -> None:
    assert not orthogonal(torch.zeros(1, 4, 6)).any()


def test_steps_are_of_the_size_of_adams() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(256, 64))
    optimizer = Muon([weight], lr=0.01)
    weight.grad = torch.randn_like(weight) * 1e-3
    optimizer.step()
    assert weight.square().mean().sqrt().item() == pytest.approx(0.01 * RMS, rel=0.2)


def test_what_is_no_matrix_takes_adams_step() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    one = Muon([ours], lr=0.01)
    other = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.0)
    for _ in range(3):
        ours.grad = torch.randn(5)
        theirs.grad = ours.grad.clone()
        one.step()
        other.step()
    torch.testing.assert_close(ours, theirs)


def test_what_has_no_gradient_is_left_alone() -> None:
    still, moved = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([still, moved], lr=0.1)
    moved.grad = torch.eye(2)
    optimizer.step()
    assert torch.equal(still, torch.ones(2, 2))
    assert still not in optimizer.state
    assert not torch.equal(moved, torch.ones(2, 2))
