"""`completion`: a script for bash or zsh, made from the fields of the commands' own settings.

tyro writes one for a single parser, and ours is one for each command. The script is whole: a shell
that has read it starts no Python for a key.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction

from lavi_bridge.cli.doctor import Doctor
from lavi_bridge.cli.draw import Generate, Influence
from lavi_bridge.cli.page import Page
from lavi_bridge.cli.publish import Export
from lavi_bridge.cli.train import DataCheck, PlanOptions
from lavi_bridge.cli.zoo import Convert, Demo, Interpolate, List, ZooBuild, ZooScore
from lavi_bridge.evaluate.judges.options import JudgeConfig
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.prompts.options import ExpandConfig
from lavi_bridge.publish.options import PushConfig
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.train.options import CacheConfig, TrainConfig


@dataclass
class Completion:
    """Print a script that completes commands, flags and what they take in your shell.

    In ~/.bashrc: eval "$(lavi-bridge completion bash)". In ~/.zshrc, after compinit: the same with
    zsh. Quicker, as a file: ~/.local/share/bash-completion/completions/lavi-bridge for bash,
    _lavi-bridge in a folder of $fpath for zsh.
    """

    shell: Positional[Literal["bash", "zsh"]]
    """The shell to write for."""


SETTINGS: dict[str, type] = {
    "train": TrainConfig,
    "generate": Generate,
    "influence": Influence,
    "page": Page,
    "evaluate": EvaluateConfig,
    "judge": JudgeConfig,
    "reproduce": ReproduceConfig,
    "expand": ExpandConfig,
    "plan": PlanOptions,
    "data check": DataCheck,
    "cache": CacheConfig,
    "list": List,
    "convert": Convert,
    "interpolate": Interpolate,
    "export": Export,
    "push": PushConfig,
    "doctor": Doctor,
    "completion": Completion,
    "demo": Demo,
    "zoo build": ZooBuild,
    "zoo score": ZooScore,
}
"""The settings of every command, and of every action of those that have several."""
NOT_FILES = {"recipe", "adapter", "device", "optimizer"}
"""Settings in text that are no file, whatever they are."""
REGISTERED = re.compile(r'^@ADAPTERS\.register\("([\w-]+)"', re.MULTILINE)
POSITIONAL, OMITS_PREFIX, APPENDS = (
    mark[int].__metadata__[0] for mark in (Positional, OmitArgPrefixes, UseAppendAction)
)
"""Marks of a field: without a flag; of several flags; a flag that may be repeated."""


@dataclass(frozen=True)
class Takes:
    """What may follow a flag, or stand without one."""

    count: Literal["none", "one", "many"]
    files: bool = False
    values: tuple[str, ...] = ()


def completion(args: list[str]) -> None:
    """Print a script that completes commands, flags and values in bash or zsh."""
    options = tyro.cli(Completion, args=args, prog="lavi-bridge completion")
    print(script(options.shell), end="")


def names() -> dict[str, tuple[str, ...]]:
    """By setting, what its text may be besides a file: what ships with the package."""
    from lavi_bridge.files.locate import BRIDGES, ZOO, ZOO_PREFIX, zoo_names
    from lavi_bridge.prompts.catalogue import SUITES
    from lavi_bridge.recipes import RECIPES

    models = {f"{ZOO_PREFIX}{name}": ZOO / name for name in zoo_names()}
    visions = [name for name, folder in models.items() if (folder / "model_index.json").is_file()]
    folder = Path(__file__).parents[1] / "adapters"
    files = sorted(folder.glob("*.py"))  # the registry itself needs torch
    registered = [n for file in files for n in REGISTERED.findall(file.read_text(encoding="utf-8"))]
    bridges = [f"{ZOO_PREFIX}{path.name}" for path in sorted(BRIDGES.glob("*/"))]
    return {
        "language": tuple(name for name in models if name not in visions),
        "vision": tuple(visions),
        "bridge": (*bridges, *visions),
        "entries": (*bridges, *visions),
        "a": tuple(bridges),
        "b": tuple(bridges),
        "names": tuple(zoo_names()),
        "data": ("shapes", "shapes:long", "shapes:free"),
        "recipe": tuple(RECIPES),
        "suite": tuple(SUITES),
        "suites": tuple(SUITES),
        "adapter": tuple(registered),
        "device": ("cpu", "cuda"),
    }


def flags(settings: type) -> dict[tuple[str, ...], Takes]:
    """The flags of a command and what they take; under `()` what stands without a flag."""
    known = names()
    found: dict[tuple[str, ...], Takes] = {(): Takes("none")}
    for name, hint in typing.get_type_hints(settings, include_extras=True).items():
        if name not in {field.name for field in dataclasses.fields(settings)}:
            continue
        marks, kinds = getattr(hint, "__metadata__", ()), list(_kinds(hint))
        if OMITS_PREFIX in marks:
            found |= {flag: takes for flag, takes in flags(kinds[0]).items() if flag}
            continue
        flag = name.replace("_", "-")
        if kinds == [bool]:
            found[f"--{flag}", f"--no-{flag}"] = Takes("none")
            continue
        choices = tuple(value for kind in kinds for value in typing.get_args(kind))
        text = not choices and bool({Path, str}.intersection(kinds))
        takes = Takes(
            "many" if list in kinds and APPENDS not in marks else "one",
            text and name not in NOT_FILES,
            choices or (known.get(name, ()) if text else ()),
        )
        if POSITIONAL not in marks:
            found[f"--{flag}",] = takes
        else:  # one after another, and all of them are offered at once
            before = found[()]
            values = tuple(dict.fromkeys(before.values + takes.values))
            found[()] = Takes("many", before.files or takes.files, values)
    return found


def _kinds(hint: Any) -> Iterator[Any]:
    """The types within a hint, without None: `list`, and those of its parts."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        yield from _kinds(typing.get_args(hint)[0])
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _kinds(part)
    elif origin is list:
        yield list
        yield from _kinds(typing.get_args(hint)[0])
    elif hint is not type(None):
        yield hint


# ---- the script


def script(shell: Literal["bash", "zsh"]) -> str:
    """What a shell reads to complete `lavi-bridge`."""
    actions: dict[str, list[str]] = {}
    commands: list[str] = []
    options: dict[Takes, list[str]] = {}
    for command, settings in SETTINGS.items():
        first, _, action = command.partition(" ")
        if action:
            actions.setdefault(first, []).append(action)
        found = flags(settings)
        free = found.pop(())
        shown = " ".join(["--help", *(flag for each in found for flag in each)])
        files = free.files or settings is TrainConfig  # whose YAML file is no field
        commands.append(f'"{command}") flags="{shown}"; {_offers(free.values, files)} ;;')
        for each, takes in found.items():
            if takes.count != "none":
                options.setdefault(takes, []).append(f'"{command} {each[0]}"')
    parts = {
        "FIRST": [" ".join(dict.fromkeys(command.partition(" ")[0] for command in SETTINGS))],
        "WITH_ACTIONS": ["|".join(actions)],
        "ACTIONS": [f'{name}) offers="{" ".join(each)}" ;;' for name, each in actions.items()],
        "COMMANDS": commands,
        "OPTIONS": [
            f"{'|'.join(each)}) takes={takes.count}; {_offers(takes.values, takes.files)} ;;"
            for takes, each in options.items()
        ],
    }
    text = {"bash": CORE + BASH, "zsh": "#compdef lavi-bridge\n" + CORE + ZSH}[shell]
    for name, lines in parts.items():
        text = text.replace(f"@{name}@", "\n    ".join(lines))
    return text


def _offers(values: tuple[str, ...], files: bool) -> str:
    return f'values="{" ".join(values)}"; more={"yes" if files else "no"}'


CORE = r"""# Completion for lavi-bridge, printed by `lavi-bridge completion`.

# The word at the cursor, and those between lavi-bridge and it -> offers (words), files (yes or no)
_lavi_bridge_offers() {
  local current="$1" command="" option="" given=0 word
  local flags="" values="" more=no takes=none free free_more
  shift
  offers="@FIRST@ --help --version" files=no
  [ "$#" = 0 ] && return
  command="$1"
  shift
  case "$command" in @WITH_ACTIONS@)
    if [ "$#" = 0 ]; then
      case "$command" in
    @ACTIONS@
      esac
      return
    fi
    command="$command $1"
    shift ;;
  esac
  for word in "$@"; do
    case "$word" in
      --*=*) option="" ;;
      --?*) option="$word" given=0 ;;
      *) given=$((given + 1)) ;;
    esac
  done
  case "$command" in
    @COMMANDS@
    *) offers=""; return ;;
  esac
  free="$values" free_more="$more" values="" more=no
  case "$command $option" in
    @OPTIONS@
  esac
  case "$takes$given" in
    one0|many*) offers="$values" files="$more" ;;
    *) offers="${free:-$flags}" files="$free_more" ;;
  esac
  case "$current" in
    -*) offers="$flags" files=no ;;
  esac
}
"""

BASH = r"""
_lavi_bridge() {
  local line="${COMP_LINE:0:COMP_POINT}" current="" offers files index last prefix
  local -a words
  IFS=$' \t' read -r -a words <<< "$line"
  last=$((${#words[@]} - 1))
  if [[ $line != *[[:space:]] ]]; then
    current="${words[last]}"
    unset "words[last]"
  fi
  if [[ $current == --*=* ]]; then
    words+=("${current%%=*}")
    current="${current#*=}"
  fi
  _lavi_bridge_offers "$current" "${words[@]:1}"
  local IFS=$' \t\n'
  COMPREPLY=($(compgen -W "$offers" -- "$current"))
  if [[ $files == no ]]; then
    compopt +o default 2> /dev/null
  elif [[ ${#COMPREPLY[@]} != 0 ]]; then
    IFS=$'\n'
    COMPREPLY+=($(compgen -f -- "$current"))
  fi
  # bash takes zoo:tiny-sd for three words, and replaces the last one
  prefix="${current%"${current##*:}"}"
  for index in "${!COMPREPLY[@]}"; do
    COMPREPLY[index]="${COMPREPLY[index]#"$prefix"}"
  done
}
complete -o default -F _lavi_bridge lavi-bridge
"""

ZSH = r"""
_lavi_bridge() {
  local offers files
  local -a before
  before=("${(@)words[2,CURRENT-1]}")
  if compset -P '--*='; then
    before+=("${IPREFIX%=}")
  fi
  _lavi_bridge_offers "$PREFIX" "${before[@]}"
  compadd -- ${=offers}
  [[ $files == yes ]] && _files
  return 0
}
if [ "${funcstack[1]}" = _lavi-bridge ]; then
  _lavi_bridge "$@"
else
  compdef _lavi_bridge lavi-bridge
fi
"""
