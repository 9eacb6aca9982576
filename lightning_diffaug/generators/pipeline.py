"""Ready-made pipelines of `diffusers` as generators: Stable Diffusion, SDXL, SD3, FLUX, DiT, Stable Audio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.conditions.captions import Texts
from lightning_diffaug.conditions.planner import take
from lightning_diffaug.conditions.strength import Strengths
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import pipeline_model as models
from lightning_diffaug.generators import pipeline_parts as parts
from lightning_diffaug.generators.device import named_device, resolve_device
from lightning_diffaug.generators.pipeline_call import called_strength
from lightning_diffaug.generators.pipeline_load import beating, load_pipeline
from lightning_diffaug.generators.pipeline_prompts import class_prompts
from lightning_diffaug.generators.pipeline_run import PIPELINE_VERSION, PipelineRun
from lightning_diffaug.generators.pipeline_settings import (
    ADDED_FILES,
    FROM_REAL,
    NOISED,
    additions,
    check_settings,
    pixels,
)
from lightning_diffaug.generators.protocol import Condition
from lightning_diffaug.generators.remote_prompts import Prompts
from lightning_diffaug.generators.rows import batches, in_order, strengths

if TYPE_CHECKING:
    from lightning_diffaug.spec import FieldSpec, SampleSpec

_NOT_OF_A_SAMPLE = ("download", "device", "batch_size", "vae_slicing")


class PipelineGenerator:
    """Samples of a pipeline of diffusers, from a local folder or the hub's cache.

    A prompt follows from a sample's class, or is given as ``condition["prompt"]``. Pictures are cropped and scaled to
    the data's own. A sample that the pipeline's safety checker objects to is NaN, and counted as ``safety``.
    Weights are read from safetensors only, and no code that comes with a model is run.

    Args:
        model: Local folder in diffusers' form, or hub id.
        revision: Branch, tag or commit of a hub id. Only a commit names the same weights for ever.
        variant: Of the weights' files, such as ``"fp16"``.
        download: Fetch a hub id that is not in the hub's cache; by default nothing is downloaded.
        task: One of `pipeline_settings.TASKS`. Image-to-image, inpainting and controlnet start from real samples.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``; ``"auto"`` is bfloat16 on a GPU and float32 on a CPU.
        device: ``"auto"``, ``"cpu"``, ``"cuda:1"``, …; see `device.choose_device`.
        scheduler: One of `schedulers.SCHEDULERS`; None: the model's own.
        num_inference_steps: Steps of a whole reverse process.
        guidance_scale: Weight of classifier-free guidance; up to 1 is none. Distilled models take it as they were
            trained (turbo models: 0).
        strength: How far real samples are noised (image-to-image, inpainting), in (0, 1]. A list of strengths, or a
            range ``{low:, high:}``: each sample has its own, which the planner draws.
        repaint: Share of each real sample's area that inpainting makes anew, in (0, 1); the rest is kept exactly.
        prompts: A text with ``{label}``, or class name → text; a list of texts in place of one: by the seed.
        names: Class name → the words for it in a prompt. Class-conditional: → the model's class, number or name.
        captions: File with the prompts of each class in place of `prompts`; see `captions.read_captions`.
        negative_prompt: What guidance moves away from.
        adapters: LoRA adapters: paths or hub ids, or mappings of `pipeline_settings.Addition` (needs peft).
        embeddings: Textual-inversion embeddings, in the same form.
        controlnet: Folder or hub id of a ControlNet.
        control: What it follows of a real sample: ``"edges"``, or ``"image"`` as it is. A condition may give it
            (``"control"``).
        control_scale: How strongly it acts.
        safety_checker: Use the pipeline's own, where it has one.
        vae_slicing: Decode one sample at a time, which saves memory.
        size: Of the pipeline's own pictures: pixels, or [height, width]; None: the model's.
        sample_rate: Samples a second of the data (audio).
        extra: Further arguments of the pipeline's call.
        batch_size: Most samples in a call.

    Raises:
        ConfigurationError: A setting is out of its range, or does not go with another.
    """

    def __init__(
        self,
        model: str | None = None,
        revision: str = "main",
        variant: str | None = None,
        download: bool = False,
        task: str = "text-to-image",
        dtype: str = "auto",
        device: str = "auto",
        scheduler: str | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 5.0,
        strength: float | Sequence[float] | Mapping[str, float] = 1.0,
        repaint: float = 0.5,
        prompts: Texts | Mapping[str, Texts] = "a photo of a {label}",
        names: Mapping[str, Any] | None = None,
        captions: str | None = None,
        negative_prompt: str = "",
        adapters: Sequence[Any] | None = None,
        embeddings: Sequence[Any] | None = None,
        controlnet: str | None = None,
        control: str = "edges",
        control_scale: float = 1.0,
        safety_checker: bool = True,
        vae_slicing: bool = False,
        size: int | Sequence[int] | None = None,
        sample_rate: int | None = None,
        extra: Mapping[str, Any] | None = None,
        batch_size: int = 16,
    ) -> None:
        self._settings: dict[str, Any] = {
            "model": model if model is None else str(models.local(str(model)) or model),
            "revision": revision,
            "variant": variant,
            "download": download,
            "task": task,
            "dtype": dtype,
            "device": device,
            "scheduler": scheduler,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "strength": Strengths.of(strength).plain,
            "repaint": repaint,
            "prompts": Prompts(prompts).plain,
            "names": {str(name): word for name, word in (names or {}).items()},
            "captions": captions if captions is None else str(Path(captions).expanduser().absolute()),
            "negative_prompt": negative_prompt,
            "adapters": [vars(one) for one in additions(adapters, "generator.adapters")],
            "embeddings": [vars(one) for one in additions(embeddings, "generator.embeddings")],
            "controlnet": controlnet,
            "control": control,
            "control_scale": control_scale,
            "safety_checker": safety_checker,
            "vae_slicing": vae_slicing,
            "size": size if size is None or isinstance(size, int) else list(size),
            "sample_rate": sample_rate,
            "extra": dict(extra or {}),
            "batch_size": batch_size,
        }
        check_settings(self._settings)
        pixels(size)
        self._run: PipelineRun | None = None
        self._field: FieldSpec | None = None
        self._class_names: tuple[str, ...] = ()
        self._prompts = Prompts(prompts)
        self.on_progress: Callable[[], None] = lambda: None
        self.objected: Tensor | None = None
        self.trainer_devices: Sequence[int] = ()

    @property
    def source(self) -> str:
        """Where samples start: ``"image"`` is a real one, which the planner gives."""
        return "image" if self._settings["task"] in FROM_REAL else "noise"

    @property
    def repaint(self) -> float | None:
        """Share of a real sample's area that is made anew; None where that is not the task."""
        return float(self._settings["repaint"]) if self._settings["task"] == "inpainting" else None

    @property
    def strength(self) -> float | list[float] | dict[str, float]:
        """How far real samples are noised: a number, a list, or a range."""
        plain: float | list[float] | dict[str, float] = self._settings["strength"]
        return plain

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return dict(self._settings)

    def sample_key(self) -> dict[str, Any]:
        """What a sample depends on, besides class names, condition and seed.

        Raises:
            ConfigurationError: A local model is not there.
        """
        given = self._settings
        key = {name: value for name, value in given.items() if name not in _NOT_OF_A_SAMPLE}
        key |= {"model": self._identity(), "revision": None, "pipeline_version": PIPELINE_VERSION}
        key["dtype"] = self._dtype_on(named_device(given["device"], self.trainer_devices))
        if given["controlnet"] is not None:
            key["controlnet"] = models.identity(given["controlnet"], None, "generator.controlnet")
        if given["captions"] is not None:
            key["captions"] = models.identity(given["captions"], None, "generator.captions")
        for kind in ADDED_FILES:
            of = f"generator.{kind}"
            key[kind] = [{**one, "model": models.identity(one["model"], one["revision"], of)} for one in given[kind]]
        return key

    def _base_key(self) -> dict[str, Any]:
        """For a subclass that fits: what its fit depends on, of these settings."""
        names = ("variant", "prompts", "names", "size")
        captions = self._settings["captions"]
        key = {name: self._settings[name] for name in names} | {"model": self._identity()}
        return key | {"captions": None if captions is None else models.identity(captions, None, "generator.captions")}

    def _identity(self) -> dict[str, str | None]:
        self._check_model()
        return models.identity(self._settings["model"], self._settings["revision"], "generator.model")

    def _check_model(self) -> None:
        given = self._settings
        if not models.may_fetch(given["model"], given["download"]):
            models.check_present(given["model"], given["revision"], variant=given["variant"])

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Learns what the samples are; the model is looked for, and loaded later.

        Args:
            spec: The fields of a sample; one of them is an image, or for audio a sound.
            class_names: Class names in order; () for data without labels.

        Raises:
            ConfigurationError: The model is not there, or the settings do not suit the data.
        """
        given, audio = self._settings, self._settings["task"] == "audio"
        self._check_model()
        parts.check_added(given)
        fields = spec.continuous
        shape = fields[0].shape if fields else ()
        fits = len(shape) in (1, 2) if audio else len(shape) == 3 and shape[0] in (1, 3, 4)
        if len(fields) != 1 or not fits:
            shapes = {field.name: field.shape for field in fields}
            wanted = "sound (T,) or (C, T)" if audio else "image (C, H, W) of 1, 3 or 4 channels"
            raise ConfigurationError(
                f"task={given['task']!r} makes one {wanted}, and the data have {shapes}. Set "
                "data.fields to it (and data.fill for the others), or generator to one that is made for such data."
            )
        if given["task"] == "class-conditional":
            if not class_names:
                raise ConfigurationError(
                    "task=class-conditional asks for classes, and the data have no labels. Set generator.task."
                )
        else:
            self._prompts = class_prompts(class_names, given["prompts"], self._words(class_names), given["captions"])
        self._field, self._class_names, self._run = fields[0], tuple(class_names), None

    def _words(self, class_names: Sequence[str]) -> Mapping[str, Any]:
        """Class name → the words for it; a subclass that learns words has its own."""
        del class_names
        return dict(self._settings["names"])

    def generate(self, condition: Condition, seeds: Sequence[int]) -> Tensor:
        """Makes one sample for each seed; see `Generator`.

        Args:
            condition: ``label``: int64 (n,) class indices, where the data have labels; ``prompt``: n texts, which go
                before it; ``negative_prompt``: n texts, each before the setting where it is not ""; ``start``,
                ``mask``, ``control``: real samples, what of them is kept, what a ControlNet follows; ``strength``: each
                sample's own, before the setting.
            seeds: n seeds.

        Returns:
            float32 (n, *shape) in [-1, 1]; NaN where the safety checker objects.

        Raises:
            GeneratorError: `bind` was not called, or the condition does not fit.
            ConfigurationError: The model cannot be loaded.
        """
        run, given, n = self._ready(), self._settings, len(seeds)
        setting, own = Strengths.of(given["strength"]), None
        if given["task"] in NOISED:
            own = strengths(condition, n, setting.varies)
        each = [setting.high] * n if own is None else [called_strength(s, given["num_inference_steps"]) for s in own]
        together = list(batches(each, given["batch_size"]))
        made: list[tuple[Tensor, Tensor]] = []
        for rows in together:
            self.on_progress()
            made.append(run(take(condition, rows), [seeds[row] for row in rows], each[rows[0]]))
        self.objected = in_order([objected for _, objected in made], together)
        return in_order([samples for samples, _ in made], together)

    def _ready(self) -> PipelineRun:
        """The pipeline on its device, loaded at the first call."""
        if self._field is None:
            raise GeneratorError("the generator does not know the data yet. Call bind(spec, class_names) first.")
        if self._run is None:
            with beating(lambda: self.on_progress()):
                pipe = self._pipeline()
            self._run = PipelineRun(
                pipe, self._settings, self._field, self._class_names, self._prompts, lambda: self.on_progress()
            )
        return self._run

    def _pipeline(self) -> Any:
        given, device = self._settings, self._device()
        pipe, download = self._loaded(self._dtype()), given["download"]
        if given["scheduler"] is not None:
            parts.set_scheduler(pipe, given["scheduler"])
        adapters = additions(given["adapters"], "generator.adapters")
        embeddings = additions(given["embeddings"], "generator.embeddings")
        parts.add_weights(pipe, adapters, embeddings, download)
        self._prepare(pipe)
        pipe = parts.for_task(pipe, given["task"], given["controlnet"], self._dtype(), download)
        pipe.set_progress_bar_config(disable=True)
        if given["vae_slicing"] and getattr(pipe, "vae", None) is not None:
            pipe.vae.enable_slicing()
        return pipe.to(device)

    def _loaded(self, dtype: torch.dtype) -> Any:
        """The model as it is, on the CPU."""
        given = self._settings
        return load_pipeline(
            given["model"], given["revision"], given["variant"], dtype, given["download"],
            given["safety_checker"],
        )  # fmt: skip

    def _device(self) -> torch.device:
        return resolve_device(self._settings["device"], self.trainer_devices)

    def _prepare(self, pipe: Any) -> None:
        """For a subclass that adds what it learned."""

    def _dtype(self) -> torch.dtype:
        dtype = getattr(torch, self._dtype_on(self._device()))
        assert isinstance(dtype, torch.dtype)
        return dtype

    def _dtype_on(self, device: torch.device) -> str:
        """The number type of the weights, and what ``"auto"`` means on a device."""
        name = str(self._settings["dtype"])
        if name == "auto":
            name = "bfloat16" if device.type == "cuda" else "float32"
        return name
