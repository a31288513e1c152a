"""Comparisons to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from skipvsr.cli.main import main
from skipvsr.errors import ConfigError, InputError, OutputError
from skipvsr.report.compare import CompareOptions, compare, compose, difference_map
from skipvsr.video.images import read_image, write_image
from skipvsr.video.open import probe, read_clip
from tests.media import make_video, picture


def test_side_by_side():
    one, two = torch.zeros(3, 4, 6), torch.full((3, 4, 6), 0.5)
    whole = compose([one, two], CompareOptions())
    assert whole.shape == (3, 4, 6 + 4 + 6)
    assert (whole[:, :, :6] == 0).all()
    assert (whole[:, :, 6:10] == 1).all()
    assert (whole[:, :, 10:] == 0.5).all()
    zoomed = compose([one, two], CompareOptions(crop=(1, 1, 3, 2), zoom=3))
    assert zoomed.shape == (3, 6, 9 + 4 + 9)
    assert compose([one[:, :3, :5], two[:, :3, :5]], CompareOptions()).shape == (3, 4, 14)  # even sides


def test_wipe_and_diff():
    one, two = torch.zeros(3, 4, 8), torch.full((3, 4, 8), 0.5)
    wiped = compose([one, two], CompareOptions(wipe=True), progress=0.5)
    assert wiped.shape == (3, 4, 8)
    assert (wiped[..., :3] == 0).all()
    assert (wiped[..., 3:5] == 1).all()
    assert (wiped[..., 5:] == 0.5).all()
    assert compose([one, two], CompareOptions(diff=True)).shape == (3, 4, 8 * 3 + 4 * 2)
    assert torch.equal(
        difference_map(one, two), difference_map(one, one + 0.125)
    )  # an eighth of the range and more look alike
    assert not torch.equal(difference_map(one, one), difference_map(one, two))


def test_videos(tmp_path: Path):
    small = make_video(
        tmp_path / "a.mp4",
        [picture(index, 96, 64)[::2, ::2] for index in range(5)],
        audio_codec="aac",
        audio_seconds=0.2,
    )
    large = make_video(tmp_path / "b.mkv", [picture(index, 96, 64) for index in range(5)])
    assert compare([small, large], tmp_path / "both.mp4") == 5
    found = read_clip(tmp_path / "both.mp4")
    assert found.shape == (5, 64, 96 + 4 + 96, 3)
    assert np.abs(found[:, :, 100:].astype(int) - read_clip(large)).mean() < 4
    assert np.abs(found[:, :, :96].astype(int) - read_clip(large)).mean() < 8  # the same, enlarged
    info = probe(tmp_path / "both.mp4")
    assert info.frame_count == 5
    with pytest.raises(OutputError, match="exists"):
        compare([small, large], tmp_path / "both.mp4")
    with pytest.raises(OutputError, match="is the input"):
        compare([small, large], small, overwrite=True)


def test_stills_and_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, level in (("a", 50), ("b", 90)):
        (tmp_path / name).mkdir()
        for index in range(3):
            write_image(tmp_path / name / f"{index}.png", np.full((20, 30, 3), level + index, np.uint8))
    compare([tmp_path / "a", tmp_path / "b"], tmp_path / "still.png")
    still = read_image(tmp_path / "still.png")
    assert (still[:, :30] == 51).all()
    assert (still[:, 34:] == 91).all()
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "compare",
                *(str(tmp_path / name) for name in ("a", "b", "still2.png")),
                "--frame",
                "2",
                "--crop",
                "0,0,20,20",
            ]
        )
    assert ended.value.code == 0
    assert f"from left to right: {tmp_path / 'a'} | {tmp_path / 'b'}" in capsys.readouterr().out
    assert (read_image(tmp_path / "still2.png")[:20, :20] == 52).all()
    assert compare([tmp_path / "a", tmp_path / "b"], tmp_path / "both") == 3
    assert len(list((tmp_path / "both").iterdir())) == 3


def test_what_goes_wrong(tmp_path: Path):
    five = make_video(tmp_path / "five.mp4", 5)
    four = make_video(tmp_path / "four.mp4", 4)
    with pytest.raises(InputError, match=r"four\.mp4 ends after 4"):
        compare([five, four], tmp_path / "out.mp4")
    with pytest.raises(InputError, match="no frame 9"):
        compare([five, five], tmp_path / "out.png", frame=9)
    with pytest.raises(ConfigError, match="two or more"):
        compare([five], tmp_path / "out.mp4")
    with pytest.raises(ConfigError, match="wipe"):
        compare([five, five, five], tmp_path / "out.mp4", CompareOptions(wipe=True))
    with pytest.raises(ConfigError, match="beyond"):
        compare([five, five], tmp_path / "out.mp4", CompareOptions(crop=(40, 0, 20, 10)))
    with pytest.raises(ConfigError, match="for images"):
        compare([five, five], tmp_path / "out.mp4", frame=1)
    with pytest.raises(ConfigError, match="zoom"):
        CompareOptions(zoom=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["five.mp4", "four.mp4"]
