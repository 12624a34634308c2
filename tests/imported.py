"""What `tests.processes` imports once, before any command: the packages that take seconds."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import diffusers.pipelines.pipeline_utils
import peft
import torch
import transformers.modeling_utils

import lavi_bridge.cli.main
import lavi_bridge.cli.train
import lavi_bridge.evaluate.run
import lavi_bridge.plan.plan
import lavi_bridge.train.run

__all__ = ["diffusers", "lavi_bridge", "peft", "torch", "transformers"]
torch.set_num_threads(1)
gc.freeze()  # nor do its children go through it in search of garbage
