"""`doctor`: what is installed, what the machine has, and what is missing for what.

Made to be pasted into a bug report: the home is `~`, and of a token it is only said whether there
is one.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from lavi_bridge.version import __version__

if TYPE_CHECKING:
    from lavi_bridge.running.machine import Package

PURPOSES = {
    "compbench": "the noun chunks of T2I-CompBench's prompts (`evaluate`)",
    "datasets": "training on Hugging Face data sets (`train --data hf:OWNER/NAME`)",
    "gguf": "language models in one GGUF file",
    "page": "the page in a browser (`lavi-bridge page`)",
    "quantize": "models held in 8 or 4 bits (`--quantize`), `train --optimizer adamw-8bit`",
    "schedule-free": "`train --optimizer schedule-free`",
}
"""What each extra of the package is for."""
SPACY_MODEL = "en_core_web_sm"
ENVIRONMENT = (
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
)
"""Variables that change what happens, and that hold nothing private."""


@dataclass
class Doctor:
    """Say what is installed, what this machine has, and what is missing for what.

    For a bug report: there is no token in it, and no name of a home. The Hub is asked one question,
    and under HF_HUB_OFFLINE=1 none."""

    json: bool = False
    """Print JSON instead of text."""


@dataclass
class Missing:
    """Something that is not here: what it is needed for, and the command that brings it."""

    what: str
    needed_for: str
    command: str


@dataclass
class Report:
    """All that was found; `running/machine.py` says what is in the mappings."""

    lavi_bridge: str
    python: str
    platform: str
    cores: int
    memory: dict[str, float]
    torch: dict[str, Any]
    drivers: list[str]
    packages: dict[str, Package]
    not_pinned: list[str]
    hub: dict[str, Any]
    environment: dict[str, str]
    caches: list[dict[str, Any]]
    bundled: dict[str, bool]
    missing: list[Missing] = field(default_factory=list)


def doctor(args: list[str]) -> None:
    """Say what is installed, what this machine has, and what is missing for what."""
    options = tyro.cli(Doctor, args=args, prog="lavi-bridge doctor")
    report = examine()
    if options.json:
        print(json.dumps(without_home(asdict(report)), indent=2, ensure_ascii=False))
    else:
        print(without_home(as_text(report)))


def examine() -> Report:
    """Look at this machine; all the rest happens while torch is imported."""
    from concurrent.futures import ThreadPoolExecutor

    from lavi_bridge.running import machine

    with ThreadPoolExecutor(1) as pool:
        torch = pool.submit(machine.torch_and_gpus)
        packages = machine.packages()
        report = Report(
            lavi_bridge=__version__,
            python=platform.python_version(),
            platform=platform.platform(),
            cores=machine.cores(),
            memory=machine.memory(),
            drivers=machine.drivers(),
            packages=packages,
            not_pinned=machine.not_pinned(packages),
            hub=machine.hub(),
            environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            caches=machine.caches(),
            bundled=machine.bundled(),
            torch=torch.result(),
        )
    report.missing = list(missing(report))
    return report


def missing(report: Report) -> Iterator[Missing]:
    """What a user may want and does not have, the gravest first."""
    from lavi_bridge.running.machine import BUILDS, NAME

    if not report.packages:
        yield Missing("the package's own metadata", "its versions, told here", "pip install .")
    wrong = {n: p for n, p in report.packages.items() if not p.fits and (p.version or not p.extra)}
    if wrong:
        what = ", ".join(f"{n} {p.needs} ({p.version or 'none'} here)" for n, p in wrong.items())
        asked = " ".join(f"'{n}{p.needs}'" for n, p in wrong.items())
        yield Missing(what, "anything at all", f"pip install {asked}")
    elif "error" in report.torch:
        failed = f"anything at all; this one says: {report.torch['error']}"
        again = "pip install --force-reinstall torch"
        yield Missing("a torch that can be imported", failed, again)
    if report.drivers and report.torch.get("built_for") == "CPU":
        yield Missing(
            "a torch that is built for the GPU",
            "speed; this one is for CPUs",
            f"the command for CUDA, from {BUILDS}",
        )
    lost = [name for name, there in report.bundled.items() if not there]
    if lost or not report.bundled:
        again = f"pip install --force-reinstall --no-deps . (or {NAME})"
        yield Missing(f"bundled models {', '.join(lost)}".strip(), "`demo`, zoo:NAME", again)
    for extra in sorted({one.extra for one in report.packages.values()} - {""}):
        absent = [n for n, p in report.packages.items() if p.extra == extra and not p.version]
        if absent:
            purpose = PURPOSES.get(extra, f"the extra `{extra}`")
            yield Missing(", ".join(absent), purpose, f"pip install '{NAME}[{extra}]'")
    if find_spec("spacy") and not find_spec(SPACY_MODEL):
        command = f"python -m spacy download {SPACY_MODEL}"
        yield Missing("spaCy's English model", PURPOSES["compbench"], command)
    if not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        yield Missing("a C++ compiler", "`--compile`", "apt install g++ (or as your system has it)")
    if report.hub["answers"] is False:
        others = "models that are neither bundled, nor in a folder, nor in its cache"
        without = "export HF_HUB_OFFLINE=1 (to work without), or HF_ENDPOINT=… (a mirror)"
        yield Missing("the Hub", others, without)
    if not report.hub["token"]:
        yield Missing("a token of the Hub", "gated models, `push`", "hf auth login")


# ---- for people


def as_text(report: Report) -> str:
    """One fact a line; what is missing comes last."""
    torch, hub = report.torch, report.hub
    driver = f", driver {report.drivers[0]}" if report.drivers else ""
    gpus = [
        f"{gpu['name']}, {gpu['memory']:g} GB, capability {gpu['capability']}{driver}"
        for gpu in torch["gpus"]
    ]
    answers = {True: f"answers in {hub['seconds']} s", False: "does not answer", None: ""}
    heard = ", ".join(filter(None, (answers[hub["answers"]], hub["reason"])))
    lines = [
        ("lavi-bridge", report.lavi_bridge),
        ("Python", f"{report.python}, {report.platform}"),
        ("cores", f"{report.cores}, {torch.get('threads', 'no')} threads of torch"),
        ("memory", f"{report.memory['total']:g} GB, {report.memory['available']:g} available"),
        ("torch", torch.get("error") or f"built for {torch['built_for']}"),
        *(("GPU", gpu) for gpu in gpus or [f"none that torch sees{driver}"]),
        ("Hub", f"{hub['endpoint']}: {heard}; {'a' if hub['token'] else 'no'} token"),
        *(("set", f"{name}={value}") for name, value in report.environment.items()),
        *(("cache", _cache(each)) for each in report.caches),
        ("bundled", ", ".join(name for name, there in report.bundled.items() if there) or "none"),
    ]
    for extra in sorted({one.extra for one in report.packages.values()}):
        own = {n: p.version or "missing" for n, p in report.packages.items() if p.extra == extra}
        shown = ", ".join(f"{name} {version}" for name, version in own.items())
        lines.append((f"[{extra}]" if extra else "packages", shown))
    lines += [("not pinned", pin) for pin in report.not_pinned]
    width = max(len(head) for head, _ in lines)
    text = [f"{head:{width}}  {fact}" for head, fact in lines]
    if not report.missing:
        return "\n".join([*text, "", "Nothing is missing."])
    text += ["", "Missing, and what for:"]
    for one in report.missing:
        text += [f"  {one.what}: {one.needed_for}", f"      {one.command}"]
    return "\n".join(text)


def _cache(found: dict[str, Any]) -> str:
    least = "" if found["whole"] else "at least "
    size = f"{least}{found['size']:g} GB, {found['free']:g} GB free"
    return f"{found['folder']}, {size}: {found['what']}"


def without_home(value: Any) -> Any:
    """The same, with `~` for this user's home in every text."""
    home = str(Path.home())
    if isinstance(value, dict):
        return {key: without_home(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_home(each) for each in value]
    if isinstance(value, str) and len(Path(home).parts) > 1:
        return value.replace(home, "~")
    return value
