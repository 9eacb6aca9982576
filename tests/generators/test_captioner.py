"""The captioner: what real images show, in words it learned from real pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_diffaug.conditions.planner import QuotaPlanner
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import Captioner
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.recipe import Recipe
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

IMAGE = FieldSpec("image", "image", "tv_image", "uint8", (1, 8, 8), 0.0, 255.0)
CAPTION = FieldSpec("caption", "caption", "str", "str", (), 0.0, 0.0)
SPEC = SampleSpec((IMAGE, CAPTION))


def _pairs() -> Snapshot:
    """Light images on the left or on the right, in two ways of saying so."""
    left = torch.arange(64) % 2 == 0
    images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    images[left, :, :, :4] = 200
    images[~left, :, :, 4:] = 200
    ways = ("Light on the {}.", "on the {}: light")
    texts = [ways[i // 2 % 2].format("left" if at else "right") for i, at in enumerate(left.tolist())]
    return Snapshot(SPEC, {"image": images}, texts={"caption": texts})


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    folder, found = tmp_path_factory.mktemp("fit"), Captioner(steps=80, width=32, lr=1e-2)
    found.fit(_pairs(), folder, lambda step, total: None)
    found.load(folder)
    return found


def test_it_says_what_an_image_shows_in_several_ways_and_the_same_by_one_seed(captioner: Captioner) -> None:
    images = _pairs().unit("image", torch.arange(40))
    made = captioner.generate({"start": images}, list(range(40)))
    assert torch.equal(made["image"], images)
    sides = [["left", "right"][i % 2] for i in range(40)]
    assert {*made["caption"]} == {f"{how} {side}" if how != "on the" else f"on the {side} light"
                                  for how in ("light on the", "on the") for side in ("left", "right")}  # fmt: skip
    assert all(side in text for side, text in zip(sides, made["caption"], strict=True))
    one = captioner.generate({"start": images[7:8]}, [7])
    assert one["caption"] == made["caption"][7:8]


def test_a_text_that_a_generator_makes_is_the_samples_own(captioner: Captioner) -> None:
    class Planner(QuotaPlanner):
        def plan(self, slot: int, rows: int) -> dict[str, Any]:
            start = _pairs().unit("image", torch.arange(rows))
            return {"prompt": ["of the planner"] * rows, "start": start}

    shard = fill_slot(0, Recipe(Planner(None), captioner, (), SPEC, slot_size=4))
    assert [("left" in text, "right" in text) for text in shard.strings["caption"]] == [
        (True, False),
        (False, True),
    ] * 2
    assert torch.equal(shard.fields["image"], _pairs().raw("image", torch.arange(4)))


def test_what_it_lacks_is_said(captioner: Captioner) -> None:
    with pytest.raises(GeneratorError, match="no image for each"):
        captioner.generate({}, [0])
    with pytest.raises(GeneratorError, match="no weights yet"):
        Captioner().generate({}, [0])
    with pytest.raises(ConfigurationError, match=r"data\.fields"):
        Captioner().bind(SampleSpec((IMAGE,)), ())
    for wrong in (0.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match=rf"temperature={wrong}"):
            Captioner(temperature=wrong)
    assert Captioner(**captioner.config()).fit_key() == captioner.fit_key()
