"""`--model auto`: which packaged model fits a file, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from skipvsr.checkpoints.load import check_scale, load_any_model, packaged_names
from skipvsr.errors import ConfigError
from skipvsr.models.any_model import AnyModel
from skipvsr.upscale.size import OutputSize
from skipvsr.video.compression import Compression, compression_of
from skipvsr.video.errors import PIPE

AUTO_MODEL = "auto"
CLEAN, COMPRESSED = "compact", "compact-video"
# Better than either on both kinds of footage, with twelve times the work: nobody gets it without asking.
LARGE = "base"
# Bits a pixel of H.264 at 1280x720 from which on `compact` is taken. On the validation clips it is 0.06 dB better than
# `compact-video` where nothing was encoded, 0.02 through x264 at CRF 18, and 0.02 worse at CRF 23 (8 frames); the x2 models
# 0.27 and 0.11 better, and 0.04 worse (4 frames). So both pairs meet between CRF 20 and 22. CRF 23 takes 0.117 and CRF 27
# 0.073, brought from 160x90 to 1280x720 by the fourth root below, so CRF 20 or 21 some 0.15.
CLEAN_BITS_PER_PIXEL = 0.15
# What other codecs need for the same quality, by common experience: not measured here.
_NEEDS = {
    "h264": 1.0, "hevc": 0.6, "av1": 0.5, "vp9": 0.6, "vp8": 1.2, "mpeg4": 2.0, "mpeg2video": 2.5, "mpeg1video": 3.0,
    "msmpeg4v3": 2.0, "wmv2": 2.0, "wmv3": 1.2, "vc1": 1.2, "flv1": 2.5, "h263": 2.5, "theora": 1.5, "rv40": 1.2,
    "mjpeg": 8.0, "webp": 6.0,
}  # fmt: skip
_REFERENCE_PIXELS = 1280 * 720


@dataclass(frozen=True)
class ModelChoice:
    """A model and why it was chosen.

    Args:
        name: what `load_model` takes.
        reason: in words, for the report.
    """

    name: str
    reason: str


def resolve_model(
    model: AnyModel | str | Path,
    source: Path,
    *,
    scale: int | None = None,
    size: OutputSize | None = None,
    device: str | torch.device = "auto",
) -> tuple[AnyModel, ModelChoice | None]:
    """The network for a job, and the choice that was made where it was left open.

    Args:
        model: a network, what `load_model` takes, or "auto".
        source: a video file, a folder of images, or "-".
        scale: that is asked for, 2 or 4; None: whatever the model has, or what fits `size`.
        size: of the output.
        device: as for `load_model`.

    Raises:
        ConfigError: the model has another scale, or there is none of that scale.
        InputError: the source cannot be read.
        ModelError, CheckpointError: as for `load_model`.
    """
    choice = None
    if model == AUTO_MODEL:
        choice = choose_model(source, scale=scale, size=size)
        model = choice.name
    if isinstance(model, str | Path):
        network = load_any_model(model, device=device, scale=scale)
        return network, None if choice is None else with_hint(choice, network)
    check_scale(model, scale)
    return model, choice


def with_hint(choice: ModelChoice, network: AnyModel) -> ModelChoice:
    """The choice; on another device than the CPU its reason names the large model, where there is one of this scale."""
    large = _name(LARGE, network.scale)
    if next(network.parameters()).device.type == "cpu" or large not in packaged_names():
        return choice
    return replace(choice, reason=f"{choice.reason}; on a GPU --model {large} does better, with twelve times the work")


def choose_model(source: Path, *, scale: int | None = None, size: OutputSize | None = None) -> ModelChoice:
    """The packaged model for a source; arguments and errors as for `resolve_model`."""
    if source == PIPE:
        # Nothing is known of it. Footage in a pipe was mostly decoded from a compressed file.
        scale = scale or 4
        return ModelChoice(_of_scale(COMPRESSED, scale), f"x{scale}; a pipe does not say how it was compressed")
    seen = compression_of(source)
    scale = scale or _scale_for(seen, size or OutputSize())
    clean, reason = is_clean(seen)
    name = _of_scale(CLEAN if clean else COMPRESSED, scale)
    if not clean and name == _name(CLEAN, scale):
        reason += f"; there is no model for compressed footage at x{scale}"
    return ModelChoice(name, f"x{scale}; {reason}")


def is_clean(seen: Compression) -> tuple[bool, str]:
    """Whether compression left the frames as they were, as far as can be told, and the reason in words."""
    needs = _NEEDS.get(seen.codec)
    if needs is None:
        return True, f"{seen.codec} is not a codec that loses much"
    if seen.bits_per_pixel is None:
        return False, f"{seen.codec} of unknown bit rate"
    # Larger frames need fewer bits a pixel: about the fourth root of their area.
    pixels = max(seen.width * seen.height, 1)
    minimum = CLEAN_BITS_PER_PIXEL * needs * (_REFERENCE_PIXELS / pixels) ** 0.25
    clean = seen.bits_per_pixel >= minimum
    return clean, (
        f"{seen.codec} at {seen.bits_per_pixel:.3g} bits a pixel, {'at least' if clean else 'under'} the {minimum:.3g} "
        f"of clean footage of {seen.width}x{seen.height}"
    )


def _scale_for(seen: Compression, size: OutputSize) -> int:
    """The smaller scale where its result need not be enlarged; 4 where no size is asked for."""
    height, width = size.height or 0, size.width or 0
    small = max(height, width) > 0 and height <= 2 * seen.height and width <= 2 * seen.width
    return 2 if small and _name(CLEAN, 2) in packaged_names() else 4


def _of_scale(kind: str, scale: int) -> str:
    names = packaged_names()
    for wanted in (_name(kind, scale), _name(CLEAN, scale)):
        if wanted in names:
            return wanted
    raise ConfigError(f"there is no packaged model of scale {scale}; give one with --model")


def _name(kind: str, scale: int) -> str:
    return kind if scale == 4 else f"{kind}-x{scale}"
