"""What a pipeline is asked for: prompts of classes, and their embeddings, computed once and reused."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.conditions.captions import NEGATIVE_PROMPT, PROMPT, Texts, read_captions
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.remote_prompts import Prompts

_LABEL = "{label}"
_KEPT = 512
_FORMS = (
    ("prompt_embeds", "negative_prompt_embeds"),
    ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
    ("prompt_embeds", "pooled_prompt_embeds", "text_ids"),
)
"""What `encode_prompt` of diffusers' pipelines returns: Stable Diffusion; SDXL and SD3; FLUX."""


def class_prompts(
    class_names: Sequence[str],
    prompts: Texts | Mapping[str, Texts],
    names: Mapping[str, Any] | None = None,
    captions: str | None = None,
) -> Prompts:
    """The prompts of each class.

    Args:
        class_names: Class names in order; () for data without labels.
        prompts: As `Prompts`.
        names: Class name → the words for it in a prompt; classes that are not in it go by their own name.
        captions: A file to take the prompts from, see `read_captions`, by class or for all; goes before `prompts`.

    Raises:
        ConfigurationError: A class has no prompt of its own, or a name is of no class.
    """
    given = Prompts(prompts if captions is None else _of_file(captions))
    given.check(class_names)
    words = {name: str((names or {}).get(name, name)) for name in class_names}
    unknown = [name for name in names or {} if name not in words]
    if unknown or len(set(words.values())) < len(words):
        raise ConfigurationError(
            f"generator.names={dict(names or {})} names {unknown or 'several classes alike'}. The classes are "
            f"{list(class_names)}. Set generator.names to other words for some of them, different for each."
        )
    if not class_names:
        return given

    def worded(texts: Texts, word: str) -> Texts:
        return texts.replace(_LABEL, word) if isinstance(texts, str) else [text.replace(_LABEL, word) for text in texts]

    plain = given.plain
    return Prompts({name: worded(plain[name] if isinstance(plain, dict) else plain, words[name]) for name in words})


def _of_file(path: str) -> Texts | Mapping[str, Texts]:
    found = read_captions(path, "generator.captions")
    if found.by_sample:
        raise ConfigurationError(
            f"captions={path!r} holds captions of training samples, and a generator is told the class alone. Set "
            "data.text.captions to it, and generator.captions=null."
        )
    return found.by_class or found.of_all


class PromptEncoder:
    """Turns prompts into what a pipeline's call takes; each text is encoded once, by itself.

    Pipelines whose embeddings differ in length from text to text, or whose form is not known, get the texts.

    Args:
        pipe: The pipeline.
        guided: Whether there is an unconditional half, which has `negative_prompt`.
        negative_prompt: What guidance moves away from where a prompt has none of its own.
    """

    def __init__(self, pipe: Any, guided: bool, negative_prompt: str) -> None:
        self._pipe = pipe
        self._guided = guided
        self._negative = negative_prompt
        self._known = set(inspect.signature(type(pipe).__call__).parameters)
        self._kept: OrderedDict[tuple[str, str], dict[str, Tensor]] = OrderedDict()
        encode = getattr(pipe, "encode_prompt", None)
        self._takes = set(inspect.signature(encode).parameters) if encode is not None else set()
        usual = "prompt_embeds" in self._known and not {"prompt_embeds_mask", "attention_mask"} & self._known
        self._reuses = bool(self._takes) and usual

    def __call__(self, prompts: Sequence[str], negative: Sequence[str] | None = None) -> dict[str, Any]:
        """Arguments of the pipeline's call for a batch of prompts, each with what guidance moves away from."""
        against = [text or self._negative for text in negative or [""] * len(prompts)] if self._guided else []
        if self._reuses:
            rows = [self._encoded(*both) for both in zip(prompts, against or [""] * len(prompts), strict=True)]
            if self._reuses:
                return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        told = {NEGATIVE_PROMPT: against} if self._guided and NEGATIVE_PROMPT in self._known else {}
        return {PROMPT: list(prompts), **told}

    def _encoded(self, prompt: str, negative: str) -> dict[str, Tensor]:
        if (prompt, negative) in self._kept:
            self._kept.move_to_end((prompt, negative))
            return self._kept[prompt, negative]
        wanted = {
            "prompt": [prompt], "prompt_2": None, "prompt_3": None, "device": self._pipe._execution_device,
            "num_images_per_prompt": 1, "do_classifier_free_guidance": self._guided,
            "negative_prompt": [negative] if self._guided else None,
        }  # fmt: skip
        with torch.no_grad():
            made = self._pipe.encode_prompt(**{name: value for name, value in wanted.items() if name in self._takes})
        parts = made if isinstance(made, tuple) else ()
        names = next((form for form in _FORMS if len(form) == len(parts) and self._takes_form(form)), None)
        if names is None:
            self._reuses = False
            return {}
        encoded = {
            name: part.clone()
            for name, part in zip(names, parts, strict=True)
            if part is not None and name in self._known and (self._guided or not name.startswith("negative_"))
        }
        self._kept[prompt, negative] = encoded
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return encoded

    def _takes_form(self, form: Sequence[str]) -> bool:
        return all(name in self._known or name == "text_ids" for name in form)
