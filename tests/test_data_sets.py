"""Clips, the known datasets on folders of their shape, splits, and the check of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skipvsr.data.check import check_folder, guess_dataset
from skipvsr.data.clips import Clip, image_files
from skipvsr.data.datasets import find_clips, read_split
from skipvsr.data.degradations import bd, bd_duf, bi
from skipvsr.errors import ConfigError, DataError
from skipvsr.video.images import write_image
from tests.media import make_video, picture
from tests.test_data_phase import texture


def make_folder(folder: Path, frames: int = 3, width: int = 48, height: int = 32, pattern: str = "{:08d}.png") -> Path:
    folder.mkdir(parents=True)
    for index in range(frames):
        write_image(folder / pattern.format(index), picture(index, width, height))
    return folder


def make_names(root: Path, *names: str, frames: int = 1, pattern: str = "{:08d}.png") -> None:
    """Folders of empty files with the names of images: enough for finding clips."""
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(frames):
            (root / name / pattern.format(index)).touch()


def break_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40] + b"broken")


# Splits


def test_splits_of_reds():
    train, reds4, val4 = (read_split(name) for name in ("reds_train.txt", "reds4.txt", "reds_val4.txt"))
    assert len(train) == 262  # 240 + 30, less 4 of each
    assert [line.name for line in reds4] == ["train/000", "train/011", "train/015", "train/020"]
    assert [line.name for line in val4] == ["val/000", "val/001", "val/006", "val/017"]
    everything = {line.name for line in (*train, *reds4, *val4)}
    assert everything == {f"train/{i:03d}" for i in range(240)} | {f"val/{i:03d}" for i in range(30)}
    assert len(train) + len(reds4) + len(val4) == len(everything)
    assert {line.frames for line in (*train, *reds4, *val4)} == {100}


def test_split_of_vid4():
    assert {line.name: line.frames for line in read_split("vid4.txt")} == {
        "calendar": 41,
        "city": 34,
        "foliage": 49,
        "walk": 47,
    }


# Clips


def test_a_folder_of_images_is_read_in_natural_order(tmp_path: Path):
    make_folder(tmp_path / "clip", 12, pattern="im{}.png")
    (tmp_path / "clip" / ".hidden.png").touch()
    (tmp_path / "clip" / "notes.txt").touch()
    clip = Clip("clip", tmp_path / "clip", 12)
    assert [path.stem for path in image_files(clip.gt)] == [f"im{index}" for index in range(12)]
    frames = clip.read(9, 3)
    assert np.array_equal(frames, [picture(index) for index in (9, 10, 11)])
    assert clip.read().shape == (12, 32, 48, 3)


def test_a_video_is_read_in_part(tmp_path: Path):
    video = make_video(tmp_path / "clip.mp4", 8)
    (clip,) = find_clips("folder", tmp_path)
    assert clip == Clip("clip", video, 8)
    part = clip.read(3, 2).astype(int)
    assert np.abs(part - [picture(3), picture(4)]).mean() < 2


def test_a_broken_image_is_named_with_its_frame(tmp_path: Path):
    folder = make_folder(tmp_path / "clip", 4)
    break_file(folder / "00000002.png")
    with pytest.raises(DataError, match=r"00000002\.png: frame 2 does not decode"):
        Clip("clip", folder, 4).read()
    assert len(Clip("clip", folder, 4).read(0, 2)) == 2


def test_a_video_that_was_cut_off_is_named_with_its_frame(tmp_path: Path):
    video = make_video(tmp_path / "clip.mkv", 20, options={"g": "1"})
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(DataError, match=r"clip\.mkv: frame \d+ does not decode"):
        Clip("clip", video, 20).read()


def test_frames_of_two_sizes_are_refused(tmp_path: Path):
    folder = make_folder(tmp_path / "clip", 2)
    write_image(folder / "00000002.png", picture(2, 64, 32))
    with pytest.raises(DataError, match=r"frame 2 is 64x32, frame 0 is 48x32"):
        Clip("clip", folder, 3).read()


def test_frames_past_the_end_are_refused(tmp_path: Path):
    folder = make_folder(tmp_path / "clip", 2)
    with pytest.raises(DataError, match="it has 2 images"):
        Clip("clip", folder, 3).read()


def test_lr_frames_that_are_not_there(tmp_path: Path):
    with pytest.raises(DataError, match="no LR frames of its own"):
        Clip("clip", tmp_path, 1).read_lr()


# Datasets


@pytest.mark.parametrize("layout", ["downloaded", "flat", "merged"])
def test_reds(tmp_path: Path, layout: str):
    train, val = {
        "downloaded": ("train/train_", "val/val_"),
        "flat": ("train_", "val_"),
        "merged": ("train_", "train_"),
    }[layout]
    first = 240 if layout == "merged" else 0
    for kind in ("sharp", "sharp_bicubic/X4"):
        make_names(tmp_path / f"{train}{kind}", *(f"{i:03d}" for i in range(240)))
        make_names(tmp_path / f"{val}{kind}", *(f"{first + i:03d}" for i in range(30)))
    clips = find_clips("reds-train", tmp_path, lr="bi")
    assert len(clips) == 262
    assert all(clip.length == 100 for clip in clips)
    val4 = find_clips("reds-val4", tmp_path, lr="bi")
    assert [clip.name for clip in val4] == ["val/000", "val/001", "val/006", "val/017"]
    assert val4[3].gt == tmp_path / f"{val}sharp" / f"{first + 17:03d}"
    assert val4[3].lr == tmp_path / f"{val}sharp_bicubic/X4" / f"{first + 17:03d}"
    reds4 = find_clips("reds4", tmp_path)
    assert [clip.gt.name for clip in reds4] == ["000", "011", "015", "020"]
    assert {clip.gt for clip in clips}.isdisjoint({clip.gt for clip in (*reds4, *val4)})


def test_reds4_alone(tmp_path: Path):
    for kind in ("GT", "sharp_bicubic"):
        make_names(tmp_path / kind, "000", "011", "015", "020")
    assert find_clips("reds4", tmp_path, lr="bi")[1].lr == tmp_path / "sharp_bicubic/011"
    assert guess_dataset(tmp_path) == "reds4"


def test_vimeo(tmp_path: Path):
    make_names(tmp_path / "sequences", "00001/0001", "00001/0002", "00002/0001", frames=7, pattern="im{}.png")
    make_names(tmp_path / "BDx4", "00001/0002", frames=7, pattern="im{}.png")
    (tmp_path / "sep_trainlist.txt").write_text("00001/0001\n00002/0001\n\n")
    (tmp_path / "sep_testlist.txt").write_text("00001/0002\n\n")
    assert [clip.name for clip in find_clips("vimeo-train", tmp_path)] == ["00001/0001", "00002/0001"]
    (test,) = find_clips("vimeo-test", tmp_path, lr="bd")
    assert (test.length, test.lr) == (7, tmp_path / "BDx4/00001/0002")
    with pytest.raises(DataError, match="has no LR frames 'bd'"):
        find_clips("vimeo-train", tmp_path, lr="bd")
    (tmp_path / "sep_testlist.txt").unlink()
    (tmp_path / "meta_info_Vimeo90K_test_GT.txt").write_text("00002/0001 7 (256,448,3)\n")
    assert [clip.name for clip in find_clips("vimeo-test", tmp_path)] == ["00002/0001"]


@pytest.mark.parametrize("folder", ["GT/", ""])
def test_vid4(tmp_path: Path, folder: str):
    make_names(tmp_path, *(folder + name for name in ("walk", "calendar", "foliage", "city")))
    clips = find_clips("vid4", tmp_path)
    assert [(clip.name, clip.length) for clip in clips] == [
        ("calendar", 41),
        ("city", 34),
        ("foliage", 49),
        ("walk", 47),
    ]


def test_udm10_in_both_of_its_forms(tmp_path: Path):
    make_names(tmp_path / "renamed", *(f"{kind}/{i:03d}" for kind in ("GT", "BDx4") for i in range(10)))
    make_names(
        tmp_path / "original", *(f"{name}/{kind}" for name in ("archpeople", "polyflow") for kind in ("truth", "blur4"))
    )
    renamed = find_clips("udm10", tmp_path / "renamed", lr="bd")
    assert [clip.name for clip in renamed] == [f"{i:03d}" for i in range(10)]
    assert {clip.length for clip in renamed} == {32}
    original = find_clips("udm10", tmp_path / "original", lr="bd")
    assert [clip.name for clip in original] == ["archpeople", "polyflow"]
    assert original[0].lr == tmp_path / "original/archpeople/blur4"


def test_spmcs(tmp_path: Path):
    make_names(tmp_path, *(f"{name}/{kind}" for name in ("car05_001", "hk004_001") for kind in ("truth", "input4")))
    clips = find_clips("spmcs", tmp_path, lr="bi")
    assert [(clip.name, clip.length) for clip in clips] == [("car05_001", 31), ("hk004_001", 31)]
    assert clips[1].lr == tmp_path / "hk004_001/input4"


def test_a_folder_of_anything(tmp_path: Path):
    make_folder(tmp_path / "GT" / "a", 2)
    make_video(tmp_path / "GT" / "b.mp4", 4)
    make_folder(tmp_path / "LR" / "a", 2, 16, 16)
    make_video(tmp_path / "LR" / "b.mp4", 4)
    (tmp_path / "GT" / "notes.txt").touch()
    clips = find_clips("folder", tmp_path, lr="bi")
    assert [(clip.name, clip.length) for clip in clips] == [("a", 2), ("b", 4)]
    assert clips[1].lr == tmp_path / "LR" / "b.mp4"


def test_stills(tmp_path: Path):
    make_folder(tmp_path / "photographs", 3, pattern="{}.jpg")
    stills = find_clips("stills", tmp_path / "photographs")
    assert [(still.name, still.length) for still in stills] == [("0.jpg", 1), ("1.jpg", 1), ("2.jpg", 1)]
    assert stills[0].read().shape == (1, 32, 48, 3)


def test_what_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="reds-train"):
        find_clips("reds", tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        find_clips("reds4", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"clip train/000 of REDS4 is not there; it looks for train/train_sharp/000"):
        find_clips("reds4", tmp_path)
    with pytest.raises(DataError, match=r"sep_trainlist\.txt"):
        find_clips("vimeo-train", tmp_path)
    with pytest.raises(DataError, match="no clip of UDM10"):
        find_clips("udm10", tmp_path)
    with pytest.raises(DataError, match="no clips in it"):
        find_clips("folder", tmp_path)
    with pytest.raises(DataError, match="no photographs"):
        find_clips("stills", tmp_path)
    write_image(tmp_path / "loose.png", picture(0))
    with pytest.raises(DataError, match="inside a folder of their own"):
        find_clips("folder", tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"a\.mp4 cannot be read"):
        find_clips("folder", tmp_path)


def test_clips_of_one_name_are_refused(tmp_path: Path):
    make_video(tmp_path / "a.mp4", 2)
    make_video(tmp_path / "a.mkv", 2)
    with pytest.raises(DataError, match="two clips are called a"):
        find_clips("folder", tmp_path)


# Check


def make_pairs(root: Path, make_low, kind: str, frames: int = 2) -> None:
    """Two clips with LR frames."""
    for clip, seed in (("a", 1), ("b", 2)):
        gt = texture(frames, seed=seed)
        for folder, images in (("GT", gt), (kind, make_low(gt))):
            (root / folder / clip).mkdir(parents=True)
            for index, image in enumerate(images):
                pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
                write_image(root / folder / clip / f"{index:04d}.png", np.ascontiguousarray(pixels))


@pytest.mark.parametrize(("make_low", "kind"), [(bi, "BIx4"), (bd, "BDx4")])
def test_check_finds_nothing_wrong(tmp_path: Path, make_low, kind: str):
    make_pairs(tmp_path, make_low, kind)
    seen: list[str] = []
    report = check_folder(tmp_path, on_clip=seen.append)
    assert report.ok
    assert seen == ["a", "b"]
    assert report.dataset == "folder"
    assert "2 clips, 4 frames" in report.facts
    assert "192x192: 2 clips" in report.facts
    assert any("2 clips sits where it should" in fact for fact in report.facts)
    assert "nothing wrong" in report.lines()[0]


def test_check_names_the_phase(tmp_path: Path):
    make_pairs(tmp_path, bd_duf, "BDx4")
    report = check_folder(tmp_path)
    assert not report.ok
    (error,) = report.errors
    assert "LR (bd) of a:" in error
    assert "DUF" in error
    assert "1 more clips" in error


def test_check_finds_every_planted_error(tmp_path: Path):
    make_pairs(tmp_path, bi, "BIx4", frames=3)
    break_file(tmp_path / "GT" / "a" / "0001.png")
    (tmp_path / "BIx4" / "a" / "0002.png").unlink()
    write_image(tmp_path / "BIx4" / "b" / "0001.png", picture(0, 52, 48))
    make_folder(tmp_path / "GT" / "c", 2)
    write_image(tmp_path / "GT" / "c" / "00000002.png", picture(0, 50, 32))
    video = make_video(tmp_path / "GT" / "d.mkv", 20, options={"g": "1"})
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    (tmp_path / "GT" / "e.mp4").write_bytes(b"no video")
    report = check_folder(tmp_path)
    found = "\n".join(report.errors)
    assert "a/0001.png: frame 1 does not decode" in found
    assert "BIx4/a: 2 LR frames for 3 HR frames" in found
    assert "BIx4/b: LR is 48x48, 52x48; HR is 192x192" in found
    assert "GT/c: frames of several sizes: 48x32, 50x32" in found
    assert "d.mkv: frame" in found
    assert "e.mp4 cannot be read" in found
    assert len(report.errors) == 6
    assert any("50x32" in fact and "cut to 48x32" in fact for fact in report.facts)
    assert "6 errors" in str(report)


def test_check_of_a_dataset_lists_what_is_missing(tmp_path: Path):
    for clip, frames in (("calendar", 41), ("city", 33), ("walk", 47)):
        make_folder(tmp_path / "GT" / clip, frames, 16, 16)
    make_folder(tmp_path / "BIx4" / "city", 33, 16, 16)
    report = check_folder(tmp_path, every_frame=False)
    assert report.dataset == "vid4"
    found = "\n".join(report.errors)
    assert "1 of 4 clips are missing: foliage; the first is looked for at GT/foliage" in found
    assert "city: 33 frames; there must be 34" in found
    assert "LR frames (bi) are missing for calendar, walk" in found
    assert "BIx4/city: LR is 16x16; HR is 16x16" in found


def test_check_of_reds_covers_all_its_splits(tmp_path: Path):
    make_names(tmp_path / "train_sharp", *(f"{i:03d}" for i in range(239)))
    report = check_folder(tmp_path, every_frame=False)
    assert report.dataset == "reds"
    found = "\n".join(report.errors)
    assert "27 of 262 clips are missing: train/239, val/002" in found
    assert "REDSval4: 4 of 4 clips are missing" in found


def test_check_of_the_wrong_kind(tmp_path: Path):
    with pytest.raises(ConfigError, match="vimeo"):
        check_folder(tmp_path, "imagenet")
    with pytest.raises(DataError, match="no such folder"):
        check_folder(tmp_path / "nowhere")
    report = check_folder(tmp_path)
    assert report.errors == (f"{tmp_path}: no clips in it; a clip is a video file or a folder of images",)
    assert check_folder(tmp_path, "vimeo").errors[0].endswith("comes with Vimeo-90K septuplets, training")
    assert not check_folder(tmp_path, "spmcs").ok


@pytest.mark.parametrize(
    ("names", "dataset"),
    [
        (("train_sharp/000",), "reds"),
        (("GT/calendar", "GT/city"), "vid4"),
        (("archpeople/truth",), "udm10"),
        (("car05_001/truth",), "spmcs"),
        (("anything",), "folder"),
    ],
)
def test_datasets_are_told_apart(tmp_path: Path, names: tuple[str, ...], dataset: str):
    make_names(tmp_path, *names)
    assert guess_dataset(tmp_path) == dataset


def test_a_folder_of_photographs_is_told_apart(tmp_path: Path):
    make_folder(tmp_path / "photographs", 2)
    assert check_folder(tmp_path / "photographs").dataset == "stills"
