from itertools import product

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import rwtool
from rwtool.losses import functional as losses

torch.set_num_threads(1)

IGNORE = 255
SPACING = (2.0, 1.0, 1.5)
MATRIX = 1.0 - 1.5 * np.eye(5) + np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0) ** 1.5)) / 4
OTHERS = {2: [1.0, 2.5], 3: [1.0, 0.5, 3.0], 4: [0.7, 1.0, 2.0, 4.0], 5: [1.0, 1.0, 2.0, 0.3, 5.0]}


def volumes(n_classes, *, shape=(2, 3, 5, 4), ignore=None, seed=0):
    """Labels (B, Z, Y, X) with every class in each image, a fifth of the voxels ignored, and logits in float64."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, shape)
    labels.reshape(shape[0], -1)[:, :n_classes] = np.arange(n_classes)
    if ignore is not None:
        where = rng.random(shape) < np.linspace(0.1, 0.4, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        where.reshape(shape[0], -1)[:, :n_classes] = False
        labels[where] = ignore
    logits = 2 * rng.normal(size=(shape[0], n_classes, *shape[1:]))
    return labels, logits


def maps(make, labels, n_classes, ignore=None, **options):
    """A map of each volume of a batch."""
    if make not in (rwtool.ac_map, rwtool.constant_map):
        options["spacing_mm"] = SPACING
    return np.stack([make(part, n_classes=n_classes, ignore=ignore, **options) for part in labels])


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def tensors(*arrays):
    return [torch.as_tensor(array) for array in arrays]


def value_and_gradient(loss, logits, *arguments, **options):
    x = torch.as_tensor(logits).clone().requires_grad_()
    value = loss(x, *tensors(*arguments), **options)
    (gradient,) = torch.autograd.grad(value, x)
    return value.item(), gradient


def softmax_of(*probabilities):
    """Logits (1, K, 1) with this softmax at their one voxel."""
    return torch.tensor(probabilities, dtype=torch.float64).log().reshape(1, -1, 1)


# Every loss by loops over voxels, straight from the definitions.


def voxel_mean(labels, ignore, term):
    """Mean over images of the mean over voxels of ``term(b, voxel, label)``."""
    means = []
    for b, image in enumerate(labels):
        terms = [term(b, v, int(image[v])) for v in np.ndindex(image.shape) if image[v] != ignore]
        means.append(sum(terms) / len(terms))
    return float(np.mean(means))


def np_region_wise(y, labels, ignore, z, power=1):
    return voxel_mean(
        labels, ignore, lambda b, v, _: sum(y[(b, k, *v)] ** power * z[(b, k, *v)] for k in range(y.shape[1]))
    )


def np_log(y, labels, ignore, weight):
    return voxel_mean(labels, ignore, lambda b, v, k: -weight(b, v, y[(b, k, *v)]) * np.log(y[(b, k, *v)]))


def np_dice(y, labels, ignore):
    found = []
    for b, k in product(range(y.shape[0]), range(y.shape[1])):
        kept = labels[b] != ignore
        a, t = y[b, k][kept], (labels[b] == k)[kept]
        found.append(2 * (a * t).sum() / (a.sum() + t.sum() + 1e-6))
    return 1 - float(np.mean(found))


def np_surface(y, labels, ignore, z, weights=None):
    found = []
    for b, image in enumerate(labels):
        right = whole = 0.0
        for k in range(y.shape[1]):
            size = (image == k).sum()
            weight = (1 / size**2 if size else 0) if weights is None else weights[k]
            for v in np.ndindex(image.shape):
                if image[v] != ignore:
                    right += weight * (z[(b, k, *v)] * (1 - (image[v] == k) - y[(b, k, *v)])) ** 2
                    whole += weight * z[(b, k, *v)] ** 2
        found.append(1 - right / whole if whole else 0)
    return float(np.mean(found))


def on_the_edge(image, v, ignore):
    """Whether a voxel has a face neighbour of another class, or the edge of the image beside it."""
    for axis, step in product(range(image.ndim), (-1, 1)):
        beside = tuple(n + step * (axis == a) for a, n in enumerate(v))
        if image.shape[axis] == 1:
            continue
        if not 0 <= beside[axis] < image.shape[axis] or image[beside] not in (image[v], ignore):
            return True
    return False


def np_dou(y, labels, ignore):
    found = []
    for (b, image), k in product(enumerate(labels), range(y.shape[1])):
        kept, t = image != ignore, image == k
        edge = sum(on_the_edge(image, v, ignore) for v in map(tuple, np.argwhere(t)))
        alpha = min(1 - 2 * edge / t.sum(), 0.8) if t.any() else -1
        p, overlap = (y[b, k] ** 2)[kept].sum() + 1e-5, y[b, k][t].sum()
        found.append((p + t.sum() - 2 * overlap) / (p + t.sum() - (1 + alpha) * overlap))
    return float(np.mean(found))


def np_length(y, labels, ignore):
    def term(b, v, _):
        total = 0.0
        for k in range(y.shape[1]):
            squares = 1e-8
            for axis in range(len(v)):
                after = tuple(n + (axis == a) for a, n in enumerate(v))
                if after[axis] < labels.shape[axis + 1] and labels[(b, *after)] != ignore:
                    squares += (y[(b, k, *after)] - y[(b, k, *v)]) ** 2
            total += np.sqrt(squares)
        return total / y.shape[1]

    return voxel_mean(labels, ignore, term)


def np_active_contour(y, labels, ignore, others):
    return voxel_mean(labels, ignore, lambda b, v, k: others[k] * (1 - y[(b, k, *v)]) / y.shape[1])


def every_loss(labels, n_classes, ignore=None, **more):
    """Name -> (loss of the logits, the same in NumPy of the softmax), on the maps of these labels."""
    z = maps(rwtool.boundary_map, labels, n_classes, ignore)
    hd = maps(rwtool.hd_map, labels, n_classes, ignore)
    weights = dict(enumerate(OTHERS[n_classes]))
    rrw = maps(rwtool.rrw_map, labels, n_classes, ignore, class_weights=weights)
    own = maps(rwtool.rrw_map, labels, n_classes, ignore, class_weights=weights, layout="packed")
    others = np.array(OTHERS[n_classes])
    divided = {"class_weights": weights, "instances": True}
    parts = maps(rwtool.rrw_map, labels, n_classes, ignore, **divided)
    both = torch.as_tensor(maps(rwtool.rrw_map, labels, n_classes, ignore, **divided, layout="packed"))
    matrix = MATRIX[:n_classes, :n_classes]
    far = np.stack([rwtool.matrix_map(part, matrix=matrix, ignore=ignore) for part in labels])
    t_labels, t_z, t_hd, t_own, t_others = tensors(labels.astype(np.uint8), z, hd, own, others)
    cut = {"ignore": ignore, **more}
    return {
        "rw": (
            lambda x: rwtool.region_wise_loss(x, t_z, t_labels, **cut),
            lambda y: np_region_wise(y, labels, ignore, z) / n_classes,
        ),
        "packed": (
            lambda x: rwtool.packed_region_wise_loss(x, t_own, t_labels, t_others, **cut),
            lambda y: np_region_wise(y, labels, ignore, rrw) / n_classes,
        ),
        "hd": (
            lambda x: rwtool.hausdorff_loss(x, t_hd, t_labels, **cut),
            lambda y: np_region_wise(y, labels, ignore, hd, power=2),
        ),
        "ac": (
            lambda x: rwtool.active_contour_loss(x, t_labels, **cut),
            lambda y: np_active_contour(y, labels, ignore, np.ones(n_classes)),
        ),
        "ac_weighted_with_length": (
            lambda x: rwtool.active_contour_loss(
                x, t_labels, region_weight=3.0, length=True, other_values=t_others, **cut
            ),
            lambda y: np_length(y, labels, ignore) + 3 * np_active_contour(y, labels, ignore, others),
        ),
        "dice": (lambda x: rwtool.dice_loss(x, t_labels, **cut), lambda y: np_dice(y, labels, ignore)),
        "focal": (
            lambda x: rwtool.focal_loss(x, t_labels, **cut),
            lambda y: np_log(y, labels, ignore, lambda b, v, p: (1 - p) ** 2),
        ),
        "focal_3_5": (
            lambda x: rwtool.focal_loss(x, t_labels, gamma=3, alpha=5, **cut),
            lambda y: np_log(y, labels, ignore, lambda b, v, p: 5 * (1 - p) ** 3),
        ),
        "ce": (
            lambda x: rwtool.cross_entropy_loss(x, t_labels, **cut),
            lambda y: np_log(y, labels, ignore, lambda b, v, p: 1),
        ),
        "wce": (
            lambda x: rwtool.weighted_cross_entropy_loss(x, t_own, t_labels, **(cut | {"check": False})),
            lambda y: np_log(y, labels, ignore, lambda b, v, p: abs(own[(b, *v)])),
        ),
        "wce_dense": (
            lambda x: rwtool.weighted_cross_entropy_loss(x, t_z, t_labels, **(cut | {"check": False})),
            lambda y: np_log(y, labels, ignore, lambda b, v, p: abs(z[(b, int(labels[(b, *v)]), *v)])),
        ),
        "packed_instances": (
            lambda x: rwtool.packed_region_wise_loss(x, both, t_labels, **cut),
            lambda y: np_region_wise(y, labels, ignore, parts) / n_classes,
        ),
        "matrix": (
            lambda x: rwtool.matrix_loss(x, t_labels, matrix, **cut),
            lambda y: np_region_wise(y, labels, ignore, far) / n_classes,
        ),
        "surface": (
            lambda x: rwtool.generalized_surface_loss(x, t_z, t_labels, **cut),
            lambda y: np_surface(y, labels, ignore, z),
        ),
        "surface_weighted": (
            lambda x: rwtool.generalized_surface_loss(x, t_z, t_labels, class_weights=t_others, **cut),
            lambda y: np_surface(y, labels, ignore, z, others),
        ),
        "dou": (lambda x: rwtool.boundary_dou_loss(x, t_labels, **cut), lambda y: np_dou(y, labels, ignore)),
    }


NAMES = list(every_loss(volumes(2)[0], 2))


# Eq. 1 and its packed form


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n_classes", "ignore"), [(2, None), (3, IGNORE), (5, None)])
def test_every_loss_equals_its_definition_voxel_by_voxel(name, n_classes, ignore):
    labels, logits = volumes(n_classes, ignore=ignore)
    loss, oracle = every_loss(labels, n_classes, ignore)[name]
    assert loss(torch.as_tensor(logits)).item() == pytest.approx(oracle(softmax(logits)), rel=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_slices_are_volumes_of_one_slice(name):
    labels, logits = volumes(3, shape=(2, 1, 6, 5), ignore=IGNORE)
    loss, _ = every_loss(labels, 3, IGNORE)[name]
    z, own = (maps(rwtool.boundary_map, labels, 3, IGNORE), maps(rwtool.rrw_map, labels, 3, IGNORE, layout="packed"))
    hd, others = maps(rwtool.hd_map, labels, 3, IGNORE), OTHERS[3]
    divided = {"class_weights": dict(enumerate(others)), "instances": True, "layout": "packed"}
    both = torch.as_tensor(maps(rwtool.rrw_map, labels, 3, IGNORE, **divided))
    x, y, z, own, hd = tensors(logits[:, :, 0], labels[:, 0], z[:, :, 0], own[:, 0], hd[:, :, 0])
    flat = {
        "rw": lambda: losses.region_wise_loss(x, z, y, ignore=IGNORE),
        "packed": lambda: losses.packed_region_wise_loss(x, own, y, others, ignore=IGNORE),
        "hd": lambda: losses.hausdorff_loss(x, hd, y, ignore=IGNORE),
        "ac": lambda: losses.active_contour_loss(x, y, ignore=IGNORE),
        "ac_weighted_with_length": lambda: losses.active_contour_loss(
            x, y, region_weight=3, length=True, other_values=others, ignore=IGNORE
        ),
        "dice": lambda: losses.dice_loss(x, y, ignore=IGNORE),
        "focal": lambda: losses.focal_loss(x, y, ignore=IGNORE),
        "focal_3_5": lambda: losses.focal_loss(x, y, gamma=3, alpha=5, ignore=IGNORE),
        "ce": lambda: losses.cross_entropy_loss(x, y, ignore=IGNORE),
        "wce": lambda: losses.weighted_cross_entropy_loss(x, own, y, ignore=IGNORE),
        "wce_dense": lambda: losses.weighted_cross_entropy_loss(x, z, y, ignore=IGNORE),
        "packed_instances": lambda: losses.packed_region_wise_loss(x, both[:, :, 0], y, ignore=IGNORE),
        "matrix": lambda: losses.matrix_loss(x, y, MATRIX[:3, :3], ignore=IGNORE),
        "surface": lambda: losses.generalized_surface_loss(x, z, y, ignore=IGNORE),
        "surface_weighted": lambda: losses.generalized_surface_loss(x, z, y, class_weights=others, ignore=IGNORE),
        "dou": lambda: losses.boundary_dou_loss(x, y, ignore=IGNORE),
    }[name]()
    assert flat.item() == pytest.approx(loss(torch.as_tensor(logits)).item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ignore", [None, IGNORE])
@pytest.mark.parametrize("n_classes", [2, 3, 4, 5])
@pytest.mark.parametrize("make", [rwtool.rrw_map, rwtool.ac_map, rwtool.constant_map])
def test_packed_equals_dense_in_value_and_gradient(make, n_classes, ignore, dtype):
    labels, logits = volumes(n_classes, ignore=ignore)
    weights = dict(enumerate(OTHERS[n_classes]))
    dense = maps(make, labels, n_classes, ignore, class_weights=weights)
    packed = maps(make, labels, n_classes, ignore, class_weights=weights, layout="packed")
    assert np.isnan(packed).any() == (ignore is not None)
    x = torch.as_tensor(logits, dtype=dtype)
    value, gradient = value_and_gradient(losses.region_wise_loss, x, dense, labels, ignore=ignore)
    packed_value, packed_gradient = value_and_gradient(
        losses.packed_region_wise_loss, x, packed, labels, OTHERS[n_classes], ignore=ignore
    )
    assert abs(gradient).max() > 1e-4
    assert packed_value == pytest.approx(value, abs=1e-6)
    torch.testing.assert_close(packed_gradient, gradient, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)


# Eq. 2 and Section 3.3


def test_gradient_is_eq_2_in_closed_form():
    labels, logits = volumes(4)
    z = maps(rwtool.boundary_map, labels, 4).astype(float)
    y = softmax(logits)
    expected = y * (z - (z * y).sum(axis=1, keepdims=True)) / (4 * labels.size)
    _, gradient = value_and_gradient(losses.region_wise_loss, logits, z)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-15)


def test_gradient_of_the_hausdorff_loss_in_closed_form():
    labels, logits = volumes(4)
    z = maps(rwtool.hd_map, labels, 4).astype(float)
    y = softmax(logits)
    expected = 2 * y * (z * y - (z * y**2).sum(axis=1, keepdims=True)) / labels.size
    _, gradient = value_and_gradient(losses.hausdorff_loss, logits, z)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ignore", [None, IGNORE])
def test_gradcheck_in_float64(name, ignore):
    labels, logits = volumes(3, shape=(2, 2, 3, 3), ignore=ignore)
    loss, _ = every_loss(labels, 3, ignore)[name]
    assert torch.autograd.gradcheck(loss, torch.as_tensor(logits).requires_grad_())


@pytest.mark.parametrize(
    ("z", "gradients", "loss"),
    [
        ([0.0, 0.0, 0.0, -0.6], [0.04, 0.04, 0.07, -0.14], -0.36),
        ([2.0, 2.0, 2.0, -0.6], [0.16, 0.16, 0.31, -0.62], 0.44),
    ],
)
def test_the_numbers_of_section_3_3_are_a_sum_over_classes_and_eq_1_gives_their_quarter(z, gradients, loss):
    logits = softmax_of(0.1, 0.1, 0.2, 0.6)
    dense = torch.tensor(z, dtype=torch.float64).reshape(1, 4, 1)
    value, gradient = value_and_gradient(losses.region_wise_loss, logits, dense)
    assert value == pytest.approx(loss / 4, abs=1e-12)
    assert [round(g, 2) for g in (4 * gradient).flatten().tolist()] == gradients
    y = np.array([0.1, 0.1, 0.2, 0.6])
    np.testing.assert_allclose(gradient.flatten(), y * (z - y @ z) / 4, rtol=1e-12)
    packed = value_and_gradient(losses.packed_region_wise_loss, logits, dense[:, 3], [[3]], [9, 9, 9, z[0]])
    assert packed[0] == pytest.approx(value, abs=1e-12)
    torch.testing.assert_close(packed[1], gradient)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_rectified_maps_have_one_negative_component_at_every_voxel_that_of_the_true_class(n_classes):
    labels, logits = volumes(n_classes)
    for make in (rwtool.rrw_map, rwtool.ac_map, rwtool.constant_map):
        weights = dict(enumerate(OTHERS[n_classes]))
        _, gradient = value_and_gradient(
            losses.region_wise_loss, logits, maps(make, labels, n_classes, class_weights=weights)
        )
        np.testing.assert_array_equal((gradient < 0).sum(dim=1), 1)
        np.testing.assert_array_equal(gradient.argmin(dim=1), labels)


@pytest.mark.parametrize("name", ["packed_instances", "surface", "dou"])
def test_components_keep_a_map_stable_and_the_losses_to_compare_with_are_not(name):
    labels, logits = volumes(3)
    _, gradient = value_and_gradient(every_loss(labels, 3)[name][0], logits)
    negative = (gradient < -1e-9 * gradient.abs().max()).sum(dim=1)
    assert ((negative > 1).sum() > 0) == (name != "packed_instances")
    two, _ = volumes(2)
    _, gradient = value_and_gradient(every_loss(two, 2)[name][0], volumes(2)[1])
    assert ((gradient < 0).sum(dim=1) <= 1).all()


def test_z_12_4_minus_3_raises_a_wrong_class_too():
    z = torch.tensor([12.0, 4.0, -3.0], dtype=torch.float64).reshape(1, 3, 1)
    _, gradient = value_and_gradient(losses.region_wise_loss, torch.zeros(1, 3, 1, dtype=torch.float64), z)
    assert (gradient < 0).flatten().tolist() == [False, True, True]


# Identities


def test_active_contour_region_is_1_less_the_mean_softmax_of_the_true_class_over_k():
    labels, logits = volumes(4)
    p = np.take_along_axis(softmax(logits), labels[:, None], axis=1)
    expected = (1 - p.mean()) / 4
    value, gradient = value_and_gradient(losses.active_contour_loss, logits, labels)
    assert value == pytest.approx(expected, rel=1e-12)
    dense = value_and_gradient(losses.region_wise_loss, logits, maps(rwtool.ac_map, labels, 4))
    assert dense[0] == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(dense[1], gradient)


def test_active_contour_region_of_two_classes_is_half_of_that_of_chen_et_al():
    labels, logits = volumes(2)
    u = softmax(logits)[:, 1]
    chen = (u * (labels - 1.0) ** 2).mean() + ((1 - u) * (labels - 0.0) ** 2).mean()
    value, _ = value_and_gradient(losses.active_contour_loss, logits, labels)
    assert 2 * value == pytest.approx(chen, rel=1e-12)


def test_boundary_loss_of_kervadec_is_the_region_wise_loss_of_the_boundary_map():
    labels, logits = volumes(3)
    phi = np.empty(logits.shape)
    for b, k in product(range(2), range(3)):
        mask = labels[b] == k
        phi[b, k] = distance_transform_edt(~mask) * ~mask - (distance_transform_edt(mask) - 1) * mask
    kervadec = (softmax(logits) * phi).mean()
    z = maps(rwtool.boundary_map, labels, 3, convention="kervadec", units="voxel")
    assert value_and_gradient(losses.region_wise_loss, logits, z)[0] == pytest.approx(kervadec, rel=1e-6)


def test_hausdorff_loss_is_the_squared_error_times_the_distance_to_the_class_squared():
    labels, logits = volumes(3)
    true = np.stack([labels == k for k in range(3)], axis=1)
    distance = np.stack([[distance_transform_edt(~mask, sampling=SPACING) for mask in part] for part in true])
    karimi = ((softmax(logits) - true) ** 2 * distance**2).sum(axis=1).mean()
    z = maps(rwtool.hd_map, labels, 3)
    assert value_and_gradient(losses.hausdorff_loss, logits, z)[0] == pytest.approx(karimi, rel=1e-6)


def test_the_losses_of_two_maps_add_up_to_the_loss_of_their_sum():
    labels, logits = volumes(3)
    one, two = maps(rwtool.rrw_map, labels, 3), maps(rwtool.boundary_map, labels, 3)
    parts = [value_and_gradient(losses.region_wise_loss, logits, z) for z in (one, two, one + two)]
    assert parts[0][0] + parts[1][0] == pytest.approx(parts[2][0], rel=1e-6)
    torch.testing.assert_close(parts[0][1] + parts[1][1], parts[2][1], rtol=1e-6, atol=1e-9)


def test_a_factor_on_the_map_is_a_factor_on_loss_and_gradient():
    labels, logits = volumes(3)
    z = maps(rwtool.boundary_map, labels, 3)
    for loss in (losses.region_wise_loss, losses.hausdorff_loss):
        value, gradient = value_and_gradient(loss, logits, z)
        scaled, scaled_gradient = value_and_gradient(loss, logits, -8 * z)
        assert scaled == pytest.approx(-8 * value, rel=1e-12)
        torch.testing.assert_close(scaled_gradient, -8 * gradient)


def test_a_constant_on_all_components_of_a_voxel_shifts_the_loss_and_leaves_the_gradient():
    labels, logits = volumes(3)
    z = maps(rwtool.boundary_map, labels, 3).astype(float)
    shift = np.random.default_rng(1).normal(size=(2, 1, 3, 5, 4))
    value, gradient = value_and_gradient(losses.region_wise_loss, logits, z)
    shifted, shifted_gradient = value_and_gradient(losses.region_wise_loss, logits, z + shift)
    assert shifted == pytest.approx(value + shift.mean() / 3, rel=1e-12)
    torch.testing.assert_close(shifted_gradient, gradient, rtol=1e-9, atol=1e-12)


def test_constant_map_gives_the_cross_entropy_gradient_times_alpha_plus_beta_times_p_over_k():
    labels, logits = volumes(4)
    z = maps(rwtool.constant_map, labels, 4, alpha=1.5, beta=0.5)
    p = np.take_along_axis(softmax(logits), labels[:, None], axis=1)
    _, entropy = value_and_gradient(losses.cross_entropy_loss, logits, labels)
    value, gradient = value_and_gradient(losses.region_wise_loss, logits, z)
    torch.testing.assert_close(gradient, entropy * 2.0 * torch.as_tensor(p) / 4)
    assert value == pytest.approx((1.5 - 2.0 * p.mean()) / 4, rel=1e-12)


def test_cross_entropy_gradient_is_softmax_less_one_hot_over_n_and_wce_multiplies_it_by_the_magnitude():
    labels, logits = volumes(3)
    true = np.stack([labels == k for k in range(3)], axis=1)
    expected = (softmax(logits) - true) / labels.size
    _, gradient = value_and_gradient(losses.cross_entropy_loss, logits, labels)
    np.testing.assert_allclose(gradient, expected, atol=1e-12)
    own = maps(rwtool.rrw_map, labels, 3, layout="packed")
    assert own.max() < 0
    _, weighted = value_and_gradient(losses.weighted_cross_entropy_loss, logits, own, labels)
    np.testing.assert_allclose(weighted, expected * -own[:, None].astype(float), atol=1e-12)


def test_focal_loss_of_gamma_0_is_cross_entropy():
    labels, logits = volumes(3)
    focal = value_and_gradient(losses.focal_loss, logits, labels, gamma=0)
    entropy = value_and_gradient(losses.cross_entropy_loss, logits, labels)
    assert focal[0] == pytest.approx(entropy[0], rel=1e-12)
    torch.testing.assert_close(focal[1], entropy[1])


# Lengths, Dice and numbers at the edge


def test_the_length_of_a_straight_edge_is_its_pixels_and_a_corner_counts_root_2():
    y = torch.zeros(1, 2, 4, 6)
    y[:, 1, :, :3] = y[:, 0, :, 3:] = 60  # 4 pixels of edge between two halves: 4 differences of 1 in each class
    assert losses.contour_length(y).item() == pytest.approx(4 / 24, abs=2e-4)
    y = torch.zeros(1, 2, 3, 3)
    y[:, 1, 0, 0] = 60
    y[:, 0, 0, 1:] = y[:, 0, 1:] = 60  # a corner pixel: both of its differences belong to one voxel
    assert losses.contour_length(y).item() == pytest.approx(np.sqrt(2) / 9, abs=2e-4)
    assert losses.contour_length(torch.zeros(2, 3, 4, 4)).item() == pytest.approx(1e-4)


def test_length_of_a_constant_softmax_has_a_finite_gradient():
    _, gradient = value_and_gradient(losses.contour_length, torch.zeros(1, 2, 4, 4))
    assert gradient.abs().max() == 0


def hard(predicted, n_classes):
    """Logits of a prediction without a doubt."""
    return 200.0 * torch.nn.functional.one_hot(predicted, n_classes).movedim(-1, 1).double()


def test_a_skeleton_map_gives_the_soft_recall_of_the_skeletons_by_their_share_of_voxels():
    labels, logits = volumes(3)
    z, y = maps(rwtool.skeleton_map, labels, 3), softmax(logits)
    recall = [[y[b, k][z[b, k] < 0].mean() * (labels[b] == k).mean() for k in range(3)] for b in range(len(labels))]
    value, _ = value_and_gradient(losses.region_wise_loss, logits, z)
    assert value == pytest.approx(-np.sum(recall) / 3 / len(labels), rel=1e-6)


def test_a_matrix_of_ones_off_its_diagonal_is_the_active_contour_loss():
    labels, logits = volumes(4, ignore=IGNORE)
    found = value_and_gradient(losses.matrix_loss, logits, labels, 1 - np.eye(4), ignore=IGNORE)
    expected = value_and_gradient(losses.active_contour_loss, logits, labels, ignore=IGNORE)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    torch.testing.assert_close(found[1], expected[1])


def test_a_matrix_with_constant_columns_is_a_rectified_map():
    labels, logits = volumes(3)
    own, other = np.array([-1.0, -0.5, 0.0]), np.array([1.0, 2.0, 3.0])
    matrix = np.where(np.eye(3), own, other)
    found = value_and_gradient(losses.matrix_loss, logits, labels, matrix)
    packed = value_and_gradient(losses.packed_region_wise_loss, logits, own[labels], labels, other)
    assert found[0] == pytest.approx(packed[0], rel=1e-12)
    torch.testing.assert_close(found[1], packed[1])


def test_other_values_of_each_voxel_are_those_of_its_class_where_they_are_equal():
    labels, logits = volumes(3, ignore=IGNORE)
    by_class = np.array(OTHERS[3])
    by_voxel = np.where(labels == IGNORE, np.nan, by_class[np.where(labels == IGNORE, 0, labels)])
    for options in ({}, {"region_weight": 3.0, "length": True}):
        found, expected = (
            losses.active_contour_loss(*tensors(logits, labels), other_values=others, ignore=IGNORE, **options)
            for others in tensors(by_voxel, by_class)
        )
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_generalized_surface_loss_is_0_for_the_truth_1_for_its_opposite_and_has_no_unit():
    labels, logits = volumes(2)
    z = maps(rwtool.boundary_map, labels, 2)
    y, x = tensors(labels, logits)
    right, wrong = hard(y, 2), hard(1 - y, 2)
    assert losses.generalized_surface_loss(right, torch.as_tensor(z), y).item() == pytest.approx(0, abs=1e-12)
    assert losses.generalized_surface_loss(wrong, torch.as_tensor(z), y).item() == pytest.approx(1)
    mm, other = (losses.generalized_surface_loss(x, torch.as_tensor(z * unit), y).item() for unit in (1, 100))
    assert mm == pytest.approx(other, rel=1e-6)


def test_the_generalized_surface_loss_by_hand():
    labels = torch.tensor([[[0, 0, 1]]])  # z: -2 -1 1 and 2 1 -1; weights 1/4 and 1, so 4 + 1 + 1 voxels weigh 5/4
    z = torch.from_numpy(rwtool.boundary_map(labels[0].numpy(), (1, 1, 1), n_classes=2))[None]
    uniform = torch.zeros(1, 2, 1, 3)  # 1 - t - y is 1/2 in size everywhere
    assert losses.generalized_surface_loss(uniform, z, labels).item() == pytest.approx(1 - 1 / 4)
    last_wrong = hard(torch.tensor([[[0, 0, 0]]]), 2)  # |z| = 1 at the last voxel: 2 of 12 squared distances
    assert losses.generalized_surface_loss(last_wrong, z, labels).item() == pytest.approx(1 / 6)


def test_an_absent_class_has_no_weight_in_the_generalized_surface_loss_even_if_its_channel_is_not_0():
    labels, logits = volumes(2)
    farthest = maps(rwtool.boundary_map, labels, 3, absent="farthest")
    assert farthest[:, 2].min() > 0
    more = np.concatenate([logits, np.full_like(logits[:, :1], -200)], axis=1)
    found = value_and_gradient(losses.generalized_surface_loss, more, farthest, labels)[0]
    two = value_and_gradient(losses.generalized_surface_loss, logits, farthest[:, :2], labels)[0]
    assert found == pytest.approx(two, rel=1e-9)


def test_boundary_dou_of_a_class_on_its_boundary_is_its_dice_loss_where_the_prediction_is_hard():
    labels = torch.as_tensor(np.indices((3, 4, 5)).sum(0) % 2)[None]  # a checkerboard: C = S, so alpha = -1
    predicted = labels.clone()
    predicted[0, 0] = 1
    found, dice = (loss(hard(predicted, 2), labels).item() for loss in (losses.boundary_dou_loss, losses.dice_loss))
    assert found == pytest.approx(dice, abs=1e-6)


def test_boundary_dou_by_hand():
    labels = torch.zeros(1, 5, 5, dtype=torch.int64)
    labels[0, 1:4, 1:4] = 1  # S = 9 and C = 8, alpha = -7/9; of the background 16 and 16, alpha = -1
    predicted = labels.clone()
    predicted[0, 2, 3] = 0
    found = losses.boundary_dou_loss(hard(predicted, 2), labels).item()
    inner, outer = (8 + 9 - 2 * 8) / (8 + 9 - (1 - 7 / 9) * 8), (17 + 16 - 2 * 16) / (17 + 16)
    assert found == pytest.approx((inner + outer) / 2, rel=1e-5)
    filled = torch.ones(1, 1, 40, dtype=torch.int64)  # an axis of one voxel has no edge: C = 2, S = 40, alpha = 0.8
    half = torch.zeros(1, 2, 1, 40, dtype=torch.float64)
    expected = (10 + 40 - 2 * 20) / (10 + 40 - 1.8 * 20)
    assert losses.boundary_dou_loss(half, filled).item() == pytest.approx((expected + 1) / 2, rel=1e-5)


def test_an_absent_class_counts_1_in_boundary_dou_and_has_no_gradient():
    labels, logits = volumes(2)
    more = np.concatenate([logits, np.full_like(logits[:, :1], -40)], axis=1)
    value, gradient = value_and_gradient(losses.boundary_dou_loss, more, labels)
    two, _ = value_and_gradient(losses.boundary_dou_loss, logits, labels)
    assert value == pytest.approx((2 * two + 1) / 3, rel=1e-9)
    assert gradient[:, 2].abs().max() < 1e-15


def test_dice_loss_of_a_hard_prediction_is_1_less_the_mean_dice_and_an_absent_class_costs_1_over_k():
    labels, predicted = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 1]]])
    logits = 200.0 * torch.nn.functional.one_hot(predicted, 2).movedim(-1, 1)
    assert losses.dice_loss(logits, labels).item() == pytest.approx(1 - (2 / 3 + 4 / 5) / 2, abs=1e-6)
    logits = 200.0 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
    assert losses.dice_loss(logits, labels).item() == pytest.approx(1 / 3, abs=1e-6)


def test_an_absent_class_gives_dice_no_gradient():
    labels, logits = volumes(3)
    y = softmax(np.concatenate([logits, np.zeros_like(logits[:, :1])], axis=1))
    x = torch.as_tensor(np.log(y))
    present = np.array(
        [
            [2 * (y[b, k] * (labels[b] == k)).sum() / (y[b, k].sum() + (labels[b] == k).sum() + 1e-6) for k in range(3)]
            for b in range(2)
        ]
    )
    value, gradient = value_and_gradient(losses.dice_loss, x, labels)
    assert value == pytest.approx(1 - present.sum() / 8, rel=1e-12)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_logits_far_apart_give_finite_losses_and_gradients(name):
    labels, logits = volumes(3)
    loss, _ = every_loss(labels, 3)[name]
    x = torch.as_tensor(500 * logits, dtype=torch.float32).requires_grad_()
    value = loss(x)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(x.grad).all()


def test_cross_entropy_of_a_hopeless_voxel_is_the_difference_of_logits():
    logits = torch.tensor([0.0, 1000.0]).reshape(1, 2, 1)
    assert losses.cross_entropy_loss(logits, torch.tensor([[0]])).item() == 1000
    assert losses.focal_loss(logits, torch.tensor([[0]])).item() == 1000


# Ignored voxels


@pytest.mark.parametrize("value", [IGNORE, -1])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_predicted_at_ignored_voxels_changes_nothing_and_gets_no_gradient(name, value):
    labels, logits = volumes(3, ignore=value)
    dense, packed = maps(rwtool.boundary_map, labels, 3, value), maps(rwtool.rrw_map, labels, 3, value, layout="packed")
    dense = np.where((labels == value)[:, None], np.nan, dense)
    arguments, options = {
        "rw": ((losses.region_wise_loss, dense, labels), {}),
        "packed": ((losses.packed_region_wise_loss, packed, labels, OTHERS[3]), {}),
        "hd": ((losses.hausdorff_loss, dense, labels), {}),
        "ac": ((losses.active_contour_loss, labels), {}),
        "ac_weighted_with_length": ((losses.active_contour_loss, labels), {"length": True}),
        "dice": ((losses.dice_loss, labels), {}),
        "focal": ((losses.focal_loss, labels), {}),
        "focal_3_5": ((losses.focal_loss, labels), {"gamma": 3}),
        "ce": ((losses.cross_entropy_loss, labels), {}),
        "wce": ((losses.weighted_cross_entropy_loss, packed, labels), {}),
        "wce_dense": ((losses.weighted_cross_entropy_loss, dense, labels), {}),
        "packed_instances": ((losses.packed_region_wise_loss, np.stack([packed, packed + 2], axis=1), labels), {}),
        "matrix": ((losses.matrix_loss, labels, MATRIX[:3, :3]), {}),
        "surface": ((losses.generalized_surface_loss, dense, labels), {}),
        "surface_weighted": ((losses.generalized_surface_loss, dense, labels), {"class_weights": OTHERS[3]}),
        "dou": ((losses.boundary_dou_loss, labels), {}),
    }[name]
    loss, *arguments = arguments
    before, gradient = value_and_gradient(loss, logits, *arguments, ignore=value, **options)
    ignored = np.broadcast_to((labels == value)[:, None], logits.shape)
    moved = np.where(ignored, logits[:, ::-1] + np.arange(3).reshape(3, 1, 1, 1), logits)
    after, moved_gradient = value_and_gradient(loss, moved, *arguments, ignore=value, **options)
    assert np.isfinite(before)
    assert after == pytest.approx(before, rel=1e-12)
    assert torch.isfinite(gradient).all()
    assert gradient[torch.as_tensor(ignored.copy())].abs().max() == 0
    assert gradient[torch.as_tensor(~ignored)].abs().min() > 0
    torch.testing.assert_close(moved_gradient, gradient)


def test_255_in_uint8_labels_is_not_minus_1():
    labels = torch.tensor([[0, 1, 255]], dtype=torch.uint8)
    logits = torch.zeros(1, 256, 3)
    with_all = losses.cross_entropy_loss(logits, labels, ignore=-1)
    logits[0, 255, 2] = 5
    assert losses.cross_entropy_loss(logits, labels, ignore=-1) < with_all


@pytest.mark.parametrize("name", NAMES)
def test_equal_shares_of_a_batch_average_to_the_loss_of_the_whole(name):
    labels, logits = volumes(3, shape=(4, 3, 5, 4), ignore=IGNORE)
    whole = every_loss(labels, 3, IGNORE)[name][0](torch.as_tensor(logits))
    shares = [every_loss(labels[s], 3, IGNORE)[name][0](torch.as_tensor(logits[s])) for s in (slice(2), slice(2, 4))]
    kept = [(part != IGNORE).sum() for part in (labels[:2], labels[2:])]
    assert kept[0] != kept[1]
    assert (sum(shares) / 2).item() == pytest.approx(whole.item(), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_ignored_voxels_alone_has_no_gradient(name):
    labels, logits = volumes(3)
    loss = every_loss(np.full_like(labels, IGNORE), 3, IGNORE)[name][0]
    value, gradient = value_and_gradient(loss, logits)
    assert value == (1 if name in ("dice", "dou") else 0)
    assert gradient.abs().max() == 0


# Types, autocast, compilation


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_logits_give_the_float32_loss_of_their_values_inside_autocast(name, dtype):
    class Watch(TorchFunctionMode):
        seen = ()

        def __torch_function__(self, function, types, args=(), kwargs=None):
            if getattr(function, "__name__", "") in ("softmax", "log_softmax", "mean", "sum"):
                self.seen += (torch.is_autocast_enabled("cpu"),)
            return function(*args, **(kwargs or {}))

    labels, logits = volumes(3, ignore=IGNORE)
    loss, _ = every_loss(labels, 3, IGNORE)[name]
    x = torch.as_tensor(logits).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype), Watch() as watch:
        value = loss(x)
    value.backward()
    assert value.dtype == torch.float32
    assert x.grad.dtype == dtype
    assert watch.seen
    assert not any(watch.seen)
    assert value.item() == loss(x.float()).item()
    assert value.item() == pytest.approx(loss(x.double()).item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_type_of_the_map_leaves_that_of_the_loss(dtype):
    labels, logits = volumes(3)
    x, y = torch.as_tensor(logits, dtype=torch.float32), torch.as_tensor(labels)
    z, own = (torch.full(shape, -0.5, dtype=dtype) for shape in (logits.shape, labels.shape))
    assert losses.region_wise_loss(x, z).dtype == torch.float32
    assert losses.hausdorff_loss(x, z).dtype == torch.float32
    assert losses.packed_region_wise_loss(x, own, y, np.ones(3)).dtype == torch.float32
    assert losses.weighted_cross_entropy_loss(x, own, y).dtype == torch.float32
    assert losses.region_wise_loss(x.double(), z).dtype == torch.float64
    assert losses.dice_loss(x.double(), y).dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_without_the_check_no_value_is_read_on_the_host(name):
    class Refuse(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            assert "_local_scalar_dense" not in str(function)
            assert "aminmax" not in str(function)
            return function(*args, **(kwargs or {}))

    labels, logits = volumes(3, ignore=IGNORE)
    loss, _ = every_loss(labels, 3, IGNORE, check=False)[name]
    x = torch.as_tensor(logits, dtype=torch.float32).requires_grad_()
    with Refuse():
        loss(x).backward()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_without_the_check_no_loss_synchronises_with_the_device():
    labels, logits = volumes(3, ignore=IGNORE)
    x = torch.as_tensor(logits, dtype=torch.float32, device="cuda").requires_grad_()
    y, z = torch.as_tensor(labels, device="cuda"), torch.rand_like(x)
    others = torch.ones(3, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = losses.region_wise_loss(x, z, y, ignore=IGNORE, check=False)
        value = value + losses.packed_region_wise_loss(x, z[:, 0].detach(), y, others, ignore=IGNORE, check=False)
        value = value + losses.hausdorff_loss(x, z, y, ignore=IGNORE, check=False)
        value = value + losses.active_contour_loss(x, y, length=True, ignore=IGNORE, check=False)
        value = value + losses.weighted_cross_entropy_loss(x, z, y, ignore=IGNORE, check=False)
        value = value + losses.generalized_surface_loss(x, z.detach(), y, ignore=IGNORE, check=False)
        value = value + losses.matrix_loss(x, y, 1 - torch.eye(3, device="cuda"), ignore=IGNORE, check=False)
        for loss in (losses.dice_loss, losses.focal_loss, losses.cross_entropy_loss, losses.boundary_dou_loss):
            value = value + loss(x, y, ignore=IGNORE, check=False)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_compiles_to_one_graph(name):
    labels, logits = volumes(3, ignore=IGNORE)
    loss, _ = every_loss(labels, 3, IGNORE)[name]
    x = torch.as_tensor(logits, dtype=torch.float32)
    torch.compiler.reset()
    assert torch.compile(loss, backend="eager", fullgraph=True)(x).item() == pytest.approx(loss(x).item(), rel=1e-6)


def test_the_check_of_the_weights_is_left_out_of_a_compiled_graph():
    labels, logits = tensors(*volumes(3))
    own = -torch.rand(labels.shape)
    torch.compiler.reset()
    compiled = torch.compile(losses.weighted_cross_entropy_loss, backend="eager", fullgraph=True)
    assert compiled(logits, own, labels) == losses.weighted_cross_entropy_loss(logits, own, labels)


# Optimisation


@pytest.mark.parametrize("name", NAMES)
def test_minimising_each_loss_raises_the_true_class_everywhere(name):
    labels = np.tile(np.arange(9) // 3, (2, 2, 4, 1))  # slabs: a length term would smooth noise away
    loss, _ = every_loss(labels, 3)[name]
    x = torch.zeros(2, 3, *labels.shape[1:], requires_grad=True)
    optimiser = torch.optim.Adam([x], lr=0.3)
    for _ in range(150):
        optimiser.zero_grad()
        loss(x).backward()
        optimiser.step()
    p = torch.softmax(x.detach(), dim=1).gather(1, torch.as_tensor(labels)[:, None])
    assert p.min() > 0.8
    assert loss(x).item() < loss(torch.zeros_like(x)).item()


# Errors


def test_wrong_arguments_are_refused_with_what_was_found_and_expected():
    x, y, z = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5, dtype=torch.uint8), torch.zeros(2, 3, 4, 5)
    cases = [
        (lambda: losses.dice_loss(y, y), "dice_loss takes logits as a tensor of floats; found torch.uint8"),
        (lambda: losses.dice_loss(np.zeros((1, 2, 3)), y), "found ndarray"),
        (lambda: losses.dice_loss(x[0, 0], y), r"\(B, K, \*spatial\), K >= 2, none of it empty; found \(4, 5\)"),
        (lambda: losses.dice_loss(x[:, :1], y), r"found \(2, 1, 4, 5\)"),
        (lambda: losses.dice_loss(x[:0], y[:0]), r"found \(0, 3, 4, 5\)"),
        (lambda: losses.dice_loss(x, y[:1]), r"labels: expected .* = \(2, 4, 5\), .* found \(1, 4, 5\)"),
        (lambda: losses.dice_loss(x, y.float()), r"labels are integers; found torch.float32"),
        (lambda: losses.region_wise_loss(x, z[:, :2]), r"a dense map: expected .*\(2, 3, 4, 5\).*found \(2, 2, 4, 5\)"),
        (lambda: losses.hausdorff_loss(x, z[:1]), r"a dense map: expected .*\(2, 3, 4, 5\).*found \(1, 3, 4, 5\)"),
        (lambda: losses.region_wise_loss(x, z, ignore=255), "ignore=255 .* no labels were found; give labels"),
        (lambda: losses.region_wise_loss(x, z, y[:, :1]), r"labels: expected .* found \(2, 1, 5\)"),
        (
            lambda: losses.packed_region_wise_loss(x, z, y, [1, 1, 1]),
            r"own and other values: .*\(2, 2, 4, 5\).*found \(2, 3, 4, 5\)",
        ),
        (lambda: losses.packed_region_wise_loss(x, z[:, 0], y), "give other_values= too, a number for each class"),
        (lambda: losses.packed_region_wise_loss(x, z[0, 0], y, [1] * 3), r"own values: .*found \(4, 5\)"),
        (lambda: losses.matrix_loss(x, y, [[0, 1], [1, 0]]), r"matrix: expected .*\(3, 3\).*found \(2, 2\)"),
        (lambda: losses.generalized_surface_loss(x, z[:, 0], y), r"a dense map: .*found \(2, 4, 5\)"),
        (
            lambda: losses.generalized_surface_loss(x, z, y, class_weights=[1, 1]),
            r"class_weights: .*\(3,\).*found \(2,\)",
        ),
        (lambda: losses.packed_region_wise_loss(x, z[:, 0], y, [1, 1]), r"other_values: .*\(3,\).*found \(2,\)"),
        (lambda: losses.weighted_cross_entropy_loss(x, z[:, :, :1], y), r"a dense map: .*found \(2, 3, 1, 5\)"),
        (lambda: losses.weighted_cross_entropy_loss(x, z[0, 0], y), r"own values: .*found \(4, 5\)"),
        (lambda: losses.focal_loss(x, y, gamma=0.5), "gamma .* found 0.5"),
        (lambda: losses.focal_loss(x, y, gamma=-2), "gamma .* found -2"),
        (lambda: losses.focal_loss(x, y, gamma=float("nan")), "gamma .* found nan; give gamma=2"),
        (lambda: losses.focal_loss(x, y, alpha=float("inf")), "found alpha=inf; give a finite number"),
        (
            lambda: losses.active_contour_loss(x, y, region_weight=float("nan")),
            "found region_weight=nan; give a finite",
        ),
    ]
    for call, message in cases:
        with pytest.raises(rwtool.UsageError, match=message):
            call()


def test_weighted_cross_entropy_refuses_a_map_whose_own_values_are_all_0():
    labels, logits = volumes(3, ignore=IGNORE)
    x, y = tensors(logits, labels)
    ac = torch.as_tensor(maps(rwtool.ac_map, labels, 3, IGNORE))
    packed = torch.as_tensor(maps(rwtool.ac_map, labels, 3, IGNORE, layout="packed"))
    for z in (ac, packed):
        with pytest.raises(rwtool.UsageError, match="all own values of the map are 0"):
            losses.weighted_cross_entropy_loss(x, z, y, ignore=IGNORE)
        assert losses.weighted_cross_entropy_loss(x, z, y, ignore=IGNORE, check=False) == 0
    one = torch.where(y == 1, -0.5, packed)
    assert losses.weighted_cross_entropy_loss(x, one, y, ignore=IGNORE) > 0
    assert losses.weighted_cross_entropy_loss(x, packed, torch.full_like(y, IGNORE), ignore=IGNORE) == 0


def test_a_missing_argument_is_a_type_error_as_of_any_function():
    with pytest.raises(TypeError, match="missing"):
        losses.dice_loss(torch.zeros(1, 2, 3))
    x, y = torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.int64)
    assert losses.cross_entropy_loss(labels=y, logits=x) == losses.cross_entropy_loss(x, y)


def labelled_losses():
    """Name -> a loss of the labels alone; two images of three classes."""
    x, z = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)), torch.full((2, 3, 4, 5), -0.5)
    others = torch.ones(3)
    return {
        "rw": lambda y, **how: losses.region_wise_loss(x, z, y, **how),
        "packed": lambda y, **how: losses.packed_region_wise_loss(x, z[:, 0], y, others, **how),
        "hd": lambda y, **how: losses.hausdorff_loss(x, z, y, **how),
        "ac": lambda y, **how: losses.active_contour_loss(x, y, **how),
        "length": lambda y, **how: losses.contour_length(x, y, **how),
        "dice": lambda y, **how: losses.dice_loss(x, y, **how),
        "ce": lambda y, **how: losses.cross_entropy_loss(x, y, **how),
        "focal": lambda y, **how: losses.focal_loss(x, y, **how),
        "wce": lambda y, **how: losses.weighted_cross_entropy_loss(x, z, y, **how),
    }


@pytest.mark.parametrize("name", list(labelled_losses()))
@pytest.mark.parametrize(
    ("value", "dtype"),
    [(-1, torch.int64), (3, torch.uint8), (255, torch.uint8), (300, torch.int32), (2**64 - 1, torch.uint64)],
)
def test_a_label_that_is_no_class_is_refused_unless_it_is_ignored(name, value, dtype):
    loss = labelled_losses()[name]
    labels = np.zeros((2, 4, 5), np.uint64 if dtype == torch.uint64 else np.int64)
    labels[1, 2, 3] = value
    y = torch.from_numpy(labels).to(dtype)
    with pytest.raises(
        rwtool.UsageError, match=rf"the labels hold {value}; .* take labels 0\.\.2; .* give ignore={value} "
    ):
        loss(y)
    with pytest.raises(rwtool.UsageError, match=f"hold {value};"):
        loss(y, ignore=7)
    assert torch.isfinite(loss(y, ignore=value))


@pytest.mark.parametrize("name", list(labelled_losses()))
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.uint16, torch.uint32, torch.uint64])
def test_labels_of_every_whole_type_give_the_loss_of_int64(name, dtype):
    loss = labelled_losses()[name]
    y = torch.arange(40).reshape(2, 4, 5) % 2
    assert loss(y.to(dtype)) == loss(y)
