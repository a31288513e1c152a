"""What teaches our router, against plain transcriptions of the formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from skipvsr.data.crops import Batch
from skipvsr.evaluation.oracle import OracleGains
from skipvsr.inference import masked
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.config import VSRConfig
from skipvsr.models.router import GainRouter
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import ask, backward_first
from skipvsr.routing.policies import Decide, TrunkStep
from skipvsr.training.router import RouterObjective, RouterStage
from skipvsr.training.routing import ExploringPolicy, excess, gain_loss
from skipvsr.training.settings import Optimisation
from skipvsr.training.skip import GainObjective
from tests.conftest import make_network
from tests.test_training import only, smoke


def tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).float()


def make_batch(seeds: tuple[int, ...] = (5, 6), frames: int = 3) -> Batch:
    return Batch(
        tensor(len(seeds), frames, 3, 16, 16), tensor(len(seeds), frames, 3, 64, 64, seed=1), ("a",) * len(seeds), seeds
    )


def test_what_skipping_cost():
    """Equal to a plain sum over tiles, frames and skipped blocks."""
    network = make_network(VSRConfig(4, 3, "light", "light", "gain"))
    assert isinstance(network.router, GainRouter)
    batch, grid = make_batch(), TileGrid.of(16, 16, 8)
    policy = ExploringPolicy(network.router, batch.seeds, 0.2)
    with torch.no_grad():
        full = network(batch.lr)
        small = network(batch.lr, RoutedTrunks(policy, 8, masked.run_blocks))
    assert [direction for direction, _, _ in policy.asked] == ["backward"] * 3 + ["forward"] * 3
    total, count = 0.0, 0
    for t in range(3):
        backward, forward = policy.asked[2 - t], policy.asked[3 + t]
        for n in range(2):
            for row in range(2):
                for column in range(2):
                    place = (slice(32 * row, 32 * row + 32), slice(32 * column, 32 * column + 32))
                    errors = [
                        ((side[n, t][:, *place] - batch.gt[n, t][:, *place]).double() ** 2).mean().item()
                        for side in (small, full)
                    ]
                    promised = sum(
                        gains[n, depth[n, row, column] :, row, column].sum().item()
                        for _, gains, depth in (backward, forward)
                    )
                    total += (promised - 1e4 * (errors[0] - errors[1])) ** 2 / (promised + 0.1)
                    count += 1
    assert gain_loss(policy, full, small, batch.gt, grid).item() == pytest.approx(total / count, rel=1e-3)
    assert excess(batch.gt, batch.gt, grid).abs().max() == 0


def explore(seeds: tuple[int, ...], batch: Batch, least_backward: int = 0) -> list[Tensor]:
    network = make_network(VSRConfig(4, 3, "light", "light", "gain"))
    assert isinstance(network.router, GainRouter)
    policy = ExploringPolicy(network.router, seeds, 0.2, least_backward)
    with torch.no_grad():
        network(batch.lr, RoutedTrunks(policy, 4, masked.run_blocks))
    return [depth for _, _, depth in policy.asked]


def test_exploration_follows_from_the_seeds_alone():
    """Each clip's draws are its own, so that processes and parts of a batch change nothing."""
    both = explore((5, 6), make_batch())
    again = explore((5, 6), make_batch())
    assert all(torch.equal(one, two) for one, two in zip(both, again, strict=True))
    whole = make_batch()
    alone = explore((6,), Batch(whole.lr[1:], whole.gt[1:], ("a",), (6,)))
    assert all(torch.equal(one[1:], two) for one, two in zip(both, alone, strict=True))
    others = explore((5, 7), make_batch())
    assert not all(torch.equal(one[1], two[1]) for one, two in zip(both, others, strict=True))


def test_exploration_where_the_backward_trunk_yields_first():
    """Each clip's backward trunk has one depth everywhere, that of its budget; forward tiles differ, and spend the rest."""
    seeds = tuple(range(40, 60))
    divided = explore(seeds, make_batch(seeds), least_backward=1)
    backward, forward = divided[:3], divided[3:]
    depths = {tuple(depth.flatten(1)[:, 0].tolist()) for depth in backward}
    assert len(depths) == 1  # the same in every frame
    (chosen,) = depths
    assert all(torch.equal(depth, torch.tensor(chosen).view(-1, 1, 1).expand_as(depth)) for depth in backward)
    assert set(chosen) == {0, 1, 2}  # of 3: 0 below a third, 2 from 5/6 on
    for seed, depth in zip(seeds, chosen, strict=True):
        budget = 0.2 + 0.8 * torch.rand((), generator=torch.Generator().manual_seed(seed)).item()
        assert depth == backward_first(budget, 3, 1)[0]
    assert any(depth.flatten(1).min(1).values.ne(depth.flatten(1).max(1).values).any() for depth in forward)
    evenly = explore(seeds, make_batch(seeds))
    assert any(depth.flatten(1).min(1).values.ne(depth.flatten(1).max(1).values).any() for depth in evenly[:3])


def stage(tmp: Path, *overrides: str):
    return only(smoke(tmp, *overrides), "skip").stages[0]


def gradients(network: SkipVSR) -> dict[str, bool]:
    """Which parts have a gradient."""
    found: dict[str, bool] = {}
    for name, parameter in network.named_parameters():
        part = name.split(".")[0]
        found[part] = found.get(part, False) or (parameter.grad is not None and bool(parameter.grad.any()))
    return found


def test_the_gain_objective_teaches_everything_but_the_flow(tmp_path: Path):
    network = make_network(VSRConfig(4, 3, "light", "light", "gain"))
    objective = GainObjective(network, stage(tmp_path))  # pyright: ignore[reportArgumentType]
    terms = objective(make_batch())
    assert set(terms) == {"loss", "full", "small", "distillation", "router"}
    terms["loss"].backward()
    assert gradients(network) == {
        "flow": False, "backward_trunk": True, "forward_trunk": True, "reconstruction": True, "router": True,
    }  # fmt: skip


def test_the_router_stage_teaches_the_router_alone():
    """Its loss is that of the oracle's gains at every step, on the states that its own choices led to."""
    network = make_network(VSRConfig(6, 3, "light", "light", "gain"), seed=1)
    stage = RouterStage("router", Optimisation(1, 2, 16, 1e-3), frames=3, tile_px=8)
    batch = make_batch()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    objective = RouterObjective(network, stage)
    loss = objective(batch)["loss"]
    loss.backward()
    learnt = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert learnt == {name for name in before if name.startswith("router.")}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    assert isinstance(network.router, GainRouter)
    oracle = OracleGains(network, batch.lr, batch.gt)
    policy = ExploringPolicy(network.router, batch.seeds, stage.min_budget)
    found: list[Tensor] = []

    def spy(step: TrunkStep) -> Decide:
        truth = oracle(step) / 1e-4
        gains = ask(network.router, step)  # pyright: ignore[reportArgumentType]
        found.append(((gains - truth) ** 2 / (gains + 0.1)).mean())
        return policy(step)

    with torch.no_grad():
        network(batch.lr, RoutedTrunks(spy, 8, masked.run_blocks))
    assert loss.item() == pytest.approx(torch.stack(found).mean().item(), rel=1e-4)

    # And it learns: the gains come nearer to the truth.
    optimiser = torch.optim.Adam(network.router.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = objective(batch)["loss"]
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.7 * torch.stack(found).mean().item()


def test_what_the_router_looks_at_is_near():
    """Gains of a tile depend on that tile and its neighbours only, and rise for none of the later blocks."""
    torch.manual_seed(0)
    router = GainRouter(6, 4)
    frame, state, flow = tensor(1, 3, 64, 64), tensor(1, 6, 64, 64, seed=1), tensor(1, 2, 64, 64, seed=2)
    with torch.no_grad():
        grid = TileGrid.of(64, 64, 8)
        gains = router("forward", frame, state, flow, grid)
        assert gains.shape == (1, 4, 8, 8)
        assert (gains.diff(dim=1) <= 0).all()
        assert (gains >= 0).all()
        other = state.clone()
        other[..., 56:, 56:] += 1
        changed = (router("forward", frame, other, flow, grid) != gains).any(dim=1)[0]
        assert changed[7, 7]
        assert not changed[:5].any()
        assert not changed[:, :5].any()
        assert not torch.equal(router("backward", frame, state, flow, grid), gains)
        assert router("forward", frame, state, None, grid).shape == gains.shape
