"""The page of a judge that is made up, as docs/judges.md shows it.

    python -m tests.evaluate.made_up OUT
    chromium --headless --window-size=860,1130 --screenshot=docs/judges.png OUT/judge.html

No model is asked. The answers are the truth with noise, more of it where a text is free or long and
where figures are counted or their places told; and they are too sure.
"""

import math
import random
import sys
from pathlib import Path

from lavi_bridge.evaluate.judges.items import ASKING, Item, of_pair
from lavi_bridge.evaluate.judges.page import PAGE, write
from lavi_bridge.evaluate.judges.pairs import CHANGES, pairs
from lavi_bridge.evaluate.judges.results import Result, sections_of

SIGNAL = {"color": 2.2, "shape": 1.8, "texture": 1.3, "spatial": 0.6, "count": 0.9, "complex": 1.1}
KIND = {"plain": 1.0, "free": 0.7, "long": 0.6, "one fact": 1.2}
SURE = 3.0
TITLES = {"vqascore": "VQAScore", "soft-tifa": "Soft-TIFA", "dpg-judge": "DPG by judge"}
PER_CATEGORY = 48


def score(item: Item) -> float:
    """The truth with noise, some of it the pair's."""
    signal = SIGNAL[item.category] * KIND[item.kind] * (1 if item.true else -1)
    noise = random.Random(item.cluster).gauss(0.3, 0.4) + random.Random(item.id).gauss(0, 1)
    return 1 / (1 + math.exp(-SURE * (signal + noise)))


def main(out: Path) -> None:
    """Write its page."""
    cases = [of_pair(p, ASKING, 128) for c in CHANGES for p in pairs(c, PER_CATEGORY, 0)]
    scores = {item.id: score(item) for case in cases for item in case.items}
    about = {"judge": "made up: the truth with noise", "weights": "none"}
    told = {
        name: about | {"mode": "faithful", "reading": "nothing", "question": "nothing is asked"}
        for name in ASKING
    }
    settings = {"categories": [*CHANGES], "per_category": PER_CATEGORY, "seed": 0}
    write(
        Result("Made-up (no model)", about, told, settings, sections_of(cases, scores, TITLES)), out
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    print(Path(sys.argv[1]) / PAGE)
