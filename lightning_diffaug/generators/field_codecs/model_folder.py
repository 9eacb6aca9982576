"""A local folder with a model that a codec reads: that it is there, and that it stays as it was named."""

from __future__ import annotations

from pathlib import Path

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.codec import codec_hash

KEY = "generator.codecs.<field>"


class ModelFolder:
    """A folder with ``config.json`` and safetensors, as ``save_pretrained`` writes it.

    Args:
        folder: Where it is.
        setting: Argument of the codec that names it.
        use: What is done with the model, for errors: "encode texts with".
        remedy: What else to set, for errors.
        digest: Hash that its files had when they were named; None: as found.

    Raises:
        ConfigurationError: There is no such folder.
    """

    def __init__(self, folder: str, setting: str, use: str, remedy: str, digest: str | None) -> None:
        self.path = Path(folder).expanduser()
        self._setting, self._digest = setting, digest
        if not (self.path / "config.json").is_file() or not any(self.path.glob("*.safetensors")):
            raise ConfigurationError(
                f"{setting}={folder!r} is no folder with config.json and safetensors, so there is nothing to {use}. "
                f"Set {KEY}.{setting} to {remedy}"
            )

    @property
    def digest(self) -> str:
        """Hash of its files.

        Raises:
            ConfigurationError: They are others than those that were named.
        """
        found = codec_hash(self.path)
        if self._digest not in (None, found):
            raise ConfigurationError(
                f"{self.path} was changed since it was named, so samples would be others. Start the run again, or set "
                f"{KEY}.{self._setting} to a folder that stays as it is."
            )
        return found
