"""Measures every image family and writes the tables of docs/models.md: `make models`.

Families are tried as tiny random models in their real classes; layers are counted at real size too,
from the configs of checkpoints or the classes' defaults, on the meta device.
`python -m tests.visions.page sdxl` measures one and writes nothing.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lavi_bridge import Bridge, testing
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import write_text
from tests import real
from tests.visions import checks

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
CHECKPOINTS = {
    "sd": "stable-diffusion-v1-5",
    "sd2-v": "stable-diffusion-2-1",
    "ldm": "CompVis/ldm-text2im-large-256",
    "pixart-alpha": "PixArt-alpha/PixArt-XL-2-512x512",
    "pixart-sigma": "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    "sana": "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0, RealVisXL, Juggernaut, segmind/SSD-1B",
    "kolors": "Kwai-Kolors/Kolors-diffusers",
    "sd3": "stabilityai/stable-diffusion-3.5-medium, -large, -3-medium-diffusers",
    "flux-dev": "black-forest-labs/FLUX.1-dev, -Krea-dev",
    "flux-schnell": "black-forest-labs/FLUX.1-schnell",
    "chroma": "lodestones/Chroma1-HD",
    "lumina2": "Alpha-VLLM/Lumina-Image-2.0",
    "qwen-image": "Qwen/Qwen-Image, -2512",
    "z-image": "Tongyi-MAI/Z-Image, -Turbo",
    "auraflow": "fal/AuraFlow-v0.3",
    "cogview4": "THUDM/CogView4-6B",
    "ovis": "AIDC-AI/Ovis-Image-7B",
    "wan": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers (one frame)",
    "prx": "Photoroom/prx-512-t2i-sft, prx-1024",
    "flux2": "black-forest-labs/FLUX.2-dev",
    "flux2-klein": "black-forest-labs/FLUX.2-klein-4B, -9B",
    "longcat": "meituan-longcat/LongCat-Image",
    "krea2": "krea/Krea-2",
    "hunyuan-dit": "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers",
    "hidream": "HiDream-ai/HiDream-I1-Full",
}
"""Ids on the Hub of some checkpoints that name the class."""
SAME = ("sd2-v", "pixart-alpha-1024", "sdxl-statistics", "bria-fixed")
"""Tiny models of a class that another row has."""
REAL = {
    "sdxl": "sdxl",
    "sd3": "sd3.5-medium",
    "flux-dev": "flux-dev",
    "qwen-image": "qwen-image",
    "z-image": "z-image",
}
"""Tiny models and the real ones in `tests.real`."""
DEFAULTS: dict[str, dict[str, object]] = {
    name: {"latent_channels": channels, "block_out_channels": [128, 256, 512, 512]}
    | {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    for name, channels in [
        ("chroma", 16),
        ("lumina2", 16),
        ("auraflow", 4),
        ("ovis", 16),
        ("prx", 16),
    ]
}
"""Tiny models of classes whose defaults are a published checkpoint's; the autoencoder's config."""
READS = ("tokens", "padding", "steps", "guidance", "LoRA layers", "at real size", "checkpoints")
DRAWS = (
    "square",
    "2:1",
    "samplers",
    "loud",
    "prompt moves",
    "batch",
    "bfloat16",
    "saved",
    "moments",
    "without gradient",
)


def reads(name: str, root: Path, *, real_size: bool = True) -> list[str]:
    """What a family reads and how it draws where nobody says how, by READS."""
    bridge = Bridge.connect(language(root), model(name, root), rank=4, device="cpu")
    vision = bridge.vision
    most = vision.max_tokens
    limit = f", {most} at most" if most is not None else ""
    return [
        f"{vision.tokens}{limit}",
        {"read": "no mask"}.get(vision.padding, vision.padding),
        str(vision.default_steps),
        f"{vision.default_guidance:g}",
        str(checks.lora_layers(bridge)),
        str((real_layers(name, root) if real_size else None) or "–"),
        CHECKPOINTS.get(name, ""),
    ]


def draws(name: str, root: Path) -> list[str]:
    """What its tiny model was seen to do, by DRAWS: grey levels of 255, most of them."""
    bridge = connected(name, root)
    dead = checks.dead_layers(bridge)  # after the step that makes LoRA's up matrices other than 0
    three = checks.samplers(bridge)
    found = [
        compared(bridge),
        compared(bridge, wide=True),
        ", ".join(f"{n} {compared(bridge, n)}" for n in three[1:]),
    ]
    moments, batch = checks.off_moments(bridge), checks.off_alone(bridge)
    saved = checks.off_saved(bridge, root / f"{name}-saved")
    checks.make_loud(bridge)
    loud, moved = compared(bridge), checks.moved_by_prompt(bridge)
    half = Bridge.connect(language(root), model(name, root), rank=4, dtype="bfloat16", device="cpu")
    return [
        *found,
        loud,
        str(moved),
        str(batch),
        "yes" if checks.half_step(half) else "no",
        "another id" if saved is None else str(saved),
        f"{moments:.0e}" if moments else "0",
        str(len(dead)),
    ]


def compared(bridge: Bridge, scheduler: str | None = None, *, wide: bool = False) -> str:
    """Grey levels to diffusers' own pipeline; or that it cannot be compared."""
    try:
        return str(checks.off_pipeline(bridge, scheduler, wide=wide))
    except (
        BridgeError,
        ValueError,
        TypeError,
        RuntimeError,
        AssertionError,
    ):  # of a scheduler, in most cases
        return "refused"


def language(root: Path) -> Path:
    if not (root / "t5").exists():
        testing.make_language(root / "t5", "t5")
    return root / "t5"


def model(name: str, root: Path) -> Path:
    if not (root / name).exists():
        testing.make_vision(root / name, name)
    return root / name


def connected(name: str, root: Path) -> Bridge:
    bridge = Bridge.connect(language(root), model(name, root), rank=4, device="cpu")
    checks.train_a_little(bridge)
    return bridge


def real_layers(name: str, root: Path) -> int | None:
    """Layers with LoRA in a checkpoint's real size; None where its config is not at hand."""
    folder = root / f"{name}-real"
    if name in REAL:
        real.today(folder, REAL[name])
    elif name == "sd":
        real.stable_diffusion(folder)
    elif name == "pixart-alpha":
        real.pixart(folder)
    elif name in DEFAULTS:
        pipeline, parts, (scheduler, noise) = testing.VISIONS[name]
        backbone, settings = parts["transformer"]
        told = {key: value for key, value in settings.items() if key == "guidance_embeds"}
        real.write(folder / "model_index.json", {"_class_name": pipeline})
        real.write(folder / "transformer" / "config.json", {"_class_name": backbone} | told)
        vae, settings = parts["vae"]  # only its shape counts here
        real.write(folder / "vae" / "config.json", {"_class_name": vae} | DEFAULTS[name])
        real.write(
            folder / "scheduler" / "scheduler_config.json", {"_class_name": scheduler} | noise
        )
    else:
        return None
    return checks.lora_layers(Bridge.outline(language(root), folder))


def table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table in Markdown, a row a tiny model, under the name of its pipeline."""
    lines = ["| pipeline | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name, cells in rows.items():
        pipeline = testing.VISIONS[name][0].removesuffix("Pipeline")
        alone = sum(testing.VISIONS[other][0] == testing.VISIONS[name][0] for other in rows) == 1
        title = pipeline if alone else f"{pipeline} ({name})"
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def marked(page: str, name: str) -> tuple[int, int]:
    """Where the content between a page's markers of that name begins and ends."""
    start, stop = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    return page.index(start) + len(start), page.index(stop)


def replaced(page: str, name: str, content: str) -> str:
    start, stop = marked(page, name)
    return page[:start] + content + page[stop:]


def main() -> None:
    known = [name for name in testing.VISIONS if name not in SAME]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="MODEL", help=f"of {', '.join(known)}")
    wanted = parser.parse_args().names
    facts, seen = {}, {}
    with TemporaryDirectory() as root:
        for name in wanted or known:
            facts[name], seen[name] = reads(name, Path(root)), draws(name, Path(root))
            print(name, *facts[name], *seen[name], sep=" | ", flush=True)
    if wanted:
        return
    page = PAGE.read_text(encoding="utf-8")
    page = replaced(page, "reads", table(READS, facts))
    write_text(PAGE, replaced(page, "draws", table(DRAWS, seen)))


if __name__ == "__main__":
    main()
