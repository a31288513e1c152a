"""What is in a data folder, what is missing, and what in it is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from skipvsr.data.clips import image_files, read_frames
from skipvsr.data.datasets import (
    DATASETS,
    KINDS,
    Dataset,
    LRKind,
    SplitLine,
    clip_sources,
    find_clips,
    first_place,
    lr_source,
    source_name,
    split_lines,
)
from skipvsr.data.decode import Stream, decode_all
from skipvsr.data.degradations import SCALE
from skipvsr.data.phase import detect_phase
from skipvsr.errors import ConfigError, DataError, ShapeError
from skipvsr.video.files import is_image, is_video

# Names that stand for all splits of one download.
FAMILIES = {"reds": ("reds-train", "reds4", "reds-val4"), "vimeo": ("vimeo-train", "vimeo-test")}
_LR_KINDS: tuple[LRKind, ...] = ("bi", "bd")
_NAMED = 6


@dataclass(frozen=True)
class CheckReport:
    """What `check_folder` found: facts to know, and errors to mend. `ok` if there are no errors."""

    root: Path
    dataset: str
    facts: tuple[str, ...]
    errors: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.errors

    @property
    def count(self) -> str:
        """The number of errors, in words."""
        return f"{len(self.errors)} error{'' if len(self.errors) == 1 else 's'}"

    def lines(self) -> list[str]:
        """The report as text, one finding a line."""
        verdict = "nothing wrong" if self.ok else self.count
        return [
            f"{self.root} as {self.dataset}: {verdict}",
            *(f"  {fact}" for fact in self.facts),
            *(f"  ERROR {error}" for error in self.errors),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


@dataclass(frozen=True)
class _Entry:
    """A clip to look at: where HR and LR lie, and how many frames it should have."""

    name: str
    gt: Path
    lr: dict[LRKind, Path]
    frames: int | None


@dataclass
class _Findings:
    """What has been found so far."""

    facts: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    frames: int = 0
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    phases: dict[tuple[LRKind, str], list[str]] = field(default_factory=dict)


def check_folder(
    root: Path | str,
    dataset: str | None = None,
    *,
    every_frame: bool = True,
    on_clip: Callable[[str], None] | None = None,
) -> CheckReport:
    """Look through a data folder and report everything that is wrong with it, not only the first error.

    Args:
        root: the folder.
        dataset: "reds" or "vimeo" (all their splits), a kind of `find_clips`, or None to tell by what is in it.
        every_frame: decode all frames; else only the first, middle and last of each folder of images.
        on_clip: called with the name of each clip before it is read.

    Raises:
        ConfigError: an unknown dataset.
        DataError: no such folder.
    """
    root = Path(root)
    if dataset is not None and dataset not in (*FAMILIES, *KINDS):
        raise ConfigError(f"dataset is {dataset!r}; it must be one of {', '.join((*FAMILIES, *KINDS))}")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; docs/datasets.md says where datasets come from")
    dataset = dataset or guess_dataset(root)
    findings = _Findings()
    try:
        if dataset in ("folder", "stills"):
            entries = _plain_entries(root, dataset)
        else:
            entries = [
                entry
                for name in FAMILIES.get(dataset, (dataset,))
                for entry in _dataset_entries(root, DATASETS[name], findings)
            ]
    except DataError as error:
        return CheckReport(root, dataset, (), (str(error),))
    for entry in entries:
        if on_clip is not None:
            on_clip(entry.name)
        _check_entry(entry, findings, every_frame)
    _sum_up(entries, findings)
    return CheckReport(root, dataset, tuple(findings.facts), tuple(findings.errors))


def guess_dataset(root: Path) -> str:
    """Which dataset a folder looks like: a key of FAMILIES or a kind of `find_clips`."""
    if any((root / name).is_dir() for name in ("train/train_sharp", "train_sharp", "trainval_sharp")):
        return "reds"
    if any((root / name).is_file() for name in (*DATASETS["vimeo-train"].own_list, *DATASETS["vimeo-test"].own_list)):
        return "vimeo"
    base = root / "GT" if (root / "GT").is_dir() else root
    names = {path.name for path in base.iterdir() if path.is_dir()}
    if {"calendar", "city", "foliage", "walk"} & names:
        return "vid4"
    if {"000", "011", "015", "020"} == names:
        return "reds4"
    if {"archpeople", "archwall", "polyflow"} & names:
        return "udm10"
    if any((base / name / "truth").is_dir() for name in names):
        return "spmcs"
    clips = any(is_video(path) or image_files(path) for path in base.iterdir())
    return "stills" if not clips and any(is_image(path) for path in base.iterdir()) else "folder"


def _plain_entries(root: Path, kind: str) -> list[_Entry]:
    if kind == "stills":
        return [_Entry(still.name, still.gt, {}, None) for still in find_clips(kind, root)]
    entries = []
    for source in clip_sources(root):
        lrs: dict[LRKind, Path] = {}
        for lr in _LR_KINDS:
            if (place := lr_source(root, source, lr)) is not None:
                lrs[lr] = place
        if len(set(lrs.values())) < len(lrs):  # a folder LR, of which kind nobody says
            del lrs["bd"]
        entries.append(_Entry(source_name(source), source, lrs, None))
    return entries


def _dataset_entries(root: Path, dataset: Dataset, findings: _Findings) -> list[_Entry]:
    """The clips of a split that are there; notes those that are not."""
    try:
        lines = split_lines(dataset, root)
    except DataError as error:
        findings.errors.append(str(error))
        return []
    entries, missing, without_lr = [], [], {lr: [] for lr in _LR_KINDS}
    for line in lines:
        gt = first_place(dataset.gt, line, root)
        if gt is None:
            missing.append(line)
            continue
        lrs: dict[LRKind, Path] = {}
        for lr in _LR_KINDS:
            place = first_place(dataset.bi if lr == "bi" else dataset.bd, line, root)
            if place is None:
                without_lr[lr].append(line.name)
            else:
                lrs[lr] = place
        entries.append(_Entry(line.name, gt, lrs, line.frames))
    findings.facts.append(f"{dataset.title}: {len(entries)} of {dataset.clips or len(lines)} clips")
    if missing:
        findings.errors.append(_missing_text(dataset, missing, len(lines)))
    elif dataset.clips is not None and len(lines) != dataset.clips:
        findings.errors.append(f"{dataset.title} has {dataset.clips} clips; there are {len(lines)}")
    for lr in _LR_KINDS:
        if 0 < len(without_lr[lr]) < len(entries):
            findings.errors.append(f"{dataset.title}: LR frames ({lr}) are missing for {_some(without_lr[lr])}")
        elif entries and not without_lr[lr]:
            findings.facts.append(f"{dataset.title}: has LR frames of its own ({lr})")
    return entries


def _missing_text(dataset: Dataset, missing: list[SplitLine], total: int) -> str:
    wanted = " or ".join(missing[0].place(template) for template in dataset.gt)
    return (
        f"{dataset.title}: {len(missing)} of {total} clips are missing: {_some([line.name for line in missing])}; "
        f"the first is looked for at {wanted}"
    )


def _check_entry(entry: _Entry, findings: _Findings, every_frame: bool) -> None:
    gt = decode_all(entry.gt, every_frame)
    findings.frames += gt.frames
    findings.errors += gt.errors
    if entry.frames is not None and gt.frames != entry.frames:
        findings.errors.append(f"{entry.gt}: {gt.frames} frames; there must be {entry.frames}")
    if len(gt.sizes) > 1:
        findings.errors.append(f"{entry.gt}: frames of several sizes: {_sizes(gt.sizes)}")
    for size in gt.sizes:
        findings.sizes[size] = findings.sizes.get(size, 0) + 1
    for lr, source in entry.lr.items():
        _check_lr(entry, gt, lr, source, findings, every_frame)


def _check_lr(entry: _Entry, gt: Stream, lr: LRKind, source: Path, findings: _Findings, every_frame: bool) -> None:
    """LR frames against their HR: as many, a quarter of the size, in the right phase."""
    stream = decode_all(source, every_frame)
    findings.errors += stream.errors
    if stream.frames != gt.frames:
        findings.errors.append(f"{source}: {stream.frames} LR frames for {gt.frames} HR frames")
    wanted = {(width // SCALE, height // SCALE) for width, height in gt.sizes}
    if set(stream.sizes) - wanted:
        findings.errors.append(
            f"{source}: LR is {_sizes(stream.sizes)}; HR is {_sizes(gt.sizes)}, 4 times {_sizes(wanted)}"
        )
        return
    if stream.errors or gt.errors or not min(stream.frames, gt.frames):
        return
    middle = min(stream.frames, gt.frames) // 2
    pair = [torch.from_numpy(read_frames(path, middle, 1)).permute(0, 3, 1, 2) / 255 for path in (entry.gt, source)]
    height, width = pair[1].shape[-2:]
    try:
        phase = detect_phase(pair[0][..., : SCALE * height, : SCALE * width], pair[1])
    except ShapeError:
        return  # too small to tell
    description = f"{entry.name}: {phase.describe()}"
    findings.phases.setdefault((lr, phase.name), []).append(description)


def _sum_up(entries: list[_Entry], findings: _Findings) -> None:
    findings.facts.append(f"{len(entries)} clips, {findings.frames} frames")
    sizes = sorted(findings.sizes.items(), key=lambda item: -item[1])
    for (width, height), clips in sizes[:_NAMED]:
        cut = width % SCALE or height % SCALE
        note = f"; cut to {width // SCALE * SCALE}x{height // SCALE * SCALE} when read" if cut else ""
        findings.facts.append(f"{width}x{height}: {clips} clips{note}")
    if len(sizes) > _NAMED:
        findings.facts.append(f"{len(sizes) - _NAMED} more sizes: {sum(clips for _, clips in sizes[_NAMED:])} clips")
    for (lr, name), described in findings.phases.items():
        if name in ("centred", "undetermined"):
            what = "sits where it should (4j + 1.5)" if name == "centred" else "shows too little to tell its phase"
            findings.facts.append(f"LR ({lr}) of {len(described)} clips {what}")
        else:
            more = f" (and {len(described) - 1} more clips)" if len(described) > 1 else ""
            findings.errors.append(f"LR ({lr}) of {described[0]}{more}")


def _sizes(sizes: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{width}x{height}" for width, height in sizes) or "nothing"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
