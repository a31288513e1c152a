"""Translates the errors of FFmpeg and of the operating system into those of `skipvsr.errors`."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from av.error import FFmpegError

from skipvsr.errors import InputError, OutputError, SkipVSRError
from skipvsr.video.limits import MAX_PIXELS

# Only plain files: a playlist or a crafted header must not make us open anything else.
OPEN_OPTIONS = {"protocol_whitelist": "file"}
# Standard input or output.
PIPE = Path("-")
# For a file that is read through us: FFmpeg itself opens nothing at all, and reserves no memory for monstrous frames.
SOURCE_OPTIONS = {"protocol_whitelist": "none", "max_pixels": str(MAX_PIXELS)}


def file_name(path: Path) -> str:
    """The path as FFmpeg takes it for nothing but a file: absolute, because it reads "12:30.mp4" as a protocol."""
    return str(path.absolute())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn foreign errors into InputError."""
    try:
        yield
    except SkipVSRError:
        raise
    except PermissionError as error:
        raise InputError(f"{path} may not be read; check its permissions") from error
    except (OSError, FFmpegError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a video or image ({_reason(error)}); is it complete?") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn foreign errors into OutputError; BrokenPipeError stays as it is: the reader of a pipe has gone."""
    try:
        yield
    except SkipVSRError:
        raise
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise BrokenPipeError(errno.EPIPE, "nobody reads the output any more") from error
        if error.errno == errno.ENOSPC:
            raise OutputError(
                f"the disk is full: {path} could not be written; free some space and start again"
            ) from error
        raise OutputError(f"{path} cannot be written ({_reason(error)})") from error
    except (FFmpegError, ValueError) as error:
        raise OutputError(f"{path} cannot be written ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())
