"""`load_model`: a network from the name of a packaged model, a folder, a file or a Hub id; with bicubic: `load_any_model`."""

from __future__ import annotations

from pathlib import Path

import torch

from skipvsr.checkpoints.foreign import read_foreign
from skipvsr.checkpoints.hub import HUB_ID, download
from skipvsr.checkpoints.native import CONFIG, Checkpoint, build, read_folder
from skipvsr.errors import ConfigError, ModelError
from skipvsr.inference.device import Model, prepare_model
from skipvsr.models.any_model import AnyModel
from skipvsr.models.bicubic import Bicubic
from skipvsr.models.vsr import SkipVSR

PACKAGED = Path(__file__).parent.parent / "weights"
BICUBIC = "bicubic"


@torch.inference_mode(mode=False)  # weights made in the caller's inference mode could never be trained
def load_model(source: str | Path, *, device: str | torch.device = "auto") -> SkipVSR:
    """Load a network, ready to run and in eval mode.

    Args:
        source: the name of a packaged model ("compact"), a model folder, a checkpoint file of BasicSR or mmagic, or a Hub id
            ("owner/name" or "owner/name@revision"), which is downloaded once.
        device: where to put it; "auto": a GPU if there is one.

    Raises:
        ModelError: there is no such model, or the Hub cannot be reached.
        CheckpointError: the file or folder is damaged, or holds a network that this package does not have.
    """
    if source == BICUBIC:
        raise ModelError("bicubic has no weights to load; give a network, such as compact")
    return _put(build(read_checkpoint(source)), device)


def load_any_model(source: str | Path, *, device: str | torch.device = "auto", scale: int | None = None) -> AnyModel:
    """Load what `--model` names: bicubic interpolation, or a network as `load_model` does.

    Args:
        source: the name.
        device: as for `load_model`.
        scale: that is asked for: bicubic has any (None: 4), a network its own.

    Raises:
        ConfigError: the network has another scale.
        ModelError, CheckpointError: as for `load_model`.
    """
    if source == BICUBIC:
        return _put(Bicubic(scale or 4), device)
    model = load_model(source, device=device)
    check_scale(model, scale, f"the model {source}")
    return model


def check_scale(model: AnyModel, scale: int | None, name: str = "the model") -> None:
    """Raise ConfigError where a scale is asked for and the model has another; `name` is for the message."""
    if scale is not None and model.scale != scale:
        raise ConfigError(f"{name} enlarges {model.scale} times, and x{scale} was asked for; leave one of them out")


def _put(model: Model, device: str | torch.device) -> Model:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return prepare_model(model, device)


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Configuration, weights and provenance of the network that `load_model` would build; arguments and errors are the same."""
    name, path = str(source), Path(source)
    if isinstance(source, str) and name in packaged_names():
        return read_folder(PACKAGED / name)
    if path.is_dir():
        return read_folder(path)
    if path.is_file():
        return read_foreign(path)
    match = HUB_ID.fullmatch(name)
    if isinstance(source, str) and match and not path.suffix and not name.startswith("."):
        return read_folder(_from_hub(match[1], match[2]))
    names = ", ".join(packaged_names()) or "none"
    raise ModelError(
        f"there is no model {name!r}; give the name of a packaged model ({names}), a folder, a checkpoint or a Hub id"
    )


def packaged_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{CONFIG}"))


def _from_hub(repository: str, revision: str | None) -> Path:
    try:
        return download(repository, revision)
    except ModelError as error:
        raise ModelError(f"{error}; packaged models are: {', '.join(packaged_names()) or 'none'}") from error
