"""Models that gates are given: a module of the user's, or a local folder of transformers; never a download."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.nearest import compared_field
from lightning_diffaug.generators.device import resolve_device
from lightning_diffaug.generators.pipeline_load import quiet
from lightning_diffaug.generators.pipeline_model import identity
from lightning_diffaug.naming import build, name_of, source_digest
from lightning_diffaug.randomness import untouched_rng

BATCH = 64


class GivenModule:
    """A module or function of the user's, with its own weights and form of images, loaded at its first use.

    Args:
        model: Import path of a class, which is made with `args`; or of a function, which with `args` makes the module
            and without is asked itself. Or a mapping with ``_target_``, a function, or an object that `name_of` can
            name.
        args: Arguments, plain values.
        weights: A .safetensors file with its state dict; None: it brings its own.
        size: Height and width that images are resized to; None: as they are.
        mean: Of each channel, of images in [0, 1]; None: it takes images in [-1, 1]. Several means make so many
            channels of one.
        std: Of each channel.
        device: Device of torch, or ``"auto"``.
        key: The setting of the gate, for errors.

    Raises:
        ConfigurationError: `model` cannot be named, or a value makes no sense.
    """

    def __init__(
        self,
        model: Any,
        args: Mapping[str, Any] | None = None,
        weights: str | None = None,
        size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        device: str = "auto",
        key: str = "",
    ) -> None:
        self._key, self._device = key, device
        if args is not None and not isinstance(args, Mapping):
            raise ConfigurationError(f"{key}.args={args!r} is no mapping. Set {key}.args to {{name: value}}.")
        self.path, self.args = _named(model, args, key)
        self._weights = None if weights is None else str(weights)
        self._size = [size, size] if isinstance(size, int) else None if size is None else list(size)
        if self._weights is not None and Path(self._weights).suffix != ".safetensors":
            raise ConfigurationError(
                f"{key}.weights={weights} is no .safetensors file: other formats can run code when they are read. Save "
                f"the state dict by safetensors.torch.save_file, and set {key}.weights to that file."
            )
        if (mean is None) != (std is None) or len(mean or ()) != len(std or ()):
            raise ConfigurationError(
                f"{key}.mean={mean} and {key}.std={std} belong together, one number for each channel. Set both, or "
                "neither."
            )
        numbers = [*(mean or ()), *(std or ())]
        if not all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in numbers):
            raise ConfigurationError(f"{key}.mean={mean} and {key}.std={std} are no lists of numbers. Set both so.")
        if not all(isinstance(one, int) and one > 0 for one in self._size or ()):
            raise ConfigurationError(
                f"{key}.size={size!r} is no whole number of pixels above 0 (or height and width). Set {key}.size so."
            )
        self._mean = None if mean is None else torch.tensor(list(mean)).view(1, -1, 1, 1)
        self._std = None if std is None else torch.tensor(list(std)).view(1, -1, 1, 1)
        self._module: Callable[..., Any] | None = None
        self._on = torch.device("cpu")
        self.trainer_devices: tuple[int, ...] = ()

    @property
    def setting(self) -> dict[str, Any]:
        """What it was given as, plain values."""
        return {"model": self.path, "args": self.args}

    def model_key(self) -> dict[str, Any]:
        """Its code, and the hash of its weights' file."""
        file = self._file()
        weights = None if file is None else identity(str(file), None, f"{self._key}.weights")
        return {"source": source_digest(self._name()), "weights": weights}

    def check(self, shape: Sequence[int] | None = None) -> Tensor | None:
        """Makes a module as a trial, on the CPU and without its weights, and lets it go.

        Args:
            shape: Of one sample: a module is asked about a blank one; None: it is only made.

        Returns:
            What it says of the sample, (1, …); None where it was not asked. A function is never asked.

        Raises:
            ConfigurationError: It cannot be made or asked, or the file of its weights is not there.
        """
        self._file()
        if self.args is None and not inspect.isclass(found_at(self.path, f"{self._key}.model")):
            return None
        module = self._made()
        if shape is None or not isinstance(module, nn.Module):
            return None
        try:
            with untouched_rng(), torch.inference_mode():
                said = module.eval()(self._formed(torch.zeros(1, *shape)))
                return torch.as_tensor(said).clone()
        except Exception as error:
            raise ConfigurationError(
                f"{self._key}.model={self.path} cannot be asked about samples of shape {tuple(shape)} "
                f"({type(error).__name__}: {_first_line(error)}). Set {self._key}.model, args, size, mean and std to "
                "what fits them."
            ) from error

    def _file(self) -> Path | None:
        """The file of the weights, if there is one."""
        path = None if self._weights is None else Path(self._weights).expanduser().absolute()
        if path is not None and not path.is_file():
            raise ConfigurationError(
                f"{self._key}.weights={self._weights!r}: there is no file {path}, and gates download nothing. Set "
                f"{self._key}.weights to a .safetensors file with the state dict of {self.path}."
            )
        return path

    def _name(self) -> dict[str, Any]:
        """What `build` makes of it: the module, or the function itself."""
        found = found_at(self.path, f"{self._key}.model")
        if self.args is None and not inspect.isclass(found):
            return {"_target_": "hydra.utils.get_object", "path": self.path}
        return {"_target_": self.path, **(self.args or {})}

    def __call__(self, x: Tensor, *more: Sequence[Any]) -> Tensor:
        """What it says of images, float32 on the CPU; a batch at a time.

        Args:
            x: (n, C, H, W) in [-1, 1].
            *more: Further arguments, n entries each.
        """
        module = self._loaded()
        found = []
        with torch.inference_mode():
            for first in range(0, len(x), BATCH):
                rows = slice(first, first + BATCH)
                said = module(self._formed(x[rows]).to(self._on), *(values[rows] for values in more))
                found.append(torch.as_tensor(said).detach().cpu())
        return torch.cat(found).clone()

    def _formed(self, x: Tensor) -> Tensor:
        if self._size is not None:
            x = functional.interpolate(x, size=self._size, mode="bilinear", antialias=True, align_corners=False)
        return x if self._mean is None or self._std is None else ((x + 1.0) / 2.0 - self._mean) / self._std

    def _loaded(self) -> Callable[..., Any]:
        if self._module is None:
            module = self._made()
            if (file := self._file()) is not None:
                _read(module, file, self._key)
            if isinstance(module, nn.Module):
                self._on = resolve_device(self._device, self.trainer_devices)
                module = module.eval().requires_grad_(False).to(self._on)
            self._module = module
        return self._module

    def _made(self) -> Callable[..., Any]:
        name = self._name()
        try:
            with untouched_rng():
                module = build(name, f"{self._key}.model")
        except Exception as error:
            cause = error.__cause__ or error  # Hydra's text is about its own configuration
            raise ConfigurationError(
                f"{self._key}.model={self.path} cannot be made with the arguments {self.args or {}} "
                f"({type(cause).__name__}: {_first_line(cause)}). Correct {self._key}.args."
            ) from error
        if not callable(module):
            raise ConfigurationError(
                f"{self._key}.model={self.path} made a {type(module).__name__}, which is no module and no function. "
                f"Set {self._key}.model to the import path of one."
            )
        return module  # type: ignore[no-any-return]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def is_folder(model: Any) -> bool:
    """Whether a setting means a local folder, rather than an import path."""
    return isinstance(model, Path) or (isinstance(model, str) and (os.sep in model or Path(model).is_dir()))


def found_at(path: str, key: str) -> Any:
    """What an import path leads to.

    Raises:
        ConfigurationError: Nothing.
    """
    try:
        return get_object(path)
    except Exception as error:
        raise ConfigurationError(
            f"{key}={path!r} cannot be imported ({str(error).splitlines()[0]}). Set {key} to the import path of a "
            "class or function at the top level of a module on sys.path."
        ) from error


def _named(model: Any, args: Mapping[str, Any] | None, key: str) -> tuple[str, dict[str, Any] | None]:
    """Import path and arguments; None: it is asked itself."""
    if isinstance(model, str):
        return model, None if args is None else dict(args)
    try:
        named = name_of(model, f"{key}.model")
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{key}.model is a {type(model).__name__} that does not say what it is made of, so the refill process "
            f"cannot make it again. Set {key}.model to the import path of its class, {key}.args to the arguments, and "
            f"{key}.weights to a .safetensors file with its state dict."
        ) from error
    if args is not None:
        raise ConfigurationError(f"{key}.model has its arguments already: leave {key}.args out.")
    path = named.pop("_target_")
    return (str(named["path"]), None) if path == "hydra.utils.get_object" else (str(path), named)


def _read(module: Any, weights: Path, key: str) -> None:
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(weights))
    except Exception as error:
        raise ConfigurationError(
            f"{key}.weights={weights} cannot be read into {type(module).__name__} ({str(error).splitlines()[0]}). Set "
            f"{key}.weights to a .safetensors file with its state dict."
        ) from error


class LocalModel:
    """A model of transformers in a local folder and what prepares its input, loaded at first use; safetensors only.

    Args:
        folder: As `save_pretrained` writes it, with the processor.
        device: Device of torch, or ``"auto"``.
        key: The setting that it came from, for errors.
        processor: Name of the class of transformers that prepares its input.
    """

    def __init__(self, folder: str, device: str, key: str, processor: str = "AutoProcessor") -> None:
        self.folder, self._device, self._key, self._processor = folder, device, key, processor
        self._parts: tuple[Any, Any] | None = None
        self.on = torch.device("cpu")
        self.trainer_devices: tuple[int, ...] = ()

    @property
    def setting(self) -> dict[str, Any]:
        """What it was given as, plain values."""
        return {"model": self.folder, "args": None}

    def model_key(self) -> Any:
        """Hash of its files."""
        return identity(self.path(), None, self._key)

    def check(self, shape: Sequence[int] | None = None) -> Tensor | None:
        """Checks that the folder is there; the model is not loaded and not asked.

        Raises:
            ConfigurationError: It is not.
        """
        self.path()
        return None

    def pixels(self, x: Tensor) -> Iterator[Tensor]:
        """Images (n, C, H, W) in [-1, 1] as the model takes them, on its device, a batch at a time."""
        processor = self()[1]
        for part in torch.split(x, BATCH):
            yield processor(images=_pictures(part), return_tensors="pt")["pixel_values"].to(self.on)

    def path(self) -> str:
        """The folder.

        Raises:
            ConfigurationError: It is not there.
        """
        path = Path(self.folder).expanduser().absolute()
        if not path.is_dir():
            raise ConfigurationError(
                f"{self._key}={self.folder!r}: there is no folder {path}, and gates download nothing. Set {self._key} "
                "to a local folder as save_pretrained writes it (config, processor and .safetensors files), or to the "
                "import path of a module of your own."
            )
        return str(path)

    def __call__(self) -> tuple[Any, Any]:
        """Model, in eval mode on its device, and processor.

        Raises:
            ConfigurationError: They cannot be loaded.
        """
        if self._parts is None:
            import transformers

            path = self.path()
            local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            try:
                with quiet():
                    model = transformers.AutoModel.from_pretrained(path, use_safetensors=True, **local)
                    processor = getattr(transformers, self._processor).from_pretrained(path, **local)
            except Exception as error:
                raise ConfigurationError(
                    f"{self._key}={self.folder!r} cannot be loaded: {str(error).splitlines()[0]} It has to be a "
                    "folder as save_pretrained writes it, with .safetensors files and the processor, and without "
                    f"code of its own. Set {self._key} to one."
                ) from error
            self.on = resolve_device(self._device, self.trainer_devices)
            self._parts = model.eval().requires_grad_(False).to(self.on), processor
        return self._parts


def _pictures(x: Tensor) -> list[Any]:
    """Images (n, C, H, W) in [-1, 1], of one or three channels, as uint8 arrays (H, W, 3)."""
    levels = ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return list(levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy())


def image_of(samples: Mapping[str, Tensor], field: str | None, key: str) -> Tensor:
    """The images among samples.

    Raises:
        ConfigurationError: There are none of one or three channels.
    """
    name = compared_field(samples, field)
    found = samples.get(name)
    if found is None or found.ndim != 4 or found.shape[1] not in (1, 3):
        shape = None if found is None else tuple(found.shape[1:])
        raise ConfigurationError(
            f"{key} looks at images of one or three channels, and the field {name!r} has the shape {shape}. Set "
            f"{key}.field to an image, or {key}=false."
        )
    return found
