"""Losses of the training stages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.models.flow import PyramidFlow, warp
from skipvsr.terms import LUMA_WEIGHTS


def charbonnier(prediction: Tensor, target: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Mean of sqrt(difference^2 + epsilon^2) over all elements (equation 12 of the paper)."""
    return torch.sqrt((prediction - target).square() + epsilon**2).mean()


def census(reference: Tensor, other: Tensor, radius_px: int = 2) -> Tensor:
    """Soft census distance of two images, (N, 3, H, W) twice -> (N, 1, H, W), from 0 (alike) towards 1.

    Each pixel is described by its differences to its neighbours, squashed (Meister et al., UnFlow, AAAI 2018, equations 6
    and following), so that a change of brightness does not count.
    """
    a, b = _census_transform(reference, radius_px), _census_transform(other, radius_px)
    distance = (a - b).square()
    return (distance / (0.1 + distance)).mean(dim=1, keepdim=True)


def smoothness(flow: Tensor, image: Tensor, edge: float = 10.0) -> Tensor:
    """First-order, edge-aware: mean |gradient of flow| * exp(-edge * |gradient of image|).

    Args:
        flow: (N, 2, H, W), pixels.
        image: (N, 3, H, W) in [0, 1]; where it changes, the flow may.
        edge: how much an edge of the image excuses an edge of the flow.
    """
    total = flow.new_zeros(())
    for dim in (-1, -2):
        slope = image.diff(dim=dim).abs().mean(dim=1, keepdim=True)
        total = total + (flow.diff(dim=dim).abs() * torch.exp(-edge * slope)).mean()
    return total


def photometric(
    flow_network: PyramidFlow, reference: Tensor, support: Tensor, *, smooth: float, census_weight: float
) -> Tensor:
    """How well the flow of each pyramid level brings `support` onto `reference`, both (N, 3, H, W) in [0, 1].

    Per level: Charbonnier plus `census_weight` times the census distance where the flow stays inside the image, plus
    `smooth` times the smoothness. A level counts half of the next finer one.
    """
    total = reference.new_zeros(())
    flows = flow_network.level_flows(reference, support)
    for depth, flow in enumerate(reversed(flows)):
        if min(flow.shape[-2:]) < 8:
            break
        target, source = _at_size(reference, flow), _at_size(support, flow)
        warped = warp(source, flow, padding="border")
        inside = stays_inside(flow)
        error = torch.sqrt((warped - target).square() + 1e-6).mean(dim=1, keepdim=True)
        error = error + census_weight * census(target, warped)
        level = (error * inside).sum() / inside.sum().clamp(min=1)
        total = total + 0.5**depth * (level + smooth * smoothness(flow, target))
    return total


def end_point(flow_network: PyramidFlow, reference: Tensor, support: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """End-point error against known flow, in pixels: means of all pyramid levels, each counting half of the next finer one.

    Args:
        flow_network: estimates flow from `reference` and `support`, (N, 3, H, W) in [0, 1].
        truth: (N, 2, H, W), pixels; reference(x) = support(x + truth(x)).
        valid: (N, 1, H, W), 1 where the truth is to be trusted, else 0.
    """
    total = reference.new_zeros(())
    for depth, flow in enumerate(reversed(flow_network.level_flows(reference, support))):
        if min(flow.shape[-2:]) < 4:
            break
        ratio = flow.shape[-1] / truth.shape[-1]
        error = torch.sqrt((flow - ratio * _at_size(truth, flow)).square().sum(dim=1, keepdim=True) + 1e-4)
        weight = (_at_size(valid.float(), flow) > 0.99).to(error.dtype)
        total = total + 0.5**depth * (error * weight).sum() / weight.sum().clamp(min=1)
    return total


def stays_inside(flow: Tensor) -> Tensor:
    """(N, 2, H, W) flow in pixels -> (N, 1, H, W): 1 where x + flow(x) lies within the image, else 0."""
    height, width = flow.shape[-2:]
    y = torch.arange(height, device=flow.device).view(1, height, 1) + flow[:, 1]
    x = torch.arange(width, device=flow.device).view(1, 1, width) + flow[:, 0]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside[:, None].to(flow.dtype)


def _census_transform(image: Tensor, radius_px: int) -> Tensor:
    """Squashed differences of each pixel's neighbourhood to the pixel: (N, 3, H, W) -> (N, (2r+1)^2, H, W)."""
    side = 2 * radius_px + 1
    grey = 255 * (image * image.new_tensor(LUMA_WEIGHTS).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    padded = F.pad(grey, [radius_px] * 4, mode="replicate")
    height, width = grey.shape[-2:]
    neighbours = torch.cat(
        [padded[..., i : i + height, j : j + width] for i in range(side) for j in range(side)], dim=1
    )
    difference = neighbours - grey
    return difference / torch.sqrt(0.81 + difference.square())


def _at_size(image: Tensor, like: Tensor) -> Tensor:
    size = like.shape[-2:]
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image, size=size, mode="area")
