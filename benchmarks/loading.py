"""Memory while an image model is loaded: its peak over that of its weights.

    python benchmarks/loading.py            # makes 1 GB of random weights in a temporary folder

Each load is in a process of its own. What is counted is the peak of resident memory over what the
process had before: the weights, and whatever else was there at once; beside it, the peak of what is
the process's own (looked at every 2 ms). Other pages are of the files, mapped into memory, which
the system takes back when it needs them.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SHARD = "200MB"
CASES = {
    # name: precision on disk, precision in memory, bits
    "float32, as it is": ("float32", "float32", "none"),
    "float32 on disk, bfloat16 in memory": ("float32", "bfloat16", "none"),
    "bfloat16, as it is": ("bfloat16", "bfloat16", "none"),
    "bfloat16 on disk, NF4 in memory": ("bfloat16", "bfloat16", "nf4"),
    "float32 on disk, NF4 in memory": ("float32", "bfloat16", "nf4"),
}
LOAD = """
import json, sys, threading, time
import torch
from lavi_bridge.files.locate import locate
from lavi_bridge.visions import load_vision

folder, dtype, bits = sys.argv[1:]
load = dict(dtype=getattr(torch, dtype), quantize=bits)
load_vision(locate("zoo:tiny-sd"), **load)  # imports what loading imports


def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith(name + ":"))


open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before, own, most, done = status("VmRSS"), status("RssAnon"), 0.0, False


def look():
    global most
    while not done:
        most = max(most, status("RssAnon") - own)
        time.sleep(0.002)


watch = threading.Thread(target=look)
watch.start()
vision = load_vision(locate(folder), **load)
for weight in vision.parameters():
    weight.sum()  # what is mapped is read at its first use
done = True
watch.join()
held = sum(p.nbytes for p in vision.parameters()) / 1e9
print(json.dumps({"held": held, "peak": status("VmHWM") - before, "own": most}))
"""


def write(folder: Path, dtype: str) -> None:
    """Transformer blocks like FLUX's, and a U-Net like Stable Diffusion's, in shards."""
    import torch
    from diffusers import FluxTransformer2DModel, UNet2DConditionModel

    from lavi_bridge.testing import make_vision

    torch.manual_seed(0)
    precision = getattr(torch, dtype)
    for name, where, model in (
        (
            "flux-schnell",
            "transformer",
            lambda: FluxTransformer2DModel(
                in_channels=32,
                num_layers=2,
                num_single_layers=4,
                num_attention_heads=12,
                joint_attention_dim=1024,
                pooled_projection_dim=256,
            ),
        ),
        (
            "sd",
            "unet",
            lambda: UNet2DConditionModel(
                sample_size=64,
                block_out_channels=(192, 384, 768, 768),
                attention_head_dim=8,
                cross_attention_dim=768,
            ),
        ),
    ):
        place = make_vision(folder / name, name)
        for weights in (place / where).glob("*.safetensors"):
            weights.unlink()
        model().to(precision).save_pretrained(place / where, max_shard_size=SHARD)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in ("float32", "bfloat16"):
            write(Path(scratch, dtype), dtype)
        for model in ("flux-schnell", "sd"):
            for name, (stored, *wanted) in CASES.items():
                place = Path(scratch, stored, model)
                shards = len(list(place.glob("*/*-of-*.safetensors")))
                done = subprocess.run(
                    [sys.executable, "-c", LOAD, str(place), *wanted],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                found = json.loads(done.stdout)
                print(
                    f"{model:13} {shards:3} shards  {name:38} weights {found['held']:.2f} GB, "
                    f"peak {found['peak']:.2f} GB, {found['own']:.2f} the process's own",
                    flush=True,
                )
