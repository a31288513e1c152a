"""Videos beside one another: side by side or with a wipe, cropped and enlarged, with their differences in colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.errors import ConfigError, InputError, OutputError
from skipvsr.upscale.frames import to_array, to_tensor
from skipvsr.upscale.overlay import draw_depth
from skipvsr.upscale.size import resize
from skipvsr.video.files import IMAGE_SUFFIXES
from skipvsr.video.frame import Frame
from skipvsr.video.images import write_image
from skipvsr.video.open import Reader, open_reader, open_writer, to_8_bit

# Differences of an eighth of the range of values, or more, are drawn in the brightest colour.
DIFF_RANGE = 0.125
_LINE_PX = 4


@dataclass(frozen=True)
class CompareOptions:
    """How sources are shown.

    Args:
        wipe: two sources in one frame with a line between them, which moves across once in a video; otherwise all sources
            side by side.
        crop: (left, top, width, height) in pixels of the largest source; None: the whole frame.
        zoom: whole number by which pixels are enlarged, as squares.
        diff: beside the sources, how much each but the first differs from the first (dark: not at all; yellow: by an eighth of
            the range or more).

    Raises:
        ConfigError: a crop or zoom that is impossible.
    """

    wipe: bool = False
    crop: tuple[int, int, int, int] | None = None
    zoom: int = 1
    diff: bool = False

    def __post_init__(self) -> None:
        if self.zoom < 1:
            raise ConfigError(f"the zoom is {self.zoom}; it must be 1 or more")
        if self.crop is not None and (min(self.crop[:2]) < 0 or min(self.crop[2:]) < 1):
            raise ConfigError(f"the crop is {self.crop}; give left, top, width and height in pixels")


def compare(
    sources: Sequence[str | Path], destination: str | Path, options: CompareOptions | None = None, *,
    frame: int | None = None, overwrite: bool = False,
) -> int:  # fmt: skip
    """Put videos or folders of images beside one another; sources smaller than the largest are resized to it (bicubic).

    Args:
        sources: two or more, of the same number of frames.
        destination: an image, for one frame; otherwise of the kind of the first source (a video keeps its sound and
            timestamps).
        options: how they are shown; None: side by side.
        frame: the number of the frame that an image shows, from 0; None: the middle one.
        overwrite: replace the destination if it exists.

    Returns:
        The number of frames written.

    Raises:
        InputError: a source cannot be read, or the sources differ in length.
        OutputError: the destination exists or cannot be written.
        ConfigError: options that do not fit the sources.
    """
    options, destination = options or CompareOptions(), Path(destination)
    if len(sources) < 2:
        raise ConfigError("there is one source; give two or more to compare")
    if options.wipe and len(sources) != 2:
        raise ConfigError(f"a wipe shows two sources, not {len(sources)}; leave --wipe out, or give two")
    with ExitStack() as stack:
        readers = [stack.enter_context(open_reader(source)) for source in sources]
        size = max(((reader.info.height, reader.info.width) for reader in readers), key=lambda size: size[0] * size[1])
        if options.crop is not None:
            left, top, width, height = options.crop
            if left + width > size[1] or top + height > size[0]:
                raise ConfigError(f"the crop {options.crop} reaches beyond the frame, which is {size[1]}x{size[0]}")
        if destination.suffix.lower() in IMAGE_SUFFIXES:
            return _write_image(readers, destination, options, size, frame, overwrite)
        if frame is not None:
            raise ConfigError(f"--frame is for images; {destination} is not one (.png, .jpg ...)")
        return _write_video(stack, readers, destination, options, size, overwrite)


def compose(images: Sequence[Tensor], options: CompareOptions, progress: float = 0.5) -> Tensor:
    """Join images (3, H, W) of one size, in [0, 1], into one; `progress` in [0, 1] is the position of the wipe."""
    if options.crop is not None:
        left, top, width, height = options.crop
        images = [image[:, top : top + height, left : left + width] for image in images]
    first = images[0]
    panels: list[Tensor] = []
    if options.wipe:
        at = round(progress * first.shape[-1])
        wiped = first.clone()
        wiped[:, :, at:] = images[1][:, :, at:]
        wiped[:, :, max(0, at - 1) : at + 1] = 1
        panels.append(wiped)
    else:
        panels += images
    if options.diff:
        panels += [difference_map(first, other) for other in images[1:]]
    if options.zoom > 1:
        panels = [panel.repeat_interleave(options.zoom, 1).repeat_interleave(options.zoom, 2) for panel in panels]
    lined = [F.pad(panel, (0, _LINE_PX, 0, 0), value=1.0) for panel in panels[:-1]]
    whole = torch.cat([*lined, panels[-1]], dim=2)
    # Most video encoders need even sides.
    return F.pad(whole, (0, whole.shape[2] % 2, 0, whole.shape[1] % 2), value=1.0)


def difference_map(one: Tensor, two: Tensor) -> Tensor:
    """The first image in grey, with the absolute difference (mean of the channels) in colour over it."""
    return draw_depth(one, ((one - two).abs().mean(dim=0) / DIFF_RANGE).clamp(0, 1))


def _frames(readers: Sequence[Reader], size: tuple[int, int]) -> Iterator[tuple[Frame, list[Tensor]]]:
    """Each frame of the first source, and the images of all sources at one size. Raises InputError if one ends early."""
    iterators = [iter(reader) for reader in readers]
    number = 0
    while True:
        frames = [next(iterator, None) for iterator in iterators]
        found = [frame for frame in frames if frame is not None]
        if not found:
            return
        if len(found) < len(frames):
            ended = readers[frames.index(None)].path
            raise InputError(f"{ended} ends after {number} frames, before another source; give videos of one length")
        number += 1
        yield found[0], [resize(to_tensor(to_8_bit(frame.pixels)), *size) for frame in found]


def _write_image(
    readers: Sequence[Reader], path: Path, options: CompareOptions, size: tuple[int, int], frame: int | None, overwrite: bool
) -> int:  # fmt: skip
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; choose another output, or give --overwrite")
    if frame is None:
        frame = (readers[0].info.frame_count or sum(1 for _ in open_reader(readers[0].path))) // 2
    for number, (_, images) in enumerate(_frames(readers, size)):
        if number == frame:
            write_image(path, to_array(compose(images, options), np.dtype(np.uint8)))
            return 1
    raise InputError(f"{readers[0].path} has no frame {frame}; they are counted from 0")


def _write_video(
    stack: ExitStack, readers: Sequence[Reader], path: Path, options: CompareOptions, size: tuple[int, int], overwrite: bool
) -> int:  # fmt: skip
    total = readers[0].info.frame_count
    writer, number = None, 0
    for frame, images in _frames(readers, size):
        # Where the length is unknown, the line crosses the frame every 100 frames.
        progress = (number + 0.5) / total if total else number % 100 / 100
        pixels = to_array(compose(images, options, progress), np.dtype(np.uint8))
        if writer is None:
            height, width = pixels.shape[:2]
            opened = open_writer(path, width, height, readers[0], sample_aspect_ratio=Fraction(1), overwrite=overwrite)
            writer = stack.enter_context(opened)
        writer.write(replace(frame, pixels=pixels))
        number += 1
    return number
