"""A stand-in for the Hugging Face Hub on the loopback interface: what `huggingface_hub` asks of it for models.

It keeps whole commits in memory, and stores large files apart (LFS), as the Hub does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of-the-tests"
_REPO = r"([\w.-]+/[\w.-]+)"


@dataclass
class Repository:
    """Commits by their id, oldest first, and names of commits."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    private: bool = False


@dataclass
class Hub:
    """What the server knows, and what it was asked: (method, path)."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def commit_of(self, repository: str, revision: str) -> str | None:
        known = self.repositories[repository]
        revision = known.names.get(unquote(revision), unquote(revision))
        return revision if revision in known.commits else None

    def add(self, repository: str, lines: list[dict[str, Any]]) -> str:
        known = self.repositories[repository]
        files = dict(known.commits[known.names["main"]]) if "main" in known.names else {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
        commit = hashlib.sha1(repr((len(known.commits), sorted(files.items()))).encode()).hexdigest()
        known.commits[commit] = files
        known.names["main"] = commit
        return commit


@contextmanager
def serving() -> Iterator[Hub]:
    """The server, on a free port, until the end of the context."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._read()

    def do_HEAD(self) -> None:
        self._read()

    def do_PUT(self) -> None:
        self._note()
        content = self._content()
        self.hub.large[hashlib.sha256(content).hexdigest()] = content
        self._answer(200, b"")

    def do_POST(self) -> None:
        self._note()
        path, content = urlsplit(self.path).path, self._content()
        if path == "/api/validate-yaml":
            self._json(200, {"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, b"", {"X-Error-Message": "no valid token"})
        elif path == "/api/repos/create":
            self._create(json.loads(content))
        elif match := re.fullmatch(rf"/{_REPO}\.git/info/lfs/objects/batch", path):
            objects = json.loads(content)["objects"]
            answers = [
                {**each, "actions": {"upload": {"href": f"{self.hub.url}/large/{each['oid']}"}}} for each in objects
            ]
            self._json(200, {"transfer": "basic", "objects": answers})
        elif match := re.fullmatch(rf"/api/models/{_REPO}/(preupload|commit|tag)/(.+)", path):
            self._change(match[1], match[2], unquote(match[3]), content)
        else:
            self._answer(404, b"")

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
        exists = name in self.hub.repositories
        self.hub.repositories.setdefault(name, Repository(private=bool(wanted.get("private"))))
        self._json(409 if exists else 200, {"url": f"{self.hub.url}/{name}", "error": "exists" if exists else ""})

    def _change(self, repository: str, kind: str, revision: str, content: bytes) -> None:
        if kind == "preupload":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(content)["files"]
            ]
            self._json(200, {"files": files})
        elif kind == "commit":
            commit = self.hub.add(repository, [json.loads(line) for line in content.splitlines()])
            self._json(
                200, {"commitOid": commit, "commitUrl": f"{self.hub.url}/{repository}/commit/{commit}", "success": True}
            )
        else:
            self.hub.repositories[repository].names[json.loads(content)["tag"]] = revision
            self._json(200, {})

    def _read(self) -> None:
        self._note()
        path = urlsplit(self.path).path
        if match := re.fullmatch(rf"/api/models/{_REPO}(?:/revision/([^/]+))?", path):
            commit = self._commit(match[1], match[2] or "main")
            if commit is not None:
                files = self.hub.repositories[match[1]].commits[commit]
                self._json(200, {"id": match[1], "sha": commit, "siblings": [{"rfilename": name} for name in files]})
        elif match := re.fullmatch(rf"/api/models/{_REPO}/tree/([^/]+)", path):
            commit = self._commit(match[1], match[2])
            if commit is not None:
                files = self.hub.repositories[match[1]].commits[commit]
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files.items()
                ]
                self._json(200, tree)
        elif match := re.fullmatch(rf"/{_REPO}/resolve/([^/]+)/(.+)", path):
            commit = self._commit(match[1], match[2])
            if commit is not None:
                data = self.hub.repositories[match[1]].commits[commit].get(match[3])
                if data is None:
                    self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                else:
                    etag = f'"{hashlib.sha256(data).hexdigest()}"'
                    self._answer(200, data, {"ETag": etag, "X-Repo-Commit": commit})
        else:
            self._answer(404, b"")

    def _commit(self, repository: str, revision: str) -> str | None:
        """The commit that is meant; where there is none, that is answered."""
        if repository not in self.hub.repositories:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        commit = self.hub.commit_of(repository, revision)
        if commit is None:
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _note(self) -> None:
        self.hub.requests.append((self.command, urlsplit(self.path).path))

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, status: int, value: object) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
