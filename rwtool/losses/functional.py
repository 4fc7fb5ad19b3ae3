"""Losses on logits: region-wise (Valverde & Tohka 2022) and those that it is compared and mixed with.

Logits are ``(B, K, *spatial)``, labels ``(B, *spatial)``: slices and volumes alike. Every loss is computed in float32
(float64 for float64 logits), inside autocast too, and is the mean over images of a mean over the voxels of each: N
counts the voxels of one image that are not ignored, so equal shares of a batch average to the loss of the whole. An
image of ignored voxels alone gives 0 and no gradient (Dice: 1, as for classes that are not there). A label that is
neither 0..K-1 nor `ignore` is refused, for which the device is awaited at each call: a training loop whose labels are
known to be right passes ``check=False``, and then no value is read on the host. The check is left out under
``torch.compile``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import pad

from rwtool.errors import UsageError
from rwtool.losses.inputs import check_logits, check_shape, true_class, unless_ignored

LENGTH_EPSILON = 1e-8  # under the square root of the length term, as in Chen et al.
DICE_EPSILON = 1e-6
DOU_EPSILON = 1e-5  # above and below the line, as in the code of Sun et al.

P = ParamSpec("P")


def _full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Refuse what is not a batch of logits, and keep autocast out of the loss."""

    @wraps(loss)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        logits: Any = args[0] if args else kwargs.get("logits")
        check_logits(loss.__name__, logits)
        with torch.autocast(logits.device.type, enabled=False):
            return loss(*args, **kwargs)

    return checked


@_full_precision
def region_wise_loss(
    logits: Tensor, z: Tensor, labels: Tensor | None = None, *, ignore: int | None = None, check: bool = True
) -> Tensor:
    """Region-wise loss of a dense map (Eq. 1): the mean of softmax x map.

    Its gradient is ``y_k (z_k - sum_l z_l y_l) / (B N K)`` (Eq. 2), with y the softmax.

    Parameters
    ----------
    logits : (B, K, *spatial) tensor
    z : (B, K, *spatial) tensor
        Region-wise map, of any kind but hd (see :func:`hausdorff_loss`); any type, half too.
    labels : (B, *spatial) integer tensor, optional
        Needed with `ignore` alone: what a voxel is worth stands in the map.
    ignore : int, optional
        Label value of voxels without a class: they are left out, and N counts the rest.
    check : bool
        Refuse labels that are no class, for which the device is awaited.

    Returns
    -------
    scalar tensor
        ``1/(N K) sum_i sum_k y_ik z_ik``, mean over images.

    Raises
    ------
    UsageError
        If shapes do not belong together, a label is no class, or `ignore` is given without labels.

    Examples
    --------
    >>> logits = torch.tensor([0.1, 0.1, 0.2, 0.6]).log().reshape(1, 4, 1)
    >>> loss = region_wise_loss(logits, torch.tensor([0.0, 0.0, 0.0, -0.6]).reshape(1, 4, 1))
    >>> round(4 * loss.item(), 2)  # Section 3.3, which leaves out 1/K
    -0.36
    """
    z, kept = _dense_map(logits, z, labels, ignore, check)
    return _image_mean((_softmax(logits) * z).mean(dim=1), kept)


@_full_precision
def packed_region_wise_loss(
    logits: Tensor,
    own: Tensor,
    labels: Tensor,
    other_values: Tensor | ArrayLike | None = None,
    *,
    ignore: int | None = None,
    check: bool = True,
) -> Tensor:
    """Region-wise loss of a packed map: exactly that of the dense one (:func:`rwtool.expand_packed`), by one gather.

    The softmax of a voxel sums to one, so with p that of its true class, ``sum_k y_k z_k = other + (own - other) p``.

    Parameters
    ----------
    logits : (B, K, *spatial) tensor
    own : (B, *spatial) or (B, 2, *spatial) tensor
        Own value of each voxel, or its own and its other value, as of maps with `instances`; where ignored they may be
        anything, NaN too.
    labels : (B, *spatial) integer tensor
        Class indices 0..K-1, and `ignore`.
    other_values : (K,) tensor or sequence of float, optional
        The other value, by the true class of the voxel; needed where `own` does not hold it. A tensor on the device of
        the logits saves a copy per call.
    ignore, check
        As for :func:`region_wise_loss`.

    Returns
    -------
    scalar tensor
        ``1/(N K) sum_i [other_i + (own_i - other_i) p_i]``, mean over images.
    """
    index, kept = true_class(logits, labels, ignore, check)
    others = other_values
    if own.ndim == logits.ndim:
        check_shape("own and other values", own, "(B, 2, *spatial)", torch.Size((len(index), 2, *index.shape[1:])))
        own, others = own.unbind(1)
    check_shape("own values", own, "(B, *spatial)", index.shape)
    if others is None:
        raise UsageError("own values alone are no map; give other_values= too, a number for each class")
    y = _softmax(logits)
    return _packed_loss(y, unless_ignored(own.to(y.dtype), kept), index, kept, others)


@_full_precision
def matrix_loss(
    logits: Tensor,
    labels: Tensor,
    matrix: Tensor | ArrayLike,
    *,
    ignore: int | None = None,
    check: bool = True,
) -> Tensor:
    """Region-wise loss of class distances: that of :func:`rwtool.matrix_map`, which need not be made.

    It is the distance of the predicted class from the true one that the softmax expects, over K.

    Parameters
    ----------
    logits, labels, ignore, check
        As for :func:`cross_entropy_loss`.
    matrix : (K, K) tensor or sequence
        The distance of class k, the row, from the true class y, the column.

    Returns
    -------
    scalar tensor
        ``1/(N K) sum_i sum_k matrix[k, y_i] p_ik``, mean over images.

    Examples
    --------
    >>> logits = torch.tensor([0.1, 0.2, 0.7]).log().reshape(1, 3, 1)
    >>> loss = matrix_loss(logits, torch.tensor([[2]]), [[0, 1, 2], [1, 0, 1], [2, 1, 0]])
    >>> round(3 * loss.item(), 2)  # 0.1 * 2 + 0.2 * 1
    0.4
    """
    index, kept = true_class(logits, labels, ignore, check)
    y = _softmax(logits)
    distances = torch.as_tensor(matrix, dtype=y.dtype, device=y.device)
    check_shape("matrix", distances, "(K, K)", torch.Size((y.shape[1], y.shape[1])))
    return _image_mean((y * distances.T[index].movedim(-1, 1)).mean(dim=1), kept)


@_full_precision
def hausdorff_loss(
    logits: Tensor, z: Tensor, labels: Tensor | None = None, *, ignore: int | None = None, check: bool = True
) -> Tensor:
    """Loss of an hd map (Eq. 26): squared softmax x map, summed over classes and divided by N alone.

    Parameters are those of :func:`region_wise_loss`; `z` is what :func:`rwtool.hd_map` gives. The gradient is
    ``2 y_k (z_k y_k - sum_l z_l y_l^2) / (B N)``.

    Returns
    -------
    scalar tensor
        ``1/N sum_i sum_k y_ik^2 z_ik``, mean over images.
    """
    z, kept = _dense_map(logits, z, labels, ignore, check)
    return _image_mean((_softmax(logits).square() * z).sum(dim=1), kept)


@_full_precision
def active_contour_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    region_weight: float = 1.0,
    length: bool = False,
    other_values: Tensor | ArrayLike | None = None,
    ignore: int | None = None,
    check: bool = True,
) -> Tensor:
    """Active-contour loss: ``length + region_weight * region``, or the weighted region term alone.

    The region term is the region-wise loss of the ac map (Eq. 17), ``1/(N K) sum_i (1 - p_i)``: with two classes, half
    of that of Chen et al. with c_in = 1 and c_out = 0. The length term is :func:`contour_length`.

    Parameters
    ----------
    logits, labels, ignore, check
        As for :func:`cross_entropy_loss`.
    region_weight : float
        Lambda.
    length : bool
        Add the length term.
    other_values : (K,) or (B, *spatial) tensor, or sequence of K floats, optional
        Class weights: what the 1 of Eq. 17 is at voxels of each class, or at each voxel.
    """
    _check_finite("region_weight", region_weight)
    index, kept = true_class(logits, labels, ignore, check)
    y = _softmax(logits)
    others = y.new_ones(y.shape[1]) if other_values is None else other_values
    region = region_weight * _packed_loss(y, y.new_zeros(()), index, kept, others)
    return _length(y, kept) + region if length else region


@_full_precision
def contour_length(
    logits: Tensor, labels: Tensor | None = None, *, ignore: int | None = None, check: bool = True
) -> Tensor:
    """Length of the contours of the softmax: isotropic total variation per class (Chen et al., CVPR 2019, Eq. 11).

    With forward differences D along every spatial axis, ``1/(N K) sum_i sum_k sqrt(sum_axes (D y_ik)^2 + 1e-8)``, mean
    over images. Differences are per voxel, whatever its size; beyond the last voxel of an axis, and between an ignored
    voxel and any other, they are 0. A constant softmax therefore has length 1e-4.

    Parameters and errors are those of :func:`region_wise_loss`.
    """
    return _length(_softmax(logits), _kept(logits, labels, ignore, check))


@_full_precision
def dice_loss(logits: Tensor, labels: Tensor, *, ignore: int | None = None, check: bool = True) -> Tensor:
    """Soft Dice loss: 1 less the mean, over all classes and images, of ``2 |A.B| / (|A| + |B| + 1e-6)``.

    A class that is not in an image counts with Dice 0 and gives no gradient, as in the authors' code. Ignored voxels
    are cleared from both A and B. Parameters and errors are those of :func:`cross_entropy_loss`.
    """
    index, kept = true_class(logits, labels, ignore, check)
    y, spatial = _softmax(logits), tuple(range(2, logits.ndim))
    true = _one_hot(index, kept, y.shape[1])
    if kept is not None:
        y = unless_ignored(y, kept.unsqueeze(1))
    overlap = torch.where(true, y, 0).sum(dim=spatial)
    total = y.sum(dim=spatial) + true.sum(dim=spatial)
    return 1 - (2 * overlap / (total + DICE_EPSILON)).mean()


@_full_precision
def boundary_dou_loss(logits: Tensor, labels: Tensor, *, ignore: int | None = None, check: bool = True) -> Tensor:
    """Boundary difference over union (Sun et al., MICCAI 2023), to compare with; it takes no map.

    With t the labels of a class in an image, y its softmax, C its boundary voxels and S all of its voxels, the mean
    over classes and images of ``(sum y^2 + sum t^2 - 2 sum y t + e) / (sum y^2 + sum t^2 - (1 + a) sum y t + e)``, with
    ``a = min(1 - 2 C/S, 0.8)`` and e = 1e-5, as in their code: the larger a class, the more its boundary counts. Where
    every voxel of a class is on its boundary, a = -1, and it is the Dice loss with squares in its denominator.

    A boundary voxel has a face neighbour that is not of its class, or lies at the edge of the image (an axis of one
    voxel has none); ignored voxels make no boundary, and are cleared from both y and t. A class that is not in an image
    counts 1 and gives no gradient. Their code takes sums over the whole batch, here each image has its own.

    Parameters and errors are those of :func:`cross_entropy_loss`.
    """
    index, kept = true_class(logits, labels, ignore, check)
    y, spatial = _softmax(logits), tuple(range(2, logits.ndim))
    true = _one_hot(index, kept, y.shape[1])
    edges = true & _edge_voxels(index, kept).unsqueeze(1)
    if kept is not None:
        y = unless_ignored(y, kept.unsqueeze(1))
    size = true.sum(dim=spatial).to(y.dtype)
    share = edges.sum(dim=spatial) / size.clamp(min=1)
    alpha = (1 - 2 * share).clamp(max=0.8)
    overlap = torch.where(true, y, 0).sum(dim=spatial)
    total = y.square().sum(dim=spatial) + size + DOU_EPSILON
    loss = (total - 2 * overlap) / (total - (1 + alpha) * overlap)
    return torch.where(size > 0, loss, 1).mean()


@_full_precision
def generalized_surface_loss(
    logits: Tensor,
    z: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | ArrayLike | None = None,
    ignore: int | None = None,
    check: bool = True,
) -> Tensor:
    """Generalized surface loss of a boundary map (Celaya et al. 2023, arXiv 2302.03868), to compare with.

    With t the labels, y the softmax and z the map, ``1 - sum_k w_k sum_i (z_ik (1 - t_ik - y_ik))^2 / sum_k w_k sum_i
    z_ik^2``, mean over images: 0 where the prediction is right and 1 where it is all wrong, whatever the unit of the
    distances. Its authors mix it with a Dice loss and cross entropy. An image whose map is 0 gives 0 and no gradient.

    Parameters
    ----------
    logits, labels, ignore, check
        As for :func:`cross_entropy_loss`.
    z : (B, K, *spatial) tensor
        What :func:`rwtool.boundary_map` gives; any type, half too.
    class_weights : (K,) tensor or sequence of float, optional
        By default 1 over the square of the number of voxels of a class in the image, 0 for one that is not there, as
        in the authors' code but for its 1 in the denominator.
    """
    index, kept = true_class(logits, labels, ignore, check)
    check_shape("a dense map", z, "(B, K, *spatial)", logits.shape)
    y, spatial = _softmax(logits), tuple(range(2, logits.ndim))
    true = _one_hot(index, kept, y.shape[1])
    z = unless_ignored(z.to(y.dtype), None if kept is None else kept.unsqueeze(1))
    if class_weights is None:
        size = true.sum(dim=spatial).to(y.dtype)
        weights = torch.where(size > 0, size.clamp(min=1).pow(-2), 0)
        weights = weights / weights.amax(dim=1, keepdim=True).clamp(min=torch.finfo(y.dtype).tiny)
    else:
        weights = torch.as_tensor(class_weights, dtype=y.dtype, device=y.device)
        check_shape("class_weights", weights, "(K,)", y.shape[1:2])
    right = (weights * (z * (1 - true.to(y.dtype) - y)).square().sum(dim=spatial)).sum(dim=1)
    whole = (weights * z.square().sum(dim=spatial)).sum(dim=1)
    empty = whole == 0
    return torch.where(empty, 0, 1 - right / torch.where(empty, 1, whole)).mean()


@_full_precision
def cross_entropy_loss(logits: Tensor, labels: Tensor, *, ignore: int | None = None, check: bool = True) -> Tensor:
    """Cross entropy: the mean of ``-log p`` with p the softmax of the true class.

    Parameters
    ----------
    logits : (B, K, *spatial) tensor
    labels : (B, *spatial) integer tensor
        Class indices 0..K-1, and `ignore`.
    ignore : int, optional
        Label value of voxels without a class: they are left out, and N counts the rest.
    check : bool
        Refuse labels that are no class, for which the device is awaited.

    Returns
    -------
    scalar tensor

    Raises
    ------
    UsageError
        If shapes do not belong together, or a label is no class.
    """
    index, kept = true_class(logits, labels, ignore, check)
    return _image_mean(-_at(_log_softmax(logits), index), kept)


@_full_precision
def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float = 1.0,
    ignore: int | None = None,
    check: bool = True,
) -> Tensor:
    """Focal loss: the mean of ``-alpha (1 - p)^gamma log p`` with p the softmax of the true class.

    Parameters
    ----------
    logits, labels, ignore, check
        As for :func:`cross_entropy_loss`.
    gamma : float
        0, which is cross entropy, or at least 1: in between the gradient at p = 1 is not finite (refused).
    alpha : float
        Factor on the whole.
    """
    if gamma != 0 and not 1 <= gamma < math.inf:
        raise UsageError(f"gamma of the focal loss is 0 or at least 1, and finite; found {gamma:g}; give gamma=2")
    _check_finite("alpha", alpha)
    index, kept = true_class(logits, labels, ignore, check)
    log_p = _at(_log_softmax(logits), index)
    return _image_mean(-alpha * (1 - log_p.exp()).pow(gamma) * log_p, kept)


@_full_precision
def weighted_cross_entropy_loss(
    logits: Tensor, z: Tensor, labels: Tensor, *, ignore: int | None = None, check: bool = True
) -> Tensor:
    """Cross entropy weighted by a map: the mean over voxels of ``-|z_own| log p`` (Section 3.2).

    The weight is the magnitude of the own value: own values are at most 0, and their sign as written in the paper
    would reward errors. The sum is divided by N, not by the weights.

    Parameters
    ----------
    logits, labels, ignore
        As for :func:`cross_entropy_loss`.
    z : (B, K, *spatial) or (B, *spatial) tensor
        A dense map, or the own values of a packed one.
    check : bool
        Refuse labels that are no class and weights that are all 0. The answer is awaited from the device, so a training
        loop checks its first batch or the kind of its maps, and passes False.

    Raises
    ------
    UsageError
        If shapes do not belong together, or all own values are 0, as those of ac and hd maps are.
    """
    index, kept = true_class(logits, labels, ignore, check)
    if z.ndim == logits.ndim:
        check_shape("a dense map", z, "(B, K, *spatial)", logits.shape)
        z = _at(z, index)
    check_shape("own values", z, "(B, *spatial)", index.shape)
    weight = unless_ignored(z.to(_dtype(logits)), kept).abs()
    if check and not torch.compiler.is_compiling() and not weight.any() and (kept is None or bool(kept.any())):
        raise UsageError(
            "all own values of the map are 0, so its weighted cross entropy is 0 whatever is predicted (ac and hd maps "
            "have no other); take an rrw, boundary or constant map, or check=False if only this batch is so"
        )
    return _image_mean(-weight * _at(_log_softmax(logits), index), kept)


def _dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits, dim=1, dtype=_dtype(logits))


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=1, dtype=_dtype(logits))


def _at(channels: Tensor, index: Tensor) -> Tensor:
    """The channel of each voxel's class: (B, *spatial)."""
    return channels.gather(1, index.unsqueeze(1)).squeeze(1)


def _kept(logits: Tensor, labels: Tensor | None, ignore: int | None, check: bool) -> Tensor | None:
    """Voxels that are not ignored; None if that is all of them."""
    if labels is None:
        if ignore is not None:
            raise UsageError(f"ignore={ignore} is a label value, and no labels were found; give labels too")
        return None
    return true_class(logits, labels, ignore, check)[1]


def _dense_map(
    logits: Tensor, z: Tensor, labels: Tensor | None, ignore: int | None, check: bool
) -> tuple[Tensor, Tensor | None]:
    """The map in the type of the loss, 0 where ignored, and which voxels are not."""
    check_shape("a dense map", z, "(B, K, *spatial)", logits.shape)
    kept = _kept(logits, labels, ignore, check)
    return unless_ignored(z.to(_dtype(logits)), None if kept is None else kept.unsqueeze(1)), kept


def _one_hot(index: Tensor, kept: Tensor | None, n_classes: int) -> Tensor:
    """Where each class is, (B, K, *spatial); nowhere where ignored."""
    classes = torch.arange(n_classes, device=index.device).view(-1, *[1] * (index.ndim - 1))
    true = index.unsqueeze(1) == classes
    return true if kept is None else true & kept.unsqueeze(1)


def _edge_voxels(index: Tensor, kept: Tensor | None) -> Tensor:
    """Voxels with a face neighbour of another class, or at the edge of the image; ignored ones make none."""
    edges = torch.zeros_like(index, dtype=torch.bool)
    for axis in range(1, index.ndim):
        size = index.shape[axis]
        if size == 1:
            continue
        differ = index.narrow(axis, 1, size - 1) != index.narrow(axis, 0, size - 1)
        if kept is not None:
            differ = differ & kept.narrow(axis, 1, size - 1) & kept.narrow(axis, 0, size - 1)
        ones = torch.ones_like(differ.narrow(axis, 0, 1))
        edges = edges | torch.cat((ones, differ), dim=axis) | torch.cat((differ, ones), dim=axis)
    return edges


def _packed_loss(
    y: Tensor, own: Tensor, index: Tensor, kept: Tensor | None, other_values: Tensor | ArrayLike
) -> Tensor:
    others = torch.as_tensor(other_values, dtype=y.dtype, device=y.device)
    if others.ndim == index.ndim and others.ndim > 1:
        check_shape("other_values", others, "(B, *spatial)", index.shape)
        other = unless_ignored(others, kept)
    else:
        check_shape("other_values", others, "(K,)", y.shape[1:2])
        other = others[index]
    return _image_mean(other + (own - other) * _at(y, index), kept) / y.shape[1]


def _check_finite(name: str, number: float) -> None:
    if not math.isfinite(number):
        raise UsageError(f"found {name}={number}; give a finite number")


def _length(y: Tensor, kept: Tensor | None) -> Tensor:
    """Isotropic total variation of the softmax."""
    squared = torch.full_like(y, LENGTH_EPSILON)
    for axis in range(2, y.ndim):
        step = y.diff(dim=axis)
        if kept is not None:
            size = kept.shape[axis - 1] - 1
            both = kept.narrow(axis - 1, 0, size) & kept.narrow(axis - 1, 1, size)
            step = unless_ignored(step, both.unsqueeze(1))
        squared = squared + pad(step.square(), [0, 0] * (y.ndim - 1 - axis) + [0, 1])
    return _image_mean(squared.sqrt().mean(dim=1), kept)


def _image_mean(values: Tensor, kept: Tensor | None) -> Tensor:
    """Mean over the images of the mean over the kept voxels of each; `values` is (B, *spatial)."""
    if kept is None:
        return values.mean()
    total = unless_ignored(values, kept).flatten(1).sum(dim=1)
    return (total / kept.flatten(1).sum(dim=1).clamp(min=1)).mean()
