"""Images of a server that speaks ``/v1/images/generations`` (vLLM-Omni, SGLang, LocalAI, OpenAI, …)."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from lightning_diffaug.conditions.captions import NEGATIVE_PROMPT, PROMPT, Texts
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.protocol import LABEL, Condition
from lightning_diffaug.generators.remote_http import Endpoint, Exchange
from lightning_diffaug.generators.remote_image import MODES, Picture, decode
from lightning_diffaug.generators.remote_pass import Breaker, Limits, Pass
from lightning_diffaug.generators.remote_prompts import Prompts
from lightning_diffaug.generators.remote_settings import PATIENCE, check_settings

if TYPE_CHECKING:
    from lightning_diffaug.spec import SampleSpec

log = logging.getLogger(__name__)

REMOTE_VERSION = 1
"""Part of the pool's name; raised with any change of how a reply becomes a sample."""

Asked: TypeAlias = tuple[str, int, str]
"""Prompt, seed and negative prompt."""

_REMEMBERED = 100_000
_KEPT_BYTES = 1 << 28
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RemoteGenerator:
    """Asks a server for images, one request a sample, many at once, each with its seed.

    A prompt follows from a sample's class, or is given as ``condition["prompt"]``. A sample that the server refuses
    for its content, that fails on every try, or that is identical to one of another seed is returned as NaN, which
    the gates reject. A server that fails altogether raises; what it had sent before is kept for the next try.

    No proxy is used. Samples can be repeated as far as the server honours the seed.

    Args:
        url: The server's base, such as ``http://127.0.0.1:8000/v1``.
        model: Its model; None where it has one only.
        size: Size of its pictures, such as ``"512x512"``; None: its default. They are cropped and scaled to the data's.
        prompts: A text with ``{label}``, or class name → text; a list of texts in place of one: by the seed.
        extra: Further fields of a request, such as ``{"num_inference_steps": 4, "negative_prompt": "blurry"}``.
        seed_field: Name of the field with the seed; None: it is not sent.
        seed_bits: Seeds are below 2 to this; many servers take no more than 31 bits.
        response_format: Sent as such; None: the field is left out (models that always reply with base64).
        api_key_env: Name of the environment variable with the API key; None: no key is sent. The key itself is
            written nowhere.
        concurrency: Requests under way at once.
        timeout: Seconds for a request, to its last byte.
        retries: How often a request that failed is made again.
        backoff: Seconds before the first retry; doubled at each further one, and jittered.
        max_backoff: Longest pause in seconds, and the bound of a ``Retry-After``.
        breaker_failures: Failures in a row after which the server is left alone (and the slot fails).
        breaker_cooldown: Seconds for which it is; then one request probes it. Doubled each time that fails.
        hang_timeout: ``refill.hang_timeout``: a pass that gets no usable reply for eight tenths of it fails by itself,
            with its cause, before the process would be taken for hung.
        max_reply_bytes: Largest reply.
        max_pixels: Largest picture.

    Raises:
        ConfigurationError: A setting is out of its range.
    """

    def __init__(
        self,
        url: str | None = None,
        model: str | None = None,
        size: str | None = None,
        prompts: Texts | Mapping[str, Texts] = "a photo of a {label}",
        extra: Mapping[str, Any] | None = None,
        seed_field: str | None = "seed",
        seed_bits: int = 31,
        response_format: str | None = "b64_json",
        api_key_env: str | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 4,
        backoff: float = 0.5,
        max_backoff: float = 30.0,
        breaker_failures: int = 10,
        breaker_cooldown: float = 15.0,
        hang_timeout: float = 120.0,
        max_reply_bytes: int = 1 << 25,
        max_pixels: int = 1 << 22,
    ) -> None:
        self.url = url
        self.model = model
        self.size = size
        self.prompts = Prompts(prompts)
        self.extra = dict(extra or {})
        self.seed_field = seed_field
        self.seed_bits = seed_bits
        self.response_format = response_format
        self.api_key_env = api_key_env
        self.concurrency = concurrency
        self.timeout = timeout
        self.retries = retries
        self.backoff = backoff
        self.max_backoff = max_backoff
        self.breaker_failures = breaker_failures
        self.breaker_cooldown = breaker_cooldown
        self.hang_timeout = hang_timeout
        self.max_reply_bytes = max_reply_bytes
        self.max_pixels = max_pixels
        check_settings(self.config())
        self._endpoint = None if url is None else Endpoint.parse(url)
        patience = PATIENCE * hang_timeout
        self._limits = Limits(concurrency, timeout, retries, backoff, max_backoff, patience)
        self._breaker = Breaker(breaker_failures, breaker_cooldown, patience / 2)
        self._shape: tuple[int, ...] = ()
        self._class_names: tuple[str, ...] = ()
        self._kept: dict[Asked, Picture] = {}
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self._said: set[str] = set()
        self.on_progress: Callable[[], None] = lambda: None
        self.objected: Tensor | None = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values; no secret is among them."""
        return {
            "url": self.url,
            "api_key_env": self.api_key_env,
            "response_format": self.response_format,
            "concurrency": self.concurrency,
            "timeout": self.timeout,
            "retries": self.retries,
            "backoff": self.backoff,
            "max_backoff": self.max_backoff,
            "breaker_failures": self.breaker_failures,
            "breaker_cooldown": self.breaker_cooldown,
            "hang_timeout": self.hang_timeout,
            "max_reply_bytes": self.max_reply_bytes,
            "max_pixels": self.max_pixels,
            **{key: value for key, value in self.sample_key().items() if key != "remote_version"},
        }

    def sample_key(self) -> dict[str, Any]:
        """What a sample depends on, besides class names, condition and seed: not where the server is."""
        return {
            "model": self.model,
            "size": self.size,
            "prompts": self.prompts.plain,
            "extra": self.extra,
            "seed_field": self.seed_field,
            "seed_bits": self.seed_bits,
            "remote_version": REMOTE_VERSION,
        }

    def bind(self, spec: SampleSpec, class_names: Sequence[str]) -> None:
        """Learns what the samples are.

        Args:
            spec: The fields of a sample; one of them is an image.
            class_names: Class names in order; () for data without labels.

        Raises:
            ConfigurationError: Settings are missing, or do not suit the data.
        """
        if self._endpoint is None:
            raise ConfigurationError(
                "generator.url is not set: it is the base of the server that makes the images. Start one and set "
                "generator.url, e.g. to http://127.0.0.1:8000/v1."
            )
        shapes = {field.name: field.shape for field in spec.continuous}
        shape = next(iter(shapes.values()), ())
        if len(shapes) != 1 or len(shape) != 3 or shape[0] not in MODES:
            raise ConfigurationError(
                f"an images server cannot make {shapes}: needed is one image (C, H, W) of 1, 3 or 4 channels. Set "
                "data.fields to it (and data.fill for the others), or generator to one that is made for such data."
            )
        self.prompts.check(class_names)
        if self._key() and self._endpoint.scheme == "http" and self._endpoint.host not in _LOOPBACK:
            self._say("plain", "generator.url is http, so the API key goes over the network as it is. Use https there.")
        self._shape, self._class_names = shape, tuple(class_names)

    def generate(self, condition: Condition, seeds: Sequence[int]) -> Tensor:
        """Asks for one image for each seed; see `Generator`.

        Args:
            condition: ``label``: int64 (n,) class indices, where the data have labels; ``prompt``: n texts, which go
                before it; ``negative_prompt``: n texts, sent as that field where they are not "".
            seeds: n seeds.

        Returns:
            float32 (n, C, H, W) in [-1, 1]; NaN where there is no image to be used.

        Raises:
            GeneratorError: The server does not answer, or not usably; or `bind` was not called.
            ConfigurationError: The API key's environment variable is not set.
        """
        if self._endpoint is None or not self._shape:
            raise GeneratorError("the generator does not know the data yet. Call bind(spec, class_names) first.")
        wanted = [self._request(condition, i, int(seed)) for i, seed in enumerate(seeds)]
        came = {i: self._kept[asked] for i, asked in enumerate(wanted) if asked in self._kept}
        key, endpoint = self._key(), self._endpoint

        def send(row: int, done: Callable[[Exchange], None]) -> Exchange:
            body = json.dumps(self._body(*wanted[row])).encode()
            return Exchange(endpoint, body, key, self.timeout, self.max_reply_bytes, done)

        def accept(row: int, body: bytes) -> None:
            came[row] = decode(body, self._shape, self.max_pixels)

        hide = partial(_without, key)
        requests = Pass(send, accept, self._limits, self._breaker, self.on_progress, str(endpoint), hide)
        try:
            requests.run([i for i in range(len(wanted)) if i not in came])
        except BaseException:
            self._keep({wanted[i]: picture for i, picture in came.items()})
            raise
        for asked in wanted:
            self._kept.pop(asked, None)
        for what, missing in (("refused for their content", requests.refused), ("given up", requests.given_up)):
            if missing:
                self._say(what, f"{len(missing)} of {len(seeds)} images were {what}: {next(iter(missing.values()))}")
        self.objected = torch.tensor([i in requests.refused for i in range(len(wanted))], dtype=torch.bool)
        images = torch.full((len(wanted), *self._shape), float("nan"))
        for i in self._unlike(wanted, came):
            images[i] = came[i].values
        return images

    def _request(self, condition: Condition, row: int, seed: int) -> Asked:
        """Prompt, seed and negative prompt of a row."""
        seed %= 1 << self.seed_bits
        against = str(condition[NEGATIVE_PROMPT][row]) if NEGATIVE_PROMPT in condition else ""
        if PROMPT in condition:
            return str(condition[PROMPT][row]), seed, against
        name = self._class_names[int(condition[LABEL][row])] if LABEL in condition and self._class_names else ""
        return self.prompts.of(name, seed), seed, against

    def _body(self, prompt: str, seed: int, against: str) -> dict[str, Any]:
        fields = {
            "model": self.model,
            "prompt": prompt,
            "n": 1,
            "size": self.size,
            "response_format": self.response_format,
        }
        if self.seed_field is not None:
            fields[self.seed_field] = seed
        told = {NEGATIVE_PROMPT: against} if against else {}
        return {name: value for name, value in fields.items() if value is not None} | self.extra | told

    def _keep(self, pictures: Mapping[Asked, Picture]) -> None:
        """Keeps what came before a failure, and may have been paid for; the next try takes it."""
        self._kept.update(pictures)
        room = _KEPT_BYTES // (4 * math.prod(self._shape))
        while len(self._kept) > room:
            del self._kept[next(iter(self._kept))]

    def _unlike(self, wanted: Sequence[Asked], came: Mapping[int, Picture]) -> list[int]:
        """The rows whose picture no other prompt and seed had, in this pass or before."""
        new = []
        for row in sorted(came):
            digest, asked = came[row].digest, hash(wanted[row])
            if self._seen.setdefault(digest, asked) == asked:
                new.append(row)
            self._seen.move_to_end(digest)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        if len(new) < len(came):
            self._say(
                "same",
                f"{len(came) - len(new)} of {len(came)} images are identical to ones of other seeds, so they are "
                f"rejected: the server seems to ignore the field {self.seed_field!r}. Set generator.seed_field to the "
                "name that it knows (or put {seed} in generator.prompts), and look whether generator.extra fixes it.",
            )
        return new

    def _key(self) -> str | None:
        """The API key: read when it is needed, kept nowhere."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise ConfigurationError(
                f"the environment variable {self.api_key_env}, which generator.api_key_env names, "
                f"{'holds what is no key' if key else 'is not set'}. Set it to the key, or generator.api_key_env=null "
                "for a server that wants none."
            )
        return key

    def _say(self, kind: str, text: str) -> None:
        """Warns of each kind once."""
        if kind not in self._said:
            self._said.add(kind)
            log.warning(text)


def _without(key: str | None, text: str) -> str:
    return re.sub(re.escape(key), "***", text, flags=re.IGNORECASE) if key else text
