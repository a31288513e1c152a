"""BI and BD against naive transcriptions of their MATLAB scripts, their phases, and compressed video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from skipvsr.data.degradations import bd, bd_duf, bi, compressed, degrade, round_to_8_bit, video
from skipvsr.data.footage import Footage, draw_footage
from skipvsr.errors import ConfigError, DecodeError, ShapeError
from skipvsr.video import compress
from skipvsr.video.compress import ClipEncoding, compress_clip
from tests.media import picture
from tests.test_models_resize import imresize_matrix

CLEAN = Footage(encoding=ClipEncoding("h264", 0))
CODECS = ("h264", "h265", "vp9", "mpeg4", "mpeg2")


def clip_of(frames: int = 3, height: int = 48, width: int = 64) -> Tensor:
    """8-bit noise over a gradient."""
    generator = torch.Generator().manual_seed(height)
    ramp = torch.linspace(0, 0.5, width).expand(frames, 3, height, width)
    return round_to_8_bit(ramp + 0.5 * torch.rand(frames, 3, height, width, generator=generator))


def moving(frames: int, height: int = 64, width: int = 80) -> np.ndarray:
    return np.stack([picture(index, width, height) for index in range(frames)])


def levels(images: Tensor) -> list[int]:
    return (images * 255).round().int().tolist()


def blur_by_loops(image: np.ndarray, taps: int, first: int, start: int, pad: str) -> np.ndarray:
    """Correlation with fspecial('gaussian', taps, 1.6) at pixels start, start + 4, ..., tap by tap.

    first: offset of the first tap, as MATLAB's imfilter or DUF's padding places it; pad: "replicate" or "reflect".
    """
    x = np.arange(taps) - (taps - 1) / 2
    kernel = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * 1.6**2))
    kernel /= kernel.sum()
    height, width = image.shape

    def inside(index: int, side: int) -> int:
        if pad == "replicate":
            return min(max(index, 0), side - 1)
        return abs(index) if index < side else 2 * (side - 1) - index

    lr = np.zeros((height // 4, width // 4))
    for i, j in np.ndindex(*lr.shape):
        for a, b in np.ndindex(taps, taps):
            row, column = inside(start + 4 * i + first + a, height), inside(start + 4 * j + first + b, width)
            lr[i, j] += kernel[a, b] * image[row, column]
    return lr


def test_bi_is_matlabs_imresize_rounded():
    clip = clip_of()
    expected = imresize_matrix(48, 0.25) @ clip.double() @ imresize_matrix(64, 0.25).T
    assert levels(bi(clip)) == levels(expected.clamp(0, 1))


def test_bi_of_a_step_by_hand():
    # Keys' cubic at 0.625, 0.875, ... 1.875 sums up to 0.30859; a quarter of it is 0.07715 = 19.7 / 255.
    clip = torch.zeros(1, 3, 32, 32)
    clip[..., 16:] = 1
    assert levels(bi(clip)[0, 0, 4]) == [0, 0, 0, 20, 235, 255, 255, 255]


def test_bd_is_basicvsrs_script():
    clip = clip_of(1, 16, 24)
    # 12 taps from -5 to +6, rows and columns 2:4:end-2 of MATLAB, edge repeated.
    expected = blur_by_loops(clip[0, 0].double().numpy(), taps=12, first=-5, start=1, pad="replicate")
    assert levels(bd(clip)[0, 0]) == np.rint(expected * 255).astype(int).tolist()


def test_bd_duf_is_dufs_downsampling():
    clip = clip_of(1, 16, 24)
    expected = blur_by_loops(clip[0, 0].double().numpy(), taps=13, first=-6, start=0, pad="reflect")
    assert levels(bd_duf(clip)[0, 0]) == np.rint(expected * 255).astype(int).tolist()


@pytest.mark.parametrize(
    ("kind", "expected"), [("bi", [17.5, 21.5, 25.5]), ("bd", [17.5, 21.5, 25.5]), ("bd-duf", [16, 20, 24])]
)
@pytest.mark.parametrize("axis", [-1, -2])
def test_phase_on_a_ramp(kind, expected: list[float], axis: int):
    # Two levels a pixel, so that half a pixel survives rounding.
    ramp = torch.arange(64).expand(1, 3, 64, 64) * 2 / 255
    lr = degrade(ramp if axis == -1 else ramp.transpose(-1, -2), kind)
    assert (lr.select(-2 if axis == -1 else -1, 8)[0, 0, 4:7] * 255 / 2).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["bi", "bd", "bd-duf"])
def test_a_crop_with_its_surroundings_gives_the_same_bits(kind):
    clip = clip_of(2, 64, 96)
    whole = degrade(clip, kind)
    crop = degrade(clip[..., 12:44, 20:72].contiguous(), kind)
    assert torch.equal(crop[..., 2:-2, 2:-2], whole[..., 5:9, 7:16])
    corner = degrade(clip[..., :32, 64:].contiguous(), kind)
    assert torch.equal(corner[..., :-2, 2:], whole[..., :6, 18:])


@pytest.mark.parametrize("clip", [torch.zeros(1, 3, 16, 18), torch.zeros(1, 3, 4, 4), torch.zeros(3, 16, 16)])
def test_clips_of_the_wrong_shape_are_refused(clip: Tensor):
    with pytest.raises(ShapeError):
        bi(clip)


def test_an_unknown_degradation_is_refused():
    with pytest.raises(ConfigError, match="bi, bd, bd-duf, video"):
        degrade(clip_of(), "cubic")  # pyright: ignore[reportArgumentType]


def test_video_depends_on_its_generator_alone():
    clip = torch.from_numpy(moving(4)).permute(0, 3, 1, 2) / 255
    first, again, other = (degrade(clip, "video", np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (4, 3, 16, 20)
    assert torch.equal(first, round_to_8_bit(first))


@pytest.mark.parametrize("resize", ["bicubic", "bilinear", "area"])
def test_clean_footage_is_close_to_bi(resize):
    # Grey, as colour is stored at half resolution.
    clip = (torch.from_numpy(moving(5)).permute(0, 3, 1, 2) / 255).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    lr = video(clip, replace(CLEAN, resize=resize, lead_frames=3), np.random.default_rng(0))
    assert (lr - bi(clip)).abs().mean() < 1 / 255


def test_noise_has_the_strength_asked_for():
    clip = torch.full((2, 3, 256, 256), 0.5)
    lr = video(clip, replace(CLEAN, read_noise=0.03, shot_noise=0.002), np.random.default_rng(0))
    # Luma is stored at full resolution; that of independent noise in R, G, B is weaker.
    grey = video(clip, replace(CLEAN, read_noise=0.03, shot_noise=0.002, grey_noise=True), np.random.default_rng(0))
    assert grey.mean(dim=1).std().item() == pytest.approx((0.03**2 + 0.002 * 0.5) ** 0.5, rel=0.05)
    assert lr.mean(dim=1).std() < 0.8 * grey.mean(dim=1).std()


def test_footage_without_blur_noise_and_encoding_is_bi():
    clip = clip_of(3, 64, 80)
    plain = video(clip, Footage(), np.random.default_rng(0))
    # Borders differ: BI mirrors the picture there.
    assert (255 * (plain - bi(clip))[..., 2:-2, 2:-2]).abs().round().max() <= 1
    assert torch.equal(plain, round_to_8_bit(plain))


def test_lead_frames_play_the_clip_to_and_fro(monkeypatch: pytest.MonkeyPatch):
    coded: list[np.ndarray] = []

    def remember(frames: np.ndarray, encoding: ClipEncoding) -> np.ndarray:
        coded.append(frames)
        return frames

    monkeypatch.setattr("skipvsr.data.degradations.compress_clip", remember)
    clip = torch.arange(3).view(3, 1, 1, 1).expand(3, 3, 16, 16) / 255
    lr = video(clip, replace(CLEAN, lead_frames=6), np.random.default_rng(0))
    assert coded[0][:, 0, 0, 0].tolist() == [2, 1, 0, 1, 2, 1, 0, 1, 2]
    assert (lr[:, 0, 0, 0] * 255).round().tolist() == [0, 1, 2]


def test_an_encoding_at_full_size_comes_before_the_resize():
    clip = clip_of(3, 128, 160)
    damaged = video(clip, Footage(source=ClipEncoding("h264", 40)), np.random.default_rng(0))
    frames = (clip * 255).round().byte().permute(0, 2, 3, 1).numpy()
    decoded = torch.from_numpy(compress_clip(frames, ClipEncoding("h264", 40))).permute(0, 3, 1, 2) / 255
    assert levels(damaged) == levels(video(decoded, Footage(), np.random.default_rng(0)))
    assert (damaged - bi(clip)).abs().mean() > 2 / 255


def test_compressed_degradations_are_bi_and_the_encoder():
    clip = torch.from_numpy(moving(4, 128, 160)).permute(0, 3, 1, 2) / 255
    assert torch.equal(degrade(clip, "h264-28"), compressed(clip, ClipEncoding("h264", 28, preset="medium")))
    errors = [(degrade(clip, kind) - bi(clip)).square().mean().item() for kind in ("h264-18", "h264-23", "h264-33")]
    assert 0 < errors[0] < errors[1] < errors[2]
    assert not torch.equal(degrade(clip, "h265-28"), degrade(clip, "h264-28"))


def test_drawn_footage_is_varied_and_possible():
    random = np.random.default_rng(1)
    drawn = [draw_footage(random) for _ in range(400)]
    encodings = [footage.encoding for footage in drawn if footage.encoding is not None]
    assert {encoding.codec for encoding in encodings} == set(CODECS)
    assert 0.15 < 1 - len(encodings) / len(drawn) < 0.35
    assert {encoding.bits_per_pixel is None for encoding in encodings} == {False, True}
    assert {encoding.b_frames > 0 for encoding in encodings} == {False, True}
    assert {footage.resize for footage in drawn} == {"bicubic", "bilinear", "area"}
    assert {footage.grey_noise for footage in drawn} == {False, True}
    assert {footage.source is None for footage in drawn} == {False, True}
    assert 0.1 < np.mean([footage.read_noise > 0 for footage in drawn]) < 0.3
    assert max(footage.lead_frames for footage in drawn) > 30
    blurred = [footage.blur_sigmas_px for footage in drawn if max(footage.blur_sigmas_px) > 0]
    assert 0.15 < len(blurred) / len(drawn) < 0.35
    assert all(0.2 <= min(sigmas) <= max(sigmas) <= 1.8 for sigmas in blurred)


@pytest.mark.parametrize(
    ("codec", "qualities"),
    [("h264", (1, 18, 30, 42)), ("h265", (1, 18, 30, 42)), ("vp9", (4, 30, 45, 63)), ("mpeg2", (1, 4, 12, 31))],
)
def test_compression_costs_more_at_worse_quality(codec, qualities: tuple[int, ...]):
    frames = moving(9)
    errors = [
        np.square(compress_clip(frames, ClipEncoding(codec, quality)) - frames.astype(float)).mean()
        for quality in qualities
    ]
    assert errors == sorted(errors)
    assert errors[-1] > 2 * errors[0]


def test_compression_costs_more_at_a_lower_bit_rate():
    frames = moving(9, 96, 128)
    errors = [
        np.square(compress_clip(frames, ClipEncoding("h264", bits_per_pixel=rate)) - frames.astype(float)).mean()
        for rate in (4.0, 0.05)
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 17, 31), (2, 9, 20), (12, 24, 20), (3, 48, 48)])
def test_compression_keeps_count_and_size(codec, shape: tuple[int, int, int]):
    frames = moving(*shape)
    encoding = ClipEncoding(codec, 20)
    decoded = compress_clip(frames, encoding)
    assert decoded.shape == frames.shape
    assert np.array_equal(decoded, compress_clip(frames, encoding))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255), (200, 180, 40), (128, 128, 128), (0, 0, 0)])
def test_compression_keeps_colours(codec, colour: tuple[int, int, int]):
    frames = np.full((3, 32, 32, 3), colour, np.uint8)
    assert np.abs(compress_clip(frames, ClipEncoding(codec, 2)).astype(int) - colour).max() <= 3


def test_encodings_refuse_what_cannot_be():
    with pytest.raises(ConfigError, match="h264, h265, vp9, mpeg4, mpeg2"):
        ClipEncoding("av2", 20)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="0 \\(best\\) to 51"):
        ClipEncoding("h264", 60)
    with pytest.raises(ConfigError, match="1 \\(best\\) to 31"):
        ClipEncoding("mpeg2", 0)
    with pytest.raises(ConfigError, match="bits_per_pixel"):
        ClipEncoding("vp9", bits_per_pixel=0.1)


def test_compression_refuses_what_cannot_be():
    frames = moving(2)
    with pytest.raises(ConfigError, match="nonsense"):
        compress_clip(frames, ClipEncoding("h264", 20), "nonsense")
    with pytest.raises(ShapeError, match="uint8"):
        compress_clip(frames.astype(np.float32), ClipEncoding("h264", 20))


def test_a_lost_frame_is_noticed(monkeypatch: pytest.MonkeyPatch):
    decode = compress._decode
    monkeypatch.setattr(compress, "_decode", lambda packets, codec: decode(packets, codec)[1:])
    with pytest.raises(DecodeError, match="3 frames of 4"):
        compress_clip(moving(4), ClipEncoding("h264", 20))
