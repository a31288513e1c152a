"""Where the clips of the known datasets lie, and which of them belong to which split.

Splits are text files beside this one: a clip and its number of frames per line. `docs/datasets.md` says where the
datasets come from and what their folders look like.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from skipvsr.data.clips import Clip, count_frames, image_files
from skipvsr.errors import ConfigError, DataError
from skipvsr.video.files import is_image, is_video, natural_key

LRKind = Literal["bi", "bd"]

# Merged copies of REDS number the 30 official validation clips on after the 240 training clips.
_REDS_TRAIN_CLIPS = 240


@dataclass(frozen=True)
class Dataset:
    """A dataset's clips and the places in which they may lie.

    Each place is a path under the dataset's root with {clip} for the clip's name; the first that exists is taken.
    {part} is "train" or "val" and {merged} the clip's number in merged copies of REDS. `split` is a file of
    data/splits, a list that comes with the dataset itself (`own_list`), or neither: every folder that fits.
    """

    title: str
    gt: tuple[str, ...]
    bi: tuple[str, ...] = ()
    bd: tuple[str, ...] = ()
    split: str | None = None
    own_list: tuple[str, ...] = ()
    clips: int | None = None
    frames: int | None = None


_REDS_HIGH = (
    "{part}/{part}_sharp/{clip}",
    "{part}_sharp/{clip}",
    "train_sharp/{merged}",
    "trainval_sharp/{merged}",
)
_REDS_BI = tuple(place.replace("_sharp/", "_sharp_bicubic/X4/") for place in _REDS_HIGH)
_GT = ("GT/{clip}", "{clip}/truth", "{clip}")
_BI = ("BIx4/{clip}", "LR_bicubic/X4/{clip}", "{clip}/input4")
_BD = ("BDx4/{clip}", "{clip}/blur4")

DATASETS: dict[str, Dataset] = {
    "reds-train": Dataset("REDS, without REDS4 and REDSval4", _REDS_HIGH, _REDS_BI, split="reds_train.txt"),
    "reds4": Dataset(
        "REDS4", (*_REDS_HIGH, "GT/{clip}"), (*_REDS_BI, "sharp_bicubic/{clip}", "BIx4/{clip}"), split="reds4.txt"
    ),
    "reds-val4": Dataset("REDSval4", _REDS_HIGH, _REDS_BI, split="reds_val4.txt"),
    "vimeo-train": Dataset(
        "Vimeo-90K septuplets, training",
        ("sequences/{clip}", "GT/{clip}"),
        ("BIx4/{clip}",),
        ("BDx4/{clip}",),
        own_list=("sep_trainlist.txt", "meta_info_Vimeo90K_train_GT.txt"),
        frames=7,
    ),
    "vimeo-test": Dataset(
        "Vimeo-90K-T",
        ("sequences/{clip}", "GT/{clip}"),
        ("BIx4/{clip}",),
        ("BDx4/{clip}",),
        own_list=("sep_testlist.txt", "meta_info_Vimeo90K_test_GT.txt"),
        frames=7,
    ),
    "vid4": Dataset("Vid4", _GT, _BI, _BD, split="vid4.txt"),
    "udm10": Dataset("UDM10", _GT, _BI, _BD, clips=10, frames=32),
    "spmcs": Dataset("SPMCS", _GT, _BI, _BD, clips=30, frames=31),
}
KINDS = (*DATASETS, "folder", "stills")

# Where `folder` looks for clips and for their LR versions, beside the folder itself.
HIGH_FOLDERS = ("GT", "HR")
LOW_FOLDERS: dict[LRKind, tuple[str, ...]] = {"bi": ("BIx4", "LR"), "bd": ("BDx4", "LR")}


@dataclass(frozen=True)
class SplitLine:
    """One clip of a split: its part ("train" or "val" of REDS, else ""), its name and its number of frames."""

    part: str
    clip: str
    frames: int | None

    @property
    def name(self) -> str:
        return f"{self.part}/{self.clip}" if self.part else self.clip

    def place(self, template: str) -> str:
        merged = f"{int(self.clip) + _REDS_TRAIN_CLIPS:03d}" if self.part == "val" else self.clip
        return template.format(part=self.part, clip=self.clip, merged=merged)


def find_clips(kind: str, root: Path | str, *, lr: LRKind | None = None) -> list[Clip]:
    """The clips of a dataset, in the order of its split.

    Args:
        kind: a name of `DATASETS`, "folder" (any folder of clips, each a folder of images or a video file) or
            "stills" (a folder of photographs, each a clip of one frame).
        root: the dataset's folder.
        lr: attach the dataset's own LR frames of this kind; None leaves LR to a degradation.

    Raises:
        ConfigError: an unknown kind.
        DataError: a missing or empty folder, a clip of the split that is not there, LR frames that are not there.
    """
    root = Path(root)
    if kind not in KINDS:
        raise ConfigError(f"dataset is {kind!r}; it must be one of {', '.join(KINDS)}")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; see docs/datasets.md for where {kind} comes from")
    if kind == "stills":
        return _find_stills(root)
    if kind == "folder":
        return _find_folder(root, lr)
    dataset = DATASETS[kind]
    lines = split_lines(dataset, root)
    clips = [_find_one(dataset, line, root, lr) for line in lines]
    if not clips:
        raise DataError(f"{root}: no clip of {dataset.title} in it; it looks for {' or '.join(dataset.gt)}")
    return clips


def split_lines(dataset: Dataset, root: Path) -> list[SplitLine]:
    """What the dataset's split asks for under this root: a committed list, the dataset's own list, or what is there."""
    if dataset.split:
        return read_split(dataset.split)
    if dataset.own_list:
        own = next((root / name for name in dataset.own_list if (root / name).is_file()), None)
        if own is None:
            raise DataError(f"{root}: {dataset.own_list[0]} is not in it; it comes with {dataset.title}")
        return _parse_split(own.read_text(), dataset.frames)
    for template in dataset.gt:
        before, _, after = template.partition("{clip}")
        base = root / before
        folders = sorted(base.iterdir(), key=natural_key) if base.is_dir() else []
        found = [path.name for path in folders if image_files(path / after.strip("/"))]
        if found:
            return [SplitLine("", name, dataset.frames) for name in found]
    return []


def read_split(name: str) -> list[SplitLine]:
    """The lines of a committed split, such as "reds4.txt"."""
    return _parse_split((files("skipvsr.data") / "splits" / name).read_text(), None)


def _parse_split(text: str, frames: int | None) -> list[SplitLine]:
    """Lines "clip", "clip frames ..." or "part:clip frames ..."; what follows frames or # is passed over."""
    lines = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words:
            part, _, clip = words[0].rpartition(":")
            lines.append(SplitLine(part, clip, int(words[1]) if len(words) > 1 else frames))
    return lines


def _find_one(dataset: Dataset, line: SplitLine, root: Path, lr: LRKind | None) -> Clip:
    gt = first_place(dataset.gt, line, root)
    if gt is None:
        wanted = " or ".join(line.place(template) for template in dataset.gt)
        raise DataError(f"{root}: clip {line.name} of {dataset.title} is not there; it looks for {wanted}")
    if lr is None:
        return Clip(line.name, gt, line.frames or count_frames(gt))
    templates = dataset.bi if lr == "bi" else dataset.bd
    found = first_place(templates, line, root)
    if found is None:
        wanted = " or ".join(line.place(template) for template in templates) or "none exist"
        raise DataError(f"{root}: clip {line.name} of {dataset.title} has no LR frames {lr!r}; it looks for {wanted}")
    return Clip(line.name, gt, line.frames or count_frames(gt), found)


def first_place(templates: tuple[str, ...], line: SplitLine, root: Path) -> Path | None:
    """The first of the places under root in which this clip lies; None if it is in none."""
    places = (root / line.place(template) for template in templates)
    return next((place for place in places if place.is_dir()), None)


def _find_stills(root: Path) -> list[Clip]:
    stills = [Clip(path.name, path, 1) for path in image_files(root)]
    if not stills:
        raise DataError(f"{root}: no photographs in it; stills are image files such as .jpg or .png, not in subfolders")
    return stills


def clip_sources(root: Path) -> list[Path]:
    """The videos and folders of images of a folder of clips, in natural order: those in GT or HR, if there is one.

    Raises:
        DataError: there are none, or two would have the same name.
    """
    base = next((root / name for name in HIGH_FOLDERS if (root / name).is_dir()), root)
    sources = [path for path in sorted(base.iterdir(), key=natural_key) if is_video(path) or image_files(path)]
    if not sources:
        loose = any(is_image(path) for path in base.iterdir())
        hint = "; loose images are a clip only inside a folder of their own" if loose else _hint_below(base)
        raise DataError(f"{base}: no clips in it; a clip is a video file or a folder of images{hint}")
    names = [source_name(source) for source in sources]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{base}: two clips are called {twice}; rename one")
    return sources


def _hint_below(folder: Path) -> str:
    """Which folders below hold clips, at most two levels down, for a message; nothing where none does."""
    below = [
        path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern), key=natural_key) if path.is_dir()
    ]
    found = [
        str(path)
        for path in below
        if not path.name.startswith(".") and any(is_video(entry) or image_files(entry) for entry in path.iterdir())
    ]
    which = "that folder" if len(found) == 1 else "one of these"
    return f"; there are clips in {', '.join(found[:3])}: give {which}" if found else ""


def source_name(source: Path) -> str:
    """How the clip of a video file or a folder is called."""
    return source.stem if is_video(source) else source.name


def lr_source(root: Path, source: Path, lr: LRKind) -> Path | None:
    """Where a folder of clips keeps the LR frames of one of its clips; None where it does not."""
    return next((place for name in LOW_FOLDERS[lr] if (place := root / name / source.name).exists()), None)


def _find_folder(root: Path, lr: LRKind | None) -> list[Clip]:
    clips = []
    for source in clip_sources(root):
        found = None if lr is None else lr_source(root, source, lr)
        if lr is not None and found is None:
            wanted = " or ".join(f"{name}/{source.name}" for name in LOW_FOLDERS[lr])
            raise DataError(f"{root}: clip {source_name(source)} has no LR frames; it looks for {wanted}")
        clips.append(Clip(source_name(source), source, count_frames(source), found))
    return clips
