"""How code is found in pages: blocks, commands and what stands before them."""

from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.pages import blocks, commands, ours, split

PAGE = """# A page with `lavi-bridge list zoo` in
a sentence, and `torchrun … -m
lavi_bridge train a.yaml` over two lines.

<!-- code: slow -->
```sh
.venv/bin/lavi-bridge plan --language "a b" \\
    --vision c > plan.txt   # the pair's plan
CUDA_VISIBLE_DEVICES=0 torchrun --nproc_per_node 8 -m lavi_bridge train x.yaml && make test
eval "$(lavi-bridge completion bash)"
curl -d '{
  "n": 1}'
```

```
the plan
```

1. In a list:

   ```python
   if True:
       print("`lavi-bridge no command`")
   ```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


def test_blocks_have_their_place_their_text_and_what_is_declared(page: Path) -> None:
    shell, plain, python = blocks(page)
    assert (shell.id, shell.language, shell.declared) == ("page.md:6", "sh", "slow")
    assert (plain.text, plain.follows, plain.declared) == ("the plan\n", shell.line, "")
    assert (python.line, python.text.splitlines()[0], python.follows) == (21, "if True:", None)


def test_commands_are_found_by_whatever_starts_them(page: Path) -> None:
    found = {(each.line, *(each.arguments or each.words)) for each in commands(page)}
    assert found == {
        (1, "list", "zoo"),
        (2, "train", "a.yaml"),
        (7, "plan", "--language", "a b", "--vision", "c"),
        (9, "train", "x.yaml"),
        (9, "make", "test"),
        (10, "completion", "bash"),
        (10, "eval", "$(lavi-bridge completion bash)"),
        (11, "curl", "-d", '{\n  "n": 1}'),
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lavi-bridge doctor | head -3", ["doctor"]),
        ("python3 -m lavi_bridge list zoo; true", ["list", "zoo"]),
        ("accelerate launch --config_file a.yaml -m lavi_bridge train b.yaml", ["train", "b.yaml"]),
        ("python -m pytest tests", None),
        ("pip install lavi-bridge", None),
    ],
)
def test_ours_is_told_from_other_programs(line: str, words: list[str] | None) -> None:
    assert ours(split(line)[0]) == words


def test_a_block_without_an_end_is_named(page: Path) -> None:
    page.write_text("# A\n\n```sh\nls\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"page\.md:3: the block does not end"):
        blocks(page)
