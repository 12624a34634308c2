"""How long a user waits for the command line: medians of seven cold starts."""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import lavi_bridge": ["-c", "import lavi_bridge"],
    "lavi-bridge --help": ["-m", "lavi_bridge", "--help"],
    "lavi-bridge train --help": ["-m", "lavi_bridge", "train", "--help"],
    "from lavi_bridge import Bridge": ["-c", "from lavi_bridge import Bridge"],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    for name, arguments in COMMANDS.items():
        median = statistics.median(seconds(arguments) for _ in range(7))
        print(f"{name:32} {median:6.2f} s")
