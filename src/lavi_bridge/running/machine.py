"""What this machine has, and what is installed on it: the facts of `lavi-bridge doctor`.

Nothing is loaded but torch, which alone knows the GPUs. Sizes are in GB of 10⁹ bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from lavi_bridge.errors import in_a_line
from lavi_bridge.files.fetch import cache
from lavi_bridge.files.locate import BRIDGES, ZOO

NAME = "lavi-bridge"
BUILDS = "https://pytorch.org/get-started/locally"
TORCH = (
    f"{BUILDS} has the command for this machine (for one without a GPU take the build for CPUs, or "
    "gigabytes of GPU libraries come with it)"
)
"""How to come by torch."""
FOR_DEVELOPERS = ("dev", "docs")
"""Extras that nobody misses who uses the package."""
PINS = Path(__file__).parents[3] / "constraints.txt"
"""The versions that are tested together, where the package runs from a checkout."""
CGROUP = Path("/sys/fs/cgroup/memory.max")
HUB_SECONDS = 1.5
"""How long the Hub has for an answer, name look-up included."""
WALK_SECONDS = 0.5
"""How long the size of a cache is summed up; of a larger one it is a lower bound."""
GB = 1e9


@dataclass
class Package:
    """A package that ours asks for."""

    version: str | None
    """None: it is not installed."""
    needs: str
    """The versions asked for, as `<3,>=2.6`."""
    fits: bool
    extra: str = ""
    """The extra that asks for it; empty for what is always needed."""


def packages() -> dict[str, Package]:
    """What the package's own metadata asks for; nothing where it runs from its bare sources."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(line) for line in requires(NAME) or ()]
    except PackageNotFoundError:
        return {}
    found: dict[str, Package] = {}
    for each in asked:
        named = re.search(r"""extra == ['"]([\w-]+)['"]""", str(each.marker or ""))
        extra = named[1] if named else ""
        if each.name in found or extra in FOR_DEVELOPERS:
            continue
        if each.marker and not each.marker.evaluate({"extra": extra}):
            continue  # another system's, or another Python's
        here = _version(each.name)
        fits = here is not None and each.specifier.contains(here, prereleases=True)
        found[each.name] = Package(here, str(each.specifier), fits, extra)
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def not_pinned(packages: dict[str, Package]) -> list[str]:
    """Where versions differ from those that are tested together, which only a checkout knows."""
    if not PINS.is_file():
        return []
    pinned = re.findall(r"^([\w.-]+)==(\S+)$", PINS.read_text(encoding="utf-8"), re.MULTILINE)
    pins = {_plain(name): pin for name, pin in pinned}
    return [
        f"{name} {one.version}, tested with {pin}"
        for name, one in packages.items()
        if one.version and (pin := pins.get(_plain(name)))
        if one.version.partition("+")[0] != pin  # 2.13.0+cpu is 2.13.0
    ]


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> dict[str, float]:
    """Memory in all and available: the machine's, or the container's where that is less."""
    import psutil

    found = psutil.virtual_memory()
    told = CGROUP.read_text(encoding="utf-8").strip() if CGROUP.is_file() else ""
    total = min(found.total, int(told)) if told.isdigit() else found.total
    available = min(total, found.available)
    return {"total": round(total / GB, 1), "available": round(available / GB, 1)}


def torch_and_gpus() -> dict[str, Any]:
    """What torch is `built_for` (CPU, CUDA 12.6, ROCm 6.4), its `threads`, the `gpus` that it sees;
    or the `error` with which it cannot be imported."""
    try:
        import torch
    except (ImportError, OSError, RuntimeError) as error:
        return {"error": in_a_line(error), "gpus": []}
    built = "CPU"
    if torch.version.cuda:
        built = f"CUDA {torch.version.cuda}"
    elif torch.version.hip:
        built = f"ROCm {torch.version.hip}"
    gpus = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        gpu = torch.cuda.get_device_properties(number)
        size, capability = round(gpu.total_memory / GB, 1), f"{gpu.major}.{gpu.minor}"
        gpus.append({"name": gpu.name, "memory": size, "capability": capability})
    return {"built_for": built, "threads": torch.get_num_threads(), "gpus": gpus}


def drivers() -> list[str]:
    """Versions of NVIDIA's driver, one for each GPU, whatever torch is built for."""
    if not (tool := shutil.which("nvidia-smi")):
        return []
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=2)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [] if done.returncode else done.stdout.split()


def hub() -> dict[str, Any]:
    """Whether the Hub `answers` (None: not asked), as the Hub's own library asks it: through the
    same proxies. Of the token it is only said whether there is one."""
    from huggingface_hub import constants, get_token, is_offline_mode

    place = urlsplit(constants.ENDPOINT)
    shown = place._replace(netloc=place.netloc.rpartition("@")[2]).geturl()  # without a password
    found = {"endpoint": shown, "answers": None, "seconds": None, "token": bool(get_token())}
    if is_offline_mode():
        return found | {"reason": "not asked: HF_HUB_OFFLINE is set"}
    asked: Future[int] = Future()
    start = time.monotonic()
    # not waited for in the end: without a network a name look-up takes its time, whatever is asked
    url = f"{constants.ENDPOINT}/api/models?limit=1"
    Thread(target=_ask, args=(url, asked), daemon=True).start()
    try:
        status = asked.result(HUB_SECONDS)
    except TimeoutError:
        return found | {"answers": False, "reason": f"no answer within {HUB_SECONDS:g} s"}
    except Exception as error:  # a transport's own, of which there are dozens
        reason = in_a_line(error).replace(constants.ENDPOINT, shown)
        return found | {"answers": False, "reason": reason}
    reason = f"status {status}" if status >= 400 else ""
    seconds = round(time.monotonic() - start, 2)
    return found | {"answers": status < 500, "seconds": seconds, "reason": reason}


def _ask(url: str, asked: Future[int]) -> None:
    from huggingface_hub.utils import get_session

    try:
        asked.set_result(get_session().get(url, timeout=HUB_SECONDS).status_code)
    except Exception as error:  # whoever waits gets it
        asked.set_exception(error)


def caches() -> list[dict[str, Any]]:
    """The folders that downloads go to: their `size`, and what is `free` on their disk."""
    from huggingface_hub.constants import HF_HUB_CACHE

    places = {
        "models of the Hub (HF_HUB_CACHE)": Path(HF_HUB_CACHE),
        "prompts and weights of metrics (LAVI_BRIDGE_CACHE)": cache(),
    }
    return [{"what": what, **_size(folder)} for what, folder in places.items()]


def _size(folder: Path) -> dict[str, Any]:
    """The size of a folder, whose links lead to files within; `whole` if all of it was seen."""
    total, whole, deadline = 0, True, time.monotonic() + WALK_SECONDS
    for root, _, files in os.walk(folder):
        for path in (Path(root, name) for name in files):
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
        if time.monotonic() > deadline:
            whole = False
            break
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = round(shutil.disk_usage(there).free / GB, 1)
    return {"folder": str(folder), "size": round(total / GB, 2), "whole": whole, "free": free}


def bundled() -> dict[str, bool]:
    """Of every model and bridge that ships with the package, whether its weights are here."""
    folders = [path for root in (ZOO, BRIDGES) if root.is_dir() for path in sorted(root.iterdir())]
    return {path.name: any(path.rglob("*.safetensors")) for path in folders if path.is_dir()}
