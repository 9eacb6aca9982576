"""MixSampler: windows by arithmetic, batches that any position reaches alike, ranks that never meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.mixing import as_schedule
from lightning_diffaug.mixing.sampler import MixSampler, MixSettings, batch_seed
from lightning_diffaug.pool.frozen import WindowRows


def _sampler(
    n: int = 24, world_size: int = 1, batch_size: int = 4, drop_last: bool = False, limit: Any = 1.0, **settings: Any
) -> Any:
    settings = {
        "fraction": as_schedule(settings.pop("fraction", 0.5)),
        "reuse": 1,
        "window": 16,
        "slot_size": 8,
    } | settings
    members = [np.arange(0, n, 2), np.arange(1, n, 2)]
    return MixSampler(MixSettings(**settings), members, ("a", "b"), batch_size, drop_last, True, world_size, limit)


def _rows(n: int = 16) -> WindowRows:
    return WindowRows(
        paths=("one", "two"),
        segment=np.arange(n) // 8,
        row=np.arange(n) % 8,
        slot=np.arange(n) // 8,
        by_class=[np.arange(0, n, 2), np.arange(1, n, 2)],
    )


def test_windows_move_by_what_was_drawn_over_reuse() -> None:
    assert [tuple(_sampler().slots(e)) for e in range(5)] == [(0, 1), (1, 2), (3, 4), (4, 5), (6, 7)]
    assert [_sampler(reuse=2).slots(e).start for e in range(5)] == [0, 0, 1, 2, 3]
    assert {_sampler(reuse=float("inf")).slots(e).start for e in range(50)} == {0}


def test_windows_of_two_ranks_are_those_of_one() -> None:
    for epoch in range(6):
        assert _sampler(world_size=2, batch_size=2).slots(epoch) == _sampler().slots(epoch)


def test_windows_follow_a_schedule() -> None:
    sampler = _sampler(fraction={"name": "stop_after", "value": 0.5, "epoch": 2})
    assert [sampler.slots(e).start for e in range(6)] == [0, 1, 3, 3, 3, 3]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_any_batch_is_reached_alike_from_anywhere(world_size: int) -> None:
    sampler, rows = _sampler(world_size=world_size, batch_size=3), _rows()
    plan = sampler.plan(1, rows, [1.0, 1.0])
    for rank in range(world_size):
        whole = list(sampler.batches(plan, rows, 1, rank, 0))
        assert len(whole) == len(sampler)
        for start in range(len(whole) + 1):
            rest = list(sampler.batches(plan, rows, 1, rank, start))
            assert len(rest) == len(whole) - start
            for a, b in zip(rest, whole[start:], strict=True):
                assert (a.real == b.real).all()
                assert (a.row == b.row).all()
                assert a.seed == b.seed


def test_ranks_draw_disjoint_positions() -> None:
    sampler, rows = _sampler(world_size=2), _rows()
    plan = sampler.plan(0, rows, [1.0, 1.0])
    parts = [list(sampler.batches(plan, rows, 0, rank, 0)) for rank in (0, 1)]
    drawn = [
        [(int(r), int(s), int(q)) for b in part for r, s, q in zip(b.real, b.segment, b.row, strict=True)]
        for part in parts
    ]
    assert len(drawn[0]) == len(drawn[1]) == 12
    assert len(set(drawn[0]) | set(drawn[1])) == 24


def test_a_batch_names_the_segment_and_row_of_each_pooled_sample() -> None:
    sampler, rows = _sampler(), _rows()
    plan = sampler.plan(0, rows, [1.0, 1.0])
    for number, batch in enumerate(sampler.batches(plan, rows, 0, 0, 0)):
        part = plan.rank_slice(0, 4 * number, 4 * number + 4)
        synthetic = part.window_row >= 0
        assert ((batch.real < 0) == synthetic).all()
        assert (batch.segment[synthetic] * 8 + batch.row[synthetic] == part.window_row[synthetic]).all()
        assert (batch.segment[~synthetic] == -1).all()
        assert batch.segments == ("one", "two")


def test_every_batch_has_a_seed_of_its_own() -> None:
    seeds = {batch_seed(s, e, r, b) for s in range(3) for e in range(5) for r in range(3) for b in range(20)}
    assert len(seeds) == 3 * 5 * 3 * 20
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize(
    ("drop_last", "world_size", "draws", "batches"),
    [
        (False, 1, 26, 7),
        (True, 1, 24, 6),
        (False, 2, 13, 4),
        (True, 2, 12, 3),
        (False, 4, 7, 2),
        (True, 4, 4, 1),
    ],
)
def test_the_length_of_an_epoch(drop_last: bool, world_size: int, draws: int, batches: int) -> None:
    sampler = _sampler(26, world_size, 4, drop_last)
    assert (sampler.draws, len(sampler)) == (draws, batches)
    assert sampler.drawn(batches) == draws
    assert sampler.drawn(1) == min(4, draws)


def test_an_epoch_of_no_whole_batch_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"no whole batch of 32(.|\n)*drop_last"):
        _sampler(batch_size=32, drop_last=True)


def test_settings_that_do_not_fit_the_data_are_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.allocation"):
        _sampler(allocation={"c": 1.0})


@pytest.mark.parametrize(
    "fraction",
    [
        {"name": "linear", "start": 0, "end": 1, "epochs": 3},
        {"name": "cosine", "start": 0, "end": 1, "epochs": 3},
        {"name": "piecewise", "values": {0: 0, 5: 1, 9: 0}},
    ],
)
def test_what_a_later_epoch_cannot_have_is_refused_before_the_first(fraction: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.allocation gives a more than a class's total"):
        _sampler(fraction=fraction, balance="classes", allocation={"a": 1.0})


def test_a_cap_that_a_later_epoch_raises_is_known_before_the_first() -> None:
    ramp = {"name": "linear", "start": 0.1, "end": 1.0, "epochs": 2}
    sampler = _sampler(fraction=ramp, balance="classes", allocation="deficit")
    assert not sampler.targets(0).cap_raised
    assert sampler.most_synthetic().cap_raised


@pytest.mark.parametrize("limit", [1, 0.125])
def test_the_share_is_exact_where_only_some_batches_of_an_epoch_are_drawn(limit: Any) -> None:
    sampler, rows = _sampler(48, batch_size=6, fraction=0.25, limit=limit), _rows()
    assert len(sampler) == 8
    made = [sampler.plan(epoch, rows, [1.0, 1.0]).made(sampler.drawn(1)).synthetic for epoch in range(20)]
    assert sum(made) == 30, "a quarter of 20 batches of 6"
    assert made[:4] == [1, 2, 1, 2]


def test_windows_move_by_what_was_drawn_where_only_some_batches_are() -> None:
    assert [_sampler(limit=2).slots(e).start for e in range(5)] == [0, 0, 1, 1, 2]
    assert [_sampler(limit=100).slots(e) for e in range(5)] == [_sampler().slots(e) for e in range(5)]
    assert [_sampler(limit=2, mode="append").slots(e).start for e in range(5)] == [0, 0, 1, 1, 2]


def test_a_digest_tells_mixes_apart_and_not_ways_to_write_them() -> None:
    base = {"fraction": 0.5}
    assert _sampler(**base).digest() == _sampler(fraction="1/2", reuse=1.0).digest()
    assert _sampler(fraction={"name": "linear", "start": 0.5, "end": 0.5, "epochs": 9}).digest() == _sampler().digest()
    others: list[dict[str, Any]] = [
        {"fraction": 0.25}, {"fraction": {"name": "stop_after", "value": 0.5, "epoch": 40}}, {"mode": "append"},
        {"balance": "classes"}, {"allocation": {"a": 1}}, {"reuse": float("inf")}, {"window": 24}, {"seed": 1},
        {"n": 26}, {"batch_size": 6}, {"world_size": 2}, {"limit": 3}, {"exact": False},
    ]  # fmt: skip
    assert len({_sampler(**change).digest() for change in [base, *others]}) == 1 + len(others)
