"""The oracle's gains against brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skipvsr.evaluation.oracle import OracleBlocks, OracleGains, falling_gains
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.config import VSRConfig
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import GainBudget
from skipvsr.routing.policies import FixedBlocks, TrunkStep
from skipvsr.routing.trace import RoutingTrace
from tests.conftest import make_network


def test_bundles_have_one_price():
    assert falling_gains(torch.tensor([9.0, 9, 3, 2])).tolist() == [3, 3, 1]
    assert falling_gains(torch.tensor([5.0, 3, 2, 1.5])).tolist() == [2, 1, 0.5]
    assert falling_gains(torch.tensor([1.0, 2, 3])).tolist() == [0, 0]


@given(errors=st.lists(st.lists(st.integers(0, 30), min_size=4, max_size=4), min_size=2, max_size=3))
def test_the_highest_gains_are_the_best_buy(errors: list[list[int]]):
    """Whatever a threshold on the gains spends, no other choice of depths leaves less error for it."""
    table = torch.tensor(errors, dtype=torch.float64).T  # (blocks + 1, tiles)
    gains = falling_gains(table)
    for threshold in (0.01, 0.5, 1.7, 4.0, 9.9):
        depth = (gains > threshold).sum(dim=0)
        left = sum(table[d, tile].item() for tile, d in enumerate(depth.tolist()))
        for other in product(range(4), repeat=len(errors)):
            if sum(other) <= int(depth.sum()):
                assert left <= sum(table[d, tile].item() for tile, d in enumerate(other)) + 1e-9


def test_the_oracle_knows_what_a_block_brings():
    """The first step's gains are the differences of the pictures' errors, by hand; and no fixed policy does better."""
    network = make_network(VSRConfig(6, 3, "light", "light"), seed=4)
    lr, gt = torch.rand(3, 3, 24, 32), torch.rand(3, 3, 96, 128)
    with torch.inference_mode():
        backward: dict[int, torch.Tensor] = {}
        state, flows = None, network.clip_flows(lr[None])
        for t in (2, 1, 0):
            state = network.propagate("backward", lr[None, t], state, flows[0][t] if t < 2 else None)
            backward[t] = state
        forward = None
        for t in range(3):
            forward = network.propagate("forward", lr[None, t], forward, flows[1][t - 1] if t else None)
        assert forward is not None
        entering = network.backward_trunk.enter(lr[None, 2], torch.zeros(1, 6, 24, 32))
        errors = []
        for count in range(4):
            found = entering
            for block in list(network.backward_trunk.blocks)[:count]:
                found = block(found)
            picture = network.reconstruct(lr[None, 2], found, forward)[0]
            errors.append((picture - gt[2]).square().mean(dim=0).view(3, 32, 4, 32).mean(dim=(1, 3)))
        expected = falling_gains(torch.stack(errors))
        oracle = OracleGains(network, lr[None], gt[None])
        last = TrunkStep("backward", lr[None, 2], entering, None, TileGrid.of(24, 32, 8), 3, number=2)
        torch.testing.assert_close(oracle(last)[0], expected)
        oracle(replace(last, number=0))
        torch.testing.assert_close(oracle(last)[0], expected)  # whatever it was asked before

        def error(policy) -> tuple[float, float]:
            trace = RoutingTrace()
            result = network(lr[None], RoutedTrunks(policy, 8, trace=trace))[0]
            return (result - gt).square().mean().item(), trace.active_ratio

        best, ratio = error(GainBudget(OracleGains(network, lr[None], gt[None]), 0.67))
        assert ratio == pytest.approx(0.67, abs=0.03)
        for kind in ("uniform", "deep", "shallow"):
            assert best < error(FixedBlocks(kind, 0.67))[0]


def idle(block: torch.nn.Module) -> None:
    """Make a block one that changes nothing."""
    torch.nn.init.zeros_(block.conv2.weight)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    torch.nn.init.zeros_(block.conv2.bias)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]


def test_the_block_oracle_finds_the_block_that_matters():
    """Where only the last block changes anything, a third of the blocks is all of the result; depths cannot do that."""
    network = make_network(VSRConfig(6, 3, "light", "light"), seed=4)
    with torch.no_grad():
        for trunk in (network.backward_trunk, network.forward_trunk):
            idle(trunk.blocks[0])
            idle(trunk.blocks[1])
    lr = torch.rand(3, 3, 24, 32)
    with torch.inference_mode():
        full = network(lr[None])[0]
        oracle = OracleGains(network, lr[None], full[None])

        def left(policy) -> tuple[float, float]:
            trace = RoutingTrace()
            result = network(lr[None], RoutedTrunks(policy, 8, trace=trace))[0]
            return (result - full).abs().max().item(), trace.active_ratio

        error, ratio = left(OracleBlocks(oracle, 0.34))
        assert ratio == pytest.approx(1 / 3, abs=0.01)
        assert error < 1e-6
        assert left(GainBudget(oracle, 0.34))[0] > 1e-3


def test_ranks_of_blocks_by_brute_force():
    """On one tile: the block taken away first, and what each number of blocks leaves, are those of all trials."""
    network = make_network(VSRConfig(6, 4, "light", "light"), seed=5)
    lr, gt = torch.rand(1, 2, 3, 16, 16), torch.rand(1, 2, 3, 64, 64)
    with torch.inference_mode():
        oracle = OracleGains(network, lr, gt)
        trunk = network.forward_trunk
        entering = trunk.enter(lr[:, 0], torch.zeros(1, 6, 16, 16))
        step = TrunkStep("forward", lr[:, 0], entering, None, TileGrid.of(16, 16, 16), 4, number=0)
        rank, gains = OracleBlocks(oracle, 1.0).ranks(step)

        def error(running: set[int]) -> float:
            state = entering
            for number, block in enumerate(trunk.blocks):
                state = block(state) if number in running else state
            return oracle.errors(step, state).item()

        running, order, errors = {0, 1, 2, 3}, [], []
        while running:
            errors.insert(0, error(running))
            order.insert(0, min(running, key=lambda block: error(running - {block})))
            running.remove(order[0])
        errors.insert(0, error(running))
    assert [rank[0, block].item() for block in order] == [0, 1, 2, 3]
    torch.testing.assert_close(gains[0, :, 0, 0], falling_gains(torch.tensor(errors)))
