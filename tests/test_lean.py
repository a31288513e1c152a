"""Lean parts: what they are, when they run, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import CONFIG, Checkpoint, save_folder
from skipvsr.cli.main import main
from skipvsr.errors import CheckpointError, ConfigError
from skipvsr.evaluation.calibrate import calibrate
from skipvsr.evaluation.cost import cost_per_frame, stream_cost
from skipvsr.inference.budget import BudgetAccount
from skipvsr.inference.lean import LeanWithin, begins_lean, running_config
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.upscaler import StreamState, Upscaler
from skipvsr.models.config import VSRConfig
from skipvsr.models.router import Calibration
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.config import TrainingConfig
from skipvsr.training.loop import train
from tests.conftest import make_network
from tests.media import make_video, picture
from tests.test_training import data as data
from tests.test_training import only, smoke

CLIP = torch.rand(1, 4, 3, 40, 56, generator=torch.Generator().manual_seed(2))
TABLE = Calibration(16, (0.25, 0.5, 0.75), (2.0, 1.0, 0.5), least_backward=1, lean_budget=0.4)
ONE_WINDOW = StreamOptions(window=8, lookahead=0, scene_detection=False)


def network(lean: int = 1) -> SkipVSR:
    model = make_network(VSRConfig(6, 4, "light", "light", "gain", lean=lean), seed=5)
    model.calibration = TABLE
    return model


@torch.inference_mode()
def run(model: SkipVSR, clip: Tensor = CLIP) -> Tensor:
    return model(clip)


def streamed(model: SkipVSR, **compute: float) -> Tensor:
    return torch.stack(list(Upscaler(model, ComputeOptions(**compute), ONE_WINDOW).stream(CLIP[0])))  # pyright: ignore[reportArgumentType]


def test_they_begin_as_the_networks_own():
    model = network(0)
    lean = model.with_lean(2)
    assert torch.equal(run(lean), run(model))
    assert torch.equal(run(lean.lean_network()), run(model.with_half_flow()))
    # Those of another kind of flow begin untrained, which is no motion.
    spynet = make_network(VSRConfig(6, 4, "spynet", "light", "gain")).with_lean(1).lean_network()
    assert not torch.stack(spynet.clip_flows(CLIP)[0]).any()


def test_the_lean_network_has_the_lean_parts_and_shares_the_rest():
    model = network(2)
    lean = model.lean_network()
    assert model.lean is not None
    assert lean.config == replace(model.config, flow="half", lean=0)
    assert lean.flow is model.lean.flow
    assert lean.backward_trunk.input is model.lean.backward_trunk.input
    assert list(lean.backward_trunk.blocks) == [*model.lean.backward_trunk.blocks, *model.backward_trunk.blocks[2:]]
    for name in ("forward_trunk", "reconstruction", "router", "calibration"):
        assert getattr(lean, name) is getattr(model, name)
    before = run(lean)
    with torch.no_grad():
        model.lean.flow.levels[-1][-1].bias += 1.0  # pyright: ignore[reportIndexIssue]
    assert not torch.equal(run(lean), before)
    with pytest.raises(ConfigError, match="no lean parts"):
        network(0).lean_network()


def test_copies_keep_them_where_they_fit():
    model = network(2)
    assert model.lean is not None
    for copy in (model.with_lean(2), model.with_router("none"), model.with_scale(2)):
        assert copy.lean is not None
        pairs = zip(copy.lean.parameters(), model.lean.parameters(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)
    for copy in (model.with_lean(0), model.shortened(3), model.lengthened(5), model.with_half_flow()):
        assert copy.lean is None
        assert copy.config.lean == 0
    assert model.with_lean(1).config.lean == 1


@pytest.mark.parametrize("lean", [-1, 5, True, 1.0])
def test_impossible_numbers_of_blocks_are_refused(lean: int):
    with pytest.raises(ConfigError, match="lean is"):
        VSRConfig(6, 4, "light", "light", lean=lean)


def test_a_folder_keeps_them(tmp_path: Path):
    model = network()
    save_folder(Checkpoint(model.config, model.state_dict(), calibration=TABLE), tmp_path / "model")
    loaded = load_model(tmp_path / "model", device="cpu")
    assert loaded.config.lean == 1
    assert loaded.calibration == TABLE
    torch.testing.assert_close(run(loaded.lean_network()), run(model.lean_network()))
    # Folders of networks without them are as they were.
    plain = network(0)
    save_folder(Checkpoint(plain.config, plain.state_dict()), tmp_path / "plain")
    assert "lean" not in (tmp_path / "plain" / CONFIG).read_text()
    weights = {name: each for name, each in model.state_dict().items() if not name.startswith("lean.flow")}
    save_folder(Checkpoint(model.config, weights), tmp_path / "torn")
    with pytest.raises(CheckpointError, match=r"lacks 'lean\.flow"):
        load_model(tmp_path / "torn")


def test_small_budgets_run_them_and_larger_ones_do_not():
    model, own, lean = network(), network().with_lean(0), network().lean_network()
    own.calibration = TABLE
    for budget in (0.2, 0.4):
        assert torch.equal(streamed(model, budget=budget), streamed(lean, budget=budget))
        assert not torch.equal(streamed(model, budget=budget), streamed(own, budget=budget))
    for compute in ({"budget": 0.5}, {"threshold": 1.0}, {"budget": 1}, {}):
        assert torch.equal(streamed(model, **compute), streamed(own, **compute))
    # Whoever brings a policy gets the network's own.
    upscaler = Upscaler(model, ComputeOptions(budget=0.2), ONE_WINDOW, policy=Upscaler(own).make_policy)
    assert torch.equal(torch.stack(list(upscaler.stream(CLIP[0]))), streamed(own))


def test_patches_run_them_too():
    compute = ComputeOptions(budget=0.3, tiling="patch")
    found, expected = (
        torch.stack(list(Upscaler(model, compute, ONE_WINDOW).stream(CLIP[0])))
        for model in (network(), network().lean_network())
    )
    assert torch.equal(found, expected)


def test_half_precision_is_that_of_both():
    compute = ComputeOptions(budget=0.3, precision="bf16")
    found, expected = (
        torch.stack(list(Upscaler(model, compute, ONE_WINDOW).stream(CLIP[0]))).float()
        for model in (network(), network().lean_network())
    )
    assert torch.equal(found, expected)


def test_what_is_counted_is_what_runs():
    model = network()
    own, lean = (cost_per_frame(config, 40, 56) for config in (model.config, model.config.leaner()))
    assert lean.flow < own.flow
    assert lean.blocks == own.blocks
    small, large = (Upscaler(model, ComputeOptions(budget=budget), ONE_WINDOW) for budget in (0.3, 0.5))
    assert stream_cost(small, 40, 56).flow == lean.flow
    assert stream_cost(large, 40, 56).flow == own.flow
    assert stream_cost(small, 40, 56, budgeted=False) == own
    assert running_config(model, ComputeOptions(budget=0.3)) == model.config.leaner()
    for compute in (ComputeOptions(), ComputeOptions(target_fps=1.0), ComputeOptions(threshold=1.0)):
        assert not begins_lean(model, compute)
        assert running_config(model, compute) == model.config
    uncalibrated = network()
    uncalibrated.calibration = None
    assert not begins_lean(uncalibrated, ComputeOptions(budget=0.3))


def test_a_budget_that_is_turned_turns_to_them_and_back():
    account = BudgetAccount(TABLE, 1.0)
    seen = []
    for budget in (0.6, 0.41, 0.4, 0.45, 0.5, 0.51, 0.45):
        account.turn_to(budget)
        seen.append(account.lean)
    # Only well above does it leave them, so that it does not go to and fro.
    assert seen == [False, False, True, True, True, False, False]
    assert BudgetAccount(TABLE, 0.4).lean
    assert not BudgetAccount(replace(TABLE, lean_budget=0.0), 0.01).lean


def test_going_on_knows_which_parts_ran():
    account = BudgetAccount(TABLE, 1.0)
    account.tally.passes = 3
    account.turn_to(0.4)
    account.turn_to(0.45)
    again = BudgetAccount(TABLE, 1.0)
    again.restore(account.state())
    assert (again.budget, again.lean) == (0.45, True)
    # A budget that was never turned is the options' own.
    fixed = BudgetAccount(TABLE, 0.3)
    fixed.restore(BudgetAccount(TABLE, 0.3).state())
    assert fixed.lean


def test_the_network_changes_between_two_frames():
    model = network()
    account = BudgetAccount(TABLE, 1.0)
    both = LeanWithin(model, model.lean_network(), account)
    one, two = CLIP[0, :1], CLIP[0, 1:2]
    with torch.inference_mode():
        own, lean = model.estimate_flow(one, two), model.lean_network().estimate_flow(one, two)
        assert torch.equal(both.estimate_flow(one, two), own)
        state = both.propagate("backward", two, None, None)
        account.turn_to(0.3)
        assert torch.equal(both.estimate_flow(one, two), lean)
        assert not torch.equal(both.propagate("backward", two, None, None), state)
        # The forward recurrence is the same in both.
        forward = both.propagate("forward", two, state, own)
        account.turn_to(1.0)
        assert torch.equal(both.propagate("forward", two, state, own), forward)
        assert both.scale == 4


def test_a_stream_goes_on_with_them():
    states: list[StreamState] = []
    upscaler = Upscaler(
        network(), ComputeOptions(budget=0.3), StreamOptions(window=2, lookahead=1, scene_detection=False)
    )
    whole = list(upscaler.stream(CLIP[0], at_position=lambda _, state: states.append(state())))
    start = next(state for state in states if state.number == 2)
    rest = list(upscaler.stream(CLIP[0], start=start))
    assert all(torch.equal(one, two) for one, two in zip(rest, whole[2:], strict=True))


def test_calibration_says_for_which_budgets(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = network()
    clips = [CLIP[0]]
    assert calibrate(model, clips, 16, budgets=(0.3, 0.6)).lean_budget == 0.4  # as it was
    assert calibrate(model, clips, 16, budgets=(0.3, 0.6), lean_budget=0.0).lean_budget == 0
    with pytest.raises(ConfigError, match="no lean parts"):
        calibrate(network(0), clips, 16, budgets=(0.3, 0.6), lean_budget=0.5)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        replace(TABLE, lean_budget=1.5)
    assert Calibration.from_dict(TABLE.to_dict()) == TABLE
    save_folder(Checkpoint(model.config, model.state_dict(), calibration=TABLE), tmp_path / "model")
    (tmp_path / "clips").mkdir()
    make_video(tmp_path / "clips" / "one.mp4", [picture(index, 128, 96) for index in range(4)])
    words = [tmp_path / "model", tmp_path / "clips", "--lean-budget", 0.55, "--frames", 3]
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", *map(str, words)])
    assert not ended.value.code
    capsys.readouterr()
    table = load_model(tmp_path / "model").calibration
    assert table is not None
    assert (table.lean_budget, table.least_backward) == (0.55, 1)


def lean_config(data: Path, *overrides: str) -> TrainingConfig:
    """The smoke configuration's skip stage, and a lean stage after it."""
    stage = '{kind = "lean", frames = 3, tile_px = 8, optimisation = {steps = 3, batch = 2, crop = 16, learning_rate = 1e-3}}'
    return only(smoke(data, f"stages.3={stage}", "stages.2.optimisation.steps=2", *overrides), "lean")


def test_the_lean_stage_trains_them_alone(tmp_path: Path, data: Path):
    model = make_network(VSRConfig(16, 2, "light", "light", "gain"), seed=4)
    save_folder(Checkpoint(model.config, model.state_dict()), tmp_path / "init")
    config = lean_config(data, f"stages.3.init={tmp_path / 'init'}", "network.channels=16", "network.blocks=2")
    report = train(config, tmp_path / "run", cpu=True)[0]
    trained, begun = load_model(report.best), model.with_lean(1)
    changed = {
        name for name, weights in begun.state_dict().items() if not torch.equal(weights, trained.state_dict()[name])
    }
    assert changed
    assert all(name.startswith("lean.") for name in changed)
    # The result teaches both parts.
    assert any("flow" in name for name in changed)
    assert any("backward_trunk" in name for name in changed)
    # They are trained on from where they are; other stages begin without them.
    again = train(
        replace(config, stages=[replace(config.stages[0], init=str(report.best))]), tmp_path / "again", cpu=True
    )  # pyright: ignore[reportArgumentType]
    assert load_model(again[0].best).config.lean == 1
    skip = only(smoke(data, f"stages.2.init={report.best}", "network.channels=16", "network.blocks=2"), "skip")
    assert load_model(train(skip, tmp_path / "skip", cpu=True)[0].best).config.lean == 0


def test_the_lean_stage_needs_our_router(tmp_path: Path, data: Path):
    with pytest.raises(ConfigError, match="our router"):
        train(lean_config(data), tmp_path / "run", cpu=True)
