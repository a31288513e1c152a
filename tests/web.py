"""A running `skipvsr serve`, and requests to it as a browser on the page would send them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

# Longer than anything takes, on a machine that has other things to do.
PATIENCE_SECONDS = 240.0


@dataclass(frozen=True)
class Answer:
    """Of the server: the status, the headers in lower case, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """The command line in a process of its own. A context manager.

    Args:
        work: the work folder.
        words: further options.
    """

    def __init__(self, work: Path, *words: str) -> None:
        self.work = work
        self._command = [sys.executable, "-m", "skipvsr", "serve", "--json", "--work", str(work), *words]
        self._port = "0"
        self._cookie: str | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; a second time at the same address."""
        # What was measured on this machine before is none of its business; what it measures itself is, after a restart too.
        cache = str(self.work.with_name(f"{self.work.name}-cache"))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "SKIPVSR_CACHE": cache}
        self.process = subprocess.Popen(
            [*self._command, "--port", self._port], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        ready = json.loads(self.process.stdout.readline())
        assert ready["event"] == "ready"
        self.address: str = ready["address"]
        split = urlsplit(self.address)
        assert split.port is not None
        self.host, self.port, self._port = split.hostname or "", split.port, str(split.port)
        self.netloc = split.netloc

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """End it as by kill -9."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, *, as_page: bool = True
    ) -> Answer:
        """One request. Bytes are sent as they are, all else as JSON.

        Args:
            as_page: with the headers that a browser sends from the page itself.
        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_SECONDS)
        sent = {"Origin": f"http://{self.netloc}", "Sec-Fetch-Site": "same-origin"} if as_page else {}
        if self._cookie:
            sent["Cookie"] = self._cookie
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body, {**sent, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a request that must succeed."""
        answer = self.ask(method, path, body)
        assert answer.status < 300, answer.body
        return answer.json if answer.body else None

    def enter(self, token: str) -> None:
        """Open the link with the token, and keep its cookie."""
        answer = self.ask("GET", f"/?token={token}", as_page=False)
        assert answer.status == 303
        self._cookie = answer.headers["set-cookie"].partition(";")[0]

    def leave(self) -> None:
        """Forget the cookie: be somebody else."""
        self._cookie = None

    def upload(self, path: Path, name: str | None = None) -> dict[str, Any]:
        """Upload a file; the source that it becomes."""
        return self.ok("PUT", f"/api/uploads?name={quote(name or path.name)}", path.read_bytes())

    def job(self, id: str) -> dict[str, Any]:
        """A job as the page sees it."""
        return next(job for job in self.ok("GET", "/api/state")["jobs"] if job["id"] == id)

    def wait_for_job(self, id: str, *states: str) -> dict[str, Any]:
        """The job, when it is in one of the states."""
        return wait_for(lambda: (job := self.job(id))["state"] in states and job)


def wait_for(condition: Callable[[], Any]) -> Any:
    """What the condition returns, when that is true for the first time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen")
