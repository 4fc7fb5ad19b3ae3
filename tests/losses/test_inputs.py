import numpy as np
import pytest
import torch

import rwtool
from rwtool.losses.inputs import class_indices, plain_tensor, positive_numbers, true_class

LOGITS = torch.zeros(1, 3, 2, 2)


def test_class_indices_are_whole_numbers_without_a_channel():
    labels = torch.tensor([[[0.0, 1.0004], [1.9996, 0.0]]])
    for given in (labels, labels.unsqueeze(1)):
        found = class_indices(given, LOGITS, one_hot=False, check=True)
        assert found.tolist() == [[[0, 1], [2, 0]]]
        assert found.dtype == torch.int64
    with pytest.raises(rwtool.UsageError, match=r"found 0\.0016;"):
        class_indices(labels + 0.0016, LOGITS, one_hot=False, check=True)


def test_one_hot_labels_become_the_index_of_their_channel():
    hot = torch.tensor([[[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 1]]]])
    assert class_indices(hot, LOGITS, one_hot=True, check=True).tolist() == [[[0, 1], [2, 2]]]


def test_true_class_is_0_where_ignored():
    index, kept = true_class(LOGITS, torch.tensor([[[0, 9], [2, 1]]]), 9, True)
    assert index.tolist() == [[[0, 0], [2, 1]]]
    assert kept.tolist() == [[[True, False], [True, True]]]


def test_positive_numbers_of_one_or_of_several_images():
    for given in ((1, 2.5), np.array([1, 2.5]), torch.tensor([1, 2.5])):
        assert positive_numbers("spacing_mm", given).tolist() == [1, 2.5]
    assert positive_numbers("spacing_mm", [[1, 2, 3], [4, 5, 6]]).shape == (2, 3)
    for wrong in ((1,), (1, 2, 3, 4), (1, -2), (1, float("inf")), "xy", [[[1, 2]]]):
        with pytest.raises(rwtool.UsageError, match="spacing_mm= is a positive number for each spatial axis"):
            positive_numbers("spacing_mm", wrong)


def test_a_plain_tensor_shares_the_memory_of_a_subclass():
    parameter = torch.nn.Parameter(torch.ones(3))
    found = plain_tensor("labels", parameter)
    assert type(found) is torch.Tensor
    assert found.data_ptr() == parameter.data_ptr()
    with pytest.raises(rwtool.UsageError, match="labels are a tensor; found list"):
        plain_tensor("labels", [1])
