"""The configuration of a training run, read from TOML and checked."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from skipvsr.errors import ConfigError
from skipvsr.training.backbone import BackboneStage
from skipvsr.training.flow import FlowStage
from skipvsr.training.imitation import ImitationStage
from skipvsr.training.lean import LeanStage
from skipvsr.training.paper_skip import PaperSkipStage
from skipvsr.training.paths import resolve_paths
from skipvsr.training.router import RouterStage
from skipvsr.training.settings import STRICT, Data, Natural, Network, Validation
from skipvsr.training.skip import SkipStage


def _tag(stage: Any) -> str:
    """Which stage a table, or an object, is: by `kind`, and skip stages by `router` too."""
    told = stage.get if isinstance(stage, dict) else lambda key, default=None: getattr(stage, key, default)
    kind = told("kind")
    return "paper-skip" if kind == "skip" and told("router") == "paper" else str(kind)


AnyStage: TypeAlias = Annotated[
    Annotated[FlowStage, Tag("flow")]
    | Annotated[ImitationStage, Tag("imitate")]
    | Annotated[BackboneStage, Tag("backbone")]
    | Annotated[SkipStage, Tag("skip")]
    | Annotated[PaperSkipStage, Tag("paper-skip")]
    | Annotated[RouterStage, Tag("router")]
    | Annotated[LeanStage, Tag("lean")],
    Discriminator(_tag),
]
# Where pydantic says which of them a key belongs to; they are no keys of the file.
_TAGS = ("flow", "imitate", "backbone", "skip", "paper-skip", "router", "lean")


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """A whole run: its stages follow one another, each starting from the best model of the one before.

    Args:
        name: of the run; its folder is runs/NAME unless told otherwise.
        seed: of the weights, and of every draw of data.
        precision: "fp32"; "bf16" (autocast; for GPUs); "fp16" (autocast with scaled losses, for GPUs without bf16).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    network: Network
    data: Data
    validation: Validation
    stages: Annotated[list[AnyStage], Field(min_length=1)]
    seed: Natural = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read and check a TOML file. Relative paths in it start from its folder, those in overrides from the working directory.

    Args:
        path: the file.
        overrides: "key=value" each; the key's parts are joined by dots, stages are counted from 0
            ("stages.0.optimisation.steps=100"); the value is TOML, or plain text where it is not.

    Raises:
        ConfigError: the file is missing or no TOML, or a key is unknown, missing or impossible; the message names it.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; give a TOML file such as configs/smoke.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    resolve_paths(values, path.parent)
    for override in overrides:
        _override(values, override)
    try:
        # Through JSON, because only there do strict types take a table for a dataclass.
        return TypeAdapter(TrainingConfig).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        first = error.errors()[0]
        # The tag stands in the location of a stage's key ("stages.0.flow.crop"), where it follows the stage's number.
        loc = first["loc"]
        parts = [
            part for at, part in enumerate(loc) if part not in _TAGS or at == 0 or not isinstance(loc[at - 1], int)
        ]
        key = ".".join(str(part) for part in parts)
        raise ConfigError(f"{path}: {key}: {_reason(first)}") from error


def _reason(error: Any) -> str:
    if error["type"] == "unexpected_keyword_argument":
        return "no such key"
    if error["type"].startswith("union_tag"):
        kind = error.get("ctx", {}).get("tag", "missing")
        return f"kind is {kind!r}; choose flow, imitate, backbone, skip, router or lean"
    if error["loc"][-1] == "router":
        return f"{error['input']!r} is no router; choose gain or paper"
    return error["msg"]


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"--set {override!r} has no '='; give key=value, as in stages.0.optimisation.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    at: Any = values
    try:
        for part in parents:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        at[int(last) if isinstance(at, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(f"--set {key}: no such key") from error
