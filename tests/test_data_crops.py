"""The training sampler: pure, aligned, bounded, and clear about what is broken."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from skipvsr.data.augment import DARKEST, USUAL, augment
from skipvsr.data.cache import ClipCache
from skipvsr.data.clips import Clip
from skipvsr.data.crops import Batch, CropSampler, CropSettings, FlowBatch
from skipvsr.data.datasets import find_clips
from skipvsr.data.degradations import bi, degrade
from skipvsr.errors import ConfigError, DataError
from skipvsr.models.flow import warp
from skipvsr.video.images import write_image
from tests.media import make_video, picture

SETTINGS = CropSettings(batch=5, frames=3, crop_px=8, cache_bytes=1 << 26)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Two folders of images, one of them with sides that are no multiples of 4, and a video."""
    root = tmp_path_factory.mktemp("clips")
    for name, frames, width, height in (("a", 5, 64, 48), ("b", 4, 83, 66)):
        (root / name).mkdir()
        for index in range(frames):
            write_image(root / name / f"{index}.png", picture(3 * index, width, height))
    make_video(root / "c.mp4", [picture(index, 80, 64) for index in range(6)])
    return find_clips("folder", root)


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    root = tmp_path_factory.mktemp("stills")
    for index in range(2):
        write_image(root / f"{index}.png", picture(index, 240, 200))
    return find_clips("stills", root)


def assert_same(first: Batch | FlowBatch, second: Batch | FlowBatch) -> None:
    for part in fields(first):
        one, other = getattr(first, part.name), getattr(second, part.name)
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


@pytest.mark.parametrize("lr", ["bi", "bd", "bd-duf", "video"])
def test_a_batch_is_a_function_of_its_step(clips: list[Clip], stills: list[Clip], lr):
    settings = replace(SETTINGS, lr=lr, still_ratio=0.4, batch=2 if lr == "video" else 3)
    one, other = CropSampler(clips, settings, stills), CropSampler(clips, settings, stills)
    other.preload()
    other.batch(4)  # the order of the calls does not matter
    for draw in ("batch", "flow_batch"):
        first = getattr(one, draw)(3)
        assert_same(first, getattr(other, draw)(3))
        assert_same(first, getattr(one, draw)(3))
        assert first.names != getattr(one, draw)(4).names
    assert one.batch(3).names != CropSampler(clips, replace(settings, seed=1), stills).batch(3).names


@pytest.mark.parametrize("draw", ["batch", "flow_batch"])
def test_processes_together_see_the_global_batch(clips: list[Clip], stills: list[Clip], draw: str):
    sampler = CropSampler(clips, replace(SETTINGS, still_ratio=0.4), stills)
    whole = getattr(sampler, draw)(7)
    parts = [getattr(sampler, draw)(7, positions) for positions in (range(2), range(2, 5))]
    for part in fields(whole):
        slices = [getattr(batch, part.name) for batch in parts]
        joined = torch.cat(slices) if isinstance(slices[0], Tensor) else slices[0] + slices[1]
        wanted = getattr(whole, part.name)
        assert torch.equal(joined, wanted) if isinstance(joined, Tensor) else joined == wanted


@pytest.mark.parametrize("lr", ["bi", "bd", "bd-duf"])
def test_what_is_in_memory_does_not_matter(clips: list[Clip], lr):
    settings = replace(SETTINGS, lr=lr)
    resident = CropSampler(clips, settings)
    resident.preload()
    assert resident.clips.use.resident == 3
    some = CropSampler(clips, replace(settings, cache_bytes=100_000))
    none = CropSampler(clips, replace(settings, cache_bytes=0))
    for step in range(3):
        assert_same(resident.batch(step), none.batch(step))
        assert_same(resident.batch(step), some.batch(step))
    assert some.clips.use.resident in (1, 2)
    assert none.clips.use.used_bytes == 0


def test_memory_is_bounded_and_stated(clips: list[Clip], stills: list[Clip]):
    sampler = CropSampler(clips, replace(SETTINGS, still_ratio=0.5, cache_bytes=400_000), stills)
    sampler.preload()
    for use, held in (
        (
            sampler.clips.use,
            [part for window in sampler.clips._resident.values() for part in (window.gt, window.lr)],
        ),
        (sampler.stills.use, [still for sizes in sampler.stills._resident.values() for still in sizes]),
    ):
        assert use.used_bytes == sum(tensor.numel() for tensor in held if tensor is not None)
        assert use.used_bytes <= use.max_bytes
    assert sampler.clips.use.max_bytes + sampler.stills.use.max_bytes == 400_000
    assert "of 3 decoded" in sampler.describe()
    assert "GiB" in sampler.describe()


def test_crops_are_aligned_parts_of_their_clip(clips: list[Clip]):
    sampler = CropSampler(clips, replace(SETTINGS, augment=(), batch=12))
    batch = sampler.batch(0)
    assert batch.lr.shape == (12, 3, 3, 8, 8)
    assert batch.gt.shape == (12, 3, 3, 32, 32)
    assert batch.lr.dtype == batch.gt.dtype == torch.uint8
    assert {name[0] for name in batch.names} == {"a", "b", "c"}
    for lr, gt, name in zip(batch.lr, batch.gt, batch.names, strict=True):
        match = re.fullmatch(r"(\w) frames (\d)-(\d) at LR \((\d+), (\d+)\)", name)
        assert match is not None
        start, end, x, y = (int(group) for group in match.groups()[1:])
        clip = next(clip for clip in clips if clip.name == match[1])
        whole = torch.from_numpy(clip.read()).permute(0, 3, 1, 2)
        whole = whole[..., : whole.shape[-2] // 4 * 4, : whole.shape[-1] // 4 * 4]
        assert torch.equal(gt, whole[start : end + 1, :, 4 * y : 4 * y + 32, 4 * x : 4 * x + 32])
        small = (bi(whole / 255) * 255).round().byte()
        assert torch.equal(lr, small[start : end + 1, :, y : y + 8, x : x + 8])


@pytest.mark.parametrize("lr", ["bi", "bd", "bd-duf"])
def test_augmentation_turns_lr_and_hr_alike(clips: list[Clip], lr):
    sampler = CropSampler(clips, replace(SETTINGS, lr=lr, crop_px=10, batch=40))
    plain = CropSampler(clips, replace(SETTINGS, lr=lr, crop_px=10, batch=40, augment=()))
    batch, still = sampler.batch(1), plain.batch(1)
    assert batch.names == still.names
    turned = [not torch.equal(one, other) for one, other in zip(batch.gt, still.gt, strict=True)]
    assert 24 < sum(turned) < 40
    # The border of a crop does not know its surroundings.
    for small, gt in zip(batch.lr[:8], batch.gt[:8], strict=True):
        made = (degrade(gt / 255, lr) * 255).round()
        assert (made - small)[..., 2:-2, 2:-2].abs().max() <= 1
    # Time is reversed in half the crops.
    same = [
        torch.equal(one.sum((1, 2, 3)), other.sum((1, 2, 3))) for one, other in zip(batch.gt, still.gt, strict=True)
    ]
    assert 10 < sum(same) < 30


def _changes(name: str, frames: Tensor) -> list[Tensor]:
    """All that one augmentation may make of frames (T, 3, H, W), but for leaving them as they are and for brightness."""
    return {
        "flip": [frames.flip(dims) for dims in ([2], [3], [2, 3])],
        "transpose": [frames.transpose(2, 3)],
        "reverse": [frames.flip(0)],
        "channels": [frames[:, list(order)] for order in permutations(range(3))],
    }[name]


@pytest.mark.parametrize("name", ["flip", "transpose", "reverse", "channels"])
def test_an_augmentation_alone_does_what_its_name_says(clips: list[Clip], name):
    plain = CropSampler(clips, replace(SETTINGS, augment=(), batch=24)).batch(1)
    batch = CropSampler(clips, replace(SETTINGS, augment=(name,), batch=24)).batch(1)
    changed = 0
    for lr, gt, small, large in zip(batch.lr, batch.gt, plain.lr, plain.gt, strict=True):
        same = torch.equal(gt, large)
        changed += not same
        pairs = zip(_changes(name, small), _changes(name, large), strict=True)
        assert same or any(torch.equal(lr, one) and torch.equal(gt, two) for one, two in pairs)
    assert 6 <= changed <= 23
    # Each draw is its own: among all of them it is the same.
    usual = CropSampler(clips, replace(SETTINGS, augment=(*USUAL, "channels"), batch=24)).batch(1)
    for alone, among, large in zip(batch.gt, usual.gt, plain.gt, strict=True):
        if not torch.equal(alone, large):
            assert not torch.equal(among, large)


def test_crops_become_darker_together(clips: list[Clip]):
    plain = CropSampler(clips, replace(SETTINGS, augment=(), batch=24)).batch(1).floats()
    batch = CropSampler(clips, replace(SETTINGS, augment=("brightness",), batch=24)).batch(1).floats()
    factors = batch.gt.mean((1, 2, 3, 4)) / plain.gt.mean((1, 2, 3, 4))
    assert factors.min() > DARKEST - 0.01
    assert factors.max() < 1.01
    assert 6 <= (factors < 0.99).sum() <= 18
    for frames, before in ((batch.lr, plain.lr), (batch.gt, plain.gt)):
        assert (frames - before * factors.view(-1, 1, 1, 1, 1)).abs().max() < 1.5 / 255


def test_what_an_encoder_left_is_neither_reversed_nor_recoloured():
    frames = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).view(2, 3, 2, 2)
    for seed in range(20):
        lr, gt = augment(frames, frames, ("reverse", "channels", "brightness"), "video", np.random.default_rng(seed))
        assert torch.equal(lr, frames)
        assert torch.equal(gt, frames)
        lr, _ = augment(frames, frames, ("flip",), "bd-duf", np.random.default_rng(seed))
        assert torch.equal(lr, frames)


def test_mirrored_clips(clips: list[Clip]):
    batch = CropSampler(clips, replace(SETTINGS, mirror=True)).batch(0)
    assert batch.lr.shape[1] == 6
    assert torch.equal(batch.gt, batch.gt.flip(1))


def test_floats(clips: list[Clip]):
    batch = CropSampler(clips, SETTINGS).batch(0)
    floats = batch.floats()
    assert floats.lr.dtype == floats.gt.dtype == torch.float32
    assert torch.equal((floats.gt * 255).round().byte(), batch.gt)
    assert floats.names == batch.names
    pairs = CropSampler(clips, SETTINGS).flow_batch(0).floats()
    assert pairs.reference.dtype == torch.float32
    assert pairs.valid.dtype == torch.bool


def test_flow_pairs_of_clips_have_no_flow(clips: list[Clip]):
    batch = CropSampler(clips, replace(SETTINGS, batch=8)).flow_batch(0)
    assert batch.reference.shape == batch.support.shape == (8, 3, 8, 8)
    assert batch.flow.shape == (8, 2, 8, 8)
    assert not batch.flow.any()
    assert not batch.valid.any()
    assert not torch.equal(batch.reference, batch.support)


def test_flow_pairs_of_stills_fit_their_flow(stills: list[Clip]):
    settings = replace(SETTINGS, batch=6, crop_px=24, still_ratio=1.0)
    batch = CropSampler([], settings, stills).flow_batch(0).floats()
    assert batch.valid.float().mean() > 0.5
    inside = batch.valid[..., 2:-2, 2:-2]
    moved = (warp(batch.support, batch.flow) - batch.reference)[..., 2:-2, 2:-2]
    still = (batch.support - batch.reference)[..., 2:-2, 2:-2]
    assert (moved * inside).abs().mean() < 0.3 * (still * inside).abs().mean()
    assert (moved * inside).abs().max() < 0.05


def test_stills_take_their_share(clips: list[Clip], stills: list[Clip]):
    sampler = CropSampler(clips, replace(SETTINGS, batch=60, frames=2, still_ratio=0.3), stills)
    batch = sampler.batch(0)
    synthetic = sum("synthetic motion" in name for name in batch.names)
    assert 8 < synthetic < 30
    assert batch.lr.shape == (60, 2, 3, 8, 8)


def test_the_datasets_own_lr(tmp_path: Path):
    for index in range(3):
        for folder, width, height in (("GT/a", 96, 64), ("LR/a", 24, 16)):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            write_image(tmp_path / folder / f"{index}.png", picture(index, width, height))
    settings = replace(SETTINGS, lr="given", augment=())
    clips = find_clips("folder", tmp_path, lr="bi")
    for memory in (1 << 24, 0):
        batch = CropSampler(clips, replace(settings, cache_bytes=memory)).batch(0)
        x, y = map(int, re.findall(r"\((\d+), (\d+)\)", batch.names[0])[0])
        given = torch.from_numpy(clips[0].read_lr()).permute(0, 3, 1, 2)
        assert torch.equal(batch.lr[0], given[..., y : y + 8, x : x + 8])
    write_image(tmp_path / "LR" / "a" / "0.png", picture(0, 28, 16))
    write_image(tmp_path / "LR" / "a" / "1.png", picture(0, 28, 16))
    write_image(tmp_path / "LR" / "a" / "2.png", picture(0, 28, 16))
    with pytest.raises(DataError, match="LR frames are 28x16; HR of a asks for 24x16"):
        CropSampler(clips, settings).batch(0)


@pytest.mark.parametrize("memory", [0, 1 << 24])
def test_a_broken_frame_is_named(tmp_path: Path, memory: int):
    (tmp_path / "a").mkdir()
    for index in range(4):
        write_image(tmp_path / "a" / f"{index}.png", picture(index, 64, 48))
    sampler = CropSampler(find_clips("folder", tmp_path), replace(SETTINGS, cache_bytes=memory))
    (tmp_path / "a" / "2.png").write_bytes(b"broken")
    for _ in range(2):
        with pytest.raises(DataError, match=r"a/2\.png: frame 2 does not decode"):
            sampler.batch(0)
    assert sampler.clips.use.used_bytes == 0


def test_what_cannot_be_drawn_is_refused(clips: list[Clip], stills: list[Clip]):
    with pytest.raises(DataError, match=r"clip b has 4 frames and a crop takes 5"):
        CropSampler(clips, replace(SETTINGS, frames=5))
    with pytest.raises(DataError, match=r"frames are \d+x\d+ and a crop takes 80 pixels"):
        CropSampler(clips, replace(SETTINGS, crop_px=20)).batch(0)
    with pytest.raises(ConfigError, match="no clips"):
        CropSampler([], SETTINGS)
    with pytest.raises(ConfigError, match="without stills"):
        CropSampler(clips, replace(SETTINGS, still_ratio=0.1))
    for wrong in (
        {"batch": 0},
        {"still_ratio": 1.5},
        {"lr": "cubic"},
        {"seed": -1},
        {"lr": "given", "still_ratio": 0.5},
    ):
        with pytest.raises(ConfigError, match="|".join(wrong)):
            replace(SETTINGS, **wrong)


def test_a_clip_cache_reads_each_clip_once(clips: list[Clip], monkeypatch: pytest.MonkeyPatch):
    cache = ClipCache(clips, "bi", 1 << 26)
    cache.preload()
    monkeypatch.setattr(Clip, "read", lambda *_: pytest.fail("read again"))
    for index in range(3):
        window = cache.window(index, 1, 2)
        assert window.lr is not None
        assert window.gt.shape[-1] == 4 * window.lr.shape[-1]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 26])
def test_crops_are_cut_on_the_device_that_trains(clips: list[Clip], stills: list[Clip], cache_bytes: int):
    """ "meta" stands for a GPU here: it has shapes and no contents."""
    settings = replace(SETTINGS, device="meta", still_ratio=0.4, cache_bytes=cache_bytes, batch=8)
    sampler = CropSampler(clips, settings, stills)
    batch, same = sampler.batch(0), CropSampler(clips, replace(settings, device="cpu"), stills).batch(0)
    assert batch.lr.device.type == batch.gt.device.type == "meta"
    assert batch.lr.shape == same.lr.shape
    assert batch.names == same.names
    assert any("synthetic" in name for name in batch.names)
    assert sampler.flow_batch(0).reference.device.type == "meta"
    kept = sampler.clips._resident.values()
    assert bool(kept) == bool(cache_bytes)
    assert all(window.gt.device.type == "meta" for window in kept)
