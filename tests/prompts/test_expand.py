"""Long prompts from short ones: the same ones again, after any interruption, or not at all."""

import json
import random
import re
import shutil
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from lavi_bridge import BridgeError, testing
from lavi_bridge.cli import main as cli
from lavi_bridge.prompts import expand as module
from lavi_bridge.prompts.expand import cleaned, expand
from lavi_bridge.prompts.instructions import INSTRUCTIONS
from lavi_bridge.prompts.kept import check
from lavi_bridge.prompts.options import ExpandConfig
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.train.warm_start.pairs import read_pairs

LONG = INSTRUCTIONS["long"]
PROMPTS = "a cat\na dog on a sofa\ntwo red boats\na/b\nan old house\nrain\na cat\n"
CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def causal(folder: Path, family: str) -> Path:
    """A random language model with its output layer and room for 1,024 bytes."""
    import transformers

    name, settings = testing.LANGUAGES[family]
    room = {"gpt2": "n_positions"}.get(family, "max_position_embeddings")
    config = transformers.AutoConfig.for_model(family, **settings | {room: 1024})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, name.replace("GPT2Model", "GPT2LMHeadModel"))(config)
    model.save_pretrained(folder)
    testing.make_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def config(tmp_path: Path, llama: Path) -> ExpandConfig:
    (tmp_path / "short.txt").write_text(PROMPTS)
    return ExpandConfig(
        str(tmp_path / "short.txt"),
        str(llama),
        tmp_path / "long.jsonl",
        max_new_tokens=10,
        batch_size=3,
        device="cpu",
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def test_every_prompt_gets_a_long_one_and_the_file_is_a_suite(config: ExpandConfig) -> None:
    done = expand(config)
    assert (done.pairs, done.made, done.repeated) == (7, 7, 1)
    pairs = lines(config.out)
    assert [list(pair) for pair in pairs] == [["id", "category", "short", "long"]] * 7
    assert [pair["short"] for pair in pairs] == PROMPTS.split("\n")[:-1]
    assert pairs[0]["long"] == pairs[6]["long"] != pairs[1]["long"]
    assert [(p.id, p.text, p.short) for p in load_suite(str(config.out))] == [
        (pair["id"], pair["long"].strip(), pair["short"]) for pair in pairs
    ]
    about = json.loads(config.out.with_name("long.jsonl.meta.json").read_text())
    assert (about["instruction_version"], about["instruction"]) == (LONG.version, LONG.text)
    assert (about["seed"], about["template"], about["dtype"]) == (0, None, "float32")


def test_cut_at_any_byte_it_goes_on_to_the_same_file(config: ExpandConfig) -> None:
    expand(config)
    whole = config.out.read_bytes()
    ends = [0, *(match.end() for match in re.finditer(b"\n", whole))]
    for size in (0, ends[1], ends[4], *random.Random(0).sample(range(len(whole)), 4)):
        config.out.write_bytes(whole[:size])
        done = expand(config)
        assert config.out.read_bytes() == whole, size
        assert done.made == sum(end > size for end in ends)
    assert expand(config).made == 0


def test_an_answer_depends_on_the_prompt_and_the_seed_alone(config: ExpandConfig) -> None:
    expand(config)
    answers = {pair["short"]: pair["long"] for pair in lines(config.out)}
    alone = replace(config, out=config.out.with_name("alone.jsonl"), batch_size=1)
    expand(alone)
    assert {pair["short"]: pair["long"] for pair in lines(alone.out)} == answers
    Path(config.suite).write_text("rain\na/b\n")
    fewer = replace(config, out=config.out.with_name("fewer.jsonl"))
    expand(fewer)
    assert {pair["short"]: pair["long"] for pair in lines(fewer.out)}.items() <= answers.items()
    other = replace(config, out=config.out.with_name("other.jsonl"), seed=1)
    expand(other)
    assert lines(other.out)[0]["long"] != answers["rain"]


def test_sampling_follows_the_models_probabilities(config: ExpandConfig) -> None:
    writer = module.Writer(
        replace(config, temperature=2.0, top_p=0.9), torch.device("cpu"), torch.float32
    )
    # at temperature 2: probabilities of 5, 3, 1.5 and 0.5 tenths, of which the last is left out
    scores = 2 * torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, 4)
    for step in writer._chance([f"prompt {i}" for i in range(4000)]):
        scores = step(torch.zeros(4000, 1), scores)
    drawn = torch.bincount(scores.argmax(dim=1), minlength=4) / 4000
    assert drawn.tolist() == pytest.approx([0.526, 0.316, 0.158, 0], abs=0.03)
    assert drawn[3] == 0


def test_at_temperature_zero_the_seed_does_not_matter(config: ExpandConfig) -> None:
    greedy = replace(config, temperature=0.0)
    expand(greedy)
    again = replace(greedy, out=config.out.with_name("again.jsonl"), seed=5)
    expand(again)
    assert again.out.read_bytes() == greedy.out.read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 1}, r"seed: 0 there, 1 here\); repeat those, or choose another --out"),
        ({"temperature": 0.5}, r"temperature: 0\.7 there, 0\.5 here"),
        ({"max_new_tokens": 11}, r"max_new_tokens: 10 there, 11 here"),
        ({"dtype": "bfloat16"}, r"dtype: float32 there, bfloat16 here"),
        ({"limit": 3}, r"prompts: [0-9a-f]{16} there"),
    ],
)
def test_other_settings_are_refused_by_name(
    config: ExpandConfig, change: dict[str, Any], reason: str
) -> None:
    expand(config)
    before = config.out.read_bytes()
    with pytest.raises(BridgeError, match=rf"long\.jsonl' was made with other settings \({reason}"):
        expand(replace(config, **change))
    assert config.out.read_bytes() == before


def test_other_models_and_prompts_are_refused(
    config: ExpandConfig, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    expand(config)
    other = AutoModelForCausalLM.from_pretrained(llama)
    other.lm_head.weight.data.neg_()
    other.save_pretrained(tmp_path / "other")
    testing.make_tokenizer(tmp_path / "other")
    with pytest.raises(BridgeError, match=r"\(model: [0-9a-f]{16} there"):
        expand(replace(config, language=str(tmp_path / "other")))
    shutil.copytree(llama, tmp_path / "moved")
    assert expand(replace(config, language=str(tmp_path / "moved"))).made == 0
    monkeypatch.setitem(INSTRUCTIONS, "long", replace(LONG, version=LONG.version + 1))
    with pytest.raises(BridgeError, match=r"\(instruction_version: 1 there, 2 here\)"):
        expand(config)
    monkeypatch.undo()
    Path(config.suite).write_text("another\n" + PROMPTS)
    with pytest.raises(BridgeError, match=r"\(prompts: "):
        expand(config)


def test_a_damaged_file_is_named_with_its_line(config: ExpandConfig) -> None:
    expand(config)
    whole = config.out.read_bytes().split(b"\n")
    config.out.write_bytes(b"\n".join([*whole[:2], b"{oops", *whole[3:]]))
    with pytest.raises(BridgeError, match=r"long\.jsonl:3: damaged .*; delete this line and all"):
        expand(config)
    config.out.write_bytes(b"\n".join([whole[1], whole[0], b""]))
    with pytest.raises(BridgeError, match=r"long\.jsonl:1: damaged \(another prompt\)"):
        expand(config)
    config.out.with_name("long.jsonl.meta.json").unlink()
    with pytest.raises(BridgeError, match=r"'long\.jsonl\.meta\.json'\) are not; choose"):
        expand(config)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs Linux's /dev/full")
    (tmp_path / "a.jsonl").symlink_to("/dev/full")
    with pytest.raises(BridgeError, match=r"cannot write '.*a\.jsonl': no space left on the disk"):
        module._append(tmp_path / "a.jsonl", Prompt("a", "b"), "c")


def test_an_empty_answer_leaves_the_short_prompt_and_is_counted(
    config: ExpandConfig, llama: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    silent = AutoModelForCausalLM.from_pretrained(llama)
    silent.lm_head.weight.data.zero_()  # so that the first token of all is the likeliest: <pad>
    silent.generation_config.eos_token_id = [0, 2]
    silent.save_pretrained(tmp_path / "silent")
    testing.make_tokenizer(tmp_path / "silent")
    done = expand(replace(config, language=str(tmp_path / "silent"), temperature=0.0))
    assert (done.pairs, done.empty) == (7, 7)
    assert all(pair["long"] == pair["short"] for pair in lines(config.out))


def test_a_chat_template_is_used_where_there_is_one(
    config: ExpandConfig, llama: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(llama, tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path / "chat")
    chat = replace(config, language=str(tmp_path / "chat"))
    writer = module.Writer(chat, torch.device("cpu"), torch.float32)
    (first, answer), (second, other) = LONG.examples
    request = writer.request(Prompt("p", "a\ncat"))
    assert request == (
        f"[user]{LONG.text}\n\n{first}\n[assistant]{answer}\n[user]{second}\n[assistant]{other}\n"
        "[user]a cat\n[assistant]"
    )
    ids = writer._encode([request])["input_ids"][0]
    assert tokenizer.decode(ids) == request  # no start or end token besides
    assert expand(chat).pairs == 7
    about = json.loads(config.out.with_name("long.jsonl.meta.json").read_text())
    assert about["template"] == sha256(CHAT.encode()).hexdigest()[:16]
    with pytest.raises(BridgeError, match=r"\(model: |\(template: "):
        expand(config)


def test_examples_give_way_to_the_prompt_and_a_prompt_without_room_is_named(
    config: ExpandConfig,
) -> None:
    writer = module.Writer(config, torch.device("cpu"), torch.float32)
    shown = [writer.request(Prompt("p", "x" * n)).count("Short:") - 1 for n in (9, 500, 700)]
    assert shown == [2, 1, 0]
    Path(config.suite).write_text("a cat\n" + "x" * 2000)
    with pytest.raises(
        BridgeError,
        match=r"prompt 'short-0001' takes 2\d{3} tokens with the instruction, and 10 "
        r"more are to be written, but '.*' has room for 1024; use another model",
    ):
        expand(config)
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("answer", "cut", "text"),
    [
        (" A red car.\n", False, "A red car."),
        ("A red\ncar. It", True, "A red car."),
        ("A red car, no end", True, "A red car, no end"),
        ("A car of 3.5 m. And a", True, "A car of 3.5 m."),
        ('It says "Stop!" And', True, 'It says "Stop!"'),
        ("A red car\n\nShort: a dog", True, "A red car"),
        ("A red car\nShort: a dog\nLong: A do", True, "A red car"),
        ('"A red car."', False, "A red car."),
        ('"A red car. It is', True, "A red car."),
        ("“A red car.”", False, "A red car."),
        ('"Stop" says the "sign"', False, '"Stop" says the "sign"'),
        ('A sign: "Stop"', False, 'A sign: "Stop"'),
        ("Sure, here it is:\n\nA red car.\n\nEnjoy!", False, "A red car."),
        ("<think>\nA car?\n\nYes.</think>\n\nA red car.", False, "A red car."),
        ("  \n", False, ""),
        ("", True, ""),
    ],
)
def test_an_answer_is_cleaned(answer: str, cut: bool, text: str) -> None:
    assert cleaned(answer, cut=cut) == text


@pytest.mark.parametrize("family", ["gpt2", "mistral", "qwen3", "gemma2", "phi3"])
def test_any_causal_family_writes(config: ExpandConfig, tmp_path: Path, family: str) -> None:
    own = replace(config, language=str(causal(tmp_path / family, family)))
    assert expand(own).made == 7
    config.out.write_bytes(config.out.read_bytes()[:-3])
    assert expand(own).made == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("zoo:tiny-llama", r"cannot write text: it lacks 1 .* such as 'lm_head\.weight'"),
        ("zoo:tiny-t5-base", r"cannot load .* as a causal language model: ValueError"),
    ],
)
def test_a_model_that_cannot_write_is_refused(config: ExpandConfig, name: str, reason: str) -> None:
    with pytest.raises(BridgeError, match=reason):
        expand(replace(config, language=name))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"max_new_tokens": 0}, "'max_new_tokens' must be at least 1, not 0"),
        ({"temperature": -1}, "'temperature' must be at least 0, not -1"),
        ({"top_p": 0}, "'top_p' must be above 0, not 0"),
        ({"out": Path("a.txt")}, r"'out' must end in \.jsonl, not 'a\.txt'"),
    ],
)
def test_a_bad_setting_is_named(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BridgeError, match=reason):
        replace(ExpandConfig("a", "b", Path("c.jsonl")), **change)


def test_the_instruction_is_shown_and_its_wording_has_a_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.expand(["--show-instruction"])
    shown = capsys.readouterr().out
    assert shown.startswith(
        f"version {LONG.version}\n\n{LONG.text}\n\nShort: a cat on a sofa\nLong: A"
    )
    versions = {1: "0a08c478706981b9"}
    assert sha256(shown.encode()).hexdigest()[:16] == versions[LONG.version]
    monkeypatch.setattr(sys, "argv", ["lavi-bridge", "expand", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    text = " ".join(capsys.readouterr().out.split())
    assert f"The instruction (version {LONG.version}): {LONG.text}" in text


def test_the_command_says_what_it_made(
    config: ExpandConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        config.suite,
        "--language",
        config.language,
        "--out",
        str(config.out),
        "--limit",
        "2",
        "--max-new-tokens",
        "5",
        "--device",
        "cpu",
    ]
    for made in (2, 0):
        cli.expand(arguments)
        assert f"long.jsonl': 2 pairs, {made} of them made now" in capsys.readouterr().out


def test_a_real_language_model_writes_sentences(shared: Path, tmp_path: Path) -> None:
    config = ExpandConfig(
        "drawbench",
        str(shared / "weights" / "stories260K" / "hf"),
        tmp_path / "a.jsonl",
        prompts=shared / "prompts",
        limit=5,
        batch_size=2,
        device="cpu",
    )
    assert expand(config).empty == 0
    whole = config.out.read_bytes()
    assert sum(pair["long"].endswith((".", "!", "?", '"')) for pair in lines(config.out)) >= 4
    config.out.write_bytes(whole[: len(whole) // 2])
    assert expand(config).made > 0
    assert config.out.read_bytes() == whole


# Pairs for a warm start


@pytest.mark.parametrize(
    ("short", "text", "lost", "contradicted"),
    [
        ("two red boats", "a pair of boats, both of them red", (), ()),
        ("two red boats", "three boats in red", ("two",), ("two",)),
        ("two red boats", "red boats on one beach", ("two",), ()),
        ("a gray cat", "a grey kitty on a couch", (), ()),
        ("a gray cat", "a kitty on a couch", ("gray",), ()),
        ("a cup left of a plate", "a plate with a cup to its right", ("left",), ("left",)),
        ("a bird above a house", "a bird over a house, left of a tree", (), ()),
        ("a dog", "five blue dogs", (), ()),
    ],
)
def test_numbers_colours_and_sides_are_looked_for(
    short: str, text: str, lost: tuple[str, ...], contradicted: tuple[str, ...]
) -> None:
    found = check(short, text)
    assert (found.lost, found.contradicted) == (lost, contradicted)


def test_pairs_are_written_for_a_warm_start(config: ExpandConfig, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    done = expand(replace(config, pairs=pairs, form="free"))
    found = read_pairs(pairs)
    written = {(line["long"], line["short"]) for line in lines(config.out)}
    assert {(pair.ours, pair.theirs) for pair in found} <= {
        (" ".join(long.split()), short) for long, short in written
    }
    assert len(found) == done.kept == 7 - 1 - done.lost - done.empty
    assert done.lost >= 1  # of a random model's words none is "two" or "red"
    about = json.loads(config.out.with_name("long.jsonl.meta.json").read_text())
    assert about["instruction"] == INSTRUCTIONS["free"].text
    with pytest.raises(BridgeError, match="instruction"):
        expand(config)


def test_pairs_end_in_tsv(config: ExpandConfig) -> None:
    with pytest.raises(BridgeError, match=r"'pairs' must end in \.tsv"):
        replace(config, pairs=Path("pairs.txt"))


def test_the_free_instruction_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    cli.expand(["--form", "free", "--show-instruction"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"version 1\n\n{INSTRUCTIONS['free'].text}")
    versions = {1: "d2bec58afdb500fc"}
    assert sha256(shown.encode()).hexdigest()[:16] == versions[INSTRUCTIONS["free"].version]
