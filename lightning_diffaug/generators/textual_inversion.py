"""Textual inversion: a pipeline learns a word for each class of the real training data (Gal et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.pipeline_adapted import AdaptedPipelineGenerator, Learning
from lightning_diffaug.generators.pipeline_fit import AdaptSettings, LatentLoss, RealBatches, token_ids
from lightning_diffaug.generators.pipeline_load import quiet

if TYPE_CHECKING:
    from lightning_diffaug.spec import SampleSpec


class TextualInversionGenerator(AdaptedPipelineGenerator):
    """A pipeline with a word of its own for each class, whose embedding is fitted to the real training data.

    Nothing but these embeddings is changed. Each starts as the words for its class (``names``, else the class name).

    Args:
        fit: Fields of `AdaptSettings`; those on rank and prior have no meaning here.
        seed: Of the fit, from 0.
        **settings: As `PipelineGenerator`; the prompts have to hold ``{label}``.

    Raises:
        ConfigurationError: A setting is out of its range.
    """

    KIND = "textual_inversion"
    METHOD = "textual inversion"
    FILE = "embeddings.safetensors"
    DEFAULT = AdaptSettings(lr=5e-3)
    FIT_KEYS = ("steps", "batch_size", "lr", "grad_clip", "class_balance", "checkpoint_every")

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """As `AdaptedPipelineGenerator.bind`; every prompt has to hold the learned word.

        Raises:
            ConfigurationError: One does not, there are no classes, or see there.
        """
        if not class_names:
            raise ConfigurationError(
                "textual inversion learns a word for each class, and the data have no labels. Set generator=pipeline."
            )
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

    def _learning(
        self,
        pipe: Any,
        batches: RealBatches,
        loss: LatentLoss,
        rng: torch.Generator,
        progress: Callable[[int, int], None],
    ) -> Learning:
        tokens = self._words(self._class_names)
        first = [str(self._settings["names"].get(name, name)) for name in tokens]
        rows, encode = _new_words(pipe, list(tokens.values()), first)

        def step() -> Tensor:
            pictures, prompts = batches.draw()
            return loss(pictures, encode(token_ids(pipe, prompts)))

        def save(file: Path) -> None:
            learned = zip(tokens.values(), rows.detach().cpu(), strict=True)
            save_file({token: vector.contiguous() for token, vector in learned}, file)

        return Learning([rows], step, save)

    def _add_fitted(self, pipe: Any, file: Path) -> None:
        with quiet():
            for token, vector in load_file(file).items():
                pipe.load_textual_inversion({token: vector}, token=token)


def _new_words(
    pipe: Any, tokens: Sequence[str], initial: Sequence[str]
) -> tuple[nn.Parameter, Callable[[Tensor], Tensor]]:
    """Adds tokens to a pipeline; returns their embeddings (n, width), and an encoder of token ids that uses them."""
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder
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
