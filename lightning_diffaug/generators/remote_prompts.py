"""What a server is asked for: a prompt for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_diffaug.conditions.captions import Texts, texts
from lightning_diffaug.errors import ConfigurationError

_LABEL, _SEED = "{label}", "{seed}"
_KEY = "generator.prompts"


class Prompts:
    """Prompts by class.

    Args:
        prompts: A text for all classes, or class name → text. ``{label}`` stands for the class name and ``{seed}`` for
            the sample's seed. A list in place of a text: each sample takes the one that its seed says.

    Raises:
        ConfigurationError: A prompt is empty or no text.
    """

    def __init__(self, prompts: Texts | Mapping[str, Texts]) -> None:
        if isinstance(prompts, Mapping):
            self.plain: str | list[str] | dict[str, str | list[str]] = {
                str(name): texts(given, f"{_KEY}.{name}") for name, given in prompts.items()
            }
        else:
            self.plain = texts(prompts, _KEY)

    def check(self, class_names: Sequence[str]) -> None:
        """Checks that each class has prompts of its own.

        Args:
            class_names: Class names in order; () for data without labels.

        Raises:
            ConfigurationError: A class has no prompt, or several have the same.
        """
        if isinstance(self.plain, dict):
            missing = [name for name in class_names if name not in self.plain]
            unknown = [name for name in self.plain if name not in class_names]
            if missing or unknown:
                raise ConfigurationError(
                    f"{_KEY} has no prompt for {missing} and prompts for {unknown}, which are no classes. The classes "
                    f'are {list(class_names)}. Set {_KEY} to one prompt for each, or to a text such as "a photo of a '
                    '{label}".'
                )
            return
        plain = [self.plain] if isinstance(self.plain, str) else self.plain
        if not class_names and any(_LABEL in text for text in plain):
            raise ConfigurationError(
                f'{_KEY}={self.plain!r} names the class, and the data have no labels. Set {_KEY} to e.g. "a photo".'
            )
        if len(class_names) > 1 and not all(_LABEL in text for text in plain):
            raise ConfigurationError(
                f"{_KEY}={self.plain!r} asks for the same of all {len(class_names)} classes, so that their labels "
                f"would be wrong. Put {{label}} in it, or set {_KEY} to {{class: prompt}}."
            )

    def of(self, class_name: str, seed: int) -> str:
        """The prompt of a sample.

        Args:
            class_name: Its class; "" for data without labels.
            seed: Its seed.
        """
        given = self.plain[class_name] if isinstance(self.plain, dict) else self.plain
        text = given if isinstance(given, str) else given[seed % len(given)]
        return text.replace(_LABEL, class_name).replace(_SEED, str(seed))
