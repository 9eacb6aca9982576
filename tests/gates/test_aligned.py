"""Real held-out pairs pass the alignment gates, and the same with the partners of others do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from aligned_pairs import (
    FRAME_RATE,
    SAMPLE_RATE,
    captioned,
    clips,
    scenes,
    seen,
    shuffled,
    snapshot_of,
    spec_of,
    terrain,
)
from refill_toys import job_for
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.gates import InSync, MaskAgreement, PairAgreement, ThroughScan, Verdict, judge
from lightning_diffaug.gates.aligned.chamfer import scan_distance
from lightning_diffaug.gates.aligned.encoders import BUCKETS, FieldEncoder, hashed_words
from lightning_diffaug.gates.aligned.segmenter import FittedSegmenter, mean_iou
from lightning_diffaug.gates.aligned.sync import audio_onset, onset_offset, video_onset
from lightning_diffaug.gates.choice import ON, chosen_gates
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.points import chamfer_distance
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.job import Job
from lightning_diffaug.refill.recipe import Recipe
from lightning_diffaug.spec import FieldSpec

QUICK = {"steps": 80, "width": 12}


def _share(verdict: Verdict) -> float:
    return float(verdict.passed.float().mean())


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder, told = tmp_path_factory.mktemp("masks"), []
    state = torch.get_rng_state()
    fitted = FittedSegmenter("image", "mask", QUICK)
    fitted.fit(snapshot_of(scenes(90)), folder, lambda step, total: told.append((step, total)))
    assert told == [(step, 240) for step in range(1, 241)]
    assert torch.equal(torch.get_rng_state(), state)
    return folder


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("captions")
    gate = PairAgreement(fit={"steps": 80})
    gate.fitted.fit(snapshot_of(*captioned(0, 400)), folder, lambda *_: None)
    return folder


def _of_masks(folder: Path, **settings: Any) -> MaskAgreement:
    gate = MaskAgreement(fit=QUICK, **settings)
    gate.fitted.load(folder)
    return gate


def _of_captions(folder: Path, **settings: Any) -> PairAgreement:
    gate = PairAgreement(fit={"steps": 80}, **settings)
    gate.fitted.load(folder)
    return gate


def test_masks_of_their_images_pass_and_masks_of_others_do_not(masks: Path) -> None:
    gate, data = _of_masks(masks), scenes(150, seed=1)
    samples = seen(spec_of(data), data)
    gate.check(spec_of(data), ())
    assert _share(gate(samples, {})) > 0.88
    assert _share(gate(shuffled(samples, "mask"), {})) < 0.05


def test_a_mask_that_lacks_an_object_does_not_pass(masks: Path) -> None:
    gate, data = _of_masks(masks), scenes(100, seed=2)
    spec, without = spec_of(data), data["mask"].clone()
    without[without == 2] = 0
    assert _share(gate(seen(spec, {**data, "mask": without}), {})) < 0.1
    swapped = torch.tensor([0, 2, 1])[data["mask"]]
    assert _share(gate(seen(spec, {**data, "mask": swapped}), {})) < 0.1


def test_the_threshold_of_masks_is_a_quantile_of_real_pairs_that_were_not_fitted_or_ones_own(masks: Path) -> None:
    gates = [_of_masks(masks, quantile=q) for q in (0.0, 0.05, 0.5)]
    held_out = gates[0].fitted.held_out
    assert held_out.shape == (90,)
    assert [gate.least for gate in gates] == [float(held_out.quantile(q)) for q in (0.0, 0.05, 0.5)]
    assert gates[0].least < gates[1].least < gates[2].least
    assert _of_masks(masks, threshold=0.3).least == 0.3
    data = scenes(60, seed=3)
    samples = seen(spec_of(data), data)
    agreement = gates[0](samples, {}).scores["mask_iou"]
    assert torch.equal(_of_masks(masks, threshold=0.7)(samples, {}).passed, agreement >= 0.7)


def test_large_images_are_averaged_down_and_masks_follow(tmp_path: Path) -> None:
    gate = MaskAgreement(fit={**QUICK, "size": 16, "steps": 50, "folds": 2})
    gate.fitted.fit(snapshot_of(scenes(60, size=32)), tmp_path, lambda *_: None)
    gate.fitted.load(tmp_path)
    network: Any = gate.fitted.networks[0]
    data = scenes(60, seed=1, size=32)
    image, numbers = network.seen(*seen(spec_of(data), data).values())
    assert (image.shape, numbers.shape) == ((60, 1, 16, 16), (60, 16, 16))
    samples = seen(spec_of(data), data)
    assert _share(gate(samples, {})) > 0.8 > 0.3 > _share(gate(shuffled(samples, "mask"), {}))


def test_iou_is_the_mean_of_the_classes_that_either_shows() -> None:
    first = torch.tensor([[[0, 0], [1, 1]], [[0, 0], [0, 0]], [[0, 2], [0, 0]]])
    second = torch.tensor([[[0, 0], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]])
    assert mean_iou(first, second, 3).tolist() == pytest.approx([(2 / 3 + 1 / 2) / 2, 1.0, 3 / 8])


def test_masks_with_a_channel_for_each_class_or_of_two_levels_are_read() -> None:
    from lightning_diffaug.gates.aligned.fields import class_count, class_numbers

    numbers = torch.tensor([[[0, 1], [2, 1]]])
    channels = torch.nn.functional.one_hot(numbers, 3).movedim(-1, 1).float() * 2 - 1
    each = FieldSpec("mask", "m", "tensor", "float32", (3, 2, 2), -1.0, 1.0)
    assert class_count(each) == 3
    assert torch.equal(class_numbers(channels, each), numbers)
    levels = FieldSpec("mask", "m", "tensor", "uint8", (1, 2, 2), 0.0, 255.0)
    assert class_count(levels) == 2
    assert class_numbers(torch.tensor([[[[-1.0, 1.0], [0.2, -0.2]]]]), levels).tolist() == [[[0, 1], [1, 0]]]
    whole = FieldSpec("mask", "m", "tv_mask", "int64", (2, 2), 0.0, 7.0)
    assert class_count(whole) == 8
    assert torch.equal(class_numbers(whole.to_unit(numbers), whole), numbers)


def test_sound_that_begins_with_the_picture_passes_and_that_of_others_does_not() -> None:
    gate, data = InSync(FRAME_RATE, SAMPLE_RATE), clips(150)
    gate.check(spec_of(data), ())
    assert _share(gate(data, {})) > 0.97
    assert _share(gate(shuffled(data, "audio"), {})) < 0.2


@pytest.mark.parametrize("frames", [-8, -3, 3, 8])
def test_the_offset_is_that_by_which_the_sound_was_moved(frames: int) -> None:
    data = clips(60, seed=3, frames=80)
    moved = data["audio"].roll(frames * SAMPLE_RATE // FRAME_RATE, -1)
    offset = onset_offset(data["video"], moved, FRAME_RATE, SAMPLE_RATE)
    still = (video_onset(data["video"], FRAME_RATE) > 0.6) & (video_onset(data["video"], FRAME_RATE) < 3.5)
    assert still.sum() > 20
    torch.testing.assert_close(offset[still], torch.full((int(still.sum()),), frames / FRAME_RATE), atol=0.03, rtol=0)
    assert _share(
        InSync(FRAME_RATE, SAMPLE_RATE, tolerance=abs(frames) / FRAME_RATE + 0.05)({**data, "audio": moved}, {})
    )
    gate = InSync(FRAME_RATE, SAMPLE_RATE, tolerance=abs(frames) / FRAME_RATE - 0.05)
    assert not gate({**data, "audio": moved}, {}).passed[still].any()


def test_an_image_that_goes_and_a_loudest_syllable_are_no_beginnings() -> None:
    video, audio = torch.full((1, 32, 1, 4, 4), -1.0), torch.zeros(1, 1, 4000)
    video[0, 8:20] = 1.0
    video[0, 20:] = -0.99  # goes, and much else changes
    video[0, 20, :, :, :2] = 0.5
    audio[0, 0, 1000:1300] = torch.sin(torch.arange(300) * 0.7) * 0.4
    audio[0, 0, 2000:2300] = torch.sin(torch.arange(300) * 0.7)
    assert float(video_onset(video, 16)) == 0.5
    assert float(audio_onset(audio, 2000)) == pytest.approx(0.5, abs=0.011)


def test_a_stream_without_a_beginning_is_as_far_off_as_the_clip_is_long() -> None:
    data = clips(4)
    silent, black = torch.zeros_like(data["audio"]), torch.zeros_like(data["video"])
    assert onset_offset(data["video"], silent, FRAME_RATE, SAMPLE_RATE).tolist() == [3.0] * 4
    assert onset_offset(black, data["audio"], FRAME_RATE, SAMPLE_RATE).tolist() == [3.0] * 4
    assert onset_offset(black, silent, FRAME_RATE, SAMPLE_RATE).tolist() == [0.0] * 4


def _bound(data: dict[str, Tensor], **settings: Any) -> ThroughScan:
    gate, real = ThroughScan(**settings), snapshot_of(data)
    gate.check(real.spec, ())
    gate.bind(real)
    return gate


@pytest.mark.parametrize("symmetric", [False, True])
def test_clouds_through_their_scan_pass_and_those_of_others_do_not(symmetric: bool) -> None:
    gate, data = _bound(terrain(120), symmetric=symmetric), terrain(100, seed=1)
    spec = spec_of(terrain(120))
    samples = seen(spec, data)
    assert _share(gate(samples, {})) > 0.95
    assert _share(gate(shuffled(samples, "cloud"), {})) < 0.05
    again = {**samples, "cloud": spec["cloud"].to_unit(data["again"])}
    assert _share(gate(again, {})) > 0.7, "points of the same ground that do not repeat the scan"


def test_the_distance_is_in_the_unit_of_the_data_whatever_the_ranges_of_the_fields() -> None:
    data = terrain(40)
    data["scan"] = data["scan"][:, :8] * 0.5  # another range than the cloud's
    gate, samples = _bound(data), seen(spec_of(data), data)
    by_hand = (data["scan"][:, :, None] - data["cloud"][:, None]).norm(dim=3).amin(2).mean(1)
    torch.testing.assert_close(gate(samples, {}).scores["scan_distance"], by_hand, atol=1e-3, rtol=1e-4)
    both = _bound(data, symmetric=True)(samples, {}).scores["scan_distance"]
    torch.testing.assert_close(both, chamfer_distance(data["scan"], data["cloud"]), atol=1e-3, rtol=1e-4)


def test_points_of_a_real_scan_are_not_their_own_neighbours() -> None:
    data = terrain(30)
    gate = _bound(data, quantile=0.5)
    others = scan_distance(data["scan"], data["cloud"], 1e-4)
    assert (others > 1.0).all()
    assert gate.most == pytest.approx(float(others.quantile(0.5)))
    assert _bound(data, threshold=3.0).most == 3.0


def test_captions_of_their_images_pass_and_those_of_others_do_not(captions: Path) -> None:
    gate, (data, texts) = _of_captions(captions), captioned(1000, 300)
    spec = spec_of(data, texts=True)
    gate.check(spec, ())
    samples = seen(spec, data)
    assert _share(gate(samples, {"caption": texts})) > 0.85
    # a tenth of the others show the same digit
    assert _share(gate(samples, shuffled({"caption": texts}, "caption"))) < 0.25
    assert torch.equal(gate(samples, {"prompt": texts}).passed, gate(samples, {"caption": texts}).passed)
    with pytest.raises(GeneratorError, match=r"no text 'caption'.*data\.text"):
        gate(samples, {})


def test_the_accuracy_of_pairs_is_half_for_partners_of_others(captions: Path) -> None:
    scorer, (data, texts) = _of_captions(captions).fitted, captioned(1000, 300)
    images = seen(spec_of(data), data)["image"]
    assert scorer.accuracy(images, texts) > 0.92
    assert 0.4 < scorer.accuracy(images, shuffled({"t": texts}, "t")["t"]) < 0.6
    torch.testing.assert_close(
        scorer.matrix(images[:50], texts[:50]).diagonal(), scorer.scores(images[:50], texts[:50]), atol=1e-4, rtol=1e-4
    )


def _vectors(n: int, seed: int) -> dict[str, Tensor]:
    """Two numbers that an image, a sequence, a set of points and a vector are made of."""
    rng = torch.Generator().manual_seed(seed)
    a, b = (2 * torch.rand(n, generator=rng) - 1 for _ in range(2))
    line = torch.linspace(-1, 1, 12)
    image = torch.exp(
        -8 * ((line[None, None, :] - a[:, None, None]) ** 2 + (line[None, :, None] - b[:, None, None]) ** 2)
    )
    time = torch.linspace(0, 1, 64)
    wave = torch.sin(time * (6 + 5 * a[:, None])) * (0.6 + 0.4 * b[:, None])
    points = 0.2 * torch.randn(n, 24, 2, generator=rng) + torch.stack((a, b), 1)[:, None]
    return {
        "picture": image[:, None] * 2 - 1,
        "wave": wave[:, None],
        "points": points.clamp(-1, 1),
        "vector": torch.stack((a, b, a * b), 1),
    }


@pytest.mark.parametrize(("first", "second"), [("picture", "points"), ("wave", "vector")])
def test_fields_of_any_two_shapes_are_paired(first: str, second: str, tmp_path: Path) -> None:
    gate = PairAgreement(first, second, fit={"steps": 80, "width": 8})
    data = _vectors(150, 0)
    gate.check(spec_of(data), ())
    gate.fitted.fit(snapshot_of(data), tmp_path, lambda *_: None)
    gate.fitted.load(tmp_path)
    samples = seen(spec_of(data), _vectors(150, 1))
    assert _share(gate(samples, {})) > 0.85
    assert _share(gate(shuffled(samples, second), {})) < 0.4
    assert gate.fitted.accuracy(samples[first], samples[second]) > 0.85


@pytest.mark.parametrize(
    ("kind", "dtype", "shape"),
    [
        ("tensor", "float32", ()), ("tensor", "float32", (5,)), ("tensor", "float32", (2, 40)),
        ("tensor", "float32", (2, 9000)),
        ("tensor", "float32", (30, 3)), ("tensor", "uint8", (3, 12, 12)), ("tv_mask", "int64", (12, 12)),
        ("tv_video", "uint8", (6, 1, 8, 8)), ("tensor", "float32", (1, 6, 6, 6)), ("str", "str", ()),
    ],
)  # fmt: skip
def test_there_is_an_encoder_for_every_shape(kind: str, dtype: str, shape: tuple[int, ...]) -> None:
    high = 4.0 if kind == "tv_mask" else 1.0
    field = FieldSpec("x", "x", kind, dtype, shape, 0.0 if kind == "tv_mask" else -1.0, high)
    values: Any = ["a two", "three of them"] if kind == "str" else 2 * torch.rand(2, *shape) - 1
    found = FieldEncoder(field, 7, 4, 8).eval()(values)
    assert found.shape == (2, 7)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert not torch.equal(found[0], found[1])


def test_texts_are_hashed_by_words_and_their_order() -> None:
    found = hashed_words(["One above two", "one  ABOVE two!", "two above one", ""])
    assert found.shape == (4, BUCKETS)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not found[3].any()


class _Planner:
    def plan(self, slot: int, n: int) -> dict[str, Any]:
        return {"row": torch.arange(n)}


class _HalfShuffled:
    """Scenes of which every other has the mask of another one."""

    def generate(self, condition: Any, seeds: Any) -> dict[str, Tensor]:
        data = scenes(len(seeds), seed=int(seeds[0]) % 1000)
        samples = seen(spec_of({**data}), data)
        other = shuffled(samples, "mask")["mask"]
        wrong = condition["row"] % 2 == 1
        return {**samples, "mask": torch.where(wrong[:, None, None], other, samples["mask"])}


def test_a_slot_keeps_the_pairs_and_what_they_scored(masks: Path) -> None:
    gates = chosen_gates({"mask": {"fit": QUICK}, "copy": False, "duplicate": False})
    gates[-1].fitted.load(masks)
    spec = spec_of(scenes(90))
    shard = fill_slot(0, Recipe(_Planner(), _HalfShuffled(), tuple(gates), spec, slot_size=40, attempts=1))
    kept = {row["row"] for row in shard.rows}
    assert len([row for row in kept if row % 2 == 0]) >= 16
    assert len([row for row in kept if row % 2 == 1]) <= 3
    assert all(0.3 < row["scores"]["mask_iou"] <= 1.0 for row in shard.rows)
    assert shard.made["rejections"]["mask"] >= 17


def test_verdicts_go_through_the_chain() -> None:
    data = clips(20)
    judged = judge(shuffled(data, "audio"), {}, (InSync(FRAME_RATE, SAMPLE_RATE),), 20)
    assert sum(one.reason == "sync" for one in judged) > 12
    assert all("sync_offset" in one.scores for one in judged)


@pytest.mark.parametrize(
    "gate",
    [
        MaskAgreement("picture", "classes", 0.4, 0.1, {"steps": 9}), InSync(25, 16000, 0.2, "frames", "sound", 0.3),
        ThroughScan("sparse", "dense", True, 0.4, 0.9), PairAgreement("a", "b", 0.5, 0.2, {"folds": 2}),
    ],
)  # fmt: skip
def test_a_gate_is_made_again_by_its_name(gate: Any) -> None:
    again = build(name_of(gate, "gates"))
    assert name_of(again, "gates") == name_of(gate, "gates")
    if hasattr(gate, "fitted"):
        assert again.fitted.fit_key() == gate.fitted.fit_key()
        assert name_of(build(name_of(gate.fitted)), "x") == name_of(gate.fitted, "x")


def test_fits_of_other_settings_or_fields_have_other_keys_and_thresholds_need_no_other_fit() -> None:
    keys = [
        gate.fitted.fit_key()
        for gate in (PairAgreement(), PairAgreement(fit={"steps": 9}), PairAgreement("image", "mask"))
    ]
    assert keys[0] != keys[1] != keys[2] != keys[0]
    assert PairAgreement(quantile=0.3).fitted.fit_key() == PairAgreement(threshold=1.0).fitted.fit_key() == keys[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: InSync(), r"gates\.sync\.frame_rate=None is no number above 0.*gates\.sync=\{frame_rate: 16"),
        (lambda: InSync(16, True), r"gates\.sync\.sample_rate=True"),
        (lambda: InSync(16, 8000, -1), r"gates\.sync\.tolerance=-1.*gates\.sync=\{tolerance: 0\.1\}"),
        (lambda: MaskAgreement(threshold=2), r"gates\.mask\.threshold=2 is no number from 0 to 1.*null"),
        (lambda: MaskAgreement(quantile=1.5), r"gates\.mask\.quantile=1\.5.*gates\.mask=\{quantile: 0\.05\}"),
        (lambda: MaskAgreement(fit={"step": 3}), r"gates\.mask\.fit\.step is no setting.*steps, batch_size"),
        (lambda: PairAgreement(fit={"folds": 1}), r"gates\.pair\.fit\.folds=1.*gates\.pair=\{fit: \{folds: 3\}\}"),
        (lambda: PairAgreement("image", "image"), r"both 'image'"),
        (lambda: ThroughScan(symmetric=1), r"gates\.chamfer\.symmetric=1 is neither"),
        (lambda: ThroughScan(threshold=-1), r"gates\.chamfer\.threshold=-1 is no number from 0:"),
    ],
)
def test_arguments_out_of_range_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (MaskAgreement(mask="masks"), r"gates\.mask\.mask='masks' is no field.*image, mask, video.*gates\.mask=false"),
        (MaskAgreement(image="audio"), r"gates\.mask\.image='audio' of shape \(1, 6000\) is no image"),
        (MaskAgreement(mask="video"), r"gates\.mask\.mask='video' .* is no mask of images"),
        (InSync(16, 8000), r"48 frames last 3 s and 6000 samples of sound 0\.75 s.*gates\.sync\.sample_rate"),
        (InSync(16, 2000, video="scalar"), r"gates\.sync\.video='scalar' of shape \(\) is no stream"),
        (ThroughScan("image", "video"), r"gates\.chamfer compares sets of points"),
        (PairAgreement(second="text"), r"gates\.pair\.second='text' is no field"),
        (PairAgreement(second="five"), r"gates\.pair\.second='five' has the shape .*no encoder"),
    ],
)
def test_fields_that_do_not_suit_are_refused_before_anything_is_made(gate: Any, words: str) -> None:
    fields = {**scenes(3), **clips(3), "scalar": torch.rand(3), "five": torch.rand(3, 1, 2, 2, 2, 2)}
    with pytest.raises(ConfigurationError, match=words):
        gate.check(spec_of(fields), ())


def test_too_few_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"gates\.mask is fitted on real pairs, and 11 are too few for 3 parts"
    ):
        FittedSegmenter("image", "mask").fit(snapshot_of(scenes(11)), tmp_path, lambda *_: None)


def test_a_gate_that_is_not_fitted_says_so() -> None:
    with pytest.raises(GeneratorError, match=r"gates\.mask is not fitted yet"):
        MaskAgreement()(seen(spec_of(scenes(3)), scenes(3)), {})
    assert replace(spec_of(scenes(3))) == spec_of(scenes(3))


def test_networks_are_fitted_once_whatever_the_threshold_which_names_the_pool(tmp_path: Path) -> None:
    data = snapshot_of(scenes(30))
    file = str(data.save(tmp_path / "snapshots"))

    def job(**settings: Any) -> Job:
        gates = chosen_gates({**dict.fromkeys(ON, False), "mask": {"fit": {**QUICK, "steps": 4}, **settings}})
        about = {"spec": data.spec.to_json(), "class_names": [], "snapshot": file, "snapshot_hash": data.hash}
        return job_for(_HalfShuffled(), tmp_path, gates=[name_of(gate, "gates") for gate in gates], **about)

    first = job()
    assert first.find_pool(_HalfShuffled()) is None, "its weights are part of the pool's name"
    gates = first.make_gates()
    _, seconds = first.fit_gates(gates, lambda *_: None)
    assert seconds > 0
    assert gates[0](seen(data.spec, scenes(8)), {}).scores["mask_iou"].shape == (8,)  # type: ignore[union-attr]
    pools = {pool.folder for one in (first, job(), job(quantile=0.2)) if (pool := one.find_pool(_HalfShuffled()))}
    assert len(pools) == 2
    assert len(list((tmp_path / "generators").glob("*/aligned.safetensors"))) == 1
