"""Settings of `evaluate`; a field's docstring is its help text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from lavi_bridge.config import Count, Dtype, Quantize, Sampling, Settings, is_list
from lavi_bridge.errors import BridgeError


@dataclass
class EvaluateConfig(Settings):
    """Draw prompt suites with bridges and image models, judge the images, and report.

    Everything finished is kept: the same command goes on wherever it was stopped. Several
    processes: `torchrun --nproc_per_node 8 -m lavi_bridge evaluate …`."""

    entries: Positional[list[str]]
    """Bridges (folders, runs, Hub ids), image models (zoo:tiny-sd, Hub ids of pipelines in a
    folder) with their own text encoders, and folders of images; NAME=… gives one another name,
    and BRIDGE,language-scale=0.5,vision-scale=1 strengths of its own (adapter-scale, too); what
    draws may have lora=FILE:0.8, as in `generate`. Others are compared with the first."""
    suites: list[str]
    """Prompt suites (`lavi-bridge list suites`), SUITE:CATEGORY, or .txt, .tsv, .jsonl files."""
    metrics: list[str] = field(default_factory=list)
    """What to measure (`lavi-bridge list metrics`; `quality` is several; unset: what is usual for
    each suite)."""
    out: Path = Path("runs/evaluation")
    """Folder for the images, their scores, and report.html, report.md, report.json."""
    prompts: Path | None = None
    """Folder with copies of the public prompt files."""
    limit: int | None = None
    """Prompts of each suite at most, evenly over its categories."""
    images: Count | None = None
    """Images of every prompt (unset: as the suite's authors ask)."""
    reference: Path | None = None
    """Folder of real images, which distances (fid, kid, fd-dinov2, cmmd, mind) compare with."""
    resize: Literal["clean", "pytorch", "tf1"] = "clean"
    """How fid, kid and mind shrink images: as clean-fid, pytorch-fid or torch-fidelity."""
    mode: Literal["faithful", "fixed"] = "faithful"
    """T2I-CompBench's metrics and those by a judge with the quirks of the official code, or as they
    are meant (`lavi-bridge list quirks`)."""
    judge: str | None = None
    """Image-and-text model that answers the questions of soft-tifa, vqascore and dpg-judge: a Hub
    id (with @revision) or folder, as Qwen/Qwen3-VL-8B-Instruct."""
    judge_dtype: Dtype | None = None
    """Precision of the judge (unset: bfloat16 on a GPU, float32 on a CPU)."""
    judge_quantize: Quantize = "none"
    """Hold the judge's layers in 8 or 4 bits (int8, nf4; bitsandbytes)."""
    judged: Path | None = None
    """Folder that `lavi-bridge judge` wrote: how this judge did where the truth is known is said
    beside its scores (unset: looked for in OUT)."""
    plan: bool = False
    """Print the plan and stop: pictures to draw, questions to ask, downloads with their licences,
    the judge's memory, and hours, which are computed."""
    scorers: list[str] = field(default_factory=list)
    """METRIC=FOLDER for scorers' weights that are neither on the Hub nor in its cache;
    METRIC.FILE=PATH for a file beside them (aesthetic-v2.head, hpsv3.base, hpsv3.template)."""
    export: Path | None = None
    """Also copy the images here in the layouts of the official scorers (T2I-CompBench, GenEval,
    DPG-Bench); what T2I-CompBench's leave there, the same command then reads into the report."""
    sampling: OmitArgPrefixes[Sampling] = field(default_factory=Sampling)
    """How images are drawn."""
    suffix: str = ""
    """Appended to every prompt when drawing (the paper's ", best quality, extremely detailed, 4k
    resolution"); scorers see the prompt without it."""
    dtype: Dtype | None = None
    """Precision of the models that draw (unset: bfloat16 on a GPU, float32 on a CPU)."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""
    language: list[str] = field(default_factory=list)
    """Where the bridges' language model is now, if it has moved since training; NAME=… is for one
    entry."""
    vision: list[str] = field(default_factory=list)
    """Where the bridges' vision model is now, if it has moved; NAME=… is for one entry."""
    trust_remote_code: bool = False
    """Run code that comes with the bridges' language models (read it first)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_list(self.suites) and not self.suites:
            raise BridgeError("no suite: `lavi-bridge list suites` shows them")
