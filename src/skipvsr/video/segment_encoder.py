"""What encodes segments away from the file in which they will be joined."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from skipvsr.video.colour import from_rgb
from skipvsr.video.encode import EncodeOptions
from skipvsr.video.frame import Frame
from skipvsr.video.probe import VideoInfo
from skipvsr.video.segments import SegmentWriter
from skipvsr.video.video_stream import new_encoder, video_settings


class SegmentEncoder:
    """Makes encoders for the segments of one video, all with the settings and headers that `VideoWriter` gives it.

    Args:
        width, height: of the frames that will come.
        container: the ending of the file in which the segments will be joined.
        source: what is upscaled: its timing, colour description and pixel aspect are kept.
        options: the encoder.
        sample_aspect_ratio: of the output's pixels; None: the source's.

    Raises:
        ConfigError: impossible encoder settings.
    """

    def __init__(
        self,
        width: int,
        height: int,
        *,
        container: str,
        source: VideoInfo,
        options: EncodeOptions | None = None,
        sample_aspect_ratio: Fraction | None = None,
    ) -> None:
        self.size = (width, height)
        self._settings = video_settings(
            container, width, height, source=source, options=options, frame_rate=None, sample_aspect_ratio=sample_aspect_ratio
        )  # fmt: skip

    def start_segment(self, path: Path, time_base: Fraction) -> SegmentWriter:
        """A writer of a segment.

        Args:
            path: of the segment.
            time_base: of the frames.

        Raises:
            ConfigError: the encoder refuses the settings.
        """
        return SegmentWriter(path, new_encoder(self._settings, None, time_base))

    def converted(self, frame: Frame) -> av.VideoFrame:
        """The frame as the encoder takes it, in the video's colours."""
        converted = from_rgb(frame.pixels, self._settings.encoder.pixel_format, self._settings.colour)
        converted.pts, converted.time_base = frame.pts, frame.time_base
        if frame.duration is not None:
            converted.duration = frame.duration
        return converted
