"""All code in the pages: every Python block and every command of ours, run, planned or parsed.

For whoever writes a page: a block of ```python and a line of ```sh is run as it stands, in a folder
that is the page's own, after what comes before it on the page. Nothing has to be declared:

- What pages take as given is made when it is named: any `runs/…` is a bridge, any `….tsv` captions
  with their pictures, any `….txt` prompts (`PRESUPPOSED` in `workspace.py`).
- What an earlier line has shown already, flag by flag, is left to `make slow` (`rules.quick`).
- Training, drawing and judging are shortened by the options of `SHORTER` and `SHORTER_CALLS` in
  `rules.py`, which come last and so override the page's, and by fewer captions; what is not too
  long for that is run as written by `make slow`.
- `train`, `plan` and `cache` with models of the Hub are parsed, and planned by `make slow` from the
  real configs (`HUB` in `models.py`); all else runs with tiny ones in their place.
- `rules.fate` has all rules, in order, with their reasons: what serves, fetches, takes hours, needs
  several GPUs or a package that is not here is parsed by the real parser, or compiled.

Where the rules do not know better, a comment on the line before the fence does:
`<!-- code: parsed: REASON -->` (not run), `<!-- code: slow -->` (run by `make slow` alone, as
written) or `<!-- code: long -->` (shortened, and never run as written). Before a block of any
language `<!-- code: file NAME -->` puts its text into the page's folder as a file of that name.

`python -m tests.docs` prints the counts, `python -m tests.docs all` each piece and its fate.
"""

import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavi_bridge import Bridge
from lavi_bridge.cli import main as cli
from tests.docs import rules
from tests.docs.models import write_configs
from tests.docs.pages import METAVARIABLE, PAGES, ROOT, SHELLS, Block, sentences
from tests.docs.rules import Item, everything, shell_blocks, unparsed
from tests.docs.workspace import Made, Workspace

pytestmark = [
    # what prompts told freely are, for some of the bridges
    pytest.mark.filterwarnings("ignore:.*(are left out|are longer than):UserWarning"),
    # torch's own, where a page has more workers than this machine has cores
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    # huggingface_hub's own, where hf_xet is not used
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

ITEMS = everything()
QUICK = rules.quick()
RUN = [item for item in ITEMS if item.runs and item.declared != "slow"]


def those(*kinds: rules.Kind, type_: type = object) -> list[Item]:
    return [i for i in ITEMS if i.fate.kind in kinds and isinstance(i.code, type_)]


def each(items: list[Item]) -> pytest.MarkDecorator:
    """One test for each piece of code, called by page and line."""
    return pytest.mark.parametrize("item", items, ids=lambda item: item.id)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Workspace]:
    """`workspace("README.md")`: the folder and namespace of a page."""
    root = tmp_path_factory.mktemp("pages")
    made = Made(root / "presupposed")
    known: dict[tuple[str, str], Workspace] = {}

    def of(page: str, kind: str = "quick") -> Workspace:
        if (page, kind) not in known:
            folder = root / kind / page.replace("/", "-")
            known[page, kind] = Workspace(page, folder, made, QUICK if kind == "quick" else RUN)
        return known[page, kind]

    return of


# ---- what runs


@each(QUICK)
def test_it_runs(item: Item, workspace: Callable[..., Workspace]) -> None:
    workspace(item.code.page).run(item)


@pytest.mark.slow
@each([item for item in RUN if item not in QUICK])
def test_it_runs_as_well(item: Item, workspace: Callable[..., Workspace]) -> None:
    workspace(item.code.page, "slow").run(item)


@pytest.mark.slow
@each([item for item in ITEMS if rules.as_written(item)])
def test_it_runs_as_it_is_written(item: Item, workspace: Callable[..., Workspace]) -> None:
    workspace(item.code.page, "whole").run(item, whole=True)


# ---- what is planned


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real configs of the Hub's models, under their names."""
    folder = tmp_path_factory.mktemp("configs")
    write_configs(folder)
    return folder


def pair_of(item: Item) -> dict[str, Any]:
    """What `make_plan` and `Bridge.outline` are asked of a command."""
    settings = item.settings
    rank = getattr(settings, "rank", 32)
    ranks = {
        side: rank if (own := getattr(settings, side, None)) is None else own
        for side in ("language_rank", "vision_rank")
    }
    others = ("adapter", "adapter_parameters", "tokens", "language_layers", "layers", "template")
    asked = {name: getattr(settings, name) for name in others if hasattr(settings, name)}
    language = getattr(settings, "language", None) or "google-t5/t5-large"  # a cache needs none
    return {"language": language, "vision": settings.vision} | ranks | asked


def of_the_hub(items: list[Item]) -> list[Item]:
    return [item for item in items if "models of the Hub" in item.fate.why]


@pytest.mark.slow
@each(of_the_hub(those("planned")))
def test_its_pair_is_joined_on_the_real_configs(
    item: Item, configs: Path, monkeypatch: pytest.MonkeyPatch, outlines: dict[str, Bridge]
) -> None:
    monkeypatch.chdir(configs)
    asked = pair_of(item)
    if str(asked) not in outlines:
        outlines[str(asked)] = Bridge.outline(**asked)
    assert outlines[str(asked)].trainable_parameters()


@pytest.fixture(scope="module")
def outlines() -> dict[str, Bridge]:
    """Those that other commands have asked for."""
    return {}


@pytest.mark.slow
@each([item for item in of_the_hub(those("planned")) if item.args[0] == "plan"])
def test_the_plan_is_the_one_that_is_shown(
    item: Item, configs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(configs)
    cli.run(item.args)
    printed = capsys.readouterr().out
    if shown := rules.shown_below(item):
        assert printed.startswith(shown.removesuffix("…\n"))


@pytest.mark.slow
@each(
    [i for i in of_the_hub(those("planned")) if i.args[0] == "plan" or "--quantize" not in i.text]
)
def test_it_runs_with_tiny_models(item: Item, workspace: Callable[..., Workspace]) -> None:
    workspace(item.code.page, "tiny").run(item)


@pytest.mark.slow
@each([item for item in those("planned") if item not in of_the_hub(ITEMS)])
def test_its_jobs_are_planned(
    item: Item, workspace: Callable[..., Workspace], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace(item.code.page, "tiny").plan(item)
    assert ("GPU-hours" if "--full" in item.args else "0 of") in capsys.readouterr().out


# ---- what is parsed


@each([item for item in ITEMS if item.args])
def test_every_flag_and_value_is_known(item: Item) -> None:
    if unparsed(item.args):
        assert {item.args[0]} <= {*cli.COMMANDS, "--help", "--version", METAVARIABLE}
    else:
        assert item.settings


@each(those("parsed", type_=Block))
def test_it_compiles(item: Item) -> None:
    assert compile(item.text, item.id, "exec")


# ---- other programs


@pytest.mark.parametrize("block", shell_blocks(), ids=lambda block: block.id)
def test_the_shell_reads_it(block: Block) -> None:
    text = "\n".join(line.removeprefix("$ ") for line in block.text.splitlines())
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@each(those("others"))
def test_what_it_names_is_there(item: Item) -> None:
    program, *words = item.text.split()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    if program == "make":
        assert all(f"\n{word}:" in makefile for word in words)
    if program.endswith("pip"):
        extras = PROJECT["project"]["optional-dependencies"].keys()
        assert set(re.findall(r"\[([\w-]+)\]", item.text)) <= extras
    for word in words:  # files of the project
        folder, _, below = word.partition("/")
        if below and folder in FOLDERS:
            assert (ROOT / word).exists(), word


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = ("benchmarks", "comfyui", "docs", "examples", "src", "tests")


# ---- nothing escapes


def test_much_of_the_code_runs() -> None:
    assert len([item for item in ITEMS if item.runs]) > 40
    assert f"{len(those('others')):8} {rules.KINDS['others']}" in rules.counts()


def test_no_code_hides_from_the_tests() -> None:
    """In blocks of another language, or of none, or that are none."""
    command = re.compile(r"^(\$ )?(\S*/)?lavi-bridge [a-z]", re.MULTILINE)
    for block in rules.every_block():
        assert block.language in LANGUAGES, f"{block.id}: {block.language}"
        hides = block.language not in SHELLS and command.search(block.text)
        assert not hides, f"{block.id}: give it the language sh"
    for path in PAGES:
        indented = re.search(r"^ {4,}(\$ )?lavi-bridge [a-z]", sentences(path), re.MULTILINE)
        assert indented is None, f"{path}: {indented}: put it between fences"


LANGUAGES = {"", "text", "python", "json", "yaml", "toml", *SHELLS}
"""What the fences of pages say; a test does not know what to do with another."""


def test_what_a_comment_declares_is_understood() -> None:
    for block in rules.every_block():
        known = block.declared in ("", "slow", "long") or block.declared.startswith(
            ("parsed: ", "file ")
        )
        assert known, f"{block.id}: <!-- code: {block.declared} -->"
