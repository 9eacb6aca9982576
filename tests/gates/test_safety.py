"""A sample that a safety checker objects to is counted under `safety`, whoever brings the checker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gate_data import LABEL
from tiny_clip import coloured, save_checker

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates import Safety, judge
from lightning_diffaug.gates.choice import chosen_gates
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.spec import SampleSpec

LABELS = torch.arange(12) % 2


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return str(save_checker(tmp_path_factory.mktemp("checked")))


def test_a_local_checker_of_diffusers_rejects_what_it_objects_to(checker: str) -> None:
    x = {"image": coloured(LABELS, seed=7)}
    passed = Safety(checker)(x, {})
    assert torch.equal(passed, LABELS == 1), "red is what this one objects to"
    assert [one.reason for one in judge(x, {}, (Safety(checker),), 12)] == ["safety", None] * 6


def test_it_reads_how_images_are_prepared_beside_the_checker(checker: str) -> None:
    prepared = Path(checker).parent / "feature_extractor" / "preprocessor_config.json"
    text = prepared.read_text()
    try:
        prepared.write_text(text.replace("16", "32"))
        with pytest.raises(ValueError, match=r"32\*32"):
            Safety(checker)({"image": torch.zeros(1, 3, 16, 16)}, {})
    finally:
        prepared.write_text(text)


def test_a_checker_of_ones_own_is_asked() -> None:
    x = {"image": torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 1, 8, 8)}
    assert Safety("gate_models.dark")(x, {}).tolist() == [False, False, True, True, True]
    assert Safety("gate_models.darkness")(x, {}).tolist() == [False, False, False, True, True]
    assert Safety("gate_models.darkness", threshold=0.9)(x, {}).tolist() == [False, True, True, True, True]


def test_it_is_made_again_by_its_name_and_named_by_its_files(checker: str) -> None:
    for gate in (Safety(checker), Safety("gate_models.darkness", threshold=0.7)):
        again = build(name_of(gate, "gates"), "gates")
        assert again.config() == gate.config()
        assert again.model_key() == gate.model_key()
    assert Safety(checker).model_key() != Safety("gate_models.dark").model_key()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, r"gates\.safety\.model is not set.*gates\.safety=false"),
        ({"model": "gate_models.dark", "threshold": "x"}, r"gates\.safety\.threshold"),
        ({"model": "gate_models.dark", "thresh": 1}, r"gates\.safety="),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_its_key(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        chosen_gates({"safety": settings})


def test_what_is_missing_is_said_with_its_key(tmp_path: Path) -> None:
    spec = SampleSpec((LABEL,))
    with pytest.raises(ConfigurationError, match=r"gates\.safety\.model=.*no folder"):
        Safety(str(tmp_path / "none")).check(spec, ())
    with pytest.raises(ConfigurationError, match=r"gates\.safety\.model=gate_models\.Named cannot be made"):
        Safety("gate_models.Named", args={"words": "red"}).check(spec, ())
    with pytest.raises(ConfigurationError, match=r"gates\.safety looks at images.*None has the shape \(\)"):
        Safety("gate_models.dark").check(spec, ())
    with pytest.raises(ConfigurationError, match=r"gates\.safety\.model=.*cannot be loaded"):
        Safety(str(tmp_path))({"image": torch.zeros(1, 3, 8, 8)}, {})
    with pytest.raises(ConfigurationError, match=r"gates\.safety\.model returned"):
        Safety("torch.nn.Identity")({"image": torch.zeros(1, 3, 8, 8)}, {})
