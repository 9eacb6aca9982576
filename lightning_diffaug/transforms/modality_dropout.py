"""Modality dropout: a model learns to do without each of its modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.transforms.fields import as_tensor, field, names, placed

ZEROS, LEARNED = "zeros", "learned"

Replacement: TypeAlias = "str | float | Sequence[Any] | Mapping[str, Any]"


def draw_present(p: Sequence[float], n: int) -> Tensor:
    """Which modalities n samples keep, never none, from torch's global random state.

    Each modality i is dropped with probability p_i, on its own. Where that drops all of the m, which has probability
    q = Π p_i, one is kept, drawn uniformly from the m. So modality i is missing with probability **p_i - q / m**; every
    pattern with two or more present has its product of p and 1 - p, and that with i alone has q / m more.

    Args:
        p: Probability of each modality.
        n: Samples.

    Returns:
        Bool (n, m).
    """
    present = torch.rand(n, len(p)) >= torch.tensor(p)
    kept = torch.randint(len(p), (n,))
    none = ~present.any(dim=1)
    present[none, kept[none]] = True
    return present


class _Replacements(nn.Module):
    """What stands for a modality that is missing."""

    def __init__(
        self, modalities: Sequence[str], replace: Replacement, shapes: Mapping[str, Sequence[int]] | None, owner: str
    ) -> None:
        super().__init__()
        given = dict(replace) if isinstance(replace, Mapping) else dict.fromkeys(modalities, replace)
        shapes = {} if shapes is None else {str(name): tuple(shape) for name, shape in shapes.items()}
        for role, known in (("replace", given), ("shapes", shapes)):
            if unknown := sorted(set(known) - set(modalities)):
                raise ConfigurationError(
                    f"{owner}({role}=…) names {unknown}, and p names {list(modalities)}. Name the same fields in both."
                )
        self._values = {name: given.get(name, ZEROS) for name in modalities}
        self._owner = owner
        self._learned = [name for name, value in self._values.items() if value == LEARNED]
        self.tokens = nn.ParameterList()  # in the order of p: a path may be no parameter's name
        for name in self._learned:
            if name not in shapes:
                raise ConfigurationError(
                    f"{owner}: replace={LEARNED!r} needs the shape of {name!r} (without the batch) before training, "
                    f'for its parameter. Set shapes={{"{name}": [...]}}.'
                )
            self.tokens.append(nn.Parameter(torch.zeros(shapes[name])))

    def of(self, name: str, value: Any, present: Tensor) -> Any:
        """A batched field with a replacement where `present`, bool (n,), is false."""
        if not isinstance(value, Tensor):
            missing = self._text(name, value)
            return type(value)(text if there else missing for text, there in zip(value, present.tolist(), strict=True))
        token = self._token(name, value) if name in self._learned else self._constant(name, value)
        try:
            token = token.expand(value.shape[1:])
        except RuntimeError:
            raise SampleStructureError(
                f"{self._owner}: a sample of {name!r} has shape {tuple(value.shape[1:])}, and what replaces it "
                f"{tuple(token.shape)}. Set shapes.{name} (of a learned token) or replace.{name} to that shape, or to "
                "one that broadcasts to it."
            ) from None
        there = present.to(value.device).reshape(-1, *[1] * (value.ndim - 1))
        return torch.where(there, value.as_subclass(Tensor), token)

    def _token(self, name: str, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            raise SampleStructureError(
                f"{self._owner}: the modality {name!r} is {value.dtype}, for which nothing can be learned: only "
                f"floating-point fields have a learned token. Set replace.{name} to {ZEROS!r} or to a value."
            )
        token: Tensor = self.tokens[self._learned.index(name)]
        return token.to(value.dtype)

    def _constant(self, name: str, value: Tensor) -> Tensor:
        given = 0.0 if self._values[name] == ZEROS else self._values[name]
        try:
            return torch.as_tensor(given, device=value.device).to(value.dtype)
        except (TypeError, ValueError, RuntimeError):
            raise ConfigurationError(
                f"{self._owner}(replace={{{name!r}: {given!r}}}) cannot replace {value.dtype}. Set replace.{name} to a "
                f"number, a list of numbers, {ZEROS!r} or {LEARNED!r}."
            ) from None

    def _text(self, name: str, value: Any) -> str:
        given = self._values[name]
        texts = isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)
        if not texts or not isinstance(given, str) or given == LEARNED:
            raise SampleStructureError(
                f"{self._owner}: the modality {name!r} is a {type(value).__name__} and is to be replaced by {given!r}: "
                "only tensors (n, …), and lists of n texts by a text, can be. Name another field in p, or set "
                f"replace.{name}."
            )
        return "" if given == ZEROS else given


def _probabilities(p: Mapping[str, float], owner: str) -> dict[str, float]:
    found = {str(name): float(probability) for name, probability in p.items()}
    for name, probability in found.items():
        if not 0 <= probability <= 1:
            raise ConfigurationError(
                f"{owner}(p={{{name!r}: {probability}}}) is not in [0, 1]: it is the probability that the modality is "
                f"dropped. Set p.{name} so."
            )
    if len(found) < 2:
        raise ConfigurationError(
            f"{owner}(p={found}) names {len(found)} modalities, and never all of a sample are dropped: with one, "
            "nothing would be. Name two or more fields in p, with 0 for one that always stays."
        )
    return found


class ModalityDropout(nn.Module):
    """Drops modalities of a batch at random in training, each sample on its own, never all of a sample.

    Modality i of the m that `p` names is dropped with probability p_i on its own; where that drops all, which has
    probability q = Π p_i, one is kept, drawn uniformly from the m. So i is missing with probability p_i - q / m
    (`missing_probabilities`), also with p_i = 1: of two modalities with p = 1 each, one is missing always.

    In ``eval()`` nothing is dropped, unless `missing` says so.

    Args:
        p: Path of a field of the batch → probability in [0, 1]; two or more fields.
        replace: What stands for what is missing: ``"zeros"`` (of texts: ``""``), ``"learned"`` (a parameter of the
            modality's shape that starts at 0), or a value: a number, nested lists of numbers, a text. One for all or
            a mapping by field, where what is not named is ``"zeros"``.
        shapes: Field → shape of one sample of it, of ``learned`` ones; a shape that broadcasts will do.
        mask_key: Adds `present` to the batch, a dict, under this key; None: only returned.

    Raises:
        ConfigurationError: A probability out of [0, 1], fewer than two fields, or a learned one without shape.
    """

    def __init__(
        self,
        p: Mapping[str, float],
        replace: Replacement = ZEROS,
        shapes: Mapping[str, Sequence[int]] | None = None,
        mask_key: str | None = None,
    ) -> None:
        super().__init__()
        self.p = _probabilities(p, "ModalityDropout")
        self.modalities = tuple(self.p)
        self.mask_key = mask_key
        self._replacements = _Replacements(self.modalities, replace, shapes, "ModalityDropout")

    @property
    def missing_probabilities(self) -> dict[str, float]:
        """How probable it is that a modality is missing in training: p_i - q / m."""
        q = 1.0
        for probability in self.p.values():
            q *= probability
        return {name: probability - q / len(self.p) for name, probability in self.p.items()}

    def forward(self, batch: Any, missing: str | Sequence[str] | None = None) -> tuple[Any, Tensor]:
        """Replaces what is missing.

        Args:
            batch: A mapping, tuple, list or dataclass with the named fields: tensors (n, …), or n texts. It is left as
                it was.
            missing: These are missing in every sample, and nothing is drawn, in training as in ``eval()``: for a
                report of a model without them. None: drawn in training, nothing in ``eval()``.

        Returns:
            The batch, and which modalities are present: bool (n, m) in the order of `p`.

        Raises:
            ConfigurationError: `missing` names all, or one that `p` does not name.
            SampleStructureError: A named field is missing, or its replacement is of another shape.
        """
        values = {name: field(batch, name, "ModalityDropout(p=…)") for name in self.modalities}
        n = len(next(iter(values.values())))
        present = self._present(n, missing)
        for i, name in enumerate(self.modalities):
            replaced = self._replacements.of(name, values[name], present[:, i])
            batch = placed(batch, name, replaced)
        first = next((value for value in values.values() if isinstance(value, Tensor)), present)
        present = present.to(first.device)
        return with_mask(batch, self.mask_key, present, "ModalityDropout"), present

    def _present(self, n: int, missing: str | Sequence[str] | None) -> Tensor:
        if missing is None:
            if self.training:
                return draw_present(list(self.p.values()), n)
            return torch.ones(n, len(self.p), dtype=torch.bool)
        lacking = names(missing)
        if unknown := sorted(set(lacking) - set(self.p)):
            raise ConfigurationError(
                f"missing={unknown} is none of the modalities {list(self.p)}. Set missing to these."
            )
        if len(set(lacking)) == len(self.p):
            raise ConfigurationError(
                f"missing={list(lacking)} leaves a model nothing to see. Set missing to fewer of {list(self.p)}."
            )
        return torch.tensor([name not in lacking for name in self.p]).repeat(n, 1)


class SampleModalityDropout(nn.Module):
    """`ModalityDropout` as a transform of one sample, for a dataset; without learned tokens. It always draws.

    Args:
        p: As of `ModalityDropout`, with paths in a sample.
        replace: As there, without ``"learned"``.
        mask_key: Adds which are present, bool (m,), to the sample, a dict, under this key; None: it is not said.

    Raises:
        ConfigurationError: As there, or something is ``"learned"``.
    """

    def __init__(self, p: Mapping[str, float], replace: Replacement = ZEROS, mask_key: str | None = None) -> None:
        super().__init__()
        self.p = _probabilities(p, "SampleModalityDropout")
        self.mask_key = mask_key
        if LEARNED in (replace.values() if isinstance(replace, Mapping) else (replace,)):
            raise ConfigurationError(
                f"SampleModalityDropout(replace={replace!r}): a transform of a dataset learns nothing. Set replace to "
                f"{ZEROS!r} or to a value, or use ModalityDropout in the model."
            )
        self._replacements = _Replacements(tuple(self.p), replace, None, "SampleModalityDropout")

    def forward(self, sample: Any) -> Any:
        """Replaces what is missing in one sample; the given one is left as it was.

        Raises:
            SampleStructureError: A named field is missing, or its replacement is of another shape.
        """
        present = draw_present(list(self.p.values()), 1)
        for i, name in enumerate(self.p):
            value = field(sample, name, "SampleModalityDropout(p=…)")
            if not present[0, i]:
                replaced = self._of_one(name, value, present[:, i])
                sample = placed(sample, name, replaced)
        return with_mask(sample, self.mask_key, present[0], "SampleModalityDropout")

    def _of_one(self, name: str, value: Any, present: Tensor) -> Any:
        if isinstance(value, str):
            return self._replacements.of(name, [value], present)[0]
        tensor, restore = as_tensor(value, name, "SampleModalityDropout(p=…)")
        return restore(self._replacements.of(name, tensor[None], present)[0])


def with_mask(batch: Any, key: str | None, present: Tensor, owner: str) -> Any:
    """A batch or sample that also says what is present; as it is where `key` is None.

    Raises:
        SampleStructureError: It is no mapping.
    """
    if key is None:
        return batch
    if not isinstance(batch, Mapping):
        raise SampleStructureError(
            f"{owner}(mask_key={key!r}) adds a key, and what it gets is a {type(batch).__name__} and no mapping. Set "
            "mask_key=None."
        )
    return {**batch, key: present}
