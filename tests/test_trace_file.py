"""Traces on disk, and the overlay that shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import skipvsr
from skipvsr.checkpoints.native import Checkpoint, save_folder
from skipvsr.cli.main import main
from skipvsr.errors import ConfigError, InputError, OutputError
from skipvsr.evaluation.trace_file import TraceWriter, read_trace
from skipvsr.models.config import VSRConfig
from skipvsr.models.router import Calibration
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.trace import RoutingTrace, Tally, TracedTrunk, Traces
from skipvsr.upscale.overlay import LatestDepths, draw_depth
from skipvsr.video.open import read_clip
from tests.conftest import make_network
from tests.media import make_video, picture

GRID = TileGrid.of(20, 30, 10)


def trunk(frame: int, direction: str, ratio: float, seed: int = 0) -> TracedTrunk:
    torch.manual_seed(seed)
    return TracedTrunk(frame, direction, torch.rand(4, 1, 2, 3) < ratio, GRID)  # pyright: ignore[reportArgumentType]


def test_a_trace_comes_back(tmp_path: Path):
    passes = [trunk(3, "backward", 0.5, 1), trunk(2, "backward", 0.2, 2), trunk(2, "forward", 0.9, 3)]
    tally, kept = Tally(), RoutingTrace()
    with TraceWriter(tmp_path / "trace.npz") as writer:
        for one in passes:
            Traces((writer, tally, kept)).add(one)
    found = read_trace(tmp_path / "trace.npz")
    assert found.trunks[0].grid == GRID
    for one, two in zip(found.trunks, passes, strict=True):
        assert (one.frame, one.direction) == (two.frame, two.direction)
        assert torch.equal(one.mask, two.mask)
    assert found.active_ratio == pytest.approx(tally.active_ratio) == pytest.approx(kept.active_ratio)
    with np.load(tmp_path / "trace.npz") as archive:  # without us
        assert archive["00000001-2-backward"].dtype == bool
        assert archive["grid"].tolist() == [20, 30, 10, 10]


def test_traces_appear_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "trace.npz"

    def fail() -> None:
        with TraceWriter(path) as writer:
            writer.add(trunk(0, "forward", 0.5))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert not list(tmp_path.iterdir())
    with TraceWriter(path) as writer:
        writer.add(trunk(0, "forward", 0.5))
    with pytest.raises(OutputError, match="exists already"):
        TraceWriter(path)
    with pytest.raises(OutputError, match="folder"):
        TraceWriter(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="missing"):
        TraceWriter(tmp_path / "missing" / "trace.npz")
    (tmp_path / "other.npz").write_bytes(path.read_bytes()[:200])
    np.savez(tmp_path / "numbers.npz", grid=np.arange(4), wrong=np.zeros(3))
    for bad in ("other.npz", "numbers.npz", "nothing.npz"):
        with pytest.raises(InputError, match="no trace"):
            read_trace(tmp_path / bad)


def test_the_latest_pass_is_the_one_that_counts():
    depths = LatestDepths()
    depths.add(trunk(5, "backward", 0.0))  # lookahead
    depths.add(trunk(5, "backward", 1.0))
    depths.add(trunk(5, "forward", 0.0))
    ratio = depths.take(5)
    assert ratio.shape == (20, 30)
    assert (ratio == 0.5).all()
    with pytest.raises(KeyError):
        depths.take(5)


def test_colours_go_from_dark_to_yellow():
    picture = torch.full((3, 8, 12), 0.5)
    ratio = torch.tensor([[0.0, 0.5, 1.0]]).expand(2, 3)
    drawn = draw_depth(picture, ratio)
    assert drawn.shape == (3, 8, 12)
    levels = drawn[:, 0, [0, 4, 8]].mul(255).round().T.tolist()
    for found, colour in zip(levels, ([68, 1, 84], [33, 145, 140], [253, 231, 37]), strict=True):
        assert found == pytest.approx([(127.5 + level) / 2 for level in colour], abs=0.51)


def upscale(*arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["upscale", *arguments])
    assert caught.value.code == 0


@pytest.mark.parametrize("tiling", ["frame", "patch"])
def test_trace_and_overlay_from_the_command_line(tmp_path: Path, tiling: str):
    network = make_network(VSRConfig(6, 4, "light", "light", "gain"), seed=2)
    network.calibration = Calibration(16, (0.25, 0.5, 0.75), (4.0, 1.0, 0.5))
    save_folder(
        Checkpoint(network.config, dict(network.state_dict()), calibration=network.calibration), tmp_path / "model"
    )
    make_video(tmp_path / "in.mkv", [picture(index, 60, 40) for index in range(7)])
    places = [tmp_path / name for name in ("in.mkv", "out.mkv", "trace.npz", "overlay.mkv")]
    source, out, trace, overlay = map(str, places)
    options = ["--model", str(tmp_path / "model"), "--tiling", tiling, "--window", "3", "--lookahead", "2", "--quiet"]
    extra = ["--trace", trace, "--overlay", overlay]
    upscale(source, out, "--threshold", "0.7", *options, *extra)
    found = read_trace(trace)
    assert {one.frame for one in found.trunks} == set(range(7))
    assert sum(one.direction == "forward" for one in found.trunks) == 7
    assert sum(one.direction == "backward" for one in found.trunks) > 7  # lookahead
    assert 0 < found.active_ratio < 1
    shown, drawn = read_clip(out), read_clip(overlay)
    assert drawn.shape == shown.shape == (7, 160, 240, 3)
    assert np.abs(drawn.astype(int) - shown).mean() > 5

    # With everything running there is a trace too, and no overlay but yellow.
    upscale(source, out, "--overwrite", *options, *extra)
    assert read_trace(trace).active_ratio == 1
    yellow = read_clip(overlay).reshape(-1, 3).mean(axis=0)
    assert yellow[2] < min(yellow[0], yellow[1])


def test_outputs_have_names_of_their_own(tmp_path: Path):
    network = make_network(VSRConfig(4, 1, "light", "light"))
    source = make_video(tmp_path / "in.mkv", 2)
    before = source.read_bytes()
    with pytest.raises(ConfigError, match="same name"):
        skipvsr.upscale_video(source, tmp_path / "out.mkv", network, trace=tmp_path / "out.mkv")
    with pytest.raises(ConfigError, match="same name"):
        skipvsr.upscale_video(source, tmp_path / "out.mkv", network, trace=source, overwrite=True)
    with pytest.raises(OutputError, match="is the input"):
        skipvsr.upscale_video(source, tmp_path / "out.mkv", network, overlay=source, overwrite=True)
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
