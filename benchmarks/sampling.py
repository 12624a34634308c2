"""Our sampling loop against diffusers' own pipeline on the same modules, in one run.

Interleaved A/B, medians of five; LoRA fused on our side, as `generate` does, and in its own layers
in the pipeline, as `to_diffusers` hands it over.
"""

import statistics
import time
from collections.abc import Callable

import torch

from lavi_bridge import Bridge

PROMPTS = ["a red circle left of a blue square"] * 16
SETTINGS = {"num_inference_steps": 20, "guidance_scale": 4.0}


def main() -> None:
    bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", rank=16)
    pipe = bridge.to_diffusers("dpm++")
    pipe.set_progress_bar_config(disable=True)

    def ours() -> None:
        bridge.generate(PROMPTS, steps=20, guidance=4.0, scheduler="dpm++", batch_size=16)

    def theirs() -> None:
        generators = [torch.Generator().manual_seed(i) for i in range(len(PROMPTS))]
        pipe(**bridge.prompt_embeds(PROMPTS), generator=generators, **SETTINGS)

    times: dict[str, list[float]] = {"ours": [], "diffusers' pipeline": []}
    for _ in range(6):
        for name, run in zip(times, (ours, theirs), strict=True):
            times[name].append(timed(run))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:22} {len(PROMPTS) / value:6.2f} images/s")
    mine, stock = medians.values()
    print(f"ours is {stock / mine:.2f} times as fast")


def timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
