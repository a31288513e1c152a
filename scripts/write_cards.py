"""Side-by-side pictures of the packaged models, and their place in the model cards.

    python scripts/write_cards.py [NAME...]        # all packaged models, or some

Run it whenever weights were packaged: scripts/package_model.py writes cards without pictures. Writes
docs/figures/cards/NAME-DEGRADATION.webp, and in src/skipvsr/weights/NAME/README.md what stands from `<!-- pictures -->` to
`<!-- end -->`.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.data.datasets import find_clips
from skipvsr.data.degradations import Degradation
from skipvsr.data.pairs import lr_gt_clip
from skipvsr.evaluation.metrics import psnr_y, quantize
from skipvsr.models.resize import bicubic_upsample
from skipvsr.models.vsr import SkipVSR

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "src" / "skipvsr" / "weights"
FIGURES = ROOT / "docs" / "figures" / "cards"
WORDS = {"bi": "clean", "bd": "blurred first (BD)", "h264-23": "H.264 at CRF 23", "h264-28": "H.264 at CRF 28"}
KINDS: tuple[Degradation, ...] = ("bi", "h264-23", "h264-28")
BLURRED: tuple[Degradation, ...] = ("bd", "bi")
FRAMES, FRAME = 15, 10
WIDTH, HEIGHT, GAP, ENLARGED = 192, 128, 4, 2
MAX_BYTES = 150_000
_SECTION = re.compile(r"\n*<!-- pictures -->\n.*?<!-- end -->\n*", re.DOTALL)


@dataclass(frozen=True)
class Scene:
    """Where to look: the top left corner of the crop, in pixels of the ground truth."""

    clip: str
    top: int
    left: int


SCENES = (Scene("horsejump", 36, 186), Scene("temple", 272, 170))


@dataclass(frozen=True)
class Shown:
    """A scene's crops, each (3, H, W) in [0, 1] of 8-bit values: bicubic, ours, ground truth."""

    scene: Scene
    crops: tuple[Tensor, Tensor, Tensor]

    @property
    def gain(self) -> str:
        """Luma PSNR of the crop, of bicubic and of ours."""
        truth = self.crops[2]
        bicubic, ours = (psnr_y(crop, truth).item() for crop in self.crops[:2])
        return f"`{self.scene.clip}` {bicubic:.1f} and {ours:.1f} dB"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures of model cards.")
    parser.add_argument("names", nargs="*", default=sorted(path.name for path in WEIGHTS.iterdir() if path.is_dir()))
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data" / "val", help="the clips (%(default)s)"
    )
    args = parser.parse_args()
    for name in args.names:
        network = load_model(name)
        shown: dict[Degradation, list[Shown]] = {}
        for kind in BLURRED if name.endswith("-bd") else KINDS:
            shown[kind] = [show(network, scene, kind, args.data) for scene in SCENES]
        for kind, rows in shown.items():
            print(f"{save(draw(rows), figure(name, kind)):,} bytes: {figure(name, kind)}")
        card = WEIGHTS / name / "README.md"
        card.write_text(with_pictures(card.read_text(), section(name, shown)))


def figure(name: str, kind: Degradation) -> Path:
    """The file of a picture."""
    return FIGURES / f"{name}-{kind}.webp"


@torch.inference_mode()
def show(network: SkipVSR, scene: Scene, kind: Degradation, data: Path) -> Shown:
    """Upscale the first frames of a clip, whole, and cut the crop out of one."""
    clip = next(clip for clip in find_clips("folder", data) if clip.name == scene.clip)
    scale = network.config.scale
    lr, gt = lr_gt_clip(clip, kind, FRAMES, scale=scale)
    frames = (bicubic_upsample(lr[FRAME], scale), network(lr[None])[0, FRAME], gt[FRAME])
    rows, columns = slice(scene.top, scene.top + HEIGHT), slice(scene.left, scene.left + WIDTH)
    bicubic, ours, truth = (quantize(frame)[:, rows, columns] for frame in frames)
    return Shown(scene, (bicubic, ours, truth))


def draw(rows: list[Shown]) -> np.ndarray:
    """All crops, a row for each scene, every pixel enlarged to a square: (H, W, 3) uint8 on white."""
    height = len(rows) * (ENLARGED * HEIGHT + GAP) - GAP
    width = 3 * (ENLARGED * WIDTH + GAP) - GAP
    page = np.full((height, width, 3), 255, np.uint8)
    for row, shown in enumerate(rows):
        for column, crop in enumerate(shown.crops):
            pixels = (crop * 255).round().byte().permute(1, 2, 0).numpy().repeat(ENLARGED, 0).repeat(ENLARGED, 1)
            top, left = row * (ENLARGED * HEIGHT + GAP), column * (ENLARGED * WIDTH + GAP)
            page[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return page


def save(page: np.ndarray, path: Path) -> int:
    """Write a WebP in the best quality that is small enough, and return its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(96, 40, -4):
        Image.fromarray(page).save(path, quality=quality, method=6)
        if path.stat().st_size <= MAX_BYTES:
            break
    return path.stat().st_size


def section(name: str, shown: dict[Degradation, list[Shown]]) -> str:
    """What the card says and shows."""
    clips = ", ".join(f"`{scene.clip}`" for scene in SCENES)
    lines = [
        "## Side by side", "",
        f"Left bicubic, in the middle `{name}`, right the ground truth; frame {FRAME} of {clips}, from which no training saw "
        f"anything; every pixel {ENLARGED} x {ENLARGED}. Luma PSNR is that of the crops, of bicubic and of `{name}`.", "",
    ]  # fmt: skip
    for kind, rows in shown.items():
        words = WORDS[kind]
        link = Path("../../../..") / figure(name, kind).relative_to(ROOT)
        gains = "; ".join(row.gain for row in rows)
        lines += [f"**{words}**: {gains}", "", f"![bicubic, {name} and ground truth, {words}]({link.as_posix()})", ""]
    return "\n".join(
        [*lines, f"Made by `python scripts/write_cards.py {name}`; the pictures are in the repository only."]
    )


def with_pictures(card: str, text: str) -> str:
    """The card with this section: in the place of an older one, or before what follows the scores, or at the end."""
    bare = _SECTION.sub("\n\n", card).rstrip("\n") + "\n"
    block = f"<!-- pictures -->\n{text}\n<!-- end -->\n"
    before, dial, after = bare.partition("## The dial\n")
    return f"{before.rstrip()}\n\n{block}" + (f"\n{dial}{after}" if dial else "")


if __name__ == "__main__":
    main()
