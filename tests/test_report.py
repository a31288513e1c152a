"""Tables and figures: the whole reproduction at its smallest size, and the numbers that go into it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from skipvsr.cli.main import main
from skipvsr.errors import ConfigError
from skipvsr.evaluation.results import ProcessGroup
from skipvsr.inference.options import ComputeOptions
from skipvsr.models.config import VSRConfig
from skipvsr.report import published
from skipvsr.report.experiment import Experiment
from skipvsr.report.figures import RatioCurve, _outer_fence, _style, ratio_curves
from skipvsr.report.observations import feature_differences, patch_psnr, run_routed
from skipvsr.report.presets import PRESETS, find_preset
from skipvsr.report.reproduce import NAMES, reproduce
from skipvsr.report.thresholds import find_threshold
from skipvsr.report.variants import check_names, training_of, variants
from skipvsr.training.config import TrainingConfig, read_config
from skipvsr.training.paper_skip import PaperSkipStage
from skipvsr.video.images import read_image, write_image
from tests.conftest import make_network

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 4 frames, 120x104."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "a").mkdir()
    still = np.random.default_rng(97).integers(0, 255, (60, 70, 3)).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    for index in range(4):
        write_image(folder / "a" / f"{index}.png", np.ascontiguousarray(still[:104, index : index + 120]))
    return folder


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def check_table(stem: Path) -> None:
    """Rows of numbers, the same in both files, and every PSNR of ours one that a network of one step can have."""
    table = json.loads(stem.with_suffix(".json").read_text())
    lines = [" | ".join(cells) for cells in (table["header"], *table["rows"])]
    text = stem.with_suffix(".md").read_text()
    assert all(f"| {line} |" in text for line in lines)
    assert {len(row) for row in table["rows"]} == {len(table["header"])}
    column = {"table3": -2, "table5": 2, "table6": 2, "ablations": 1}.get(stem.name, -1)
    ours = [row[column] for row in table["rows"]]
    found = [re.search(r"([\d.]+)(/0\.\d{4})?$", cell) for cell in ours if "(REDS4)" not in cell or " / " in cell]
    scores = [float(match[1]) for match in found if match is not None]
    assert len(scores) >= 3
    assert all(5 < score < 40 for score in scores)


def check_figures(folder: Path) -> None:
    """The numbers that figures show, and a word of each drawing."""
    patches = np.array(json.loads((folder / "fig1.json").read_text())["patch_psnr_db"])
    assert patches.shape == (1, 1)  # 30x26 LR pixels are one patch
    assert 5 < patches.item() < 40
    statistics = json.loads((folder / "fig5.json").read_text())
    assert np.shape(statistics["ratio_per_block"]) == (2, 4)
    assert 0 <= np.min(statistics["ratio_per_block"]) <= np.max(statistics["ratio_per_block"]) <= 1
    percentiles = np.array(statistics["feature_difference_percentiles_5_25_50_75_95"])
    assert percentiles.shape == (5, 4)
    assert (np.diff(percentiles, axis=0) >= 0).all()
    crop = json.loads((folder / "fig6.json").read_text())
    assert crop["crop"]["side"] == 52  # half of 104
    assert all(5 < crop[name] < 40 for name in ("paper, 100%", "ours, 100%"))
    labels = {"fig1": "PSNR of a patch", "fig4": "seconds per frame", "fig5": "residual block", "fig6": "ground truth"}
    for name, label in labels.items():
        assert label in (folder / f"{name}.svg").read_text()
        inches = 3.4 if name == "fig1" else 7
        assert read_image(folder / f"{name}.png").shape[1] == inches * 300  # dots per inch


def test_everything_at_its_smallest(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ("--preset", "smoke", "--data", data, "--out", tmp_path)
    assert run("reproduce", "all", *words) == 0
    printed = capsys.readouterr().out.split()
    for name in NAMES:
        suffixes = (".md", ".json") if name.startswith("table") or name == "ablations" else (".png", ".svg", ".json")
        for suffix in suffixes:
            assert str(tmp_path / f"{name}{suffix}") in printed
    for name in (name for name in NAMES if name.startswith("table") or name == "ablations"):
        check_table(tmp_path / name)
    check_figures(tmp_path)
    table = json.loads((tmp_path / "table2.json").read_text())
    assert [row[0].split(" / ")[0] for row in table["rows"]] == ["0", "0.9", "0.92", "0.93", "0.94", "0.95"]
    assert table["rows"][0][1] == "100% / 100%"
    assert "30.60/0.8726 (REDS4) / " in table["rows"][0][4]
    assert all(float(row[3].split(" / ")[1]) >= 0 for row in table["rows"])
    curves = json.loads((tmp_path / "fig4.json").read_text())["curves"]
    assert next(curve["name"] for curve in curves) == "our router"
    assert all(curve["gmacs"] == sorted(curve["gmacs"]) for curve in curves)
    # A second run uses what the first one trained and measured.
    before = {path: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    assert run("reproduce", "table1", "fig4", *words) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "results").iterdir()} == before
    # Of several processes the others measure, and neither write nor speak.
    said: list[str] = []
    table5 = (tmp_path / "table5.md").read_bytes()
    (tmp_path / "table5.md").write_bytes(b"kept")
    other = Experiment(PRESETS["smoke"], data, tmp_path, say=said.append, group=ProcessGroup(1, 1))
    assert not any(path.exists() for path in reproduce(["table5"], other))
    assert (tmp_path / "table5.md").read_bytes() == b"kept"
    assert said == []
    (tmp_path / "table5.md").write_bytes(table5)
    # What is not trained to its end is left out where that is asked for, and needed nowhere else.
    (tmp_path / "runs/paper-raw/0-skip/finished.json").rename(tmp_path / "kept.json")
    capsys.readouterr()
    assert run("reproduce", "ablations", "curves", *words, "--trained-only") == 0
    assert "paper-raw is not trained: left out" in capsys.readouterr().err
    labels = [row[0] for row in json.loads((tmp_path / "ablations.json").read_text())["rows"]]
    assert "literal equation 7" in labels
    assert "difference as it lies" not in labels
    names = [curve["name"] for curve in json.loads((tmp_path / "curves.json").read_text())["curves"]]
    assert "paper-literal" in names
    assert "paper-raw" not in names
    (tmp_path / "kept.json").rename(tmp_path / "runs/paper-raw/0-skip/finished.json")
    untrained = Experiment(PRESETS["smoke"], data, tmp_path / "empty", trained_only=True)
    with pytest.raises(ConfigError, match="backbone is not trained to its end"):
        reproduce(["fig1"], untrained)
    # A network that was trained elsewhere.
    assert run("reproduce", "fig1", *words, "--checkpoints", f"backbone={tmp_path}/runs/backbone/1-backbone/best") == 0
    assert run("reproduce", "fig1", *words, "--checkpoints", "network=x") != 0
    assert "no network 'network'" in capsys.readouterr().err
    assert run("reproduce", "fig9", *words) != 0
    assert "'fig9'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no 'fig9'; choose from table1"):
        reproduce(["fig9"], Experiment(PRESETS["smoke"], data, tmp_path))
    with pytest.raises(ConfigError, match="'huge'; choose one of paper, mini, smoke"):
        find_preset("huge")


def test_quoted_lines_are_whole():
    for line in (*published.TABLE_1, *published.TABLE_2):
        assert len(line.scores) == len(published.SETS)
    assert published.TABLE_2[-1].gmacs == "145.5"
    assert published.TABLE_1[-2].scores[0] == "30.65/0.8735"


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_variant_has_a_training(name: str, tmp_path: Path):
    """Each is the method with one thing changed, from the same backbone."""
    preset = PRESETS[name]
    recipe = preset.recipes[0]
    configs = {
        variant: training_of(preset, variant, recipe, tmp_path, tmp_path / "base") for variant in variants(preset)
    }
    kinds = [stage.kind for stage in configs["backbone"].stages]
    assert kinds == (["backbone"] if name == "paper" else ["flow", "backbone"])
    methods = {variant: skip_of(config).paper for variant, config in configs.items() if is_papers(config)}
    method = methods["paper"]
    assert (method.every, method.supervision, method.joint, method.cell_px) == (
        preset.intervals[-1], "feature-interval", True, 1,
    )  # fmt: skip
    assert methods["paper-alone"] == replace(method, error_weight=0)
    assert methods["aligned"] == replace(method, mask_weight=0, full_ratio=1)
    assert methods["paper-psnr-interval"] == replace(method, supervision="psnr-interval")
    assert methods["paper-detached"] == replace(method, joint=False)
    assert methods["paper-cells"] == replace(method, cell_px=4)
    assert methods["paper-mask-10"] == replace(method, mask_weight=10)
    assert methods[f"paper-every-{preset.intervals[0]}"] == replace(method, every=preset.intervals[0])
    assert configs[f"static-{preset.static[0]}"].network.blocks == preset.static[0]
    assert all(skip_of(configs[variant]).init == str(tmp_path / "base") for variant in methods)
    assert len({json.dumps(asdict(each)) for each in methods.values()}) == len(methods)


def is_papers(config: TrainingConfig) -> bool:
    return isinstance(config.stages[0], PaperSkipStage)


def skip_of(config: TrainingConfig) -> PaperSkipStage:
    stage = config.stages[0]
    assert isinstance(stage, PaperSkipStage)
    return stage


@pytest.mark.parametrize("path", sorted((ROOT / "configs/paper").glob("[rv]*.toml")), ids=lambda path: path.stem)
def test_the_papers_preset_trains_what_its_configurations_do(path: Path, tmp_path: Path):
    """But for places, seeds and logs; one recipe for each file, and each column of Table 1 has one."""
    preset, written = PRESETS["paper"], read_config(path)
    recipe = preset.recipe(path.stem)
    assert {test.recipe for test in preset.tests} == {recipe.name for recipe in preset.recipes}
    backbone = training_of(preset, "backbone", recipe, tmp_path, tmp_path)
    skip = training_of(preset, "paper", recipe, tmp_path, tmp_path)
    assert (backbone.network, backbone.data.degradation) == (written.network, written.data.degradation)
    assert backbone.data.train[0].dataset == written.data.train[0].dataset
    assert backbone.validation.clips[0].dataset == written.validation.clips[0].dataset
    for made, stage in zip((backbone.stages[0], skip.stages[0]), written.stages, strict=True):
        found, expected = asdict(made), asdict(stage)
        for values in (found, expected):
            del values["optimisation"]["log_every"]
            values.pop("flow_init", None)
            values.pop("init")
        assert found == expected


def test_a_network_for_each_column():
    preset = PRESETS["paper"]
    check_names(preset, ["backbone", "paper-vimeo-bd", "ours-vimeo-bi"])
    with pytest.raises(ConfigError, match=r"no network 'backbone-bd'; .* Vid4 BD: backbone-vimeo-bd"):
        check_names(preset, ["backbone-bd"])


def test_thresholds_are_searched_until_the_ratio_is_met():
    """A router whose skipping makes it skip more: the quantile alone is off by 8 points."""
    scores = torch.linspace(1, 0, 1001)
    tried: list[float] = []

    def run(threshold: float) -> float:
        tried.append(threshold)
        ran = 1 - threshold
        return ran - 0.3 * ran * (1 - ran)

    for ratio in (0.24, 0.507, 0.947):
        tried.clear()
        threshold, found = find_threshold(scores, ratio, run, lambda ran: ran)
        assert found == pytest.approx(ratio, abs=0.01)
        assert 2 <= len(tried) <= 5
        assert run(threshold) == found


def test_a_ratio_that_cannot_be_met_is_missed_by_little():
    """Scores that are all one: all or nothing; the nearest counts, and what did run stands beside it."""
    _, found = find_threshold(torch.full((50,), 0.5), 0.7, lambda threshold: 0.1 if threshold >= 0.5 else 1.0, float)
    assert found == 0.1


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


def test_no_two_curves_of_a_figure_look_alike():
    assert len({tuple(_style(index).items()) for index in range(24)}) == 24


def test_curves_far_below_all_others_do_not_rule_the_axis(tmp_path: Path):
    even = [RatioCurve(f"even {index}", [0.25, 0.5, 1.0], [24.0, 24.5 + index / 10, 25.0]) for index in range(5)]
    broken = RatioCurve("broken", [0.25, 0.5, 1.0], [23.9, 12.34, 24.9])
    ratio_curves(tmp_path / "with", [*even, broken], "dB")
    drawn = (tmp_path / "with.svg").read_text()
    assert "broken (down to 12.3 dB)" in drawn
    assert "even 4 (" not in drawn
    ratio_curves(tmp_path / "without", even, "dB")
    assert "down to" not in (tmp_path / "without.svg").read_text()
    assert json.loads((tmp_path / "with.json").read_text())["curves"][-1]["psnr"] == broken.psnr
    assert _outer_fence([1.0, 2.0, 3.0, 4.0, 5.0]) == 2 - 3 * (4 - 2)
