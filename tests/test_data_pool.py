"""The pool of degraded clips: what is in it, how it is renewed, and that it stays within its bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from skipvsr.data.augment import USUAL
from skipvsr.data.clips import Clip
from skipvsr.data.crops import CropSampler, CropSettings
from skipvsr.data.datasets import find_clips
from skipvsr.data.degradations import video
from skipvsr.data.footage import draw_footage
from skipvsr.data.pool import FootagePool, PoolSettings
from skipvsr.errors import ConfigError, DataError
from skipvsr.video.images import write_image
from tests.media import picture

FRAMES = 4


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    root = tmp_path_factory.mktemp("clips")
    for name, first in (("a", 0), ("b", 20)):
        (root / name).mkdir()
        for index in range(FRAMES):
            write_image(root / name / f"{index}.png", picture(first + index, 82, 64))
    return find_clips("folder", root)


def pool_of(clips: list[Clip], folder: Path, **settings) -> FootagePool:
    return FootagePool(clips, FRAMES * 3 * 16 * 20 * 2, PoolSettings(folder, **settings), seed=7)


def test_a_window_is_the_degraded_clip_cut(clips: list[Clip], tmp_path: Path):
    pool = pool_of(clips, tmp_path, versions=2, renew_steps=10)
    got = pool.window(1, step=0, draw=0.6, start=1, frames=2)
    random = np.random.default_rng((7, 1, 1, 3))
    gt = torch.from_numpy(clips[1].read()).permute(0, 3, 1, 2)[..., :80].float() / 255
    expected = (video(gt, draw_footage(random), random) * 255).round().byte()
    assert torch.equal(got, expected[1:3])


def test_what_is_read_again_is_what_was_made_whoever_made_it(clips: list[Clip], tmp_path: Path):
    first, second = (pool_of(clips, tmp_path / name) for name in ("one", "two"))
    made = first.window(0, 5, 0.3, 0, FRAMES)
    assert torch.equal(made, first.window(0, 5, 0.3, 0, FRAMES))
    assert torch.equal(made, second.window(0, 5, 0.3, 0, FRAMES))
    assert torch.equal(made, pool_of(clips, tmp_path / "one").window(0, 5, 0.3, 0, FRAMES))


def test_versions_are_renewed_one_at_a_time_and_old_ones_go(clips: list[Clip], tmp_path: Path):
    pool = pool_of(clips, tmp_path, versions=2, renew_steps=10)
    draws = (0.0, 0.5)
    before = [pool.window(0, 0, draw, 0, FRAMES) for draw in draws]
    assert len(list(tmp_path.iterdir())) == 2
    after = [pool.window(0, 10, draw, 0, FRAMES) for draw in draws]
    assert torch.equal(before[1], after[0])
    assert not torch.equal(before[0], after[1])
    assert len(list(tmp_path.iterdir())) == 2
    # The second of two clips is renewed half a period before the first.
    assert torch.equal(pool.window(1, 5, 0.0, 0, FRAMES), pool.window(1, 0, 0.5, 0, FRAMES))


def test_a_damaged_file_is_made_again(clips: list[Clip], tmp_path: Path):
    pool = pool_of(clips, tmp_path)
    made = pool.window(0, 0, 0.0, 0, FRAMES)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(pool.window(0, 0, 0.0, 0, FRAMES), made)


def test_fewer_versions_where_they_would_not_fit(clips: list[Clip], tmp_path: Path):
    one = FRAMES * 3 * 16 * 20 * 2
    assert pool_of(clips, tmp_path, versions=4, max_bytes=3 * one).versions == 2
    with pytest.raises(ConfigError, match="pool_bytes"):
        pool_of(clips, tmp_path, max_bytes=one)
    with pytest.raises(ConfigError, match="versions"):
        PoolSettings(versions=0)


def test_a_folder_that_cannot_be_written_is_named(clips: list[Clip], tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*another folder"):
        pool_of(clips, tmp_path / "file").window(0, 0, 0.0, 0, FRAMES)


def test_crops_of_footage_are_cut_from_the_pool_and_time_runs_forward(clips: list[Clip], tmp_path: Path):
    settings = CropSettings(
        batch=2, frames=3, crop_px=12, lr="video", seed=7, pool=PoolSettings(tmp_path, versions=1), augment=()
    )
    sampler = CropSampler(clips, settings)
    batch = sampler.batch(3)
    pool = pool_of(clips, tmp_path, versions=1)
    for lr, name in zip(batch.lr, batch.names, strict=True):
        clip, _, span, _, _, x, y = name.split()
        start, x, y = int(span.split("-")[0]), int(x.strip("(),")), int(y.strip("(),"))
        index = [known.name for known in clips].index(clip)
        assert torch.equal(lr, pool.window(index, 3, 0.0, start, 3)[..., y : y + 12, x : x + 12])
    # Every augmented crop is one of the eight turns of an unturned one, whose frames are in order.
    turned = CropSampler(clips, replace(settings, augment=USUAL)).batch(3)
    for lr, plain in zip(turned.lr, batch.lr, strict=True):
        turns = [plain.flip(flips) for flips in ([], [2], [3], [2, 3])]
        assert any(torch.equal(lr, turn) or torch.equal(lr, turn.transpose(2, 3)) for turn in turns)
