"""Draws with exported folders as a stranger would: run as a script where this package is not.

    python alone.py jobs.json

prints, for every job of the file, by how many grey levels its pictures differ from those expected.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch


def load(folder: str, servers: bool) -> Any:
    """The pipeline of an exported folder, in float32."""
    from diffusers import DiffusionPipeline

    custom = {"custom_pipeline": folder} if servers else {}
    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, **custom)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, prompts: list[str], seed: int, options: dict[str, Any]) -> np.ndarray:
    """Pictures (prompts, height, width, 3), 0 to 255; the i-th from seed + i."""
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    drawn = pipe(prompt=prompts, generator=generators, **options)
    return np.stack([np.asarray(image, int) for image in drawn.images])


def main() -> None:
    sys.modules["lavi_bridge"] = None  # type: ignore[assignment]  # importing it is an error
    for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
        job = json.loads(line)
        pipe = load(job["folder"], job["servers"])
        assert pipe.components  # diffusers' own check of them
        found = draw(pipe, job["prompts"], job["seed"], job["options"])
        off = int(np.abs(found - np.array(job["expected"])).max())
        print(json.dumps({"name": job["name"], "off": off}), flush=True)


if __name__ == "__main__":
    main()
