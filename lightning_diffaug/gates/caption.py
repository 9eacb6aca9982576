"""The gate that asks whether a sample shows what its caption says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.conditions.captions import PROMPT
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.chain import Verdict
from lightning_diffaug.gates.checks import as_set, check_image
from lightning_diffaug.gates.encoders import VisionFeatures, unit_vectors
from lightning_diffaug.gates.models import BATCH, GivenModule, LocalModel, image_of, is_folder
from lightning_diffaug.spec import LABEL

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

_KEY = "gates.caption"
_KEPT = 16_384  # texts whose features are kept


class CaptionAgreement:
    """Passes samples that agree with their caption, as an image-text model sees it. A gate of taste: off by default.

    The caption is the row's ``prompt``; without one, `template` with the class's name. The similarity is the cosine of
    the model's features of image and text, or what a scorer of one's own returns.

    Scores: ``caption_similarity``; with `contrast`, ``caption_contrast``: how far it lies above that of the best
    caption of another class.

    Args:
        model: Local folder of a model of transformers with features of images and texts (CLIP, SigLIP …) and its
            processor, .safetensors only; or the import path of a scorer of one's own: images (n, C, H, W) in [-1, 1]
            and n texts → similarities (n,). Nothing is downloaded.
        args: Arguments that the scorer is made with; None: a function is the scorer itself.
        threshold: Least similarity; None: any.
        contrast: How far the similarity of a row's own caption has to lie above that of the same caption with the name
            of any other class in it (or `template` with it, where the caption does not hold the class's name); None:
            other classes are not asked for. Needs data with classes.
        template: Caption of a class, with ``{label}`` in it.
        names: Class → how captions name it, where that is not the class's own name.
        field: The image to look at; None: the one called ``image``.
        device: Where the model computes.

    Raises:
        ConfigurationError: There is no model, or nothing is asked of it.
    """

    name = "caption"
    unnamed = ("device",)

    def __init__(
        self,
        model: Any = None,
        args: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        contrast: float | None = 0.0,
        template: str = "a photo of a {label}",
        names: Mapping[str, str] | None = None,
        field: str | None = None,
        device: str = "auto",
    ) -> None:
        if model is None:
            raise ConfigurationError(
                f"{_KEY}.model is not set: it is the local folder of a CLIP-like model as save_pretrained writes it, "
                f"or the import path of a scorer of your own. Set {as_set(self.name, model='FOLDER')}, or {_KEY}=false."
            )
        for name, value in (("threshold", threshold), ("contrast", contrast)):
            if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
                raise ConfigurationError(
                    f"{_KEY}.{name}={value!r} is no number. Set {as_set(self.name, model=model, **{name: 0.2})}, or it "
                    "to null."
                )
        if threshold is None and contrast is None:
            raise ConfigurationError(
                f"{_KEY}.threshold and {_KEY}.contrast are both null, so it would let everything pass. Set e.g. "
                f"{as_set(self.name, model=model, contrast=0.0)}."
            )
        if "{label}" not in template:
            raise ConfigurationError(
                f'{_KEY}.template={template!r} does not hold {{label}}. Set it to e.g. "a photo of a {{label}}".'
            )
        self._threshold, self._contrast, self._template = threshold, contrast, template
        self._names, self._field, self._device = dict(names or {}), field, device
        self._classes: tuple[str, ...] = ()
        self.asks: LocalModel | GivenModule
        if is_folder(model):
            self.asks = LocalModel(str(model), device, f"{_KEY}.model")
        else:
            self.asks = GivenModule(model, args, device=device, key=_KEY)
        self._texts: dict[str, Tensor] = {}

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **self.asks.setting, "threshold": self._threshold, "contrast": self._contrast, "template": self._template,
            "names": self._names, "field": self._field, "device": self._device,
        }  # fmt: skip

    def model_key(self) -> Any:
        """Hash of the model's files."""
        return self.asks.model_key()

    def check(self, spec: Any, class_names: Sequence[str]) -> None:
        """Looks at data and model before anything is made.

        Raises:
            ConfigurationError: There are no images or no classes where they are needed, or the model is not there or
                cannot be made.
        """
        self.asks.check()
        check_image(spec, self.name, self._field)
        if self._contrast is not None and LABEL not in spec:
            raise ConfigurationError(_NO_CLASSES)
        self._known(class_names)

    def bind(self, snapshot: Snapshot) -> None:
        """Learns the names of the classes."""
        self._known(snapshot.class_names)

    def _known(self, class_names: Sequence[str]) -> None:
        if class_names and (unknown := set(self._names) - set(class_names)):
            raise ConfigurationError(
                f"{_KEY}.names names the class {min(unknown)!r}, and the data have {', '.join(class_names)}. Correct "
                "it."
            )
        self._classes = tuple(self._names.get(name, name) for name in class_names)

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Verdict:
        """Which rows agree with their caption, and how well.

        Raises:
            ConfigurationError: There are neither captions nor classes, or no images.
        """
        x = image_of(samples, self._field, _KEY)
        labels = [int(label) for label in condition[LABEL]] if LABEL in condition else []
        captions = self._captions(condition, labels)
        features = VisionFeatures(self.asks)(x) if isinstance(self.asks, LocalModel) else None
        own = self._similarity(x, features, captions)
        passed = torch.ones(len(x), dtype=torch.bool) if self._threshold is None else own >= self._threshold
        scores = {"caption_similarity": own}
        if self._contrast is not None:
            if not labels:
                raise ConfigurationError(_NO_CLASSES)
            above = own - self._best_other(x, features, captions, labels)
            passed &= above > self._contrast
            scores["caption_contrast"] = above
        return Verdict(passed, scores)

    def _captions(self, condition: Mapping[str, Any], labels: Sequence[int]) -> list[str]:
        if PROMPT in condition:
            return [str(text) for text in condition[PROMPT]]
        if not labels:
            raise ConfigurationError(
                f"{_KEY} compares samples with their captions, and the plan has neither {PROMPT!r} nor classes. Set "
                f"data.text, or {_KEY}=false."
            )
        return [self._template.format(label=self._classes[label]) for label in labels]

    def _best_other(self, x: Tensor, features: Tensor | None, captions: Sequence[str], labels: Sequence[int]) -> Tensor:
        """The highest similarity with a caption of another class, float32 (n,)."""
        best = torch.full((len(x),), -torch.inf)
        for step in range(1, len(self._classes)):  # the n-th next class of each row: all others, row by row
            others = [self._of_other(text, c, step) for text, c in zip(captions, labels, strict=True)]
            best = torch.maximum(best, self._similarity(x, features, others))
        return best

    def _of_other(self, caption: str, label: int, step: int) -> str:
        """The caption with another class in it."""
        own, other = self._classes[label], self._classes[(label + step) % len(self._classes)]
        changed, found = re.subn(rf"(?<!\w){re.escape(own)}(?!\w)", lambda _: other, caption, flags=re.IGNORECASE)
        return changed if found else self._template.format(label=other)

    def _similarity(self, x: Tensor, features: Tensor | None, texts: Sequence[str]) -> Tensor:
        if isinstance(self.asks, LocalModel):
            assert features is not None
            return (features * self._of_texts(self.asks, texts)).sum(1)
        said = self.asks(x, list(texts)).float()
        if said.shape != (len(x),):
            raise ConfigurationError(
                f"{_KEY}.model returned {tuple(said.shape)} for {len(x)} images: a scorer returns one similarity for "
                "each. Correct it."
            )
        return said

    def _of_texts(self, asked: LocalModel, texts: Sequence[str]) -> Tensor:
        """Features of texts, which are kept: captions come again and again."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            model, processor = asked()
            if len(self._texts) + len(new) > _KEPT:
                self._texts.clear()
                new = list(dict.fromkeys(texts))
            with torch.inference_mode():
                for first in range(0, len(new), BATCH):
                    part = new[first : first + BATCH]
                    given = processor(text=part, padding="max_length", truncation=True, return_tensors="pt")
                    found = unit_vectors(model.get_text_features(**given.to(asked.on)))
                    self._texts.update(zip(part, found.clone(), strict=True))
        return torch.stack([self._texts[text] for text in texts])


_NO_CLASSES = (
    f"{_KEY}.contrast compares a sample's caption with those of other classes, and the data have no classes. Set "
    f"{as_set('caption', model='FOLDER', contrast=None, threshold=0.2)}, or {_KEY}=false."
)
