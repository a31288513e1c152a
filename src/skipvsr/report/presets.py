"""The sizes at which the paper is reproduced: networks, data, test sets."""

from __future__ import annotations

from dataclasses import dataclass

from skipvsr.errors import ConfigError
from skipvsr.training.settings import Network


@dataclass(frozen=True)
class Recipe:
    """Data that networks are trained on. A column of the tables shows the networks of one recipe.

    Args:
        name: in the names of networks of all recipes but the first ("backbone-vimeo-bd").
        kind, folder: of the training clips: of `find_clips`, and below the data folder.
        validation: kind and folder of the clips that training looks at.
        degradation: how LR frames are made.
        frames: frames of a training clip.
        mirror: append them in reverse, T -> 2T.
        stills: folder of photographs, below the data folder; empty: none.
    """

    name: str
    kind: str
    folder: str
    validation: tuple[str, str]
    degradation: str
    frames: int
    mirror: bool = False
    stills: str = ""


@dataclass(frozen=True)
class TestSet:
    """A column of the tables.

    Args:
        name: in tables.
        kind, folder: of its clips: of `find_clips`, and below the data folder.
        recipe: name of the recipe that its networks are trained by, and whose degradation it has.
    """

    name: str
    kind: str
    folder: str
    recipe: str


@dataclass(frozen=True)
class Sizes:
    """How much is trained.

    Args:
        flow: steps of the flow stage; 0: a pre-trained SPyNet is expected as spynet.pth in the data folder, and frozen.
        backbone: steps of the backbone stage.
        skip: steps of the skip stage of each variant, and of each static network.
        router: steps of our router's own stage.
        batch: clips in a batch of the backbone stage.
        skip_batch: clips in a batch of the skip stage.
        crop: LR pixels a side of training crops.
        learning_rate: of the backbone stage; static networks have half of it.
        skip_learning_rate: of the skip stage.
        validate_every: steps between validations, of which the best model counts; more than there are: the last model counts,
            as it must where the validation clips are those that are tested.
        checkpoint_every: steps.
        warmup: steps of linear rise of the learning rate, at most a tenth of all.
        clip_norm: largest norm of the gradient; 0: no clipping.
    """

    flow: int
    backbone: int
    skip: int
    router: int
    batch: int
    skip_batch: int
    crop: int
    learning_rate: float
    skip_learning_rate: float
    validate_every: int = 10**9
    checkpoint_every: int = 100
    warmup: int = 50
    clip_norm: float = 1.0


@dataclass(frozen=True)
class Preset:
    """A reproduction.

    Args:
        name: "paper", "mini" or "smoke".
        network: shape of the network.
        sizes: how much is trained.
        recipes: what on; the first has no suffix in the names of networks.
        tests: the test sets; tables have a column for each, figures and ablations the first.
        intervals: blocks between target layers, for Table 6; the last one is the method's own.
        static: numbers of blocks of the static networks.
        tile_px: side of the tiles that the paper's generator is trained with, and of the patches that it is tested on.
        seeds: of the trainings of the main variants; other variants have the first.
        test_frames: frames tested of each clip, from the first; 0: all.
        shown: index of the clip of the first test set that figures show.
    """

    name: str
    network: Network
    sizes: Sizes
    recipes: tuple[Recipe, ...]
    tests: tuple[TestSet, ...]
    intervals: tuple[int, int, int]
    static: tuple[int, ...]
    tile_px: int = 48
    seeds: tuple[int, ...] = (0,)
    test_frames: int = 0
    shown: int = 0

    def recipe(self, name: str) -> Recipe:
        """A recipe by name."""
        return next(recipe for recipe in self.recipes if recipe.name == name)


def _paper() -> Preset:
    """The paper's protocol (4.1), as in configs/paper. It does not state numbers of steps."""
    return Preset(
        "paper", Network(64, 30, "spynet", "basicvsr"),
        Sizes(
            flow=0, backbone=300_000, skip=100_000, router=5_000, batch=16, skip_batch=16, crop=48, learning_rate=2e-4,
            skip_learning_rate=1e-4, validate_every=5_000, checkpoint_every=5_000, warmup=0, clip_norm=0.0,
        ),
        recipes=(
            Recipe("reds-bi", "reds-train", "REDS", ("reds-val4", "REDS"), "bi", 15),
            Recipe("vimeo-bi", "vimeo-train", "Vimeo-90K", ("vid4", "Vid4"), "bi", 7, mirror=True),
            Recipe("vimeo-bd", "vimeo-train", "Vimeo-90K", ("vid4", "Vid4"), "bd", 7, mirror=True),
        ),
        tests=(
            TestSet("REDS4 BI", "reds4", "REDS", "reds-bi"), TestSet("Vimeo-90K-T BI", "vimeo-test", "Vimeo-90K", "vimeo-bi"),
            TestSet("Vid4 BI", "vid4", "Vid4", "vimeo-bi"), TestSet("UDM10 BD", "udm10", "UDM10", "vimeo-bd"),
            TestSet("Vimeo-90K-T BD", "vimeo-test", "Vimeo-90K", "vimeo-bd"), TestSet("Vid4 BD", "vid4", "Vid4", "vimeo-bd"),
        ),
        intervals=(15, 10, 6), static=(8, 15, 22),
    )  # fmt: skip


def _mini() -> Preset:
    """As deep as it must be to show something, and narrow: one night on two cores, on the project's own clips."""
    return Preset(
        "mini", Network(16, 16, "light", "light"),
        Sizes(
            flow=1500, backbone=2500, skip=1000, router=200, batch=4, skip_batch=2, crop=48, learning_rate=1e-3,
            skip_learning_rate=3e-4,
        ),
        recipes=(Recipe("bi", "folder", "train/clips", ("folder", "val"), "bi", 5, stills="train/stills"),),
        tests=(TestSet("val BI", "folder", "val", "bi"),),
        intervals=(16, 8, 4), static=(4, 8, 12), seeds=(0, 1, 2), test_frames=30, shown=5,
    )  # fmt: skip


def _smoke() -> Preset:
    """Every part once, in about a minute; its numbers mean nothing."""
    return Preset(
        "smoke", Network(8, 4, "light", "light"),
        Sizes(
            flow=1, backbone=1, skip=1, router=1, batch=1, skip_batch=1, crop=24, learning_rate=8e-4,
            skip_learning_rate=4e-4,
        ),
        recipes=(Recipe("bi", "folder", ".", ("folder", "."), "bi", 3),),
        tests=(TestSet("test BI", "folder", ".", "bi"),),
        intervals=(4, 3, 2), static=(2,), tile_px=24, test_frames=3,
    )  # fmt: skip


PRESETS = {preset.name: preset for preset in (_paper(), _mini(), _smoke())}


def find_preset(name: str) -> Preset:
    """A preset by name. Raises ConfigError."""
    if name not in PRESETS:
        raise ConfigError(f"the preset is {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
