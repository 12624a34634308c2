"""A start in closed form: the adapter's last linear layer, solved and not trained.

What enters that layer is known for every token, and so is the teacher's state that should leave it.
Its weights of least squared error follow from sums over the captions alone: ridge regression, or
for an adapter that is one linear layer the orthogonal map with a scale (Schönemann, Psychometrika
31, 1966). Captions are read once, no gradient is made, and nothing else of the bridge changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast, get_args

import torch
from torch import Tensor, nn

from lavi_bridge.adapters import Adapter
from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.config import Solve
from lavi_bridge.errors import BridgeError, NotANumber
from lavi_bridge.running.blocks import like
from lavi_bridge.running.device import to_device
from lavi_bridge.train.warm_start.matching import CHUNK, Groups, Matched, Matcher
from lavi_bridge.train.warm_start.report import Solved

LIMIT = 4096
"""Captions that are read at most: enough for the widest layers, and a matter of seconds."""
AT_ONCE = 4096
"""Tokens that go through the adapter at once."""
PENALTIES = tuple(10.0**power for power in range(-8, 1))
"""Of ridge regression, over the mean variance of what enters the layer; held-out captions choose:
a language model's features have a few numbers that vary a million times as much as the others."""


def check_solvable(how: Solve, adapter: Adapter, impossible: str | None) -> None:
    """Refuse what has no solution in closed form.

    Args:
        impossible: why the teacher's states cannot be matched one by one, if so.

    Raises:
        BridgeError: the way is unknown, the states cannot be matched, or the adapter has no such
            layer.
    """
    if how not in get_args(Solve):
        raise BridgeError(f"unknown solve '{how}'; known: {', '.join(get_args(Solve))}")
    if how == "none":
        return
    reason = impossible
    if reason is None and adapter.last is None:
        reason = f"the '{adapter.kind}' adapter ends with no linear layer"
    if reason is not None:
        raise BridgeError(f"nothing can be solved: {reason}; leave it out (--warm-start-solve)")
    if how == "procrustes" and not adapter.linear:
        raise BridgeError(
            f"procrustes is for the 'linear' adapter alone, not '{adapter.kind}': solve by ridge"
        )


def weighed(
    null: Matched, share: float, groups: Groups, *, keep: bool
) -> Iterator[tuple[Matched, float]]:
    """The empty caption and the first LIMIT others, with what each of a part counts in the loss.

    Args:
        share: of the empty caption.
        keep: what is matched, for the steps that follow; else one chunk of groups at a time.
    """
    yield null, share
    count = min(len(groups), max(1, LIMIT // groups.size))
    captions = min(count * groups.size, len(groups.pairs))
    for start in range(0, count, CHUNK):
        chunk = [groups[number] for number in range(start, min(start + CHUNK, count))]
        yield Matched.cat(chunk), (1 - share) / captions
        if not keep:
            groups.forget()


@torch.no_grad()
def solve_last(
    how: Solve,
    bridge: Bridge,
    matcher: Matcher,
    captions: Iterable[tuple[Matched, float]],
    held_out: Matched,
) -> Solved:
    """Give the adapter's last layer, and that of its pooled head, the weights that fit best.

    Args:
        captions: parts of them, with what each caption of a part counts.
        held_out: what chooses the penalty and is reported on.

    Raises:
        BridgeError: nothing says whose the held-out captions' states are.
        NotANumber: the features or the states are not finite.
    """
    begun = time.perf_counter()
    layers = _layers(bridge.adapter, held_out)
    sums = [Sums.of(layer) for layer in layers]
    training = bridge.training
    bridge.eval()
    read = 0
    try:
        for part, share in captions:
            _add(sums, layers, bridge, matcher, part, share)
            read += len(part)
        origins = [one.means() for one in sums]
        tested = [Sums.of(layer, *at) for layer, at in zip(layers, origins, strict=True)]
        _add(tested, layers, bridge, matcher, held_out, 1.0)
    finally:
        bridge.train(training)
    if not tested[0].rows or sums[0].captions < 2:
        raise BridgeError(
            "nothing says which words of the pairs correspond, so nothing can be solved: give "
            "captions, too, or leave it out (--warm-start-solve)"
        )
    found = []
    for layer, one, test, at in zip(layers, sums, tested, origins, strict=True):
        penalty, weight, fit = _best(how, one, test)
        bias = at[1] - at[0] @ weight
        layer.weight.copy_(like(layer.weight, weight.T.float()))
        layer.bias.copy_(like(layer.bias, bias.float()))
        found.append((round(fit, 4), penalty))
    (fit, penalty), pooled = found[0], found[1][0] if len(found) > 1 else None
    seconds = round(time.perf_counter() - begun, 1)
    return Solved(how, fit, penalty, pooled, read, sums[0].rows, seconds)


class Sums:
    """Weighted sums over what enters a linear layer (x) and what should leave it (y), in float64.

    They are all that the solution needs, so memory does not grow with the captions. Where a device
    has no float64 they are on the CPU.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        """Begin with none; all is summed as its distance to the origin x, y."""
        self.origin = x, y
        self.rows, self.captions, self.weight = 0, 0, x.new_zeros(())
        self.x, self.y = torch.zeros_like(x), torch.zeros_like(y)
        self.xx, self.xy = x.new_zeros(len(x), len(x)), x.new_zeros(len(x), len(y))
        self.yy = x.new_zeros(())

    @staticmethod
    def of(layer: nn.Linear, x: Tensor | None = None, y: Tensor | None = None) -> Sums:
        """Sums for a layer, by default from the origin 0."""
        zero = torch.zeros((), dtype=torch.float64, device=_exact(layer.weight.device))
        return Sums(
            zero.new_zeros(layer.in_features) if x is None else x,
            zero.new_zeros(layer.out_features) if y is None else y,
        )

    def add(self, x: Tensor, y: Tensor, weights: Tensor) -> None:
        """Add rows (count, width in), (count, width out) and what each counts (count,)."""
        device = self.x.device
        x, y, weights = (to_device(part, device).double() for part in (x, y, weights))
        x, y = x - self.origin[0], y - self.origin[1]
        weighted = weights.unsqueeze(1) * x
        self.rows += len(x)
        self.weight += weights.sum()
        self.x += weighted.sum(0)
        self.y += weights @ y
        self.xx.addmm_(weighted.T, x)
        self.xy.addmm_(weighted.T, y)
        self.yy += weights @ y.square().sum(1)

    def means(self) -> tuple[Tensor, Tensor]:
        """The means of x and y."""
        return self.origin[0] + self.x / self.weight, self.origin[1] + self.y / self.weight

    def spread(self) -> tuple[Tensor, Tensor]:
        """The covariance of x (width in, width in), and that of x with y (width in, width out)."""
        x, y = self.x / self.weight, self.y / self.weight
        xx, xy = self.xx / self.weight, self.xy / self.weight
        return xx.addr_(x, x, alpha=-1), xy.addr_(x, y, alpha=-1)

    def fit(self, weight: Tensor) -> float:
        """R² of a map (width in, width out) through the origin: 0 is as good as always saying y's
        origin, 1 is perfect."""
        error = self.yy - 2 * (weight * self.xy).sum() + (weight * (self.xx @ weight)).sum()
        return 1 - (error / self.yy.clamp(min=torch.finfo(torch.float32).tiny)).item()


def ridge(xx: Tensor, xy: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Maps (width in, width out) of least squared error plus each penalty, with the penalty."""
    values, vectors = torch.linalg.eigh(xx)
    turned, mean = vectors.T @ xy, values.clamp(min=0).mean()
    for penalty in PENALTIES:
        yield penalty, vectors @ (turned / (values.clamp(min=0) + penalty * mean).unsqueeze(1))


def procrustes(xx: Tensor, xy: Tensor) -> Tensor:
    """The scaled orthogonal map (width in, width out) nearest to what takes x to y.

    Its rows or columns, of which there are fewer, are orthogonal and of one length. Between equal
    widths, and to a greater one, no such map has a smaller error.
    """
    left, _, right = torch.linalg.svd(xy, full_matrices=False)
    turn = left @ right
    return turn * ((turn * xy).sum() / (turn * (xx @ turn)).sum())


def _best(how: Solve, sums: Sums, test: Sums) -> tuple[float | None, Tensor, float]:
    """The penalty (of ridge regression), the map, and its R² on held-out captions."""
    xx, xy = sums.spread()
    if not bool(xx.isfinite().all()) or not bool(xy.isfinite().all()):
        raise NotANumber(
            "the features that enter the adapter's last layer, or the own encoder's states, are "
            "not numbers: use --dtype float32"
        )
    if how == "procrustes":
        weight = procrustes(xx, xy)
        return None, weight, test.fit(weight)
    found = ((penalty, weight, test.fit(weight)) for penalty, weight in ridge(xx, xy))
    return max(found, key=lambda one: one[2])


def _layers(adapter: Adapter, matched: Matched) -> list[nn.Linear]:
    """What gives the tokens, and what gives the pooled vector, where the teacher has one."""
    pools = adapter.pools and adapter.width_pooled and matched.pooled.shape[1]
    found = [adapter.last, *(list(adapter.pool)[1:] if pools else [])]
    return cast("list[nn.Linear]", found)  # `check_solvable` has seen the first


def _add(
    sums: Sequence[Sums],
    layers: Sequence[nn.Linear],
    bridge: Bridge,
    matcher: Matcher,
    captions: Matched,
    weight: float,
) -> None:
    """Add captions, each of which counts `weight`: their tokens, and their pooled vectors."""
    for part in captions.split(max(1, AT_ONCE // captions.ids.shape[1])):
        with _entering(layers) as entered:
            bridge.adapt(matcher.hidden(part))
        counts = part.weights * ~to_device(part.loose, part.weights.device)
        rows = counts > 0
        sums[0].add(
            entered[0][to_device(rows, entered[0].device)], part.states[rows], weight * counts[rows]
        )
        sums[0].captions += int(rows.any(1).sum())
        if len(layers) > 1:
            sums[1].add(entered[1], part.pooled, torch.full((len(part),), weight).double())


@contextmanager
def _entering(layers: Sequence[nn.Linear]) -> Iterator[dict[int, Tensor]]:
    """Note what enters layers, by their number, while inside."""
    entered: dict[int, Tensor] = {}

    def noting(number: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            entered[number] = inputs[0]

        return note

    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            stack.callback(layer.register_forward_pre_hook(noting(number)).remove)
        yield entered


def _exact(device: torch.device) -> torch.device:
    """The device, or the CPU where it has no float64."""
    try:
        torch.zeros((), dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return torch.device("cpu")
    return device
