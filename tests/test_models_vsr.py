"""The network: sizes, costs, shapes, precision."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from skipvsr.errors import ConfigError, ShapeError
from skipvsr.evaluation.cost import cost_per_frame
from skipvsr.models.blocks import InputConv
from skipvsr.models.config import VSRConfig
from skipvsr.models.flow import light_flow, spynet, warp
from skipvsr.models.reconstruction import SubpixelConv, as_frame, enlarge_bilinearly
from skipvsr.models.vsr import SkipVSR
from tests.conftest import make_network

COMPACT = VSRConfig(channels=32, blocks=8, flow="light", reconstruction="light")


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def counted_macs(network: SkipVSR, frames: int, height: int, width: int) -> int:
    """What torch's own counter sees, on tensors without data."""
    with torch.device("meta"):
        network = SkipVSR(network.config)
    clip = torch.empty(1, frames, 3, height, width, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(clip)
    return counter.get_total_flops() // 2


def test_the_papers_size_has_its_parameters():
    network = SkipVSR(VSRConfig())
    assert parameters(network) == 6_291_311
    assert parameters(network.flow) == parameters(spynet()) == 1_440_300
    assert parameters(network) - parameters(network.flow) == 4_851_011
    assert parameters(network.backward_trunk) == parameters(network.forward_trunk) == 2_254_336
    assert parameters(network.reconstruction) == 342_339


def test_compact_is_compact():
    assert parameters(SkipVSR(COMPACT)) == 395_122
    assert parameters(light_flow()) == 63_010
    assert parameters(light_flow(halvings=1)) == 63_010 * 4 // 5


def test_the_papers_size_costs_what_the_paper_says():
    cost = cost_per_frame(VSRConfig(), 180, 320)
    assert cost.without_flow / 1e9 == pytest.approx(337.76, abs=0.005)
    assert cost.blocks / 1e9 == pytest.approx(254.80, abs=0.005)
    assert cost.trunk_inputs / 1e9 == pytest.approx(4.45, abs=0.005)
    assert cost.reconstruction / 1e9 == pytest.approx(78.5, abs=0.05)
    assert cost.flow / 1e9 == pytest.approx(39.3, abs=0.05)


@pytest.mark.parametrize("config", [VSRConfig(), COMPACT, VSRConfig(16, 3, "light", "basicvsr")], ids=str)
@pytest.mark.parametrize("size", [(180, 320), (37, 50)])
def test_the_closed_form_is_what_torch_counts(config: VSRConfig, size: tuple[int, int]):
    network = SkipVSR(config)
    frames = 3
    cost = cost_per_frame(config, *size)
    # A clip of T frames has T - 1 pairs of flows.
    assert counted_macs(network, frames, *size) == frames * cost.without_flow + (frames - 1) * cost.flow


@settings(max_examples=15)
@given(st.integers(16, 41), st.integers(16, 41), st.integers(1, 3), st.sampled_from(["spynet", "light"]))
def test_any_size_comes_out_exactly_four_times_larger(height: int, width: int, frames: int, flow):
    network = make_network(VSRConfig(4, 1, flow, "light"))
    with torch.inference_mode():
        output = network(torch.rand(2, frames, 3, height, width))
    assert output.shape == (2, frames, 3, 4 * height, 4 * width)
    assert output.isfinite().all()


@pytest.mark.parametrize(
    "shape", [(3, 20, 20), (1, 2, 4, 20, 20), (1, 0, 3, 20, 20), (1, 2, 3, 15, 20), (1, 2, 3, 20, 8)]
)
def test_other_shapes_are_refused(tiny: SkipVSR, shape: tuple[int, ...]):
    with pytest.raises(ShapeError):
        tiny(torch.zeros(shape))


@pytest.mark.parametrize(
    "values",
    [{"channels": 0}, {"blocks": 2.5}, {"flow": "raft"}, {"reconstruction": "deep"}, {"channels": True}, {"router": 1}],
)
def test_impossible_settings_are_refused(values: dict):
    with pytest.raises(ConfigError):
        VSRConfig.from_dict(values)


def test_a_config_survives_a_round_trip():
    assert VSRConfig.from_dict(COMPACT.to_dict()) == COMPACT


def test_an_untrained_light_flow_says_no_motion():
    flow = light_flow()(torch.rand(1, 3, 32, 48), torch.rand(1, 3, 32, 48))
    assert flow.abs().max() == 0


def test_half_flow_is_the_light_one_without_its_finest_level():
    light = make_network(replace(COMPACT, router="gain"))
    half = light.with_half_flow()
    assert half.config == replace(light.config, flow="half")
    frames = torch.rand(2, 1, 3, 48, 64)
    with torch.no_grad():
        coarse = light.flow.level_flows(*frames)[-2]
        assert coarse.shape == (1, 2, 24, 32)
        expected = 2 * F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(half.flow(*frames), expected)
        # What is left over at the sides is not lost, nor are its flows scaled by another ratio.
        odd = half.flow(*frames[..., :45, :61])
    assert odd.shape == (1, 2, 45, 61)
    assert half.flow.multiple_px == light.flow.multiple_px == 16
    kept = half.state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in light.state_dict().items() if name in kept)
    with pytest.raises(ConfigError, match="flow is 'half'; only 'light'"):
        half.with_half_flow()


def test_warp_by_whole_pixels_is_a_shift():
    source = torch.rand(1, 2, 6, 7)
    flow = torch.zeros(1, 2, 6, 7)
    flow[:, 0], flow[:, 1] = 2, -1
    warped = warp(source, flow)
    # warped(y, x) = source(y - 1, x + 2); nothing comes from outside.
    torch.testing.assert_close(warped[..., 1:, :5], source[..., :5, 2:], atol=1e-5, rtol=0)
    assert warped[..., 0, :].abs().max() < 1e-5
    assert warped[..., :, 5:].abs().max() < 1e-5
    border = warp(source, flow, padding="border")
    torch.testing.assert_close(border[..., 1:, 5:], source[..., :5, 6:].expand(-1, -1, -1, 2), atol=1e-5, rtol=0)


def naive_warp(source: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Pixel by pixel in float64, with zeros outside."""
    count, channels, height, width = source.shape
    result = torch.zeros(count, channels, height, width, dtype=torch.float64)
    for n, y, x in product(range(count), range(height), range(width)):
        at_x, at_y = x + flow[n, 0, y, x].item(), y + flow[n, 1, y, x].item()
        if not (math.isfinite(at_x) and math.isfinite(at_y)):
            continue
        for row, column in product((math.floor(at_y), math.floor(at_y) + 1), (math.floor(at_x), math.floor(at_x) + 1)):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(at_y - row)) * (1 - abs(at_x - column))
                result[n, :, y, x] += weight * source[n, :, row, column].double()
    return result


@pytest.mark.parametrize("learns", [False, True], ids=["rows", "grid_sample"])
@given(
    count=st.integers(1, 2), height=st.integers(2, 7), width=st.integers(2, 7),
    channels_last=st.booleans(), far=st.booleans(), seed=st.integers(0, 999),
)  # fmt: skip
def test_warp_against_the_definition(
    learns: bool, count: int, height: int, width: int, channels_last: bool, far: bool, seed: int
):
    """Both ways, on flows that lead outside, far outside, onto the border, and nowhere."""
    random = torch.Generator().manual_seed(seed)
    source = torch.randn(count, 16, height, width, generator=random)
    flow = (30 if far else 2) * torch.randn(count, 2, height, width, generator=random)
    flow[:, :, 0, 0] = 0
    flow[0, :, -1, -1] = torch.tensor([1.0, 0.0])
    if channels_last:
        source = source.contiguous(memory_format=torch.channels_last)
    expected = naive_warp(source, flow)
    with torch.set_grad_enabled(learns):
        warped = warp(source, flow)
    torch.testing.assert_close(warped.double(), expected, atol=1e-5, rtol=1e-5)


def test_warp_where_the_flow_is_no_number():
    flow = torch.zeros(1, 2, 4, 5)
    flow[0, 0, 1, 1], flow[0, 1, 2, 2], flow[0, 0, 3, 3] = math.nan, math.inf, -math.inf
    source = torch.rand(1, 16, 4, 5)
    with torch.inference_mode():
        assert torch.equal(warp(source, flow).double(), naive_warp(source, flow))


def test_warp_samples_in_fp32_at_any_dtype():
    # At a width of 2,100 a bf16 coordinate is off by up to eight pixels; the result must be off by bf16 rounding alone.
    ramp = torch.linspace(0, 1, 2100).expand(1, 1, 3, 2100)
    flow = torch.full((1, 2, 3, 2100), 0.25)
    flow[:, 1] = 0
    exact = warp(ramp, flow)
    for dtype in (torch.bfloat16, torch.float16):
        half = warp(ramp.to(dtype), flow)
        assert half.dtype == dtype
        assert (half.float() - exact)[..., :-1].abs().max() < 2 * torch.finfo(dtype).eps
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(warp(ramp, flow), exact)


def test_the_network_runs_in_half_precision(tiny: SkipVSR):
    clip = torch.rand(1, 3, 3, 24, 24)
    with torch.inference_mode():
        exact = tiny(clip)
        half = tiny.bfloat16()(clip.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().mean() < 0.02 * exact.abs().mean() + 0.01


def test_one_frame_needs_no_flow():
    network = make_network(VSRConfig(4, 1, "light", "light"))
    with torch.inference_mode():
        assert network(torch.rand(1, 1, 3, 16, 16)).shape == (1, 1, 3, 64, 64)


def test_clips_of_a_batch_do_not_mix(tiny: SkipVSR):
    clips = torch.rand(3, 4, 3, 20, 24)
    with torch.inference_mode():
        together = tiny(clips)
        apart = torch.cat([tiny(clip[None]) for clip in clips])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def test_every_frame_is_seen_by_every_other(tiny: SkipVSR):
    clip = torch.rand(1, 5, 3, 20, 24)
    changed = clip.clone()
    changed[:, 2] += 0.1
    with torch.inference_mode():
        difference = (tiny(changed) - tiny(clip)).abs().amax(dim=(0, 2, 3, 4))
    assert (difference > 1e-7).all()


@pytest.mark.parametrize("scale", [2, 4])
def test_bilinear_enlargement_is_torchs(scale: int):
    frame = torch.rand(2, 3, 17, 23)
    expected = F.interpolate(frame, scale_factor=scale, mode="bilinear", align_corners=False)
    torch.testing.assert_close(as_frame(enlarge_bilinearly(frame, scale)), expected)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_subpixel_convolution_is_a_convolution_and_a_pixel_shuffle(scale: int):
    layer, x = SubpixelConv(5, 3 * scale**2, 3, padding=1), torch.rand(2, 5, 9, 11)
    plain = F.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(as_frame(layer(x)), F.pixel_shuffle(plain, scale))


def test_the_input_convolution_is_that_of_frame_and_state_in_one():
    layer = InputConv(3 + 6, 6, 3, padding=1)
    frame, state = torch.rand(2, 3, 9, 11), torch.rand(2, 6, 9, 11)
    plain = F.conv2d(torch.cat((frame, state), dim=1), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(frame, state), plain)
