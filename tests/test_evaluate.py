"""Evaluation: measures against naive transcriptions, whole runs against the pieces, resume, and what goes wrong."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from skipvsr.checkpoints.native import Checkpoint, save_folder
from skipvsr.cli.main import main
from skipvsr.data.clips import Clip
from skipvsr.data.datasets import find_clips
from skipvsr.data.degradations import bi
from skipvsr.data.pairs import Pairs, lr_gt_clip
from skipvsr.errors import ConfigError, DataError
from skipvsr.evaluation.clock import PartTimes
from skipvsr.evaluation.cost import cost_per_frame
from skipvsr.evaluation.evaluate import evaluate, evaluate_clip
from skipvsr.evaluation.measures import Measures
from skipvsr.evaluation.metrics import crop_border, luma, psnr, psnr_y, quantize, seam_ratio, ssim, temporal_error
from skipvsr.evaluation.settings import Setting, parse_setting
from skipvsr.evaluation.side_by_side import seconds_side_by_side
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.bicubic import Bicubic
from skipvsr.models.config import VSRConfig
from skipvsr.models.resize import bicubic_upsample
from skipvsr.models.router import Calibration, GainRouter, Router
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import DifferenceThreshold
from skipvsr.routing.policies import GradientRank
from skipvsr.routing.trace import RoutingTrace
from skipvsr.video.images import write_image
from tests.conftest import make_network
from tests.media import picture

CONFIG = VSRConfig(6, 3, "light", "light", "gain")


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Two clips of 5 frames, 96x80 and 80x96."""
    for name, (height, width) in {"a": (80, 96), "b": (96, 80)}.items():
        (tmp_path / "clips" / name).mkdir(parents=True)
        for index in range(5):
            grain = np.random.default_rng(index).integers(0, 40, (height, width, 3)).astype(np.uint8)
            write_image(tmp_path / "clips" / name / f"{index}.png", picture(index, width, height) // 2 + grain)
    return find_clips("folder", tmp_path / "clips")


def network(calibrated: bool = False):
    model = make_network(CONFIG, seed=5)
    model.calibration = Calibration(8, (0.3, 0.6), (3.0, 1.0)) if calibrated else None
    return model


def naive_ssim(one: np.ndarray, two: np.ndarray, peak: float) -> float:
    """Wang et al. (2004), window by window: (H, W) twice."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    found = []
    for y in range(one.shape[0] - 10):
        for x in range(one.shape[1] - 10):
            a, b = one[y : y + 11, x : x + 11], two[y : y + 11, x : x + 11]
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            cov = (weights * (a - ma) * (b - mb)).sum()
            found.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(found))


def test_ssim_is_the_fields():
    torch.manual_seed(0)
    one, two = torch.rand(3, 16, 19), torch.rand(3, 16, 19)
    expected = np.mean([naive_ssim(a.double().numpy(), b.double().numpy(), 1.0) for a, b in zip(one, two, strict=True)])
    assert ssim(one, two, 1.0) == pytest.approx(expected, abs=1e-9)
    y = [luma(image.double()) for image in (one, two)]
    assert ssim(y[0], y[1], 255.0) == pytest.approx(naive_ssim(y[0][0].numpy(), y[1][0].numpy(), 255.0), abs=1e-9)
    assert ssim(one, one, 1.0) == 1
    with pytest.raises(ConfigError, match="11 pixels"):
        ssim(one[:, :10], two[:, :10], 1.0)


def test_temporal_error_sees_flicker_only():
    gt = torch.rand(2, 3, 8, 8)
    assert temporal_error(gt[1] + 0.1, gt[0] + 0.1, gt[1], gt[0]) == pytest.approx(0, abs=1e-4)
    assert temporal_error(gt[1] + 0.1, gt[0] - 0.1, gt[1], gt[0]) == pytest.approx(0.2 * 255, rel=1e-5)


def test_a_row_is_what_the_pieces_give(clips: list[Clip]):
    model = network()
    row = evaluate(model, clips, Pairs("bi"), [Setting("gradient", 0.5)], Measures(tile_size=8))[0]
    for clip, score in zip(clips, row.clips, strict=True):
        lr, gt = lr_gt_clip(clip, "bi")
        trace = RoutingTrace()
        with torch.inference_mode():
            result = model(lr[None], RoutedTrunks(GradientRank(0.5), 8, trace=trace))[0]
        assert score.psnr_y == pytest.approx(psnr_y(result, gt).tolist(), abs=2e-3)
        assert score.psnr_rgb == pytest.approx(psnr(quantize(result), gt, 1.0).tolist(), abs=2e-3)
        assert score.ssim_rgb == pytest.approx(
            [ssim(quantize(a), b, 1.0) for a, b in zip(result, gt, strict=True)], abs=1e-4
        )
        assert len(score.temporal_error) == 4
        assert score.active_ratio == pytest.approx(trace.active_ratio)
        masks = [trunk.mask for trunk in trace.trunks if trunk.direction == "forward"]
        changed = [(one != two).float().mean().item() for one, two in pairwise(masks)]
        assert score.decision_flicker == pytest.approx(np.mean(changed))
        cost = cost_per_frame(CONFIG, *lr.shape[-2:])
        blocks = sum(trunk.macs(6) for trunk in trace.trunks) / 5
        assert score.gmacs_per_frame * 1e9 == pytest.approx(cost.total - cost.blocks + blocks)
    assert row.psnr_y == pytest.approx(np.mean([np.mean(score.psnr_y) for score in row.clips]))
    assert row.active_ratio == pytest.approx(0.5, abs=0.05)


def test_costs_are_counted_by_part(clips: list[Clip]):
    """The parts are the closed form's, and with what is computed beyond the decisions they are what torch counts."""
    model = network(calibrated=True)
    lr, _ = lr_gt_clip(clips[0], "bi")
    for setting in (
        Setting("budget", 0.3),
        Setting("gradient", 0.5),
        Setting("gradient", 0.5, "patch"),
        Setting("full"),
    ):
        measures = Measures(tile_size=8, with_ssim=False)
        score = evaluate_clip(model, clips[0], Pairs("bi"), setting, measures)
        assert score.gmacs_per_frame == pytest.approx(sum(score.gmacs.values()) - score.gmacs["extra"])
        assert set(score.gmacs) == {"flow", "trunk_inputs", "blocks", "reconstruction", "router", "overlap", "extra"}
        cost = cost_per_frame(CONFIG, *lr.shape[-2:])
        assert score.gmacs["reconstruction"] * 1e9 == cost.reconstruction
        assert score.gmacs["blocks"] * 1e9 == pytest.approx(score.active_ratio * cost.blocks)
        assert score.gmacs["overlap"] >= 0
        assert setting.tiling == "patch" or score.gmacs["overlap"] == 0
        if setting.policy == "budget":
            assert score.gmacs["router"] > 0
            assert score.active_ratio < 1
        else:
            assert score.gmacs["router"] == 0
        if setting.policy == "full":
            assert score.gmacs["extra"] == 0
            assert score.gmacs_per_frame * 1e9 == pytest.approx(cost.total)
    setting = Setting("gradient", 0.5)
    score = evaluate_clip(model, clips[0], Pairs("bi"), setting, Measures(tile_size=8, with_ssim=False))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        one_window = StreamOptions(window=len(lr), lookahead=0, scene_detection=False)
        upscaler = setting.upscaler(
            model, one_window, lambda: pytest.fail("no oracle here"), ComputeOptions(tile_size=8)
        )
        list(upscaler.stream(lr, RoutingTrace()))
    counted = counter.get_flop_counts()["Global"][torch.ops.aten.convolution] / 2
    flow = 8 * cost_per_frame(CONFIG, *lr.shape[-2:]).flow / 2  # 4 pairs of frames, two passes each
    everything = 5 * 1e9 * (sum(score.gmacs.values()) - score.gmacs["flow"]) + flow
    assert counted == pytest.approx(everything)


def test_times_by_part_add_up(clips: list[Clip]):
    score = evaluate_clip(
        network(calibrated=True), clips[0], Pairs("bi"), Setting("budget", 0.3), Measures(tile_size=8, with_ssim=False)
    )
    assert set(score.seconds) == {"flow", "trunks", "router", "reconstruction"}
    assert all(0 < times["median"] <= times["p90"] for times in score.seconds.values())
    parts = sum(times["mean"] for times in score.seconds.values())
    assert 0 < parts <= score.seconds_per_frame
    assert 50e6 < score.peak_bytes < 64e9


def test_part_times():
    times = PartTimes(torch.device("cpu"))
    for index in range(6):
        times.calls["trunks", "forward"].append(9.0 if index < 2 else float(index))
        times.calls["trunks", "backward"].append(0.5)
    found = times.seconds_per_frame(3)["trunks"]
    # Two trunks a frame and direction; most calls are backward ones, and the median is not theirs.
    assert found == {"mean": (18 + 14 + 3) / 3, "median": 2 * 3.5 + 1, "p90": pytest.approx(2 * 4.7 + 1)}
    assert times.seconds_per_frame(3)["flow"] == {"mean": 0, "median": 0, "p90": 0}
    with times.measure_trunk("forward"), times.measure_router():
        sum(range(200_000))
    assert times.calls["router", "forward"][-1] > times.calls["trunks", "forward"][-1] >= 0


def test_times_side_by_side(monkeypatch: pytest.MonkeyPatch):
    """Each round takes all in turn; the first does not count, and of the others the median does."""
    clock, taken = [0.0], iter([9.0, 9.0, 1.0, 20.0, 7.0, 30.0, 2.0, 40.0])

    def stream(upscaler, frames, *_, **__):
        clock[0] += next(taken)
        yield from frames

    monkeypatch.setattr("skipvsr.evaluation.settings.Upscaler.stream", stream)
    monkeypatch.setattr("skipvsr.evaluation.side_by_side.time.perf_counter", lambda: clock[0])
    model, clip = network(calibrated=True), torch.rand(4, 3, 16, 24)
    runs = [(model, Setting("full")), (model, Setting("budget", 0.3))]
    assert seconds_side_by_side(runs, [clip], rounds=3) == [2.0 / 4, 30.0 / 4]


def test_the_oracle_is_not_timed():
    with pytest.raises(ConfigError, match="its time means nothing"):
        seconds_side_by_side([(network(), Setting("oracle", 0.5))], [torch.rand(2, 3, 16, 24)], rounds=1)


def test_seams_are_seen():
    torch.manual_seed(0)
    error = torch.randn(3, 64, 64)
    assert seam_ratio(error, [24, 48], [16]) == pytest.approx(1, abs=0.15)
    stepped = 0.1 * error
    stepped[:, 24:] += 1
    naive = (stepped[:, 24] - stepped[:, 23]).abs().mean().item() / np.mean(
        [(stepped[:, y] - stepped[:, y - 1]).abs().mean().item() for y in range(1, 64) if y != 24]
    )
    assert seam_ratio(stepped, [24], []) == pytest.approx(naive)
    # A pattern of every fourth line is no seam, where only such lines are compared.
    combed = 0.1 * error + (torch.arange(64) // 4 % 2)[:, None]
    assert (seam_ratio(combed, [24], []) or 0) > 3
    assert seam_ratio(combed, [24], [], every=4) == pytest.approx(1, abs=0.2)
    assert seam_ratio(error, [], []) is None


def test_windows_are_compared(clips: list[Clip]):
    model = network()
    one = evaluate(model, clips, Pairs("bi"), [Setting("full")], Measures(with_ssim=False))[0]
    assert one.window_jump is None
    two = evaluate(model, clips, Pairs("bi"), [Setting("full")], Measures(with_ssim=False, window=2, lookahead=1))[0]
    ratios = [
        np.mean([score.temporal_error[index] for index in (1, 3)]) / np.mean([score.temporal_error[i] for i in (0, 2)])
        for score in two.clips
    ]
    assert two.window_jump == pytest.approx(np.mean(ratios))
    assert one.psnr_y == pytest.approx(two.psnr_y, abs=0.5)


def test_processes_share_the_clips(clips: list[Clip], tmp_path: Path):
    """Two under torchrun give the numbers of one, and both of their clips."""
    model = network()
    save_folder(Checkpoint(CONFIG, dict(model.state_dict())), tmp_path / "model")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    for processes in (1, 2):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        words = ["evaluate", tmp_path / "clips", "--model", tmp_path / "model", "--device", "cpu", "--policy", "full"]
        words += ["deep:0.5", "--no-ssim", "--output", tmp_path / f"{processes}.json"]
        done = subprocess.run(
            [*launch, "-m", "skipvsr", *map(str, words)],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("deep 0.5") == 1
    one, two = (json.loads((tmp_path / f"{processes}.json").read_text())["rows"] for processes in (1, 2))
    assert [[clip["clip"] for clip in row["clips"]] for row in two] == [["a", "b"]] * 2
    for left, right in zip(one, two, strict=True):
        assert left["psnr_y"] == pytest.approx(right["psnr_y"], abs=1e-4)


def test_bicubic_and_borders(clips: list[Clip]):
    lr, gt = lr_gt_clip(clips[0], "bi")
    for border in (0, 4):
        score = evaluate_clip(
            Bicubic(), clips[0], Pairs("bi"), Setting("full"), Measures(crop_border=border, with_ssim=False)
        )
        expected = psnr_y(crop_border(bicubic_upsample(lr), border), crop_border(gt, border))
        assert score.psnr_y == pytest.approx(expected.tolist(), abs=1e-6)
        assert score.ssim_y == []
        assert score.gmacs_per_frame == 0
    rounded, unrounded = (
        evaluate_clip(Bicubic(), clips[0], Pairs("bi"), Setting("full"), Measures(quantize=rounded, with_ssim=False))
        for rounded in (True, False)
    )
    assert 0 < abs(rounded.psnr_rgb[0] - unrounded.psnr_rgb[0]) < 0.05


def test_vimeos_convention(clips: list[Clip]):
    """Of 5 frames: mirrored to 10, and the mean of the third one's two results alone is measured."""
    model = network()
    lr, gt = lr_gt_clip(clips[0], "bi")
    with torch.inference_mode():
        result = model(torch.cat((lr, lr.flip(0)))[None])[0]
    score = evaluate_clip(model, clips[0], Pairs("bi"), Setting("full"), Measures(middle_only=True))
    assert score.frames == 10
    both = (result[2] + result[7]) / 2
    assert score.psnr_y == pytest.approx([psnr_y(both, gt[2]).item()], abs=1e-4)
    assert score.psnr_y != pytest.approx([psnr_y(result[2], gt[2]).item()], abs=1e-4)
    assert len(score.ssim_rgb) == 1
    assert score.temporal_error == []


def test_small_frames_of_its_own(clips: list[Clip], tmp_path: Path):
    for index in range(5):
        large = torch.from_numpy(clips[0].read(index, 1)).permute(0, 3, 1, 2).float() / 255
        small = (bi(large)[0].permute(1, 2, 0) * 255).round().byte().numpy()
        (tmp_path / "lr").mkdir(exist_ok=True)
        write_image(tmp_path / "lr" / f"{index}.png", small)
    own = replace(clips[0], lr=tmp_path / "lr")
    made = list(Pairs("bi").read(own))
    kept = list(Pairs(own=True).read(own, frames=3))
    assert (len(made), len(kept)) == (5, 3)
    for one, two in zip(made, kept, strict=False):
        torch.testing.assert_close(one[0], two[0], atol=1e-6, rtol=0)
        assert torch.equal(one[1], two[1])
    with pytest.raises(DataError, match="must be 1/4 of them"):
        list(Pairs(own=True).read(replace(clips[1], lr=tmp_path / "lr")))


def test_settings():
    assert parse_setting("gradient:0.5") == Setting("gradient", 0.5)
    assert parse_setting("full", "patch").label == "full, patches"
    for bad, reason in {
        "gradient": "NAME:VALUE",
        "uniform:x": "NAME:VALUE",
        "best:1": "choose one",
        "random:0": "ratio",
    }.items():
        with pytest.raises(ConfigError, match=reason):
            parse_setting(bad)
    with pytest.raises(ConfigError, match="whole frames"):
        Setting("oracle", 0.5, "patch")
    with pytest.raises(ConfigError, match="budget"):
        Setting("budget", 2.0)


def test_from_the_command_line(clips: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = network(calibrated=True)
    save_folder(Checkpoint(CONFIG, dict(model.state_dict()), calibration=model.calibration), tmp_path / "model")
    files = {name: tmp_path / f"result.{name}" for name in ("output", "markdown", "csv")}

    def run(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", str(tmp_path / "clips"), "--model", str(tmp_path / "model"), *map(str, words)])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err

    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    words += [
        "--budget",
        0.5,
        "--policy",
        "full",
        "oracle:0.5",
        "oracle-blocks:0.5",
        "--tiling",
        "frame",
        "--frames",
        3,
    ]
    code, shown = run(*words)
    assert code == 0, shown
    assert "budget 0.5" in shown
    result = json.loads(files["output"].read_text())
    assert [row["policy"] for row in result["rows"]] == ["budget", "full", "oracle", "oracle-blocks"]
    assert all(len(clip["psnr_rgb"]) == 3 for row in result["rows"] for clip in row["clips"])
    full = evaluate(model, clips, Pairs("bi"), [Setting("full")], Measures(frames=3))[0]
    assert result["rows"][1]["psnr_rgb"] == pytest.approx(full.psnr_rgb, abs=1e-3)
    assert result["rows"][1]["active_ratio"] == 1
    assert result["machine"]["torch"] == torch.__version__
    assert f"| {result['rows'][0]['psnr_rgb']:.3f} |" in files["markdown"].read_text()
    assert len(list(csv.reader(files["csv"].open()))) == 1 + 4 * 2
    code, shown = run("--frames", 1, "--no-ssim", "--most", 1, "--csv", tmp_path / "one.csv")
    assert code == 0, shown
    assert len(list(csv.reader((tmp_path / "one.csv").open()))) == 1 + 1

    # Resume: what is there is not computed again, and what is new joins it.
    result["rows"][1]["clips"][0]["psnr_rgb"] = [99.0] * 3
    del result["rows"][2]
    files["output"].write_text(json.dumps(result))
    code, _ = run(*words)
    assert code == 0
    again = json.loads(files["output"].read_text())
    assert again["rows"][1]["clips"][0]["psnr_rgb"] == [99.0] * 3
    assert len(again["rows"]) == 4
    code, shown = run(*words, "--crop-border", 2)
    assert code
    assert "another" in shown
    code, _ = run(*words, "--overwrite")
    assert code == 0
    assert json.loads(files["output"].read_text())["rows"][1]["clips"][0]["psnr_rgb"] != [99.0] * 3


def test_what_goes_wrong(clips: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def complaint(*words: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", *map(str, words)])
        assert ended.value.code
        return capsys.readouterr().err

    folder = tmp_path / "clips"
    assert "no such folder" in complaint(tmp_path / "missing", "--model", "bicubic")
    assert "choose from 'bi', 'bd'" in complaint(folder, "--model", "bicubic", "--degradation", "blur")
    (tmp_path / "note.json").write_text("{}")
    assert "no result" in complaint(folder, "--model", "bicubic", "--output", tmp_path / "note.json")
    with pytest.raises(ConfigError, match="router"):
        evaluate_clip(network().with_router("none"), clips[0], Pairs(), Setting("threshold", 1.0))
    with pytest.raises(ConfigError, match="calibrate"):
        evaluate_clip(network(), clips[0], Pairs(), Setting("budget", 0.5))
    with pytest.raises(ConfigError, match="budget-frame"):
        evaluate_clip(network().with_router("paper"), clips[0], Pairs(), Setting("budget-frame", 0.5))


@pytest.mark.parametrize("router", ["gain", "paper"])
def test_the_routers_cost_is_what_torch_counts(router: Router):
    config = VSRConfig(6, 3, "light", "light", router)
    network = make_network(config)
    grid = TileGrid.of(33, 50, 12)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        if isinstance(network.router, GainRouter):
            network.router("forward", torch.rand(1, 3, 33, 50), torch.rand(1, 6, 33, 50), None, grid)
        elif network.router is not None:
            for _ in range(3):  # before every block; it has the multiplications of its layer, which it writes out
                network.router.forward_head(torch.rand(1, grid.rows, grid.columns, 6))
    cost = cost_per_frame(config, 33, 50, tiles=grid.tiles)
    # Pooling is no more counted than warping and resizing are, though it is done by matrix products.
    kinds = [torch.ops.aten.convolution] if router == "gain" else list(counter.get_flop_counts()["Global"])
    counted = sum(counter.get_flop_counts()["Global"].get(kind, 0) for kind in kinds)
    assert counted // 2 == cost.router // 2
    assert cost.total - cost.router == cost_per_frame(config, 33, 50).total
    assert cost.times(3).total == 3 * cost.total


def test_a_timed_policy_still_remembers():
    policy = DifferenceThreshold(lambda direction, difference: difference.mean(dim=1), 0.5)
    routed = PartTimes(torch.device("cpu")).watch_routing(RoutedTrunks(policy, 12))
    routed.recall({"0": torch.ones(1, 6, 4, 4)})
    assert torch.equal(routed.remembered()["0"], torch.ones(1, 6, 4, 4))
    assert PartTimes(torch.device("cpu")).watch_routing(RoutedTrunks(GradientRank(0.5), 12)).remembered() == {}
