"""The Inception v3 of FID: TensorFlow's network of 2015-12-05 as pytorch-fid ported it.

It differs from torchvision's in its pools, and the libraries that offer it want torchvision's.
Layers are named as in the published file. Sources: mseitzer/pytorch-fid `inception.py`,
toshas/torch-fidelity `feature_extractor_inceptionv3.py`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import at_home, read_pickle
from lavi_bridge.files.fetch import fetched
from lavi_bridge.metrics.inception.resizing import MIDDLES, Resize

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

Kernel = int | tuple[int, int]
Branches = dict[str, list[tuple[int, Kernel | list[Kernel]]]]
"""For each branch the channels and kernel of its layers; two kernels are two layers side by side,
whose outputs are joined."""

ROW, COLUMN = (1, 7), (7, 1)
CROSS: list[Kernel] = [(1, 3), (3, 1)]


def _block_5(pooled: int) -> Branches:
    return {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
        "branch_pool": [(pooled, 1)],
    }


def _block_6(width: int) -> Branches:
    return {
        "branch1x1": [(192, 1)],
        "branch7x7": [(width, 1), (width, ROW), (192, COLUMN)],
        "branch7x7dbl": [(width, 1), (width, COLUMN), (width, ROW), (width, COLUMN), (192, ROW)],
        "branch_pool": [(192, 1)],
    }


BLOCK_7: Branches = {
    "branch1x1": [(320, 1)],
    "branch3x3": [(384, 1), (384, CROSS)],
    "branch3x3dbl": [(448, 1), (384, 3), (384, CROSS)],
    "branch_pool": [(192, 1)],
}
HALVE_5: Branches = {
    "branch3x3": [(384, 3)],
    "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
    "branch_pool": [],
}
HALVE_6: Branches = {
    "branch3x3": [(192, 1), (320, 3)],
    "branch7x7x3": [(192, 1), (192, ROW), (192, COLUMN), (192, 3)],
    "branch_pool": [],
}


class Inception(nn.Module):
    """Pixels (N, 3, 299, 299) in [0, 255] -> the last pool's features (N, 2048).

    Args:
        resize: the convention that made the pixels; each also scales them in its own way.
    """

    def __init__(self, resize: Resize = "clean") -> None:
        super().__init__()
        self.middle = MIDDLES[resize]
        average = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        # an average in every other Inception; the published graph has this, and so has every FID
        last = nn.MaxPool2d(3, stride=1, padding=1)
        self.Conv2d_1a_3x3 = Layer(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Layer(32, 32, 3)
        self.Conv2d_2b_3x3 = Layer(32, 64, 3, padding="same")
        self.pool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = Layer(64, 80, 1)
        self.Conv2d_4a_3x3 = Layer(80, 192, 3)
        self.pool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = Mixed(192, _block_5(32), average)
        self.Mixed_5c = Mixed(256, _block_5(64), average)
        self.Mixed_5d = Mixed(288, _block_5(64), average)
        self.Mixed_6a = Mixed(288, HALVE_5, nn.MaxPool2d(3, stride=2))
        self.Mixed_6b = Mixed(768, _block_6(128), average)
        self.Mixed_6c = Mixed(768, _block_6(160), average)
        self.Mixed_6d = Mixed(768, _block_6(160), average)
        self.Mixed_6e = Mixed(768, _block_6(192), average)
        self.Mixed_7a = Mixed(768, HALVE_6, nn.MaxPool2d(3, stride=2))
        self.Mixed_7b = Mixed(1280, BLOCK_7, average)
        self.Mixed_7c = Mixed(2048, BLOCK_7, last)
        self.fc = nn.Linear(2048, 1008)  # in the file; features are read before it

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels - self.middle) / self.middle
        *layers, _ = self.children()
        for layer in layers:
            x = layer(x)
        return x.mean((2, 3))


class Layer(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(
        self, width: int, channels: int, kernel: Kernel, *, stride: int = 1, padding: str = "valid"
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu_()


class Mixed(nn.Module):
    """Branches side by side, joined on the channels; `branch_pool` reads the pooled input.

    Where that branch has no layers the block halves height and width, with `pool` and with the
    last layer of every other branch.
    """

    def __init__(self, width: int, branches: Branches, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool
        self.branches: dict[str, list[list[Layer]]] = {}
        for branch, steps in branches.items():
            self.branches[branch] = []
            before = width
            for number, (channels, kernel) in enumerate(steps, 1):
                halve = not branches["branch_pool"] and number == len(steps)
                stride, padding = (2, "valid") if halve else (1, "same")
                kernels = kernel if isinstance(kernel, list) else [kernel]
                row = [Layer(before, channels, k, stride=stride, padding=padding) for k in kernels]
                for letter, layer in zip("ab", row, strict=False):
                    name = branch + (f"_{number}" if len(steps) > 1 else "")
                    self.add_module(name + (letter if len(row) > 1 else ""), layer)
                self.branches[branch].append(row)
                before = channels * len(row)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for branch, rows in self.branches.items():
            y = self.pool(x) if branch == "branch_pool" else x
            for row in rows:
                y = torch.cat([layer(y) for layer in row], 1)
            outputs.append(y)
        return torch.cat(outputs, 1)


def weights_file(given: str | Path | None = None) -> Path:
    """The file of the published weights: that given, or that in the cache folder.

    Raises:
        BridgeError: none is given, and it is not in the cache and cannot be fetched.
    """
    return at_home(given) if given else fetched(FILE, url=URL, sha256=SHA256)


def published(path: Path, *, resize: Resize = "clean") -> Inception:
    """The network with the published weights, ready to extract features.

    Raises:
        BridgeError: the file is missing, damaged, or that of another network.
    """
    model = Inception(resize)
    try:
        model.load_state_dict(read_pickle(path))
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise BridgeError(
            f"{path} is not the Inception of FID ({reason[:80]}…); expected {FILE} from {URL}"
        ) from error
    return model.eval().requires_grad_(False)
