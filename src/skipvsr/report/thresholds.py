"""The threshold at which a router runs the ratio of blocks that was asked for, on the clips and the tiling that are tested.

The paper's thresholds belong to its scores; what can be compared is quality at equal cost. So thresholds are chosen on the LR
frames of the test clips: no ground truth is looked at, and the ratio that did run stands beside every number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from skipvsr.inference.options import StreamOptions
from skipvsr.inference.policies import ThresholdPolicy, threshold_policy
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.learned import GainThreshold

# How near to the ratio asked for is near enough, and how many thresholds are tried.
NEAR, TRIES = 0.01, 5
# Scores that are sorted; more say no more.
_MOST_SCORES = 1_000_000

Found = TypeVar("Found")


def find_threshold(
    scores: Tensor, ratio: float, run: Callable[[float], Found], ratio_of: Callable[[Found], float]
) -> tuple[float, Found]:
    """Try thresholds until the ratio that runs is within `NEAR` of the one asked for; the nearest of `TRIES` otherwise.

    Args:
        scores: what the router says where everything runs, sorted, highest first: the first guess is the quantile.
        ratio: of the blocks, in (0, 1).
        run: what a threshold gives.
        ratio_of: the ratio that ran.
    """
    low, high, guess = 0.0, 1.0, ratio
    near = max(NEAR, 1 / len(scores))  # of few decisions, no ratio between two of them
    tried: dict[float, tuple[float, Found]] = {}
    for _ in range(TRIES):
        threshold = float(scores[min(int(guess * len(scores)), len(scores) - 1)])
        if threshold in tried:
            break
        found = run(threshold)
        ran = ratio_of(found)
        tried[threshold] = (abs(ran - ratio), found)
        if abs(ran - ratio) <= near:
            break
        low, high = (low, guess) if ran > ratio else (guess, high)
        guess += ratio - ran
        if not low < guess < high:
            guess = (low + high) / 2
    threshold = min(tried, key=lambda one: tried[one][0])
    return threshold, tried[threshold][1]


@torch.inference_mode()
def sorted_scores(model: SkipVSR, clips: Sequence[Tensor], make_upscaler: Callable[[Any], Upscaler]) -> Tensor:
    """What the router says of every block where (nearly) everything runs, highest first.

    Args:
        model: with a router.
        clips: LR frames (T, 3, H, W) of each.
        make_upscaler: the model with a policy, at the tiling that is tested.
    """
    seen: list[Tensor] = []

    def policy() -> ThresholdPolicy:
        asking = threshold_policy(model, 1e-12)
        if isinstance(asking, GainThreshold):
            asking.gains = _noting(asking.gains, seen)
        else:
            asking.score = _noting(asking.score, seen)
        return asking

    upscaler = make_upscaler(policy)
    for clip in clips:
        for _ in upscaler.stream(clip):
            pass
    scores = torch.cat(seen)
    scores = scores[:: max(1, len(scores) // _MOST_SCORES)]
    return scores.sort(descending=True).values


def one_window(frames: int) -> StreamOptions:
    """A clip as a whole."""
    return StreamOptions(window=max(frames, 1), lookahead=0, scene_detection=False, repeat_detection=False)


def _noting(router: Callable[..., Tensor], seen: list[Tensor]) -> Callable[..., Tensor]:
    def ask(*seen_by_it: Any, **named: Any) -> Tensor:
        answer = router(*seen_by_it, **named)
        seen.append(answer.float().flatten().cpu())
        return answer

    return ask
