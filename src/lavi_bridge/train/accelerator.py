"""accelerate's view of a run: its device, its processes, its tracker."""

from __future__ import annotations

from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    ProjectConfiguration,
)

from lavi_bridge.errors import BridgeError
from lavi_bridge.running.device import choose_device
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.showing import tracker_of

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other."""


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Join the processes that were started, if several were, and choose this one's device.

    Raises:
        BridgeError: the device or the tracker is not there, or accelerate was configured for FSDP.
    """
    device = choose_device(config.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        gradient_accumulation_steps=config.accumulate,
        log_with=tracker_of(config.tracker),
        project_config=ProjectConfiguration(project_dir=str(config.out)),
        kwargs_handlers=[
            # one process reads the headers of a large data set while the others wait
            InitProcessGroupKwargs(timeout=PATIENCE),
            # buffers are constants, and the same in all
            DistributedDataParallelKwargs(broadcast_buffers=False),
        ],
    )
    if accelerator.distributed_type == DistributedType.FSDP:
        raise BridgeError(
            "accelerate's own FSDP does not know which weights are frozen: let its config say "
            "`distributed_type: MULTI_GPU`, and give --shard"
        )
    return accelerator
