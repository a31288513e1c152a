"""The paper's isolated patches: cutting, merging, and each patch a video of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import skipvsr
from skipvsr.errors import ConfigError
from skipvsr.inference.patched import Patched, PatchGrid
from skipvsr.inference.streaming import upscale_stream
from skipvsr.inference.windows import Windows
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.trace import RoutingTrace
from tests.conftest import make_network

LIGHT = VSRConfig(6, 3, "light", "light")


def test_the_papers_patches():
    grid = PatchGrid(180, 320)
    assert grid.tops == [0, 46, 92, 132]
    assert grid.lefts == [0, 46, 92, 138, 184, 230, 272]
    assert grid.patches == 28
    assert PatchGrid(48, 94).lefts == [0, 46]
    assert PatchGrid(48, 48).patches == 1
    assert (PatchGrid(20, 100).patch_height, PatchGrid(20, 100).tops) == (20, [0])


@given(
    height=st.integers(16, 120),
    width=st.integers(16, 120),
    patch=st.integers(16, 60),
    stride_share=st.floats(0.2, 1.0),
    count=st.integers(1, 2),
)
def test_cutting_and_merging_is_nothing(height: int, width: int, patch: int, stride_share: float, count: int):
    grid = PatchGrid(height, width, patch, max(1, int(stride_share * patch)))
    frames = torch.rand(count, 2, height, width, dtype=torch.float64)
    patches = grid.cut(frames)
    assert patches.shape == (count * grid.patches, 2, grid.patch_height, grid.patch_width)
    torch.testing.assert_close(grid.merge(patches, scale=1), frames)


def test_one_patch_fades_into_the_next():
    """Two patches of 16 with an overlap of 4: weights across it are 0.5, 1.5, 2.5, 3.5 against 3.5, 2.5, 1.5, 0.5."""
    grid = PatchGrid(16, 28, 16, 12)
    values = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 16, 16)
    row = grid.merge(values, scale=1)[0, 0, 5]
    assert row[:12].tolist() == [0] * 12
    assert row[12:16].tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert row[16:].tolist() == [1] * 12
    assert grid.expand(torch.tensor([3, 7]))[0].tolist() == [3] * 12 + [7] * 16


def by_hand(network: SkipVSR, frames: torch.Tensor, grid: PatchGrid) -> torch.Tensor:
    """Each patch alone through the clip-wise network; the mean of what overlaps, by the same weights."""
    results = []
    for top in grid.tops:
        for left in grid.lefts:
            part = frames[..., top : top + grid.patch_height, left : left + grid.patch_width]
            results.append(network(part[None])[0])
    return torch.cat([grid.merge(torch.stack([patch[t] for patch in results]), scale=4) for t in range(len(frames))])


@pytest.mark.parametrize("patch_batch_size", [1, 4, 100])
@pytest.mark.parametrize("size", [(50, 100), (20, 61), (48, 48)])
def test_each_patch_is_a_video_of_its_own(size: tuple[int, int], patch_batch_size: int):
    network = make_network(LIGHT)
    frames = torch.rand(5, 3, *size)
    grid = PatchGrid(*size)
    with torch.inference_mode():
        expected = by_hand(network, frames, grid)
        found = torch.stack(list(upscale_stream(frames, Patched(network, grid, patch_batch_size), Windows(8))))
        routed = list(
            skipvsr.upscale_frames(
                frames, network, tiling="patch", patch_batch_size=patch_batch_size, trace=RoutingTrace()
            )
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.stack(routed), expected.clamp(0, 1), atol=1e-5, rtol=1e-5)
    if grid.patches > 1:
        assert (found - network(frames[None])[0]).abs().max() > 1e-3  # isolation shows


@pytest.mark.parametrize("router", ["gain", "paper"])
def test_one_decision_a_patch(router):
    network = make_network(replace(LIGHT, router=router), seed=3)
    frames = torch.rand(6, 3, 50, 100)
    runs = {}
    for patch_batch_size in (1, 3):
        trace = RoutingTrace()
        list(
            skipvsr.upscale_frames(
                frames, network, tiling="patch", patch_batch_size=patch_batch_size, threshold=0.4, trace=trace
            )
        )
        runs[patch_batch_size] = torch.stack([trunk.mask for trunk in trace.trunks])
        assert 0 < trace.active_ratio <= 1
    assert runs[1].shape[1:] == (3, 6, 1, 1)  # blocks, patches
    assert torch.equal(runs[1], runs[3])


def test_impossible_patches():
    with pytest.raises(ConfigError, match="at least 16"):
        PatchGrid(50, 50, 15, 10)
    with pytest.raises(ConfigError, match="stride"):
        PatchGrid(50, 50, 48, 49)
    with pytest.raises(ConfigError, match="patches in a batch"):
        skipvsr.upscale_frames([], make_network(LIGHT), tiling="patch", patch_batch_size=0)
    with pytest.raises(ConfigError, match="tiling is"):
        skipvsr.upscale_frames([], make_network(LIGHT), tiling="rows")  # pyright: ignore[reportArgumentType]
