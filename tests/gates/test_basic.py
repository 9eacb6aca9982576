"""A sample that shows nothing is blank; one with something in any field is not."""

from __future__ import annotations

import torch

from lightning_diffaug.gates import NotBlank


def test_nearly_constant_samples_are_blank() -> None:
    x = torch.zeros(4, 1, 3, 3)
    x[1, 0, 1, 1] = 1.0
    x[2] = 0.9
    x[3, 0, 0, 0] = 0.03
    assert NotBlank()({"image": x}, {}).tolist() == [False, True, False, False]
    assert NotBlank(contrast=0.02)({"image": x}, {}).tolist() == [False, True, False, True]


def test_something_in_one_field_is_enough() -> None:
    blank, shows = torch.zeros(2, 5), torch.zeros(2, 2, 2)
    shows[1, 0] = 1.0
    assert NotBlank()({"a": blank, "b": shows}, {}).tolist() == [False, True]


def test_single_numbers_are_never_blank() -> None:
    assert NotBlank()({"size": torch.zeros(3, 1), "weight": torch.zeros(3)}, {}).all()
    beside = {"size": torch.tensor([[0.1], [0.9]]), "image": torch.zeros(2, 1, 2, 2)}
    assert not NotBlank()(beside, {}).any()
