"""What a metric is: an extractor and a pure function, and where its weights come from.

A `Score` judges every image by itself, a `Distance` compares two sets of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.registry import Registry

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class Metric:
    """What all metrics say of themselves; a table's column."""

    title: ClassVar[str]
    """Head of the column, as `CLIP score`."""
    higher: ClassVar[bool] = True
    """Whether more is better."""
    scorer: ClassVar[str] = ""
    """Hub id or file of the published weights; empty where a metric needs none."""
    licence: ClassVar[str] = ""
    """Of the weights, as those who publish them state it; empty where a metric needs none."""
    download: ClassVar[float] = 0
    """GB of the published weights."""
    memory: ClassVar[float] = 0
    """GB that the weights take while it judges; a batch of images comes on top."""
    needs: ClassVar[str] = ""
    """What it asks for beside images and weights."""
    files: ClassVar[tuple[str, ...]] = ()
    """Arguments of the constructor that are files or folders of their own: `head`."""

    def provenance(self) -> dict[str, str]:
        """What the numbers depend on beside the images: weights, their fingerprint, mode."""
        return {}

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise where it cannot judge pictures of these prompts, before anything is drawn."""

    def note(self, prompts: Sequence[Prompt]) -> str | None:
        """What a reader of these prompts' numbers must know, if anything."""
        return None


class Score(Metric):
    """Judges images one by one, each against its prompt."""

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        """One number an image; batches are the caller's."""
        raise NotImplementedError

    def reads(self, prompt: Prompt) -> str:
        """What it reads of a prompt: a score is of this and of the picture."""
        return prompt.text


class Distance(Metric):
    """Compares the features of two sets of images."""

    higher = False
    needs = "--reference"

    def features(self, images: Sequence[Image]) -> Tensor:
        """Images -> features (images, width), float32, on the CPU."""
        raise NotImplementedError

    def distance(self, features: Tensor, reference: Tensor) -> float:
        """Two sets of features (N, width), (M, width) -> how far they are apart."""
        raise NotImplementedError

    def error(self, features: Tensor, reference: Tensor, groups: Tensor) -> float:
        """Standard error of `distance` under other images; the reference is what it is.

        The jackknife over groups: the distance is found without each in turn.

        Args:
            groups: of each row of `features`, from 0, two or more.
        """
        from lavi_bridge.metrics.jackknife import spread

        parts = range(int(groups.max()) + 1)
        return spread([self.distance(features[groups != part], reference) for part in parts])

    def value_and_error(
        self, features: Tensor, reference: Tensor, groups: Tensor
    ) -> tuple[float, float]:
        """`distance` and `error`, which may share work."""
        value = self.distance(features, reference)
        return value, self.error(features, reference, groups)

    def doubt(self, features: Tensor, reference: Tensor) -> str | None:
        """Why these two sets are too small for it, if they are."""
        return None


@contextmanager
def exact() -> Iterator[None]:
    """Where a network judges: without gradients, and all of float32 in float32.

    On a GPU cuDNN would otherwise round convolutions' inputs to TF32, and so would products after a
    training in bfloat16; scores would differ from a CPU's.
    """
    import torch

    from lavi_bridge.running.device import float32_products

    with (
        torch.no_grad(),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        float32_products("highest"),
    ):
        yield


METRICS: Registry[Metric] = Registry("metric")
"""By the name that `--metrics` takes. A metric's constructor has only defaults or keywords:
`scorer` (Hub id or folder of its weights) and `device` where it has weights, files beside them
(`weights`, `head`), and its modes."""
