"""A small copy of a video that every browser plays: H.264, 8 bits, 4:2:0, at most 720 lines.
`python -m skipvsr.web.copy IN OUT` prints how it goes as the command line's --json does."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from skipvsr.errors import DecodeError, OutputError, SkipVSRError
from skipvsr.video.colour import to_8_bit
from skipvsr.video.encode import EncodeOptions
from skipvsr.video.open import open_reader
from skipvsr.video.read import VideoReader
from skipvsr.video.thumbnail import shrink_to
from skipvsr.video.write import VideoWriter

MAX_HEIGHT_PX = 720
_OPTIONS = EncodeOptions(codec="libx264", crf=20, pixel_format="yuv420p", preset="veryfast")
_EVERY = 24


def copy(source: Path, destination: Path) -> int:
    """Write the copy, with its sound where MP4 can hold it; returns how many frames it has. Raises SkipVSRError."""
    try:
        return _copy(source, destination, streams=True)
    except OutputError:
        return _copy(source, destination, streams=False)


def _copy(source: Path, destination: Path, *, streams: bool) -> int:
    count = 0
    with open_reader(source) as reader:
        assert isinstance(reader, VideoReader)
        info = reader.info
        height = min(MAX_HEIGHT_PX, info.height) // 2 * 2
        width = max(2, round(info.width * height / info.height / 2) * 2)
        with VideoWriter(
            destination, width, height, source=info if streams else None, options=_OPTIONS, frame_rate=info.frame_rate
        ) as writer:
            try:
                for frame in reader:
                    pixels = shrink_to(to_8_bit(frame.pixels), width, height)
                    writer.write(replace(frame, pixels=pixels, alpha=None))
                    count += 1
                    if count % _EVERY == 1:
                        _say("progress", frames_done=count, frames_total=info.frame_count)
            except DecodeError as error:
                _say("notice", message=str(error))
    return count


def _say(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)  # noqa: T201 - a program of its own


def main() -> None:
    """What the server starts."""
    try:
        frames = copy(Path(sys.argv[1]), Path(sys.argv[2]))
    except SkipVSRError as error:
        _say("error", message=str(error), exit_code=error.exit_code)
        sys.exit(error.exit_code)
    _say("report", frames=frames)


if __name__ == "__main__":
    main()
