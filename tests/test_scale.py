"""x2: everything that a network of another scale goes through gives pictures of that scale, in their right places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import Checkpoint, save_folder
from skipvsr.data.clips import Clip
from skipvsr.data.crops import CropSampler, CropSettings
from skipvsr.data.datasets import find_clips
from skipvsr.data.degradations import bi, degrade
from skipvsr.data.pairs import Pairs, lr_gt_clip
from skipvsr.data.pool import PoolSettings
from skipvsr.errors import ConfigError, ShapeError
from skipvsr.evaluation.cost import cost_per_frame
from skipvsr.evaluation.evaluate import evaluate
from skipvsr.evaluation.measures import Measures
from skipvsr.evaluation.settings import Setting
from skipvsr.inference.patched import Patched, PatchGrid
from skipvsr.inference.strips import reconstruct_in_strips
from skipvsr.models.bicubic import Bicubic
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from skipvsr.upscale.frames import upscale_frames
from skipvsr.upscale.job import upscale_video
from skipvsr.upscale.size import OutputSize
from skipvsr.video.images import write_image
from skipvsr.video.open import read_clip
from tests.conftest import make_network
from tests.media import make_video, picture
from tests.test_models_resize import imresize_matrix
from tests.test_models_vsr import counted_macs

LIGHT = VSRConfig(6, 2, "light", "light", scale=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("clips") / "a"
    folder.mkdir()
    for index in range(4):
        write_image(folder / f"{index}.png", picture(index, 81, 64))
    return find_clips("folder", folder.parent)


@pytest.mark.parametrize("reconstruction", ["light", "basicvsr"])
def test_a_clip_comes_out_twice_as_large(reconstruction):
    network = make_network(replace(LIGHT, reconstruction=reconstruction))
    assert network.scale == 2
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 3, 17, 30)).shape == (1, 3, 3, 34, 60)


@pytest.mark.parametrize("config", [LIGHT, VSRConfig(8, 2, "half", "basicvsr", scale=2)], ids=str)
def test_the_closed_form_of_the_cost_is_what_torch_counts(config: VSRConfig):
    cost = cost_per_frame(config, 37, 50)
    assert counted_macs(SkipVSR(config), 3, 37, 50) == 3 * cost.without_flow + 2 * cost.flow


def test_a_x4_network_starts_a_x2_one_that_gives_its_means():
    four = make_network(replace(LIGHT, scale=4, router="gain"))
    two = four.with_scale(2).eval()
    assert two.config == replace(LIGHT, router="gain")
    assert four.router is not None
    kept = two.state_dict()
    assert all(torch.equal(kept[f"router.{name}"], weight) for name, weight in four.router.state_dict().items())
    frame, backward, forward = torch.rand(1, 3, 20, 24), torch.rand(1, 6, 20, 24), torch.rand(1, 6, 20, 24)
    with torch.inference_mode():
        nothing = torch.zeros_like(frame)
        added = F.avg_pool2d(four.reconstruct(nothing, backward, forward), 2)
        torch.testing.assert_close(two.reconstruct(nothing, backward, forward), added)
        torch.testing.assert_close(
            two.propagate("forward", frame, None, None), four.propagate("forward", frame, None, None)
        )
        assert two.reconstruct(frame, backward, forward).shape == (1, 3, 40, 48)


def test_a_paper_sized_reconstruction_keeps_what_has_one_shape():
    four = make_network(VSRConfig(8, 1, "light", "basicvsr"))
    two = four.with_scale(2)
    assert torch.equal(two.state_dict()["reconstruction.up2.weight"], four.state_dict()["reconstruction.up2.weight"])
    assert "reconstruction.up1.weight" not in two.state_dict()


def test_the_scale_is_kept_in_a_model_folder_and_old_readers_understand_x4(tmp_path: Path):
    network = make_network(LIGHT)
    save_folder(Checkpoint(network.config, network.state_dict(), {}), tmp_path / "two")
    assert load_model(tmp_path / "two").scale == 2
    assert "scale" not in replace(LIGHT, scale=4).to_dict()
    with pytest.raises(ConfigError, match="choose one of 2, 4"):
        replace(LIGHT, scale=3)  # pyright: ignore[reportArgumentType]


def test_patches_and_strips_are_put_where_they_belong():
    network = make_network(LIGHT)
    frame, backward, forward = torch.rand(1, 3, 40, 20), torch.rand(1, 6, 40, 20), torch.rand(1, 6, 40, 20)
    with torch.inference_mode():
        whole = network.reconstruct(frame, backward, forward)
        torch.testing.assert_close(reconstruct_in_strips(network, frame, backward, forward, most_pixels=200), whole)
        patched = Patched(network, PatchGrid(40, 20, 48))
        torch.testing.assert_close(patched.reconstruct(frame, backward, forward), whole)


def test_bi_by_two_is_matlabs_imresize():
    clip = (torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 255).round() / 255
    expected = imresize_matrix(48, 0.5) @ clip.double() @ imresize_matrix(64, 0.5).T
    assert (bi(clip, 2) * 255).round().int().tolist() == (expected.clamp(0, 1) * 255).round().int().tolist()


@pytest.mark.parametrize("kind", ["bi", "video", "h264-28"])
def test_degraded_clips_lie_on_the_grid_of_bi(kind):
    """A ramp stays the ramp: nothing is shifted. The middle of LR pixel j is that of HR pixels 2j and 2j + 1."""
    ramp = torch.linspace(0.1, 0.9, 128).expand(3, 3, 96, 128)
    lr = degrade(ramp, kind, np.random.default_rng(3), scale=2)
    assert lr.shape == (3, 3, 48, 64)
    expected = (ramp[..., ::2] + ramp[..., 1::2])[..., ::2, :] / 2
    assert (lr - expected)[..., 8:-8, 8:-8].mean().abs() < 1 / 255


def test_bd_is_refused_at_other_scales():
    with pytest.raises(ConfigError, match="defined for x4"):
        degrade(torch.rand(1, 3, 32, 32), "bd", scale=2)
    with pytest.raises(ShapeError, match="multiples of 2"):
        bi(torch.rand(1, 3, 33, 32), 2)


@pytest.mark.parametrize("lr", ["bi", "video"])
def test_crops_are_aligned(clips: list[Clip], tmp_path: Path, lr):
    settings = CropSettings(
        batch=2, frames=2, crop_px=20, lr=lr, seed=1, augment=(), scale=2, pool=PoolSettings(tmp_path)
    )
    batch = CropSampler(clips, settings).batch(0)
    assert batch.lr.shape == (2, 2, 3, 20, 20)
    assert batch.gt.shape == (2, 2, 3, 40, 40)
    # As far as degradation allows, LR is what the ground truth looks like from afar.
    difference = F.avg_pool2d(batch.gt.flatten(0, 1).float(), 2) - batch.lr.flatten(0, 1).float()
    other = F.avg_pool2d(batch.gt.flatten(0, 1).float(), 2).roll(3, dims=3) - batch.lr.flatten(0, 1).float()
    assert difference.abs().mean() < 0.5 * other.abs().mean()


def test_pairs_and_evaluation_follow_the_scale(clips: list[Clip]):
    lr, gt = lr_gt_clip(clips[0], "bi", scale=2)
    assert (lr.shape, gt.shape) == ((4, 3, 32, 40), (4, 3, 64, 80))
    one_by_one = list(Pairs("bi", scale=2).read(clips[0]))
    assert torch.equal(torch.stack([pair[0] for pair in one_by_one]), lr)
    full = evaluate(make_network(LIGHT), clips, Pairs("bi", scale=2), [Setting("full")], Measures(with_ssim=False))[0]
    bicubic = evaluate(Bicubic(2), clips, Pairs("bi", scale=2), [Setting("full")], Measures(with_ssim=False))[0]
    assert full.psnr_y < 20 < bicubic.psnr_y


def test_videos_and_frames_come_out_twice_as_large(tmp_path: Path):
    network = make_network(LIGHT)
    source = make_video(tmp_path / "in.mp4", [picture(index, 32, 24) for index in range(3)])
    report = upscale_video(source, tmp_path / "out.mp4", network)
    assert report.output_size == (64, 48)
    assert read_clip(tmp_path / "out.mp4").shape == (3, 48, 64, 3)
    assert upscale_video(source, tmp_path / "high.mp4", network, size=OutputSize(height=36)).output_size == (48, 36)
    frames = list(upscale_frames(iter(read_clip(source)), network))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
