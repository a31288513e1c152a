"""Configurations: mistakes are named, the committed ones run, and those of the paper are the paper's; precision and memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from skipvsr.checkpoints.load import load_model
from skipvsr.errors import ConfigError
from skipvsr.models.router import MaskGenerator
from skipvsr.training.backbone import BackboneStage
from skipvsr.training.config import TrainingConfig, read_config
from skipvsr.training.loop import train
from skipvsr.training.paper_method import PaperMethod
from skipvsr.training.paper_skip import PaperSkipStage
from skipvsr.training.router import RouterStage
from skipvsr.training.skip import SkipStage
from tests.test_training import ROOT, clips_folder, losses, only, save_spynet, smoke


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips_folder(tmp_path_factory.mktemp("data") / "clips")


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("foo=1", "foo: no such key"),
        ("stages.0.optimisation.stepz=9", r"stages\.0\.optimisation\.stepz: no such key"),
        ("stages.1.frames=1", r"stages\.1\.frames: .*greater"),
        ("stages.0.kind=magic", r"stages\.0: kind is 'magic'; choose flow, imitate, backbone, skip, router or lean"),
        ("stages.2.router=magic", r"stages\.2\.router: 'magic' is no router; choose gain or paper"),
        ("network.flow=raft", r"network\.flow"),
        ("network.channels=0", r"network\.channels"),
        ("data.train=3", r"data\.train"),
        ("stages.9.kind=flow", "no such key"),
        ("seed=true", "seed"),
        ("nonsense", "no '='"),
    ],
)
def test_impossible_settings_are_named(override: str, match: str):
    with pytest.raises(ConfigError, match=match) as caught:
        read_config(ROOT / "configs" / "smoke.toml", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.toml")), ids=lambda path: path.stem)
def test_every_committed_configuration_is_valid(path: Path):
    assert read_config(path).stages


@pytest.mark.parametrize("name", ["base/base-bi", "compact/gpu"])
def test_what_is_meant_for_a_lent_gpu_is_complete(name: str):
    """Backbone, skipping and router in bf16; clips small enough to be carried; data drawn by several threads."""
    config = read_config(ROOT / "configs" / f"{name}.toml")
    stages = [stage.kind for stage in config.stages]
    assert stages[-3:] == ["backbone", "skip", "router"]
    assert stages[:-3] == (["flow"] if name == "base/base-bi" else [])
    assert config.precision == "bf16"
    assert config.data.threads > 4
    for stage in config.stages[-2:]:
        assert isinstance(stage, SkipStage | RouterStage)
        assert stage.optimisation.crop % stage.tile_px == 0


def reduced(path: Path, data: Path, spynet: Path) -> TrainingConfig:
    """A configuration with its own stages, precision and methods, on other clips and as small as can be."""
    sets = ["network.channels=8", "network.blocks=2", "data.stills=", "validation.frames=2", "data.degradation=bi"]
    for key in ("data.train", "validation.clips"):
        sets += [f"{key}.0.dataset=folder", f"{key}.0.root={data}"]
    for index, stage in enumerate(read_config(path).stages):
        sets += [f"stages.{index}.optimisation.{key}" for key in ("steps=2", "batch=1", "crop=16", "warmup=0")]
        sets += [] if stage.kind == "flow" else [f"stages.{index}.frames=3", f"stages.{index}.init="]
        if stage.kind == "backbone":
            sets += [f"stages.{index}.flow_frozen_steps=0"]
            sets += [f"stages.{index}.flow_init={spynet}"] if "/paper/" in str(path) else []
    return read_config(path, sets)


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "configs/compact/compact.toml",
        ROOT / "configs/compact/gpu.toml",
        ROOT / "configs/base/base-bi.toml",
        *sorted((ROOT / "configs/paper").iterdir()),
    ],
    ids=lambda path: path.stem,
)
def test_committed_configurations_run(tmp_path: Path, data: Path, path: Path):
    """Every stage of the large recipes, two steps of each."""
    save_spynet(tmp_path / "spynet.pth")
    config = reduced(path, data, tmp_path / "spynet.pth")
    reports = train(config, tmp_path / "run", resume=True, cpu=True)
    assert [report.steps for report in reports] == [2] * len(config.stages)
    assert load_model(reports[-1].best).with_router("none").config == config.network.to_vsr()


@pytest.mark.parametrize("path", sorted((ROOT / "configs/paper").iterdir()), ids=lambda path: path.stem)
def test_the_papers_configurations_are_the_papers(path: Path):
    """64 channels, 30 blocks, pre-trained flow, then the paper's own router with a frozen flow, 48 px and batch 16 (4.1)."""
    config = read_config(path)
    backbone, skip = config.stages
    assert isinstance(backbone, BackboneStage)
    assert isinstance(skip, PaperSkipStage)
    assert (config.network.channels, config.network.blocks, config.network.flow) == (64, 30, "spynet")
    assert Path(backbone.flow_init).resolve() == path.parent / "spynet.pth"
    assert backbone.flow_learning_rate_scale == (0.125 if path.stem.startswith("basicvsr") else 0)
    assert (skip.flow_learning_rate_scale, skip.optimisation.crop, skip.optimisation.batch) == (0, 48, 16)
    assert skip.tile_px == 48
    assert skip.paper == PaperMethod()
    assert config.data.degradation == path.stem[-2:]
    assert backbone.mirror == skip.mirror == ("vimeo" in path.stem)


def test_a_published_flow_is_the_backbones_start(tmp_path: Path, data: Path):
    weights = save_spynet(tmp_path / "spynet.pth")
    sets = ["network.flow=spynet", f"stages.1.flow_init={tmp_path / 'spynet.pth'}",
            "stages.1.flow_learning_rate_scale=0.0", "stages.1.optimisation.steps=1"]  # fmt: skip
    report = train(only(smoke(data, *sets), "backbone"), tmp_path / "run", cpu=True)[0]
    ours = load_model(report.best).state_dict()["flow.levels.2.4.weight"]
    torch.testing.assert_close(ours, weights["basic_module.2.basic_module.4.weight"])


def test_fp16_needs_a_gpu(tmp_path: Path, data: Path):
    with pytest.raises(ConfigError, match="fp16"):
        train(only(smoke(data, "precision=fp16"), "flow"), tmp_path / "run", cpu=True)


@pytest.mark.gpu
def test_fp16_scales_its_losses(tmp_path: Path, data: Path):
    config = smoke(data, "precision=fp16", "stages.2.router=paper")
    reports = train(config, tmp_path / "run")
    assert all(report.best_score == report.best_score for report in reports)
    last = torch.load(tmp_path / "run" / "1-backbone" / "last.pt", weights_only=True)
    assert last["scaler"]["scale"] > 1


def test_the_papers_skip_stage_says_how_well_its_scores_predict(tmp_path: Path, data: Path):
    sets = ["stages.2.router=paper", "stages.2.frames=3", "stages.2.optimisation.log_every=1"]
    config = only(smoke(data, *sets), "skip")
    report = train(config, tmp_path / "run", cpu=True)[0]
    rows = [json.loads(line) for line in (tmp_path / "run" / "0-skip" / "log.jsonl").read_text().splitlines()]
    found = next(row for row in rows if "validation" in row)["validation"]
    assert {"r2_backward", "r2_forward", "score_spread", "psnr_y_half", "psnr_y"} <= set(found)
    assert found["r2_forward"] < 1
    assert report.best_score == pytest.approx((found["psnr_y"] + found["psnr_y_half"]) / 2)
    router = load_model(report.best).router
    assert isinstance(router, MaskGenerator)
    assert router.temperature > 0
    assert (router.difference_scale != 1).all()


@pytest.mark.parametrize("kind", ["backbone", "skip"])
def test_activation_checkpointing_changes_no_loss(tmp_path: Path, data: Path, kind: str):
    runs = []
    for saving in ("false", "true"):
        sets = [f"stages.{index}.optimisation.activation_checkpointing={saving}" for index in (1, 2)]
        config = smoke(
            data, *sets, "stages.2.router=paper", *(f"stages.{index}.optimisation.log_every=1" for index in (1, 2))
        )
        train(only(config, kind), tmp_path / saving, cpu=True)
        runs.append(losses(tmp_path / saving / f"0-{kind}"))
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
