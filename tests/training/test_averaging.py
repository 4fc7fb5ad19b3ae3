import pytest
import torch
from torch import nn

from rwtool.training.averaging import average_decay, move_average

torch.set_num_threads(1)


def network(weight, mean, batches):
    """A batch norm of one feature."""
    norm = nn.BatchNorm1d(1)
    nn.init.constant_(norm.weight, weight)
    norm.running_mean.fill_(mean)
    norm.num_batches_tracked.fill_(batches)
    return norm


def test_the_decay_grows_from_a_tenth_to_what_is_asked_for():
    assert [average_decay(0.9, step) for step in (0, 8, 80, 1000)] == [0.1, 0.5, 0.9, 0.9]
    assert average_decay(0.05, 0) == 0.05


def test_the_average_of_weights_and_statistics_is_that_by_hand():
    averaged = network(0, 0, 0)
    for step, (weight, mean) in enumerate([(1, 10), (2, 20), (3, 30)]):
        move_average(averaged, network(weight, mean, step + 1), 0.15, step)
    # decays 0.1, 0.15 (2/11 is more) and 0.15
    expected = 0.15 * (0.15 * (0.9 * 1) + 0.85 * 2) + 0.85 * 3
    assert averaged.weight.item() == pytest.approx(expected)
    assert averaged.running_mean.item() == pytest.approx(10 * expected)
    assert averaged.num_batches_tracked.item() == 3


def test_the_network_itself_is_left_alone():
    trained = network(5, 5, 5)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    move_average(network(1, 1, 1), trained, 0.9, 0)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
