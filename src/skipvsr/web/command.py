"""What a person chose on the page, as the command line that does it: jobs run it, and the page shows it to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from skipvsr.errors import ConfigError

MIN_SIDE_PX, MAX_SIDE_PX = 16, 32768
MAX_SECTION_SECONDS = 10.0
# Name on the page: encoder, the container it needs (None: any), and whether it takes a constant rate factor.
ENCODINGS = {
    "h264": ("libx264", None, True),
    "h265": ("libx265", None, True),
    "ffv1": ("ffv1", ".mkv", False),
}
# What sound may become, beside being copied.
SOUNDS = ("aac", "opus", "flac", "none")
_MAX_STEM_BYTES = 160
# Containers in which browsers play H.264.
_PLAYED = (".mp4", ".m4v", ".mov")


@dataclass(frozen=True)
class JobSettings:
    """How a video is to be upscaled.

    Args:
        model: name of a packaged model, bicubic, or auto: the packaged one that fits the file.
        scale: 2 or 4, of the model that auto takes; None: 4, or what is nearer to the height.
        budget: ratio of the residual blocks' work, in (0, 1]; None: all of it.
        height: of the frame that is written, in pixels; None: as many times larger as the model makes it.
        encoding: a key of ENCODINGS; None: by the source, in the container that fits it.
        crf: constant rate factor; None: visually lossless.
        audio: what becomes of sound, as `EncodeOptions` has it; None: it is copied.
        subtitles: False: left out.
        start, end: seconds of the file's own clock; None: all of it.

    Raises:
        ConfigError: a value out of its range.
    """

    model: str = "auto"
    scale: int | None = None
    budget: float | None = None
    height: int | None = None
    encoding: str | None = None
    crf: int | None = None
    audio: str | None = None
    subtitles: bool = True
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        if self.budget is not None and not 0 < self.budget <= 1:
            raise ConfigError(f"the budget is {self.budget}; it must be above 0 and at most 1")
        if self.height is not None and not MIN_SIDE_PX <= self.height <= MAX_SIDE_PX:
            raise ConfigError(f"the height is {self.height}; it must be from {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels")
        if self.scale not in (None, 2, 4):
            raise ConfigError(f"the scale is {self.scale}; it must be 2 or 4")
        if self.encoding is not None and self.encoding not in ENCODINGS:
            raise ConfigError(f"the encoding is {self.encoding!r}; choose one of {', '.join(ENCODINGS)}")
        if self.audio is not None and self.audio not in SOUNDS:
            raise ConfigError(f"sound is to be {self.audio!r}; choose one of {', '.join(SOUNDS)}")
        if self.crf is not None and not (self.takes_crf and 0 <= self.crf <= 51):
            raise ConfigError(f"the CRF is {self.crf}; it must be from 0 (best) to 51, and FFV1 has none")

    @classmethod
    def parse(cls, values: Any, models: Sequence[str]) -> JobSettings:
        """From JSON. Raises ConfigError for unknown names, values of another type, and models that there are not."""
        if not isinstance(values, Mapping):
            raise ConfigError("settings must be an object of names and values")
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ConfigError(f"there is no setting {unknown[0]!r}; settings are {', '.join(cls.__dataclass_fields__)}")
        kinds = {
            "model": str,
            "encoding": str,
            "audio": str,
            "scale": int,
            "height": int,
            "crf": int,
            "subtitles": bool,
        }
        for name, value in values.items():
            kind = kinds.get(name, (int, float))
            if value is None:
                continue
            if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
                what = "text" if kind is str else "true or false" if kind is bool else "a number"
                raise ConfigError(f"the setting {name} is {value!r}; it must be {what}")
        settings = cls(**{name: value for name, value in values.items() if value is not None})
        if settings.model not in models:
            raise ConfigError(f"there is no model {settings.model!r}; choose one of {', '.join(models)}")
        return settings

    @property
    def takes_crf(self) -> bool:
        """Whether the encoder has a constant rate factor."""
        return self.encoding is None or ENCODINGS[self.encoding][2]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the inverse of `parse`."""
        return asdict(self)


def output_name(source: str, settings: JobSettings, *, streams: bool) -> str:
    """The name of a result: in the source's container where browsers play it, else in one that holds whatever comes along.

    Args:
        source: name of the source.
        settings: of the job.
        streams: whether sound or subtitles come along.
    """
    path = PurePath(source)
    ending = path.suffix.lower()
    if settings.encoding is not None and not settings.takes_crf:
        ending = ENCODINGS[settings.encoding][1]
    elif ending not in _PLAYED:
        ending = ".mkv" if streams else ".mp4"
    part = "" if settings.start is None and settings.end is None else "-part"
    # File systems take 255 bytes, and what is unfinished has a longer name.
    stem = path.stem.encode()[:_MAX_STEM_BYTES].decode(errors="ignore")
    return f"{stem}-upscaled{part}{ending}"


def arguments(source: PurePath, destination: PurePath, settings: JobSettings) -> list[str]:
    """The words after `skipvsr` that upscale a file with these settings."""
    words = ["upscale", _word(source), _word(destination)]
    # auto is what the command line does by itself.
    words += [] if settings.model == "auto" else ["--model", settings.model]
    words += [] if settings.scale is None else ["--scale", str(settings.scale)]
    if settings.budget is not None and settings.budget < 1:
        words += ["--budget", f"{settings.budget:g}"]
    if settings.height is not None:
        words += ["--height", str(settings.height)]
    if settings.encoding is not None:
        words += ["--codec", ENCODINGS[settings.encoding][0]]
    if settings.crf is not None:
        words += ["--crf", str(settings.crf)]
    if settings.audio is not None:
        words += ["--audio", settings.audio]
    if not settings.subtitles:
        words.append("--no-subtitles")
    if settings.start is not None:
        words += ["--start", f"{settings.start:.6f}".rstrip("0").rstrip(".")]
    if settings.end is not None:
        words += ["--end", f"{settings.end:.6f}".rstrip("0").rstrip(".")]
    return words


def command_line(source: str, destination: str, settings: JobSettings) -> str:
    """The same as a line for a shell."""
    return shlex.join(["skipvsr", *arguments(PurePath(source), PurePath(destination), settings)])


def _word(path: PurePath) -> str:
    """A path that cannot be taken for an option."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text
