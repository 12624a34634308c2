"""A text before every prompt: read, not handed on, and not counted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from lavi_bridge import Bridge, BridgeError, testing
from lavi_bridge.data.cache.features import FeatureCache
from lavi_bridge.languages.layers import Upper
from lavi_bridge.plan.data_check import check
from lavi_bridge.plan.plan import make_plan
from lavi_bridge.train.caching import cached_features
from lavi_bridge.train.warm_start.matching import Matcher
from lavi_bridge.train.warm_start.pairs import Pair
from lavi_bridge.train.warm_start.teacher import find_teacher
from tests.test_battery import battery

Tiny = Callable[[str], Path]
TEXT = "Describe the image: "
PROMPTS = ["a red circle", "two blue squares", ""]
CHAT = "{% for m in messages %}<s>{{ m.role }}:\n{{ m.content }}</s>ok{% endfor %}"


def connect(language: str | Path, template: str | None = TEXT, **options: object) -> Bridge:
    given = {"rank": 2, "vision_rank": 0, "dropout": 0.0, "device": "cpu"} | options
    return Bridge.connect(language, "zoo:tiny-sd", template=template, **given)  # type: ignore[arg-type]


@pytest.fixture
def chatty(tmp_path: Path) -> Path:
    """A decoder whose tokenizer has a chat template."""
    folder = testing.make_language(tmp_path / "chatty", "qwen3")
    testing.make_tokenizer(folder, chat=CHAT)
    return folder


@pytest.mark.parametrize(
    ("language", "layers"),
    [
        *((language, "last") for language in ("t5", "llama", "clip", "bert", "qwen3", "gemma2")),
        ("t5", "mix"),
        ("llama", "mix"),
    ],
)
def test_a_pair_trains_samples_saves_and_loads(
    language: str, layers: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = Bridge.connect(
        tiny(language), tiny("sd"), rank=4, template=TEXT, layers=layers, tokens=40
    )
    battery(bridge, tmp_path / "out")


@pytest.mark.parametrize("language", ["zoo:tiny-t5-small", "zoo:tiny-llama", "zoo:tiny-clip"])
def test_the_prompts_states_are_those_behind_the_text(language: str) -> None:
    bridge = connect(language, rank=0)
    found = bridge.features(PROMPTS[0]).hidden[0]
    model, count = bridge.language, bridge.language.lengths(PROMPTS[:1])[0]
    ids = torch.tensor([model.tokenizer(TEXT + PROMPTS[0])["input_ids"]])
    whole = model.model(input_ids=ids).last_hidden_state[0]
    if language != "zoo:tiny-llama":  # these read padding, too
        mask = torch.tensor([[1] * count])
        found = model.hidden(model.tokenize(PROMPTS[:1], count).ids, mask)[0]
    torch.testing.assert_close(found[:count], whole[-count:], atol=1e-5, rtol=1e-4)


def test_only_the_prompts_own_tokens_count() -> None:
    bridge, plain = connect("zoo:tiny-llama", tokens=8), connect("zoo:tiny-llama", None, tokens=8)
    ours, theirs = (b.language.tokenize(PROMPTS, 8) for b in (bridge, plain))
    assert ours.ids.shape == theirs.ids.shape == (3, 8)
    assert bridge.language.lengths(PROMPTS[:2]) == [
        n - 1 for n in plain.language.lengths(PROMPTS[:2])
    ]  # the start token is before the text
    assert bridge.features(PROMPTS).hidden.shape == plain.features(PROMPTS).hidden.shape
    with pytest.warns(UserWarning, match="1 of 1 prompts are longer than 8 tokens"):
        bridge.warn_of_cut(["a red circle left of a blue square above a green triangle"])


def test_spans_are_of_the_prompt() -> None:
    language = connect("zoo:tiny-llama").language
    prompt = "two blue squares"
    words = [prompt[a:b] for a, b in language.spans([prompt], 8)[0] if b]
    assert "".join(words) == "twobluesquares"
    assert len(language.spans([prompt], 8)[0]) == 8


def test_a_chat_template_ends_where_the_prompt_begins(chatty: Path, tmp_path: Path) -> None:
    bridge = connect(chatty, "chat")
    template = bridge.language.template
    assert template is not None
    assert (template.text, template.chat) == ("<s>user:\n", True)
    assert bridge.language.tokenizer.decode(bridge.language.token_ids(["red"])[0]) == "red"
    bridge.save(tmp_path / "bridge")
    kept = json.loads((tmp_path / "bridge" / "bridge.json").read_text(encoding="utf-8"))
    assert kept["template"] == {"text": "<s>user:\n", "chat": True}
    testing.make_tokenizer(chatty)  # a later version of it has another, or none
    assert Bridge.load(tmp_path / "bridge", device="cpu").id == bridge.id


def test_a_bridge_without_one_says_nothing_of_it(tmp_path: Path) -> None:
    connect("zoo:tiny-llama", None).save(tmp_path / "bridge")
    kept = json.loads((tmp_path / "bridge" / "bridge.json").read_text(encoding="utf-8"))
    assert not {"template", "layers"} & kept.keys()


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    connect("zoo:tiny-llama").save(tmp_path / "bridge")
    index = tmp_path / "bridge" / "bridge.json"
    kept = json.loads(index.read_text(encoding="utf-8"))
    index.write_text(json.dumps(kept | {"template": {"text": 3}}), encoding="utf-8")
    with pytest.raises(BridgeError, match=r"bridge\.json of .*: a template is a text and whether"):
        Bridge.load(tmp_path / "bridge", device="cpu")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("chat", "has no chat template: give the text before the prompt"),
        ("", "a template needs text of which '.*' makes tokens: ''"),
        ("a long text " * 30, "the template has .* tokens, and '.*' reads 128 at most"),
    ],
)
def test_a_template_that_cannot_be_is_told(tiny: Tiny, template: str, message: str) -> None:
    with pytest.raises(BridgeError, match=message):
        connect(tiny("llama"), template)


def test_the_limit_is_what_the_template_leaves(tiny: Tiny) -> None:
    assert connect(tiny("clip"), "x" * 60).tokens == 77 - 61
    with pytest.raises(BridgeError, match="reads 16 tokens at most beside the template's 61"):
        connect(tiny("clip"), "x" * 60, tokens=17)


def test_from_the_states_below_comes_the_same_and_a_cache_keeps_them(tmp_path: Path) -> None:
    bridge = connect("zoo:tiny-llama", language_layers="last:2")
    cache = FeatureCache(tmp_path / "text", {"of": "this"})
    upper = Upper(bridge.language)
    fresh = cached_features(bridge, cache, PROMPTS, trim=True, upper=upper)
    torch.testing.assert_close(fresh.hidden, bridge.features(PROMPTS).hidden, atol=5e-3, rtol=5e-3)


def test_a_warm_start_matches_the_prompts_own_tokens() -> None:
    bridge = connect("zoo:tiny-llama", language_layers="last:2")
    matcher = Matcher(bridge, find_teacher(bridge, None))
    matched = matcher([Pair.same(prompt) for prompt in PROMPTS])
    apart = matcher.hidden(matched).hidden
    whole = bridge.language.hidden(matched.ids, None if bool(matched.mask.all()) else matched.mask)
    torch.testing.assert_close(apart, whole, atol=5e-3, rtol=5e-3)
    assert apart.shape[1] == matched.states.shape[1]


@pytest.mark.slow
def test_a_plan_and_a_check_of_data_count_with_it(tiny: Tiny, tmp_path: Path) -> None:
    plans = [
        make_plan(
            "zoo:tiny-llama",
            str(tiny("sd")),
            template=t,
            tokens=40,
            compute=False,
            checkpointing=False,
        )
        for t in (None, TEXT)
    ]
    assert plans[0].tokens == plans[1].tokens
    assert plans[0].training_gb < plans[1].training_gb
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "data.tsv").write_text("a.png\ta red circle\n", encoding="utf-8")
    reports = [
        check(
            str(tmp_path / "data.tsv"),
            language="zoo:tiny-llama",
            vision="zoo:tiny-sd",
            template=template,
        )
        for template in (None, TEXT)
    ]
    assert reports[0].tokens["greatest"] == reports[1].tokens["greatest"] + 1
