"""What does the demo's best bridge weigh and take to load as plain diffusers loads it?

    python benchmarks/exports.py [--picture docs/export.png]

Exports `zoo:minilm-tiny-sd` in form merged; loads it and the bridge itself in fresh processes in
turns, medians of five; draws the same prompts from the same seeds with both and compares them. The
picture shows both: the bridge above, the export below.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from lavi_bridge import Bridge
from lavi_bridge.export import export_bridge
from lavi_bridge.show.pictures import grid

BRIDGE, ROUNDS, STEPS, GUIDANCE = "zoo:minilm-tiny-sd", 5, 20, 4.0
PROMPTS = (
    "the boss asked for an aqua disc with a gold hoop",
    "please draw me a crimson box sitting to the left of a navy triangle",
    "an emerald ring, and nothing else",
    "could you put a violet star over a black square?",
)
LOAD = {
    "bridge": "import time; from lavi_bridge import Bridge; t = time.perf_counter(); "
    "Bridge.load({place!r}, device='cpu'); print(time.perf_counter() - t)",
    "export": "import time; from diffusers import DiffusionPipeline as D; t = time.perf_counter(); "
    "D.from_pretrained({place!r}, custom_pipeline={place!r}, trust_remote_code=True); "
    "print(time.perf_counter() - t)",
}
DRAW = """
import json, sys, torch
from diffusers import DiffusionPipeline
place, out, prompts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
pipe = DiffusionPipeline.from_pretrained(place, custom_pipeline=place, trust_remote_code=True)
pipe.set_progress_bar_config(disable=True)
seeds = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
drawn = pipe(prompts, num_inference_steps=%d, guidance_scale=%f, generator=seeds).images
for place, image in enumerate(drawn):
    image.save(f"{out}/{place}.png")
"""


def seconds(which: str, place: str) -> float:
    """Seconds that loading takes in a fresh process, its imports aside."""
    code = [sys.executable, "-W", "ignore", "-c", LOAD[which].format(place=place)]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--picture", type=Path, help="where to save the picture")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "export")
        bridge = Bridge.load(BRIDGE, device="cpu")
        done = export_bridge(bridge, folder, form="merged")
        sizes = {
            part.name: sum(p.stat().st_size for p in part.rglob("*") if p.is_file()) / 1e6
            for part in sorted(folder.iterdir())
            if part.is_dir()
        }
        print(f"{done.bytes / 1e6:.1f} MB:", ", ".join(f"{k} {v:.1f}" for k, v in sizes.items()))
        times: dict[str, list[float]] = {"bridge": [], "export": []}
        for _ in range(ROUNDS):
            times["bridge"].append(seconds("bridge", BRIDGE))
            times["export"].append(seconds("export", str(folder)))
        of = {which: statistics.median(found) for which, found in times.items()}
        print(f"loads in {of['export']:.2f} s, the bridge itself in {of['bridge']:.2f} s")
        ours = bridge.generate(PROMPTS, seed=0, steps=STEPS, guidance=GUIDANCE)
        code = [sys.executable, "-W", "ignore", "-c", DRAW % (STEPS, GUIDANCE)]
        told = [str(folder), scratch, json.dumps(PROMPTS)]
        subprocess.run([*code, *told], check=True, capture_output=True)
        theirs: list[Image.Image] = [
            Image.open(Path(scratch, f"{i}.png")).convert("RGB") for i in range(len(PROMPTS))
        ]
        pairs = zip(ours, theirs, strict=True)
        off = max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)
        print(f"{len(PROMPTS)} pictures: {off} grey levels apart at most")
        if given.picture:
            labels = ["Bridge.generate", "the exported folder in plain diffusers"]
            grid([ours, theirs], columns=PROMPTS, labels=labels).save(given.picture)


if __name__ == "__main__":
    main()
