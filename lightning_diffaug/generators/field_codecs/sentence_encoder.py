"""Texts as what a language model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.field_codecs.model_folder import KEY, ModelFolder
from lightning_diffaug.generators.field_codecs.words import check_text, no_decoding, texts_of
from lightning_diffaug.spec import FieldSpec


class SentenceEncoder:
    """A text → (length, d): the last hidden state of a text model of transformers, 0 behind the text's end.

    The model is read from a local folder, when the first text is encoded; nothing is fetched, and no code of the
    folder's runs. It computes on the CPU, in float32.

    Args:
        model: Folder with a model (``config.json``, safetensors) and its tokenizer, as ``save_pretrained`` writes them;
            of a model with a text and another part (CLIP) the text part is taken.
        length: Tokens of a text that are read, the special ones included.
        batch_size: Texts that are encoded at a time.
        digest: Hash of the folder's files, which names fit and pool; None: as found.

    Raises:
        ConfigurationError: There is no such model, or an argument is out of its range.
    """

    unnamed = ("model", "batch_size")

    def __init__(self, model: str, length: int = 24, batch_size: int = 64, digest: str | None = None) -> None:
        self.model = str(model)
        for name, value in (("length", length), ("batch_size", batch_size)):
            if type(value) is not int or value < 1:
                raise ConfigurationError(
                    f"{name}={value!r} of the codec SentenceEncoder is not a whole number from 1. Set {KEY}.{name} to "
                    "e.g. 24."
                )
        self.length, self.batch_size = length, batch_size
        remedy = (
            "the folder that save_pretrained(...) of a text model of transformers wrote, with that of its tokenizer."
        )
        self._files = ModelFolder(self.model, "model", "encode texts with", remedy, digest)
        self._folder = self._files.path

    @cached_property
    def digest(self) -> str:
        """Hash of the folder's files; see `ModelFolder`."""
        return self._files.digest

    def shape(self, field: FieldSpec) -> tuple[int, ...]:
        """See `FieldCodec`."""
        check_text(field)
        return (self.length, self._width)

    def encode(self, raw: Tensor | Sequence[str], field: FieldSpec) -> Tensor:
        """See `FieldCodec`."""
        texts = texts_of(raw, field)
        parts = [self._encoded(texts[i : i + self.batch_size]) for i in range(0, len(texts), self.batch_size)]
        return torch.cat(parts) if parts else torch.empty(0, *self.shape(field))

    def decode(self, encoded: Tensor, field: FieldSpec) -> Tensor:
        """There is none: a text that is encoded is told, and not made."""
        raise no_decoding(field)

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        model, tokenizer = self._loaded
        given = tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
            encoded: Tensor = hidden.to(torch.float32) * given["attention_mask"].unsqueeze(-1)
        return encoded.clone()

    @cached_property
    def _width(self) -> int:
        config = self._config
        width = getattr(config, "hidden_size", None) or getattr(config, "d_model", None) or getattr(config, "dim", None)
        if width is None:
            raise ConfigurationError(
                f"{self._folder}/config.json does not say how wide a token is (hidden_size), so it is no text model. "
                f"Set {KEY}.model to one."
            )
        return int(width)

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig  # slow to import

        try:
            config = AutoConfig.from_pretrained(self._folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise self._unreadable(error) from error
        return getattr(config, "text_config", config)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        how: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(self._folder, **how)
            model = AutoModel.from_pretrained(self._folder, use_safetensors=True, dtype=torch.float32, **how)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise self._unreadable(error) from error
        if hasattr(model, "text_model"):  # CLIP and its like
            model = model.text_model
        elif getattr(model.config, "is_encoder_decoder", False):  # T5
            model = model.encoder
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return model.eval().requires_grad_(False), tokenizer

    def _unreadable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"model={self.model!r} cannot be read as a text model of transformers ({type(error).__name__}: {error}). "
            f"Set {KEY}.model to a folder that save_pretrained(...) of such a model and of its tokenizer wrote."
        )
