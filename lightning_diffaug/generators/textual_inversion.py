"""Textual inversion: a pipeline learns a word for each class of the real training data (Gal et al. 2023)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.device import resolve_device
from lightning_diffaug.generators.pipeline import PipelineGenerator
from lightning_diffaug.generators.pipeline_fit import (
    AdaptSettings,
    LatentLoss,
    RealBatches,
    check_adaptable,
    descend,
    picture_size,
    token_ids,
)
from lightning_diffaug.generators.pipeline_load import quiet

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot
    from lightning_diffaug.spec import SampleSpec

FIT_VERSION = 1
"""Raised with every change that makes other embeddings from the same settings; part of the fit's fingerprint."""

_DEFAULT = AdaptSettings(lr=5e-3)
_FILE = "embeddings.safetensors"


class TextualInversionGenerator(PipelineGenerator):
    """A pipeline with a word of its own for each class, whose embedding is fitted to the real training data.

    Nothing but these embeddings is changed. Each starts as the words for its class (``names``, else the class name).

    Args:
        fit: Fields of `AdaptSettings`.
        seed: Of the fit.
        **settings: As `PipelineGenerator`; the prompts have to hold ``{label}``.

    Raises:
        ConfigurationError: A setting is out of its range.
    """

    def __init__(self, *, fit: Mapping[str, Any] | None = None, seed: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        if self._settings["task"] in ("class-conditional", "audio"):
            raise ConfigurationError(
                f"task={self._settings['task']!r} has no words to learn. Set generator.task=text-to-image, or "
                "generator=pipeline."
            )
        self.fit_settings = AdaptSettings.of(fit, _DEFAULT)
        self.seed = seed
        self._learned: dict[str, Tensor] | None = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return {**super().config(), "fit": self.fit_settings.to_json(), "seed": self.seed}

    def fit_key(self) -> dict[str, Any]:
        """What the embeddings depend on, besides the data."""
        return {
            "adaptation": "textual_inversion",
            "fit_version": FIT_VERSION,
            "seed": self.seed,
            "fit": self.fit_settings.to_json(),
            **self._base_key(),
        }

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """As `PipelineGenerator.bind`; every prompt has to hold the learned word.

        Raises:
            ConfigurationError: One does not, or see there.
        """
        super().bind(spec, class_names)
        for name, word in self._words(class_names).items():
            texts = self._prompts.plain[name] if isinstance(self._prompts.plain, dict) else self._prompts.plain
            for text in [texts] if isinstance(texts, str) else texts:
                if word not in text:
                    raise ConfigurationError(
                        f"the prompt {text!r} of class {name!r} has no place for the word that is learned for it. Put "
                        "{label} in generator.prompts (or generator.captions)."
                    )

    def _words(self, class_names: Sequence[str]) -> Mapping[str, str]:
        return {name: f"<class-{i}>" for i, name in enumerate(class_names)}

    def fit(self, snapshot: Snapshot, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Learns the embeddings and writes them; see `Fittable`.

        Raises:
            ConfigurationError: The model cannot be adapted so, or the data have no labels.
            GeneratorError: The fit diverged.
        """
        if snapshot.labels is None:
            raise ConfigurationError(
                "textual inversion learns a word for each class, and the data have no labels. Set generator=pipeline."
            )
        self.bind(snapshot.spec, snapshot.class_names)
        device, settings = resolve_device(self._settings["device"]), self.fit_settings
        pipe = self._loaded(torch.float32).to(device)
        check_adaptable(pipe, "textual inversion")
        tokens = list(self._words(snapshot.class_names).values())
        rows, encode = _new_words(pipe, tokens, [self._initial(name) for name in snapshot.class_names])
        rng = torch.Generator().manual_seed(self.seed)
        size = picture_size(pipe, self._settings["size"])
        batches, loss = RealBatches(snapshot, self._prompts, size, settings, rng), LatentLoss(pipe, rng)

        def step() -> Tensor:
            pictures, prompts = batches.draw()
            return loss(pictures, encode(token_ids(pipe, prompts)))

        losses = descend([rows], step, settings, progress)
        learned = dict(zip(tokens, rows.detach().cpu(), strict=True))
        save_file({token: vector.contiguous() for token, vector in learned.items()}, folder / _FILE)
        last = losses[-50:]
        about = {**self.fit_key(), "snapshot": snapshot.hash, "loss": sum(last) / len(last)}
        (folder / "fit.json").write_text(json.dumps(about, indent=2, sort_keys=True), encoding="utf-8")

    def _initial(self, name: str) -> str:
        return str(self._settings["names"].get(name, name))

    def load(self, folder: Path) -> None:
        """Makes `generate` ready with what `fit` wrote."""
        try:
            self._learned = load_file(folder / _FILE)
        except OSError as error:
            raise GeneratorError(f"{folder} holds no embeddings ({error}). Remove it, to fit again.") from error
        self._run = None

    def _prepare(self, pipe: Any) -> None:
        if self._learned is None:
            raise GeneratorError("the generator has not learned its words yet. Call fit(...) and load(folder) first.")
        with quiet():
            for token, vector in self._learned.items():
                pipe.load_textual_inversion({token: vector}, token=token)


def _new_words(
    pipe: Any, tokens: Sequence[str], initial: Sequence[str]
) -> tuple[nn.Parameter, Callable[[Tensor], Tensor]]:
    """Adds tokens to a pipeline; returns their embeddings (n, width), and an encoder of token ids that uses them."""
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder
    for part in (pipe.vae, pipe.unet, encoder):
        part.requires_grad_(False)
    table: Tensor = encoder.get_input_embeddings().weight.detach()
    first = []
    for words in initial:
        ids = tokenizer(words, add_special_tokens=False).input_ids
        if not ids:
            raise ConfigurationError(
                f"the model's tokenizer knows no part of {words!r}. Set generator.names to other words for that class."
            )
        first.append(table[ids].mean(0))
    if tokenizer.add_tokens(list(tokens)) != len(tokens) or len(tokenizer) - len(tokens) > len(table):
        raise ConfigurationError(
            f"the model's tokenizer already has some of the words {list(tokens)}. Set generator.model to another model."
        )
    kept = table[: len(tokenizer) - len(tokens)]
    rows = nn.Parameter(torch.stack(first))
    (name,) = (n for n, p in encoder.named_parameters() if p is encoder.get_input_embeddings().weight)

    def encode(ids: Tensor) -> Tensor:
        states: Tensor = torch.func.functional_call(encoder, {name: torch.cat((kept, rows))}, (ids,))[0]
        return states

    return rows, encode
