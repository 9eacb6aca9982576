"""The planner of a run: from the settings of the data module and the training data to a named planner."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_diffaug.conditions import QuotaPlanner, RealGuidedPlanner
from lightning_diffaug.conditions.multilabel import label_sets, rows_for
from lightning_diffaug.conditions.quotas import FIELD, is_rule, rule_quotas
from lightning_diffaug.conditions.real_guided_settings import RealGuided
from lightning_diffaug.conditions.text import TextPlanner
from lightning_diffaug.conditions.text_settings import TextSettings
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.mixing import class_shares, quotas
from lightning_diffaug.mixing.sampler import MixSettings
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.real import RealTraining
from lightning_diffaug.spec import LABEL

log = logging.getLogger(__name__)


def named_planner(
    planner: Any,
    text: Any,
    real_guided: RealGuided,
    mix: MixSettings,
    data: RealTraining,
    generator: Any,
    seed: int,
) -> dict[str, Any]:
    """The planner that the settings ask for, by its name.

    Args:
        planner: As `DiffAugDataModule` says.
        text: As `DiffAugDataModule` says.
        real_guided: Which real samples are varied.
        mix: How real and synthetic are mixed; its allocation is what ``"auto"`` follows.
        data: The real training data.
        generator: The generator, which may say what it starts from and is given.
        seed: Of the planner's choices.

    Raises:
        ConfigurationError: A setting is none of a planner, or does not go with the data.
    """
    if not isinstance(planner, (str, Mapping)) and not callable(getattr(planner, "plan", None)):
        raise ConfigurationError(_no_planner(planner))
    own = not isinstance(planner, (str, Mapping)) or (isinstance(planner, Mapping) and "_target_" in planner)
    field = None if own else labels_field(planner, data, generator)
    made: Any = planner if own else _planner(planner, field, real_guided, mix, data, generator, seed)
    if real_guided != RealGuided() and (own or not isinstance(made, RealGuidedPlanner)):
        name = next(name for name, value in vars(real_guided).items() if value != getattr(RealGuided(), name))
        raise ConfigurationError(
            f"data.real_guided.{name}={getattr(real_guided, name)} says which real samples are varied, and "
            + (
                "data.planner is an object that decides all, so it would have no effect. Leave it out, or set "
                "data.planner=auto."
                if own
                else "the generator starts from none. Set generator.source=image (a pipeline: "
                "generator.task=image-to-image), or leave it out."
            )
        )
    pairs = _pairs(made)
    if pairs != "intra" and any(getattr(part, "kept_halves", ()) for part in _layers(generator)):
        key = "data.planner: an object with pairs" if own else "data.real_guided.pairs"
        raise ConfigurationError(
            f"{key}={pairs} starts from real samples of other classes, and half of one would be kept under a wrong "
            f"label. Set generator.kept_halves=[], or {'pairs' if own else key}=intra."
        )
    if text is not None:
        made = _with_text(made, TextSettings.of(text), field, data, generator, seed)
    elif data.spec.texts and not own:
        name, path = data.spec.texts[0].name, data.spec.texts[0].path
        raise ConfigurationError(
            f"the samples have a {name} (data.fields names {path!r} so), and nothing says those of synthetic ones. Set "
            'data.text to e.g. "a photo of a {label}", or leave it out of data.fields.'
        )
    return name_of(made, "planner")


def labels_field(planner: str | Mapping[Any, Any], data: RealTraining, generator: Any) -> str | None:
    """The field with several labels a sample that quotas are of; None: each sample has one class, or none.

    It is named by ``data.planner.field``, or else is the one condition of the generator that is of the kind ``labels``.

    Raises:
        ConfigurationError: The data have no such field.
    """
    if isinstance(planner, Mapping) and is_rule(planner) and FIELD in planner:
        name = str(planner[FIELD])
        if data.class_index is not None:
            raise ConfigurationError(
                f"data.planner.field={name} asks for quotas of several labels a sample, and each sample has a class "
                "besides, which nothing would say of synthetic ones. Leave data.planner.field out, for quotas of the "
                "class, or the class out of data.fields."
            )
        if name == LABEL or name not in {field.name for field in data.spec.continuous}:
            raise ConfigurationError(
                f"data.planner.field={name} is no field with several labels a sample; the fields are "
                f"{[field.name for field in data.spec.continuous]}. Name it in data.fields, or leave it out."
            )
        return name
    conditions = getattr(generator, "conditions", None)
    if data.class_index is not None or not isinstance(conditions, Mapping):
        return None
    found = [str(name) for name, kind in conditions.items() if kind == "labels"]
    return found[0] if len(found) == 1 else None


def _planner(
    planner: str | Mapping[Any, Any],
    field: str | None,
    real_guided: RealGuided,
    mix: MixSettings,
    data: RealTraining,
    generator: Any,
    seed: int,
) -> QuotaPlanner | RealGuidedPlanner:
    shares: list[float] | None = None
    labels: dict[str, Any] = {}
    if field is not None:
        shares, labels = _labels_shares(planner, field, mix, data)
    elif data.class_index is not None:
        shares = _shares(planner, mix, data.class_counts, data.class_names)
    source = getattr(generator, "source", None)
    texts = {text.name for text in data.spec.texts}  # those the text planner gives
    given, derived = [g for g in getattr(generator, "given", ()) if g not in texts], getattr(generator, "derived", {})
    given += [field] if field is not None and field not in given else []
    if given or derived or source in RealGuidedPlanner.SOURCES[1:]:
        source, repaint = source or "noise", getattr(generator, "repaint", None)
        strength = None if source == "noise" else getattr(generator, "strength", None)
        how = {"strength": strength, **vars(real_guided), **labels}
        return RealGuidedPlanner(shares, source, repaint, seed, given, derived, **how)
    return QuotaPlanner(shares)


def _shares(
    planner: str | Mapping[Any, Any], mix: MixSettings, counts: npt.ArrayLike, names: Sequence[str]
) -> list[float]:
    """The share of each class in what is made, of sum 1."""
    n = np.asarray(counts, np.float64)
    if planner == "auto":
        shares = quotas(n, mix.allocation, mix.max_class_share, class_names=names)
    elif planner == "uniform":
        shares = (n > 0) / (n > 0).sum()
    elif planner == "as_real":
        shares = n / n.sum()
    elif isinstance(planner, Mapping) and is_rule(planner):
        shares = rule_quotas(planner, n, lambda given, key: class_shares(given, n, names, key))
    elif isinstance(planner, Mapping):
        shares = class_shares(planner, n, names, "data.planner")
    else:
        raise ConfigurationError(_no_planner(planner))
    return [float(share) for share in shares]


def _no_planner(planner: Any) -> str:
    return (
        f"data.planner={planner!r} is none of auto, uniform, as_real, {{class: share}}, {{fill: samples}}, "
        "{temperature: T} or a planner object: it says which classes the pool holds. Set data.planner=auto."
    )


def _labels_shares(
    planner: str | Mapping[Any, Any], field: str, mix: MixSettings, data: RealTraining
) -> tuple[list[float] | None, dict[str, Any]]:
    """The share of the rows that are made for each of several labels, and what a planner needs to know of them.

    As in the data, rows are of any real sample: no labels have quotas.
    """
    as_real = planner in ("auto", "as_real")
    rule = dict(planner) if isinstance(planner, Mapping) else {}
    as_real |= set(rule) == {FIELD} or (rule.get("temperature") == 1 and not rule.get("uniform"))
    snapshot = data.snapshot()
    if as_real or snapshot is None:  # without a snapshot, whoever reads the data says so
        return None, {}
    has = label_sets(snapshot.raw(field), field)
    wanted = _shares(planner, mix, has.sum(0).numpy(), ())
    unwanted = [k for k, share in enumerate(wanted) if share == 0]
    return rows_for(has, wanted), {"labels_in": field, "unwanted": unwanted}


def _with_text(
    planner: Any, text: TextSettings, field: str | None, data: RealTraining, generator: Any, seed: int
) -> TextPlanner:
    names: Sequence[str] = data.class_names
    if field is not None:
        names = [str(k) for k in range(data.spec[field].shape[0])]
    made = TextPlanner(
        planner, names, text.templates, text.synonyms, text.attributes, text.captions, text.negative, seed, field
    )
    asked = _layers(generator)[-1]
    by_start = getattr(asked, "source", None) not in (None, "noise") and _pairs(planner) == "intra"
    if _takes_prompts(asked) and not by_start and len(names) > 1 and not made.names_the_class:
        raise ConfigurationError(
            f"data.text asks for the same of all {len(names)} classes, so that the labels of samples would be wrong: "
            "prompts are all that tells the generator the class. Put {label} into each of data.text.templates (or of "
            "the captions)."
        )
    return made


def warn_of_unread_text(generator: Any, gates: Sequence[Any], data: RealTraining) -> None:
    """Says that prompts have no effect where the generator is of this library and takes none, and nothing else does.

    Args:
        generator: The generator.
        gates: The gates; one of the user's own may read prompts.
        data: The real training data, whose caption may be the prompt.
    """
    asked = _layers(generator)[-1]
    readers = [gate for gate in gates if gate.name == "caption" or not _of_library(gate)]
    if _of_library(asked) and not _takes_prompts(asked) and not readers and not data.spec.texts:
        log.warning(
            "data.text has no effect: %s takes no prompts, and no gate reads them. Set data.text=null, or a generator "
            "that takes them (generator=pipeline, generator=remote).",
            type(asked).__name__,
        )


def _of_library(part: Any) -> bool:
    return type(part).__module__.partition(".")[0] == __name__.partition(".")[0]


def _pairs(planner: Any) -> str:
    """Of which class the real samples are that a planner starts from."""
    planner = build(name_of(planner, "planner"), "planner") if isinstance(planner, Mapping) else planner
    return str(getattr(planner, "pairs", "intra"))


def _layers(generator: Any) -> list[Any]:
    """The generator, and within it those that are composed with real samples; the last makes the samples."""
    found = [generator]
    while (inner := getattr(found[-1], "composed_of", None)) is not None:
        found.append(inner)
    return found


def _takes_prompts(generator: Any) -> bool:
    try:
        return callable(getattr(generator, "config", None)) and "prompts" in generator.config()
    except ConfigurationError:  # around a live object, which has no name
        return False
