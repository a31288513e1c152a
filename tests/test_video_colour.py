"""Colour through decoding, the bicubic bypass and encoding: matrices, ranges, depths, chroma positions, HDR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from skipvsr.errors import ConfigError, DecodeError, InputError
from skipvsr.upscale.job import upscale_video
from skipvsr.upscale.size import OutputSize
from skipvsr.video.colour import BT709, FULL, HLG, LIMITED, PQ, ColourSpec, from_rgb, to_rgb
from skipvsr.video.encode import EncodeOptions, choose_encoder
from skipvsr.video.open import probe
from skipvsr.video.properties import CHROMA_OFFSETS, chroma_location, plane_array, with_chroma_location
from skipvsr.video.read import VideoReader
from tests.media import make_video, picture

KR_KB = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
YCGCO, ICTCP = 8, 14


def formula(rgb: np.ndarray, matrix: int, colour_range: int, bits: int) -> np.ndarray:
    """ITU-T H.273: (..., 3) RGB in [0, 1] -> (..., 3) codes, not rounded."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    if matrix == YCGCO:
        luma, cb, cr = red / 4 + green / 2 + blue / 4, green / 2 - (red + blue) / 4, (red - blue) / 2
    else:
        kr, kb = KR_KB[matrix]
        luma = kr * red + (1 - kr - kb) * green + kb * blue
        cb, cr = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    unit, peak = 2 ** (bits - 8), 2**bits - 1
    if colour_range == FULL:
        return np.stack((peak * luma, peak * cb + 128 * unit, peak * cr + 128 * unit), axis=-1)
    return unit * np.stack((219 * luma + 16, 224 * cb + 128, 224 * cr + 128), axis=-1)


def frame_of(planes: Sequence[np.ndarray], pixel_format: str, colour: ColourSpec) -> av.VideoFrame:
    """A frame of exactly these codes."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pixel_format)
    dtype = np.uint16 if pixel_format.endswith("le") else np.uint8
    for plane, values in zip(frame.planes, planes, strict=True):
        plane_array(plane, dtype)[:] = values
    frame.colorspace, frame.color_range = colour.matrix, colour.range
    frame.color_primaries, frame.color_trc = colour.primaries, colour.transfer
    return frame


def codes(frame: av.VideoFrame) -> list[np.ndarray]:
    dtype = np.uint16 if frame.format.name.endswith("le") else np.uint8
    return [plane_array(plane, dtype).astype(int) for plane in frame.planes]


def write_codes(path: Path, frames: Sequence[av.VideoFrame], options: dict[str, str] | None = None) -> Path:
    """A video that decodes to exactly these frames (FFV1)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options=options or {})
        assert isinstance(stream, VideoStream)
        first, context = frames[0], stream.codec_context
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, first.format.name
        context.colorspace, context.color_range = first.colorspace, first.color_range
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        for index, frame in enumerate(frames):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_codes(path: Path) -> list[list[np.ndarray]]:
    with av.open(str(path)) as container:
        return [codes(frame) for frame in container.decode(video=0)]


def ramp(start: Sequence[float], end: Sequence[float], width: int = 64, height: int = 32) -> np.ndarray:
    """(height, width, 3) RGB in [0, 1], linear from left to right."""
    along = np.linspace(0, 1, width)[None, :, None]
    return np.repeat((1 - along) * np.array(start) + along * np.array(end), height, axis=0)


PATCHES = [(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.2, 0.5, 0.7), (0.9, 0.6, 0.1), (0.5, 0.5, 0.5)]
RAMPS = [((0, 0, 0), (1, 1, 1)), ((0.1, 0.8, 0.2), (0.8, 0.1, 0.9))]


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("layout", ["420", "444"])
def test_patches_and_ramps_come_out_within_one_code_value(
    tmp_path: Path, matrix: int, colour_range: int, bits: int, layout: str
):
    colour = ColourSpec(matrix, colour_range, 1, 1)
    pixel_format = f"yuv{layout}p" + ("10le" if bits == 10 else "")
    step = 2 if layout == "420" else 1
    flat = [np.full((32, 64, 3), patch, float) for patch in PATCHES]
    exact = [formula(rgb, matrix, colour_range, bits) for rgb in (*flat, *(ramp(*ends) for ends in RAMPS))]
    stored = np.rint(exact).clip(0, 2**bits - 1)
    # Chroma of a ramp at the left pixel of each pair, where its samples lie.
    planes = [[image[..., 0], image[::step, ::step, 1], image[::step, ::step, 2]] for image in stored]
    source = write_codes(tmp_path / "in.mkv", [frame_of(each, pixel_format, colour) for each in planes])
    encode = EncodeOptions(codec="ffv1", pixel_format=pixel_format)
    upscale_video(source, tmp_path / "out.mkv", "bicubic", encoding=encode)
    assert probe(tmp_path / "out.mkv").colour == colour
    found = read_codes(tmp_path / "out.mkv")
    assert len(found) == len(exact)
    for index, (image, result) in enumerate(zip(exact, found, strict=True)):
        for component, values in enumerate(result):
            every = step if component else 1
            # In source pixels; a ramp ends at the edge of the picture, where the filter sees it bend.
            x = (np.arange(0, 256, every) + 0.5) / 4 - 0.5
            inside = (x > 6) & (x < 57) if index >= len(PATCHES) else slice(None)
            wanted = np.interp(x, np.arange(64), image[0, :, component])
            # What is stored is a whole number next to what was meant.
            assert np.abs(values - np.rint(wanted).clip(0, 2**bits - 1))[:, inside].max() <= 1, (index, component)


@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_x264_at_quality_0_stores_the_patches_within_one_code_value(tmp_path: Path, colour_range: int):
    colour = ColourSpec(BT709, colour_range, 1, 1)
    exact = [np.rint(formula(np.array(patch, float), BT709, colour_range, 8)).clip(0, 255) for patch in PATCHES]
    frames = [[np.full((32, 64), y), np.full((16, 32), cb), np.full((16, 32), cr)] for y, cb, cr in exact]
    source = write_codes(tmp_path / "in.mkv", [frame_of(planes, "yuv420p", colour) for planes in frames])
    upscale_video(source, tmp_path / "out.mp4", "bicubic", encoding=EncodeOptions(crf=0))
    assert probe(tmp_path / "out.mp4").colour == colour
    found = read_codes(tmp_path / "out.mp4")
    for planes, wanted in zip(found, exact, strict=True):
        for values, code in zip(planes, wanted, strict=True):
            assert np.abs(values - code).max() <= 1


@pytest.mark.parametrize("matrix", [*KR_KB, YCGCO])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_conversion_follows_the_formula(matrix: int, colour_range: int, bits: int):
    colour = ColourSpec(matrix, colour_range)
    pixel_format = "yuv444p" + (f"{bits}le" if bits > 8 else "")
    # Not up to the edge of RGB, where rounded codes would lie beyond it.
    rgb = 0.05 + 0.9 * np.random.default_rng(bits).random((32, 64, 3))
    wanted = formula(rgb, matrix, colour_range, bits)
    peak, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    planes = list(np.moveaxis(np.rint(wanted), -1, 0))
    found = to_rgb(frame_of(planes, pixel_format, colour), colour)
    assert found.dtype == dtype
    again = formula(found / peak, matrix, colour_range, bits)
    assert np.abs(again - np.stack(planes, axis=-1)).max() <= (0.6 if bits == 8 else 0.1)
    stored = codes(from_rgb(np.rint(rgb * peak).astype(dtype), pixel_format, colour))
    exact = formula(np.rint(rgb * peak) / peak, matrix, colour_range, bits)
    assert np.abs(np.stack(stored, axis=-1) - exact).max() <= 0.57


@pytest.mark.parametrize("location", CHROMA_OFFSETS)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv420p10le", "yuv422p10le"])
def test_chroma_is_put_where_it_lies(location: str, pixel_format: str):
    """A slope in chroma: misplaced by half a pixel it would be wrong by two levels."""
    unit, depth = (4, 10) if "10" in pixel_format else (1, 8)
    right, down = CHROMA_OFFSETS[location]
    lines = 2 if "420" in pixel_format else 1

    def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return unit * (60.0 + 2 * x[None] + 2 * y[:, None])

    luma = np.full((32, 32), 128 * unit)
    x, y = 2 * np.arange(16) + right, np.arange(0, 32, lines) + (down if lines == 2 else 0)
    planes = [luma, slope(x, y), np.full((32 // lines, 16), 128 * unit)]
    colour = ColourSpec(BT709, FULL, chroma_location=location)
    rgb = to_rgb(frame_of(planes, pixel_format, colour), colour) / (255 if depth == 8 else 65535)
    found = formula(rgb, BT709, FULL, depth)[..., 1]
    wanted = slope(np.arange(32), np.arange(32))
    assert np.abs(found - wanted)[6:-6, 6:-6].max() <= 0.6 * unit

    pixels = np.rint(rgb * (255 if depth == 8 else 65535)).astype(np.uint8 if depth == 8 else np.uint16)
    stored = codes(from_rgb(pixels, pixel_format, colour))[1]
    inner = slice(6, -6)
    assert np.abs(stored - planes[1])[inner, inner].max() <= 1
    limited = ColourSpec(BT709, LIMITED, chroma_location=location)
    stored = codes(from_rgb(pixels, pixel_format, limited))[1]
    assert np.abs(stored - (planes[1] - 128 * unit) * 224 * unit / (2**depth - 1) - 128 * unit)[inner, inner].max() <= 1


def test_every_chroma_location_is_recognised():
    frame = from_rgb(picture(0), "yuv420p", ColourSpec(BT709, LIMITED))
    for location in CHROMA_OFFSETS:
        assert chroma_location(with_chroma_location(frame, location)) == location


@pytest.mark.parametrize(("said", "kept"), [("topleft", "topleft"), ("left", "left"), ("center", "left")])
def test_chroma_locations_are_read_and_the_output_says_its_own(tmp_path: Path, said: str, kept: str):
    source = make_video(tmp_path / "in.mp4", 2, options={"crf": "4", "chroma_sample_location": said})
    assert probe(source).colour.chroma_location == said
    upscale_video(source, tmp_path / "out.mp4", "bicubic")
    assert probe(tmp_path / "out.mp4").colour.chroma_location == kept


def deep_video(path: Path, transfer: int = 1, params: str = "", pixel_format: str = "yuv420p10le") -> Path:
    colour = ColourSpec(9, LIMITED, 9, transfer)
    options = {"crf": "4", "x265-params": "log-level=error" + params}
    # x265 spoils the decoding times of one and two frames.
    pictures = [picture(index, 64, 32) for index in range(3)]
    return make_video(path, pictures, codec="libx265", pixel_format=pixel_format, colour=colour, options=options)


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "hevc"), ("mkv", "hevc"), ("webm", "av1")])
def test_deep_sources_go_out_with_ten_bits(tmp_path: Path, ending: str, codec: str):
    source = deep_video(tmp_path / "in.mkv")
    upscale_video(source, tmp_path / f"out.{ending}", "bicubic")
    info = probe(tmp_path / f"out.{ending}")
    assert (info.bit_depth, info.colour) == (10, ColourSpec(9, LIMITED, 9, 1))
    with av.open(str(info.path)) as container:
        context = container.streams.video[0].codec_context
        assert codec in (context.name, context.codec.canonical_name)
        assert ending != "mp4" or context.codec_tag == "hvc1"


@pytest.mark.parametrize("frames", [1, 2])
def test_one_or_two_frames_go_through_x265(tmp_path: Path, frames: int):
    source = make_video(tmp_path / "in.mkv", [picture(index, 64, 32) for index in range(frames)])
    encode = EncodeOptions(codec="libx265", pixel_format="yuv420p10le", preset="ultrafast")
    # Memory that was never set is sometimes right by chance, more often in large pictures.
    for attempt in range(8):
        destination = tmp_path / f"{attempt}.mp4"
        upscale_video(source, destination, "bicubic", size=OutputSize(32, 64), encoding=encode)
        with av.open(str(destination)) as container:
            packets = [(packet.pts, packet.dts) for packet in container.demux(video=0) if packet.size]
        assert len(packets) == frames
        assert all(pts == dts for pts, dts in packets)


def test_all_ten_bits_arrive(tmp_path: Path):
    """A ramp of single ten-bit steps: eight bits would make stairs of four."""
    colour = ColourSpec(BT709, LIMITED, 1, 1)
    luma = np.repeat(400 + np.arange(64)[None], 32, axis=0)
    grey = np.full((16, 32), 512)
    source = write_codes(tmp_path / "in.mkv", [frame_of([luma, grey, grey], "yuv420p10le", colour)])
    encode = EncodeOptions(codec="libx265", crf=0, preset="ultrafast")
    upscale_video(source, tmp_path / "out.mkv", "bicubic", encoding=encode)
    ((found, cb, cr),) = read_codes(tmp_path / "out.mkv")
    wanted = 400 + (np.arange(256) + 0.5) / 4 - 0.5
    assert np.abs(found - wanted)[:, 16:-16].max() <= 1
    assert max(np.abs(cb - 512).max(), np.abs(cr - 512).max()) <= 1


def test_what_is_left_open_is_chosen_by_depth_width_and_container():
    chosen = choose_encoder(EncodeOptions(), 256, 128)
    assert (chosen.codec, chosen.pixel_format) == ("libx264", "yuv420p")
    narrow = choose_encoder(EncodeOptions(), 48, 128, deep=True)
    assert (narrow.codec, narrow.pixel_format) == ("libx264", "yuv420p10le")
    given = choose_encoder(EncodeOptions(codec="prores_ks"), 256, 128, deep=True)
    assert given.pixel_format == "yuv422p10le"
    eight = choose_encoder(EncodeOptions(pixel_format="yuv420p"), 256, 128, deep=True)
    assert (eight.codec, eight.pixel_format) == ("libx264", "yuv420p")
    assert choose_encoder(EncodeOptions(), 256, 128, container=".webm").codec == "libvpx-vp9"


def test_encoders_are_fast_unless_something_else_is_asked_for():
    assert choose_encoder(EncodeOptions(), 256, 128).options["preset"] == "faster"
    deep = choose_encoder(EncodeOptions(), 256, 128, deep=True).options
    assert (deep["preset"], deep["x265-params"]) == ("fast", "log-level=error")
    for depth in (False, True):
        assert choose_encoder(EncodeOptions(preset="slow"), 256, 128, deep=depth).options["preset"] == "slow"
    assert "preset" not in choose_encoder(EncodeOptions(), 256, 128, container=".webm").options


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_stays_hdr(tmp_path: Path, transfer: int):
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    source = deep_video(tmp_path / "in.mkv", transfer, f":master-display={display}:max-cll=1000,400")
    upscale_video(source, tmp_path / "out.mp4", "bicubic")
    before, after = probe(source), probe(tmp_path / "out.mp4")
    assert after.colour == before.colour == ColourSpec(9, LIMITED, 9, transfer)
    assert after.bit_depth == 10
    assert after.hdr is not None
    assert after.hdr == before.hdr
    assert after.hdr.light == (1000, 400)
    assert [float(value) for value in after.hdr.mastering or ()] == pytest.approx(
        [0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329, 0.005, 1000]
    )


def test_hdr_goes_out_with_eight_bits_only_where_that_was_asked_for(tmp_path: Path):
    source = deep_video(tmp_path / "in.mkv", PQ)
    with pytest.raises(ConfigError, match="mpeg4 stores only 8 bits"):
        upscale_video(source, tmp_path / "out.mkv", "bicubic", encoding=EncodeOptions(codec="mpeg4"))
    upscale_video(source, tmp_path / "out.mkv", "bicubic", encoding=EncodeOptions(pixel_format="yuv420p"))
    info = probe(tmp_path / "out.mkv")
    assert (info.bit_depth, info.colour.transfer) == (8, PQ)


def joined(path: Path, *parts: Path) -> Path:
    """Bare H.264 streams one after the other, each with its own headers."""
    path.write_bytes(b"".join(each.read_bytes() for each in parts))
    return path


def part(path: Path, pixels: np.ndarray, matrix: int, colour_range: int) -> Path:
    options = {"crf": "1", "bf": "0"}
    return make_video(path, [pixels] * 2, colour=ColourSpec(matrix, colour_range, 1, 1), options=options)


def test_a_description_that_changes_midway_is_followed(tmp_path: Path):
    pixels = np.full((32, 48, 3), (40, 160, 220), np.uint8)
    parts = [part(tmp_path / "a.h264", pixels, 1, LIMITED), part(tmp_path / "b.h264", pixels, 6, FULL)]
    source = joined(tmp_path / "in.h264", *parts)
    upscale_video(source, tmp_path / "out.mp4", "bicubic", encoding=EncodeOptions(crf=1))
    for path in (source, tmp_path / "out.mp4"):
        with VideoReader(path) as reader:
            assert (reader.info.colour.matrix, reader.info.colour.range) == (1, LIMITED)
            frames = [frame.pixels.astype(int) for frame in reader]
        assert len(frames) == 4
        for frame in frames:
            assert np.abs(frame - pixels[0, 0]).max() <= 3


def test_matrices_that_are_not_supported_are_refused(tmp_path: Path):
    pixels = picture(0)
    ictcp = part(tmp_path / "ictcp.h264", pixels, ICTCP, LIMITED)
    with pytest.raises(InputError, match=r"ictcp\.h264.*ICtCp.*convert"):
        upscale_video(ictcp, tmp_path / "out.mp4", "bicubic")
    source = joined(tmp_path / "in.h264", part(tmp_path / "a.h264", pixels, 1, LIMITED), ictcp)
    with pytest.raises(DecodeError, match=r"from 0:00\.\d+ on.*ICtCp.*the 2 frames that could be read"):
        upscale_video(source, tmp_path / "out.mp4", "bicubic")


def test_ycgco_keeps_its_colours(tmp_path: Path):
    pixels = np.full((32, 48, 3), (40, 160, 220), np.uint8)
    source = part(tmp_path / "in.mp4", pixels, YCGCO, FULL)
    with VideoReader(source) as reader:
        assert np.abs(next(iter(reader)).pixels.astype(int) - pixels).max() <= 2
    upscale_video(source, tmp_path / "out.mp4", "bicubic", encoding=EncodeOptions(crf=1))
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert reader.info.colour.matrix == YCGCO
        assert np.abs(next(iter(reader)).pixels.astype(int) - pixels[0, 0]).max() <= 3
