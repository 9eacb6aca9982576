"""The gate that asks whether any two fields of a sample belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.aligned.encoders import is_known
from lightning_diffaug.gates.aligned.fields import check_there, given
from lightning_diffaug.gates.aligned.scorer import FittedPairScorer
from lightning_diffaug.gates.aligned.thresholds import check_quantile, check_threshold
from lightning_diffaug.gates.chain import Verdict
from lightning_diffaug.spec import SampleSpec


class PairAgreement:
    """Passes samples of which two fields belong together, as those of real samples do. A gate of taste: off by default.

    Two small encoders are fitted on the real training pairs alone (`FittedPairScorer`), each by the shape of its field:
    images, sequences, volumes, videos, vectors, sets of points, texts. The least score that passes is the quantile
    `quantile` of that of real pairs, each with the encoders that were not fitted on it.

    Score: ``pair_score``, in nats: above 0, the two fit each other better than they fit partners of others.

    Args:
        first: A field.
        second: Another; a text is the row's own, or its prompt.
        threshold: Least score; None: by `quantile`.
        quantile: Share of real pairs that would be rejected.
        fit: `AlignedSettings` by name; None: the defaults.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    name = "pair"

    def __init__(
        self,
        first: str = "image",
        second: str = "caption",
        threshold: float | None = None,
        quantile: float = 0.05,
        fit: Mapping[str, Any] | None = None,
    ) -> None:
        if first == second:
            raise ConfigurationError(
                f"gates.pair.first and gates.pair.second are both {first!r}, which is always its own partner. Name two "
                "fields."
            )
        self.threshold = check_threshold(threshold, self.name, "the least score of a pair, in nats", 0.0)
        self.quantile = check_quantile(quantile, self.name, 0.05)
        self.first, self.second = first, second
        self.fitted = FittedPairScorer(first, second, fit)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "first": self.first, "second": self.second, "threshold": self.threshold, "quantile": self.quantile,
            "fit": self.fitted.config()["settings"],
        }  # fmt: skip

    @property
    def looks_at(self) -> tuple[str, str]:
        """Names of the two fields."""
        return self.first, self.second

    def check(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Looks at the fields before anything is made.

        Raises:
            ConfigurationError: They are not there, or there is no encoder for their shape.
        """
        for key in ("first", "second"):
            field = check_there(spec, self.name, key, getattr(self, key), texts=True)
            if not is_known(field):
                raise ConfigurationError(
                    f"gates.pair.{key}={field.name!r} has the shape {field.shape}, for which there is no encoder. Name "
                    f"another field in gates.pair.{key}, or set gates.pair=false."
                )

    @property
    def least(self) -> float:
        """Score from which a pair passes."""
        return float(self.fitted.held_out.quantile(self.quantile)) if self.threshold is None else self.threshold

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Verdict:
        """Which pairs belong together, and how well."""
        first, second = (given(field, samples, condition) for field in self.fitted.fields)
        score = self.fitted.scores(first, second)
        return Verdict(score >= self.least, {"pair_score": score})
