"""Training: the loop, what it leaves, how it goes on, and that it learns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import Checkpoint, save_folder
from skipvsr.errors import ConfigError, DataError, TrainingError
from skipvsr.evaluation.metrics import psnr_y
from skipvsr.models.blocks import ResidualBlock
from skipvsr.models.config import Reconstruction, VSRConfig
from skipvsr.models.resize import bicubic_upsample
from skipvsr.models.vsr import SkipVSR
from skipvsr.training import loop
from skipvsr.training.config import TrainingConfig, read_config
from skipvsr.training.loop import train
from skipvsr.training.schedule import learning_rate_at
from skipvsr.training.stop import Stop
from skipvsr.video.images import write_image
from skipvsr.video.prefetch import map_ahead
from tests.conftest import make_network
from tests.media import make_video, picture
from tests.reference_basicvsr import random_weights

ROOT = Path(__file__).parents[1]
NUMBERED = "0-flow", "1-backbone", "2-skip", "3-router"


def clips_folder(folder: Path) -> Path:
    """Two clips of 8 frames, 96x96, one of them a folder of images."""
    (folder / "images").mkdir(parents=True)
    for index in range(8):
        write_image(folder / "images" / f"{index}.png", picture(3 * index, 96, 96))
    make_video(folder / "video.mp4", [picture(40 + index, 96, 96) for index in range(8)])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips_folder(tmp_path_factory.mktemp("data") / "clips")


def smoke(data: Path, *overrides: str) -> TrainingConfig:
    """The smoke configuration on other clips, with few steps."""
    root = str(data)
    short = [f"stages.{index}.optimisation.steps={steps}" for index, steps in enumerate((4, 6, 4))]
    sets = [f"data.train.0.root={root}", f"validation.clips.0.root={root}", "validation.frames=3", "validation.every=4"]
    return read_config(ROOT / "configs" / "smoke.toml", [*sets, *short, *overrides])


def only(config: TrainingConfig, kind: str) -> TrainingConfig:
    return replace(config, stages=[stage for stage in config.stages if stage.kind == kind])


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_the_stages_follow_one_another(tmp_path: Path, data: Path):
    reports = train(smoke(data), tmp_path / "run", cpu=True)
    assert [report.kind for report in reports] == ["flow", "backbone", "skip", "router"]
    for report, name in zip(reports, NUMBERED, strict=True):
        assert report.best == tmp_path / "run" / name / "best"
        assert (tmp_path / "run" / name / "last.pt").is_file()
        assert list((tmp_path / "run" / name).glob("events.out.tfevents.*"))
        assert 0 <= report.wait_ratio < 1
    network = load_model(reports[-1].best)
    assert network.config == VSRConfig(8, 2, "light", "light", "gain")
    # The skip stage freezes flow, the backbone stage does not.
    weights = [load_model(report.best).state_dict() for report in reports]
    assert all(torch.equal(weights[1][name], weights[2][name]) for name in weights[1] if name.startswith("flow."))
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0] if name.startswith("flow."))
    assert all(torch.equal(weights[0][n], make_start()[n]) for n in weights[0] if not n.startswith("flow."))


def make_start() -> dict[str, torch.Tensor]:
    """The weights that a run of seed 0 starts from."""
    torch.manual_seed(0)
    from skipvsr.models.vsr import SkipVSR

    return SkipVSR(VSRConfig(8, 2, "light", "light")).state_dict()


def test_resuming_is_bit_identical(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    sets = ["stages.1.optimisation.checkpoint_every=3", "stages.1.optimisation.log_every=1", "validation.every=2"]
    config = only(smoke(data, *sets), "backbone")
    whole = train(config, tmp_path / "whole", cpu=True)

    calls = 0
    check = loop.check_finite

    def stop_later(*args):
        nonlocal calls
        calls += 1
        if calls == 6:
            raise SystemExit("killed")  # after step 5; the last checkpoint is of step 3
        check(*args)

    monkeypatch.setattr(loop, "check_finite", stop_later)
    with pytest.raises(SystemExit):
        train(config, tmp_path / "parts", cpu=True)
    monkeypatch.setattr(loop, "check_finite", check)
    parts = train(config, tmp_path / "parts", resume=True, cpu=True)

    before = losses(tmp_path / "whole" / "0-backbone")
    assert len(before) == 6
    after = losses(tmp_path / "parts" / "0-backbone")
    assert after == before[:5] + before[3:]
    assert parts[0].best_score == whole[0].best_score
    for name, tensor in load_model(whole[0].best).state_dict().items():
        assert torch.equal(tensor, load_model(parts[0].best).state_dict()[name]), name


def test_ctrl_c_saves_and_kill_loses_little(tmp_path: Path, data: Path):
    sets = ["--set", "stages.0.optimisation.checkpoint_every=2", "--set", "stages.0.optimisation.steps=5000",
            "--set", f"data.train.0.root={data}", "--set", f"validation.clips.0.root={data}",
            "--set", "validation.every=5000"]  # fmt: skip
    for number, code in [(signal.SIGINT, 130), (signal.SIGKILL, -9)]:
        out = tmp_path / number.name
        command = [
            sys.executable,
            "-m",
            "skipvsr",
            "train",
            str(ROOT / "configs" / "smoke.toml"),
            "--cpu",
            "--out",
            str(out),
        ]
        process = subprocess.Popen(
            [*command, *sets], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
        )
        last = out / "0-flow" / "last.pt"
        deadline = time.monotonic() + 120
        while not last.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert torch.load(last, weights_only=True)["step"] >= 2
        assert "Traceback" not in err


def test_a_run_is_not_mixed_with_another(tmp_path: Path, data: Path):
    config = only(smoke(data), "flow")
    train(config, tmp_path / "run", cpu=True)
    with pytest.raises(ConfigError, match="--resume"):
        train(config, tmp_path / "run", cpu=True)
    with pytest.raises(ConfigError, match=r"seed \(0, now 1\)"):
        train(replace(config, seed=1), tmp_path / "run", resume=True, cpu=True)
    train(config, tmp_path / "run", resume=True, cpu=True)


def test_no_number_stops_the_run_and_names_the_batch(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    config = only(
        smoke(data, "stages.1.optimisation.checkpoint_every=2", "stages.1.optimisation.learning_rate=1e30"), "backbone"
    )
    config = replace(config, stages=[replace(config.stages[0], flow_frozen_steps=0)])
    with pytest.raises(
        TrainingError,
        match=r"loss is (nan|inf) at step \d+, on (images|video) frames .* last good checkpoint|no checkpoint",
    ):
        train(config, tmp_path / "run", cpu=True)


def test_a_corrupt_frame_is_named(tmp_path: Path):
    folder = clips_folder(tmp_path / "clips")
    (folder / "images" / "5.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"5\.png: frame 5"):
        train(only(smoke(folder), "backbone"), tmp_path / "run", cpu=True)


def test_two_processes_are_one_with_the_same_batch(tmp_path: Path, data: Path):
    """Two gloo processes under torchrun give the losses of one process."""
    sets = [f"data.train.0.root={data}", f"validation.clips.0.root={data}", "validation.frames=3", "validation.every=4"]
    sets += [f"stages.{index}.optimisation.steps=4" for index in range(len(NUMBERED))]
    sets += [f"stages.{index}.optimisation.log_every=1" for index in range(len(NUMBERED))]
    arguments = [str(ROOT / "configs" / "smoke.toml"), "--cpu", *(word for key in sets for word in ("--set", key))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    for processes in (1, 2):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [*launch, "-m", "skipvsr", "train", *arguments, "--out", str(tmp_path / str(processes))]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    for stage in NUMBERED:
        one, two = (losses(tmp_path / name / stage) for name in ("1", "2"))
        assert len(one) == 4
        assert two == pytest.approx(one, rel=1e-4), stage
    best = [load_model(tmp_path / name / "1-backbone" / "best").state_dict() for name in ("1", "2")]
    for name, tensor in best[0].items():
        torch.testing.assert_close(best[1][name], tensor, atol=1e-3, rtol=1e-2)


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path, data: Path):
    with pytest.raises(ConfigError, match="multiple of 3"):
        train(only(smoke(data, "stages.2.optimisation.accumulation=3"), "skip"), tmp_path / "run", cpu=True)


def test_accumulation_changes_nothing(tmp_path: Path, data: Path):
    runs = []
    for parts in (1, 2, 4):
        sets = [f"stages.1.optimisation.accumulation={parts}", "stages.1.optimisation.log_every=1"]
        train(only(smoke(data, *sets), "backbone"), tmp_path / str(parts), cpu=True)
        runs.append(losses(tmp_path / str(parts) / "0-backbone"))
    assert runs[1] == pytest.approx(runs[0], rel=1e-4)
    assert runs[2] == pytest.approx(runs[0], rel=1e-4)


def test_results_keep_their_order_and_errors_their_turn():
    released = Event()

    def slow_first(number: int) -> int:
        if number == 0:
            assert released.wait(10)
        if number == 1:
            released.set()
        if number == 3:
            raise DataError("the third")
        return number

    with ThreadPoolExecutor(2) as executor:
        results = map_ahead(slow_first, range(6), executor, depth=2)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(DataError, match="the third"):
            next(results)


def test_threads_change_nothing(tmp_path: Path, data: Path):
    """Also those of a run that goes on, on a machine with more cores."""
    log = "stages.1.optimisation.log_every=1"
    config = only(smoke(data, log), "backbone")
    train(config, tmp_path / "one", cpu=True)
    several = replace(config, data=replace(config.data, threads=3, cache_bytes=1))
    train(several, tmp_path / "three", cpu=True)
    assert losses(tmp_path / "three" / "0-backbone") == losses(tmp_path / "one" / "0-backbone")
    train(several, tmp_path / "one", resume=True, cpu=True)


def test_what_is_saved_is_what_was_validated(tmp_path: Path, data: Path):
    """With averaging on, the averaged weights: their score, measured anew, is the one in the log."""
    config = only(smoke(data), "backbone")
    report = train(config, tmp_path / "run", cpu=True)[0]
    clip = torch.from_numpy(np.stack([picture(3 * index, 96, 96) for index in range(3)])).permute(0, 3, 1, 2) / 255
    rows = [json.loads(line) for line in (tmp_path / "run" / "0-backbone" / "log.jsonl").read_text().splitlines()]
    best = max((row for row in rows if "validation" in row), key=lambda row: row["validation"]["psnr_y"])
    from skipvsr.data.degradations import bi

    with torch.inference_mode():
        score = psnr_y(load_model(report.best)(bi(clip)[None])[0], clip).mean().item()
    assert score == pytest.approx(best["clips"]["images"]["psnr_y"], abs=1e-4)
    raw = torch.load(tmp_path / "run" / "0-backbone" / "last.pt", weights_only=True)["network"]
    assert not torch.equal(
        raw["reconstruction.last.weight"], load_model(report.best).state_dict()["reconstruction.last.weight"]
    )


def test_initial_models(tmp_path: Path, data: Path):
    network = make_network(VSRConfig(8, 2, "light", "light"), seed=7)
    save_folder(Checkpoint(network.config, dict(network.state_dict())), tmp_path / "model")
    frozen = f"stages.2.init={tmp_path / 'model'}"
    report = train(only(smoke(data, frozen, "stages.2.optimisation.steps=1"), "skip"), tmp_path / "run", cpu=True)[0]
    weights = load_model(report.best).state_dict()
    assert torch.equal(weights["flow.levels.0.0.weight"], network.state_dict()["flow.levels.0.0.weight"])
    other = make_network(VSRConfig(10, 2, "light", "light"))
    save_folder(Checkpoint(other.config, dict(other.state_dict())), tmp_path / "other")
    with pytest.raises(ConfigError, match="other has channels 10, and the network of this run channels 8: "):
        train(only(smoke(data, f"stages.2.init={tmp_path / 'other'}"), "skip"), tmp_path / "run2", cpu=True)


def save_spynet(path: Path) -> dict[str, torch.Tensor]:
    """A random SPyNet in BasicSR's layout, and its weights there."""
    weights = {n.removeprefix("spynet."): t for n, t in random_weights(4, 1).items() if n.startswith("spynet.basic")}
    torch.save({"params": weights}, path)
    return weights


def test_flow_can_be_imported(tmp_path: Path, data: Path):
    weights = save_spynet(tmp_path / "spynet.pth")
    sets = [
        f"stages.0.init={tmp_path / 'spynet.pth'}",
        "stages.0.optimisation.steps=1",
        "stages.0.optimisation.learning_rate=1e-12",
    ]
    report = train(only(smoke(data, *sets, "network.flow=spynet"), "flow"), tmp_path / "run", cpu=True)[0]
    ours = load_model(report.best).state_dict()["flow.levels.2.4.weight"]
    torch.testing.assert_close(ours, weights["basic_module.2.basic_module.4.weight"], atol=1e-6, rtol=0)
    with pytest.raises(ConfigError, match="spynet"):
        train(only(smoke(data, *sets), "flow"), tmp_path / "run2", cpu=True)


def test_one_clip_can_be_learnt_by_heart(tmp_path: Path):
    """Some hundred steps on one clip: well above bicubic."""
    folder = tmp_path / "clips" / "clip"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    # Blocks of 2x2 in three tones on a grid: edges that bicubic blurs.
    tones = random.choice([40, 130, 220], size=(48, 48, 3)).repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8)
    for index in range(4):
        write_image(folder / f"{index}.png", tones[8 * index : 8 * index + 96, 8 * index : 8 * index + 96])
    sets = ["stages.1.optimisation.steps=250", "validation.every=250", "stages.1.optimisation.learning_rate=4e-3",
            "stages.1.flow_frozen_steps=0", "stages.1.flow_learning_rate_scale=1.0", "validation.frames=4"]  # fmt: skip
    report = train(only(smoke(tmp_path / "clips", *sets), "backbone"), tmp_path / "run", cpu=True)[0]
    from skipvsr.data.clips import read_frames
    from skipvsr.data.degradations import bi

    gt = torch.from_numpy(read_frames(folder, 0, 4)).permute(0, 3, 1, 2) / 255
    bicubic = psnr_y(bicubic_upsample(bi(gt)), gt).mean().item()
    assert report.best_score > bicubic + 2.0


def test_the_learning_rate_is_warm_up_and_cosine():
    settings = replace(
        smoke(ROOT).stages[1].optimisation, steps=110, warmup=10, learning_rate=1.0, final_learning_rate=0.2
    )
    assert learning_rate_at(0, settings) == pytest.approx(0.1)
    assert learning_rate_at(9, settings) == pytest.approx(1.0)
    assert learning_rate_at(10, settings) == pytest.approx(1.0)
    assert learning_rate_at(60, settings) == pytest.approx(0.6)
    assert learning_rate_at(110, settings) == pytest.approx(0.2)
    assert learning_rate_at(20, settings, seconds=1e6) == learning_rate_at(20, settings)  # time does not count
    timed = replace(settings, minutes=2.0)
    assert learning_rate_at(20, timed, seconds=60) == pytest.approx(0.6)
    assert learning_rate_at(60, timed, seconds=12) == pytest.approx(0.6)
    assert learning_rate_at(20, timed, seconds=120) == pytest.approx(0.2)


def test_a_stage_ends_by_the_clock(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    """On a clock on which every look takes a second."""
    config = only(smoke(data, *(f"stages.{index}.optimisation.minutes=0.05" for index in range(3))), "backbone")
    config = replace(config, validation=replace(config.validation, every=100))
    now = iter(range(1_000_000))
    monkeypatch.setattr(loop, "Stop", partial(Stop, clock=lambda: float(next(now))))
    (report,) = train(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "0-backbone" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation" in row] == [report.steps]
    assert 1 <= report.steps < config.stages[0].optimisation.steps
    assert report.seconds >= 3
    state = torch.load(tmp_path / "run" / "0-backbone" / "last.pt", weights_only=True)
    assert state["step"] == report.steps


def test_settings_that_came_later_do_not_stop_a_run_from_going_on(tmp_path: Path, data: Path):
    config = only(smoke(data), "backbone")
    train(config, tmp_path)
    noted = json.loads((tmp_path / "run.json").read_text())
    del noted["stages"][0]["optimisation"]["minutes"]
    (tmp_path / "run.json").write_text(json.dumps(noted))
    assert train(config, tmp_path, resume=True)[0].steps == config.stages[0].optimisation.steps
    noted["stages"][0]["of_old"] = 1
    (tmp_path / "run.json").write_text(json.dumps(noted))
    with pytest.raises(ConfigError, match="another"):
        train(config, tmp_path, resume=True)


def test_a_deeper_network_starts_as_the_shallower_one(tiny: SkipVSR):
    deeper = tiny.lengthened(4).eval()
    assert deeper.config == replace(tiny.config, blocks=4)
    clip = torch.rand(1, 3, 3, 20, 24)
    with torch.no_grad():
        torch.testing.assert_close(deeper(clip), tiny(clip), rtol=0, atol=1e-6)
    deeper.train()(clip).square().mean().backward()
    for trunk in (deeper.backward_trunk, deeper.forward_trunk):
        for block in list(trunk.blocks)[2:]:
            assert isinstance(block, ResidualBlock)
            assert block.conv2.weight.grad is not None
            assert block.conv2.weight.grad.abs().sum() > 0  # they learn
    with pytest.raises(ConfigError, match="4 blocks, more than 3"):
        deeper.lengthened(3)


@pytest.mark.parametrize("reconstruction", ["light", "basicvsr"])
def test_a_wider_network_starts_as_the_narrower_one(reconstruction: Reconstruction):
    torch.manual_seed(0)
    narrow = SkipVSR(VSRConfig(6, 2, "light", reconstruction)).eval()
    wider = narrow.widened(10)
    assert wider.config == replace(narrow.config, channels=10)
    clip = torch.rand(1, 3, 3, 20, 24)
    with torch.no_grad():
        torch.testing.assert_close(wider(clip), narrow(clip), rtol=0, atol=1e-6)
    wider.train()(clip).square().mean().backward()
    for name, weight in wider.named_parameters():
        # What old outputs read of new inputs, which is zero, learns.
        assert weight.grad is not None, name
        if weight.ndim == 4 and not name.startswith("flow."):
            assert weight.grad[:3, 6:].abs().sum() > 0, name
    with pytest.raises(ConfigError, match="10 channels, more than 8"):
        wider.widened(8)


def test_a_cheaper_flow_imitates_that_of_a_model(tmp_path: Path, data: Path, tiny: SkipVSR):
    save_folder(Checkpoint(tiny.config, tiny.state_dict(), {}), tmp_path / "model")
    root = {"dataset": "folder", "root": str(data)}
    optimisation = {"steps": 60, "batch": 4, "crop": 20, "learning_rate": 3e-3, "log_every": 20}
    backbone = {
        "kind": "backbone",
        "frames": 2,
        "optimisation": {"steps": 1, "batch": 1, "crop": 20, "learning_rate": 1e-9},
    }
    config = TypeAdapter(TrainingConfig).validate_json(
        json.dumps(
            {
                "name": "cheaper",
                "network": {"channels": 8, "blocks": 2, "flow": "half", "reconstruction": "light"},
                "data": {"train": [root], "degradation": "bi"},
                "validation": {"clips": [root], "frames": 2},
                "stages": [
                    {"kind": "imitate", "init": str(tmp_path / "model"), "optimisation": optimisation},
                    backbone,
                ],
            }
        )
    )
    reports = train(config, tmp_path / "run")
    found = losses(tmp_path / "run" / "0-imitate")
    assert found[-1] < 0.8 * found[0]
    cheaper = load_model(reports[0].best)
    assert cheaper.config == replace(tiny.config, flow="half")
    for trunk, kept in ((cheaper.forward_trunk, tiny.forward_trunk), (cheaper.reconstruction, tiny.reconstruction)):
        assert all(torch.equal(one, other) for one, other in zip(trunk.parameters(), kept.parameters(), strict=True))
    assert not torch.equal(next(cheaper.flow.parameters()), next(tiny.flow.parameters()))
    assert load_model(reports[1].best).config.flow == "half"
