"""The way onto the Hub: who asks, what is there already, and one commit."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lavi_bridge.bridge.folder import INDEX
from lavi_bridge.errors import BridgeError, first_line, in_a_line
from lavi_bridge.files.locate import hub_name
from lavi_bridge.files.private import Contents
from lavi_bridge.publish.source import README

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OF_NO_MODEL = (".gitattributes", ".gitignore", README, "LICENSE", "LICENSE.md", "LICENSE.txt")
"""Files that a repository may have before a bridge comes into it."""
OF_A_CARD = "Invalid metadata in README.md"
"""How huggingface_hub begins what the Hub says of a card, in a ValueError."""
TOKENS = "https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class There:
    """A repository as it was before the push."""

    commit: str | None = None
    """None where there is no repository."""
    earlier: list[str] = field(default_factory=list)
    """Files that an earlier push has sent and that are still there."""


@dataclass(frozen=True)
class Sent:
    """A repository after the push."""

    url: str
    commit: str
    new: bool
    """Whether anything had changed; there is no new commit otherwise."""


def sign_in(api: HfApi, name: str) -> None:
    """Make sure that there is a token, and that it may write where `name` says.

    Raises:
        BridgeError: there is none, the Hub refuses it, or it is another's name.
    """
    with told(name):
        account = api.whoami()
    owner = name.split("/")[0]
    own = [account["name"], *(each["name"] for each in account.get("orgs", []))]
    if owner.casefold() not in map(str.casefold, own):
        raise BridgeError(
            f"the token is of '{account['name']}', who cannot publish as '{owner}'; names that can "
            f"be taken: {', '.join(f'{each}/…' for each in own)}"
        )
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise BridgeError(f"the token may only read; make one that may write at {TOKENS}")


def look(api: HfApi, name: str, *, private: bool) -> There:
    """What is under the name already.

    Raises:
        BridgeError: something else than a bridge, or one whose record is damaged; or others see it
            and `private` is asked for.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    with told(name):
        try:
            found = api.repo_info(name)
        except RepositoryNotFoundError:
            return There()
        files = [sibling.rfilename for sibling in found.siblings or ()]
        others = [file for file in files if file not in OF_NO_MODEL]
        if others and INDEX not in files:
            raise BridgeError(
                f"'{name}' on the Hub holds something else than a bridge ('{others[0]}', say); "
                "choose another name"
            )
        if private and not found.private:
            raise BridgeError(
                f"'{name}' is there, and others see it; make it private in its settings on the "
                "Hub, or choose another name"
            )
        if INDEX not in files:
            return There(found.sha)
        with tempfile.TemporaryDirectory() as scratch:
            path = api.hf_hub_download(name, INDEX, revision=found.sha, local_dir=scratch)
            data = Path(path).read_bytes()
    return There(found.sha, [file for file in _sent(name, data) if file in files])


def _sent(name: str, data: bytes) -> list[str]:
    """What an earlier push has sent, by the record that it left on the Hub."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        record, why = None, first_line(error)
    else:
        why = "it does not list what was sent"
    sent = record.get("files", []) if isinstance(record, dict) else None
    if not isinstance(sent, list) or not all(isinstance(file, str) for file in sent):
        raise BridgeError(
            f"the {INDEX} of '{name}' on the Hub is damaged ({why}), so that nobody knows what an "
            "earlier push has sent: bring back its last good version there, or choose another name"
        )
    return sent


def check_model(api: HfApi, source: str, side: str) -> None:
    """Refuse a name for a base model that the Hub does not know.

    Raises:
        BridgeError: it does not.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    name = hub_name(source)
    if name is None:  # of the zoo, or of a package
        return
    with told(name):
        try:
            api.repo_info(name)
        except RepositoryNotFoundError as error:
            raise BridgeError(f"--{side} {source}: no model '{name}' on the Hub") from error


def send(
    api: HfApi, name: str, contents: Contents, there: There, *, private: bool, message: str
) -> Sent:
    """Make the repository what `contents` says, in one commit: all of it, or nothing is seen.

    Files that an earlier push has sent and that are no more are deleted; all others are left. It
    comes after the commit that was looked at, or not at all: two pushes cannot cross.

    Raises:
        BridgeError: it is not done; the line says whether to try again.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if there.commit is None:
        with told(name):
            api.create_repo(name, private=private or None)
        there = look(api, name, private=private)
    gone = [file for file in there.earlier if file not in contents]
    with told(name):
        # not upload_folder: with hf_xet it may send several commits, one after the other
        done = api.create_commit(
            name,
            [
                *(CommitOperationDelete(path_in_repo=file) for file in gone),
                *(
                    CommitOperationAdd(path_in_repo=file, path_or_fileobj=content)
                    for file, content in contents.items()
                ),
            ],
            commit_message=message,
            parent_commit=there.commit,
        )
    return Sent(f"{api.endpoint}/{name}", done.oid, done.oid != there.commit)


@contextmanager
def told(name: str) -> Iterator[None]:
    """What goes wrong on the Hub, as a BridgeError of one line that says what to do."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # its retries, and that nothing has changed; we say so
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise BridgeError(f"no token for the Hub: `hf auth login`, with one of {TOKENS}") from error
    except OfflineModeIsEnabled as error:
        raise BridgeError(
            "HF_HUB_OFFLINE keeps this machine off the Hub; unset it to publish (--dry-run OUT "
            "needs no Hub)"
        ) from error
    except HfHubHTTPError as error:
        missing = isinstance(error, RepositoryNotFoundError)
        raise BridgeError(_refused(name, error, error.response.status_code, missing)) from error
    except (HTTPError, LocalEntryNotFoundError) as error:  # of the transport
        raise BridgeError(
            f"the Hub cannot be reached, or the connection was lost ({first_line(error)}); on "
            f"'{name}' is all of this push or nothing: push again"
        ) from error
    except HFValidationError as error:
        raise BridgeError(f"the Hub has no such names: {first_line(error)}") from error
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            raise BridgeError(
                f"what answers in the Hub's place gives no JSON ({first_line(error)}): is there "
                "something between, or another HF_ENDPOINT?"
            ) from error
        if not str(error).startswith(OF_A_CARD):
            raise
        reason = " ".join(str(error).split())
        raise BridgeError(f"the Hub does not take this card for '{name}': {reason}") from error
    except (RuntimeError, OSError) as error:  # of an upload, from its threads and from hf_xet
        raise BridgeError(
            f"{first_line(error)}{_cause(error)}; nothing of this push is seen on '{name}': push "
            "again"
        ) from error
    finally:
        logger.setLevel(level)


def _cause(error: Exception) -> str:
    cause = error.__cause__
    return f" ({in_a_line(cause)})" if isinstance(cause, Exception) else ""


def _refused(name: str, error: Exception, status: int, missing: bool) -> str:
    if status == 401 and not missing:
        return f"the Hub does not know this token; `hf auth login` again, with one of {TOKENS}"
    if status == 403:
        return (
            f"the token may not write to '{name}': it needs the right to write there, and to make "
            f"repositories ({TOKENS})"
        )
    if status in (409, 412):
        return (
            f"'{name}' was made or changed by somebody else while this push was on its way; "
            "nothing of it is seen: look what is there, and push again"
        )
    if missing:
        return f"'{name}' is not on the Hub, or the token may not see it ({TOKENS})"
    if status in (429, 500, 502, 503, 504):
        return (
            f"the Hub is busy ({first_line(error)}); nothing of this push is seen: try again later"
        )
    return f"the Hub refuses '{name}': {' '.join(str(error).split())}"
