"""What the training loop asks of a stage, and what stages have in common.

Each kind of stage is one module with two classes: what it is told (a frozen dataclass, read from TOML; `Stage`), and what it
minimises (a module; `Objective`). flow, imitation, backbone, skip, paper_skip and router are all there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

from torch import Tensor, nn

from skipvsr.checkpoints.foreign import read_flow_weights
from skipvsr.checkpoints.load import load_model
from skipvsr.data.crops import Batch, CropSampler, FlowBatch
from skipvsr.errors import ConfigError
from skipvsr.evaluation.metrics import psnr, psnr_y, quantize
from skipvsr.models.router import Router
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.settings import Optimisation

AnyBatch: TypeAlias = Batch | FlowBatch
Draw: TypeAlias = Callable[[int, range], AnyBatch]
Terms: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class CropShape:
    """What a training clip of a stage is.

    Args:
        frames: read of each clip.
        mirror: append them in reverse, T -> 2T.
        stills_ratio: ratio of clips made from photographs, where there are any; None: as the run's data say.
    """

    frames: int
    mirror: bool = False
    stills_ratio: float | None = None


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with the same learning rate and start.

    Args:
        parameters: of the network; those without a gradient are left out.
        scale: their learning rate over that of the stage.
        frozen_steps: steps at the start in which they do not learn.
    """

    parameters: Sequence[nn.Parameter]
    scale: float = 1.0
    frozen_steps: int = 0

    def for_adam(self) -> dict[str, Any]:
        """As a parameter group of torch's."""
        trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        return {"params": trained, "scale": self.scale, "frozen_steps": self.frozen_steps}


@dataclass(frozen=True)
class Measured:
    """What validation found on one clip.

    Args:
        numbers: measures by name.
        image: a frame of the result, (3, H, W), for the log.
    """

    numbers: dict[str, float]
    image: Tensor | None = None


class Objective(Protocol):
    """What a stage minimises: a module from a batch to a loss, so that a wrapper for many processes sees one `forward`."""

    def __call__(self, batch: Any) -> Terms:
        """The loss under "loss", and its parts for the log."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def fit(self, batch: Any) -> None:
        """Look at a batch once, before the first step; the same batch on every process."""
        ...

    def log_terms(self, means: dict[str, float]) -> dict[str, float]:
        """What the log says of the means of the terms since its last line."""
        ...

    def measure(self, network: SkipVSR, lr: Tensor, gt: Tensor) -> Measured:
        """Validate the weights that would be saved on a clip: lr (T, 3, H, W) and gt (T, 3, 4H, 4W) in [0, 1]."""
        ...

    def summarise(self, means: dict[str, float]) -> tuple[float, dict[str, float]]:
        """The score, which is to be maximised, and the measures to log, from the means over clips."""
        ...


class PlainObjective(nn.Module):
    """An `Objective` but for its loss: nothing to fit, terms logged as they are, validated by the PSNR of the whole network."""

    def fit(self, batch: Any) -> None:
        """Nothing to fit."""

    def log_terms(self, means: dict[str, float]) -> dict[str, float]:
        """As they are."""
        return means

    def measure(self, network: SkipVSR, lr: Tensor, gt: Tensor) -> Measured:
        """PSNR of the network with all blocks."""
        return measure_full(network, lr, gt)

    def summarise(self, means: dict[str, float]) -> tuple[float, dict[str, float]]:
        """Luma PSNR, with that at budgets where it was measured."""
        return mean_luma_psnr(means), means


class Stage(Protocol):
    """The configuration of a stage, and all that differs between stages; `score_unit` is the unit of its validation score."""

    score_unit: ClassVar[str]

    @property
    def kind(self) -> str: ...

    @property
    def optimisation(self) -> Optimisation: ...

    def crops(self) -> CropShape: ...

    def draw(self, sampler: CropSampler) -> Draw:
        """Which batches it takes of the sampler."""
        ...

    def start(self, network: SkipVSR) -> SkipVSR:
        """The network that it trains: what the stages before left, or what it is told to start from."""
        ...

    def objective(self, network: SkipVSR) -> Objective: ...

    def groups(self, network: SkipVSR) -> list[ParameterGroup]: ...


def initial_network(network: SkipVSR, init: str, router: Router | None = None) -> SkipVSR:
    """What a stage starts from. Lean parts are left out, because they would not fit what it makes of the network.

    Args:
        network: what the stages before left.
        init: a model that takes its place; none where empty.
        router: the kind that it gets, new, unless it has one; None: what it has.

    Raises:
        ConfigError: `init` is a network of another shape; of one with more blocks, the first are taken; one with fewer blocks
            or channels gets more, which add nothing at first; of one for another scale, all but its reconstruction is taken; of
            "light" flow, where the network has "half", all but the finest level.
        ModelError, CheckpointError: `init` cannot be read.
    """
    network = named_network(network, init) if init else network
    if network.lean is not None:
        network = network.with_lean(0)
    return network if router in (None, network.config.router) else network.with_router(router)


def named_network(network: SkipVSR, init: str) -> SkipVSR:
    """The model that `init` names, in the shape of the network, with the lean parts that it has.

    Raises:
        ConfigError, ModelError, CheckpointError: as for `initial_network`.
    """
    loaded = load_model(init)
    if loaded.config.channels < network.config.channels:
        loaded = loaded.widened(network.config.channels)
    if loaded.config.blocks > network.config.blocks:
        loaded = loaded.shortened(network.config.blocks)
    elif loaded.config.blocks < network.config.blocks:
        loaded = loaded.lengthened(network.config.blocks)
    if (loaded.config.flow, network.config.flow) == ("light", "half"):
        loaded = loaded.with_half_flow()
    if loaded.config.scale != network.config.scale:
        loaded = loaded.with_scale(network.config.scale)
    found, wanted = (model.with_router("none").with_lean(0).config for model in (loaded, network))
    if found != wanted:
        named, trained = asdict(found), asdict(wanted)
        differing = [name for name in named if named[name] != trained[name]]
        raise ConfigError(
            f"{init} has {_listed(named, differing)}, and the network of this run {_listed(trained, differing)}: init takes a "
            "model of as many channels or fewer, and of the same parts; change [network], or name another model"
        )
    return loaded


def _listed(values: dict[str, object], names: list[str]) -> str:
    return ", ".join(f"{name} {values[name]}" for name in names)


def import_flow(network: SkipVSR, path: str) -> None:
    """Replace the flow network's weights by those of a SPyNet checkpoint (BasicSR's or mmagic's layout).

    Raises:
        ConfigError: the network's flow is not SPyNet.
        CheckpointError: the file cannot be read, or is not SPyNet.
    """
    try:
        network.flow.load_state_dict(read_flow_weights(Path(path)))
    except RuntimeError as error:
        raise ConfigError(f"{path} is SPyNet; it fits networks with flow = 'spynet' only") from error


def train_all(network: SkipVSR, flow_learning_rate_scale: float) -> SkipVSR:
    """Let everything learn, but for the flow network where its learning rate is 0."""
    network.requires_grad_(True)
    network.flow.requires_grad_(flow_learning_rate_scale > 0)
    return network


def network_groups(network: SkipVSR, flow: ParameterGroup, router_scale: float = 1.0) -> list[ParameterGroup]:
    """The flow network, the router and the rest, each with its learning rate."""
    router = [] if network.router is None else list(network.router.parameters())
    apart = {id(parameter) for parameter in (*flow.parameters, *router)}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in apart]
    return [flow, ParameterGroup(router, router_scale), ParameterGroup(rest)]


def measure_full(network: SkipVSR, lr: Tensor, gt: Tensor) -> Measured:
    """PSNR in dB of the network with all blocks, of luma and of RGB, and its middle frame."""
    output = network(lr[None])[0]
    numbers = {
        "psnr_y": psnr_y(output, gt).mean().item(),
        "psnr_rgb": psnr(quantize(output), gt, 1.0).mean().item(),
    }
    return Measured(numbers, output[len(output) // 2].clamp(0, 1).cpu())


def mean_luma_psnr(means: dict[str, float]) -> float:
    """The mean of all measures of luma PSNR: of the full network, and of what runs at budgets."""
    found = [value for name, value in means.items() if name.startswith("psnr_y")]
    return sum(found) / len(found)
