"""A stand-in of the Hugging Face Hub on loopback: its HTTP for models that are pushed and fetched.

The client is the real one. What is kept: repositories of models as files in memory, whose tokens
there are, and what is to go wrong.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

OWN = "secret-of-me"
"""The token of the user `me`, who is in the organisation `lab`."""
READS = "secret-that-reads"
LICENCES = {"apache-2.0", "mit", "creativeml-openrail-m", "llama2", "cc-by-nc-4.0", "other"}
PLAIN = re.compile(r"(?:[\w-]+/)?[\w.-]+")


@dataclass
class Repository:
    """One model on the Hub."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    """Their messages."""

    @property
    def sha(self) -> str:
        told = json.dumps([sorted(self.files), self.commits]).encode()
        return hashlib.sha1(told).hexdigest()


@dataclass
class Hub:
    """What is on the Hub, what was asked of it, and what goes wrong."""

    address: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    gated: dict[str, int] = field(default_factory=dict)
    """By repository the status with which it is refused."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256, committed or not."""
    asked: list[str] = field(default_factory=list)
    """Requests, as `GET /path`."""
    lose_commits: int = 0
    """How many commits to hang up on, before anything is done."""
    lose_answers: int = 0
    """How many commits to hang up on once they are done."""
    before_commit: Callable[[], object] | None = None
    """What happens once, when a commit has been asked for: another's, say."""
    forbidden: bool = False
    """Whether tokens lack the right to make repositories and to write."""


@contextmanager
def serve() -> Iterator[Hub]:
    """The stand-in, while it runs."""

    class Handler(Answers):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.hub = Hub(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield Handler.hub
        finally:
            server.shutdown()


@contextmanager
def in_its_place(cache: Path) -> Iterator[Hub]:
    """The stand-in as this process's Hub, with a token of `me`; `cache` keeps what is fetched."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with serve() as served, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("HF_TOKEN", OWN)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "ENDPOINT", served.address)
        template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        close_session()
        yield served
        close_session()


class Answers(BaseHTTPRequestHandler):
    """The Hub's side of a request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    # ---- how an answer is given

    def answer(self, status: int, body: Any = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, message: str, code: str = "") -> None:
        headers = {"X_Error_Message": message} | ({"X_Error_Code": code} if code else {})
        self.answer(status, {"error": message}, **headers)

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    # ---- requests

    def do_HEAD(self) -> None:
        self.route()

    def do_GET(self) -> None:
        self.route()

    def do_POST(self) -> None:
        self.route()

    def do_PUT(self) -> None:
        self.route()

    def route(self) -> None:
        path, body = unquote(self.path.partition("?")[0]), self.body()
        if path != "/api/agent-harnesses":  # the client asks once a day who runs it
            self.hub.asked.append(f"{self.command} {path}")
        routes: dict[str, Callable[..., None]] = {
            r"/api/whoami-v2": self.who,
            r"/api/models": lambda _: self.answer(200, []),
            r"/api/repos/create": self.create,
            r"/api/validate-yaml": self.validate,
            r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/.+)?": self.about,
            r"/api/models/([\w.-]+/[\w.-]+)/tree/.+": self.tree,
            r"/api/models/([\w.-]+/[\w.-]+)/preupload/main": self.preupload,
            r"/api/models/([\w.-]+/[\w.-]+)/commit/main": self.commit,
            r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch": self.batch,
            r"/large/(\w+)": self.store,
            r"/([\w.-]+/[\w.-]+)/resolve/[^/]+/(.+)": self.resolve,
        }
        for pattern, route in routes.items():
            if match := re.fullmatch(pattern, path):
                route(body, *match.groups())
                return
        self.refuse(404, f"no {path} here")

    def who(self, _: bytes) -> None:
        if self.token not in (OWN, READS):
            self.refuse(401, "Invalid user token.")
            return
        role = "read" if self.token == READS else "write"
        self.answer(
            200, {"name": "me", "orgs": [{"name": "lab"}], "auth": {"accessToken": {"role": role}}}
        )

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if self.hub.forbidden or asked["organization"] not in ("me", "lab"):
            self.refuse(403, f"You don't have the rights to create {name}")
        elif name in self.hub.repositories:
            self.refuse(409, "You already created this model repo")
        else:
            self.hub.repositories[name] = Repository(asked.get("visibility") == "private")
            self.answer(200, {"url": f"{self.hub.address}/{name}"})

    def validate(self, body: bytes) -> None:
        """The rules of the Hub that a card of ours may break."""
        content = json.loads(body)["content"]
        head = yaml.safe_load(content.split("---\n")[1])
        errors = []
        if head.get("license") not in LICENCES:
            errors.append(f'"license" must be one of {sorted(LICENCES)}')
        if head.get("license") == "other" and not re.fullmatch(
            r"[a-z0-9.-]+", head.get("license_name", "")
        ):
            errors.append('"license_name" fails to match the required pattern')
        for model in head.get("model-index", ()):
            for result in model["results"]:
                if not PLAIN.fullmatch(result["dataset"]["type"]):
                    errors.append('"dataset.type" fails to match the required pattern')
        for base in head.get("base_model", ()):
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
                errors.append('"base_model" with value must be a model id')
        told = {"errors": [{"message": each} for each in errors], "warnings": []}
        self.answer(400 if errors else 200, told)

    def about(self, _: bytes, name: str) -> None:
        if (found := self.found(name)) is not None:
            self.answer(
                200,
                {
                    "id": name,
                    "sha": found.sha,
                    "private": found.private,
                    "siblings": [{"rfilename": file} for file in found.files],
                },
            )

    def tree(self, _: bytes, name: str) -> None:
        if (found := self.found(name)) is not None:
            files = found.files.items()
            told = [
                {"path": path, "size": len(data), "oid": oid(data, large=False)}
                for path, data in files
            ]
            self.answer(200, [one | {"type": "file"} for one in told])

    def found(self, name: str) -> Repository | None:
        """The repository, or the answer that there is none."""
        if name in self.hub.gated:
            self.refuse(self.hub.gated[name], "Access is restricted", "GatedRepo")
            return None
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and self.token not in (OWN, READS)):
            self.refuse(404 if self.token else 401, "Repository not found", "RepoNotFound")
            return None
        return repository

    def preupload(self, body: bytes, name: str) -> None:
        if (found := self.found(name)) is None:
            return
        if self.token != OWN or self.hub.forbidden:
            self.refuse(403, "Forbidden: you must use a write token")
            return
        told = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith((".safetensors", ".png"))
            there = found.files.get(file["path"])
            told.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": None if there is None else oid(there, large=large),
                }
            )
        self.answer(200, {"files": told})

    def batch(self, body: bytes, _: str) -> None:
        objects = []
        for each in json.loads(body)["objects"]:
            place = {"upload": {"href": f"{self.hub.address}/large/{each['oid']}"}}
            todo = {} if each["oid"] in self.hub.stored else {"actions": place}
            objects.append({"oid": each["oid"], "size": each["size"], **todo})
        self.answer(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, digest: str) -> None:
        assert hashlib.sha256(body).hexdigest() == digest
        self.hub.stored[digest] = body
        self.answer(200)

    def commit(self, body: bytes, name: str) -> None:
        if self.hub.lose_commits:
            self.hub.lose_commits -= 1
            self.close_connection = True
            return
        if happens := self.hub.before_commit:
            self.hub.before_commit = None
            happens()
        repository = self.hub.repositories[name]
        parent = json.loads(body.splitlines()[0])["value"].get("parentCommit")
        if parent not in (None, repository.sha):
            self.refuse(412, "A commit has happened since. Please refresh and try again.")
            return
        files, message = dict(repository.files), ""
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.stored[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        repository.files = files
        repository.commits.append(message)
        if self.hub.lose_answers:
            self.hub.lose_answers -= 1
            self.close_connection = True
            return
        sha = repository.sha
        self.answer(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha})

    def resolve(self, _: bytes, name: str, path: str) -> None:
        if (found := self.found(name)) is None:
            return
        if path not in found.files:
            self.refuse(404, "Entry not found", "EntryNotFound")
            return
        data = found.files[path]
        self.answer(200, data, X_Repo_Commit=found.sha, ETag=f'"{oid(data, large=True)}"')


def oid(data: bytes, *, large: bool) -> str:
    """By what the Hub knows a file: SHA-256, or git's own for a small one."""
    if large:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
