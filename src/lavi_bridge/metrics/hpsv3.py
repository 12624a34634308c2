"""HPSv3: how much people would prefer an image for its prompt, by Qwen2-VL with a head of its own.

The checkpoint is one file without config or tokenizer, which come from the model that it was
trained from, and the question's wording is fetched: the weights know no other. Sources: arXiv
2508.03789; MizzenAI/HPSv3 (MIT), `inference.py`, `model/qwen2vl_trainer.py`, `HPSv3_7B.yaml`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError, first_line
from lavi_bridge.files.atomic import at_home, read_safetensors
from lavi_bridge.files.fetch import fetched
from lavi_bridge.files.locate import Place, locate
from lavi_bridge.files.pretrained import loading, quiet
from lavi_bridge.files.weights import fingerprint_of_tensors
from lavi_bridge.metrics.base import METRICS, Score, exact
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.running.device import choose_device, choose_dtype

if TYPE_CHECKING:
    from PIL.Image import Image

HPSV3, BASE = "MizzenAI/HPSv3", "Qwen/Qwen2-VL-7B-Instruct"
FILE = "HPSv3.safetensors"
TEMPLATE = "hpsv3-data_collator_qwen.py"
TEMPLATE_URL = (
    "https://raw.githubusercontent.com/MizzenAI/HPSv3/d232ff8669a0b00759766067c6c3a26e2e717fac"
    "/hpsv3/dataset/data_collator_qwen.py"
)
WORDING = "f6ee57479d4e9eee"
"""First 16 hex digits of the sha256 of the published question."""
REWARD = "<|Reward|>"
"""Added to the tokenizer's words as the last; the head reads the state at its place."""
PIXELS = 256 * 28 * 28
"""Of an image as it is seen: least and most."""
LAYOUTS = {"model.visual.": "visual.", "model.language_model.": "language_model."}
"""Names in the checkpoint by transformers 4.52 and later -> in the model."""
OLD_LAYOUT = {"visual.": "visual.", "model.": "language_model."}
"""By earlier versions."""


@METRICS.register("hpsv3")
class HPSv3(Score):
    """The mean of the preference that the head gives, about -2 to 15; its spread is left out.

    Args:
        scorer: Hub id or folder with HPSv3.safetensors, or that file.
        base: where config, tokenizer and image processor of the Qwen2-VL are.
        template: a Python file that says how images are asked about (`INSTRUCTION` and
            `prompt_with_special_token`, of which nothing runs); by default the published one, from
            the cache folder, fetched if need be.
        dtype: precision of the model; the published code has bfloat16, with the head in float32.

    Raises:
        BridgeError: something is missing, damaged, or of another model.
    """

    title = "HPSv3"
    scorer = HPSV3
    licence = "MIT; the base Apache-2.0"
    download = memory = 16.6
    files = ("base", "template")

    def __init__(
        self,
        *,
        scorer: str | Path = HPSV3,
        base: str | Path = BASE,
        template: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: str = "bfloat16",
    ) -> None:
        self.device = choose_device(device)
        self.place, self.base = locate(scorer), locate(base)
        self.dtype = dtype
        self.template = read_template(at_home(template)) if template else published_template()
        with loading(f"'{self.base.id}'"), quiet():
            from transformers import AutoImageProcessor, AutoTokenizer

            self.tokenizer = AutoTokenizer.from_pretrained(**self.base.pretrained())
            self.processor = AutoImageProcessor.from_pretrained(
                **self.base.pretrained(), backend="pil"
            )
        self.tokenizer.add_tokens([REWARD], special_tokens=True)
        self.tokenizer.padding_side = "right"
        self.reward = self.tokenizer.convert_tokens_to_ids(REWARD)
        self.path = checkpoint(self.place)
        precision = choose_dtype(dtype, self.device)
        model, head = load(self.path, self.base, len(self.tokenizer), precision)
        self.model, self.head = model.to(self.device), head.to(self.device)

    def __call__(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> list[float]:
        texts = [prompt.text for _, prompt in zip(images, prompts, strict=True)]
        return self.outputs(images, texts)[:, 0].tolist()

    @exact()
    def outputs(self, images: Sequence[Image], texts: Sequence[str]) -> Tensor:
        """Images and their texts -> the head's two numbers of each (N, 2): mean, spread.

        Raises:
            BridgeError: a text has the reward's own word in it.
        """
        seen = self.processor([resized(i) for i in images], do_resize=False, return_tensors="pt")
        grids = seen["image_grid_thw"]
        merged = grids.prod(1) // self.processor.merge_size**2
        asked = [self.asked(t, int(n)) for t, n in zip(texts, merged, strict=True)]
        inputs = self.tokenizer(asked, padding=True, return_tensors="pt").to(self.device)
        ids = inputs["input_ids"]
        marks = ids == self.reward
        if not (marks.sum(1) == 1).all():
            raise BridgeError(f"a prompt holds '{REWARD}', which HPSv3 keeps for itself")
        states = self.model(
            input_ids=ids,
            attention_mask=inputs["attention_mask"],
            # where the picture is, for the positions in it
            mm_token_type_ids=(ids == self.model.config.image_token_id).int(),
            pixel_values=seen["pixel_values"].to(self.device, self.model.dtype),
            image_grid_thw=grids.to(self.device),
        ).last_hidden_state
        return self.head(states[marks].float()).cpu()

    def asked(self, text: str, places: int) -> str:
        """What the model reads for a text: the chat template's turns, `places` for the image."""
        instruction, question = self.template
        said = instruction.replace("{text_prompt}", text) + question
        content = [{"type": "image"}, {"type": "text", "text": said}]
        turns = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        pad = self.tokenizer.convert_ids_to_tokens(self.model.config.image_token_id)
        before, found, after = turns.partition(pad)
        if not found:
            raise BridgeError(
                f"the chat template of '{self.base.id}' has no place for an image ({pad})"
            )
        return before + pad * places + after

    def provenance(self) -> dict[str, str]:
        return {
            "scorer": self.place.id,
            "weights": fingerprint_of_tensors(self.path, ""),
            "base": self.base.id,
            "wording": digest(self.template),
            "precision": self.dtype,
            **{name: version(name) for name in ("torch", "transformers", "pillow")},
        }


def resized(image: Image) -> Image:
    """An image of about 256 squares of 28 pixels, its shape kept as well as these allow.

    Raises:
        ValueError: one side is over 200 times the other.
    """
    from PIL.Image import Resampling
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    height, width = smart_resize(
        image.height, image.width, factor=28, min_pixels=PIXELS, max_pixels=PIXELS
    )
    return image.convert("RGB").resize((width, height), Resampling.BICUBIC)


# The question ------------------------------------------------------------------------------------


def published_template() -> tuple[str, str]:
    """The published wording: what stands before the reward's sentence, and that.

    Raises:
        BridgeError: it is not in the cache and cannot be fetched, or is another wording.
    """
    path = fetched(TEMPLATE, url=TEMPLATE_URL, sha256=None)
    template = read_template(path)
    if digest(template) != WORDING:
        raise BridgeError(f"{path} has another wording than HPSv3's; put {TEMPLATE_URL} there")
    return template


def read_template(path: Path) -> tuple[str, str]:
    """The two texts of a Python file, which is read and not run.

    Raises:
        BridgeError: it is missing, no Python, or lacks one of them.
    """
    found: dict[str, str] = {}
    try:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                for target in node.targets:
                    if isinstance(target, ast.Name) and isinstance(node.value.value, str):
                        found[target.id] = node.value.value
    except (OSError, ValueError, SyntaxError) as error:
        raise BridgeError(
            f"cannot read HPSv3's wording from {path}: {first_line(error)}"
        ) from error
    instruction = found.get("INSTRUCTION", "")
    question = found.get("prompt_with_special_token", "")
    if "{text_prompt}" not in instruction or question.count(REWARD) != 1:
        raise BridgeError(
            f"{path} does not say how HPSv3 asks: INSTRUCTION with {{text_prompt}}, and "
            f"prompt_with_special_token with {REWARD}"
        )
    return instruction, question


def digest(template: tuple[str, str]) -> str:
    """16 hex digits of a wording."""
    return hashlib.sha256("".join(template).encode()).hexdigest()[:16]


# The weights -------------------------------------------------------------------------------------


def checkpoint(place: Place) -> Path:
    """The local file of the weights.

    Raises:
        BridgeError: there is none.
    """
    path = Path(place.root, place.single) if place.single else place.file(FILE)
    if path is None:
        raise BridgeError(f"'{place.id}' has no {FILE}")
    return path


def load(path: Path, base: Place, words: int, dtype: torch.dtype) -> tuple[Any, nn.Sequential]:
    """The Qwen2-VL and its head from one file, under the names of any version of transformers.

    Args:
        words: in the tokenizer, the reward's among them.

    Raises:
        BridgeError: config or weights are missing or of another model.
    """
    from transformers import Qwen2VLConfig, Qwen2VLModel

    if (kind := base.json("config.json").get("model_type")) != "qwen2_vl":
        raise BridgeError(f"'{base.id}' is no Qwen2-VL, but '{kind}'; give one such as {BASE}")
    state = read_safetensors(path)
    head = {key: state.pop(key) for key in [*state] if key.startswith("rm_head.")}
    state.pop("lm_head.weight", None)  # it would say words
    state = renamed(state)
    table = state.get("language_model.embed_tokens.weight")
    if table is None or len(table) != words:
        held = "no words" if table is None else f"{len(table):,} words"
        raise BridgeError(
            f"{path} has {held}, the tokenizer of '{base.id}' with {REWARD} {words:,}"
        )
    what = f"HPSv3 '{path.name}'"
    with loading(what), quiet():
        config = Qwen2VLConfig.from_pretrained(**base.pretrained())
        config.text_config.vocab_size = words
        model, report = Qwen2VLModel.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
        )
    if wrong := sorted(report["missing_keys"]) or sorted(report["unexpected_keys"]):
        raise BridgeError(f"{path} does not fit '{base.id}': {len(wrong)} tensors as '{wrong[0]}'")
    return model.eval().requires_grad_(False), _head(path, head, config.text_config.hidden_size)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that today's Qwen2VLModel has for them."""
    new = any(key.startswith("model.language_model.") for key in state)
    found = {}
    for key, tensor in state.items():
        begin = LAYOUTS if new else OLD_LAYOUT
        start = next((name for name in begin if key.startswith(name)), None)
        found[begin[start] + key.removeprefix(start) if start else key] = tensor
    return found


def _head(path: Path, state: Mapping[str, Tensor], width: int) -> nn.Sequential:
    """Linear layers width → 1024 → 16 → 2 with ReLU between, in float32; dropout has no weights."""
    sizes = [(width, 1024), (1024, 16), (16, 2)]
    layers = [nn.Linear(n, m) for n, m in sizes]
    for layer, place in zip(layers, (0, 3, 5), strict=True):
        try:
            weight, bias = (state[f"rm_head.{place}.{name}"] for name in ("weight", "bias"))
            layer.load_state_dict({"weight": weight, "bias": bias})
        except (KeyError, RuntimeError) as error:
            raise BridgeError(f"{path} has no head of HPSv3: {first_line(error)}") from error
    first, second, third = layers
    head = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
    return head.eval().requires_grad_(False)
