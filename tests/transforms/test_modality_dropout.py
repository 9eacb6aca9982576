from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.transforms import ModalityDropout, SampleModalityDropout
from lightning_diffaug.transforms.modality_dropout import draw_present

CASES = [(0.5, 0.5), (0.3, 0.7), (0.9, 0.8, 0.6), (0.5, 0.0, 0.2), (1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 0.4), (0.0, 0.0)]


def batch(n: int = 6) -> dict[str, Any]:
    return {"image": torch.rand(n, 3, 4, 4) + 1, "audio": torch.rand(n, 20) + 1, "label": torch.arange(n)}


def pattern_probabilities(p: tuple[float, ...]) -> dict[tuple[bool, ...], float]:
    """What the documentation says: a product each, and the probability of none shared by the patterns of one."""
    m = len(p)
    found = {}
    for kept in itertools.product([False, True], repeat=m):
        product = math.prod(1 - q if there else q for q, there in zip(p, kept, strict=True))
        extra = math.prod(p) / m if sum(kept) == 1 else 0.0
        found[kept] = product + extra if any(kept) else 0.0
    return found


@pytest.mark.parametrize("p", CASES)
def test_patterns_are_as_probable_as_documented_and_none_is_empty(p: tuple[float, ...]) -> None:
    n = 20_000
    torch.manual_seed(0)
    present = draw_present(p, n)
    assert present.shape == (n, len(p))
    assert present.dtype == torch.bool
    assert present.any(dim=1).all()
    wanted = pattern_probabilities(p)
    assert math.isclose(sum(wanted.values()), 1.0)
    counts = {kept: int((present == torch.tensor(kept)).all(dim=1).sum()) for kept in wanted}
    assert all(counts[kept] == 0 for kept, probability in wanted.items() if probability == 0)
    possible = [kept for kept, probability in wanted.items() if probability > 0]
    if len(possible) > 1:
        assert chisquare([counts[k] for k in possible], [n * wanted[k] for k in possible]).pvalue > 0.001


@pytest.mark.parametrize("p", [case for case in CASES if max(case) > 0])
def test_a_modality_is_missing_as_often_as_it_says(p: tuple[float, ...]) -> None:
    dropout = ModalityDropout({f"m{i}": probability for i, probability in enumerate(p)})
    said = list(dropout.missing_probabilities.values())
    assert said == pytest.approx([probability - math.prod(p) / len(p) for probability in p])
    n = 5000
    torch.manual_seed(1)
    _, present = dropout({f"m{i}": torch.ones(n, 1) for i in range(len(p))})
    for i, probability in enumerate(said):
        assert binomtest(int((~present[:, i]).sum()), n, probability).pvalue > 0.001


def test_samples_are_drawn_each_on_its_own() -> None:
    torch.manual_seed(0)
    present = draw_present([0.5, 0.5], 20_000)[:, 0].float()
    assert abs(float(np.corrcoef(present[:-1], present[1:])[0, 1])) < 0.03


def test_what_is_missing_is_zero_and_what_is_present_is_untouched() -> None:
    given, before = batch(64), {}
    before = {name: value.clone() for name, value in given.items()}
    torch.manual_seed(0)
    made, present = ModalityDropout({"image": 0.4, "audio": 0.6}, mask_key="present")(given)
    assert torch.equal(made["present"], present)
    assert 0 < int(present[:, 0].sum()) < 64
    for i, name in enumerate(("image", "audio")):
        assert torch.equal(made[name][present[:, i]], before[name][present[:, i]])
        assert (made[name][~present[:, i]] == 0).all()
        assert torch.equal(given[name], before[name]), "the given batch is left alone"
    assert torch.equal(made["label"], before["label"])
    assert "present" not in given


def test_given_values_stand_for_what_is_missing() -> None:
    ids = torch.arange(12).reshape(6, 2)
    given = {
        "image": torch.rand(6, 3, 2, 2),
        "ids": ids,
        "caption": ["a", "b", "c", "d", "e", "f"],
        "text": list("abcdef"),
    }
    dropout = ModalityDropout(
        dict.fromkeys(given, 0.9),
        replace={"image": [[[0.1]], [[0.2]], [[0.3]]], "ids": 99, "caption": "nothing"},
    )
    torch.manual_seed(0)
    made, present = dropout(given)
    lost = ~present
    assert lost.any(dim=0).all()
    wanted = torch.tensor([0.1, 0.2, 0.3])[:, None, None].expand(3, 2, 2)
    assert all(torch.equal(one, wanted) for one in made["image"][lost[:, 0]])
    assert made["ids"].dtype == torch.int64
    assert (made["ids"][lost[:, 1]] == 99).all()
    assert made["caption"] == ["nothing" if gone else text for text, gone in zip("abcdef", lost[:, 2], strict=True)]
    assert made["text"] == ["" if gone else text for text, gone in zip("abcdef", lost[:, 3], strict=True)]


def test_learned_tokens_are_parameters_and_only_missing_samples_teach_them() -> None:
    dropout = ModalityDropout({"image": 0.5, "audio": 0.5}, "learned", {"image": [3, 1, 1], "audio": [20]})
    assert [tuple(token.shape) for token in dropout.parameters()] == [(3, 1, 1), (20,)]
    with torch.no_grad():
        for token in dropout.parameters():
            token.fill_(5.0)
    given = {name: value.requires_grad_() for name, value in batch().items() if name != "label"}
    torch.manual_seed(0)
    made, present = dropout(given)
    assert (made["image"][~present[:, 0]] == 5).all()
    (made["image"].sum() + made["audio"].sum()).backward()
    image, audio = dropout.parameters()
    assert image.grad is not None
    assert audio.grad is not None
    assert torch.equal(image.grad, torch.full((3, 1, 1), 16.0 * int((~present[:, 0]).sum())))
    assert torch.equal(audio.grad, torch.full((20,), float((~present[:, 1]).sum())))
    assert torch.equal(given["audio"].grad, present[:, 1, None].float().expand(6, 20))
    again = ModalityDropout({"image": 0.5, "audio": 0.5}, "learned", {"image": [3, 1, 1], "audio": [20]})
    again.load_state_dict(dropout.state_dict())
    assert all((token == 5).all() for token in again.parameters())


def test_eval_drops_nothing_but_what_is_asked() -> None:
    dropout, given = ModalityDropout({"image": 0.9, "audio": 0.9}).eval(), batch()
    state = torch.get_rng_state()
    made, present = dropout(given)
    assert present.all()
    assert torch.equal(made["image"], given["image"])
    made, present = dropout(given, missing=("audio",))
    assert present.tolist() == [[True, False]] * 6
    assert (made["audio"] == 0).all()
    assert torch.equal(made["image"], given["image"])
    assert dropout.train()(given, missing="image")[1].tolist() == [[False, True]] * 6
    assert torch.equal(torch.get_rng_state(), state), "what is asked needs no draw"


@dataclass
class Pair:
    image: Tensor
    audio: Tensor


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        (lambda b: (b["image"], b["audio"]), ("0", "1")),
        (lambda b: [b["image"], {"audio": b["audio"]}], ("0", "1.audio")),
        (lambda b: Pair(b["image"], b["audio"]), ("image", "audio")),
    ],
)
def test_structures_are_kept(given: Any, paths: tuple[str, str]) -> None:
    plain = batch()
    structured = given(plain)
    torch.manual_seed(0)
    shapes = dict(zip(paths, ([3, 4, 4], [20]), strict=True))
    made, present = ModalityDropout(dict.fromkeys(paths, 0.5), "learned", shapes)(structured)
    torch.manual_seed(0)
    wanted, same = ModalityDropout({"image": 0.5, "audio": 0.5})(plain)
    assert type(made) is type(structured)
    assert torch.equal(present, same)
    values = [made.image, made.audio] if isinstance(made, Pair) else [made[0], made[1]]
    values = [value["audio"] if isinstance(value, dict) else value for value in values]
    assert torch.equal(values[0], wanted["image"])
    assert torch.equal(values[1], wanted["audio"])


def test_same_seed_gives_the_same_and_two_batches_differ() -> None:
    dropout, given = ModalityDropout({"image": 0.5, "audio": 0.5}), batch(64)
    torch.manual_seed(0)
    first, second = dropout(given)[1], dropout(given)[1]
    torch.manual_seed(0)
    assert torch.equal(first, dropout(given)[1])
    assert not torch.equal(first, second)


def test_a_model_trained_with_dropout_does_better_where_its_favourite_modality_is_missing() -> None:
    def accuracies(probability: float) -> list[float]:
        torch.manual_seed(0)
        y = torch.randint(2, (400,))
        sign = (2 * y - 1).float()[:, None]
        strong, weak = sign + 0.1 * torch.randn(400, 4), 0.3 * sign + 0.6 * torch.randn(400, 4)
        data = {"strong": 3 * strong, "weak": weak}
        dropout, head = ModalityDropout({"strong": probability, "weak": 0.0}), torch.nn.Linear(8, 2)
        optimizer = torch.optim.Adam(head.parameters(), 0.05)

        def logits(missing: Any = None) -> Tensor:
            made, _ = dropout(data, missing)
            return head(torch.cat([made["strong"], made["weak"]], dim=1))

        for _ in range(60):
            loss = torch.nn.functional.cross_entropy(logits(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        dropout.eval()
        return [float((logits(missing).argmax(1) == y).float().mean()) for missing in (None, "strong")]

    without, with_dropout = accuracies(0.0), accuracies(0.5)
    assert min(without[0], with_dropout[0]) > 0.95
    assert with_dropout[1] > without[1] + 0.03


# Of one sample -----------------------------------------------------------------------------------------


def test_sample_form_draws_as_the_batch_form_and_keeps_types() -> None:
    transform = SampleModalityDropout({"image": 0.5, "wave": 0.5, "caption": 0.5}, mask_key="present")
    sample = {"image": torch.ones(3, 2, 2), "wave": np.ones(4, dtype=np.float32), "caption": "a four", "label": 4}
    seen = []
    torch.manual_seed(0)
    for _ in range(3000):
        made = transform(sample)
        seen.append(tuple(made["present"].tolist()))
        assert isinstance(made["wave"], np.ndarray)
        values = (float(made["image"].mean()), float(made["wave"].mean()), float(made["caption"] == "a four"))
        assert values == tuple(float(there) for there in seen[-1])
        assert made["label"] == 4
    wanted = {kept: q for kept, q in pattern_probabilities((0.5, 0.5, 0.5)).items() if q}
    assert chisquare([seen.count(k) for k in wanted], [3000 * q for q in wanted.values()]).pvalue > 0.001
    assert "present" not in sample
    assert sample["caption"] == "a four"


# Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ModalityDropout({"a": 0.5}), "names 1 modalities, and never all"),
        (lambda: ModalityDropout({"a": 0.5, "b": 1.2}), r"1.2}\) is not in \[0, 1\]"),
        (lambda: ModalityDropout({"a": 0.5, "b": 0.2}, "learned"), "needs the shape of 'a'"),
        (lambda: ModalityDropout({"a": 0.5, "b": 0.2}, {"c": 0.0}), r"names \['c'\]"),
        (lambda: ModalityDropout({"a": 0.5, "b": 0.2}, shapes={"c": [1]}), r"shapes=…\) names \['c'\]"),
        (lambda: SampleModalityDropout({"a": 0.5, "b": 0.2}, {"a": "learned"}), "learns nothing"),
    ],
)
def test_wrong_settings_are_refused(make: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        make()


@pytest.mark.parametrize(
    ("p", "options", "given", "text"),
    [
        (("image", "sound"), {}, batch(), "names the field 'sound', and the sample has none"),
        (("label", "audio"), {"replace": {"audio": "learned"}, "shapes": {"audio": [7]}}, batch(), "Set shapes.audio"),
        (("image", "label"), {"replace": {"label": "learned"}, "shapes": {"label": []}}, batch(), "can be learned"),
        (("0", "1"), {"mask_key": "present"}, tuple(batch().values()), "is a tuple and no mapping"),
        (("image", "text"), {"replace": {"text": 1.0}}, batch() | {"text": list("abcdef")}, "texts by a text"),
        (("image", "audio"), {"replace": {"audio": "none"}}, batch(), "cannot replace torch.float32"),
    ],
)  # fmt: skip
def test_batches_that_do_not_fit_are_refused(p: Any, options: dict[str, Any], given: Any, text: str) -> None:
    dropout = ModalityDropout(dict.fromkeys(p, 0.5), **options)
    with pytest.raises(ConfigurationError, match=text):
        dropout(given)


def test_missing_that_leaves_nothing_or_is_unknown_is_refused() -> None:
    dropout = ModalityDropout({"image": 0.5, "audio": 0.5})
    with pytest.raises(ConfigurationError, match="leaves a model nothing to see"):
        dropout(batch(), missing=("image", "audio"))
    with pytest.raises(ConfigurationError, match=r"missing=\['sound'\] is none of the modalities"):
        dropout(batch(), missing="sound")
    assert issubclass(SampleStructureError, ConfigurationError)
