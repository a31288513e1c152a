"""Thresholds, budgets and calibration, in streams, from the command line and in stored models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import skipvsr
from skipvsr.checkpoints.native import Checkpoint, read_folder, save_folder
from skipvsr.cli.main import main
from skipvsr.errors import CheckpointError, ConfigError
from skipvsr.evaluation.calibrate import calibrate
from skipvsr.inference.budget import BudgetAccount
from skipvsr.inference.controllers import MIN_BUDGET, SpeedController
from skipvsr.inference.options import ComputeOptions, StreamOptions, Tiling
from skipvsr.inference.policies import make_policy
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.inference.streaming import upscale_stream
from skipvsr.inference.upscaler import Upscaler
from skipvsr.inference.windows import Windows
from skipvsr.models.config import VSRConfig
from skipvsr.models.router import Calibration, GainRouter
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.learned import DifferenceThreshold, GainThreshold
from skipvsr.routing.policies import Decide, FixedBlocks, TrunkStep, all_blocks, first_blocks
from skipvsr.routing.trace import RoutingTrace, Tally
from tests.conftest import make_network
from tests.media import make_video, picture

TABLE = Calibration(16, (0.25, 0.5, 0.75), (4.0, 1.0, 0.5))
CONFIG = VSRConfig(6, 4, "light", "light", "gain")


def routed_network(calibration: Calibration | None = TABLE) -> SkipVSR:
    network = make_network(CONFIG, seed=2)
    network.calibration = calibration
    return network


def moving(frames: int, height: int = 32, width: int = 48, seed: int = 0) -> torch.Tensor:
    """A clip (T, 3, H, W), flat on the left, textured on the right, and shifting."""
    random = np.random.default_rng(seed)
    still = np.full((height, width + frames, 3), 0.4, np.float32)
    still[:, width // 2 :] = random.random((height, width - width // 2 + frames, 3))
    clip = np.stack([still[:, t : t + width] for t in range(frames)])
    return torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous()


def test_thresholds_between_measured_budgets():
    assert TABLE.threshold_for(1.0) == 0
    for budget, threshold in zip(TABLE.budgets, TABLE.thresholds, strict=True):
        assert TABLE.threshold_for(budget) == pytest.approx(threshold)
    assert TABLE.threshold_for(0.375) == pytest.approx(2.0)  # half way in the logarithm
    assert TABLE.threshold_for(0.1) > 4.0
    assert 0 < TABLE.threshold_for(0.95) < 0.5
    assert Calibration.from_dict(json.loads(json.dumps(TABLE.to_dict()))) == TABLE


@given(one=st.floats(0.01, 1), two=st.floats(0.01, 1))
def test_more_budget_is_never_a_higher_threshold(one: float, two: float):
    lr, gt = sorted((one, two))
    assert TABLE.threshold_for(lr) >= TABLE.threshold_for(gt)


@pytest.mark.parametrize(
    ("tile_px", "budgets", "thresholds"),
    [
        (16, (), ()),
        (16, (0.5, 0.25), (1.0, 2.0)),
        (16, (0.25, 0.5), (1.0, 2.0)),
        (16, (0.25, 0.5), (1.0, 0.0)),
        (16, (0.25, 1.0), (2.0, 1.0)),
        (16, (0.25,), (2.0, 1.0)),
        (0, (0.25,), (2.0,)),
    ],
)
def test_impossible_tables(tile_px: int, budgets: tuple[float, ...], thresholds: tuple[float, ...]):
    with pytest.raises(ConfigError, match="calibration"):
        Calibration(tile_px, budgets, thresholds)


def test_the_dial_says_what_is_wrong():
    with pytest.raises(ConfigError, match="more than one"):
        ComputeOptions(threshold=1.0, budget=0.5)
    for bad in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="threshold is"):
            ComputeOptions(threshold=bad)
    for bad in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="budget is"):
            ComputeOptions(budget=bad)
    with pytest.raises(ConfigError, match="tiles"):
        ComputeOptions(budget=0.5, tile_size=1)
    with pytest.raises(ConfigError, match="no router"):
        Upscaler(make_network(VSRConfig(4, 1, "light", "light")), ComputeOptions(budget=0.5))
    with pytest.raises(ConfigError, match="calibrate"):
        Upscaler(routed_network(None), ComputeOptions(budget=0.5))


def test_everything_needs_no_router():
    plain = make_network(VSRConfig(4, 1, "light", "light"))
    for compute in (ComputeOptions(), ComputeOptions(threshold=0.0), ComputeOptions(budget=1.0)):
        assert not compute.skips
        assert make_policy(plain, compute) is all_blocks


def test_a_budget_is_the_threshold_of_the_table():
    upscaler = Upscaler(routed_network(), ComputeOptions(budget=0.5))
    policy = upscaler.make_policy()
    assert isinstance(policy, GainThreshold)
    assert policy.threshold == pytest.approx(1.0)
    assert upscaler.tile_size == 16
    override = Upscaler(routed_network(None), ComputeOptions(threshold=3.0, tile_size=8))
    assert override.tile_size == 8


@pytest.mark.parametrize("fixed", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("target_fps", [8.0, 11.0, 16.0])
def test_a_frame_rate_is_reached_without_swinging(fixed: float, target_fps: float):
    """A machine that takes `fixed` seconds a frame, and 0.1 s more for all blocks."""
    account = BudgetAccount(TABLE, 1.0)
    controller = SpeedController(account, target_fps, every=4)
    budgets = [account.budget]
    for _ in range(40):
        for _ in range(4):
            controller.frame_done(fixed + 0.1 * account.budget)
        budgets.append(account.budget)
    wanted = min(max((1 / target_fps - fixed) / 0.1, MIN_BUDGET), 1.0)
    assert fixed + 0.1 * budgets[-1] == pytest.approx(fixed + 0.1 * wanted, rel=0.035)
    assert all(later <= earlier for earlier, later in pairwise(budgets))  # from one side, and never past it


def test_a_machine_that_slows_down_and_recovers():
    account = BudgetAccount(TABLE, 1.0)
    controller = SpeedController(account, 10.0, every=1)
    found = []
    for slow in (1.0, 2.0, 1.0):
        for _ in range(30):
            controller.frame_done(slow * (0.02 + 0.12 * account.budget))
        found.append(slow * (0.02 + 0.12 * account.budget))
    assert found == pytest.approx([0.1, 0.1, 0.1], rel=0.035)


def test_a_stream_that_keeps_to_a_frame_rate_goes_on_with_its_budget():
    """No machine reaches this one: the least budget from the second window on, of either half of a stopped stream too."""
    frames, places = moving(16), []
    upscaler = Upscaler(routed_network(), ComputeOptions(target_fps=1e9), StreamOptions(4, 0, scene_detection=False))
    whole = upscaler.stream(frames, at_position=lambda number, state: places.append(state()))
    results = list(whole)
    turned = [place.numbers["controller.budget"] for place in places if "controller.budget" in place.numbers]
    assert turned[-1] == MIN_BUDGET
    assert whole.tally.active_ratio < 0.6
    middle = next(place for place in places if place.number == 8)
    rest = upscaler.stream(frames, start=middle)
    for now, before in zip(rest, results[8:], strict=True):
        torch.testing.assert_close(now, before, atol=1e-5, rtol=1e-5)
    assert (rest.tally.passes, rest.tally.ratios) == (whole.tally.passes, pytest.approx(whole.tally.ratios))


def test_streaming_with_skipped_blocks_is_the_whole_clip():
    """Within one window a stream is the clip-wise network, whatever is skipped; and frames are traced by their number."""
    network, frames = routed_network(), moving(6)
    policy = FixedBlocks("uniform", 0.5)
    trace = RoutingTrace()
    with torch.inference_mode():
        whole = network(frames[None], RoutedTrunks(policy, 16))[0]
    found = torch.stack(
        list(upscale_stream(frames, network, Windows(6, 2), routed=RoutedTrunks(policy, 16, trace=trace)))
    )
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    assert [trunk.frame for trunk in trace.trunks if trunk.direction == "forward"] == list(range(6))
    assert [trunk.frame for trunk in trace.trunks if trunk.direction == "backward"] == list(reversed(range(6)))
    assert trace.active_ratio == 0.5


def test_forward_decisions_do_not_depend_on_windows():
    network, frames = routed_network(), moving(11)
    passes = []
    for windows in (Windows(3, 8), Windows(11, 0)):
        trace = RoutingTrace()
        stream = StreamOptions(windows.window, windows.lookahead, scene_detection=False)
        list(Upscaler(network, ComputeOptions(threshold=2.0), stream).stream(frames, trace))
        passes.append([trunk.mask for trunk in trace.trunks if trunk.direction == "forward"])
    assert len(passes[0]) == 11
    assert all(torch.equal(one, two) for one, two in zip(*passes, strict=True))


@pytest.mark.parametrize("frames", [3, 8])
@pytest.mark.parametrize("budget", [0.25, 0.5])
@pytest.mark.parametrize("tiling", ["frame", "patch"])
def test_a_short_clip_spends_its_budget(frames: int, budget: float, tiling: Tiling):
    """Whatever the table says, which is not of this network at all."""
    tally = Tally()
    clip = moving(frames, 64, 96)
    network = routed_network()
    results = list(skipvsr.upscale_frames(clip, network, budget=budget, tiling=tiling, trace=tally))
    assert len(results) == frames
    assert tally.passes == 2 * frames
    assert tally.active_ratio == pytest.approx(budget, abs=0.02)


def test_calibration_gives_the_budgets_it_says():
    """On the clips it was measured with, and on one like them that it never saw."""
    torch.manual_seed(3)
    network = routed_network(None)
    assert isinstance(network.router, GainRouter)
    passes = []
    table = calibrate(
        network, [moving(4, seed=seed) for seed in range(3)], 8,
        budgets=(0.3, 0.6), on_pass=lambda done, total: passes.append((done, total)),
    )  # fmt: skip
    assert passes[-1] == (9, 9)
    assert table.tile_px == 8
    network.calibration = table
    for seed, tolerance in ((0, 0.08), (77, 0.1)):
        for budget in table.budgets:
            tally = Tally()
            threshold = table.threshold_for(budget)
            list(skipvsr.upscale_frames(moving(4, seed=seed), network, threshold=threshold, trace=tally))
            assert tally.active_ratio == pytest.approx(budget, abs=tolerance)
    # What each direction runs at the thresholds, of which all that runs is the mean.
    for budget, backward, forward in zip(table.budgets, table.backward, table.forward, strict=True):
        assert (backward + forward) / 2 == pytest.approx(budget, abs=0.02)
    trace = RoutingTrace()
    list(skipvsr.upscale_frames(moving(4, seed=0), network, threshold=table.thresholds[1], trace=trace))
    ran = [trunk.active_ratio for trunk in trace.trunks if trunk.direction == "forward"]
    assert sum(ran) / len(ran) == pytest.approx(table.forward[1], abs=0.08)


def test_a_budget_takes_from_the_backward_trunk_first(monkeypatch: pytest.MonkeyPatch):
    """As many of its blocks as are left run everywhere; above that the router is not asked, below it in the forward trunk."""
    network = routed_network(replace(TABLE, least_backward=1))
    compute = ComputeOptions(budget=0.75, rest=False)
    stream = StreamOptions(window=6, lookahead=0, scene_detection=False)
    clip = moving(6)
    asked: list[str] = []
    monkeypatch.setattr(GainRouter, "forward", recording(GainRouter.forward, asked))
    trace = RoutingTrace()
    found = torch.stack(list(Upscaler(network, compute, stream).stream(clip, trace)))
    assert asked == []
    assert {trunk.active_ratio for trunk in trace.trunks if trunk.direction == "backward"} == {0.5}
    assert {trunk.active_ratio for trunk in trace.trunks if trunk.direction == "forward"} == {1.0}

    def by_hand(step: TrunkStep) -> Decide:
        return first_blocks(step, 2 if step.direction == "backward" else 4)

    expected = torch.stack(list(Upscaler(network, ComputeOptions(), stream, policy=lambda: by_hand).stream(clip)))
    torch.testing.assert_close(found, expected)
    trace = RoutingTrace()
    list(Upscaler(network, replace(compute, budget=0.4), stream).stream(clip, trace))
    assert set(asked) == {"forward"}
    assert {trunk.active_ratio for trunk in trace.trunks if trunk.direction == "backward"} == {0.25}
    assert sum(trunk.active_ratio for trunk in trace.trunks) / 12 == pytest.approx(0.4, abs=0.02)


def recording(forward: Callable[..., torch.Tensor], asked: list[str]) -> Callable[..., torch.Tensor]:
    """The router, which notes the directions that it is asked about."""

    def ask_and_note(self: GainRouter, direction: str, *seen: object) -> torch.Tensor:
        asked.append(direction)
        return forward(self, direction, *seen)

    return ask_and_note


def test_how_few_backward_blocks_is_part_of_the_table():
    network, clips = routed_network(), [moving(3)]
    table = calibrate(network, clips, 8, budgets=(0.5,), least_backward=2)
    assert table.least_backward == 2
    network.calibration = table
    assert calibrate(network, clips, 8, budgets=(0.5,)).least_backward == 2  # it stays
    assert Calibration.from_dict(table.to_dict()) == table
    assert "least_backward" not in TABLE.to_dict()
    with pytest.raises(ConfigError, match="-1 backward blocks"):
        replace(TABLE, least_backward=-1)
    with pytest.raises(ConfigError, match="5 backward blocks of 4; give fewer"):
        calibrate(network, clips, 8, least_backward=5)
    with pytest.raises(ConfigError, match="decides about both trunks"):
        calibrate(make_network(replace(CONFIG, router="paper"), seed=2), clips, 8, least_backward=1)


def test_the_papers_router_is_calibrated_too():
    """Thresholds fall, and spend what they say on the clips they were measured with; target frame rates follow."""
    torch.manual_seed(3)
    network = make_network(replace(CONFIG, router="paper"), seed=2)
    clips = [moving(5, seed=seed) for seed in range(2)]
    network.calibration = calibrate(network, clips, 8, budgets=(0.5, 0.7))
    assert network.calibration.thresholds[0] > network.calibration.thresholds[1]
    for budget in (0.5, 0.7):
        ratios = []
        for clip in clips:
            tally = Tally()
            threshold = network.calibration.threshold_for(budget)
            list(skipvsr.upscale_frames(clip, network, threshold=threshold, trace=tally))
            ratios.append(tally.active_ratio)
        assert sum(ratios) / 2 == pytest.approx(budget, abs=0.1)
    policy = Upscaler(network, ComputeOptions(target_fps=5)).make_policy()
    assert isinstance(policy, DifferenceThreshold)
    assert policy.threshold == 0


def test_a_model_without_router_cannot_be_calibrated():
    with pytest.raises(ConfigError, match="no router"):
        calibrate(make_network(VSRConfig(4, 1, "light", "light")), [moving(2)], 8)
    with pytest.raises(ConfigError, match="no clips"):
        calibrate(routed_network(), [], 8)


def save(network: SkipVSR, folder: Path) -> Path:
    save_folder(Checkpoint(network.config, network.state_dict(), {}, network.calibration), folder)
    return folder


def test_a_stored_model_keeps_router_and_table(tmp_path: Path):
    network = routed_network()
    loaded = skipvsr.load_model(save(network, tmp_path / "model"))
    assert loaded.calibration == TABLE
    frames = moving(3)
    one, two = (list(skipvsr.upscale_frames(frames, model, budget=0.5)) for model in (network, loaded))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    description = json.loads((tmp_path / "model" / "config.json").read_text())
    description["calibration"]["budgets"] = [2, 1]
    (tmp_path / "model" / "config.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="calibration"):
        skipvsr.load_model(tmp_path / "model")


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Calibrate a model, then upscale at half the budget."""
    model = save(routed_network(None), tmp_path / "model")
    weights = (model / "model.safetensors").read_bytes()
    (tmp_path / "clips").mkdir()
    make_video(tmp_path / "clips" / "a.mp4", [picture(3 * index, 128, 96) for index in range(4)])
    video = make_video(tmp_path / "in.mp4", [picture(3 * index, 48, 32) for index in range(6)])

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    code, _, err = run("upscale", video, tmp_path / "out.mp4", "--model", model, "--budget", 0.5)
    assert code
    assert "skipvsr calibrate" in err
    code, out, err = run("calibrate", model, tmp_path / "clips", "--tile-size", 8)
    assert code == 0, err
    assert "budget 0.50: threshold" in out
    assert (model / "model.safetensors").read_bytes() == weights
    assert read_folder(model).calibration is not None
    code, out, err = run("upscale", video, tmp_path / "out.mp4", "--model", model, "--budget", 0.5, "--json")
    assert code == 0, err
    done = json.loads(out.splitlines()[-1])
    assert 0 < done["active_ratio"] < 1
    assert done["macs_per_frame"] < done["full_macs_per_frame"]
    code, out, err = run("upscale", video, tmp_path / "two.mp4", "--model", model, "--threshold", 0.7)
    assert code == 0, err
    assert "of the residual blocks ran" in out
    code, out, err = run("upscale", video, tmp_path / "fast.mp4", "--model", model, "--target-fps", 1000, "--window", 2)
    assert code == 0, err
    assert "of the residual blocks ran" in out
    code, _, err = run("upscale", video, tmp_path / "no.mp4", "--model", "compact", "--budget", 7)
    assert code == 2
    assert "budget is 7.0" in err
