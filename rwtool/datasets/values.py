"""What the values of label files tell where they are not those that were expected."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rwtool.errors import shorten

MOST_LABELS = 100  # values in one label file, beyond which it looks like an image; atlases of 100 regions are rare

BACKGROUND = 0


def explain_masks(reference: Collection[int], prediction: Collection[int], *, ignore: int | None = None) -> str | None:
    """Say that two masks hold one structure under different values, such as 0/255 and 0/1.

    Parameters
    ----------
    reference, prediction : collection of int
        The values in each file, as they stand there.
    ignore : int, optional
        The value of the reference's voxels without a class.

    Returns
    -------
    str or None
        What was found and how to mend it; None unless each file holds one value besides the background, another one.

    Examples
    --------
    >>> print(explain_masks([0, 255], [0, 1]))
    the reference holds 255 alone besides 0 and the prediction 1: masks of the same structure under other values, it \
seems; give map_values={255: 1} to take 255 for 1
    >>> explain_masks([0, 1, 2], [0, 1])
    """
    ours, theirs = (set(map(int, values)) - {BACKGROUND, ignore} for values in (reference, prediction))
    if len(ours) != 1 or len(theirs) != 1 or ours == theirs:
        return None
    (one,), (other,) = ours, theirs
    high, low = max(one, other), min(one, other)
    return (
        f"the reference holds {one} alone besides 0 and the prediction {other}: masks of the same structure under "
        f"other values, it seems; give map_values={{{high}: {low}}} to take {high} for {low}"
    )


def warn_of_absent(
    regions: Mapping[str, Collection[int]],
    map_values: Mapping[int, int],
    *,
    there: Collection[int],
    mapped: Collection[int],
) -> list[str]:
    """Warn of labels that were asked for by number and are in no file: a slip, most likely.

    Parameters
    ----------
    regions : dict of str to collection of int
    map_values : dict of int to int
    there : collection of int
        The values that some file holds, after the mapping.
    mapped : collection of int
        The values for which others were taken.

    Examples
    --------
    >>> warn_of_absent({"core": (2, 7)}, {255: 1}, there=[1, 2], mapped=[])
    ["region 'core': no file holds the label 7", 'no file holds the label 255 that map_values= takes for 1']
    """
    found = []
    for name, parts in regions.items():
        if absent := [str(part) for part in parts if part not in there and part != BACKGROUND]:
            found.append(f"region {name!r}: no file holds the label {', '.join(absent)}")
    return found + [
        f"no file holds the label {old} that map_values= takes for {new}"
        for old, new in map_values.items()
        if old not in mapped
    ]


def warn_of_images(values: Mapping[str, Collection[int]]) -> str | None:
    """Warn of label files that hold so many values that they look like images.

    Parameters
    ----------
    values : dict of str to collection of int
        Name of each file (or case), and the values in it.

    Returns
    -------
    str or None
        The warning, with the first names; None where no file holds more than 100 values.

    Examples
    --------
    >>> print(warn_of_images({"ct_1": range(1700), "seg_1": range(3)}))
    ct_1 holds 1,700 values, which looks like an image and not like labels; name the folder of the label files, or \
give classes=(0, 1, ...) if every value is a class
    """
    many = {name: len(found) for name, found in values.items() if len(found) > MOST_LABELS}
    if not many:
        return None
    most = max(many.values())
    held = f"holds {most:,} values" if len(many) == 1 else f"hold up to {most:,} values each"
    looks = "looks like an image" if len(many) == 1 else "looks like images"
    return (
        f"{shorten(list(many))} {held}, which {looks} and not like labels; name the folder of the label files, or give "
        "classes=(0, 1, ...) if every value is a class"
    )
