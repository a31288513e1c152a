"""The numbers of an evaluation: of a clip at a setting, and of a setting over all clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from skipvsr.evaluation.measures import WINDOW
from skipvsr.evaluation.settings import Setting


@dataclass(frozen=True)
class ClipScore:
    """A clip at one setting; each list has a number per frame that was measured.

    Args:
        clip: its name.
        frames: that were super-resolved.
        psnr_rgb, psnr_y, ssim_rgb, ssim_y: the field's; SSIM is empty where it was not asked for.
        temporal_error: `metrics.temporal_error`, from the second frame on.
        seams: `metrics.seam_ratio` at the borders of tiles or patches; empty where there are none.
        active_ratio: of the residual blocks' work.
        decision_flicker: ratio of decisions that differ from the frame before, forward direction.
        gmacs_per_frame: of all parts but "extra": what the decisions cost, however it is executed.
        gmacs: by part, from the trace: those of `Cost`; "overlap": what patches compute more than once; "extra": what tiles
            compute beyond their own border, and where everything is computed because that is faster.
        seconds_per_frame: of the network, without reading and measuring.
        seconds: mean, median and 90th percentile by part (`PartTimes.seconds_per_frame`).
        peak_bytes: most memory in use (`PeakMemory`), the ground truth and everything else included.
    """

    clip: str
    frames: int
    psnr_rgb: list[float]
    psnr_y: list[float]
    ssim_rgb: list[float]
    ssim_y: list[float]
    temporal_error: list[float]
    seams: list[float]
    active_ratio: float
    decision_flicker: float
    gmacs_per_frame: float
    gmacs: dict[str, float]
    seconds_per_frame: float
    seconds: dict[str, dict[str, float]]
    peak_bytes: int


@dataclass(frozen=True)
class Row:
    """A setting over all clips, each counted equally: frames are averaged per clip first.

    Args:
        window_jump: temporal error from window to window over that within windows; None where every clip is one window.
        peak_bytes: the largest of all clips.
        others: as for a clip.
    """

    policy: str
    value: float
    tiling: str
    psnr_rgb: float
    ssim_rgb: float | None
    psnr_y: float
    ssim_y: float | None
    temporal_error: float | None
    seams: float | None
    window_jump: float | None
    gmacs_per_frame: float
    gmacs: dict[str, float]
    active_ratio: float
    decision_flicker: float
    seconds_per_frame: float
    seconds: dict[str, dict[str, float]]
    peak_bytes: int
    clips: list[ClipScore]

    @classmethod
    def of(cls, setting: Setting, clips: Sequence[ClipScore], window: int = WINDOW) -> Row:
        """Average the clips; `window` as they were measured."""

        def average(name: str) -> float | None:
            found = [mean(values) for clip in clips if (values := getattr(clip, name))]
            return mean(found) if found else None

        def total(name: str) -> float:
            return mean(getattr(clip, name) for clip in clips)

        psnr_rgb, psnr_y = average("psnr_rgb"), average("psnr_y")
        assert psnr_rgb is not None
        assert psnr_y is not None
        return cls(
            policy=setting.policy, value=setting.value, tiling=setting.tiling,
            psnr_rgb=psnr_rgb, ssim_rgb=average("ssim_rgb"), psnr_y=psnr_y, ssim_y=average("ssim_y"),
            temporal_error=average("temporal_error"), seams=average("seams"), window_jump=_window_jump(clips, window),
            gmacs_per_frame=total("gmacs_per_frame"),
            gmacs={part: mean(clip.gmacs[part] for clip in clips) for part in clips[0].gmacs},
            active_ratio=total("active_ratio"), decision_flicker=total("decision_flicker"),
            seconds_per_frame=total("seconds_per_frame"),
            seconds={
                part: {kind: mean(clip.seconds[part][kind] for clip in clips) for kind in kinds}
                for part, kinds in clips[0].seconds.items()
            },
            peak_bytes=max(clip.peak_bytes for clip in clips), clips=list(clips),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def _window_jump(clips: Sequence[ClipScore], window: int) -> float | None:
    """Mean temporal error where a window starts over the mean elsewhere, of clips of more than one window."""
    ratios = []
    for clip in clips:
        errors = list(enumerate(clip.temporal_error, start=1))
        at = [error for frame, error in errors if frame % window == 0]
        within = [error for frame, error in errors if frame % window]
        if at and within:
            ratios.append(mean(at) / mean(within))
    return mean(ratios) if ratios else None
