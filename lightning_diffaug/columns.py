"""Which column of a learner's logits, and of its soft labels, each class has: the rule is here alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from lightning_diffaug.adapter import SampleAdapter
from lightning_diffaug.randomness import untouched_rng
from lightning_diffaug.spec import LABEL, LabelValue
from lightning_diffaug.structure import leaves, with_leaf
from lightning_diffaug.wrapping import SampleTransform


def columns_of(labels: Sequence[LabelValue]) -> list[int]:
    """The column of each label: itself where all are non-negative integers, else its rank among them.

    Args:
        labels: The label of each class as the learner sees it; classes of one label share its column.
    """
    numbers = [label for label in labels if isinstance(label, int) and label >= 0]
    if len(numbers) == len(labels):
        return numbers
    ordered = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
    return [ordered.index(label) for label in labels]


def label_of(leaf: Any) -> LabelValue | None:
    """The label that a leaf is, an integer or a string; None: it is none."""
    if isinstance(leaf, str):
        return leaf
    if getattr(leaf, "ndim", 0) != 0:
        return None
    value = leaf.item() if hasattr(leaf, "item") else leaf
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def trained_labels(
    adapter: SampleAdapter, template: Any, transform: Callable[[Any], Any] | None, values: Sequence[LabelValue]
) -> list[LabelValue] | None:
    """The label of each class once a sample of it went through what pooled samples go through.

    Args:
        adapter: Of these samples.
        template: A raw sample.
        transform: What pooled samples go through; None for nothing.
        values: The raw label of each class.

    Returns:
        One for each class; the raw ones where samples have none; None where the transform makes something else of
        them, such as vectors.
    """
    label = adapter.spec.get(LABEL)
    if label is None or label.path not in leaves(template) or transform is None:
        return list(values)
    changes = transform.leaf_changes if isinstance(transform, SampleTransform) else None
    if changes is not None and label.path not in changes:
        return list(values)
    found = []
    with untouched_rng():
        for leaf in adapter.label_leaves():
            if changes is not None:
                made = changes[label.path](leaf)
            else:
                sample = with_leaf(template, label.path, functools.partial(_instead, leaf))
                made = leaves(transform(sample)).get(label.path)
            found.append(label_of(made))
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else None


def _instead(leaf: Any, _: Any) -> Any:
    return leaf
