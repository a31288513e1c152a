"""Whether a file was read to its end: one that was cut off just stops, and only its header knows that there should be more."""

from __future__ import annotations

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from skipvsr.video.decode import Decoder
from skipvsr.video.pipe import Y4MInput
from skipvsr.video.probe import VideoInfo, stream_duration_seconds
from skipvsr.video.source import SourceFile
from skipvsr.video.structure import bytes_missing
from skipvsr.video.timeline import Timeline

# Containers whose header says exactly how long the file is. In others that may be an estimate.
_EXACT = {"flv", "asf"}
_STREAM_TOLERANCE_SECONDS = 0.25
_FILE_TOLERANCE_SECONDS = 2.0


def cut_off(
    file: SourceFile | Y4MInput,
    container: InputContainer,
    stream: VideoStream,
    info: VideoInfo,
    timeline: Timeline,
    decoder: Decoder,
) -> str | None:
    """Where a file that was read to its end was cut off, in words that follow its name; None: it is whole, as far as known.

    Args:
        file: as it was read.
        container, stream: opened from it.
        info: of the whole file.
        timeline: of the frames that came.
        decoder: that gave them.
    """
    if isinstance(file, Y4MInput):
        whole = file.is_whole(decoder.packets, decoder.packet_bytes)
        return None if whole else f"ends within frame {decoder.packets + 1}: it was cut off"
    missing = _missing_seconds(container, stream, info, timeline, decoder)
    if missing:
        return f"ends at {timeline.where()}, {missing:.2f} s before its header says: it was cut off"
    if decoder.cut_off or bytes_missing(file, container.format.name, decoder.packets, decoder.packet_bytes):
        return f"ends at {timeline.where()} in the middle of its data: it was cut off"
    return None


def _missing_seconds(
    container: InputContainer, stream: VideoStream, info: VideoInfo, timeline: Timeline, decoder: Decoder
) -> float:
    """How much is missing from what the header says; 0: nothing, as far as it can be known."""
    if timeline.last_pts is None or info.duration_seconds is None:
        return 0.0
    step_seconds = float(timeline.step * info.time_base)
    end = float(timeline.end_pts * info.time_base)
    # A last frame may be shown for long.
    tolerance = max(_STREAM_TOLERANCE_SECONDS, 3 * step_seconds)
    if stream_duration_seconds(stream) is not None:
        # Matroska counts its tag from zero, others from the start of the stream.
        start = float((stream.start_time or 0) * info.time_base) if stream.duration else 0.0
    else:
        # The length of the file: its sound may well be longer than its video.
        start = (container.start_time or 0) / av.time_base
        end = max(end, decoder.end_seconds)
        if not _EXACT & set(container.format.name.split(",")):
            tolerance = _FILE_TOLERANCE_SECONDS
    missing = start + info.duration_seconds - end
    return missing if missing > tolerance else 0.0
