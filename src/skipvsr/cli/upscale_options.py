"""The options of `skipvsr upscale`, and what they say: the options of the library."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from skipvsr.cli.choices import AUDIO, LOOKAHEAD, PATCH_BATCH_SIZE, PRECISIONS, PRESETS, RUNTIMES, SCALES, TILINGS
from skipvsr.cli.show import add_json
from skipvsr.cli.upscale_cluster import add_cluster_arguments

if TYPE_CHECKING:
    from skipvsr.upscale.options import JobOptions
    from skipvsr.upscale.size import OutputSize

Options = TypeVar("Options")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all of them."""
    _add_places(parser)
    _add_speed(parser.add_argument_group("speed against quality (all of the network, if none is given)"))
    _add_part(parser.add_argument_group("part of the video"))
    _add_size(parser.add_argument_group("size of the output (four times the input, if none is given)"))
    _add_encoding(parser.add_argument_group("encoding of videos"))
    _add_depths(parser.add_argument_group("what the network did"))
    _add_streaming(parser.add_argument_group("details of the network's work"))
    add_cluster_arguments(parser.add_argument_group("many machines (docs/scale.md)"))
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_json(output)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", metavar="IN", type=_place, nargs="+",
        help="a video file, a folder of images, or - for y4m on standard input; several of them, or a folder with such below "
        "it, go into the folder OUT",
    )  # fmt: skip
    parser.add_argument(
        "destination", metavar="OUT", type=_place,
        help="a video file (.mp4, .mkv, .mov ...), a folder, or - for y4m on standard output; IN and OUT may be URLs of videos "
        "(s3://, gs:// ...)",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="say how long it would take and how large the output would be, and stop"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--no-resume",
        dest="resume",
        action="store_false",
        help="start over, whatever an interrupted run has finished of OUT",
    )
    parser.add_argument(
        "--model",
        default="auto",
        help="auto: the packaged model that fits the file; or a packaged name, folder, checkpoint, Hub id, or bicubic",
    )


def _add_speed(group: Any) -> None:
    group.add_argument(
        "--preset", choices=PRESETS,
        help="fast, balanced or best: 0.3, 0.6 or all of the residual blocks' work; 'skipvsr benchmark --quick' says "
        "how fast each is here",
    )  # fmt: skip
    group.add_argument(
        "--budget", type=float, metavar="B", help="ratio of the residual blocks' work, above 0 and up to 1"
    )
    group.add_argument(
        "--target-fps",
        type=float,
        metavar="F",
        help="change the budget on the way, so that F frames are done in a second",
    )
    group.add_argument(
        "--threshold", type=float, metavar="A", help="run a block where the router expects more than this of it"
    )
    group.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1 ...; for OpenVINO cpu, gpu, npu (auto: a CUDA GPU if there is one)",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of weights and features; int8 with OpenVINO alone (auto: what this machine is fastest with of fp32 and half "
        "precision)",
    )
    group.add_argument(
        "--runtime", choices=RUNTIMES, default="torch", help="openvino: every block, fp32 or int8 (%(default)s)"
    )


def _add_part(group: Any) -> None:
    group.add_argument("--start", type=_seconds, metavar="TIME", help="first frame: seconds or [HH:]MM:SS[.mmm]")
    group.add_argument("--end", type=_seconds, metavar="TIME", help="frames before this time")
    group.add_argument(
        "--no-deinterlace", dest="deinterlace", action="store_false", help="take interlaced frames as they are"
    )


def _add_size(group: Any) -> None:
    group.add_argument(
        "--scale", type=int, choices=SCALES, help="of bicubic, or of the model that auto chooses (4, or by the size)"
    )
    group.add_argument("--height", type=int, metavar="PX", help="resize the result to this height, width to match")
    group.add_argument("--size", type=_size, metavar="WxH", help="resize the result to exactly this")


def _add_encoding(group: Any) -> None:
    group.add_argument("--codec", help="FFmpeg's name of the encoder (libx264; libx265 for more than 8 bits)")
    group.add_argument("--crf", type=int, metavar="N", help="constant rate factor, lower is better (visually lossless)")
    group.add_argument("--pixel-format", metavar="FMT", help="FFmpeg's name (yuv420p; yuv420p10le)")
    group.add_argument(
        "--encoder-preset",
        metavar="NAME",
        help="speed of the encoder against size, as the encoder calls it (x264: faster; x265: fast)",
    )
    group.add_argument(
        "--audio", choices=AUDIO, default="copy",
        help="sound: copied as it is, or converted where it is not that already, or left out (%(default)s)",
    )  # fmt: skip
    group.add_argument("--no-subtitles", action="store_true", help="leave subtitles out")


def _add_depths(group: Any) -> None:
    group.add_argument(
        "--overlay", type=Path, metavar="OUT", help="write a second output with the depth of each tile drawn over it"
    )
    group.add_argument("--trace", type=Path, metavar="FILE", help="write which blocks ran to this file (.npz)")
    group.add_argument(
        "--snapshot", type=Path, metavar="FILE", help="show the newest frame, small, in this file (.jpg)"
    )


def _add_streaming(group: Any) -> None:
    group.add_argument(
        "--tiling", choices=TILINGS, default="frame",
        help="frame: tiles that see their neighbours; patch: the paper's isolated patches (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--tile-size", type=int, metavar="PX", help="longest side of a tile (as the model was calibrated)"
    )
    group.add_argument(
        "--patch-batch-size", type=int, metavar="N", default=PATCH_BATCH_SIZE, help="patches at once (%(default)s)"
    )
    group.add_argument("--window", type=int, metavar="N", help="frames per window (by the size of the frames)")
    group.add_argument(
        "--lookahead", type=int, metavar="N", default=LOOKAHEAD,
        help="frames the backward recurrence starts beyond a window (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--segment-length", type=int, metavar="N",
        help="frames that are finished at a time, or up to a window more: an interruption loses no more than that",
    )  # fmt: skip
    group.add_argument(
        "--no-scene-detection", dest="scene_detection", action="store_false", help="treat the whole input as one scene"
    )
    group.add_argument(
        "--no-rest", dest="rest", action="store_false", help="with a budget: compute tiles anew in which nothing moves"
    )
    group.add_argument(
        "--no-repeat-detection", dest="repeat_detection", action="store_false",
        help="compute frames anew that are the same as the one before",
    )  # fmt: skip


def job_options(args: argparse.Namespace) -> JobOptions:
    """What `upscale_video` is to do with each of the inputs; each field of the options has an argument of its name."""
    from skipvsr.inference.options import ComputeOptions, StreamOptions
    from skipvsr.upscale.options import JobOptions, OutputOptions
    from skipvsr.upscale.size import OutputSize
    from skipvsr.video.write import EncodeOptions

    encoding = _filled(EncodeOptions, args, preset=args.encoder_preset, subtitles=not args.no_subtitles)
    output = _filled(OutputOptions, args, size=args.size or OutputSize(height=args.height), encoding=encoding)
    compute, stream = _filled(ComputeOptions, args), _filled(StreamOptions, args)
    return _filled(JobOptions, args, compute=compute, stream=stream, output=output)


def _filled(kind: type[Options], args: argparse.Namespace, **others: Any) -> Options:
    """Options of a kind, a dataclass: each field from the argument of its name, but for the others."""
    names = {field.name for field in fields(kind)} - set(others)  # pyright: ignore[reportArgumentType] - a dataclass
    return kind(**{name: getattr(args, name) for name in names}, **others)


def _place(text: str) -> Path | str:
    """A path; or a URL, which a path would change."""
    return text if "://" in text else Path(text)


def _size(text: str) -> OutputSize:
    from skipvsr.upscale.size import OutputSize

    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, as in 1920x1080")
    return OutputSize(height=int(height), width=int(width))


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give seconds or [HH:]MM:SS[.mmm], as in 1:02:03.5")
    hours, minutes, seconds = match.groups()
    return float(3600 * int(hours or 0) + 60 * int(minutes or 0) + Fraction(seconds.rstrip(".")))
