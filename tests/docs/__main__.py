"""`python -m tests.docs`: the counts; with an argument, every piece of code with its fate."""

import sys

from tests.docs.pages import Block
from tests.docs.rules import counts, everything

if sys.argv[1:]:
    for item in everything():
        code = item.code.language if isinstance(item.code, Block) else " ".join(item.code.words)
        print(f"{item.id}: {item.fate.kind}: {item.fate.why or '–'}: {code[:80]!r}")
print(counts())
