"""The suites that this package knows, as data.

Public files are pinned by commit and sha256, and what is read of them by a hash of the prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from lavi_bridge.prompts.questions import geneval2
from lavi_bridge.prompts.readers import Line, genai, jsonl, pairs, texts, tsv, txt
from lavi_bridge.prompts.suite import File, Origin, Part, Suite

DALLE3 = Origin("openai/dalle3-eval-samples", "d7c88c07b492ad7b9fd3003126d00719a2edabb1", "MIT")

Kind = Literal["spatial", "action", "spatialaction"]
"""Which relations a complex prompt of T2I-CompBench has; also the ends of its lists' names."""


def _shapes() -> Iterator[Line]:
    """The shapes world's own; facts say where `world.evaluation_set` has those of a prompt."""
    from lavi_bridge.shapes.suites import plain_suite

    for index, prompt in enumerate(plain_suite()):
        yield Line(f"shapes:{index}", prompt.text, prompt.category, facts=_place(index))


def _free(kind: str) -> Iterator[Line]:
    """The world's prompts in free form, with the plain ones; of those by hand these are facts."""
    from lavi_bridge.shapes import suites

    for number, prompt in enumerate(getattr(suites, kind)()):
        plain, index = prompt.plain, prompt.index
        facts: dict[str, object] = {"plain": plain} if index is None else _place(index)
        where = f"shapes-{kind}:{number}"
        yield Line(where, prompt.text, prompt.category, short=plain, facts=facts)


def _place(index: int) -> dict[str, object]:
    """Where `world.evaluation_set` has the facts of a prompt."""
    from lavi_bridge.shapes.suites import PER_CATEGORY, SEED

    return {"per_category": PER_CATEGORY, "seed": SEED, "index": index}


COMPBENCH = Origin("Karine-Huang/T2I-CompBench", "1b7094991a57f3c22abdd4f6e8ba6c1a15517073", "MIT")
ELLA = Origin("TencentQQGYLab/ELLA", "3c228f1dc6c4d3cad0a47493816151a419f14db3", "Apache-2.0")
GENEVAL2 = Origin(
    "facebookresearch/GenEval2", "a6e82d2289e8d418f27f0adee77908b07060eea3", "CC-BY-NC-4.0"
)
GENAI = Origin("linzhiqiu/t2v_metrics", "60ce07b144b9bff24b8dac5317cb28586b1b2509", "Apache-2.0")
GENEVAL = Origin("djghosh13/geneval", "af4902f24d3ca90ebbb446dd9891a59e0f82725f", "MIT")
PARTI = Origin("google-research/parti", "5a657978134374ce28973948331b319adef164bd", "Apache-2.0")
VBENCH = Origin("Vchitect/VBench", "45e79ec14e69a2187202c675d2dbce1a71843d53", "Apache-2.0")


_COCO = File(
    DALLE3,
    "prompts/8k_coco.txt",
    "adb3104d68aae027be0da1d078f9ea7eca83f07d098aaa39a400dc6474640c8a",
    "dalle3_eval/8k_coco.txt",
)
_DRAWBENCH = File(
    DALLE3,
    "prompts/drawbench.txt",
    "3d4f4b2db7520208ee056d470202c07fd77766b96d133ea9f4ab00a323381e9a",
    "dalle3_eval/drawbench.txt",
)
_UPSAMPLED = File(
    DALLE3,
    "prompts/drawbench_upsampled.txt",
    "8405d5e1318c8bc9f5bc8c3e41fdfaab5587170a9f4fa6d8c3e2f2d0ba8ed18e",
    "dalle3_eval/drawbench_upsampled.txt",
)
_VBENCH_SHORT = File(
    VBENCH,
    "prompts/all_dimension.txt",
    "f9b50654f81ab732b9235d5bb91f0c3a4d152fac19249ce3a3a9185b2d80d8c3",
    "vbench/short.txt",
)
_VBENCH_LONG = File(
    VBENCH,
    "prompts/augmented_prompts/gpt_enhanced_prompts/all_dimension_longer.txt",
    "58ed0665de52c1bdb4820af01327f5cc1138bedbeedcc63902751056f6bf5768",
    "vbench/long.txt",
)
_GENEVAL = File(
    GENEVAL,
    "prompts/evaluation_metadata.jsonl",
    "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
    "geneval/evaluation_metadata.jsonl",
)
_GENEVAL2 = File(
    GENEVAL2,
    "geneval2_data.jsonl",
    "09233adbc9f877fba205f1a20efa4a8640e7e62a91dfd55893562bed8a928e43",
    "geneval2/geneval2_data.jsonl",
    "823f48414446157fe252f92e3c60c803c33c303c",
)
_GENAI = File(
    GENAI,
    "genai_image.json",
    "a5974a5e67f530985a12f2d5cda490f3cb1e47064a56c54817d57102a964e9ff",
    "genai_bench/genai_image.json",
)
_PARTI = File(
    PARTI,
    "PartiPrompts.tsv",
    "fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb",
    "parti/PartiPrompts.tsv",
)
_DPG = File(ELLA, "", None, "dpg_bench/prompts")
DPG_QUESTIONS = File(
    ELLA,
    "dpg_bench/dpg_bench.csv",
    None,  # git's own id pins it, which the repository's tree names
    blob="98457fc9901943f51ff9a30367250fc292533bed",
)
_COMPBENCH = {  # category: hash of its prompts, sha256 of its file
    "color": (
        "a46e9322551b29e8",
        "1634259756dbc77d13093d907d414480080ec9790a8c97ad09efaea7b2534f2d",
    ),
    "shape": (
        "2e60f0c992a2a473",
        "37e1a276906c7ea9516cbd7ac8501be896006c0c17ca7344f260562834455bae",
    ),
    "texture": (
        "cc0e96aa898677d6",
        "fbb5363515b4a28009e360afaaaf389d2dd2289e50dbb0c6ef4ea0c7fe4f3d4f",
    ),
    "spatial": (
        "11de96bcc1962406",
        "8707a1d7e42ce3002d95363cf55f74bd043c843ae27108f5125aaaa7840ca988",
    ),
    "non-spatial": (
        "5e3885f9782cc26e",
        "04c56cc9ac441dc9ea6c5157652058bd1635b5308526dd31bb29a1caab9a758d",
    ),
    "complex": (
        "77b3a01bbe0f2f79",
        "1b808018b8d9916db3d47d5aa2ef18377a3549a56901a474156f799824cdf3b4",
    ),
    "3d-spatial": (
        "ee315c542a14cc86",
        "c9953597315f36a5fcb41291bb19bdc6ab5f64a0fa760d691b4854a73f5d1fe9",
    ),
    "numeracy": (
        "7ddae57b6a897fa4",
        "dad8df141604b70ba7554bec724e3db0a80023680769b5c514854ea2d2527bbe",
    ),
}
COMPLEX_LISTS: dict[Kind, str] = {
    "spatial": "6c7ac0ab75c7c9080cfc7b421fb059b9b0febb98471707aeedf58771088abc02",
    "action": "d49ee4c7f99e3f3379fb8704a54ff5288b83bb412971edf616a4721c2473308e",
    "spatialaction": "e02ddc7fed812e6577e7386ec2137ce0a994a5ce19771661f68df7ac349a6ca9",
}


def compbench_file(name: str, pinned: str) -> File:
    return File(COMPBENCH, f"examples/dataset/{name}", pinned, f"t2i_compbench/{name}")


def _compbench(*categories: str) -> tuple[Part, ...]:
    parts = []
    for category in categories:
        content, pinned = _COMPBENCH[category]
        name = f"{category.replace('-', '_')}_val.txt"
        file = compbench_file(name, pinned)
        parts.append(Part(300, content, (file,), partial(txt, category=category), (category,)))
    return tuple(parts)


_PLAIN = ("color", "shape", "texture", "spatial", "count", "complex")


def _world(
    name: str,
    title: str,
    count: int,
    rows: Callable[[], Iterator[Line]],
    categories: tuple[str, ...],
    protocol: str = "drawn here: the world that the bundled models know",
) -> Suite:
    return Suite(name, title, (Part(count, "", (), rows, categories),), protocol=protocol)


_SUITES = (
    Suite(
        "short",
        "COCO captions",
        (Part(8192, "6c69c424c5530a8e", (_COCO,), txt),),
        protocol="captions of COCO 2014, of which the paper took a subset",
    ),
    Suite(
        "long",
        "Expanded prompts",
        (
            Part(
                1133,
                "0d1a6d8d961f464e",
                (_VBENCH_SHORT, _VBENCH_LONG, _DRAWBENCH, _UPSAMPLED),
                pairs,
                ("drawbench", "vbench"),
                ("short_long_pairs.tsv", ("category", "short", "prompt")),
            ),
        ),
        protocol="public pairs; for the paper's way, `lavi-bridge expand short` with Llama-2",
    ),
    Suite(
        "t2i-compbench",
        "T2I-CompBench",
        _compbench("color", "shape", "texture", "spatial", "non-spatial", "complex"),
        10,
        "validation lists, seeds 42 to 51; the paper's six categories",
    ),
    Suite(
        "t2i-compbench-3d",
        "T2I-CompBench 3-D spatial",
        _compbench("3d-spatial"),
        10,
        "validation list, seeds 42 to 51",
    ),
    Suite(
        "t2i-compbench-numeracy",
        "T2I-CompBench numeracy",
        _compbench("numeracy"),
        10,
        "validation list, seeds 42 to 51",
    ),
    Suite(
        "geneval",
        "GenEval",
        (
            Part(
                553,
                "430c12661ffbe4b3",
                (_GENEVAL,),
                partial(jsonl, category="tag"),
                ("single_object", "two_object", "counting", "colors", "position", "color_attr"),
            ),
        ),
        4,
        "the score is the mean of the six categories",
    ),
    Suite(
        "geneval2",
        "GenEval 2",
        (
            Part(
                800,
                "59938f05c6ed07d7",
                (_GENEVAL2,),
                geneval2,
                tuple(f"{atoms} atoms" for atoms in range(3, 11)),
            ),
        ),
        1,
        "with its questions; needs --judge (published: Qwen3-VL-8B-Instruct)",
    ),
    Suite(
        "genai-bench",
        "GenAI-Bench",
        (Part(527, "a5b3319d494967d8", (_GENAI,), genai),),
        1,
        "the 527 prompts of VQAScore's paper; needs --judge",
    ),
    Suite(
        "dpg",
        "DPG-Bench",
        (
            Part(
                1065, "b853ca6f3a2417d9", (_DPG,), texts, table=("dpg_bench.tsv", ("id", "prompt"))
            ),
        ),
        4,
        "a file a prompt: fetched as an archive of the repository; questions with --judge",
    ),
    Suite(
        "drawbench",
        "DrawBench",
        (Part(200, "33849b492a944e83", (_DRAWBENCH,), txt),),
        4,
        "as in DALL·E 3's evaluation",
    ),
    Suite(
        "parti",
        "PartiPrompts",
        (
            Part(
                1632,
                "f7efe62cbf16a269",
                (_PARTI,),
                tsv,
                (
                    "Abstract",
                    "World Knowledge",
                    "People",
                    "Animals",
                    "Artifacts",
                    "Arts",
                    "Food & Beverage",
                    "Illustrations",
                    "Indoor Scenes",
                    "Outdoor Scenes",
                    "Produce & Plants",
                    "Vehicles",
                ),
            ),
        ),
        protocol="no number of images is prescribed",
    ),
    _world("shapes", "Shapes world", 384, _shapes, _PLAIN),
    _world(
        "shapes-free",
        "Shapes world, free form",
        384,
        partial(_free, "free"),
        _PLAIN,
        "the scenes of `shapes`, told as people talk, in turns that no training text has",
    ),
    _world(
        "shapes-free-heldout",
        "Shapes world, free form, held-out words",
        384,
        partial(_free, "heldout"),
        ("color", "survey", "shape", "texture", "relation", "number"),
        "a category says whose words no training text has; `survey`: colours as in xkcd's survey",
    ),
    _world(
        "shapes-long",
        "Shapes world, long texts",
        128,
        partial(_free, "long"),
        ("color", "texture", "spatial", "complex"),
        "free form with four sentences beside the matter: 30 to 60 words",
    ),
    _world(
        "shapes-by-hand",
        "Shapes world, written by hand",
        60,
        partial(_free, "by_hand"),
        _PLAIN,
        "prompts that no generator made",
    ),
)


SUITES = {suite.name: suite for suite in _SUITES}
"""By the name that `--suites` takes."""
WORLD = tuple(suite.name for suite in _SUITES if suite.name.startswith("shapes"))
"""The suites of the shapes world, whose pictures have an exact scorer."""
