"""Raw video (YUV4MPEG2, "y4m") on standard input and output, for work between other programs."""

from __future__ import annotations

import sys
from fractions import Fraction
from types import TracebackType
from typing import BinaryIO

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from skipvsr.errors import ConfigError, InputError
from skipvsr.video.colour import from_rgb
from skipvsr.video.encode import EncodeOptions, encoder_rate
from skipvsr.video.errors import PIPE, writing
from skipvsr.video.frame import Frame
from skipvsr.video.probe import VideoInfo
from skipvsr.video.video_stream import output_colour

_FORMAT = "yuv4mpegpipe"
_PIXEL_FORMATS = ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le")


class Y4MInput:
    """Standard input, and whether it ended between two frames.

    Raises:
        InputError: it is a terminal, empty or something else.
    """

    def __init__(self) -> None:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError(
                "standard input is a terminal; pipe raw video into it (ffmpeg ... -f yuv4mpegpipe - | skipvsr)"
            )
        self._stream = _OnlyRead(sys.stdin.buffer)
        try:
            self.container: InputContainer = av.open(self._stream, "r", format=_FORMAT)
        except (FFmpegError, ValueError) as error:
            raise InputError(
                "standard input is no YUV4MPEG2 video; pipe it with: ffmpeg ... -f yuv4mpegpipe - | skipvsr upscale - ..."
            ) from error

    @property
    def error(self) -> OSError | None:
        """What ended the reading before its time."""
        return self._stream.error

    def changed(self) -> str | None:
        """Nothing: what was read is gone."""
        return None

    def close(self) -> None:
        """Standard input is not ours to close."""

    def is_whole(self, frames: int, frame_bytes: int) -> bool:
        """Whether what was read is a header and so many frames, of so many bytes in all; FFmpeg drops the rest of another."""
        return self._stream.read_bytes == self._stream.header_bytes + frames * len(b"FRAME\n") + frame_bytes


class _OnlyRead:
    """A stream that cannot be searched, even if it is a file: what was read is not read again."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.read_bytes = self.header_bytes = 0
        self.error: OSError | None = None

    def read(self, count: int) -> bytes:
        try:
            part = self._stream.read(count)
        except OSError as error:
            self.error = error
            return b""
        if not self.read_bytes:
            self.header_bytes = part.find(b"\n") + 1
        self.read_bytes += len(part)
        return part


class _OnlyWrite:
    """A stream that cannot be searched. What goes wrong is kept in `error`: FFmpeg would lose it on its way."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, part: bytes) -> int:
        if self.error is None:
            try:
                self._stream.write(part)
            except OSError as error:
                self.error = error
        return len(part)


class PipeWriter:
    """Raw video on standard output. A context manager. Frames follow one another at the source's mean rate: the format has
    no times.

    Args:
        width, height: of the frames that will come.
        source: describes the input.
        options: only the pixel format counts; 8 bits 4:2:0 or, for a source of more bits, 10.
        sample_aspect_ratio: of the output's pixels.

    Raises:
        ConfigError: a pixel format that y4m does not have, a codec or CRF, or a terminal to write to.
    """

    def __init__(
        self,
        width: int,
        height: int,
        *,
        source: VideoInfo,
        options: EncodeOptions | None = None,
        sample_aspect_ratio: Fraction | None = None,
    ) -> None:
        options = options or EncodeOptions()
        usual = "yuv420p10le" if source.bit_depth > 8 else "yuv420p"
        self._pixel_format = options.pixel_format or usual
        if self._pixel_format not in _PIXEL_FORMATS:
            raise ConfigError(f"y4m has no {self._pixel_format}; use one of {', '.join(_PIXEL_FORMATS)}")
        if options.codec is not None or options.crf is not None or options.preset is not None:
            raise ConfigError("standard output carries raw video; leave codec, CRF and encoder preset out")
        if sys.stdout.isatty():
            raise ConfigError("standard output is a terminal; pipe it on (skipvsr upscale IN - | ffmpeg -i - ...)")
        self._colour = output_colour(source, self._pixel_format)
        # More than 8 bits are customary and not official.
        self._output = _OnlyWrite(sys.stdout.buffer)
        self._container = av.open(self._output, "w", format=_FORMAT, options={"strict": "-1"})
        stream = self._container.add_stream("rawvideo", rate=encoder_rate(source.frame_rate))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, self._pixel_format
        stream.codec_context.sample_aspect_ratio = sample_aspect_ratio or source.sample_aspect_ratio
        stream.codec_context.color_range = self._colour.range
        self._stream = stream
        self._rate = encoder_rate(source.frame_rate)
        self._count = 0

    def __enter__(self) -> PipeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(PIPE):
            try:
                if kind is None:
                    self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()
            self._check()
            sys.stdout.buffer.flush()

    def write(self, frame: Frame) -> None:
        """Write a frame. Raises BrokenPipeError where nobody reads any more."""
        converted = from_rgb(frame.pixels, self._pixel_format, self._colour)
        converted.pts, converted.time_base = self._count, 1 / self._rate
        self._count += 1
        with writing(PIPE):
            self._container.mux(self._stream.encode(converted))
            self._check()

    def _check(self) -> None:
        if self._output.error is not None:
            raise self._output.error

    def end_segment(self) -> None:
        """Does nothing: a pipe cannot be continued later."""
