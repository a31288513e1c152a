"""The filter in real VapourSynth: values, formats, colour, properties, any order, scenes, and vspipe."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import skipvsr
from skipvsr.errors import ConfigError, ShapeError
from skipvsr.inference.options import StreamOptions
from skipvsr.models.vsr import SkipVSR

if TYPE_CHECKING or os.environ.get("SKIPVSR_REQUIRE_VAPOURSYNTH") == "1":
    import vapoursynth as vs  # pyright: ignore[reportMissingImports]
else:
    vs = pytest.importorskip("vapoursynth", exc_type=ImportError)

from skipvsr.vapoursynth import upscale

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT, COUNT = 32, 24, 40
SHORT = StreamOptions(window=6, lookahead=2)
ONE_SCENE = replace(SHORT, scene_detection=False)


def pictures(count: int = COUNT, seed: int = 0) -> np.ndarray:
    """A picture that moves steadily, (count, H, W, 3), float32 in [0.1, 0.9]."""
    noise = torch.rand((1, 3, 6, 20), generator=torch.Generator().manual_seed(seed))
    wide = torch.nn.functional.interpolate(noise, (HEIGHT, WIDTH + count), mode="bicubic")[0].clamp(0, 1)
    frames = torch.stack([wide[:, :, at : at + WIDTH] for at in range(count)])
    return (0.1 + 0.8 * frames).permute(0, 2, 3, 1).contiguous().numpy()


def clip_of(frames: np.ndarray, props: dict[int, dict[str, int]] | None = None) -> vs.VideoNode:
    """An RGBS clip of frames (T, H, W, 3), with properties by number."""
    count, height, width = frames.shape[:3]
    blank = vs.core.std.BlankClip(format=vs.RGBS, width=width, height=height, length=count, fpsnum=25, fpsden=1)

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        for plane in range(3):
            np.copyto(np.asarray(frame[plane]), frames[n, ..., plane])
        frame.props.update((props or {}).get(n, {}))
        return frame

    return vs.core.std.ModifyFrame(blank, blank, fill)


def planes(frame: vs.VideoFrame) -> list[np.ndarray]:
    return [np.array(frame[plane]) for plane in range(frame.format.num_planes)]


def image(frame: vs.VideoFrame) -> np.ndarray:
    return np.stack(planes(frame), -1)


@pytest.fixture(autouse=True)
def _threads():
    """As many as a small machine has, and again whatever was there."""
    before, vs.core.num_threads = vs.core.num_threads, 4
    yield
    vs.core.num_threads = before


@pytest.mark.parametrize("threads", [1, 4, 16])
def test_rgbs_in_order_is_that_of_upscale_frames(tiny: SkipVSR, threads: int):
    vs.core.num_threads = threads
    source = pictures()
    expected = list(skipvsr.upscale_frames(source, tiny, stream=SHORT))
    clip = upscale(clip_of(source), tiny, stream=SHORT)
    assert (clip.width, clip.height, clip.num_frames, clip.format.id) == (4 * WIDTH, 4 * HEIGHT, COUNT, vs.RGBS)
    found = [image(frame) for frame in clip.frames()]
    assert len(found) == COUNT
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("name", ["RGBS", "YUV420P8"])
def test_every_frame_of_the_source_is_made_once(tiny: SkipVSR, threads: int, name: str):
    vs.core.num_threads = threads
    source = clip_of(np.concatenate((pictures(),) * 4))
    if name != "RGBS":
        source = vs.core.resize.Bicubic(source, format=vs.YUV420P8, matrix=1)
    made = []

    def count(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        made.append(n)
        return f

    clip = upscale(vs.core.std.ModifyFrame(source, source, count), tiny)
    assert len(list(clip.frames())) == 4 * COUNT
    assert set(made) == set(range(4 * COUNT))
    # At the start a frame may be asked for while another thread is at it, which VapourSynth does not join.
    assert len(made) <= 4 * COUNT + 2 * threads


@pytest.mark.parametrize("threads", [1, 4])
def test_frames_that_repeat_are_those_of_upscale_frames(tiny: SkipVSR, threads: int):
    """On threes, and a still: the network reads far ahead of the frame that is asked for."""
    vs.core.num_threads = threads
    source = np.concatenate((np.repeat(pictures(10), 3, 0), np.repeat(pictures(1), 130, 0), pictures(9)))
    expected = list(skipvsr.upscale_frames(source, tiny, stream=SHORT))
    clip = upscale(clip_of(source), tiny, stream=SHORT)
    for number, frame in enumerate(clip.frames()):
        assert np.array_equal(image(frame), expected[number])
    clip = upscale(clip_of(source), tiny, stream=SHORT)
    for number in (165, 100, 28, 3):
        assert np.abs(image(clip.get_frame(number)) - expected[number]).mean() < 5e-3


def test_a_broken_frame_that_is_read_far_ahead(tiny: SkipVSR):
    source = clip_of(np.repeat(pictures(1), 60, 0))

    def fails(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n == 50:
            raise ValueError("a broken frame")
        return f

    clip = upscale(vs.core.std.ModifyFrame(source, source, fails), tiny, stream=SHORT)
    for _ in range(3):
        with pytest.raises(vs.Error, match="a broken frame"):
            clip.get_frame(0)


def test_a_budget_is_that_of_upscale_frames():
    source = pictures(12)
    expected = list(skipvsr.upscale_frames(source, "compact", budget=0.5))
    everything = list(skipvsr.upscale_frames(source, "compact"))
    for number, frame in enumerate(upscale(clip_of(source), budget=0.5).frames()):
        assert np.array_equal(image(frame), expected[number])
    assert not np.array_equal(expected[5], everything[5])


def test_any_order_of_requests(tiny: SkipVSR):
    source = pictures()
    expected = list(skipvsr.upscale_frames(source, tiny, stream=SHORT))
    for order in (reversed(range(COUNT)), np.random.default_rng(1).permutation(COUNT).tolist()):
        clip = upscale(clip_of(source), tiny, stream=SHORT)
        for number in order:
            found = image(clip.get_frame(number))
            assert np.abs(found - expected[number]).mean() < 5e-3
            assert np.abs(found - expected[(number + 7) % COUNT]).mean() > 2e-2
    # Many requests at the same time, from both ends.
    clip = upscale(clip_of(source), tiny, stream=SHORT)
    numbers = [number for pair in zip(range(20), range(39, 19, -1), strict=True) for number in pair]
    futures = [(number, clip.get_frame_async(number)) for number in numbers]
    for number, future in futures:
        assert np.abs(image(future.result(timeout=120)) - expected[number]).mean() < 5e-3


def test_given_scenes_are_respected(tiny: SkipVSR):
    """Either property, also where nothing in the picture says so; with scene detection off neither counts."""
    source = pictures()
    alone = [
        frame for part in (source[:13], source[13:]) for frame in skipvsr.upscale_frames(part, tiny, stream=ONE_SCENE)
    ]
    together = list(skipvsr.upscale_frames(source, tiny, stream=ONE_SCENE))
    assert not np.array_equal(alone[13], together[13])
    starts = {number: {"_SceneChangePrev": int(number == 13)} for number in range(COUNT)}
    ends = {number: {"_SceneChangeNext": int(number == 12)} for number in range(COUNT)}
    for props in (starts, ends):
        for number, frame in enumerate(upscale(clip_of(source, props), tiny, stream=SHORT).frames()):
            assert np.array_equal(image(frame), alone[number])
            assert dict(frame.props).items() >= props[number].items()
        clip = upscale(clip_of(source, props), tiny, stream=SHORT)
        assert np.array_equal(image(clip.get_frame(30)), alone[30])
        for number, frame in enumerate(upscale(clip_of(source, props), tiny, stream=ONE_SCENE).frames()):
            assert np.array_equal(image(frame), together[number])


def test_cuts_are_found_where_nothing_is_said(tiny: SkipVSR):
    source = np.concatenate((pictures(10), pictures(10, seed=1)))
    alone = [
        *skipvsr.upscale_frames(source[:10], tiny, stream=SHORT),
        *skipvsr.upscale_frames(source[10:], tiny, stream=SHORT),
    ]
    for number, frame in enumerate(upscale(clip_of(source), tiny, stream=SHORT).frames()):
        assert np.array_equal(image(frame), alone[number])


# Kr and Kb of ITU-T H.273.
WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def to_yuv(rgb: np.ndarray, matrix: int) -> np.ndarray:
    """RGB in [0, 1] as Y in [0, 1] and Cb, Cr in [-0.5, 0.5], by the equations of H.273."""
    red, blue = WEIGHTS[matrix]
    y = red * rgb[..., 0] + (1 - red - blue) * rgb[..., 1] + blue * rgb[..., 2]
    return np.stack((y, (rgb[..., 2] - y) / (2 - 2 * blue), (rgb[..., 0] - y) / (2 - 2 * red)), -1)


def codes(yuv: np.ndarray, bits: int, *, full: bool) -> np.ndarray:
    """Integers of a bit depth."""
    unit = 1 << (bits - 8)
    peak = (1 << bits) - 1
    scale = [peak, peak, peak] if full else [219 * unit, 224 * unit, 224 * unit]
    offset = [0, 128 * unit, 128 * unit] if full else [16 * unit, 128 * unit, 128 * unit]
    return np.clip(np.round(yuv * scale + offset), 0, peak)


@pytest.mark.parametrize("matrix", sorted(WEIGHTS))
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("name", "bits"), [("YUV444P8", 8), ("YUV444P10", 10), ("YUV444P16", 16)])
def test_yuv_has_the_colours_that_the_frame_says(tiny: SkipVSR, matrix: int, full: bool, name: str, bits: int):
    """Against the equations, not against VapourSynth: each code is within two of the result that upscale_frames gives."""
    source = pictures(4)
    coded = codes(to_yuv(source, matrix), bits, full=full)
    blank = vs.core.std.BlankClip(format=getattr(vs, name), width=WIDTH, height=HEIGHT, length=4)

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        for plane in range(3):
            np.copyto(np.asarray(frame[plane]), coded[n, ..., plane].astype(np.asarray(frame[plane]).dtype))
        frame.props.update({"_Matrix": matrix, "_Range": int(full)})
        return frame

    clip = upscale(vs.core.std.ModifyFrame(blank, blank, fill), tiny)
    expected = list(skipvsr.upscale_frames(source, tiny))
    for number, frame in enumerate(clip.frames()):
        assert frame.format.name == name
        assert (frame.props["_Matrix"], frame.props["_Range"]) == (matrix, int(full))
        difference = np.abs(image(frame) - codes(to_yuv(expected[number], matrix), bits, full=full))
        # Half a code of rounding in the source, amplified by the network, and half a code in the result.
        assert difference.max() <= 4
        assert difference.mean() < 0.7


@pytest.mark.parametrize(
    "name",
    [
        "YUV420P8", "YUV420P9", "YUV420P10", "YUV420P12", "YUV420P14", "YUV420P16", "YUV422P8", "YUV422P10", "YUV422P16",
        "YUV410P8", "YUV411P8", "YUV440P8", "YUV444P12", "YUV444PS", "YUV420PS", "YUV444PH", "YUV420PH", "RGB24", "RGB30",
        "RGB48", "RGBH", "GRAY8", "GRAY16", "GRAYS",
    ],
)  # fmt: skip
def test_every_constant_format_comes_out_as_it_is(tiny: SkipVSR, name: str):
    """The result is that of upscale_frames on the clip as VapourSynth makes RGB of it, and made back by VapourSynth."""
    wanted = getattr(vs, name)
    rgb = name.startswith("RGB")
    clip = vs.core.resize.Bicubic(clip_of(pictures(3)), format=wanted, **({} if rgb else {"matrix": 1}))
    larger = upscale(clip, tiny)
    assert (larger.format.id, larger.width, larger.height) == (wanted, 4 * WIDTH, 4 * HEIGHT)
    source = np.stack([image(frame) for frame in vs.core.resize.Bicubic(clip, format=vs.RGBS).frames()])
    expected = clip_of(np.stack(list(skipvsr.upscale_frames(source, tiny))))
    expected = vs.core.resize.Bicubic(expected, format=wanted, **({} if rgb else {"matrix": 1}))
    for one, other in zip(larger.frames(), expected.frames(), strict=True):
        for found, wanted_plane in zip(planes(one), planes(other), strict=True):
            assert np.array_equal(found, wanted_plane)


@pytest.mark.parametrize(("width", "height", "matrix"), [(32, 24, 6), (32, 578, 1), (1026, 16, 1)])
def test_a_frame_without_a_matrix_has_the_usual_one_and_says_so(tiny: SkipVSR, width: int, height: int, matrix: int):
    clip = vs.core.std.BlankClip(format=vs.YUV420P8, width=width, height=height, length=1, color=[100, 90, 200])
    clip = vs.core.std.RemoveFrameProps(clip, ["_Matrix", "_Range", "_ColorRange", "_ChromaLocation"])
    frame = upscale(clip, "bicubic").get_frame(0)
    assert (frame.props["_Matrix"], frame.props["_Range"]) == (matrix, vs.RANGE_LIMITED)
    said = vs.core.std.SetFrameProps(clip, _Matrix=1 if matrix == 6 else 6)
    other = upscale(said, "bicubic").get_frame(0)
    assert other.props["_Matrix"] != matrix
    # Flat colour comes back as it was, whichever matrix it went through.
    assert [np.unique(plane).tolist() for plane in planes(frame)] == [[100], [90], [200]]


def test_colours_may_change_from_frame_to_frame(tiny: SkipVSR):
    flat = [
        vs.core.std.BlankClip(format=vs.YUV444P8, width=WIDTH, height=HEIGHT, length=2, color=[100, 90, 200])
        .std.SetFrameProps(_Matrix=matrix, _Range=full)
        for matrix, full in ((1, 0), (6, 1), (9, 0))
    ]  # fmt: skip
    clip = upscale(vs.core.std.Splice(flat), "bicubic")
    for number, frame in enumerate(clip.frames()):
        assert frame.props["_Matrix"] == (1, 1, 6, 6, 9, 9)[number]
        assert frame.props["_Range"] == (0, 0, 1, 1, 0, 0)[number]
        assert [np.unique(plane).tolist() for plane in planes(frame)] == [[100], [90], [200]]


def test_properties_and_durations_are_carried_over(tiny: SkipVSR):
    props = {number: {"_DurationNum": number + 1, "_DurationDen": 50, "mine": 7 * number} for number in range(5)}
    clip = vs.core.resize.Bicubic(clip_of(pictures(5), props), format=vs.YUV420P8, matrix=1, chromaloc=1)
    clip = vs.core.std.SetFrameProps(clip, _SARNum=16, _SARDen=11, _Primaries=1, _Transfer=1, _PictType="I")
    other = vs.core.std.BlankClip(clip, fpsnum=30, fpsden=1, length=1)
    variable = vs.core.std.Splice([clip, other])  # of two frame rates: variable
    assert variable.fps == 0
    larger = upscale(variable, tiny)
    assert (larger.fps, larger.num_frames) == (0, 6)
    for number in range(5):
        source, found = clip.get_frame(number).props, larger.get_frame(number).props
        assert {name: source[name] for name in source} == {name: found[name] for name in found}
        assert found["_ChromaLocation"] == 1


def test_rgb_in_limited_range(tiny: SkipVSR):
    clip = vs.core.std.BlankClip(format=vs.RGB24, width=WIDTH, height=HEIGHT, length=1, color=[16, 100, 235])
    frame = upscale(vs.core.std.SetFrameProps(clip, _Range=0), "bicubic").get_frame(0)
    assert frame.props["_Range"] == 0
    assert [np.unique(plane).tolist() for plane in planes(frame)] == [[16], [100], [235]]


def test_what_cannot_be_done_is_said(tiny: SkipVSR):
    clip = clip_of(pictures(3))
    sizes = vs.core.std.Splice([clip, vs.core.std.BlankClip(clip, width=64)], mismatch=True)
    with pytest.raises(ShapeError, match="changes its format or size"):
        upscale(sizes, tiny)
    with pytest.raises(ShapeError, match="32x12; each side must be at least 16"):
        upscale(vs.core.std.Crop(clip, top=12), tiny)
    with pytest.raises(ConfigError, match="no target frame rate"):
        upscale(clip, target_fps=5)
    with pytest.raises(ConfigError, match="budget is 2"):
        upscale(clip, budget=2)
    with pytest.raises(TypeError, match="no argument 'tile'"):
        upscale(clip, tile=3)  # pyright: ignore[reportCallIssue]
    interlaced = upscale(vs.core.std.SetFieldBased(clip, 2), tiny)
    with pytest.raises(vs.Error, match="frame 1 is interlaced; deinterlace"):
        interlaced.get_frame(1)


def test_an_error_of_the_source_passes_and_the_next_frame_comes(tiny: SkipVSR):
    source = clip_of(pictures(20))
    fails = [True]

    def sometimes(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n == 9 and fails[0]:
            raise ValueError("a broken frame")
        return f

    clip = upscale(vs.core.std.ModifyFrame(source, source, sometimes), tiny, stream=SHORT)
    with pytest.raises(vs.Error, match="a broken frame"):
        clip.get_frame(5)
    fails[0] = False
    expected = list(skipvsr.upscale_frames(pictures(20), tiny, stream=SHORT))
    assert np.array_equal(image(clip.get_frame(5)), expected[5])


SCRIPT = """
import vapoursynth as vs
from skipvsr.vapoursynth import upscale

clip = vs.core.std.BlankClip(format=vs.YUV420P8, width=32, height=24, length=9, fpsnum=25, fpsden=1)
clip = vs.core.std.FrameEval(clip, lambda n: vs.core.std.BlankClip(clip, color=[16 + 20 * n, 128, 128]))
upscale(clip, "compact", budget=0.5).set_output()
"""


def test_vspipe_pipes_the_clip(tmp_path: Path):
    """As from a shell: nothing of `import skipvsr` is there beforehand, and frames are asked for by several threads."""
    (tmp_path / "script.vpy").write_text(SCRIPT)
    environment = os.environ | {"XDG_CONFIG_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = [sys.executable, "-m", "vapoursynth", "config"]
    subprocess.run(run, env=environment, capture_output=True, check=True)
    pipe = [Path(str(vs.__file__)).with_name("vspipe"), "-c", "y4m", "-r", "6", tmp_path / "script.vpy", "-"]
    done = subprocess.run(pipe, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    header, _, rest = done.stdout.partition(b"\n")
    assert header.startswith(b"YUV4MPEG2 ")
    assert {b"C420", b"W128", b"H96", b"F25:1", b"Ip"} <= set(header.split())
    frame_bytes = len(b"FRAME\n") + 128 * 96 * 3 // 2
    assert len(rest) == 9 * frame_bytes
    for number in range(9):
        frame = np.frombuffer(rest[number * frame_bytes :][6:frame_bytes], np.uint8)
        assert abs(float(frame[: 128 * 96].mean()) - (16 + 20 * number)) < 1.5
    assert b"Output 9" in done.stderr


def test_importing_the_package_does_not_import_vapoursynth():
    code = "import sys, skipvsr; skipvsr.Upscaler; sys.exit('vapoursynth' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
