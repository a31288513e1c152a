"""The paper's mask generator: equation 6, on differences of a common scale."""

from __future__ import annotations

import pytest
import torch

from skipvsr.models.router import MaskGenerator


def test_a_new_generator_is_neutral():
    score = MaskGenerator(5)("forward", torch.rand(2, 5, 3, 4))
    assert score.shape == (2, 3, 4)
    assert (score == 0.5).all()


@pytest.mark.parametrize(("direction", "at"), [("backward", 0), ("forward", 1)])
def test_scores_are_equation_6_with_other_weights(direction: str, at: int):
    """sigmoid(W * difference + b), where the scale of the differences is in W and b."""
    torch.manual_seed(0)
    generator, difference = MaskGenerator(5), 0.01 * torch.rand(2, 5, 3, 4)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.normal_()
        generator.difference_mean.copy_(0.01 * torch.rand(2, 5))
        generator.difference_scale.copy_(0.001 + 0.01 * torch.rand(2, 5))
    head = generator.backward_head if at == 0 else generator.forward_head
    weight = head.weight[0].double() / generator.difference_scale[at].double()
    bias = head.bias.double() - (weight * generator.difference_mean[at].double()).sum()
    expected = torch.sigmoid(torch.einsum("c,nchw->nhw", weight, difference.double()) + bias)
    torch.testing.assert_close(generator(direction, difference).double(), expected, atol=1e-5, rtol=1e-5)


def test_scores_keep_their_precision_under_autocast():
    torch.manual_seed(0)
    generator, difference = MaskGenerator(5), torch.rand(2, 5, 3, 4)
    with torch.no_grad():
        generator.forward_head.weight.normal_()
    plain = generator("forward", difference)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(generator("forward", difference), plain)
