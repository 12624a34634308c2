"""The command line: one lazy import per command, so that `--help` costs nothing."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Callable

from lavi_bridge.cli.completion import completion
from lavi_bridge.cli.doctor import doctor
from lavi_bridge.cli.draw import evaluate, expand, generate, influence, reproduce
from lavi_bridge.cli.judge import judge
from lavi_bridge.cli.page import page
from lavi_bridge.cli.publish import export, push
from lavi_bridge.cli.train import cache, data, plan, train
from lavi_bridge.cli.zoo import convert, demo, interpolate, show_list, zoo
from lavi_bridge.errors import BridgeError, nearest
from lavi_bridge.running.openmp import sleep_while_waiting
from lavi_bridge.show.output import tolerate_all_signs
from lavi_bridge.version import __version__

EPILOG = """\
A model is a folder, a Hub id (owner/name[/subfolder][@revision]) or zoo:NAME.

  lavi-bridge plan --language google-t5/t5-large --vision CompVis/stable-diffusion-v1-4
  lavi-bridge train --language zoo:tiny-llama --vision zoo:tiny-sd --data shapes --no-flip \\
      --warm-start 400 --steps 100 --out runs/first
  lavi-bridge generate runs/first "a red circle left of a blue square"

`lavi-bridge COMMAND --help` explains a command."""

FIRST_STEPS = """\
lavi-bridge joins any language model to any image model. To try first, on bundled models:

  lavi-bridge generate zoo:tiny-sd "a red circle left of a blue square"
      a picture by an image model with its own text encoder, in images/
  lavi-bridge train --language zoo:tiny-llama --vision zoo:tiny-sd --data shapes --no-flip \\
      --rank 16 --warm-start 400 --lr-warm-start 8e-3 --steps 100 --out runs/first
      a small Llama learns to take its place, in a few minutes on two cores
  lavi-bridge generate runs/first "a red circle left of a blue square"
      the same, as the Llama reads it

`lavi-bridge --help` lists all commands; `lavi-bridge doctor` says what this machine has and lacks.
README.md and docs/ go on from here, with models of your own and the Hub's."""


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "generate": generate,
    "influence": influence,
    "page": page,
    "evaluate": evaluate,
    "judge": judge,
    "reproduce": reproduce,
    "expand": expand,
    "plan": plan,
    "data": data,
    "cache": cache,
    "list": show_list,
    "convert": convert,
    "interpolate": interpolate,
    "export": export,
    "push": push,
    "doctor": doctor,
    "completion": completion,
    "demo": demo,
    "zoo": zoo,
}


def overview() -> str:
    """What `lavi-bridge --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {run.__doc__}" for name, run in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lavi-bridge COMMAND …",
            "",
            "Join any pre-trained language model to any pre-trained image-diffusion model.",
            "",
            *lines,
            "",
            EPILOG,
        ]
    )


def main() -> None:
    """Run the command that the arguments name; bad input is one line on stderr and exit code 2."""
    sleep_while_waiting()  # before a command imports torch
    atexit.register(gc.freeze)  # or Python goes through all there is, for two seconds, to end
    tolerate_all_signs()
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        run(sys.argv[1:])
        sys.stdout.flush()
    except BridgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from lavi_bridge.running.machine import TORCH

        print(f"error: torch is not installed here; {TORCH}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def run(args: list[str]) -> None:
    """Run the command that the arguments name.

    Raises:
        BridgeError: there is no such command, or its input is bad.
    """
    if not args:
        print(FIRST_STEPS)
    elif args[0] in ("-h", "--help"):
        print(overview())
    elif args[0] in ("-V", "--version"):
        print(f"lavi-bridge {__version__}")
    elif args[0] in COMMANDS:
        COMMANDS[args[0]](args[1:])
    else:
        hint = nearest(args[0], COMMANDS)
        raise BridgeError(f"unknown command '{args[0]}'; known: {', '.join(COMMANDS)}{hint}")
