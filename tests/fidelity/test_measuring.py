"""Each figure has its level and its number of samples beside it; one that cannot be had is absent with its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gate_models import Sums
from safetensors.torch import save_file
from tiny_clip import coloured

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity import Fidelity, FidelitySettings, Samples, measure
from lightning_diffaug.fidelity.features import FeatureNetwork, _tensors, feature_network
from lightning_diffaug.fidelity.result import METRICS, OF_PAIRS
from lightning_diffaug.fidelity.samples import drawn_alike, halves, weights_alike

QUICK: dict[str, Any] = {"classifier": {"steps": 30, "width": 8}}
PIXELS: dict[str, Any] = {**QUICK, "features": "pixels", "train_on_synthetic": False}


def plain(n: int, seed: int, classes: int | None = 2, shape: tuple[int, ...] = (1, 6, 6)) -> Samples:
    """Noise about a level that is its class's."""
    rng = torch.Generator().manual_seed(seed)
    labels = None if classes is None else torch.arange(n) % classes
    level = torch.zeros(n) if labels is None else labels / 2 - 0.5
    values = 0.2 * torch.randn((n, *shape), generator=rng) + level.view(-1, *[1] * len(shape))
    return Samples(values.clamp(-1, 1), labels)


@pytest.fixture(scope="module")
def whole() -> Fidelity:
    torch.set_num_threads(1)
    return measure(plain(200, 0), plain(120, 1), plain(150, 2), ("dark", "light"), QUICK)


def test_every_figure_has_its_level_and_its_numbers(whole: Fidelity) -> None:
    assert set(whole.measured) | set(whole.absent) == set(METRICS) - set(OF_PAIRS)
    assert set(whole.absent) == {"caption_agreement", "lpips"}
    for name, one in whole.measured.items():
        assert one.real is not None, name
        assert (one.samples, one.real_samples) == ((120, 200) if name == "tstr" else (120, 120)), name
    assert whole.about["level"] == "training data against validation data"
    assert whole.measured["kid"].standard_error is not None
    assert whole.measured["closer_than_real"].p is not None
    assert whole.measured["class_agreement"].value == 1.0


def test_flat_figures_are_those_that_are_logged(whole: Fidelity) -> None:
    figures = whole.figures()
    assert all(type(value) is float and key.startswith("fidelity/") for key, value in figures.items())
    expected = {"frechet", "frechet_real", "kid", "kid_standard_error", "closer_than_real_p", "tstr_real", "samples"}
    assert {f"fidelity/{name}" for name in expected} < set(figures)
    assert not [key for key in figures if "lpips" in key]
    assert figures["fidelity/samples"] == 120


def test_the_record_is_read_as_it_was_written(whole: Fidelity, tmp_path: Path) -> None:
    found = Fidelity.read(whole.write(tmp_path / "fidelity.json"))
    assert found == whole
    (tmp_path / "other.json").write_text('{"kinds": []}')
    with pytest.raises(ConfigurationError, match="no record of fidelity"):
        Fidelity.read(tmp_path / "other.json")


def test_the_table_says_what_is_absent_and_why(whole: Fidelity) -> None:
    text = whole.table()
    for part in ("Fréchet distance", "real: training data against validation data", "lpips is not set", "dark", "120"):
        assert part in text


def test_classes_are_measured_by_themselves_where_they_are_large_enough(whole: Fidelity) -> None:
    assert set(whole.per_class) == {"dark", "light"}
    one = whole.per_class["dark"]["frechet"]
    assert (one.samples, one.real_samples, one.reference) == (60, 60, 100)
    few = measure(plain(200, 0), plain(120, 1), plain(150, 2), ("dark", "light"), {**PIXELS, "least_per_class": 61})
    assert few.per_class == {}
    assert few.about["classes_too_small"] == ["dark", "light"]
    assert "fewer than 61" in few.table()


def test_the_same_seed_gives_the_same_figures_and_global_random_states_stay(whole: Fidelity) -> None:
    before = torch.get_rng_state()
    again = measure(plain(200, 0), plain(120, 1), plain(150, 2), ("dark", "light"), QUICK)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.figures() == whole.figures()
    assert measure(plain(200, 0), plain(120, 1), plain(150, 2), (), {**QUICK, "seed": 1}).figures() != whole.figures()


def test_it_works_within_a_test_where_gradients_are_off(whole: Fidelity) -> None:
    with torch.no_grad():
        found = measure(plain(200, 0), plain(120, 1), plain(150, 2), ("dark", "light"), QUICK)
    assert found.figures() == whole.figures()


def test_without_held_out_data_halves_of_the_training_data_are_compared() -> None:
    train = plain(201, 0)
    found = measure(train, plain(80, 1), None, ("dark", "light"), QUICK)
    assert found.about["level"] == "one half of the training data against the other"
    assert (found.about["fitted_samples"], found.about["held_out_samples"]) == (101, 100)
    assert found.measured["closer_than_real"].reference == 201, "copies of either half are copies"
    copies = measure(train, train.take(torch.arange(0, 201, 2)), None, (), PIXELS)
    assert copies.measured["closer_than_real"].value == 1.0
    honest = measure(train, plain(200, 5), None, (), PIXELS)
    assert honest.measured["closer_than_real"].p > 0.01  # type: ignore[operator]


def test_halves_halve_every_class_and_share_nothing() -> None:
    first, second = halves(Samples(torch.arange(31.0)[:, None], torch.tensor([0] * 20 + [1] * 10 + [2])), 0)
    assert [torch.bincount(half.labels, minlength=3).tolist() for half in (first, second)] == [[10, 5, 1], [10, 5, 0]]
    assert sorted(torch.cat((first.values, second.values)).flatten().tolist()) == list(range(31))


def test_other_class_shares_are_not_what_differs() -> None:
    """A pool that is mostly of the rare class, against training data that are mostly of the other."""

    def shares(n: tuple[int, int], seed: int) -> Samples:
        rows = plain(800, seed)
        return rows.take(torch.cat([(rows.labels == c).nonzero()[:count, 0] for c, count in enumerate(n)]))

    found = measure(shares((300, 30), 0), shares((60, 300), 1), shares((200, 100), 2), (), PIXELS)
    assert found.about["reference_weighted"]
    assert found.about["compared_samples"] == 160
    frechet, kid = found.measured["frechet"], found.measured["kid"]
    assert frechet.value == pytest.approx(frechet.real, rel=0.2)
    assert abs(kid.value) < 0.05
    assert found.measured["spectrum"].value < 0.5


def test_drawing_keeps_shares_where_there_are_too_many() -> None:
    first, second = drawn_alike(plain(90, 0, 3), plain(60, 1, 3), 30, 0)
    for one in (first, second):
        assert torch.bincount(one.labels).tolist() == [10, 10, 10]  # type: ignore[arg-type]
    assert len(drawn_alike(plain(90, 0, None), plain(60, 1, 3), 100, 0)[0]) == 60
    assert weights_alike(first, second) is None


def test_a_class_without_a_sample_is_named() -> None:
    train, made = plain(90, 0, 3), plain(60, 1, 2)
    found = measure(train, made, plain(60, 2, 3), ("a", "b", "c"), PIXELS)
    assert found.about["classes_absent"] == ["c"]
    assert found.figures()["fidelity/classes_absent"] == 1.0
    assert "without a synthetic sample: c" in found.table()


def test_one_class_has_no_classifier_and_is_compared_in_pixels() -> None:
    found = measure(plain(80, 0, 1), plain(60, 1, 1), plain(60, 2, 1))
    assert found.about["features"].startswith("pixels")
    for name in ("class_agreement", "trts", "tstr"):
        assert "two classes" in found.absent[name]
    assert "frechet" in found.measured
    with pytest.raises(ConfigurationError, match="features=class"):
        measure(plain(80, 0, 1), plain(60, 1, 1), settings={"features": "class"})


def test_data_without_labels_are_measured_without_classes() -> None:
    found = measure(plain(80, 0, None), plain(60, 1, None), plain(60, 2, None))
    assert found.per_class == {}
    assert not found.about["drawn_by_class"]
    assert "of all samples" in found.measured["within_class"].note


def test_synthetic_samples_without_labels_lack_what_asks_for_them() -> None:
    found = measure(plain(80, 0), replace(plain(60, 1), labels=None), plain(60, 2), settings=QUICK)
    assert "no labels" in found.absent["class_agreement"]
    assert "frechet" in found.measured


def test_vectors_have_no_look_but_all_else() -> None:
    found = measure(plain(80, 0, 2, (7,)), plain(60, 1, 2, (7,)), plain(60, 2, 2, (7,)), settings=QUICK)
    assert set(found.absent) == {"spectrum", "sharpness", "lpips", "caption_agreement"}
    assert "images" in found.absent["spectrum"]


def test_few_samples_have_what_few_samples_can_have() -> None:
    found = measure(plain(12, 0), plain(3, 1), plain(12, 2), settings={**QUICK, "features": "pixels"})
    assert found.measured["frechet"].samples == 3
    assert "fewer samples (3) than dimensions (36)" in found.measured["frechet"].note
    assert "at least 4" in found.absent["precision"]


def test_identical_sets_are_at_no_distance_and_are_copies() -> None:
    x = plain(100, 0)
    found = measure(x, x, x, (), PIXELS).measured
    assert found["frechet"].value == pytest.approx(0, abs=1e-6)
    assert found["precision"].value == 1.0
    assert found["spectrum"].value == pytest.approx(0, abs=1e-9)
    assert found["authenticity"].value == 0.0


@pytest.mark.parametrize(
    ("made", "held_out", "why"),
    [
        (Samples(torch.full((40, 1, 6, 6), torch.nan), torch.arange(40) % 2), None, "synthetic samples are NaN"),
        (plain(40, 1, 2, (1, 5, 5)), None, r"the synthetic samples have the shape \(1, 5, 5\)"),
        (plain(40, 1), plain(40, 1, 2, (3, 6, 6)), "the held-out samples have the shape"),
        (plain(1, 1), None, "1 synthetic samples"),
        (Samples(plain(40, 1).values, torch.full((40,), 7)), None, "no class has both"),
    ],
    ids=["nan", "shape", "held-out shape", "one", "other classes"],
)
def test_what_cannot_be_compared_is_refused(made: Samples, held_out: Samples | None, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        measure(plain(80, 0), made, held_out, settings=QUICK)


def test_labels_and_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="one of each"):
        Samples(torch.rand(3, 1), torch.arange(2))
    with pytest.raises(ConfigurationError, match="class indices"):
        Samples(torch.rand(3, 1), torch.rand(3, 4))
    for wrong in ({"samples": 2}, {"quantile": 1.5}, {"seed": -1}, {"nothing": 1}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            FidelitySettings.of(wrong)


# Feature networks -----------------------------------------------------------------------------------


def test_features_are_those_of_the_users_module() -> None:
    network = feature_network("gate_models.Sums", None, "cpu")
    x = plain(9, 0, None, (3, 6, 6)).values
    assert torch.equal(network(x, "samples"), Sums()(x))
    found = measure(plain(40, 0), plain(30, 1), plain(30, 2), (), {**PIXELS, "features": "gate_models.Sums"})
    assert found.about["dimensions"] == 6


def test_features_with_weights_of_a_file(tmp_path: Path) -> None:
    save_file({"weight": torch.tensor([0.0, 2.0, 0.0, 0.0])}, tmp_path / "w.safetensors")
    setting = {"model": "gate_models.Quadrants", "weights": str(tmp_path / "w.safetensors")}
    found = feature_network(setting, None, "cpu")(torch.ones(3, 1, 4, 4), "samples")
    assert torch.equal(found, torch.tensor([0.0, 2.0, 0.0, 0.0]).expand(3, 4))


def test_features_that_are_not_finite_are_said_with_the_network_to_change() -> None:
    network = FeatureNetwork("broken", lambda x: x.flatten(1).log())
    with pytest.raises(ConfigurationError, match=r"of the samples are NaN or infinite in 5 of 5.*Set features"):
        network(torch.full((5, 1, 2, 2), -1.0), "the samples")
    with pytest.raises(ConfigurationError, match="1 rows for 5 samples"):
        FeatureNetwork("mean", lambda x: x.mean(0, keepdim=True))(torch.ones(5, 1, 2, 2), "the samples")


def test_inception_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for setting in ("inception", {"inception": str(tmp_path / "weights.pth")}):
        with pytest.raises(ConfigurationError, match=r"torch-fidelity/releases.*\{inception: <file>\}"):
            feature_network(setting, None, "cpu")


class Runs:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_weights_of_inception_run_no_code(tmp_path: Path) -> None:
    torch.save({"weight": Runs(tmp_path / "ran")}, tmp_path / "weights.pth")
    with pytest.raises(ConfigurationError, match="no file of tensors"):
        _tensors(tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pth")
    assert torch.equal(_tensors(tmp_path / "weights.pth")["weight"], torch.ones(2))


def test_features_of_inception(tmp_path: Path) -> None:
    """With weights of chance, as torch-fidelity's own network gives them."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with torch.random.fork_rng(devices=[]):
        module.load_state_dict_from_url, kept = lambda *_, **__: {}, module.load_state_dict_from_url
        load, torch.nn.Module.load_state_dict = torch.nn.Module.load_state_dict, lambda *_: None  # type: ignore
        try:
            network = module.FeatureExtractorInceptionV3("inception", ["2048"])
        finally:
            module.load_state_dict_from_url, torch.nn.Module.load_state_dict = kept, load  # type: ignore
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    x = plain(2, 0, None).values
    found = feature_network({"inception": str(tmp_path / "weights.pth")}, None, "cpu")(x, "samples")
    (expected,) = network(((x + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1))
    assert found.shape == (2, 2048)
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("setting", ["no.such.module", "/no/such/folder", {"wrong": 1}])
def test_a_network_that_is_not_there_is_said(setting: Any) -> None:
    with pytest.raises(ConfigurationError, match="features"):
        feature_network(setting, None, "cpu")(torch.ones(2, 3, 8, 8), "samples")


def test_large_images_are_averaged_down_for_pixels() -> None:
    assert feature_network("pixels", None, "cpu")(torch.rand(2, 3, 40, 20), "x").shape == (2, 3 * 16 * 16)


# Captions and LPIPS ---------------------------------------------------------------------------------


def _coloured(n: int, seed: int, captions: bool) -> Samples:
    labels = torch.arange(n) % 2
    texts = [("red", "blue")[c] for c in labels.tolist()] if captions else None
    return Samples(coloured(labels, seed), labels, texts)


def test_captions_are_compared_beside_real_images_with_captions_of_their_class() -> None:
    settings = {**PIXELS, "caption_model": "gate_models.reds"}
    train, held = _coloured(60, 0, False), _coloured(40, 1, False)
    found = measure(train, _coloured(40, 2, True), held, (), settings).measured["caption_agreement"]
    assert found.value == pytest.approx(found.real, rel=0.1)
    assert "of their class" in found.note
    wrong = _coloured(40, 2, True)
    wrong = Samples(wrong.values, wrong.labels, [*list(wrong.captions or [])[1:], "red"])
    swapped = measure(train, wrong, _coloured(40, 1, True), (), settings).measured["caption_agreement"]
    assert swapped.value < 0 < found.value
    assert swapped.real == pytest.approx(found.real, rel=0.1)
    assert swapped.note == ""


def test_captions_without_a_model_or_without_a_model_that_is_there_are_absent() -> None:
    train, made = _coloured(40, 0, False), _coloured(30, 1, True)
    assert "caption_model is not set" in measure(train, made, None, (), PIXELS).absent["caption_agreement"]
    missing = measure(train, made, None, (), {**PIXELS, "caption_model": "/no/such/clip"})
    assert "/no/such/clip" in missing.absent["caption_agreement"]


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torchvision.models import alexnet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = {f"features.{name}": value for name, value in alexnet(weights=None).features.state_dict().items()}
    path = tmp_path_factory.mktemp("lpips") / "alexnet.safetensors"
    save_file(features, path)
    return path


def test_lpips_is_torchmetrics_with_the_weights_of_the_file(alexnet: Path) -> None:
    from safetensors.torch import load_file
    from torchmetrics.functional.image.lpips import _LPIPS

    from lightning_diffaug.fidelity.lpips import lpips_distance

    distance = lpips_distance(str(alexnet))
    rng = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 3, 64, 64, generator=rng) * 2 - 1, torch.rand(2, 3, 64, 64, generator=rng) * 2 - 1
    expected = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    weights = load_file(alexnet)
    for name, parameter in expected.net.named_parameters():
        parameter.data.copy_(weights["features." + name.split(".", 1)[1]])
    found = distance(first, second)
    assert torch.allclose(found, expected(first, second).flatten())
    assert (found > 0).all()
    assert distance(first, first).abs().max() < 1e-6


def test_lpips_within_classes_is_measured_where_weights_are_given(alexnet: Path) -> None:
    found = measure(_coloured(20, 0, False), _coloured(12, 1, False), _coloured(12, 2, False), (), {
        **PIXELS, "lpips": str(alexnet)
    }).measured["lpips"]  # fmt: skip
    assert found.samples == found.real_samples == 6
    assert found.value == pytest.approx(found.real, rel=0.3)


@pytest.mark.parametrize("setting", ["/no/such.safetensors", {"net": "other", "weights": "x"}, "folder/alexnet.pth"])
def test_lpips_without_weights_says_how_to_save_them(setting: Any) -> None:
    found = measure(plain(40, 0), plain(20, 1), None, (), {**PIXELS, "lpips": setting})
    assert "lpips=" in found.absent["lpips"]


def test_lpips_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    found = measure(plain(40, 0), plain(20, 1), None, (), {**PIXELS, "lpips": str(tmp_path / "w.safetensors")})
    assert "not the state dict of torchvision's alexnet" in found.absent["lpips"]
