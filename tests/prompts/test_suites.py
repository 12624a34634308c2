"""Prompt suites: the public lists by their counts and hashes, one's own files, and bad ones."""

import dataclasses
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from lavi_bridge import BridgeError
from lavi_bridge.cli.listing import listing
from lavi_bridge.files.fetch import checksum
from lavi_bridge.prompts.catalogue import GENAI, GENEVAL2, SUITES
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.suite import prompt_hash
from lavi_bridge.prompts.suites import duplicates, load_suite

# ---- the public lists


@pytest.fixture
def lists(shared: Path) -> Path:
    return shared / "prompts"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAVI_BRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("spec", "count", "digest"),
    [
        ("short", 8192, "6c69c424c5530a8e"),
        ("long", 1133, "0d1a6d8d961f464e"),
        ("t2i-compbench", 1800, "c40f42129871faab"),
        ("t2i-compbench:color", 300, "a46e9322551b29e8"),
        ("t2i-compbench:shape", 300, "2e60f0c992a2a473"),
        ("t2i-compbench:texture", 300, "cc0e96aa898677d6"),
        ("t2i-compbench:spatial", 300, "11de96bcc1962406"),
        ("t2i-compbench:non-spatial", 300, "5e3885f9782cc26e"),
        ("t2i-compbench:complex", 300, "77b3a01bbe0f2f79"),
        ("t2i-compbench-3d", 300, "ee315c542a14cc86"),
        ("t2i-compbench-numeracy", 300, "7ddae57b6a897fa4"),
        ("geneval", 553, "430c12661ffbe4b3"),
        ("dpg", 1065, "b853ca6f3a2417d9"),
        ("drawbench", 200, "33849b492a944e83"),
        ("parti", 1632, "f7efe62cbf16a269"),
    ],
)
def test_every_public_list_has_its_count_and_hash(
    lists: Path, spec: str, count: int, digest: str
) -> None:
    prompts = load_suite(spec, folder=lists)
    assert (len(prompts), prompt_hash(prompts)) == (count, digest)
    suite = SUITES[spec.partition(":")[0]]
    assert ":" in spec or suite.count == count
    assert len({prompt.id.casefold() for prompt in prompts}) == count
    assert all(re.fullmatch(r"[\w-]+", prompt.id) for prompt in prompts)
    assert {prompt.category for prompt in prompts} <= set(suite.categories or [""])


def test_the_checksums_are_those_of_the_public_files(lists: Path) -> None:
    files = [file for suite in SUITES.values() for part in suite.parts for file in part.files]
    pinned = {file.path: file for file in files if file.sha256}
    assert len(pinned) == 17
    by_judge = {file for file in pinned.values() if file.source in (GENAI, GENEVAL2)}  # not there
    for file in {*pinned.values()} - by_judge:
        assert checksum(file.find(lists)) == file.sha256


def test_the_shapes_world_needs_no_file_and_says_where_its_facts_are() -> None:
    from lavi_bridge.shapes.world import evaluation_set

    prompts = load_suite("shapes")
    assert len(prompts) == SUITES["shapes"].count == 384
    assert list(dict.fromkeys(p.category for p in prompts)) == list(SUITES["shapes"].categories)
    one = load_suite("shapes:spatial")[5]
    assert (one.id, one.category) == ("spatial-0005", "spatial")
    facts = json.loads(json.dumps(one.facts))
    world = evaluation_set(facts["per_category"], facts["seed"])[0][facts["index"]]
    assert (world.text, world.category) == (one.text, one.category)


def test_what_the_files_say_of_a_prompt_comes_with_it(lists: Path) -> None:
    two = load_suite("geneval:two_object", folder=lists)
    assert (len(two), two[0].id) == (99, "two_object-0000")
    assert two[0].facts["tag"] == "two_object"
    assert [entry["count"] for entry in two[0].facts["include"]] == [1, 1]
    food = load_suite("parti:food-beverage", folder=lists)
    assert {prompt.category for prompt in food} == {"Food & Beverage"}
    assert food[0].id == "food-beverage-0000"
    assert food[0].facts["Challenge"]
    [first] = load_suite("long", folder=lists, limit=1)
    assert (first.short, first.category) == ("A red colored car.", "drawbench")
    assert first.text.startswith("a sleek red sports car")
    assert load_suite("dpg", folder=lists)[1].id == "1"


def test_the_pairs_are_those_of_the_public_files(lists: Path, tmp_path: Path) -> None:
    for name in ("vbench", "dalle3_eval"):
        (tmp_path / name).symlink_to(lists / name)
    assert load_suite("long", folder=tmp_path) == load_suite("long", folder=lists)


def test_dpg_is_read_from_the_repository_or_an_archive_of_it(
    lists: Path, tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "dpg_bench" / "prompts"
    folder.mkdir(parents=True)
    prompts = load_suite("dpg", folder=lists)
    for prompt in prompts:
        (folder / f"{prompt.id}.txt").write_text(prompt.text.replace(" ", "\n", 1))
    assert load_suite("dpg", folder=tmp_path) == prompts
    [file] = SUITES["dpg"].parts[0].files
    place = cache / "prompts" / "TencentQQGYLab" / "ELLA@3c228f1" / file.name
    place.parent.mkdir(parents=True)
    with tarfile.open(place, "w:gz") as archive:
        archive.add(tmp_path / "dpg_bench", arcname="ELLA-3c228f1/dpg_bench")
    assert load_suite("dpg") == prompts
    place.write_bytes(place.read_bytes()[:9000])
    with pytest.raises(BridgeError, match=rf"cannot read '{place}' \(.*\); delete it and try"):
        load_suite("dpg")


@pytest.mark.parametrize(
    "name", ["color_val.txt", "examples/dataset/color_val.txt", "t2i_compbench/color_val.txt"]
)
def test_a_folder_may_have_the_plain_name_or_the_repositorys(
    lists: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(lists / "t2i_compbench" / "color_val.txt", tmp_path / name)
    assert load_suite("t2i-compbench:color", folder=tmp_path)[299].id == "color-0299"


def test_without_a_folder_the_cache_is_read(lists: Path, cache: Path) -> None:
    place = cache / "prompts" / "google-research" / "parti@5a65797" / "PartiPrompts.tsv"
    place.parent.mkdir(parents=True)
    shutil.copy(lists / "parti" / "PartiPrompts.tsv", place)
    assert load_suite("parti") == load_suite("parti", folder=lists)
    place.chmod(0o644)
    place.write_bytes(place.read_bytes()[:-1])
    with pytest.raises(BridgeError, match=rf"{place} is damaged or another file"):
        load_suite("parti")


def test_offline_without_a_copy_the_line_says_what_to_put_where(
    tmp_path: Path, cache: Path
) -> None:
    url = (
        "https://raw.githubusercontent.com/djghosh13/geneval/"
        "af4902f24d3ca90ebbb446dd9891a59e0f82725f/prompts/evaluation_metadata.jsonl"
    )
    place = cache / "prompts/djghosh13/geneval@af4902f" / "prompts/evaluation_metadata.jsonl"
    with pytest.raises(BridgeError) as caught:
        load_suite("geneval", folder=tmp_path)
    assert str(caught.value) == (
        "cannot fetch evaluation_metadata.jsonl (HF_HUB_OFFLINE is set); "
        f"download {url} and put it at {place}, or into a folder given with --prompts"
    )


def test_another_list_under_a_suites_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "drawbench.txt").write_text("a cat\na dog\n")
    with pytest.raises(
        BridgeError,
        match=r"drawbench\.txt: not the list of suite 'drawbench' \(2 prompts with hash \w{16}, "
        r"expected 200 with 33849b492a944e83\); take https://raw.*/prompts/drawbench\.txt, or",
    ):
        load_suite("drawbench", folder=tmp_path)
    assert len(load_suite(str(tmp_path / "drawbench.txt"))) == 2


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (
            "genevl",
            r"unknown suite 'genevl'; known: short, .* \.jsonl file; did you mean 'geneval'",
        ),
        ("geneval:count", r"no category 'count'; known: single_object.*did you mean 'counting'"),
        ("short:color", "suite 'short' has no category 'color'; known: none"),
        ("missing.txt", r"cannot read prompts 'missing\.txt': No such file"),
    ],
)
def test_an_unknown_suite_lists_the_known(spec: str, reason: str) -> None:
    with pytest.raises(BridgeError, match=reason):
        load_suite(spec)


def test_the_list_has_every_suite_with_its_size_and_source() -> None:
    text = listing("suites")
    for suite in SUITES.values():
        assert re.search(rf"^  {suite.name} +{suite.count:,} prompts", text, re.MULTILINE)
        assert all(str(source) in text for source in suite.sources)
    assert "TencentQQGYLab/ELLA@3c228f1 (Apache-2.0)" in text


# ---- one's own lists


def written(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    path = written(tmp_path / "My list.txt", "\ufeffa cat\r\n\n  a/b\t\nein Löwe\u2028 und\r\nlast")
    prompts = load_suite(path)
    assert [p.text for p in prompts] == ["a cat", "a/b", "ein Löwe\u2028 und", "last"]
    assert [p.id for p in prompts] == [f"my-list-000{i}" for i in range(4)]
    assert prompts[0] == Prompt("my-list-0000", "a cat")


def test_a_table_is_read_by_its_header_or_else_by_its_last_column(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tsv", 'ID\tPrompt\tCategory\tNote\nx1\tsay "hi\tFood & More\t\n\tb\t\tq\n'
    )
    assert load_suite(path) == [
        Prompt("x1", 'say "hi', "Food & More"),
        Prompt("a-0000", "b", facts={"Note": "q"}),
    ]
    path = written(tmp_path / "b.tsv", "1.png\ta cat\r\n2.png\ta dog")
    assert [p.text for p in load_suite(path)] == ["a cat", "a dog"]


def test_json_lines_hold_any_prompt(tmp_path: Path) -> None:
    rows = [
        {"prompt": "one\ntwo", "category": "c", "n": [1]},
        {"prompt": "x" * 2000, "id": 7, "category": None},
        {"long": "a long one", "short": "one", "id": "p-1"},
    ]
    prompts = load_suite(written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert prompts == [
        Prompt("c-0000", "one\ntwo", "c", facts={"n": [1]}),
        Prompt("7", "x" * 2000),
        Prompt("p-1", "a long one", short="one"),
    ]


def test_duplicates_are_kept_and_counted(tmp_path: Path) -> None:
    prompts = load_suite(written(tmp_path / "a.txt", "a cat\na dog\na cat\n"))
    assert [p.id for p in prompts] == ["a-0000", "a-0001", "a-0002"]
    assert duplicates(prompts) == 1


def test_the_hash_is_of_ids_texts_and_categories() -> None:
    one = Prompt("a", "b", "c")
    digest = prompt_hash([one])
    assert digest == prompt_hash([Prompt("a", "b", "c", short="s", facts={"n": 1})])
    for key in ("id", "text", "category"):
        changed = Prompt(**dataclasses.asdict(one) | {key: "x"})
        assert prompt_hash([changed]) != digest


def test_a_limit_is_spread_evenly_over_the_categories(tmp_path: Path) -> None:
    assert [p.id for p in load_suite("shapes", limit=8)] == [
        "color-0000",
        "color-0001",
        "shape-0000",
        "shape-0001",
        "texture-0000",
        "spatial-0000",
        "count-0000",
        "complex-0000",
    ]
    path = written(tmp_path / "a.txt", "a\nb\nc\n")
    assert [p.text for p in load_suite(path, limit=2)] == ["a", "b"]
    assert len(load_suite(path, limit=9)) == 3
    with pytest.raises(BridgeError, match="the limit must be at least 1 prompt, not 0"):
        load_suite(path, limit=0)
    with pytest.raises(BridgeError, match=r"no folder '.*none' to look for prompts in"):
        load_suite("short", folder=tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "", r"'.*a\.txt' holds no prompts"),
        ("a.txt", "\n \r\n", r"'.*a\.txt' holds no prompts"),
        ("a.tsv", "prompt\tid\n", r"'.*a\.tsv' holds no prompts"),
        ("a.jsonl", "", r"'.*a\.jsonl' holds no prompts"),
        ("a.txt", b"fine\ncaf\xe9\n", r"a\.txt:2: not UTF-8 text; save the file as UTF-8"),
        ("a.tsv", "prompt\tid\na cat\t1\na dog\n", r"a\.tsv:3: 1 columns, .* first line has 2"),
        ("a.tsv", "1\ta\n2\tb\tc\n", r"a\.tsv:2: 3 columns, but the first line has 2"),
        ("a.tsv", "id\tprompt\n1\t \n", r"a\.tsv:2: the prompt is empty"),
        ("a.tsv", "id\tprompt\na/b\tx\n", r"a\.tsv:2: id 'a/b' cannot name a file; use letters"),
        ("a.tsv", "id\tprompt\na\tx\nA\ty\n", r"a\.tsv:3: id 'A' is taken by an earlier prompt"),
        ("a.jsonl", '{"prompt": "a"}\n{oops\n', r"a\.jsonl:2: not valid JSON"),
        ("a.jsonl", "[" * 9999, r"a\.jsonl:1: not valid JSON"),
        ("a.jsonl", '{"prompt": "\\ud800"}', r"a\.jsonl:1: not valid JSON: 'utf-8' codec"),
        ("a.jsonl", '["a"]', r"a\.jsonl:1: expected an object, as"),
        ("a.jsonl", '{"text": "a"}', r"a\.jsonl:1: no 'prompt'; it has text"),
        ("a.jsonl", '{"prompt": ["a"]}', r"a\.jsonl:1: 'prompt' must be text"),
        ("a.jsonl", '{"prompt": "a", "category": true}', r"a\.jsonl:1: 'category' must be text"),
        ("a.jsonl", '\n{"prompt": " \\n"}', r"a\.jsonl:2: the prompt is empty"),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, reason: str
) -> None:
    with pytest.raises(BridgeError, match=reason) as caught:
        load_suite(written(tmp_path / name, content))
    assert "\n" not in str(caught.value)
