"""A real, small ImageNet network as a stand-in where Inception's weights are not at hand.

SqueezeNet 1.0 as its authors published it for Caffe. A distance in its features says as much of
the way to it as one in Inception's does, but it is no FID that could stand beside a published one.
"""

import io
import random
import tarfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from lavi_bridge.files.atomic import read_safetensors

MEAN = (104.0, 117.0, 123.0)  # of blue, green, red


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1×1 and 3×3 side by side."""

    def __init__(self, width: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(width, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze1x1(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


class SqueezeNet(nn.Module):
    """RGB pixels (N, 3, height, width) in [0, 255] -> means of the last fire module (N, 512)."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        width = 96
        for number in range(2, 10):
            squeezed, expanded = 16 * (number // 2), 64 * (number // 2)
            setattr(self, f"fire{number}", Fire(width, squeezed, expanded))
            width = 2 * expanded
        self.conv10 = nn.Conv2d(512, 1000, 1)  # classes; not read
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels.flip(1) - self.mean).relu()
        for number in range(2, 10):
            if number in (2, 5, 9):
                x = max_pool2d(x, 3, stride=2, ceil_mode=True)
            x = self.get_submodule(f"fire{number}")(x)
        return x.mean((2, 3))


def squeezenet(shared: Path) -> SqueezeNet:
    """With the published weights, ready to extract features."""
    weights = shared / "weights" / "squeezenet" / "squeezenet_v1_0_caffe_bgr.safetensors"
    model = SqueezeNet()
    state = read_safetensors(weights)
    model.load_state_dict({name.replace("_", ".", 1): value for name, value in state.items()})
    return model.eval().requires_grad_(False)


def photos(shared: Path, count: int) -> list[Image.Image]:
    """Photos of groceries, 128 px, drawn from all of them."""
    with tarfile.open(shared / "images" / "grocery.tar.gz") as archive:
        members = {m.name: m for m in archive if m.name.endswith(".jpg")}
        drawn = set(random.Random(0).sample(sorted(members), count))
        found = []
        for name in members:  # in the archive's order: going back in a compressed file is slow
            if name in drawn and (file := archive.extractfile(members[name])):
                found.append(Image.open(io.BytesIO(file.read())).convert("RGB"))
    random.Random(0).shuffle(found)  # the archive sorts by class
    return found
