"""Several labels a sample: rare ones reach their quota, common ones do not exceed what comes along."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_diffaug.conditions import QuotaPlanner, RealGuidedPlanner
from lightning_diffaug.conditions.multilabel import candidates, label_sets, rows_for
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

# person (18), dog (8, 5 with a person), boat (3, 2 with a person), kite (2, always with a person)
SETS = [[1, 0, 0, 0]] * 9 + [[1, 1, 0, 0]] * 5 + [[0, 1, 0, 0]] * 3
SETS += [[1, 0, 1, 0]] * 2 + [[0, 0, 1, 0]] + [[1, 0, 0, 1]] * 2 + [[0, 0, 0, 0]] * 2
HAS = torch.tensor(SETS).bool()


def _data() -> Snapshot:
    image = torch.arange(len(SETS), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    spec = (
        FieldSpec("image", "0", "tensor", "uint8", (1, 2, 2), 0.0, 255.0),
        FieldSpec("tags", "1", "tensor", "float32", (4,), 0.0, 1.0),
    )
    return Snapshot(SampleSpec(spec), {"image": image, "tags": HAS.float()})


def _counts(quotas: list[float], slots: int = 50, rows: int = 20) -> Tensor:
    """Labels of the rows that are planned."""
    unwanted = [k for k, quota in enumerate(quotas) if quota == 0]
    shares = rows_for(HAS, quotas)
    planner = RealGuidedPlanner(shares, "noise", given=["tags"], labels_in="tags", unwanted=unwanted)
    planner.bind(_data())
    plans = [planner.plan(slot, rows) for slot in range(slots)]
    for plan in plans:
        assert torch.equal(plan["tags"], HAS[plan["source_index"]].float())  # the vectors are those of real samples
        assert bool(plan["tags"].bool().gather(1, plan["made_for"][:, None]).all())
        assert "label" not in plan
    counts: Tensor = torch.cat([plan["tags"] for plan in plans]).sum(0)
    return counts


def test_labels_that_can_reach_their_quotas_exactly_do() -> None:
    counts = _counts([0.5, 0.25, 0.25, 0.0])
    assert counts[3] == 0
    assert (counts[:3] / counts[:3].sum()).tolist() == pytest.approx([0.5, 0.25, 0.25], abs=0.02)


def test_a_rare_label_is_filled_and_what_is_not_wanted_comes_only_where_it_must() -> None:
    counts = _counts([0.0, 0.0, 0.3, 0.7])
    assert counts[1] == 0  # no dog
    assert float(counts[3] / counts[2]) == pytest.approx(7 / 3, abs=0.2)
    assert counts[0] == counts[3]  # a kite comes with a person; boats are those without


def test_rows_for_a_label_that_comes_by_itself_are_spared() -> None:
    shares = rows_for(HAS, [0.25, 0.25, 0.25, 0.25])
    assert shares[0] == 0.0  # each kite has its person
    assert sum(shares) == pytest.approx(1.0)
    counts = _counts([0.25] * 4)
    assert float(counts[1:].max() / counts[1:].min()) < 1.15
    assert counts[0] >= counts[1:].max()


def test_the_shares_are_the_best_there_are() -> None:
    """No other shares, drawn at random, bring every label nearer to its quota."""
    quotas = np.array([0.1, 0.5, 0.3, 0.1])
    may = candidates(HAS, []).double().numpy()
    beside = (may.T @ HAS.double().numpy()) / may.sum(0)[:, None]
    best = (np.array(rows_for(HAS, quotas)) @ beside / quotas).min()
    others = np.random.default_rng(0).dirichlet(np.ones(4), 5000)
    assert best >= (others @ beside / quotas).min(1).max() - 1e-9


def test_a_planner_of_several_labels_is_made_again_by_its_name() -> None:
    planner = RealGuidedPlanner([0.2, 0.3, 0.5, 0.0], "noise", given=["tags"], labels_in="tags", unwanted=[3])
    again = build(name_of(planner, "planner"), "planner")
    for one in (planner, again):
        one.bind(_data())
    first, second = planner.plan(4, 30), again.plan(4, 30)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(first["made_for"], QuotaPlanner([0.2, 0.3, 0.5, 0.0]).plan(4, 30)["label"])


def test_what_does_not_say_which_labels_there_are_is_refused() -> None:
    assert torch.equal(
        label_sets(torch.tensor([[1.0, -1.0], [0.0, 1.0]]), "tags"), torch.tensor([[1, 0], [0, 1]]).bool()
    )
    for vectors in (torch.tensor([[0.5, 1.0]]), torch.ones(2, 2, 2), torch.tensor([[255, 0]], dtype=torch.uint8)):
        with pytest.raises(ConfigurationError, match=r"'tags'.*data\.planner\.field"):
            label_sets(vectors, "tags")
    with pytest.raises(ConfigurationError):
        RealGuidedPlanner([1, 1], "edit", labels_in="tags")
