"""A network on a GPU, with kernels of our own where they do more in one pass, or do it faster, than torch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from skipvsr.inference.triton_blocks import TritonBlocks
from skipvsr.models.blocks import ResidualBlock, Trunk
from skipvsr.models.recurrence import RunTrunk, WrappedNetwork
from skipvsr.models.vsr import SkipVSR
from skipvsr.terms import Direction


@dataclass(frozen=True)
class KernelNetwork(WrappedNetwork):
    """A network that warps through a kernel and, where that is faster, runs blocks that are active everywhere through kernels.

    Args:
        network: the network.
        run_blocks: the kernels for blocks; None: torch's convolutions where nobody routes the trunk.
    """

    network: SkipVSR
    run_blocks: TritonBlocks | None = None

    def estimate_flow(self, reference: Tensor, support: Tensor) -> Tensor:
        """As the network's."""
        return self.network.estimate_flow(reference, support)

    def propagate(
        self,
        direction: Direction,
        frame: Tensor,
        state: Tensor | None,
        flow: Tensor | None,
        run: RunTrunk | None = None,
        number: int = -1,
    ) -> Tensor:
        """As the network's."""
        run = run or self._run
        if state is None or flow is None:
            return self.network.propagate(direction, frame, state, flow, run, number)
        return run(self.network.trunk(direction), direction, frame, warp_by_kernel(state, flow), flow, number)

    def reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """As the network's."""
        return self.network.reconstruct(frame, backward, forward)

    def _run(
        self, trunk: Trunk, direction: Direction, frame: Tensor, state: Tensor, flow: Tensor | None, number: int
    ) -> Tensor:
        """Every block, everywhere."""
        if self.run_blocks is None:
            return trunk(frame, state)
        blocks: list[ResidualBlock] = list(trunk.blocks)  # pyright: ignore[reportAssignmentType] - a ModuleList of them
        return self.run_blocks.run_everywhere(blocks, trunk.enter(frame, state))


def warp_by_kernel(source: Tensor, flow: Tensor) -> Tensor:
    """`skipvsr.models.flow.warp` with zeros outside the frame: (N, C, H, W) and (N, 2, H, W) -> (N, C, H, W), channels-last."""
    from skipvsr.inference.triton_warp import warp_pixels  # imports Triton

    return warp_pixels(source.permute(0, 2, 3, 1).contiguous(), flow.float().contiguous()).permute(0, 3, 1, 2)
