"""Tables and figures: the whole reproduction at its smallest size, and the numbers that go into it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from skipvsr.cli.main import main
from skipvsr.inference.options import ComputeOptions
from skipvsr.models.vsr import VSRConfig
from skipvsr.report import published
from skipvsr.report.inspect import feature_differences, patch_psnr, run_routed
from skipvsr.report.presets import PRESETS
from skipvsr.report.reproduce import NAMES
from skipvsr.video.images import read_image, write_image
from tests.conftest import make_network


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of 4 frames, 120x104."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("a", "b"):
        (folder / name).mkdir()
        still = (
            np.random.default_rng(ord(name)).integers(0, 255, (60, 70, 3)).astype(np.uint8).repeat(2, 0).repeat(2, 1)
        )
        for index in range(4):
            write_image(folder / name / f"{index}.png", np.ascontiguousarray(still[:104, index : index + 120]))
    return folder


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_everything_at_its_smallest(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ("--preset", "smoke", "--data", data, "--out", tmp_path)
    assert run("reproduce", "all", *words) == 0
    printed = capsys.readouterr().out.split()
    for name in NAMES:
        suffixes = (".md", ".json") if name.startswith("table") else (".png", ".svg", ".json")
        for suffix in suffixes:
            assert str(tmp_path / f"{name}{suffix}") in printed
            assert (tmp_path / f"{name}{suffix}").stat().st_size > 50
    table = json.loads((tmp_path / "table2.json").read_text())
    assert [row[0].split(" / ")[0] for row in table["rows"]] == ["0", "0.9", "0.92", "0.93", "0.94", "0.95"]
    assert table["rows"][0][1] == "100% / 100%"
    assert "30.60/0.8726 (REDS4) / " in table["rows"][0][3]
    curves = json.loads((tmp_path / "fig4.json").read_text())["curves"]
    assert next(curve["name"] for curve in curves) == "our router"
    assert all(curve["gmacs"] == sorted(curve["gmacs"]) for curve in curves)
    assert read_image(tmp_path / "fig5.png").shape[1] == 2100  # 7 inches at 300 dpi
    # Resume: nothing is trained or measured again.
    before = {path: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    assert run("reproduce", "table1", "fig4", *words) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "results").iterdir()} == before
    # A network of one's own.
    assert run("reproduce", "fig1", *words, "--checkpoints", f"backbone={tmp_path}/runs/backbone/1-backbone/best") == 0
    assert run("reproduce", "fig1", *words, "--checkpoints", "network=x") != 0
    assert "no network 'network'" in capsys.readouterr().err
    assert run("reproduce", "fig9", *words) != 0
    assert "'fig9' (choose from 'table1'" in capsys.readouterr().err
    assert run("reproduce", "fig1", "--preset", "huge", "--data", data) != 0


def test_quoted_lines_are_whole():
    for line in (*published.TABLE_1, *published.TABLE_2):
        assert len(line.scores) == len(published.SETS)
    assert published.TABLE_2[-1].gmacs == "145.5"
    assert published.TABLE_1[-2].scores[0] == "30.65/0.8735"


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_variant_has_a_training(name: str, tmp_path: Path):
    preset = PRESETS[name]
    configs = {variant: preset.config(variant, tmp_path, tmp_path / "base", "bi") for variant in preset.variants}
    assert [stage.kind for stage in configs["backbone"].stages] == ["flow", "backbone"]
    methods = {name: config.stages[0].paper for name, config in configs.items() if config.stages[0].kind == "skip"}
    assert methods["paper"].every == preset.intervals[-1]
    assert methods["paper"].supervision == "feature-interval"
    assert methods["paper-alone"].error_weight == 0
    assert methods["paper-psnr-interval"].supervision == "psnr-interval"
    assert methods[f"paper-every-{preset.intervals[0]}"].every == preset.intervals[0]
    assert configs[f"static-{preset.static[0]}"].network.blocks == preset.static[0]


def test_patch_psnr_by_hand():
    gt = torch.zeros(3, 32, 48)
    result = gt.clone()
    result[:, :16, :16] = 0.1  # one LR patch of 4x4
    found = patch_psnr(result, gt, patch_px=4)
    assert found.shape == (2, 3)
    assert found[0, 0].item() == pytest.approx(20, abs=1e-4)
    assert (found.flatten()[1:] == 100).all()


def test_what_ran_is_counted_by_block_and_by_place():
    network = make_network(VSRConfig(6, 4, "light", "light", "gain"), seed=2)
    lr = torch.rand(5, 3, 32, 48)
    whole = run_routed(network, lr, ComputeOptions())
    assert whole.ratio == 1
    assert (whole.per_block == 1).all()
    assert (whole.depth == 1).all()
    part = run_routed(network, lr, ComputeOptions(threshold=0.7, tile_size=8))
    assert part.per_block.shape == (2, 4)
    assert part.depth.shape == (5, 32, 48)
    assert part.per_block.mean().item() == pytest.approx(part.ratio, abs=1e-6)
    assert part.depth.mean().item() == pytest.approx(part.ratio, abs=1e-6)
    assert (part.per_block.diff(dim=1) <= 0).all()  # a depth per tile: later blocks never run on more
    differences = feature_differences(network, lr, tile_px=16)
    assert differences.shape == (4, 2 * 5 * 2 * 3)
    with torch.inference_mode():
        state = network.backward_trunk.enter(lr[None, 4], torch.zeros(1, 6, 32, 48))
        change = next(iter(network.backward_trunk.blocks))(state) - state
    assert differences[0, 0].item() == pytest.approx(change[0, :, :16, :16].square().mean().sqrt().item(), rel=1e-5)
