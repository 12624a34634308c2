"""How far the three resize conventions of FID are apart: `python -m benchmarks.fid_resize`.

On photos, with SqueezeNet in place of Inception, so that the figures are a scale of their own:
what counts is how large a change of convention is beside a true difference between two sets.
"""

from __future__ import annotations

import time
from itertools import combinations
from pathlib import Path

import torch
from tests.squeezenet import photos, squeezenet
from torch import Tensor

from lavi_bridge.metrics.distances import frechet_distance
from lavi_bridge.metrics.inception.resizing import RESIZES, SIDE

SHARED = Path(__file__).parents[2] / "shared" / "data"
PHOTOS, BATCH = 1200, 16
SIDES = {"128 to 299 px": SIDE, "128 to 64 px": 64}


@torch.no_grad()
def main() -> None:
    network, pictures = squeezenet(SHARED), photos(SHARED, PHOTOS)
    for title, side in SIDES.items():
        print(f"{title}, {PHOTOS} photos")
        features: dict[str, Tensor] = {}
        first: dict[str, Tensor] = {}
        for name, resize in RESIZES.items():
            start = time.perf_counter()
            resized = [resize(picture, side) for picture in pictures]
            seconds = time.perf_counter() - start
            first[name] = torch.stack(resized[:100])
            rows = [network(torch.stack(resized[i : i + BATCH])) for i in range(0, PHOTOS, BATCH)]
            features[name] = torch.cat(rows)
            halves = frechet_distance(*features[name].chunk(2))
            print(f"  {name:8} between halves {halves:9.2f}   {PHOTOS / seconds:6.0f} photos/s")
        for one, other in combinations(RESIZES, 2):
            grey = (first[one] - first[other]).abs().mean().item()
            apart = frechet_distance(features[one], features[other])
            print(f"  {one:8} - {other:8} same photos {apart:9.2f}   {grey:5.2f} grey levels")


if __name__ == "__main__":
    main()
