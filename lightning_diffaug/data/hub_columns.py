"""Which column of a data set of Hugging Face is the image, the class, the mask, the caption or the sound."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_diffaug.errors import ConfigurationError

_TEXT = frozenset({"string", "large_string"})
_WHOLE = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


@dataclass(frozen=True)
class _Role:
    """What may stand for an image, for a class, and so on.

    Attributes:
        types: As `column_type` says them.
        alone: Those of `types` of which a single column is taken whatever its name.
        names: Usual names; the first that is there is taken.
    """

    types: Collection[str]
    alone: Collection[str]
    names: tuple[str, ...]


_CAPTION = _TEXT | {f"list of {kind}" for kind in _TEXT}
_ROLES = {
    "image": _Role({"Image"}, {"Image"}, ("image", "img", "pixel_values", "pixels", "picture", "photo")),
    "audio": _Role({"Audio"}, {"Audio"}, ("audio", "sound", "speech")),
    "label": _Role(
        {"ClassLabel", "bool"} | _TEXT | _WHOLE,
        {"ClassLabel"},  # a single column of strings or numbers may be anything
        ("label", "labels", "class", "classes", "category", "target", "fine_label"),
    ),
    "mask": _Role(
        {"Image"},
        {"Image"},
        ("mask", "segmentation", "segmentation_mask", "annotation", "label", "labels", "target", "ground_truth"),
    ),
    "caption": _Role(
        _CAPTION,
        _CAPTION,
        ("caption", "text", "captions", "texts", "sentences", "sentence", "alt", "alt_text", "description", "prompt"),
    ),
}


def check_named(named: Mapping[str, str], roles: Collection[str], root: str) -> None:
    """Refuses ``real.columns`` of something else than `roles`.

    Raises:
        ConfigurationError: The text names the key.
    """
    if unknown := sorted(set(named) - set(roles)):
        raise ConfigurationError(
            f"real.columns names {', '.join(unknown)}, and what is read of real.root={root} is {' and '.join(roles)}. "
            f"Set real.columns to e.g. {_example(roles)}, or to null."
        )
    if len(set(named.values())) < len(named):
        raise ConfigurationError(
            f"real.columns={dict(named)} names one column for two things of real.root={root}. Set real.columns to "
            f"{_example(roles)}, each another."
        )


def chosen_columns(
    features: Mapping[str, Any], roles: Collection[str], named: Mapping[str, str], root: str
) -> dict[str, str]:
    """The column of each role.

    Args:
        features: Name → feature of the package ``datasets``.
        roles: Of `image`, `audio`, `label`, `mask` and `caption`.
        named: Columns that the user names (``real.columns``); the others are found by type, then by usual names.
        root: ``real.root``, for errors.

    Raises:
        ConfigurationError: One is missing or has another type, or there are several; the text lists all columns.
    """
    types = {name: column_type(feature) for name, feature in features.items()}
    chosen = dict(named)
    for role in roles:
        known = _ROLES[role]
        if role in named:
            if types.get(named[role]) not in known.types:
                wrong = f"real.columns.{role}={named[role]} is no column that can be the {role}"
                raise ConfigurationError(f"{wrong}. {_listed(types, roles, root)}")
            continue
        fitting = [name for name in types if types[name] in known.types and name not in chosen.values()]
        usual = [name for name in known.names if name in fitting]
        alone = [name for name in fitting if types[name] in known.alone]
        if not usual and len(alone) != 1:
            why = f"any of {', '.join(alone)} may be" if alone else "no column seems to be"
            raise ConfigurationError(f"{why} the {role}. {_listed(types, roles, root)}")
        chosen[role] = (usual or alone)[0]
    return {role: chosen[role] for role in roles}


def column_type(feature: Any) -> str:
    """A feature's type in short: ``Image``, ``ClassLabel``, ``string``, ``list of string`` and so on."""
    name = type(feature).__name__
    if name in ("List", "LargeList"):
        return f"list of {column_type(feature.feature)}"
    return str(feature.dtype) if name == "Value" else name


def _listed(types: Mapping[str, str], roles: Collection[str], root: str) -> str:
    listed = ", ".join(f"{name} ({kind})" for name, kind in types.items())
    return f"real.root={root} has the columns {listed}. Set real.columns, e.g. {_example(roles)}."


def _example(roles: Collection[str]) -> str:
    return f"{{{', '.join(f'{role}: <column>' for role in roles)}}}"
