"""What `skipvsr serve` was asked for: where it listens, what it may read, and how much it takes."""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from skipvsr.errors import ConfigError

PORT = 8760
_GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """How much is taken in.

    Args:
        upload_bytes: of one file.
        disk_bytes: of the work folder; uploads and jobs are refused beyond.
        free_bytes: that stay free on its disk.
        jobs: unfinished ones a person.
        sources: open videos a person.
        uploads: at a time, of all persons.
        idle_seconds: without a byte, after which an upload is given up.
        connections: at a time; further ones are refused.
    """

    upload_bytes: int = 64 * _GIB
    disk_bytes: int = 512 * _GIB
    free_bytes: int = _GIB
    jobs: int = 50
    sources: int = 100
    uploads: int = 8
    idle_seconds: float = 60.0
    connections: int = 400

    def __post_init__(self) -> None:
        if self.upload_bytes < 1 or self.disk_bytes < 1:
            raise ConfigError("the limits of uploads and of the disk must be above 0")


@dataclass(frozen=True)
class ServeOptions:
    """How the page is served.

    Args:
        work: folder for uploads, previews, results and the queue; made if it is missing, readable by its owner alone.
        host: address to listen on.
        port: 0: any that is free.
        roots: folders from which videos may be picked; nothing outside them and `work` is read.
        token: a secret without which nothing is answered; None: none is needed on this machine, and one is made and kept in
            `work` where the page can be reached from others.
        host_names: names by which the page is reached, besides addresses and this machine's own name.
        limits: how much is taken in.
        device: on which previews and jobs run, as in `ComputeOptions`.

    Raises:
        ConfigError: a root that is no folder, a port that does not exist, or a token that is too short to be secret.
    """

    work: Path
    host: str = "127.0.0.1"
    port: int = PORT
    roots: tuple[Path, ...] = ()
    token: str | None = None
    host_names: tuple[str, ...] = ()
    limits: Limits = Limits()
    device: str = "auto"

    def __post_init__(self) -> None:
        for root in self.roots:
            if not root.is_dir():
                raise ConfigError(f"--root {root} is no folder; give a folder that holds videos")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"the port is {self.port}; it must be from 0 (any) to 65535")
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii() or not self.token.isprintable()):
            raise ConfigError("the token is too short or has unusual characters; give at least 8 letters and digits")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the page."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def default_work_folder() -> Path:
    """Where the operating system keeps what programs make for a user."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData/Local") / "skipvsr"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/skipvsr"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local/share") / "skipvsr"
