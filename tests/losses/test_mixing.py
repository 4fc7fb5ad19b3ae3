import numpy as np
import pytest
import torch

import rwtool
from rwtool.losses import mixing


def test_mixtures_are_a_plus_b_and_a_weighted_mean():
    a, b = torch.tensor(3.0), torch.tensor(5.0)
    assert mixing.mix_losses(a, b) == 8
    assert mixing.mix_losses(a, b, 0.25) == 0.75 + 3.75
    assert mixing.mix_losses(a, b, torch.tensor(0.0)) == b


@pytest.mark.parametrize("epochs", [2, 3, 45, 100])
def test_the_gradual_weight_falls_from_1_to_1_percent_in_equal_steps(epochs):
    weights = [mixing.gradual_weight(epoch, epochs) for epoch in range(epochs)]
    assert weights[0] == 1
    assert weights[-1] == pytest.approx(0.01, abs=1e-12)
    np.testing.assert_allclose(np.diff(weights), -0.99 / (epochs - 1), rtol=1e-9)


def test_a_run_of_one_epoch_has_gradual_weight_1():
    assert mixing.gradual_weight(0, 1) == 1


def test_the_authors_weight_falls_by_1_percent_and_stays_at_1_percent():
    found = [mixing.authors_weight(epoch) for epoch in (0, 1, 50, 99, 100, 250)]
    assert found == [1, 0.99, 0.5, 0.01, 0.01, 0.01]


@pytest.mark.parametrize("arguments", [(3, 3), (-1, 3), (0, 0)])
def test_an_epoch_that_is_not_there_is_refused(arguments):
    with pytest.raises(
        rwtool.UsageError, match=f"found epoch={arguments[0]} of epochs={arguments[1]}; give one from 0"
    ):
        mixing.gradual_weight(*arguments)
    with pytest.raises(rwtool.UsageError, match="found epoch=-1; give one from 0 on"):
        mixing.authors_weight(-1)
