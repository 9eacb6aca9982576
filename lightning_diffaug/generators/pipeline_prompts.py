"""What a pipeline is asked for: prompts of classes, and their embeddings, computed once and reused."""

from __future__ import annotations

import csv
import inspect
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.remote_prompts import Prompts, Texts

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
        captions: A file to take the prompts from, see `read_captions`; goes before `prompts`.

    Raises:
        ConfigurationError: A class has no prompt of its own, or a name is of no class.
    """
    given = Prompts(prompts if captions is None else read_captions(Path(captions)))
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


def read_captions(path: Path) -> Texts | dict[str, Texts]:
    """Captions of a file.

    Args:
        path: ``.json``: class name → captions, or a list of captions for all classes; ``.csv``: with columns ``label``
            and ``caption``; ``.txt``: one caption a line. With ``{label}`` for the class where it is not told.

    Raises:
        ConfigurationError: It cannot be read, or holds no captions.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
        if path.suffix == ".txt":
            return [line.strip() for line in text.splitlines() if line.strip()]
        if path.suffix == ".csv":
            found: dict[str, Texts] = {}
            for row in csv.DictReader(text.splitlines()):
                found[row["label"]] = [*found.get(row["label"], []), row["caption"]]
            return found
        if path.suffix != ".json":
            raise ValueError("it ends in none of .json, .csv, .txt")
        given = json.loads(text)
        if not isinstance(given, (dict, list)):
            raise ValueError("it holds neither a mapping nor a list")
        return given
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"captions={str(path)!r} cannot be used ({type(error).__name__}: {error}). Set generator.captions to a "
            ".json file of {class: [captions]}, a .csv file with columns label and caption, or a .txt file with a "
            "caption a line; or to null."
        ) from error


class PromptEncoder:
    """Turns prompts into what a pipeline's call takes; each text is encoded once, by itself.

    Pipelines whose embeddings differ in length from text to text, or whose form is not known, get the texts.

    Args:
        pipe: The pipeline.
        guided: Whether there is an unconditional half, which has `negative_prompt`.
        negative_prompt: What guidance moves away from.
    """

    def __init__(self, pipe: Any, guided: bool, negative_prompt: str) -> None:
        self._pipe = pipe
        self._guided = guided
        self._negative = negative_prompt
        self._known = set(inspect.signature(type(pipe).__call__).parameters)
        self._kept: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        encode = getattr(pipe, "encode_prompt", None)
        self._takes = set(inspect.signature(encode).parameters) if encode is not None else set()
        usual = "prompt_embeds" in self._known and not {"prompt_embeds_mask", "attention_mask"} & self._known
        self._reuses = bool(self._takes) and usual

    def __call__(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Arguments of the pipeline's call for a batch of prompts."""
        if self._reuses:
            rows = [self._encoded(prompt) for prompt in prompts]
            if self._reuses:
                return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        negative = {"negative_prompt": [self._negative] * len(prompts)} if self._guided else {}
        return {"prompt": list(prompts), **{name: given for name, given in negative.items() if name in self._known}}

    def _encoded(self, prompt: str) -> dict[str, Tensor]:
        if prompt in self._kept:
            self._kept.move_to_end(prompt)
            return self._kept[prompt]
        wanted = {
            "prompt": [prompt], "prompt_2": None, "prompt_3": None, "device": self._pipe._execution_device,
            "num_images_per_prompt": 1, "do_classifier_free_guidance": self._guided,
            "negative_prompt": [self._negative] if self._guided else None,
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
        self._kept[prompt] = encoded
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return encoded

    def _takes_form(self, form: Sequence[str]) -> bool:
        return all(name in self._known or name == "text_ids" for name in form)
