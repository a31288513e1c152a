"""What FFmpeg knows of a decoded frame and PyAV does not show: where chroma samples lie, and data beside the frame."""

from __future__ import annotations

from fractions import Fraction
from typing import TypeAlias

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation

# In luma pixels at half resolution, right and down from the first of the pixels that share a sample.
CHROMA_OFFSETS = {
    "left": (0.0, 0.5),
    "center": (0.5, 0.5),
    "topleft": (0.0, 0.0),
    "top": (0.5, 0.0),
    "bottomleft": (0.0, 1.0),
    "bottom": (0.5, 1.0),
}

# Kinds of side data up to which PyAV has names; at any other it refuses all of a frame's side data.
_NAMED = max(kind.value for kind in Type)
_UNNAMED = range(_NAMED + 1, _NAMED + 24)

_Filter: TypeAlias = tuple[str, str]


def with_chroma_location(frame: av.VideoFrame, location: str) -> av.VideoFrame:
    """The same frame, its chroma samples declared to lie at `location`, a key of `CHROMA_OFFSETS`."""
    return _through(frame, [("setparams", f"chroma_location={location}")])


def chroma_location(frame: av.VideoFrame) -> str:
    """Where the chroma samples of a frame lie, a key of `CHROMA_OFFSETS`; "center" too where the frame does not say.

    swscale knows, so it is asked: a small frame with the properties of this one gets ramps for chroma, which are then
    brought to full resolution. Where they come to lie tells the place.
    """
    same = {"src_colorspace": 5, "dst_colorspace": 5, "src_color_range": 1, "dst_color_range": 1}
    # Smaller than any frame that is read: else it could be the frame itself.
    small = frame.reformat(width=12, height=12, format="yuv420p", **same)
    columns = np.tile(104 + 8 * np.arange(6, dtype=np.uint8), (6, 1))
    for plane, values in zip(small.planes, (np.full((12, 12), 128, np.uint8), columns, columns.T), strict=True):
        plane_array(plane, np.uint8)[:] = values
    large = small.reformat(format="yuv444p", interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND, **same)
    # Four levels a pixel; a sample at its pixel's own place leaves 128.
    right, down = ((128 - int(plane_array(plane, np.uint8)[6, 6])) / 4 for plane in large.planes[1:])
    return min(
        CHROMA_OFFSETS, key=lambda name: np.hypot(CHROMA_OFFSETS[name][0] - right, CHROMA_OFFSETS[name][1] - down)
    )


def side_data(frame: av.VideoFrame, kind: Type) -> bytes | None:
    """Data of one kind that came with a frame; None where there is none, and for ICC profiles."""
    # PyAV 18.1 frees the metadata of side data twice. Only an ICC profile has some (its name), and ends the process.
    safe = _through(frame, [("sidedata", f"mode=delete:type={Type.ICC_PROFILE.value}")])
    try:
        found = safe.side_data.get(kind)  # pyright: ignore[reportCallIssue, reportArgumentType]
    except ValueError:
        # A kind without a name (31: EXIF) is among them.
        named = _through(safe, [("sidedata", f"mode=delete:type={unnamed}") for unnamed in _UNNAMED])
        found = named.side_data.get(kind)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return None if found is None else bytes(found)


def plane_array(plane: VideoPlane, dtype: type[np.generic]) -> np.ndarray:
    """The samples of a plane of one component, (height, width), without a copy."""
    samples = np.frombuffer(plane, dtype)  # pyright: ignore[reportCallIssue, reportArgumentType] - the stubs forget it
    return samples.reshape(plane.height, -1)[:, : plane.width]


def _through(frame: av.VideoFrame, filters: list[_Filter]) -> av.VideoFrame:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1)
    )
    graph.link_nodes(source, *(graph.add(*each) for each in filters), graph.add("buffersink")).configure()
    graph.push(frame)
    passed = graph.pull()
    assert isinstance(passed, av.VideoFrame)
    return passed
