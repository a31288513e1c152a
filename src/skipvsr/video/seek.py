"""Going to a key frame, from which a part of a video can be decoded."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from skipvsr.video.errors import PIPE
from skipvsr.video.probe import main_video_stream, open_container

# Containers with an index of their key frames and a time on every packet.
_SEEKABLE = {"mov", "matroska"}
# Where the last key frame before a time turns out to be shown after it, an earlier one is tried.
_MARGINS_SECONDS = (0, 10)
# How far a first frame with a time is looked for, and how many frames may come before one that is shown earlier.
_MAX_FIRST_PACKETS, _MAX_REORDERED = 10_000, 32


def is_seekable(container: InputContainer) -> bool:
    """Whether parts of this kind of file are read from a key frame; others are read from their beginning."""
    return bool(_SEEKABLE & set(container.format.name.split(",")))


def seek_key_frame(container: InputContainer, stream: VideoStream, pts: int) -> int | None:
    """Go to a key frame that is shown at a time or before it.

    Args:
        container, stream: of the file.
        pts: the time, in units of the stream's time base.

    Returns:
        When the key frame is shown. None where there is none: the container then has to be opened again.
    """
    assert stream.time_base is not None
    for margin in _MARGINS_SECONDS:
        target = pts - int(margin / stream.time_base)
        key_pts = _key_frame_after_seek(container, stream, target)
        if key_pts is not None and key_pts <= pts:
            container.seek(target, stream=stream)
            return key_pts
    return None


def first_time(path: Path) -> int:
    """When a video begins whose first frame has no time, in units of its stream's time base; 0 where nothing tells.

    FFmpeg drops the times of a frame in Matroska that lie before 0. The first frame that has a time, and how long those
    before it last, give them back.
    """
    if path == PIPE:
        return 0
    container, file = open_container(path)
    try:
        if "matroska" not in container.format.name:
            return 0
        before, times = 0, []
        for packet in islice(container.demux(main_video_stream(container, path)), _MAX_FIRST_PACKETS):
            if packet.pts is not None:
                times.append(packet.pts)
            elif not times and packet.size:
                before += packet.duration or 0
            if len(times) == _MAX_REORDERED:
                break
        return min(times) - before if times and before else 0
    except FFmpegError:
        return 0
    finally:
        container.close()
        file.close()


def _key_frame_after_seek(container: InputContainer, stream: VideoStream, target: int) -> int | None:
    try:
        container.seek(target, stream=stream)
        for packet in container.demux(stream):
            for frame in stream.codec_context.decode(packet):
                if isinstance(frame, av.VideoFrame) and frame.key_frame:
                    return frame.pts
    except (FFmpegError, OverflowError):
        return None
    return None
