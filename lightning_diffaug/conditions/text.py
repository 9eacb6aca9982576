"""Prompts for any planner's plan: what each row shall show, in words."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.conditions.captions import NEGATIVE_PROMPT, PROMPT, Captions, read_captions
from lightning_diffaug.conditions.draws import draw
from lightning_diffaug.conditions.text_settings import (
    CAPTION,
    KEY,
    LABEL,
    NO_LABEL,
    TextSettings,
    by_class,
    filled_in,
    named_in,
)
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.spec import CAPTION as CAPTION_FIELD

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

REAL = "real"
"""In place of a file: the captions that the training samples have."""

_ROOT = math.sqrt(2.0)  # quotas turn by the golden ratio; the two together are uniform
_TEMPLATE, _WORD, _CAPTION, _SAMPLE, _NEGATIVE, _PHASE = range(1000, 1006)  # of a row's choices


class TextPlanner:
    """Adds ``prompt`` (and ``negative_prompt``), one text a row, to another planner's plan.

    Template, synonym, caption and negative prompt of a row follow from (seed, slot, row) alone. Combinations of
    attributes are gone through within the rows of a class in a slot, from a place that moves from slot to slot, so that
    all come equally often. Captions of training samples: a row that is made from one (its ``source_index``, or
    ``given_index``), of its own class, has that one's caption; any other row that of some sample of its class, which
    ``caption_index`` names. A sample without caption takes a template without ``{caption}``.

    Args:
        planner: The planner whose plan is completed; what it has of ``bind`` and ``follow``, this has.
        class_names: Names of the classes; [] without labels.
        templates: As the next four, see `TextSettings`.
        synonyms: By class.
        attributes: By name.
        captions: A file, or ``"real"``: those of the training samples.
        negative: For all, or by class.
        seed: Of the choices.
        labels: Field of the plan with several labels a row, (rows, len(class_names)), above 0.5 where it has one.
        captions_hash: Of the file's content, which names the pool; None: as found.

    Raises:
        ConfigurationError: The settings do not go together, or the file of captions cannot be used.
    """

    def __init__(
        self,
        planner: Any,
        class_names: Sequence[str] = (),
        templates: Any = None,
        synonyms: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        captions: str | None = None,
        negative: Any = None,
        seed: int = 0,
        labels: str | None = None,
        captions_hash: str | None = None,
    ) -> None:
        given = {"templates": templates, "synonyms": synonyms, "attributes": attributes}
        self.settings = TextSettings.of({**given, "captions": captions, "negative": negative})
        self.planner = planner
        self.class_names = list(class_names)
        self.templates, self.synonyms = self.settings.templates, self.settings.synonyms
        self.attributes, self.negative = self.settings.attributes, self.settings.negative
        self.seed = seed
        self.labels = labels
        self.captions = captions
        self._captions = Captions()
        self.captions_hash = captions_hash
        if captions not in (None, REAL):
            self._captions = read_captions(str(captions), f"{KEY}.captions")
            self.captions = str(Path(str(captions)).expanduser().absolute())
            self.captions_hash = hashlib.blake2b(Path(self.captions).read_bytes(), digest_size=16).hexdigest()
            if captions_hash not in (None, self.captions_hash):
                raise ConfigurationError(
                    f"{self.captions} was changed since the run began, so its captions are not those that the pool is "
                    f"named by. Start the run again, or set {KEY}.captions to a file that stays as it is."
                )
        names = self.class_names
        self._words = by_class(self.synonyms, names, f"{KEY}.synonyms", *([NO_LABEL] if labels is not None else []))
        found = self._captions
        self._by_class = by_class(found.by_class, names, f"{KEY}.captions={self.captions}", lines=found.lines)
        self._against: list[str] | dict[int | str, list[str]] = []
        if isinstance(self.negative, dict):
            self._against = by_class(self.negative, names, f"{KEY}.negative")
        else:
            self._against = self.negative
        self._without_caption = [text for text in self.templates if CAPTION not in named_in(text)]
        self._combinations = math.prod(len(values) for values in self.attributes.values())
        self._label_of: Tensor | None = None
        self._captioned: dict[int, list[int]] = {}
        self._check()

    @property
    def unnamed(self) -> tuple[str, ...]:
        """Arguments that are no part of the pool's name: where captions lie, which their hash names."""
        return () if self.captions_hash is None else ("captions",)

    @property
    def names_the_class(self) -> bool:
        """Whether each prompt says of which class a sample is."""

        def told(text: str) -> bool:
            return LABEL in named_in(text)

        own = self._of_samples or self._by_class or (self._captions.of_all and all(map(told, self._captions.of_all)))
        return all(told(text) or (bool(own) and CAPTION in named_in(text)) for text in self.templates)

    @property
    def bind(self) -> Callable[[Snapshot], None]:
        """Gives the training data to whoever reads them: captions of samples, or the planner."""
        if not self._of_samples and not hasattr(self.planner, "bind"):
            raise AttributeError("neither the captions nor the planner read the training data")
        return self._bind

    @property
    def given(self) -> list[str]:
        """Fields of the plan that are real samples' own."""
        return list(getattr(self.planner, "given", ()))

    @property
    def follow(self) -> Callable[[Any], None]:
        """The planner's own."""
        follow: Callable[[Any], None] = self.planner.follow
        return follow

    def plan(self, slot: int, rows: int) -> dict[str, Any]:
        """See `Planner`, and above."""
        plan = dict(self.planner.plan(slot, rows))
        if PROMPT in plan:
            raise GeneratorError(f"the planner gives prompts of its own, and {KEY} would add others. Set {KEY}=null.")
        of_row, prompts, negative = self._labels_of(plan, rows), [], []
        sample, by_draw = self._samples_of(plan, of_row, slot)
        seen: dict[Any, int] = {}
        for row, classes in enumerate(of_row):
            group = classes[0] if len(classes) == 1 and self.labels is None else -1
            count = seen[group] = seen.get(group, -1) + 1
            words = self._combination(slot, group, count) | {LABEL: self._word(slot, row, classes)}
            prompts.append(self._prompt(slot, row, classes, sample[row], words))
            against = self._against
            if isinstance(against, dict):
                against = [text for c in classes for text in against.get(c, [])]
            negative.append(filled_in(self._one(against, slot, row, _NEGATIVE), words) if against else "")
        plan[PROMPT] = prompts
        if self._against:
            plan[NEGATIVE_PROMPT] = negative
        if by_draw:
            plan["caption_index"] = torch.tensor([-1 if index is None else index for index in sample])
        return plan

    @property
    def _of_samples(self) -> bool:
        return self.captions == REAL or bool(self._captions.by_sample)

    def _check(self) -> None:
        labelled = bool(self.class_names)
        everywhere = (*self.templates, *self.settings.negatives, *self._captions.of_all)
        if not labelled and any(LABEL in named_in(text) for text in everywhere):
            raise ConfigurationError(
                f"{KEY} names the class ({{label}}), and the data have no labels. Set {KEY}.templates to texts without."
            )
        missing = [name for c, name in enumerate(self.class_names) if self._by_class and c not in self._by_class]
        if missing and not self._without_caption:
            raise ConfigurationError(
                f"{KEY}.captions has none for the classes {missing[:20]}, and every template wants one. Add captions "
                f"for them, or a template without {{caption}} to {KEY}.templates."
            )

    def _bind(self, snapshot: Snapshot) -> None:
        if hasattr(self.planner, "bind"):
            self.planner.bind(snapshot)
        if not self._of_samples:
            return
        if self.captions == REAL:
            texts = enumerate(snapshot.texts.get(CAPTION_FIELD, []))
            self._captions = Captions(by_sample={index: [text] for index, text in texts if text.strip()})
        n, has = len(snapshot), sorted(self._captions.by_sample)
        if not has:
            raise ConfigurationError(
                f"{KEY}.captions=real, and the training samples have none. Name the string that is their caption in "
                f"data.fields, e.g. {{text: caption}}, or set {KEY}.captions to a file."
            )
        if has[-1] >= n:
            raise ConfigurationError(
                f"{KEY}.captions has a caption for the sample {has[-1]}, and the training data have {n}. Let index be "
                "the place of a sample in the training data, from 0."
            )
        self._label_of = snapshot.labels
        of_class = [0] * n if snapshot.labels is None else snapshot.labels.tolist()
        self._captioned = {}
        for index in has:
            self._captioned.setdefault(of_class[index], []).append(index)
        lacking = n - len(has) if hasattr(self.planner, "bind") else len(set(of_class) - set(self._captioned))
        if lacking and not self._without_caption:
            what = "samples" if hasattr(self.planner, "bind") else "classes"
            raise ConfigurationError(
                f"{KEY}.captions has none for {lacking} {what} of the training data, and every template wants one. Add "
                f"captions, or a template without {{caption}} to {KEY}.templates."
            )

    def _labels_of(self, plan: Mapping[str, Any], rows: int) -> list[list[int]]:
        """The classes of each row."""
        if self.labels is not None:
            return [(row > 0.5).nonzero().flatten().tolist() for row in torch.as_tensor(plan[self.labels])]
        if not self.class_names or LABEL not in plan:
            return [[] for _ in range(rows)]
        return [[int(c)] for c in plan[LABEL]]

    def _samples_of(
        self, plan: Mapping[str, Any], of_row: Sequence[Sequence[int]], slot: int
    ) -> tuple[list[int | None], bool]:
        """The training sample whose caption each row has, and whether some were drawn for that."""
        if not self._of_samples:
            return [None] * len(of_row), False
        known = plan.get("given_index", plan.get("source_index"))
        found: list[int | None] = []
        drawn = False
        for row, classes in enumerate(of_row):
            c = classes[0] if self._label_of is not None else 0
            index = None if known is None else int(known[row])
            if index is None or (self._label_of is not None and int(self._label_of[index]) != c):
                own, drawn = self._captioned.get(c, []), True
                index = own[int(draw(self.seed, slot, row, _SAMPLE) * len(own))] if own else None
            found.append(index)
        return found, drawn

    def _prompt(self, slot: int, row: int, classes: Sequence[int], sample: int | None, words: Mapping[str, str]) -> str:
        captions = self._captions.of_all or [text for c in classes for text in self._by_class.get(c, [])]
        if sample is not None:
            captions = self._captions.by_sample.get(sample, [])
        template = self._one(self.templates if captions else self._without_caption, slot, row, _TEMPLATE)
        if captions:
            template = template.replace(f"{{{CAPTION}}}", self._one(captions, slot, row, _CAPTION))
        return filled_in(template, words)

    def _word(self, slot: int, row: int, classes: Sequence[int]) -> str:
        """What stands for the row's class, or for its several labels."""
        if self.labels is not None and not classes:
            return self._one(self._words.get(NO_LABEL, [NO_LABEL]), slot, row, _WORD)
        words = [self._one(self._words.get(c, [self.class_names[c]]), slot, row, _WORD) for c in classes]
        return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)

    def _combination(self, slot: int, group: int, count: int) -> dict[str, str]:
        """The attributes of the row that is the `count`-th of its class in the slot."""
        start = (draw(self.seed, 0, group, _PHASE) + slot * _ROOT) % 1.0
        number, values = (int(start * self._combinations) + count) % self._combinations, {}
        for name, of in self.attributes.items():
            number, place = divmod(number, len(of))
            values[name] = of[place]
        return values

    def _one(self, texts: Sequence[str], slot: int, row: int, what: int) -> str:
        return texts[int(draw(self.seed, slot, row, what) * len(texts))]
