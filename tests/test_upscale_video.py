"""Videos, folders and iterators of frames, from one end to the other."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import skipvsr
from skipvsr.errors import ConfigError, DecodeError, InputError, OutputError, ShapeError
from skipvsr.inference.streaming import upscale_stream
from skipvsr.inference.windows import Windows
from skipvsr.models.vsr import SkipVSR
from skipvsr.upscale.frames import to_array, to_tensor, upscale_frames
from skipvsr.upscale.job import upscale_video
from skipvsr.upscale.progress import Progress
from skipvsr.upscale.size import OutputSize, resize
from skipvsr.video.images import read_image, write_image
from skipvsr.video.open import probe, read_clip
from skipvsr.video.write import EncodeOptions
from tests.media import make_video, packets, picture, times

LOSSLESS = EncodeOptions(codec="ffv1", pixel_format="yuv444p")


def phone_video(path: Path) -> Path:
    """What a phone makes: upright by rotation, variable frame rate, sound, a late start."""
    return make_video(
        path,
        12,
        times=[300 + 3000 * index + 100 * (index % 3) for index in range(12)],
        time_base=Fraction(1, 90000),
        rotation=90,
        audio_codec="aac",
        audio_seconds=0.5,
    )


def test_a_phone_video(tmp_path: Path, tiny: SkipVSR):
    source = phone_video(tmp_path / "in.mp4")
    seen: list[Progress] = []
    report = upscale_video(source, tmp_path / "out.mp4", tiny, window=4, lookahead=2, on_progress=seen.append)
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height, info.rotation_degrees) == (192, 128, 90)
    assert times(info.path) == times(source)
    assert packets(info.path, "audio") == packets(source, "audio")
    assert (report.frames, report.scenes, report.input_size, report.output_size) == (12, 1, (48, 32), (192, 128))
    # One after another: 12 frames read, 18 backward steps (6 + 6 + 4, and 2 of the last window's lookahead less), 12 results.
    assert list(dict.fromkeys(progress.frames_done for progress in seen)) == list(range(13))
    assert {progress.frames_total for progress in seen} == {12}
    assert all(progress.memory_bytes > 0 for progress in seen)
    assert seen[-1].seconds_left == 0


def test_the_frame_is_what_the_network_says(tmp_path: Path, tiny: SkipVSR):
    source = make_video(tmp_path / "in.mkv", 7, codec="ffv1", pixel_format="yuv444p", options={})
    upscale_video(source, tmp_path / "out.mkv", tiny, encoding=LOSSLESS)
    with torch.inference_mode():
        lr = torch.from_numpy(read_clip(source)).permute(0, 3, 1, 2).float() / 255
        expected = (tiny(lr[None])[0].clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    # YUV in between costs a level or two.
    assert np.abs(read_clip(tmp_path / "out.mkv").astype(int) - expected).max() <= 2


def test_scenes_do_not_mix(tmp_path: Path, tiny: SkipVSR):
    dark = [picture(index) // 4 for index in range(5)]
    light = [255 - picture(index) // 4 for index in range(4)]
    source = make_video(tmp_path / "in.mkv", dark + light, codec="ffv1", pixel_format="yuv444p", options={})
    assert upscale_video(source, tmp_path / "both.mkv", tiny, encoding=LOSSLESS).scenes == 2
    parts = []
    for name, frames in (("dark", dark), ("light", light)):
        part = make_video(tmp_path / f"{name}.mkv", frames, codec="ffv1", pixel_format="yuv444p", options={})
        upscale_video(part, tmp_path / f"{name}-x4.mkv", tiny, encoding=LOSSLESS)
        parts.append(read_clip(tmp_path / f"{name}-x4.mkv"))
    assert np.array_equal(read_clip(tmp_path / "both.mkv"), np.concatenate(parts))
    assert upscale_video(source, tmp_path / "one.mkv", tiny, encoding=LOSSLESS, scene_detection=False).scenes == 1
    assert not np.array_equal(read_clip(tmp_path / "one.mkv"), np.concatenate(parts))


def test_a_folder_of_images(tmp_path: Path, tiny: SkipVSR):
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(8, 12):
        write_image(folder / f"im{index}.png", picture(index))
    (folder / "notes.txt").write_text("not an image")
    report = upscale_video(folder, tmp_path / "out", tiny)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["im10.png", "im11.png", "im8.png", "im9.png"]
    assert report.frames == 4
    frames = list(upscale_frames([picture(index) for index in range(8, 12)], tiny))
    for index, frame in zip(range(8, 12), frames, strict=True):
        assert np.array_equal(read_image(tmp_path / "out" / f"im{index}.png"), frame)


def test_sixteen_bit_images_stay_sixteen_bit(tmp_path: Path, tiny: SkipVSR):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "0.png", picture(0).astype(np.uint16) * 257 + 13)
    upscale_video(tmp_path / "in", tmp_path / "out", tiny)
    result = read_image(tmp_path / "out" / "0.png")
    assert result.dtype == np.uint16
    assert len(np.unique(result % 257)) > 50


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (OutputSize(), (192, 128)),
        (OutputSize(height=96), (144, 96)),
        (OutputSize(height=100), (150, 100)),
        (OutputSize(width=96), (96, 64)),
        (OutputSize(height=50, width=70), (70, 50)),
    ],
)
def test_output_sizes(tmp_path: Path, tiny: SkipVSR, size: OutputSize, expected: tuple[int, int]):
    source = make_video(tmp_path / "in.mp4", 2)
    assert upscale_video(source, tmp_path / "out.mp4", tiny, size=size).output_size == expected
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height) == expected


def test_a_height_counts_for_the_frame_as_it_is_shown(tmp_path: Path, tiny: SkipVSR):
    source = make_video(tmp_path / "in.mp4", 2, rotation=90)
    assert upscale_video(source, tmp_path / "out.mp4", tiny, size=OutputSize(height=96)).output_size == (96, 64)


def test_an_exact_size_keeps_the_shape_of_what_is_shown(tmp_path: Path, tiny: SkipVSR):
    """48x32 squeezed into 64x64: its pixels are as much wider as the picture got narrower."""
    source = make_video(tmp_path / "in.mp4", 2)
    upscale_video(source, tmp_path / "out.mp4", tiny, size=OutputSize(height=64, width=64))
    assert probe(tmp_path / "out.mp4").sample_aspect_ratio == Fraction(3, 2)


def test_resizing_does_not_alias():
    """Stripes finer than the output are grey there, not other stripes."""
    stripes = (torch.arange(256) % 4 < 2).float().expand(3, 64, 256)
    small = resize(stripes, 16, 64)
    assert (small[..., 4:-4] - 0.5).abs().max() < 0.1


def test_a_file_that_was_cut_off_is_upscaled_as_far_as_it_goes(tmp_path: Path, tiny: SkipVSR):
    whole = make_video(tmp_path / "whole.mp4", 50, options={"crf": "4", "g": "10"})
    front = tmp_path / "front.mp4"
    with av.open(str(whole)) as container, av.open(str(front), "w", options={"movflags": "faststart"}) as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    front.write_bytes(front.read_bytes()[: front.stat().st_size * 6 // 10])
    with pytest.raises(
        DecodeError, match=r"at 0:0\d\.\d+.*the (\d+) frames that could be read are in .*out\.mp4"
    ) as caught:
        upscale_video(front, tmp_path / "out.mp4", tiny, window=4, lookahead=2)
    assert caught.value.exit_code == 3
    written = times(tmp_path / "out.mp4")
    assert 5 < len(written) < 50
    assert written == times(whole)[: len(written)]


def test_failures_leave_no_output(tmp_path: Path, tiny: SkipVSR):
    source = make_video(tmp_path / "in.mp4", 3)
    with pytest.raises(InputError):
        upscale_video(tmp_path / "missing.mp4", tmp_path / "out.mp4", tiny)
    with pytest.raises(OutputError):
        upscale_video(source, source, tiny)
    with pytest.raises(ConfigError):
        upscale_video(source, tmp_path / "out.mp4", tiny, lookahead=-1)
    with pytest.raises(ConfigError, match="device"):
        upscale_video(source, tmp_path / "out.mp4", tiny, device="no-such-device")

    def interrupt(progress: Progress) -> None:
        if progress.frames_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_video(source, tmp_path / "out.mp4", tiny, on_progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


# Frames


def kinds() -> dict[str, list]:
    arrays = [picture(index) for index in range(5)]
    return {
        "uint8": arrays,
        "uint16": [array.astype(np.uint16) * 257 for array in arrays],
        "float32": [(array / 255).astype(np.float32) for array in arrays],
        "float64": [array / 255 for array in arrays],
        "torch": [torch.from_numpy(array).permute(2, 0, 1).float() / 255 for array in arrays],
        "torch half": [torch.from_numpy(array).permute(2, 0, 1).half() / 255 for array in arrays],
    }


@pytest.mark.parametrize("kind", list(kinds()))
def test_frames_come_back_as_they_went_in(kind: str, tiny: SkipVSR):
    frames = kinds()[kind]
    results = list(upscale_frames(iter(frames), tiny))
    assert len(results) == 5
    reference = torch.stack(list(upscale_stream(map(to_tensor, kinds()["float32"]), tiny, Windows(8))))
    for frame, result, expected in zip(frames, results, reference.clamp(0, 1), strict=True):
        assert type(result) is type(frame)
        assert result.dtype == frame.dtype
        ours = result.float() if isinstance(result, torch.Tensor) else to_tensor(result).float()
        torch.testing.assert_close(ours, expected, atol=3e-3, rtol=0)


def test_numbers_become_integers_by_rounding():
    levels = torch.tensor([-0.1, 0.0, 0.4999 / 255, 0.5001 / 255, 0.999, 1.0, 1.7]).expand(3, 1, 7)
    assert to_array(levels, np.dtype(np.uint8))[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255, 255]
    assert to_array(levels, np.dtype(np.uint16))[0, :, 0].tolist() == [0, 0, 128, 129, 65469, 65535, 65535]


def test_frames_are_taken_as_they_are_needed(tiny: SkipVSR):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield picture(taken)

    stream = upscale_frames(endless(), tiny, window=3, lookahead=1)
    assert taken == 0
    for _ in range(3):
        next(stream)
    assert taken == 5


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((32, 32, 3), np.int32),
        np.zeros((8, 32, 3), np.uint8),
        torch.zeros(32, 32, 3),
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        torch.zeros(3, 0, 0),
        np.zeros((0, 0, 3), np.uint8),
        np.full((32, 32, 3), 200.0),
        [[0.0]],
        None,
    ],
)
def test_other_frames_are_refused(frame, tiny: SkipVSR):
    with pytest.raises(ShapeError):
        list(upscale_frames([frame], tiny))


def test_frames_whose_memory_is_used_again(tiny: SkipVSR):
    """A source may fill one tensor anew for each frame."""
    frames = [to_tensor(picture(index)) for index in range(6)]

    def refilled():
        memory = torch.empty_like(frames[0])
        for frame in frames:
            yield memory.copy_(frame)

    for one, two in zip(upscale_frames(refilled(), tiny), upscale_frames(frames, tiny), strict=True):
        assert torch.equal(one, two)


def test_settings_are_checked_before_the_first_frame(tiny: SkipVSR):
    with pytest.raises(ConfigError, match="window"):
        upscale_frames([], tiny, window=0)
    with pytest.raises(ConfigError, match="lookahead"):
        upscale_frames([], tiny, lookahead=-1)


def test_no_frames(tiny: SkipVSR):
    assert list(upscale_frames(iter(()), tiny)) == []


def test_public_names_and_a_light_import():
    """Importing the package must not even import torch; what it offers is all there."""
    import subprocess
    import sys

    program = "import sys, skipvsr; print(sorted({'torch', 'av', 'numpy', 'tqdm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert {name for name in skipvsr.__all__ if getattr(skipvsr, name) is None} == set()
    assert set(skipvsr.__all__) <= set(dir(skipvsr))
