"""`page`: bridges side by side in a browser, and runs as they go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro
from annotated_types import Ge, Gt, Le
from tyro.conf import Positional

from lavi_bridge.config import Count, Dtype, Settings


@dataclass
class Page(Settings):
    """Show bridges side by side in a browser: one prompt, one seed, pictures step by step; and runs
    with their curves and samples as they grow.

    Each card has the picture as it appears, the prompt's tokens as each text encoder reads them,
    and for bridges of the shapes world the exact score. A word can be changed, a file of prompts
    drawn, and every drawing gone back to; a PNG is the one that `generate` writes, and can be asked
    which words moved it. Needs the extra `page`: pip install 'lavi-bridge[page]'.

      lavi-bridge page                                    the demo's bridges, or the bundled ones
      lavi-bridge page zoo:tiny-sd Llama=runs/demo/llama  an image model alone beside a bridge
      lavi-bridge page runs/                              the runs in a folder, as they train
      lavi-bridge page runs/t5 --port 8000 --memory 20    of your own, with 20 GB of weights loaded

    Whoever reaches the port can draw, but nothing else: it is this machine's own unless --host says
    otherwise. The page loads nothing from elsewhere.
    """

    bridges: Positional[list[str]] = field(default_factory=list)
    """Up to four: PLACE or NAME=PLACE, each the folder of a bridge or of its run, a Hub id, or an
    image model; and folders with runs inside, of which nothing is read but what lies in them
    (unset: zoo:tiny-sd, what `make demo` has left in runs/demo, and the bundled bridge to MiniLM
    where that is installed)."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everybody in who can reach this machine."""
    port: Annotated[int, Ge(0), Le(65535)] = 7860
    """Port to listen on; 0 takes a free one."""
    memory: Annotated[float, Gt(0)] = 8.0
    """GB of weights that stay loaded; the least recently used go beyond."""
    previews: Annotated[int, Ge(0), Le(8)] = 8
    """Pictures shown on the way to one; 0 is fastest."""
    waiting: Count = 16
    """Drawings that may wait for their turn; more are refused."""
    dtype: Dtype | None = None
    """Precision of the models (unset: bfloat16 on a GPU, float32 on a CPU)."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""


def page(args: list[str]) -> None:
    """Show bridges side by side in a browser."""
    options = tyro.cli(Page, args=args, prog="lavi-bridge page")
    from lavi_bridge.page.models import known_of, sorted_out
    from lavi_bridge.page.serve import serve
    from lavi_bridge.page.studio import Studio
    from lavi_bridge.train.finding import Runs

    bridges, folders = sorted_out(options.bridges)
    studio = Studio(
        [] if folders and not bridges else known_of(bridges),
        memory=int(options.memory * 1e9),
        previews=options.previews,
        dtype=options.dtype,
        device=options.device,
    )
    runs = Runs(folders) if folders else None
    serve(studio, host=options.host, port=options.port, waiting=options.waiting, runs=runs)
