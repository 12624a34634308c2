"""The loss of a process's part of a batch, whatever of it can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.data.cache.features import FeatureCache
from lavi_bridge.data.examples import Batch, Example, Examples, inputs
from lavi_bridge.languages.layers import Upper
from lavi_bridge.running.device import to_device
from lavi_bridge.train.caching import cached_features
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.unreadable import Unreadable


class Loss:
    """Makes examples into a `Batch` and asks the bridge for its loss.

    Args:
        text_cache: gives the language model's features where it has them.
    """

    def __init__(
        self,
        bridge: Bridge,
        samples: Examples,
        unreadable: Unreadable,
        config: TrainConfig,
        text_cache: FeatureCache | None = None,
    ) -> None:
        self._bridge, self._samples, self._unreadable = bridge, samples, unreadable
        self._config, self._text_cache = config, text_cache
        trains = text_cache is not None and bridge.language.lora is not None
        self._upper = Upper(bridge.language) if trains else None

    def __call__(self, module: nn.Module, examples: Sequence[Example]) -> Tensor:
        """The mean loss of all examples; those that cannot be read count zero.

        Args:
            module: the bridge, or what wraps it for several processes.
        """
        good = self._unreadable.only_good(examples)
        # compiled blocks want one length, and one number of pictures
        trim = self._config.compile == "none"
        options: dict[str, Any] = {"min_snr": self._config.min_snr, "trim": trim}
        if not good:  # the other processes wait for a gradient
            count = 1 if trim else len(examples)
            nothing: Tensor = module(**vars(self._black(count, examples[0])), **options)
            return nothing * 0
        lacking = 0 if trim else len(examples) - len(good)
        if lacking:
            shares = torch.tensor([1.0] * len(good) + [0.0] * lacking)
            options["shares"] = to_device(shares, self._bridge.vision.device)
        batch = inputs(good + good[:1] * lacking, self._bridge.vision, self._samples.cache)
        if self._text_cache is not None and batch.captions:
            features = cached_features(
                self._bridge, self._text_cache, batch.captions, trim=trim, upper=self._upper
            )
            batch = replace(batch, features=features)
        loss: Tensor = module(**vars(batch), **options)
        return loss if lacking else loss * (len(good) / len(examples))

    def _black(self, count: int, example: Example) -> Batch:
        """So many black pictures of an example's size."""
        width, height = self._samples.size(example.sample.index)
        return Batch(
            [""] * count,
            pixels=torch.zeros(count, 3, height, width),
            generator=[Generator().manual_seed(0) for _ in range(count)],
        )
