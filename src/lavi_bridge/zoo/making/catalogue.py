"""The bundled models and their schedules, as data."""

from __future__ import annotations

from lavi_bridge.zoo.making.fitting import Schedule
from lavi_bridge.zoo.making.image_models import (
    begin_image,
    begin_vae,
    go_on,
    save_image,
    save_states,
    save_vae,
    start_ldm,
    start_pixart,
    start_sd,
)
from lavi_bridge.zoo.making.language_models import clip, language_model, llama, t5
from lavi_bridge.zoo.making.stages import Bundled, Stage

ABOUT = {
    "tiny-sd": "Stable Diffusion: U-Net of 4.1 M, CLIP text encoder; on rendered scenes",
    "tiny-ldm": "Latent Diffusion: tiny-sd's U-Net cut to 3.2 M, LDMBert text encoder; "
    "taught by tiny-sd",
    "tiny-pixart": "PixArt-α: transformer of 6 layers of 160, T5 text encoder; taught by tiny-sd",
}
MODELS: dict[str, Bundled] = {
    "tiny-clip": language_model(
        "tiny-clip",
        "CLIP text tower, 2 layers of 64, byte-level BPE; next token",
        clip,
        Schedule(steps=1500, batch=128, lr=3e-3),
    ),
    "tiny-t5-small": language_model(
        "tiny-t5-small",
        "T5 encoder, 2 layers of 48, unigram pieces; span corruption",
        t5(48, 2, 3, 128),
        Schedule(steps=2000, batch=64, lr=3e-3),
    ),
    "tiny-t5-base": language_model(
        "tiny-t5-base",
        "T5 encoder, 3 layers of 64, unigram pieces; span corruption",
        t5(64, 3, 4, 170),
        Schedule(steps=2000, batch=64, lr=3e-3),
    ),
    "tiny-t5-large": language_model(
        "tiny-t5-large",
        "T5 encoder, 4 layers of 128, unigram pieces; span corruption",
        t5(128, 4, 4, 256),
        Schedule(steps=8000, batch=64, lr=1e-3),
    ),
    "tiny-llama": language_model(
        "tiny-llama",
        "Llama, 4 layers of 128, BPE with byte fallback; next token",
        llama,
        Schedule(steps=8000, batch=64, lr=1e-3),
    ),
    "tiny-sd": Bundled(
        ABOUT["tiny-sd"],
        (
            Stage("vae", Schedule(steps=1000, batch=256, lr=2e-3), begin_vae, save_vae),
            Stage(
                "unet",
                Schedule(steps=6200, batch=512, lr=1.2e-3, ema=0.998),
                begin_image("tiny-sd", start_sd),
                save_image("tiny-sd", ABOUT["tiny-sd"]),
            ),
            Stage(
                "textures",
                Schedule(steps=2400, batch=64, lr=3e-4, ema=0.998),
                begin_image(
                    "tiny-sd", go_on("tiny-sd"), folder="further", full_captions=0.5, textured=True
                ),
                save_image("tiny-sd", ABOUT["tiny-sd"]),
            ),
        ),
    ),
    "tiny-ldm": Bundled(
        ABOUT["tiny-ldm"],
        (
            Stage(
                "states",
                Schedule(steps=400, batch=64, lr=3e-3, warmup=40),
                begin_image("tiny-ldm", start_ldm, teacher="tiny-sd", states=True),
                save_states("tiny-ldm"),
            ),
            Stage(
                "unet",
                Schedule(steps=2000, batch=64, lr=8e-4, ema=0.995),
                begin_image("tiny-ldm", start_ldm, teacher="tiny-sd"),
                save_image("tiny-ldm", ABOUT["tiny-ldm"]),
            ),
        ),
        needs=("tiny-sd",),
    ),
    "tiny-pixart": Bundled(
        ABOUT["tiny-pixart"],
        (
            Stage(
                "states",
                Schedule(steps=400, batch=64, lr=3e-3),
                begin_image("tiny-pixart", start_pixart, teacher="tiny-sd", states=True),
                save_states("tiny-pixart"),
            ),
            Stage(
                "transformer",
                Schedule(steps=6000, batch=128, lr=2e-3, ema=0.998, optimizer="muon"),
                begin_image("tiny-pixart", start_pixart, teacher="tiny-sd"),
                save_image("tiny-pixart", ABOUT["tiny-pixart"]),
            ),
        ),
        needs=("tiny-sd",),
    ),
}
