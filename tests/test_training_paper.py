"""The paper's training: its equations against plain transcriptions, and that the mask generator learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from skipvsr.data.crops import Batch
from skipvsr.inference.options import ComputeOptions
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.trace import RoutingTrace
from skipvsr.training.paper import (
    error_loss,
    feature_distance,
    mask_loss,
    score_target,
    spatial_map,
    target_layers,
    target_of,
    tile_psnr,
)
from skipvsr.training.paper_generator import (
    draw_thresholds,
    fit_generator,
    follow_temperature,
    score_targets,
    scores_of,
)
from skipvsr.training.paper_method import PaperMethod
from skipvsr.training.paper_pass import FullPass, Scores, follow, mask_generator, run_full, target_distances
from skipvsr.training.paper_skip import PaperObjective, PaperSkipStage
from skipvsr.training.paper_validate import moments, with_r_squared
from skipvsr.training.settings import Optimisation
from tests.conftest import make_network
from tests.test_training_routing import gradients, make_batch, tensor

GRID = TileGrid.of(12, 18, 6)
EVERYTHING = torch.full((2, 1, 1), -1.0)


def make_stage(method: PaperMethod, **settings: bool) -> PaperSkipStage:
    optimisation = Optimisation(10, 2, 16, 1e-3, **settings)  # pyright: ignore[reportArgumentType]
    return PaperSkipStage("skip", "paper", optimisation, frames=3, paper=method)


def make_paper_network(blocks: int = 3) -> SkipVSR:
    return make_network(VSRConfig(4, blocks, "light", "light", "paper"))


def taught_of(network: SkipVSR, batch: Batch, method: PaperMethod | None = None) -> FullPass:
    return run_full(network, batch.lr, method or PaperMethod(), 16)


def test_targets_every_six_of_thirty():
    assert target_layers(30, 6) == [6, 12, 18, 24, 30]
    assert [target_of(feature, 30, 6) for feature in (0, 5, 6, 29)] == [6, 6, 12, 30]
    assert target_layers(8, 6) == [6, 8]
    assert target_layers(4, 15) == [4]


def test_feature_distance_is_equation_7s_norm_per_tile():
    one, two = tensor(2, 5, 12, 18), tensor(2, 5, 12, 18, seed=1)
    found = feature_distance(one, two, GRID)
    for n, row, column in ((0, 0, 0), (1, 1, 2)):
        tile = (slice(None), slice(6 * row, 6 * row + 6), slice(6 * column, 6 * column + 6))
        expected = math.sqrt(((one[n][tile] - two[n][tile]).double() ** 2).mean().item())
        assert found[n, row, column].item() == pytest.approx(expected, rel=1e-5)


def test_score_targets_in_both_readings():
    distance, temperature = torch.tensor([0.0, 0.3, 1e9]), torch.tensor(0.5)
    gain = score_target(distance, temperature, literal=False)
    assert gain.tolist() == pytest.approx([0, math.tanh(0.6), 1])
    assert score_target(distance, temperature, literal=True).tolist() == pytest.approx([1, 1 - math.tanh(0.6), 0])


def test_mask_loss_is_equation_8():
    target = torch.tensor([0.0, 1.0], requires_grad=True)
    score = torch.tensor([0.5, 0.25], requires_grad=True)
    loss = mask_loss(score, target)
    assert loss.item() == pytest.approx((0.25 + 0.5625) / 2)
    loss.backward()
    assert target.grad is None
    assert score.grad is not None


def test_spatial_maps_are_equation_10():
    feature = torch.tensor([-3.0, 2.0]).view(1, 2, 1, 1)
    assert spatial_map(feature, "sum").item() == 5
    assert spatial_map(feature, "square-sum").item() == 13
    assert spatial_map(feature, "square-max").item() == 9


def test_error_loss_is_equation_11():
    student = [[tensor(1, 3, 4, 4, seed=10 * t + m) for m in range(3)] for t in range(2)]
    teacher = [[tensor(1, 3, 4, 4, seed=99 + 10 * t + m) for m in range(3)] for t in range(2)]
    expected = 0.0
    for t in range(2):
        for m in (1, 2):
            planes = [(side[t][m].double().numpy() ** 2).sum(1) for side in (student, teacher)]
            expected += ((planes[0] - planes[1]) ** 2).mean() / 4
    assert error_loss(student, teacher, [1, 2], "square-sum").item() == pytest.approx(expected, rel=1e-5)
    assert error_loss(student, student, [1, 2], "sum").item() == 0


def test_psnr_of_tiles():
    gt = torch.full((1, 3, 48, 72), 0.5)
    result = gt.clone()
    result[..., :24, :24] += 0.1
    found = tile_psnr(result, gt, GRID)
    assert found[0, 0, 0].item() == pytest.approx(20, abs=1e-3)
    assert found[0, 1, 1].item() == 100


@pytest.mark.parametrize("supervision", ["feature-interval", "feature", "psnr-interval", "psnr"])
@pytest.mark.parametrize("literal", [True, False])
def test_the_papers_objective(supervision: str, literal: bool):
    network, batch = make_paper_network(), make_batch()
    method = PaperMethod(supervision=supervision, literal=literal, every=2)  # pyright: ignore[reportArgumentType]
    objective = PaperObjective(network, make_stage(method))
    objective.fit(batch)
    terms = objective(batch)
    logged = objective.log_terms({name: value.item() for name, value in terms.items()})
    assert set(logged) == {"loss", "reconstruction", "mask", "error", "active_ratio", "r2_backward", "r2_forward"}
    assert 0 <= terms["mask"] <= 1
    assert 0 < terms["active_ratio"] <= 1
    expected = terms["reconstruction"] + 0.1 * terms["mask"] + 0.1 * terms["error"]
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    terms["loss"].backward()
    assert gradients(network) == {
        "flow": False, "backward_trunk": True, "forward_trunk": True, "reconstruction": True, "router": True,
    }  # fmt: skip
    assert not any(parameter.grad is not None for parameter in objective.teacher.parameters())


@pytest.mark.parametrize("joint", [True, False])
def test_the_mask_loss_reaches_the_backbone_if_training_is_joint(joint: bool):
    """Of equation 13 the second term alone."""
    network, batch = make_paper_network(), make_batch()
    objective = PaperObjective(network, make_stage(PaperMethod(joint=joint, every=2)))
    objective.fit(batch)
    objective(batch)["mask"].backward()
    found = gradients(network)
    assert found["router"]
    assert found["backward_trunk"] == found["forward_trunk"] == joint


def test_activation_checkpointing_changes_no_gradient():
    found: list[dict[str, Tensor]] = []
    for saving in (False, True):
        network, batch = make_paper_network(), make_batch()
        objective = PaperObjective(network, make_stage(PaperMethod(every=2), activation_checkpointing=saving))
        objective.fit(batch)
        objective(batch)["loss"].backward()
        found.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    assert set(found[0]) == set(found[1])
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_the_scale_of_differences_is_fitted_on_the_teacher():
    """Over everything that is scored, standardised differences have mean 0 and standard deviation 1 in each channel."""
    network, batch = make_paper_network(), make_batch()
    method = PaperMethod(every=2, cell_px=1, warped=False)
    taught = taught_of(network, batch, method)
    fit_generator(network, taught, method, 16)
    generator = mask_generator(network)
    # Equation 5 by hand, of what enters block 1 on frame 1 in forward order: the frame before it is 0.
    one, before = taught.features["forward", 1][1], taught.features["forward", 0][1]
    torch.testing.assert_close(taught.differences["forward", 1, 1][..., 0, 0], (one - before).abs().mean(dim=(2, 3)))
    for at, direction in enumerate(("backward", "forward")):
        seen = torch.stack([d[..., 0, 0] for place, d in taught.differences.items() if place[0] == direction])
        assert len(seen) == 2 * 3  # two of three frames, three blocks
        standard = (seen.flatten(0, 1) - generator.difference_mean[at]) / generator.difference_scale[at]
        torch.testing.assert_close(standard.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(standard.std(dim=0), torch.ones(4), atol=1e-4, rtol=0)
    distances = [
        (features[index] - features[target_of(index, 3, 2)]).square().mean(dim=(1, 2, 3)).sqrt()
        for features in taught.features.values()
        for index in range(3)
    ]
    assert generator.temperature.item() == pytest.approx(torch.stack(distances).mean().item(), rel=1e-4)
    assert (generator.warped.item(), generator.cell_px.item()) == (0, 1)


def test_thresholds_are_quantiles_of_the_clips_own_scores():
    network, batch = make_paper_network(), make_batch(seeds=(1, 2))
    taught = taught_of(network, batch)
    scores, drawn = scores_of(mask_generator(network), taught), []
    never = PaperMethod(full_ratio=1.0)
    assert (draw_thresholds(scores, batch.seeds, never) == -1).all()
    for seeds in ((index, 100 + index) for index in range(40)):
        thresholds = draw_thresholds(scores, seeds, PaperMethod(full_ratio=0.0, max_skipped=0.8)).flatten()
        drawn += [(scores[:, clip] <= thresholds[clip]).float().mean().item() for clip in (0, 1)]
    assert min(drawn) < 0.2
    assert 0.6 < max(drawn) < 0.9  # ratios of what would be skipped, evenly up to 0.8
    both = draw_thresholds(scores, (7, 8), PaperMethod(full_ratio=0.0))
    assert draw_thresholds(scores[:, 1:], (8,), PaperMethod(full_ratio=0.0)).item() == both[1].item()


def test_a_student_at_threshold_zero_is_its_teacher():
    network, batch = make_paper_network(), make_batch()
    taught = taught_of(network, batch)
    with torch.no_grad():
        made = follow(network, taught, EVERYTHING, PaperMethod(), 16)
        torch.testing.assert_close(made.result, network(batch.lr), atol=1e-5, rtol=1e-5)
    assert made.ran == 1
    for place, features in made.features.items():
        torch.testing.assert_close(features[3], taught.features[place][3])
    # Every block on two of three frames in both directions.
    assert set(made.scores) == {
        (direction, frame, block)
        for direction, frames in (("backward", (1, 0)), ("forward", (1, 2)))
        for frame in frames
        for block in range(3)
    }


def test_score_targets_are_those_of_table_5():
    """Each supervision for one block, by hand; with the last feature, equation 15's interim result is the result."""
    student, teacher, batch = (
        make_paper_network(),
        make_network(VSRConfig(4, 3, "light", "light"), seed=9),
        make_batch(),
    )
    method = PaperMethod(every=2)
    taught = taught_of(teacher, batch)
    fit_generator(student, taught, method, 16)
    with torch.no_grad():
        made = follow(student, taught, torch.full((2, 1, 1), 0.5), method, 16)
    assert 0 < made.ran < 1
    heat = mask_generator(student).temperature
    place = ("forward", 2)
    mine, theirs = made.features[place], taught.features[place]

    def found(supervision: str, block: int = 1) -> Tensor:
        chosen = replace(method, supervision=supervision)
        distances = target_distances(student, made, taught, batch.gt, chosen, 16)
        return score_targets(distances, mask_generator(student), chosen)["forward", 2, block][:, 0, 0]

    def rms(one: Tensor, two: Tensor) -> Tensor:
        return (one - two).square().mean(dim=(1, 2, 3)).sqrt()

    def decibels(one: Tensor, two: Tensor) -> Tensor:
        one, two = (-10 * torch.log10((each - batch.gt[:, 2]).square().mean(dim=(1, 2, 3))) for each in (one, two))
        return torch.tanh((one - two).square())

    torch.testing.assert_close(found("feature-interval"), torch.tanh(rms(mine[1], theirs[2]) / heat))
    torch.testing.assert_close(found("feature-interval", block=2), torch.tanh(rms(mine[2], theirs[3]) / heat))
    torch.testing.assert_close(found("feature"), torch.tanh(rms(mine[3], theirs[3]) / heat))
    torch.testing.assert_close(found("psnr"), decibels(made.result[:, 2], taught.result[:, 2]), atol=1e-4, rtol=1e-3)
    with torch.no_grad():
        backward = taught.features["backward", 2][3]
        pair = (
            student.reconstruct(batch.lr[:, 2], backward, mine[2]),
            teacher.reconstruct(batch.lr[:, 2], backward, theirs[3]),
        )
    torch.testing.assert_close(found("psnr-interval", block=2), decibels(*pair), atol=1e-4, rtol=1e-3)


def test_the_temperature_follows_the_distances():
    """So that targets do not all reach 1 when the student's features have moved away from the teacher's."""
    generator = mask_generator(make_paper_network())
    generator.temperature.fill_(2.0)
    distances: Scores = {("forward", 1, 0): torch.full((2, 1, 1), 3.0), ("forward", 2, 0): torch.full((2, 1, 1), 5.0)}
    follow_temperature(generator, distances, 0.25)
    assert generator.temperature.item() == pytest.approx(0.75 * 2 + 0.25 * 4)


def test_a_high_threshold_skips_after_the_first_frame():
    network = make_paper_network()
    trace = RoutingTrace()
    with torch.inference_mode():
        list(Upscaler(network, ComputeOptions(threshold=0.999)).stream(make_batch().lr[0], trace))
    ratios = [trunk.active_ratio for trunk in trace.trunks]
    assert ratios[0] == ratios[3] == 1
    assert max(ratios[1:3] + ratios[4:]) < 0.5


def moving_clips(seeds: tuple[int, ...]) -> Batch:
    """Clips of 4 frames, each with a motion and a texture of its own: some are nearly still, some change a lot."""
    clips = []
    for seed in seeds:
        random = torch.Generator().manual_seed(seed)
        image = torch.rand((1, 3, 48, 48), generator=random)
        image = nn.functional.interpolate(image, scale_factor=2, mode="bicubic")[0] * torch.rand((), generator=random)
        step = int(torch.randint(0, 5, (), generator=random))
        clips.append(torch.stack([image[:, 2 * step * t // 2 :, step * t :][:, :64, :64] for t in range(4)]))
    gt = torch.stack(clips).clamp(0, 1)
    lr = nn.functional.avg_pool2d(gt.flatten(0, 1), 4).unflatten(0, gt.shape[:2])
    return Batch(lr, gt, ("clip",) * len(seeds), seeds)


def test_the_mask_generator_learns():
    """Its scores predict their targets on clips that it did not see, in both directions; as it starts they predict nothing."""
    network = make_network(VSRConfig(8, 3, "light", "light", "none"), seed=3).with_router("paper")
    generator, method = mask_generator(network), PaperMethod(every=2)

    def seen(seeds: range) -> tuple[FullPass, Scores]:
        """Clips as the frozen network sees them, and the targets of their scores."""
        batch = moving_clips(tuple(seeds))
        full = run_full(network, batch.lr, method, 16)
        if generator.temperature == 0:
            fit_generator(network, full, method, 16)
        with torch.no_grad():
            made = follow(network, full, torch.full((len(seeds), 1, 1), -1.0), method, 16)
            distances = target_distances(network, made, full, batch.gt, method, 16)
        return full, score_targets(distances, generator, method)

    def scores(full: FullPass) -> Scores:
        return {place: generator(place[0], difference) for place, difference in full.differences.items()}

    def r_squared(full: FullPass, targets: Scores) -> list[float]:
        found = with_r_squared({name: value.item() for name, value in moments(scores(full), targets).items()})
        return [found["r2_backward"], found["r2_forward"]]

    (full, targets), unseen = seen(range(12)), seen(range(100, 112))
    assert max(r_squared(*unseen)) <= 0
    optimiser = torch.optim.Adam(generator.parameters(), 0.05)
    for _ in range(80):
        optimiser.zero_grad()
        found = scores(full)
        torch.stack([mask_loss(score, targets[place]) for place, score in found.items()]).mean().backward()
        optimiser.step()
    assert min(r_squared(*unseen)) > 0.2
