"""A user's training script: ``python train_script.py settings.json``. Reports its refill process and its batches."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from training_toys import RealModule, Recorder, trainer

from lightning_diffaug import DiffAugDataModule


class Report(Callback):
    """Writes ``started.json`` at the first batch, and sleeps at each."""

    def __init__(self, mix: DiffAugDataModule, out: Path, seconds: float) -> None:
        self.mix, self.out, self.seconds = mix, out, seconds

    def on_train_batch_start(self, *_: Any) -> None:
        if not (self.out / "started.json").exists():
            refill = self.mix._run._supply._refill  # type: ignore[union-attr]
            part = self.out / "started.part"
            part.write_text(json.dumps({"pid": os.getpid(), "refill": refill.pid}))
            part.replace(self.out / "started.json")
        time.sleep(self.seconds)


def main(settings: dict[str, Any]) -> None:
    out = Path(settings["out"])
    out.mkdir(parents=True, exist_ok=True)
    mix = DiffAugDataModule(
        RealModule(),
        settings["generator"],
        0.5,
        refill={"nice": 0, "backoff": 0.1, **settings.get("refill", {})},
        window=settings.get("window", 16),
        slot_size=8,
        reuse=1,
        return_source=True,
        gates={"blank": False, "copy": False, "duplicate": False},  # the toys make plain areas
        cache_dir=settings["cache"],
        when_short="wait",
    )
    model = Recorder()
    report = Report(mix, out, settings.get("seconds", 0.0))
    trainer(out, settings["epochs"], callbacks=[report]).fit(model, mix)
    seen = {}
    for image, label, source in model.seen["train"]:
        for i in source["is_synthetic"].nonzero()[:, 0].tolist():
            content = hashlib.sha256(image[i].numpy().tobytes() + bytes([int(label[i])])).hexdigest()
            seen[f"{int(source['slot'][i])}/{int(source['row'][i])}"] = content
    (out / "report.json").write_text(json.dumps({"figures": mix.figures(), "seen": seen}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
