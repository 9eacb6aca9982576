"""What a user says of prompts: templates, synonyms, attributes, captions and what to avoid, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_diffaug.conditions.captions import listed
from lightning_diffaug.errors import ConfigurationError

KEY = "data.text"
LABEL, CAPTION = "label", "caption"
NO_LABEL = "background"
"""The class of samples that have no label of several; its synonyms are what `{label}` stands for there."""

_PLACE = re.compile(r"\{(\w+)\}")
_NAMES = ("templates", "synonyms", "attributes", "captions", "negative")


@dataclass(frozen=True)
class TextSettings:
    """``data.text``.

    Attributes:
        templates: Texts with ``{label}``, ``{caption}`` and attributes; each row takes one.
        synonyms: Class → the words that ``{label}`` stands for; each row takes one. Others go by their name.
        attributes: Name → the values that it stands for; all combinations come equally often.
        captions: File of captions, see `captions.read_captions`; or ``"real"``: those that the training samples have.
        negative: What to avoid: texts for all, or class → texts.
    """

    templates: list[str]
    synonyms: dict[str, list[str]] = field(default_factory=dict)
    attributes: dict[str, list[str]] = field(default_factory=dict)
    captions: str | None = None
    negative: list[str] | dict[str, list[str]] = field(default_factory=list)

    @classmethod
    def of(cls, given: Any) -> TextSettings:
        """From ``data.text``: one or more templates, or a mapping of the names above.

        Raises:
            ConfigurationError: A name is unknown, or something is no text; the text says which key.
        """
        if isinstance(given, TextSettings):
            return given
        if not isinstance(given, Mapping):
            return cls.of({"templates": given})
        unknown = [name for name in given if name not in _NAMES]
        if unknown:
            raise ConfigurationError(f"{KEY}.{unknown[0]} is no setting. Set {KEY} to some of {', '.join(_NAMES)}.")
        captions = given.get("captions")
        usual = "a photo of a {label}" if captions is None else "{caption}"
        negative = given.get("negative") or []
        settings = cls(
            listed(usual if given.get("templates") is None else given["templates"], f"{KEY}.templates"),
            _lists(given.get("synonyms") or {}, f"{KEY}.synonyms"),
            _lists(given.get("attributes") or {}, f"{KEY}.attributes"),
            None if captions is None else str(captions),
            _lists(negative, f"{KEY}.negative")
            if isinstance(negative, Mapping)
            else listed(negative, f"{KEY}.negative")
            if negative
            else [],
        )
        _check_names(settings)
        return settings

    @property
    def negatives(self) -> list[str]:
        """All texts of `negative`."""
        groups = self.negative.values() if isinstance(self.negative, dict) else [self.negative]
        return [text for group in groups for text in group]


def named_in(text: str) -> list[str]:
    """What stands in braces."""
    return _PLACE.findall(text)


def filled_in(text: str, words: Mapping[str, str]) -> str:
    """The text with the words in place of their names in braces; other braces stay."""
    return _PLACE.sub(lambda place: words.get(place[1], place[0]), text)


def by_class(
    given: Mapping[str, list[str]],
    class_names: Sequence[str],
    key: str,
    *more: str,
    lines: Mapping[str, int] | None = None,
) -> dict[int | str, list[str]]:
    """A mapping by class (its name or, failing that, its index) as one by index; `more` are further keys.

    Args:
        given: By class.
        class_names: In their order.
        key: The setting, for errors.
        *more: Further keys that may be there.
        lines: Key → line of the file where it stands, for errors.

    Raises:
        ConfigurationError: A class is unknown.
    """
    found: dict[int | str, list[str]] = {}
    for name, texts in given.items():
        if name in class_names:
            found[list(class_names).index(name)] = texts
        elif name.isdecimal() and int(name) < len(class_names):
            found[int(name)] = texts
        elif name in more:
            found[name] = texts
        else:
            line = f", line {lines[name]}," if lines and name in lines else ""
            raise ConfigurationError(
                f"{key}{line} names the class {name!r}, and the classes are {list(class_names)[:20]}. Change that key "
                f"of {key}."
            )
    return found


def _lists(given: Any, key: str) -> dict[str, list[str]]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{key}={given!r} is no mapping of names to texts. Set {key} to {{name: [texts]}}.")
    return {str(name): listed(texts, f"{key}.{name}") for name, texts in given.items()}


def _check_names(settings: TextSettings) -> None:
    for name in settings.attributes:
        if not re.fullmatch(r"\w+", name) or name in (LABEL, CAPTION):
            raise ConfigurationError(
                f"{KEY}.attributes.{name} cannot be a name in braces: {{{LABEL}}} is the class, {{{CAPTION}}} the "
                f"caption, and a name is one word. Give it another name in {KEY}.attributes."
            )
    known = {LABEL, *settings.attributes} | ({CAPTION} if settings.captions is not None else set())
    for key, texts in (("templates", settings.templates), ("negative", settings.negatives)):
        for text in texts:
            rest = _PLACE.sub("", text)
            if rest.count("{") != rest.count("}"):
                raise ConfigurationError(
                    f"{KEY}.{key} has {text!r}, where a brace is not closed (or not opened), so that nothing would be "
                    f"filled in there. Write e.g. {{{LABEL}}}."
                )
            if unknown := [name for name in named_in(text) if name not in known]:
                raise ConfigurationError(
                    f"{KEY}.{key} has {text!r}, and nothing says what {{{unknown[0]}}} stands for. Give "
                    f"{KEY}.{'captions' if unknown[0] == CAPTION else f'attributes.{unknown[0]}'}, or take it out."
                )
    used = {name for text in (*settings.templates, *settings.negatives) for name in named_in(text)}
    unused = [name for name in settings.attributes if name not in used]
    if unused and settings.captions is None:  # a caption may name it
        raise ConfigurationError(
            f"{KEY}.attributes.{unused[0]} is in no template, so it has no effect. Put {{{unused[0]}}} into one of "
            f"{KEY}.templates, or take it out of {KEY}.attributes."
        )
