"""The page on new modalities: its file is a module that works as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_diffaug.spec import FieldSpec

PAGE = Path(__file__).parents[1] / "docs" / "modalities.md"
SNIPPET, FILE, MIX = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


class Learner(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(64, 2), list[tuple[Any, ...]]()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append((set(batch), tuple(batch["profile"].shape[1:]), batch["profile"].dtype))
        return nn.functional.cross_entropy(self.layer(batch["profile"].flatten(1)), batch["label"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "profiles.py").write_text(FILE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "profiles", raising=False)
    import profiles  # type: ignore[import-not-found]

    return profiles


def test_the_codec_of_the_page_is_its_own_inverse(profiles: Any) -> None:
    field = FieldSpec("profile", "profile", "tensor", "float32", (1, 64), -1.0, 1.0)
    codec, raw = profiles.Slopes(), torch.rand(5, 1, 64) - 0.5
    assert torch.allclose(codec.decode(codec.encode(raw, field), field), raw, atol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*smaller than the logging", "ignore:.*no `validation_step`"
)
def test_the_file_of_the_page_is_mixed_as_it_says(profiles: Any, tmp_path: Path) -> None:
    brief = MIX.replace('"augment_p": 0.0', '"augment_p": 0.0, "steps": 20').replace(
        "real=", f"cache_dir={str(tmp_path)!r}, refill='sync', window=64, slot_size=32, real="
    )
    assert brief.count("steps") == brief.count("refill") == 1
    made: dict[str, Any] = {}
    exec(brief, made)
    data, learner = made["data"], Learner()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(learner, data)
    assert data.figures()["mix/achieved_fraction"] == pytest.approx(0.25, abs=0.02)
    assert learner.seen
    assert all(seen == ({"profile", "label"}, (1, 64), torch.float32) for seen in learner.seen)
    assert 0 < data.pool.read(0).fields["profile"].std() < 1
