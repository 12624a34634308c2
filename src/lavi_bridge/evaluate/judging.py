"""Which metrics judge a suite, and what they say of one entry's images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lavi_bridge.data.sources.finding import walk
from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.drawing import SUFFIXES
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.evaluate.results import Judged, MetricInfo
from lavi_bridge.evaluate.scoring import (
    features_of,
    judge,
    others,
    read_features,
    scores_of,
    settle,
)
from lavi_bridge.evaluate.statistics import Estimate, student
from lavi_bridge.metrics import METRICS, Distance, Metric, Score, shapes
from lavi_bridge.metrics.compbench.quirks import COMPLEX
from lavi_bridge.metrics.compbench.three_in_one import kind_of, three_in_one
from lavi_bridge.metrics.distances import FeatureDistance
from lavi_bridge.metrics.jackknife import groups_of
from lavi_bridge.metrics.judge.asked import ByJudge
from lavi_bridge.metrics.judge.model import Judge, load_judge
from lavi_bridge.prompts.catalogue import SUITES, WORLD, Kind
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.suites import complex_lists
from lavi_bridge.running.device import own_device, processes, wait_for_all

DEFAULTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(WORLD, ("shapes",)),
    "short": ("clip-score", "aesthetic-v2"),
    "long": ("clip-score", "aesthetic-v2"),
    "t2i-compbench": ("blip-vqa", "spatial-owlv2", "clip-nonspatial"),
    "t2i-compbench-3d": ("spatial-3d",),
    "t2i-compbench-numeracy": ("numeracy-owlv2",),
    "geneval2": ("soft-tifa", "soft-tifa-gm"),
    "genai-bench": ("vqascore",),
}
"""Metrics of a suite where none are asked for; of all others, the CLIP score."""
QUESTIONED = {"soft-tifa", "soft-tifa-gm", "dpg-judge"}
"""Metrics that ask the questions of a prompt."""
WITH_JUDGE = {"dpg": ("dpg-judge",)}
"""What comes to these where there is a judge."""
WITH_QUESTIONS = ("geneval2", "dpg")
"""The known suites whose prompts come with questions."""
GROUPS: dict[str, tuple[str, ...]] = {
    "quality": ("fid", "kid", "fd-dinov2", "cmmd", "mind", "aesthetic-v2", "pickscore")
}
"""Metrics that `--metrics` takes under one name; `hpsv3` is asked for by its own, being large."""
CATEGORIES = {
    # of T2I-CompBench: what each of its metrics judges
    "blip-vqa": {"color", "shape", "texture", COMPLEX},
    "spatial-owlv2": {"spatial", COMPLEX},
    "clip-nonspatial": {"non-spatial", COMPLEX},
    "spatial-3d": {"3d-spatial"},
    "numeracy-owlv2": {"numeracy"},
}
PARTS = ("blip-vqa", "spatial-owlv2", "clip-nonspatial")
"""Which judge the complex prompts together."""
THREE = MetricInfo(
    "3-in-1-owlv2",
    "3-in-1 (with OWLv2)",
    True,
    {"scorer": "the mean of blip-vqa, spatial-owlv2 and clip-nonspatial, as far as they apply"},
)
"""The complex score with our spatial part: under another name than the official one."""


def chosen(suite: str, config: EvaluateConfig) -> list[str]:
    """The metrics of a suite by name."""
    name = suite.partition(":")[0]
    if config.metrics:
        asked = dict.fromkeys(m for given in config.metrics for m in GROUPS.get(given, (given,)))
        asking = name in SUITES and name not in WITH_QUESTIONS and _others_have_questions(config)
        return [
            m
            for m in asked
            if (m not in shapes.NAMES or name in WORLD) and not (asking and m in QUESTIONED)
        ]
    own = list(DEFAULTS.get(name, ("clip-score",)))
    own += WITH_JUDGE.get(name, ()) if config.judge else ()
    return own + (["fid", "kid"] if config.reference and name == "short" else [])


def _others_have_questions(config: EvaluateConfig) -> bool:
    """Whether a suite is asked for whose prompts may have questions, so that others need none."""
    names = [suite.partition(":")[0] for suite in config.suites]
    return any(name in WITH_QUESTIONS or name not in SUITES for name in names)


def load_judges(names: Iterable[str], config: EvaluateConfig) -> dict[str, Metric]:
    """The metrics by name, ready: what is missing is said before anything is drawn.

    Raises:
        BridgeError: a metric is unknown, its weights or the reference images are missing.
    """
    given: dict[str, dict[str, str]] = {}
    for text in config.scorers:
        key, told, place = text.partition("=")
        name, _, option = key.partition(".")
        if not told or name not in METRICS or option not in ("", *METRICS[name].files):
            known = ", ".join(n for m in METRICS for n in (m, *_with_files(m)))
            raise BridgeError(
                f"--scorers takes METRIC=PATH (or METRIC.head=PATH), not '{text}'; known: {known}"
            )
        main = "weights" if issubclass(METRICS[name], FeatureDistance) else "scorer"
        given.setdefault(name, {})[option or main] = place
    names = [*names]
    judge = _judge(names, config)
    judges = {}
    for name in names:
        kind, options = METRICS[name], dict[str, Any](given.get(name, {}))
        if issubclass(kind, Distance):
            if config.reference is None:
                raise BridgeError(f"{name} compares with real images: give --reference FOLDER")
            reference_images(config.reference)
        if issubclass(kind, FeatureDistance):
            options["resize"] = config.resize
        if kind.scorer:
            options["device"] = own_device(config.device)
        if issubclass(kind, ByJudge):
            if options:
                raise BridgeError(f"--scorers {name}: it has no weights, but asks --judge")
            options["judge"] = judge
        if name in CATEGORIES or issubclass(kind, ByJudge):
            options["mode"] = config.mode
        judges[name] = kind(**options)
    return judges


def _judge(names: Sequence[str], config: EvaluateConfig) -> Judge | None:
    """The judge, loaded once for all metrics that ask it."""
    if config.judge is None:
        return None
    if not any(issubclass(METRICS[name], ByJudge) for name in names):
        raise BridgeError(
            f"--judge {config.judge}: none of {', '.join(names) or 'no metrics'} asks it; "
            "vqascore asks about any prompts (--metrics vqascore)"
        )
    return load_judge(
        config.judge,
        dtype=config.judge_dtype,
        quantize=config.judge_quantize,
        device=own_device(config.device),
        trust_remote_code=config.trust_remote_code,
    )


def _with_files(name: str) -> list[str]:
    """As `aesthetic-v2.head`: what else than its weights a metric can be given."""
    return [f"{name}.{file}" for file in METRICS[name].files]


def judged(
    files: list[list[Path]],
    prompts: Sequence[Prompt],
    judges: dict[str, Metric],
    folder: Path,
    config: EvaluateConfig,
    notes: list[str],
    *,
    label: str,
) -> Judged:
    """Every metric over one entry's images of one suite; `notes` gets what a reader must know."""
    result = Judged(files)
    scores = {name: metric for name, metric in judges.items() if isinstance(metric, Score)}
    groups: dict[tuple[bool, ...], dict[str, Score]] = {}
    for name, metric in scores.items():
        groups.setdefault(tuple(applies(name, p) for p in prompts), {})[name] = metric
    for judged_here, metrics in groups.items():
        theirs = [paths if yes else [] for paths, yes in zip(files, judged_here, strict=True)]
        pairs = [(p, path) for p, paths in zip(prompts, theirs, strict=True) for path in paths]
        judge(metrics, pairs, folder / "scores", label=f"{', '.join(metrics)}: {label}")
        wait_for_all()
        for name, metric in metrics.items():
            if processes()[0] == 0:
                settle(name, metric, pairs, folder / "scores")
            wait_for_all()
            found, failures = scores_of(name, metric, prompts, theirs, folder / "scores")
            result.scores[name] = [
                row or [None] * len(paths) for row, paths in zip(found, files, strict=True)
            ]
            if failures:
                result.failures[name] = failures
            if isinstance(metric, ByJudge) and (there := others(name, metric, folder / "scores")):
                notes.append(
                    f"{label}: scores of another judge, mode or version lie there, too, and are in "
                    f"no column here: {', '.join(there)}"
                )
    distances = {name: metric for name, metric in judges.items() if isinstance(metric, Distance)}
    for name, distance in distances.items():
        one = _distance(name, distance, files, folder, config, notes, label)
        result.distances[name] = one.value
        if one.low is not None and one.high is not None:
            result.intervals[name] = one.low, one.high
    return result


def add_three_in_one(result: Judged, prompts: Sequence[Prompt], kinds: dict[str, Kind]) -> None:
    """Add the complex score, where all of its parts are there.

    Args:
        kinds: of complex prompts, by text; see `kinds_of`.
    """
    parts = [result.scores[name] for name in PARTS]
    rows: list[list[float | None]] = []
    for place, prompt in enumerate(prompts):
        images = zip(*(part[place] for part in parts), strict=True)
        kind = kinds.get(prompt.text) if prompt.category == COMPLEX else None
        rows.append([_three(kind, *three) for three in images])
    result.scores[THREE.name] = rows


def kinds_of(
    prompts: Sequence[Prompt], names: Sequence[str], config: EvaluateConfig
) -> dict[str, Kind] | None:
    """What the official lists say of complex prompts, where the complex score can be formed.

    Raises:
        BridgeError: a list cannot be had, or in mode `fixed` none names a prompt.
    """
    asked = [prompt.text for prompt in prompts if prompt.category == COMPLEX]
    if not asked or not set(PARTS) <= set(names):
        return None
    lists = complex_lists(config.prompts)
    return {text: kind_of(text, lists, mode=config.mode) for text in asked}


def _three(
    kind: Kind | None, attribute: float | None, spatial: float | None, action: float | None
) -> float | None:
    if kind is None or attribute is None or spatial is None or action is None:
        return None
    return three_in_one(attribute, spatial, action, kind)


def sizes_note(name: str, files: Sequence[Sequence[Path]]) -> str | None:
    """What is to be said where the images of a folder differ in size, or cannot be opened."""
    sizes: dict[tuple[int, int], list[Path]] = {}
    for path in (path for paths in files for path in paths):
        try:
            with Image.open(path) as picture:
                sizes.setdefault(picture.size, []).append(path)
        except OSError:
            continue  # the metrics name it
    if len(sizes) < 2:
        return None
    usual, *others = sorted(sizes, key=lambda size: -len(sizes[size]))
    count = sum(len(sizes[size]) for size in others)
    width, height = others[0]
    return (
        f"{name}: {count} images are not {usual[0]}×{usual[1]} as the others, such as "
        f"{sizes[others[0]][0].name} ({width}×{height})"
    )


def _distance(
    name: str,
    metric: Distance,
    files: list[list[Path]],
    folder: Path,
    config: EvaluateConfig,
    notes: list[str],
    label: str,
) -> Estimate:
    """How far one entry's images are from the reference, with Student's interval."""
    assert config.reference is not None
    theirs = reference_images(config.reference)
    ours = [path for paths in files for path in paths]
    features_of(metric, theirs, config.out / "reference", label=f"{name}: reference")
    features_of(metric, ours, folder / "features", label=f"{name}: {label}")
    wait_for_all()
    mine = read_features(metric, ours, folder / "features")
    real = read_features(metric, theirs, config.out / "reference")
    warning = metric.doubt(mine, real)
    if warning and warning not in notes:
        notes.append(warning)
    groups = groups_of([*map(len, files)])
    if groups is None:
        return Estimate(metric.distance(mine, real), None, None, len(files))
    value, error = metric.value_and_error(mine, real, groups)
    half = student(int(groups.max())) * error
    return Estimate(value, value - half, value + half, len(files))


def reference_images(folder: Path) -> list[Path]:
    """The images under a folder, linked folders included, in the order of their paths.

    Raises:
        BridgeError: there are fewer than two.
    """
    files = sorted(p for p in walk(folder) if p.suffix.lower() in SUFFIXES)
    if len(files) < 2:
        raise BridgeError(f"'{folder}' holds {len(files)} images to compare with")
    return files


def applies(metric: str, prompt: Prompt) -> bool:
    """Metrics of T2I-CompBench judge some of its categories; of other suites all prompts."""
    known = set().union(*CATEGORIES.values())
    return prompt.category not in known or prompt.category in CATEGORIES.get(metric, known)
