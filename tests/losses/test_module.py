import copy
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rwtool
from rwtool import RegionWiseLoss

torch.set_num_threads(1)

IGNORE = 255
SPACING = {2: (1.0, 1.5), 3: (2.0, 1.0, 1.5)}
WEIGHTS = {1: 2.5, 2: 0.5}
SHAPES = {2: (6, 7), 3: (4, 6, 5)}
MAKERS = {
    "rrw": rwtool.rrw_map,
    "boundary": rwtool.boundary_map,
    "ac": rwtool.ac_map,
    "hd": rwtool.hd_map,
    "constant": rwtool.constant_map,
    "skeleton": rwtool.skeleton_map,
}
MATRIX = ((0.0, 1.0, 2.0), (1.5, -1.0, 1.0), (3.0, 1.0, 0.5))


def batch(axes, *, n_classes=3, ignore=None, images=2, seed=0):
    """Labels (B, *spatial) and logits in float64."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, (images, *SHAPES[axes]))
    if ignore is not None:
        labels[rng.random(labels.shape) < 0.2] = ignore
    return torch.from_numpy(labels), torch.from_numpy(2 * rng.normal(size=(images, n_classes, *SHAPES[axes])))


def maps(kind, labels, spacing=None, *, n_classes=3, **options):
    """Maps of a batch, by the functions for one array."""
    spacing = SPACING[labels.ndim - 1] if spacing is None else spacing
    if kind not in ("ac", "constant"):
        options["spacing_mm"] = spacing if len(spacing) == 3 else (1.0, *spacing)
    made = [MAKERS[kind](image, n_classes=n_classes, **options) for image in labels.numpy()]
    return torch.from_numpy(np.stack(made))


def dense_loss(kind, logits, z, labels, ignore=None):
    loss = rwtool.hausdorff_loss if kind == "hd" else rwtool.region_wise_loss
    return loss(logits, z, labels, ignore=ignore)


def gradient(loss, logits, *arguments):
    x = logits.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(x, *arguments), x)
    return result


@pytest.mark.parametrize("ignore", [None, IGNORE])
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("kind", list(MAKERS))
def test_the_loss_is_that_of_the_maps_that_the_functions_make(kind, axes, ignore):
    labels, logits = batch(axes, ignore=ignore)
    loss = RegionWiseLoss(kind, spacing_mm=SPACING[axes], ignore=ignore)
    found = loss(logits, labels)
    if kind in ("boundary", "hd"):
        assert found == dense_loss(kind, logits, maps(kind, labels, ignore=ignore), labels, ignore)
    else:
        own = maps(kind, labels, ignore=ignore, layout="packed")
        others = [0.0 if kind == "skeleton" else 1.0] * 3
        assert found == rwtool.packed_region_wise_loss(logits, own, labels, others, ignore=ignore)
    dense = dense_loss(kind, logits, maps(kind, labels, ignore=ignore), labels, ignore)
    torch.testing.assert_close(found, dense, rtol=1e-6, atol=1e-7)


def test_a_slice_by_hand():
    """Own values at 2 mm are -1, -1/2 and -1, other values 1: at uniform softmax a voxel counts (own + 1) / 2."""
    labels = torch.tensor([[[0, 0, 1]]])
    loss = RegionWiseLoss(spacing_mm=(1.0, 2.0))
    assert loss(torch.zeros(1, 2, 1, 3), labels).item() == pytest.approx((0 + 0.25 + 0) / 3 / 2)
    boundary = RegionWiseLoss("boundary", spacing_mm=(1.0, 2.0))
    # class 0: -4, -2, 2; class 1: 4, 2, -2
    right = torch.tensor([[[[9.0, 9, -9]], [[-9.0, -9, 9]]]]) * 100
    assert boundary(right, labels).item() == pytest.approx(-(4 + 2 + 2) / 2 / 3)
    assert boundary(-right, labels).item() == pytest.approx((4 + 2 + 2) / 2 / 3)
    assert RegionWiseLoss("hd", spacing_mm=(1.0, 2.0))(-right, labels).item() == pytest.approx((16 + 4 + 4) / 3)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("rrw", {"convention": "inner"}),
        ("rrw", {"convention": "kervadec", "units": "voxel"}),
        ("rrw", {"dims": 2}),
        ("boundary", {"convention": "inner", "absent": "farthest"}),
        ("boundary", {"units": "voxel", "dims": 2}),
        ("hd", {"alpha": 1.5, "absent": "farthest"}),
        ("constant", {"alpha": 0.5, "beta": 3.0}),
        ("rrw", {"profile": "reversed"}),
        ("rrw", {"profile": "exp", "sigma": 2.0}),
        ("rrw", {"instances": True}),
        ("rrw", {"instances": True, "dims": 2, "class_weights": WEIGHTS}),
        ("ac", {"instances": True}),
        ("constant", {"instances": True, "beta": 2.0}),
        ("skeleton", {"dims": 2, "units": "voxel"}),
    ],
)
def test_every_option_is_that_of_the_maps(kind, options):
    labels, logits = batch(3)
    labels[0][labels[0] == 2] = 1
    found = RegionWiseLoss(kind, spacing_mm=SPACING[3], **options)(logits, labels)
    dense = dense_loss(kind, logits, maps(kind, labels, **options), labels)
    torch.testing.assert_close(found, dense, rtol=1e-6, atol=1e-7)
    assert found != RegionWiseLoss(kind, spacing_mm=SPACING[3])(logits, labels)


@pytest.mark.parametrize("ignore", [None, IGNORE])
@pytest.mark.parametrize("axes", [2, 3])
def test_a_matrix_is_taken_as_it_is_and_needs_no_spacing(axes, ignore):
    labels, logits = batch(axes, ignore=ignore)
    loss = RegionWiseLoss("matrix", spacing_mm=None, matrix=MATRIX, ignore=ignore)
    expected = rwtool.matrix_loss(logits, labels, MATRIX, ignore=ignore)
    torch.testing.assert_close(loss(logits, labels), expected)
    z = torch.from_numpy(np.stack([rwtool.matrix_map(image, matrix=MATRIX, ignore=ignore) for image in labels.numpy()]))
    torch.testing.assert_close(loss(logits, labels, z), expected)
    with pytest.raises(rwtool.UsageError, match=r"matrix= is of 3 classes; found 2: give a row for each"):
        loss(logits[:, :2], labels.clamp(max=1))


@pytest.mark.parametrize("map_in_labels", [False, True])
def test_own_and_other_values_of_components_are_taken_as_they_are_packed(map_in_labels):
    labels, logits = batch(3)
    both = maps("rrw", labels, instances=True, layout="packed")
    options = {"spacing_mm": SPACING[3], "instances": True, "layout": "packed"}
    made = RegionWiseLoss(**options)(logits, labels)
    loss = RegionWiseLoss(**options, map_in_labels=map_in_labels)
    arguments = (torch.cat((labels[:, None].float(), both), dim=1),) if map_in_labels else (labels, both)
    torch.testing.assert_close(loss(logits, *arguments), made)
    images = RegionWiseLoss(**options, map_in_labels=map_in_labels, reduction="none")(logits, *arguments)
    torch.testing.assert_close(images.mean(), made)


@pytest.mark.parametrize("instances", [False, True])
def test_packed_maps_of_other_instances_are_refused(instances):
    labels, logits = batch(3)
    other = maps("rrw", labels, instances=not instances, layout="packed")
    loss = RegionWiseLoss(spacing_mm=SPACING[3], instances=instances, layout="packed")
    with pytest.raises(rwtool.UsageError, match=f"with instances={instances} packed maps hold .* the same instances="):
        loss(logits, labels, other)


@pytest.mark.parametrize("kind", ["rrw", "ac", "constant"])
def test_class_weights_are_factors_on_the_other_value(kind):
    labels, logits = batch(3)
    found = RegionWiseLoss(kind, spacing_mm=SPACING[3], class_weights=WEIGHTS)(logits, labels)
    own = maps(kind, labels, class_weights=WEIGHTS, layout="packed")
    assert found == rwtool.packed_region_wise_loss(logits, own, labels, [1.0, 2.5, 0.5])
    heavy = RegionWiseLoss(kind, spacing_mm=SPACING[3], class_weights={0: 3.0})(logits, labels)
    assert heavy == rwtool.packed_region_wise_loss(logits, own, labels, [3.0, 1.0, 1.0])


def test_slices_may_lie_across_any_axis():
    labels, logits = batch(3)
    turned = RegionWiseLoss("boundary", spacing_mm=(1.0, 1.5, 2.0), dims=2, slice_axis=2)
    straight = RegionWiseLoss("boundary", spacing_mm=(2.0, 1.0, 1.5), dims=2)
    found = turned(logits.permute(0, 1, 3, 4, 2), labels.permute(0, 2, 3, 1))
    torch.testing.assert_close(found, straight(logits, labels))


def test_each_image_may_have_a_spacing_of_its_own():
    labels, logits = batch(3)
    rows = [[2.0, 1.0, 1.0], [1.0, 3.0, 1.0]]
    each = [
        RegionWiseLoss("boundary", spacing_mm=row)(logits[b : b + 1], labels[b : b + 1]) for b, row in enumerate(rows)
    ]
    expected = torch.stack(each)
    made = RegionWiseLoss("boundary", spacing_mm=rows, reduction="none")
    called = RegionWiseLoss("boundary", spacing_mm=None, reduction="none")
    assert torch.equal(made(logits, labels), expected)
    assert torch.equal(called(logits, labels, spacing_mm=torch.tensor(rows)), expected)
    assert called(logits, labels, spacing_mm=(2, 1, 1))[0] == expected[0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.float32])
def test_labels_may_be_of_any_type_and_have_a_channel(dtype):
    labels, logits = batch(2, ignore=IGNORE)
    loss = RegionWiseLoss(spacing_mm=SPACING[2], ignore=IGNORE, mixed_with="ce")
    assert loss(logits, labels.to(dtype)) == loss(logits, labels)
    assert loss(logits, labels.to(dtype).unsqueeze(1)) == loss(logits, labels)


def test_floats_are_rounded_as_those_of_files_are():
    labels, logits = batch(2)
    loss = RegionWiseLoss(spacing_mm=SPACING[2])
    assert loss(logits, labels - 1e-4) == loss(logits, labels)


def test_one_hot_labels_are_those_of_their_channel():
    labels, logits = batch(3)
    hot = nn.functional.one_hot(labels, 3).movedim(-1, 1)
    loss = RegionWiseLoss("boundary", spacing_mm=SPACING[3], one_hot=True, mixed_with="dice")
    expected = RegionWiseLoss("boundary", spacing_mm=SPACING[3], mixed_with="dice")(logits, labels)
    for dtype in (torch.bool, torch.int64, torch.float32):
        assert loss(logits, hot.to(dtype)) == expected


@pytest.mark.parametrize("kind", list(MAKERS))
def test_given_maps_are_used_as_they_are(kind):
    labels, logits = batch(3, n_classes=2, ignore=IGNORE)
    z = maps(kind, labels, n_classes=2, ignore=IGNORE) * 2
    loss = RegionWiseLoss(kind, spacing_mm=None, ignore=IGNORE)
    assert loss(logits, labels, z) == dense_loss(kind, logits, z, labels, IGNORE)
    both = torch.cat([labels.unsqueeze(1), z], dim=1)
    stacked = RegionWiseLoss(kind, spacing_mm=None, ignore=IGNORE, map_in_labels=True)
    assert stacked(logits, both) == loss(logits, labels, z)


def test_given_packed_maps_are_own_values_with_or_without_a_channel():
    labels, logits = batch(3, ignore=IGNORE)
    own = maps("rrw", labels, ignore=IGNORE, layout="packed")
    loss = RegionWiseLoss(spacing_mm=SPACING[3], ignore=IGNORE, layout="packed", class_weights=WEIGHTS)
    expected = loss(logits, labels)
    assert loss(logits, labels, own) == loss(logits, labels, own.unsqueeze(1)) == expected
    stacked = RegionWiseLoss(spacing_mm=None, ignore=IGNORE, layout="packed", class_weights=WEIGHTS, map_in_labels=True)
    assert stacked(logits, torch.stack([labels, own], dim=1)) == expected


@pytest.mark.parametrize(("name", "common"), [("dice", rwtool.dice_loss), ("ce", rwtool.cross_entropy_loss)])
def test_mixtures(name, common):
    labels, logits = batch(2, ignore=IGNORE)
    cut = {"spacing_mm": SPACING[2], "ignore": IGNORE}
    a, b = common(logits, labels, ignore=IGNORE), RegionWiseLoss(**cut)(logits, labels)
    assert RegionWiseLoss(**cut, mixed_with=name)(logits, labels) == a + b
    gradual = RegionWiseLoss(**cut, mixed_with=name, mix="gradual", epochs=3)
    authors = RegionWiseLoss(**cut, mixed_with=name, mix="gradual", schedule="authors")
    for loss, weights in ((gradual, {0: 1, 1: 0.505, 2: 0.01}), (authors, {0: 1, 30: 0.7, 200: 0.01})):
        assert loss(logits, labels) == a
        for epoch, weight in weights.items():
            loss.epoch = epoch
            assert loss.epoch == epoch
            assert loss(logits, labels).item() == pytest.approx((weight * a + (1 - weight) * b).item(), rel=1e-6)
    with pytest.raises(rwtool.UsageError, match="epoch=3 of epochs=3"):
        gradual.epoch = 3
    assert gradual.epoch == 2


def test_reductions_are_over_images():
    labels, logits = batch(2, ignore=IGNORE, images=3)
    cut = {"kind": "boundary", "spacing_mm": SPACING[2], "ignore": IGNORE, "mixed_with": "dice"}
    each = RegionWiseLoss(**cut, reduction="none")(logits, labels)
    assert each.shape == (3,)
    for b in range(3):
        assert each[b] == RegionWiseLoss(**cut)(logits[b : b + 1], labels[b : b + 1])
    torch.testing.assert_close(RegionWiseLoss(**cut)(logits, labels), each.mean())
    torch.testing.assert_close(RegionWiseLoss(**cut, reduction="sum")(logits, labels), each.sum())


@pytest.mark.parametrize("kind", list(MAKERS))
def test_one_sigmoid_channel_is_the_softmax_of_0_and_it(kind):
    labels, logits = batch(2, n_classes=2)
    x = logits[:, 1:]
    both = torch.cat([torch.zeros_like(x), x], dim=1)
    one = RegionWiseLoss(kind, spacing_mm=SPACING[2], mixed_with="ce", sigmoid=True)
    two = RegionWiseLoss(kind, spacing_mm=SPACING[2], mixed_with="ce")
    assert one(x, labels) == two(both, labels)
    torch.testing.assert_close(gradient(one, x, labels), gradient(two, both, labels)[:, 1:])


@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_coarser_level_has_the_spacing_of_its_share_of_the_shape(kind):
    labels, logits = batch(3)
    loss = RegionWiseLoss(kind, spacing_mm=(2.0, 1.0, 1.5), shape=(8, 6, 10))
    level = RegionWiseLoss(kind, spacing_mm=(4.0, 1.0, 3.0))  # labels are (4, 6, 5)
    assert loss(logits, labels) == level(logits, labels)


def test_one_loss_serves_all_levels_of_deep_supervision():
    rng = np.random.default_rng(3)
    labels = torch.from_numpy(rng.integers(0, 3, (2, 1, 8, 12))).float()
    loss = RegionWiseLoss("boundary", spacing_mm=(1.0, 0.5), shape=(8, 12))
    for size, mm in (((8, 12), (1.0, 0.5)), ((4, 6), (2.0, 1.0)), ((4, 3), (2.0, 2.0))):
        level = nn.functional.interpolate(labels, size=size, mode="nearest-exact")
        logits = torch.from_numpy(rng.normal(size=(2, 3, *size)))
        z = maps("boundary", level[:, 0].long(), mm)
        assert loss(logits, level) == rwtool.region_wise_loss(logits, z)


@pytest.mark.parametrize("kind", list(MAKERS))
@pytest.mark.parametrize("mixed_with", [None, "dice", "ce"])
def test_gradients_are_those_of_differences(kind, mixed_with):
    labels, logits = batch(2, ignore=IGNORE, images=1)
    loss = RegionWiseLoss(kind, spacing_mm=SPACING[2], ignore=IGNORE, mixed_with=mixed_with)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits.requires_grad_())
    found = gradient(loss, logits.detach(), labels)
    where = (labels == IGNORE).unsqueeze(1).expand_as(found)
    assert where.any()
    assert not found[where].any()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), axes=st.sampled_from([2, 3]), factor=st.floats(0.1, 10))
def test_how_the_losses_follow_the_spacing(seed, axes, factor):
    """Rrw is free of scale, boundary is linear in it, hd square; a flip of everything changes nothing."""
    labels, logits = batch(axes, seed=seed)
    for kind, power in (("rrw", 0), ("boundary", 1), ("hd", 2), ("ac", 0), ("constant", 0)):
        one = RegionWiseLoss(kind, spacing_mm=SPACING[axes])(logits, labels)
        scaled = RegionWiseLoss(kind, spacing_mm=np.multiply(SPACING[axes], factor))(logits, labels)
        torch.testing.assert_close(scaled, one * factor**power, rtol=1e-5, atol=1e-6 * factor**power)
        flipped = RegionWiseLoss(kind, spacing_mm=SPACING[axes])(logits.flip(-1), labels.flip(-1))
        torch.testing.assert_close(flipped, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inside_autocast_the_loss_stays_in_float32(dtype):
    labels, logits = batch(3)
    half = logits.to(dtype)
    loss = RegionWiseLoss("hd", spacing_mm=(200.0, 200.0, 200.0), mixed_with="dice")  # mm^2 overflow float16
    with torch.autocast("cpu", dtype=dtype):
        found = loss(half, labels)
    assert found.dtype == torch.float32
    assert found == loss(half.float(), labels)


def compiled(function, **options):
    try:
        return torch.compile(function, backend="eager", **options)
    except RuntimeError as error:
        pytest.skip(f"torch.compile does not run here: {error}")


@pytest.mark.parametrize("kind", list(MAKERS))
def test_the_map_is_made_outside_a_compiled_graph(kind):
    torch.compiler.reset()
    labels, logits = batch(3, ignore=IGNORE)
    loss = RegionWiseLoss(kind, spacing_mm=SPACING[3], ignore=IGNORE, mixed_with="dice")
    assert compiled(loss)(logits, labels.float()) == loss(logits, labels)
    z = maps(kind, labels, ignore=IGNORE)
    assert compiled(loss, fullgraph=True)(logits, labels, z) == loss(logits, labels, z)
    if kind in ("ac", "constant"):  # no distances, so nothing to leave the graph for
        assert compiled(loss, fullgraph=True)(logits, labels) == loss(logits, labels)


def test_a_new_epoch_makes_no_new_graph():
    torch.compiler.reset()
    labels, logits = batch(2)
    loss = RegionWiseLoss("ac", spacing_mm=None, mixed_with="ce", mix="gradual", epochs=5)
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    try:
        fast = torch.compile(loss, backend=backend)
    except RuntimeError as error:
        pytest.skip(f"torch.compile does not run here: {error}")
    for epoch in range(5):
        loss.epoch = epoch
        assert fast(logits, labels) == loss(logits, labels)
    assert len(graphs) == 1


def test_a_label_that_is_no_class_is_refused_in_a_compiled_graph_too():
    torch.compiler.reset()
    labels, logits = batch(2)
    labels[1, 2, 3] = 7
    loss = compiled(RegionWiseLoss(spacing_mm=SPACING[2]))
    with pytest.raises(rwtool.VolumeError, match=r"found 7 at \(z, y, x\) = \(0, 2, 3\)"):
        loss(logits, labels)


class WithLoss(nn.Module):
    """A network that knows its loss, as some frameworks wrap them."""

    def __init__(self):
        super().__init__()
        self.net, self.loss = nn.Conv2d(1, 3, 1), RegionWiseLoss(spacing_mm=(1.0, 1.0))

    def forward(self, image, labels):
        return self.loss(self.net(image), labels)


def test_distributed_data_parallel_takes_it_into_a_network(tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = WithLoss()
        image, labels = torch.rand(2, 1, 6, 6), torch.arange(72).reshape(2, 6, 6) % 3
        nn.parallel.DistributedDataParallel(model)(image, labels).backward()
        found = model.net.weight.grad.clone()
        model.zero_grad()
        model(image, labels).backward()
        assert torch.equal(model.net.weight.grad, found)
    finally:
        torch.distributed.destroy_process_group()


def test_a_loss_has_no_state_and_can_be_copied_and_pickled():
    labels, logits = batch(3)
    loss = RegionWiseLoss(spacing_mm=SPACING[3], mixed_with="ce", mix="gradual", epochs=4, class_weights=WEIGHTS)
    loss.epoch = 2
    assert not loss.state_dict()
    assert not list(loss.parameters())
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert other.epoch == 2
        assert other(logits, labels) == loss(logits, labels)
    assert repr(loss) == (
        "RegionWiseLoss(kind=rrw, spacing_mm=[2.0, 1.0, 1.5], mixed_with=ce, mix=gradual, reduction=mean)"
    )


def test_tensors_that_carry_metadata_give_a_plain_loss():
    class Tagged(torch.Tensor):
        pass

    labels, logits = batch(2)
    loss = RegionWiseLoss(spacing_mm=SPACING[2])
    x = logits.clone().requires_grad_()
    found = loss(x.as_subclass(Tagged), labels.as_subclass(Tagged))
    assert type(found) is torch.Tensor
    found.backward()
    torch.testing.assert_close(x.grad, gradient(loss, logits, labels))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "rw"}, "kind= is one of ac, boundary, constant, hd, matrix, rrw, skeleton; found 'rw'"),
        ({"kind": "matrix"}, "a matrix map is its K x K numbers; give matrix="),
        ({"matrix": MATRIX}, "matrix= belongs to matrix maps; it has no meaning for rrw"),
        ({"kind": "hd", "instances": True}, "instances= belongs to ac and constant and rrw and skeleton maps"),
        ({"kind": "hd", "profile": "exp"}, "profile= belongs to rrw maps; it has no meaning for hd"),
        ({"sigma": 2.0}, "sigma belongs to profile=exp; found profile=linear"),
        ({"reduction": "max"}, "reduction= is one of mean, sum, none; found 'max'"),
        ({"mixed_with": "focal"}, "mixed_with= is one of dice, ce; found 'focal'"),
        ({"mix": "gradual"}, "give mixed_with=dice or mixed_with=ce too"),
        ({"mixed_with": "ce", "epochs": 3}, "belong to mix=gradual; give that too"),
        ({"mixed_with": "ce", "mix": "gradual"}, "give one of the two"),
        ({"mixed_with": "ce", "mix": "gradual", "schedule": "authors", "epochs": 3}, "give one of the two"),
        ({"kind": "hd", "layout": "packed"}, "layout=packed is for ac, constant, rrw, skeleton maps; hd"),
        ({"kind": "hd", "convention": "inner"}, "convention= belongs to boundary and rrw maps"),
        ({"kind": "hd", "class_weights": {1: 2.0}}, "class_weights= belongs to ac and constant and rrw maps"),
        ({"class_weights": {"1": 2.0}}, "takes class indices from 0 to factors; found '1'"),
        ({"class_weights": {1: -2.0}}, "class weights are positive numbers; found -2"),
        ({"one_hot": True, "ignore": 255}, "ignore=255 needs labels that are values"),
        ({"one_hot": True, "map_in_labels": True}, "map_in_labels=True needs labels that are values"),
        ({"slice_axis": 1}, "slice_axis=1 is the axis across slices of dims=2"),
        ({"slice_axis": 3, "dims": 2}, "slice_axis= is one of 0, 1, 2; found 3"),
        ({"spacing_mm": (1, 0)}, "spacing_mm= is a positive number for each spatial axis"),
        ({"spacing_mm": 1.0}, "spacing_mm= is a positive number for each spatial axis"),
        ({"spacing_mm": (1, float("nan"))}, "spacing_mm= is a positive number for each spatial axis"),
        ({"spacing_mm": "mm"}, "spacing_mm= is a positive number for each spatial axis"),
        ({"shape": (0, 4)}, "shape= is a positive number for each spatial axis"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(rwtool.UsageError, match=re.escape(message)):
        RegionWiseLoss(**{"spacing_mm": (1.0, 1.0), **options})


def test_the_spacing_has_no_default():
    with pytest.raises(TypeError, match="spacing_mm"):
        RegionWiseLoss("rrw")


def changed(labels, value, dtype=torch.int64):
    other = labels.to(dtype)
    other[1, 2, 3] = value
    return other


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, lambda x, y: (x, changed(y, 3)), "the labels hold 3; logits of 3 classes take labels 0..2"),
        ({}, lambda x, y: (x, changed(y, -1)), "or give ignore=-1 if those voxels have no class"),
        ({}, lambda x, y: (x, changed(y, 0.5, torch.float32)), "found 0.5; resample them by nearest"),
        ({}, lambda x, y: (x, changed(y, np.nan, torch.float32)), "found nan; resample them by nearest"),
        ({}, lambda x, y: (x, y[:, :-1]), "labels are (B, *spatial) = (2, 6, 7), by the logits"),
        ({}, lambda x, y: (x, x), "give one_hot=True if their channels are classes"),
        ({"one_hot": True}, lambda x, y: (x, y), "one-hot labels: expected (B, K, *spatial) = (2, 3, 6, 7)"),
        ({"one_hot": True}, lambda x, y: (x, torch.ones_like(x)), "1 in the channel of the class and 0 in all others"),
        ({"one_hot": True}, lambda x, y: (x, x), "1 in the channel of the class and 0 in all others"),
        ({}, lambda x, y: (x[:, :1], y), "give sigmoid=True if it is that of the foreground"),
        ({"sigmoid": True}, lambda x, y: (x, y), "with sigmoid=True logits have one channel"),
        ({}, lambda x, y: (x[0], y[0]), "logits are (B, K, Y, X) or (B, K, Z, Y, X), K the classes"),
        ({}, lambda x, y: (x[:0], y[:0]), "K >= 2, none of it empty"),
        ({}, lambda x, y: (x.long(), y), "takes logits as a tensor of floats; found torch.int64"),
        ({}, lambda x, y: (x, y.numpy()), "labels are a tensor; found ndarray"),
        ({}, lambda x, y: (x, y, x[:, :1]), "a dense map: expected (B, K, *spatial) = (2, 3, 6, 7)"),
        ({"layout": "packed"}, lambda x, y: (x, y, x), "found maps of shape (2, 3, 6, 7)"),
        ({"map_in_labels": True}, lambda x, y: (x, y), "labels are (B, 1 + C, *spatial)"),
        ({"map_in_labels": True}, lambda x, y: (x, x, x), "the labels hold the maps; found maps besides"),
        ({"spacing_mm": None}, lambda x, y: (x, y), "give spacing_mm= to this call, or maps"),
        ({"spacing_mm": (1, 1, 1)}, lambda x, y: (x, y), "one number for each spatial axis of the labels, (2,)"),
        ({"spacing_mm": [(1, 1)] * 3}, lambda x, y: (x, y), "such a row for each image, (2, 2); found shape (3, 2)"),
        ({"shape": (6, 6)}, lambda x, y: (x, y), "that of labels of shape=(6, 6), and of coarser ones"),
        ({"shape": (6, 7, 8)}, lambda x, y: (x, y), "that of labels of shape=(6, 7, 8)"),
        ({"class_weights": {3: 2.0}}, lambda x, y: (x, y), "class_weights= names class 3; logits of 3 classes"),
    ],
)
def test_what_does_not_belong_together_is_refused(options, arguments, message):
    labels, logits = batch(2)
    loss = RegionWiseLoss(**{"spacing_mm": (1.0, 1.0), **options})
    with pytest.raises(rwtool.UsageError, match=re.escape(message)):
        loss(*arguments(logits, labels))
