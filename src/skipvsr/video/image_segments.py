"""Images on their way into a folder, in finished parts: made where they are upscaled, put in their place elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from skipvsr.video.files import sync, write_whole
from skipvsr.video.frame import Frame
from skipvsr.video.images import encode_image
from skipvsr.video.segments import Segment


class ImageSegmentEncoder:
    """Makes writers of parts, as `SegmentEncoder` does for a video. A packet is the contents of an image file.

    Args:
        width, height: of the frames that will come.
        endings: of the files that they become, by the frames' pts.
    """

    def __init__(self, width: int, height: int, endings: Sequence[str]) -> None:
        self.size = (width, height)
        self._endings = endings

    def start_segment(self, path: Path, time_base: Fraction) -> ImageSegmentWriter:
        """A writer of a part; every frame of a folder lasts 1."""
        return ImageSegmentWriter(path, self._endings)

    def converted(self, frame: Frame) -> Any:
        """Nothing that a writer needs: it takes the frame."""
        return None


class ImageSegmentWriter:
    """Writes frames into a part of their own.

    Args:
        path: of the part; nothing is left there unless `finish` is called.
        endings: by the frames' pts.
    """

    def __init__(self, path: Path, endings: Sequence[str]) -> None:
        self._path, self._endings = path, endings
        self._rows: list[tuple[int, int, int, bool]] = []
        self._file = path.open("wb")

    def write(self, converted: object, frame: Frame) -> None:
        """Add a frame. Raises OutputError where its kind of file cannot hold it."""
        ending = self._endings[frame.pts]
        contents = encode_image(frame.pixels, ending, frame.alpha, name=f"image {frame.pts + 1}")
        self._file.write(contents)
        self._rows.append((len(contents), frame.pts, frame.duration or 0, True))

    def finish(self) -> Segment:
        """Make the part safe against a power cut."""
        sync(self._file)
        self._file.close()
        write_whole(self._path.with_suffix(".json"), json.dumps(self._rows))
        return Segment(self._path)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        Segment(self._path).delete()
