"""Pictures and videos to look at: side by side, with a wipe, enlarged, with the differences in colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from skipvsr.errors import ConfigError, InputError, OutputError
from skipvsr.upscale.frames import to_array, to_tensor
from skipvsr.upscale.overlay import draw_depth
from skipvsr.upscale.size import resize
from skipvsr.video.frame import Frame
from skipvsr.video.images import READ as IMAGE_SUFFIXES
from skipvsr.video.images import write_image
from skipvsr.video.open import Reader, open_reader, open_writer, to_8_bit

# Differences of this part of the range are shown as yellow.
HEAT_RANGE = 0.125
_LINE_PX = 4


@dataclass(frozen=True)
class Look:
    """What is shown.

    Args:
        wipe: two sources in one picture with a line between them, which moves across once in a video; otherwise all of them
            side by side.
        crop: (left, top, width, height) in pixels of the largest source; None: everything.
        zoom: whole number by which pixels are enlarged, as squares.
        diff: beside each source but the first, how much it differs from the first (dark: not at all, yellow: an eighth of the
            range or more).

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
    sources: Sequence[str | Path], destination: str | Path, look: Look | None = None, *, frame: int | None = None,
    overwrite: bool = False,
) -> int:  # fmt: skip
    """Put videos, or folders of images, beside one another; sources smaller than the largest are resized to it (bicubic).

    Args:
        sources: two or more, with as many frames each.
        destination: an image for one frame; otherwise of the first source's kind (a video keeps its sound and times).
        look: what is shown; None: side by side.
        frame: which one an image shows; None: the one in the middle.
        overwrite: replace what is there.

    Returns:
        Frames written.

    Raises:
        InputError: a source cannot be read, or they differ in length.
        OutputError: the destination exists or cannot be written.
        ConfigError: an impossible look.
    """
    look, destination = look or Look(), Path(destination)
    if len(sources) < 2:
        raise ConfigError("there is one source; give two or more to compare")
    if look.wipe and len(sources) != 2:
        raise ConfigError(f"a wipe shows two sources, not {len(sources)}; leave --wipe out, or give two")
    with ExitStack() as stack:
        readers = [stack.enter_context(open_reader(source)) for source in sources]
        size = max(((reader.info.height, reader.info.width) for reader in readers), key=lambda size: size[0] * size[1])
        if look.crop is not None and (look.crop[0] + look.crop[2] > size[1] or look.crop[1] + look.crop[3] > size[0]):
            raise ConfigError(f"the crop {look.crop} reaches beyond the picture, which is {size[1]}x{size[0]}")
        if destination.suffix.lower() in IMAGE_SUFFIXES:
            return _still(readers, destination, look, size, frame, overwrite)
        if frame is not None:
            raise ConfigError(f"--frame is for images; {destination} is not one (.png, .jpg ...)")
        return _video(stack, readers, destination, look, size, overwrite)


def compose(pictures: Sequence[Tensor], look: Look, progress: float = 0.5) -> Tensor:
    """Pictures (3, H, W) of one size, in [0, 1], as one; `progress` in [0, 1] is where the wipe stands."""
    if look.crop is not None:
        left, top, width, height = look.crop
        pictures = [picture[:, top : top + height, left : left + width] for picture in pictures]
    first = pictures[0]
    panels: list[Tensor] = []
    if look.wipe:
        at = round(progress * first.shape[-1])
        wiped = first.clone()
        wiped[:, :, at:] = pictures[1][:, :, at:]
        wiped[:, :, max(0, at - 1) : at + 1] = 1
        panels.append(wiped)
    else:
        panels += pictures
    if look.diff:
        panels += [heat_map(first, other) for other in pictures[1:]]
    if look.zoom > 1:
        panels = [panel.repeat_interleave(look.zoom, 1).repeat_interleave(look.zoom, 2) for panel in panels]
    lined = [F.pad(panel, (0, _LINE_PX, 0, 0), value=1.0) for panel in panels[:-1]]
    whole = np.concatenate([np.asarray(panel) for panel in (*lined, panels[-1])], axis=2)
    # Video pictures have even sides.
    return F.pad(to_tensor(whole.transpose(1, 2, 0)), (0, whole.shape[2] % 2, 0, whole.shape[1] % 2), value=1.0)


def heat_map(one: Tensor, two: Tensor) -> Tensor:
    """The first picture in grey, with the mean absolute difference of the channels in colour over it."""
    return draw_depth(one, ((one - two).abs().mean(dim=0) / HEAT_RANGE).clamp(0, 1))


def _frames(readers: Sequence[Reader], size: tuple[int, int]) -> Iterator[tuple[Frame, list[Tensor]]]:
    """Frames of the first source, and the pictures of all of them, of one size. Raises InputError if one ends early."""
    iterators = [iter(reader) for reader in readers]
    number = 0
    while True:
        frames = [next(iterator, None) for iterator in iterators]
        found = [frame for frame in frames if frame is not None]
        if not found:
            return
        if len(found) < len(frames):
            ended = readers[frames.index(None)].path
            raise InputError(
                f"{ended} ends after {number} frames, and another source goes on; give videos of one length"
            )
        number += 1
        yield found[0], [resize(to_tensor(to_8_bit(frame.pixels)), *size) for frame in found]


def _still(
    readers: Sequence[Reader], path: Path, look: Look, size: tuple[int, int], frame: int | None, overwrite: bool
) -> int:
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; choose another output, or give --overwrite")
    if frame is None:
        frame = (readers[0].info.frame_count or sum(1 for _ in open_reader(readers[0].path))) // 2
    for number, (_, pictures) in enumerate(_frames(readers, size)):
        if number == frame:
            write_image(path, to_array(compose(pictures, look), np.dtype(np.uint8)))
            return 1
    raise InputError(f"{readers[0].path} has no frame {frame}; they are counted from 0")


def _video(
    stack: ExitStack, readers: Sequence[Reader], path: Path, look: Look, size: tuple[int, int], overwrite: bool
) -> int:
    total = readers[0].info.frame_count
    writer, number = None, 0
    for frame, pictures in _frames(readers, size):
        progress = (number + 0.5) / total if total else number % 100 / 100
        picture = to_array(compose(pictures, look, progress), np.dtype(np.uint8))
        if writer is None:
            height, width = picture.shape[:2]
            opened = open_writer(path, width, height, readers[0], sample_aspect_ratio=Fraction(1), overwrite=overwrite)
            writer = stack.enter_context(opened)
        writer.write(replace(frame, pixels=picture))
        number += 1
    return number
