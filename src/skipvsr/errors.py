"""Everything that skipvsr raises for a user's mistake or a fault from outside.

    SkipVSRError
    ├── ConfigError          a setting that does not exist or cannot work
    ├── ShapeError           a tensor or frame of the wrong shape
    ├── ModelError           a model that cannot be found or used
    │   └── CheckpointError  a weight file that cannot be read or represented
    ├── InputError           a video, image or folder that cannot be read
    │   └── DecodeError      a stream that stopped decoding part of the way
    ├── OutputError          a place that cannot be written
    ├── ResourceError        memory that ran out
    ├── CrashError           a process that crashed, was ended by the system or hung
    ├── BatchError           some of many files
    ├── DataError            training or test data that is missing or broken
    └── TrainingError        a training run that cannot go on
        └── PausedError      a training run that stopped before its end, as asked, and goes on when it is resumed

Each message says what was got, what is allowed and what to do. The command line prints it on one line and exits
with `exit_code`.
"""

from __future__ import annotations


class SkipVSRError(Exception):
    """Base of all errors of this package."""

    exit_code = 1


class ConfigError(SkipVSRError, ValueError):
    """A setting that does not exist or cannot work."""

    exit_code = 2


class ShapeError(SkipVSRError, ValueError):
    """A tensor or frame of the wrong shape."""


class ModelError(SkipVSRError):
    """A model that cannot be found or used."""


class CheckpointError(ModelError):
    """A weight file that cannot be read, or holds what this package cannot represent."""


class InputError(SkipVSRError):
    """A video, image or folder that cannot be read."""


class DecodeError(InputError):
    """A stream that stopped decoding part of the way; what came before it is not lost."""

    exit_code = 3


class OutputError(SkipVSRError):
    """A place that cannot be written."""


class ResourceError(SkipVSRError):
    """Memory that ran out."""


class CrashError(SkipVSRError):
    """A process of ours that crashed, was ended by the system or hung; the file that it worked on is not finished."""


class BatchError(SkipVSRError):
    """Some of many files failed. The exit code is that of the worst: 1, or 3 where all merely ended early.

    Args:
        message: how many.
        exit_codes: of their errors.
    """

    def __init__(self, message: str, exit_codes: list[int]) -> None:
        super().__init__(message)
        self.exit_code = DecodeError.exit_code if set(exit_codes) == {DecodeError.exit_code} else 1


class DataError(SkipVSRError):
    """Training or test data that is missing or broken."""


class TrainingError(SkipVSRError):
    """A training run that cannot go on."""


class PausedError(TrainingError):
    """A training run that stopped before its end because it was asked to; resuming goes on. EX_TEMPFAIL of sysexits.h."""

    exit_code = 75
