from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from torchvision import tv_tensors

from lightning_diffaug.data import AlignedDataModule, AlignedDataset, AlignedSplits
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.paths import config_dir


class Pairs(AlignedDataModule):
    """Images of one grey level with masks of the same number; a label where `classes` says so."""

    def __init__(self, sizes: tuple[int, int, int] = (12, 4, 4), classes: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        self._sizes, self._classes = sizes, classes

    def load(self) -> AlignedSplits:
        def part(n: int) -> AlignedDataset:
            level = torch.arange(n)
            fields: dict[str, Any] = {
                "image": level.to(torch.uint8)[:, None, None, None].expand(n, 1, 4, 4).contiguous(),
                "mask": level[:, None, None].expand(n, 4, 4).contiguous(),
                "text": [f"level {i}" for i in range(n)],
            }
            if self._classes:
                fields["label"] = (level % self._classes).tolist()
            names = [str(c) for c in range(self._classes)]
            return AlignedDataset(fields, names, wrap={"image": tv_tensors.Image, "mask": tv_tensors.Mask})

        return AlignedSplits(*(part(n) for n in self._sizes))

    def conversion(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "image": sample["image"].float() / 255}


def shifted(sample: dict[str, Any]) -> dict[str, Any]:
    by = int(torch.randint(1, 9, ()))
    return {**sample, "image": sample["image"] + by, "mask": sample["mask"] + by}


def test_samples_are_dicts_of_wrapped_leaves_and_stay_together_when_selected() -> None:
    dataset = Pairs().load().train.select([5, 2])
    sample = dataset[0]
    assert isinstance(sample["image"], tv_tensors.Image)
    assert isinstance(sample["mask"], tv_tensors.Mask)
    for i, level in enumerate((5, 2)):
        sample = dataset[i]
        assert (int(sample["image"][0, 0, 0]), int(sample["mask"][0, 0]), sample["text"]) == (
            level,
            level,
            f"level {level}",
        )


def test_augmentation_comes_before_conversion_and_only_in_training() -> None:
    data = Pairs(augment=shifted)
    data.setup()
    raw = data.splits.val[3]
    assert float(raw["image"][0, 0, 0]) == pytest.approx(3 / 255)
    trained = data.splits.train[3]
    by = int(trained["mask"][0, 0]) - 3
    assert 1 <= by < 9
    assert float(trained["image"][0, 0, 0]) == pytest.approx((3 + by) / 255)  # one draw for both


def test_shots_are_of_each_class_or_in_all_and_the_seed_decides_which() -> None:
    assert Pairs(classes=3, shots=2).class_counts == [2, 2, 2]
    chosen = [[s["text"] for s in Pairs(shots=5, seed=seed).splits.train] for seed in (0, 0, 1)]
    assert len(chosen[0]) == 5
    assert chosen[0] == chosen[1] != chosen[2]


def test_few_are_kept_of_the_packages_data_and_all_of_a_users_folder_unless_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Few(Pairs):
        few_shots = 2

        def __init__(self, root: Path | None = None, **settings: Any) -> None:
            super().__init__(**settings)
            self.root = root

    caplog.set_level("INFO", logger="lightning_diffaug")
    own = Path("own")
    for data, kept in (
        (Few(classes=3, shots="auto"), 6), (Few(shots="auto"), 2), (Few(own, shots="auto"), 12), (Few(own, shots=5), 5),
        (Few(classes=3), 12),
    ):  # fmt: skip
        caplog.clear()
        assert len(data.splits.train) == kept
        assert (f"keeps {kept} of 12 training samples" in caplog.text) == (kept < 12)


@pytest.mark.parametrize(
    ("experiment", "kept"),
    [
        ("segmentation", 60), ("image_text", 300), ("image_text_captions", 300), ("image_text_varied", 300),
        ("point_cloud", 60), ("audio_video", 60),
    ],
)  # fmt: skip
def test_experiments_keep_few_of_the_packages_data_and_all_of_a_users(experiment: str, kept: int) -> None:
    if experiment == "audio_video":
        pytest.importorskip("espeakng_loader")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        data = instantiate(compose("train", [f"experiment={experiment}"]).real)
    train = data.load().train
    assert len(data.kept(train)) == kept < len(train)
    data.root = Path("own")
    assert len(data.kept(train)) == len(train)


def test_a_model_is_told_of_classes_where_there_are_some() -> None:
    assert Pairs().model_facts() == {}
    assert Pairs(classes=2).model_facts() == {"num_classes": 2, "class_names": ["0", "1"]}


def test_no_training_samples_and_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"empty.*real\.root"):
        Pairs(sizes=(0, 1, 1)).setup()
    with pytest.raises(ConfigurationError, match=r"real\.shots=0"):
        Pairs(shots=0)
    with pytest.raises(ConfigurationError, match=r"real\.shots=many"):
        Pairs(shots="many")
    with pytest.raises(ValueError, match="different lengths"):
        AlignedDataset({"a": [1, 2], "b": [1]})
