"""The default generator: a small class-conditional diffusion model, fitted on the user's training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.conditions.strength import Strengths
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import weights
from lightning_diffaug.generators.codec import VaeCodec, check_codec, codec_hash
from lightning_diffaug.generators.controls import Controls
from lightning_diffaug.generators.denoisers import Architecture, check_denoiser, source_of_denoiser
from lightning_diffaug.generators.device import named_device, resolve_device
from lightning_diffaug.generators.diffusion_fit import check_fit, fit_to, given_fields
from lightning_diffaug.generators.execution import Execution
from lightning_diffaug.generators.field_codecs import Codecs
from lightning_diffaug.generators.fit import FIT_VERSION, Fitted, fit_denoiser
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.generators.given import Given, check_conditions, condition_settings, conditions_key
from lightning_diffaug.generators.learner_guidance import GuidanceSettings, LearnerGuidance
from lightning_diffaug.generators.loop import SAMPLER_VERSION
from lightning_diffaug.generators.protocol import Condition
from lightning_diffaug.generators.sampler import Sampler, check_extras, check_negative_label
from lightning_diffaug.generators.schedulers import check_scheduler
from lightning_diffaug.generators.sources import INVERTED, check_source
from lightning_diffaug.spec import SampleSpec

if TYPE_CHECKING:
    from lightning_diffaug.conditions.feedback import Feedback
    from lightning_diffaug.snapshot import Snapshot


class DiffusionGenerator:
    """Fits a denoiser to the snapshot and samples from it.

    All continuous fields of a sample (image, mask, depth, …) that are not conditions are denoised together, joined
    along their channels; so they must have the same height and width.

    Args:
        scheduler: Solver of the reverse process, one of `schedulers.SCHEDULERS`.
        num_inference_steps: As the next, see `Controls`.
        guidance_scale: Weight of classifier-free guidance; 1 is none.
        guidance_interval: Times between which guidance is applied.
        guidance_rescale: How far the contrast of guided predictions is drawn back.
        negative_label: Class index that guidance moves away from, in place of the null class; None: the null class. A
            condition may name one for each row (``negative_label``).
        strength: Below 1, real samples given as ``condition["start"]`` are noised this far and denoised again
            (SDEdit). A list of strengths, or a range ``{low:, high:}``: each row has its own (``strength``), which the
            planner draws.
        stop_at: Time at which the reverse process is stopped; above 0 samples stay noisy.
        eta: Noise in the steps of DDIM.
        threshold: Quantile of dynamic thresholding, or None.
        source: Where samples start. ``"noise"``; ``"image"``: real samples, noised to `strength`; ``"interpolate"``:
            between two real samples of a class, whose inverted noises are mixed; ``"edit"``: a real sample of another
            class, inverted as what it is and denoised as what is asked for, which keeps what the class does not
            name. ``"auto"``: ``"image"`` if strength is below 1 or `repaint` is set, else ``"noise"``. Real samples
            come with the condition (`protocol.START` and the keys beside it), from the planner.
        inversion_steps: Steps from a real sample to its noise (``"interpolate"`` and ``"edit"``).
        repaint: Share of the area of each real sample, in (0, 1), that is made anew: a random rectangle, which the
            planner chooses; the rest is kept exactly. None: all is made anew.
        resample: Rounds of each block of steps where a mask is kept.
        jump: Steps in such a block.
        feedback_scale: How strongly the learner guides, once it has said something (`follow`); see `GuidanceSettings`.
        feedback_criterion: What its guidance raises: ``"entropy"`` of its prediction or its ``"loss"``.
        codec: Folder of a diffusers `AutoencoderKL`, in whose latent space the denoiser is fitted and sampled; None:
            in the space of the data.
        codecs: Field name → `field_codecs.FieldCodec`, between what the data hold and what is denoised (or told, of a
            condition): a mask of class numbers as channels, a waveform as a spectrogram, a text as tokens.
        conditions: What samples are made after: name → kind. A field of the sample that is named here is not made but
            given, by a real training sample that the planner chooses, and is stored beside what was made of it.
            ``class``: the label; ``labels``: several, of values 0 and 1, (n, labels); ``vector``: numbers (n, d), such
            as an embedding; ``concat``: a tensor with as many axes as the sample, resized to it and joined to its
            channels (mask, depth); ``cross``: tokens (n, tokens, d) or a tensor (n, d, *size), by cross-attention. A
            condition made of a field is ``{of: <field>, how: low_resolution or edges, factor: 4}``. None: the class,
            where there are labels; {}: nothing.
        seed: Of the fit. The seeds of samples are given to `generate`.
        batch_size: Most samples denoised at a time.
        device: ``"auto"``, ``"cpu"``, ``"cuda:1"``, …; see `device.choose_device`.
        dtype: As the next two, see `Execution`.
        channels_last: Memory layout.
        compile: Whether the denoiser is compiled.
        fit: `FitSettings`, or its fields by name.

    Raises:
        ConfigurationError: A setting is unknown or out of its range.
    """

    def __init__(
        self,
        scheduler: str = "dpmsolver++",
        num_inference_steps: int = 10,
        guidance_scale: float = 1.0,
        guidance_interval: Sequence[float] = (0.0, 1.0),
        guidance_rescale: float = 0.0,
        negative_label: int | None = None,
        strength: float | Sequence[float] | Mapping[str, float] = 1.0,
        stop_at: float = 0.0,
        eta: float = 0.0,
        threshold: float | None = None,
        source: str = "auto",
        inversion_steps: int = 20,
        repaint: float | None = None,
        resample: int = 1,
        jump: int = 1,
        feedback_scale: float = 0.0,
        feedback_criterion: str = "entropy",
        codec: str | None = None,
        codecs: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Any] | None = None,
        seed: int = 0,
        batch_size: int = 128,
        device: str = "auto",
        dtype: str = "auto",
        channels_last: bool | str = "auto",
        compile: bool = False,
        fit: Mapping[str, Any] | FitSettings | None = None,
    ) -> None:
        self.fit_settings = FitSettings.of(fit)
        prediction_type = self.fit_settings.prediction_type
        check_scheduler(scheduler, prediction_type)
        self._strengths = Strengths.of(strength)
        self.controls = Controls(
            num_inference_steps, guidance_scale, guidance_interval, guidance_rescale, self._strengths.high, stop_at,
            eta, resample, jump,
        )  # fmt: skip
        lowest = replace(self.controls, strength=self._strengths.low)
        if batch_size < 1:
            raise ConfigurationError(
                f"batch_size={batch_size} is below 1: it is how many samples are denoised at a time. "
                "Set generator.batch_size to e.g. 128."
            )
        self.feedback = GuidanceSettings(feedback_scale, feedback_criterion)
        self.scheduler = scheduler
        self.negative_label = negative_label
        self.threshold = threshold
        self.repaint = repaint
        self.inversion_steps = inversion_steps
        self.codec = None if codec is None else str(codec)
        self._codecs = Codecs(codecs)
        self.seed = seed
        self.batch_size = batch_size
        self.device = device
        self.execution = Execution(dtype, channels_last, compile)
        self.trainer_devices: Sequence[int] = ()
        varied = lowest.strength < 1.0 or repaint is not None
        self._source_setting = source
        self.source = ("image" if varied else "noise") if source == "auto" else source
        check_source(self.source, scheduler, lowest, repaint, inversion_steps)
        self._condition_settings = condition_settings(conditions)
        self.conditions = None if conditions is None else {str(name): value for name, value in conditions.items()}
        check_conditions(self._condition_settings, self.source, negative_label)
        kinds = {name: setting.kind for name, setting in (self._condition_settings or {}).items()}
        check_denoiser(self.fit_settings.denoiser, self.fit_settings.denoiser_arguments(), kinds)
        check_extras(scheduler, prediction_type, self.controls, threshold, negative_label, codec is not None)
        if self.codec is not None:
            check_codec(self.codec)
        self._read: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self._sampler: Sampler | None = None
        self._channels: dict[str, int] = {}
        self._given = Given({})
        self._data_spec: SampleSpec | None = None
        self.network_passes = 0  # samples times passes, of all calls
        self.on_progress: Callable[[], None] | None = None
        self._said: Feedback | None = None
        self._guide: LearnerGuidance | None = None

    @property
    def sampler(self) -> Sampler:
        """What samples.

        Raises:
            GeneratorError: Nothing was loaded.
        """
        if self._sampler is None:
            if self._read is None:
                raise GeneratorError("the generator has no weights yet. Call fit(...) and load(folder) first.")
            self._sampler, self._read = self._built(*self._read), None
        return self._sampler

    @property
    def strength(self) -> float | list[float] | dict[str, float]:
        """How far real start samples are noised, 1 forgets them: a number, a list, or a range."""
        plain: float | list[float] | dict[str, float] = self._strengths.plain
        return plain

    @property
    def given(self) -> list[str]:
        """Fields of the sample that are conditions and that the planner gives."""
        return given_fields(self._condition_settings)

    @property
    def derived(self) -> dict[str, dict[str, Any]]:
        """Conditions that the planner makes of a field: name → ``of``, ``how``, ``factor``."""
        settings = self._condition_settings or {}
        return {name: setting.derivation() for name, setting in settings.items() if setting.of is not None}

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Says what would be wrong in the fit or in sampling before anything starts; nothing is built or remembered.

        Args:
            spec: The fields of a sample.
            class_names: Class names in order; () for data without labels.

        Raises:
            ConfigurationError: Samples, conditions and denoiser do not go together, or a class is none of the data's.
        """
        check_negative_label(self.negative_label, class_names)
        self.feedback.check(spec, self._condition_settings)
        self._codecs.check(spec, self.given, self.source, self.feedback.feedback_scale, self.repaint)
        check_fit(self._codecs.spec(spec), len(class_names), self.fit_settings, self._condition_settings, self.codec)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return {
            "conditions": self.conditions,
            "scheduler": self.scheduler,
            **self.controls.to_json(),
            "strength": self.strength,
            "negative_label": self.negative_label,
            "threshold": self.threshold,
            "source": self._source_setting,
            "inversion_steps": self.inversion_steps,
            "repaint": self.repaint,
            **vars(self.feedback),
            "codec": self.codec,
            "codecs": self._codecs.config(),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "device": self.device,
            **vars(self.execution),
            "fit": self.fit_settings.to_json(),
        }

    def fit_key(self) -> dict[str, Any]:
        """What the fitted weights depend on, besides the data."""
        return {
            "conditions": conditions_key(self._condition_settings),
            "denoiser": source_of_denoiser(self.fit_settings.denoiser),
            "fit_version": FIT_VERSION,
            "seed": self.seed,
            "codec": None if self.codec is None else codec_hash(Path(self.codec)),
            "fit": self.fit_settings.key(),
            **self._codecs.key(),
        }

    def sample_key(self) -> dict[str, Any]:
        """What a sample depends on, besides weights, condition and seed."""
        return {
            "scheduler": self.scheduler,
            **self.controls.key(self.source),
            "strength": self.strength,
            "negative_label": self.negative_label,
            "threshold": self.threshold,
            "source": self.source,
            "inversion_steps": self.inversion_steps if self.source in INVERTED else None,
            "repaint": self.repaint,
            "sampler_version": SAMPLER_VERSION,
            **self.feedback.key(),
            **self._codecs.key(),
            **self._network_key(),
            **self.execution.on(named_device(self.device, self.trainer_devices)).key(),
        }

    def _network_key(self) -> dict[str, Any]:
        """What turns the same weights into other samples: the codec's decoder, and code of the user's."""
        key: dict[str, Any] = {}
        if self.codec is not None:
            key["codec"] = codec_hash(Path(self.codec))
        name, source = source_of_denoiser(self.fit_settings.denoiser)
        return key if source is None else {**key, "denoiser": [name, source]}

    def fit(
        self,
        snapshot: Snapshot,
        folder: Path,
        progress: Callable[[int, int], None],
        checkpoint: Path | None = None,
    ) -> None:
        """Fits to the snapshot, and writes weights and `fit.json`; see `Fittable`.

        Raises:
            ConfigurationError: Samples, conditions and denoiser do not go together.
            GeneratorError: The fit diverged.
        """
        codec = None if self.codec is None else VaeCodec.load(Path(self.codec), self._device())
        fitted, description = fit_to(
            self._codecs.snapshot(snapshot), self.fit_settings, self._condition_settings, codec, self.seed,
            self._device(), progress, checkpoint, self._fit_denoiser, self.fit_key(),
        )  # fmt: skip
        if self._codecs:
            description["data"] = snapshot.spec.to_json()
        weights.save(
            folder,
            fitted.denoiser.state_dict(),
            description,
            {
                **self.fit_key(),
                "snapshot": snapshot.hash,
                "seconds": round(fitted.seconds, 3),
                "loss": sum(fitted.losses[-50:]) / len(fitted.losses[-50:]),
                "versions": {"torch": torch.__version__},
            },
        )

    def load(self, folder: Path) -> None:
        """Reads what `fit` wrote, verified by hash. The network is built for the first sample: not all runs make any.

        Raises:
            GeneratorError: The folder is incomplete, damaged, or was fitted for another prediction type.
        """
        state, description = weights.load(folder)
        if description["prediction_type"] != self.fit_settings.prediction_type:
            raise GeneratorError(
                f"{folder} was fitted with prediction_type={description['prediction_type']!r}, this "
                f"generator is set to {self.fit_settings.prediction_type!r}. Set "
                "generator.fit.prediction_type to the former, or fit anew."
            )
        latent = description.get("latent")
        if (latent is None) != (self.codec is None):
            raise GeneratorError(
                f"{folder} was fitted {'without' if latent is None else 'with'} a codec. Set generator.codec as it was."
            )
        self._device()  # one that is not there is said now
        self._channels, self._given = dict(description["channels"]), Given.from_json(description["given"])
        self._data_spec = SampleSpec.from_json(description["data"]) if "data" in description else None
        self._read, self._sampler = (state, description), None

    def _built(self, state: dict[str, Tensor], description: dict[str, Any]) -> Sampler:
        """The sampler of the weights that were read."""
        # Building the network draws initial weights, which are overwritten.
        with torch.random.fork_rng(devices=[]):
            architecture = Architecture.from_json(description["denoiser"])
            denoiser: Any = architecture.build()
        denoiser.load_state_dict(state)
        device, latent = self._device(), description.get("latent")
        shape, codec = architecture.shape, None
        if self.codec is not None and latent is not None:
            codec, shape = VaeCodec.load(Path(self.codec), device, latent["scale"]), tuple(latent["shape"])
        execution, denoiser = self.execution.on(device), denoiser.to(device).eval().requires_grad_(False)
        denoiser.register_forward_pre_hook(self._count)
        return Sampler(
            denoiser=execution.prepare(denoiser, self._alive),
            prediction_type=self.fit_settings.prediction_type,
            scheduler=self.scheduler,
            controls=self.controls,
            fields=self._channels,
            shape=shape,
            codec=codec,
            source=self.source,
            inversion_steps=self.inversion_steps,
            threshold=self.threshold,
            negative_label=self.negative_label,
            own_strengths=self._strengths.varies,
        )

    def ready(self) -> None:
        """Builds the network (and the codec), which else the first sample does."""
        _ = self.sampler

    @property
    def needs_learner(self) -> bool:
        """Whether samples are guided by the learner, whose weights have to be handed over for it."""
        return self.feedback.feedback_scale > 0

    def follow(self, feedback: Feedback | None) -> None:
        """Takes what the learner said: with a `feedback_scale` above 0 its weights guide the samples made from now on.

        Args:
            feedback: None, or one without weights: samples are not guided.
        """
        if feedback is not self._said:
            self._said, self._guide = feedback, None

    def _guidance(self) -> LearnerGuidance | None:
        if not self.feedback.feedback_scale or self._said is None or self._said.learner is None:
            return None
        if self._guide is None:
            learner: Any = self._said.learner()
            self._guide = LearnerGuidance(
                learner.to(self._device()), self.feedback, self.fit_settings.prediction_type, self._channels,
                self.sampler.codec,
            )  # fmt: skip
        return self._guide

    def generate(self, condition: Condition, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Samples one set of fields for each seed; see `Generator`.

        Args:
            condition: ``label``: int64 (n,) class indices, where the data have labels. Further `conditions` by name,
                (n, …) in the values of the training data, n texts of a text (else the ``prompt``); those made of a
                field in [-1, 1]. With a `source` other than noise: ``start``, real samples in [-1, 1], a tensor
                (n, *shape) or one for each field; beside it ``mask`` (what of it is kept), ``other`` and ``weight``
                (``"interpolate"``), ``start_label`` (``"edit"``), ``strength`` (each row's own, before the setting).
                ``negative_label``: what guidance moves away from. Other keys are ignored.
            seeds: n seeds.

        Returns:
            Field name → (n, *shape) float32 in [-1, 1] on the CPU.

        Raises:
            GeneratorError: Nothing was fitted or loaded, or the condition does not fit.
        """
        spec = self._data_spec
        told = self._given.told(condition if spec is None else self._codecs.condition(condition, spec, self.given))
        samples = self.sampler(told, seeds, self.batch_size, self._step_done, self._guidance())
        joint = torch.split(samples, list(self._channels.values()), dim=1)
        made = {name: part.contiguous() for name, part in zip(self._channels, joint, strict=True)}
        return made if spec is None else self._codecs.decode(made, spec)

    def _fit_denoiser(self, *arguments: Any) -> Fitted:
        return fit_denoiser(*arguments)

    def _count(self, _: Any, arguments: tuple[Any, ...]) -> None:
        self.network_passes += len(arguments[0])

    def _device(self) -> torch.device:
        return resolve_device(self.device, self.trainer_devices)

    def _alive(self) -> None:
        if self.on_progress is not None:
            self.on_progress()

    def _step_done(self, step: int, total: int, x: Tensor) -> None:
        if self.on_progress is not None and x.is_cuda:
            torch.cuda.synchronize(x.device)  # what was only queued so far is no progress
        self._alive()
