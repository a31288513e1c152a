"""The network: two recurrences over a clip, and a reconstruction that rebuilds each frame two or four times larger."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from skipvsr.errors import ConfigError
from skipvsr.models.blocks import ResidualBlock, Trunk, widen
from skipvsr.models.config import Scale, VSRConfig
from skipvsr.models.flow import make_flow, warp
from skipvsr.models.lean import LeanParts
from skipvsr.models.quantization import Quantization
from skipvsr.models.reconstruction import BasicVSRReconstruction, LightReconstruction
from skipvsr.models.recurrence import RunTrunk, check_clip
from skipvsr.models.router import Calibration, Router, make_router
from skipvsr.terms import Direction

# Weights of the reconstruction that another scale does not share.
_OF_ONE_SCALE = ("reconstruction.last.", "reconstruction.up1.")


class SkipVSR(nn.Module):
    """Recurrent video super-resolution x2 or x4. Without a router this is BasicVSR (Chan et al., CVPR 2021).

    Called on (B, T, 3, H, W), RGB in [0, 1], H and W from 16 up, it returns (B, T, 3, s * H, s * W) with the scale s,
    not clamped.

    The clip-wise `forward` needs the whole clip. Streaming uses the same parts one frame at a time: `estimate_flow`,
    `propagate` and `reconstruct`.
    """

    def __init__(self, config: VSRConfig) -> None:
        super().__init__()
        self.config = config
        self.flow = make_flow(config.flow)
        self.backward_trunk = Trunk(config.channels, config.blocks)
        self.forward_trunk = Trunk(config.channels, config.blocks)
        self.reconstruction = (
            BasicVSRReconstruction(config.channels, config.scale)
            if config.reconstruction == "basicvsr"
            else LightReconstruction(config.channels, config.scale)
        )
        self.calibration: Calibration | None = None
        self.quantization: Quantization | None = None
        self.router = make_router(config.router, config.channels, config.blocks)
        self.lean = LeanParts(config.channels, config.lean) if config.lean else None

    @property
    def scale(self) -> int:
        """How many times larger each side becomes."""
        return self.config.scale

    def with_router(self, router: Router) -> SkipVSR:
        """A copy with an untrained router, or with none."""
        return self._copied(replace(self.config, router=router))

    def with_scale(self, scale: Scale) -> SkipVSR:
        """A copy for another scale, to be trained on: everything but the reconstruction is kept, the router too.

        A light x4 reconstruction becomes a x2 one that gives the mean of every 2x2 pixels of what it gave.
        """
        if scale == self.config.scale:
            return self._copied(self.config, without=())
        copy = self._copied(replace(self.config, scale=scale), _OF_ONE_SCALE)
        ours, theirs = self.reconstruction, copy.reconstruction
        if isinstance(ours, LightReconstruction) and isinstance(theirs, LightReconstruction) and scale == 2:
            with torch.no_grad():
                for new, old in zip(theirs.last.parameters(), ours.last.parameters(), strict=True):
                    # Channels of a pixel shuffle: colour, row, column.
                    new.copy_(old.view(3, 2, 2, 2, 2, *old.shape[1:]).mean(dim=(2, 4)).view_as(new))
        return copy

    def with_half_flow(self) -> SkipVSR:
        """A copy whose light flow works at half of the size, to be trained on: the finest level is left out.

        Raises:
            ConfigError: its flow is another than "light".
        """
        if self.config.flow != "light":
            raise ConfigError(
                f"the network's flow is {self.config.flow!r}; only 'light' can do without its finest level"
            )
        return self._copied(replace(self.config, flow="half", lean=0), without=())

    def with_lean(self, blocks: int) -> SkipVSR:
        """A copy with lean parts of so many backward blocks, to be trained on, or with none (0).

        They begin as far as they can as the network's own; those that it has stay where they have as many blocks.
        """
        copy = self._copied(replace(self.config, lean=blocks), without=())
        if copy.lean is not None and blocks != self.config.lean:
            copy.lean.begin_as(self.flow, self.backward_trunk)
        return copy

    def lean_network(self) -> SkipVSR:
        """This network with its lean parts in the place of its flow and its first backward blocks; all weights are shared.

        Raises:
            ConfigError: it has none.
        """
        if self.lean is None:
            raise ConfigError("this model has no lean parts; the stage 'lean' of a training adds them")
        with torch.device("meta"):
            network = SkipVSR(self.config.leaner())
        network.flow, backward = self.lean.flow, self.lean.backward_trunk
        network.backward_trunk.input = backward.input
        network.backward_trunk.blocks = nn.ModuleList(
            [*backward.blocks, *self.backward_trunk.blocks[self.config.lean :]]
        )
        network.forward_trunk, network.reconstruction = self.forward_trunk, self.reconstruction
        network.router, network.calibration = self.router, self.calibration
        return network.train(self.training)

    def shortened(self, blocks: int) -> SkipVSR:
        """A copy with only the first blocks of each trunk, and no router: a static network to compare with.

        Raises:
            ConfigError: it has fewer than so many.
        """
        if blocks > self.config.blocks:
            raise ConfigError(f"the network has {self.config.blocks} blocks, fewer than {blocks}")
        return self._copied(replace(self.config, blocks=blocks, router="none", lean=0))

    def lengthened(self, blocks: int) -> SkipVSR:
        """A copy with more blocks behind those of each trunk, and no router, to be trained on.

        The new blocks add nothing at first, so that it gives what this network gives.

        Raises:
            ConfigError: it has more than so many.
        """
        if blocks < self.config.blocks:
            raise ConfigError(f"the network has {self.config.blocks} blocks, more than {blocks}")
        copy = self._copied(replace(self.config, blocks=blocks, router="none", lean=0))
        for trunk in (copy.backward_trunk, copy.forward_trunk):
            for block in list(trunk.blocks)[self.config.blocks :]:
                assert isinstance(block, ResidualBlock)
                with torch.no_grad():
                    block.conv2.weight.zero_()  # its bias is 0 already
        return copy

    @torch.inference_mode(mode=False)
    def widened(self, channels: int) -> SkipVSR:
        """A copy with wider states, and no router, to be trained on.

        What its channels hold at first is what this network's hold, with new ones behind them that feed only new ones and are
        drawn at random: it gives what this network gives, and every weight has a gradient.

        Raises:
            ConfigError: it has more than so many.
        """
        if channels < self.config.channels:
            raise ConfigError(f"the network has {self.config.channels} channels, more than {channels}")
        copy = SkipVSR(replace(self.config, channels=channels, router="none", lean=0))
        wide = copy.state_dict()
        for name, old in self.with_router("none").with_lean(0).state_dict().items():
            wide[name].copy_(widen(wide[name], old, parts=2 if name == "reconstruction.fusion.weight" else 1))
        return copy.train(self.training)

    @torch.inference_mode(mode=False)  # weights made in the caller's inference mode could never be trained
    def _copied(self, config: VSRConfig, without: tuple[str, ...] = ("router.",)) -> SkipVSR:
        """A network of this shape with the weights that it shares with this one, but for those with such names."""
        copy = SkipVSR(config)
        names = {name for name, _ in copy.named_parameters()} | {name for name, _ in copy.named_buffers()}
        weights = {
            name: weight for name, weight in self.state_dict().items() if name in names and not name.startswith(without)
        }
        copy.load_state_dict(weights, strict=False)
        return copy.train(self.training)

    def forward(
        self, frames: Tensor, run: RunTrunk | None = None, flows: tuple[list[Tensor], list[Tensor]] | None = None
    ) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, 3, s * H, s * W) with the scale s.

        Args:
            frames: the clip.
            run: how the trunks are run; None runs every block everywhere.
            flows: what `clip_flows` gives for these frames, where it is known already.

        Raises:
            ShapeError: any other shape, or a side under 16 pixels.
        """
        check_clip(frames)
        length = frames.shape[1]
        x = frames.unbind(dim=1)
        to_next, to_previous = flows or self.clip_flows(frames)

        backward: list[Tensor] = [x[0]] * length
        state = None
        for t in reversed(range(length)):
            state = self.propagate("backward", x[t], state, to_next[t] if t + 1 < length else None, run, t)
            backward[t] = state

        outputs: list[Tensor] = []
        state = None
        for t in range(length):
            state = self.propagate("forward", x[t], state, to_previous[t - 1] if t > 0 else None, run, t)
            outputs.append(self.reconstruct(x[t], backward[t], state))
        return torch.stack(outputs, dim=1)

    def clip_flows(self, frames: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Flows between all neighbouring frames of a clip (B, T, 3, H, W), in one batch.

        Returns:
            `to_next[t]`, which brings frame t+1 onto frame t (for the backward recurrence), and `to_previous[t]`, which
            brings frame t onto frame t+1 (for the forward one); T - 1 tensors (B, 2, H, W) each.
        """
        batch, length, _, height, width = frames.shape
        if length == 1:
            return [], []
        earlier = frames[:, :-1].reshape(-1, 3, height, width)
        later = frames[:, 1:].reshape(-1, 3, height, width)
        flow = self.estimate_flow(torch.cat((earlier, later)), torch.cat((later, earlier)))
        to_next, to_previous = flow.view(2, batch, length - 1, 2, height, width)
        return list(to_next.unbind(dim=1)), list(to_previous.unbind(dim=1))

    def estimate_flow(self, reference: Tensor, support: Tensor) -> Tensor:
        """Flow (N, 2, H, W) in pixels that brings `support` onto `reference`, both (N, 3, H, W)."""
        return self.flow(reference, support)

    def trunk(self, direction: Direction) -> Trunk:
        """That of a direction."""
        return self.backward_trunk if direction == "backward" else self.forward_trunk

    def propagate(
        self,
        direction: Direction,
        frame: Tensor,
        state: Tensor | None,
        flow: Tensor | None,
        run: RunTrunk | None = None,
        number: int = -1,
    ) -> Tensor:
        """One step of a recurrence, backward or forward; see `Recurrence.propagate`."""
        trunk = self.trunk(direction)
        if state is None or flow is None:
            shape = (frame.shape[0], self.config.channels, *frame.shape[-2:])
            state, flow = frame.new_zeros(shape, dtype=trunk.input.weight.dtype), None
        else:
            state = warp(state, flow)
        return trunk(frame, state) if run is None else run(trunk, direction, frame, state, flow, number)

    def reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """Frame (N, 3, H, W) and its two states (N, C, H, W) -> (N, 3, s * H, s * W) with the scale s."""
        return self.reconstruction(frame, backward, forward)
