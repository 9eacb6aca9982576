"""What is asked of an images server, what becomes of its replies, and what is kept to ourselves."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import images_server
import numpy as np
import pytest
import torch
from images_server import Server, picture, pixels, serving
from PIL import Image
from refill_toys import job_for

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.remote import RemoteGenerator
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.refill.job import Job
from lightning_diffaug.spec import FieldSpec, SampleSpec

CLASSES = ("cat", "dog", "owl")
KEY = "sk-Very/Secret+0123"

Make = Callable[..., RemoteGenerator]


def spec(*shape: int) -> SampleSpec:
    image = FieldSpec("image", "0", "tensor", "uint8", shape, 0.0, 255.0, "chw")
    return SampleSpec((image, FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0)))


def labels(*values: int) -> dict[str, Any]:
    return {"label": torch.tensor(values)}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


@pytest.fixture
def make(server: Server) -> Make:
    """A generator of the server's pictures, bound to data of their size."""

    def made(shape: tuple[int, ...] = (3, 32, 32), classes: tuple[str, ...] = CLASSES, **settings: Any) -> Any:
        generator = RemoteGenerator(**{"url": server.url, "backoff": 0.01, **settings})
        generator.bind(spec(*shape), classes)
        return generator

    return made


# Requests -----------------------------------------------------------------------------------------------


def test_each_sample_is_asked_for_by_its_class_and_its_own_seed(server: Server, make: Make) -> None:
    samples = make().generate(labels(2, 0, 2), [7, 8, 2**31 + 9])
    for i, (name, seed) in enumerate([("owl", 7), ("cat", 8), ("owl", 9)]):
        wanted = torch.from_numpy(pixels(f"a photo of a {name}", seed)).permute(2, 0, 1) / 127.5 - 1
        assert torch.equal(samples[i], wanted)
    assert samples.dtype == torch.float32
    assert samples.min() >= -1
    assert samples.max() <= 1
    assert all(asked.path == "/v1/images/generations" and asked.body["n"] == 1 for asked in server.asked)


def test_settings_reach_the_server_in_its_own_fields(server: Server, make: Make) -> None:
    make(model="m", size="64x64", extra={"num_inference_steps": 4}).generate(labels(0), [5])
    make(seed_field="rng", response_format=None, seed_bits=3).generate(labels(0), [13])
    make(seed_field=None).generate(labels(0), [5])
    plain = {"prompt": "a photo of a cat", "n": 1}
    assert [asked.body for asked in server.asked] == [
        plain | {"model": "m", "size": "64x64", "num_inference_steps": 4, "seed": 5, "response_format": "b64_json"},
        plain | {"rng": 5},
        plain | {"response_format": "b64_json"},
    ]


def test_a_rows_negative_prompt_is_sent_with_it(server: Server, make: Make) -> None:
    told = labels(0, 0) | {"negative_prompt": ["blurry", ""]}
    make(extra={"negative_prompt": "dark"}, concurrency=1).generate(told, [5, 6])
    make(concurrency=1).generate(told, [5, 6])
    found = [asked.body.get("negative_prompt") for asked in server.asked]
    assert found == ["blurry", "dark", "blurry", None]


def test_requests_run_at_once_up_to_the_bound(server: Server, make: Make) -> None:
    for bound, seconds in ((1, 0.02), (4, 0.25)):
        server.seconds, server.most_at_once = seconds, 0
        make(concurrency=bound).generate(labels(*[0] * 12), range(12))
        assert server.most_at_once == bound


def test_a_sample_depends_on_its_seed_and_not_on_the_batch(make: Make) -> None:
    generator = make()
    together = generator.generate(labels(0, 1, 2), [1, 2, 3])
    assert torch.equal(generator.generate(labels(2), [3])[0], together[2])
    assert not torch.equal(together[0], generator.generate(labels(0), [4])[0])


def test_global_random_states_are_left_alone(server: Server, make: Make) -> None:
    server.first(images_server.said({}, 500))  # a retry draws its jitter
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]
    make().generate(labels(0, 1), [1, 2])
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]


# Prompts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "asked"),
    [
        ("a {label}, {seed}", ["a cat, 4", "a dog, 5"]),
        (["one {label}", "two {label}"], ["one cat", "two dog"]),
        ({"cat": "felis", "dog": ["canis", "{label} {label}"], "owl": "x"}, ["felis", "dog dog"]),
    ],
)
def test_prompts_follow_from_class_and_seed(prompts: Any, asked: list[str], server: Server, make: Make) -> None:
    make(prompts=prompts, concurrency=1).generate(labels(0, 1), [4, 5])
    assert [request.body["prompt"] for request in server.asked] == asked


def test_prompts_of_a_condition_go_before_the_class(server: Server, make: Make) -> None:
    make(concurrency=1).generate({**labels(0, 1), "prompt": ["red", "blue"]}, [4, 5])
    assert [request.body["prompt"] for request in server.asked] == ["red", "blue"]


def test_data_without_labels_have_one_prompt(server: Server, make: Make) -> None:
    make(prompts="a photo", classes=()).generate({}, [1, 2])
    assert {request.body["prompt"] for request in server.asked} == {"a photo"}


@pytest.mark.parametrize(
    ("prompts", "classes", "text"),
    [
        ("a photo", CLASSES, "asks for the same of all 3 classes"),
        (["a {label}", "a photo"], CLASSES, "asks for the same"),
        ("a photo of a {label}", (), "the data have no labels"),
        ({"cat": "x", "dog": "y"}, CLASSES, "no prompt for \\['owl'\\]"),
        ({"cat": "x", "dog": "y", "owl": "z", "cow": "w"}, CLASSES, "no classes"),
    ],
)
def test_prompts_that_do_not_suit_the_classes_are_refused(prompts: Any, classes: Any, text: str, make: Make) -> None:
    with pytest.raises(ConfigurationError, match=text) as error:
        make(prompts=prompts, classes=classes)
    assert "generator.prompts" in str(error.value)


# Pictures -----------------------------------------------------------------------------------------------


def test_a_picture_is_cropped_to_the_datas_proportions_and_scaled(server: Server, make: Make) -> None:
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 8:24] = (255, 0, 127)
    server.always(picture(Image.fromarray(wide)))
    sample = make((3, 4, 4)).generate(labels(0), [1])[0]
    assert sample.shape == (3, 4, 4)
    for channel, value in enumerate((1.0, -1.0, 127 / 127.5 - 1)):
        assert torch.allclose(sample[channel], torch.full((4, 4), value), atol=0.15)  # it looks a little beyond


@pytest.mark.parametrize(("channels", "value"), [(1, [76]), (3, [255, 0, 0]), (4, [255, 0, 0, 255])])
def test_a_picture_gets_the_datas_channels(channels: int, value: list[int], server: Server, make: Make) -> None:
    server.always(picture(Image.new("RGB", (8, 8), "red")))
    sample = make((channels, 8, 8)).generate(labels(0), [1])[0]
    assert ((sample[:, 0, 0] + 1) * 127.5).round().tolist() == value


@pytest.mark.parametrize(
    ("form", "modes"),
    [("PNG", ["1", "L", "LA", "P", "RGB", "RGBA"]), ("JPEG", ["L", "RGB", "CMYK"]), ("WEBP", ["RGB", "RGBA"])],
)
def test_every_usual_kind_of_picture_is_read(form: str, modes: list[str], server: Server, make: Make) -> None:
    for mode in modes:
        server.always(picture(Image.new("RGB", (8, 8), "white").convert(mode), form))
        assert torch.allclose(make((3, 8, 8)).generate(labels(0), [1]), torch.ones(1, 3, 8, 8), atol=0.02)


def test_what_is_transparent_becomes_white(server: Server, make: Make) -> None:
    server.always(picture(Image.new("RGBA", (8, 8), (255, 0, 0, 0))))
    assert torch.equal(make((3, 8, 8)).generate(labels(0), [1]), torch.ones(1, 3, 8, 8))


# Settings -----------------------------------------------------------------------------------------------


def test_a_generator_is_made_again_from_its_config(server: Server) -> None:
    settings = {
        "url": server.url, "model": "m", "size": "8x8", "prompts": {"a": ["x", "y"]}, "extra": {"steps": 4},
        "seed_field": "s", "seed_bits": 16, "response_format": None, "api_key_env": "SOME_KEY", "concurrency": 2,
        "timeout": 3.0, "retries": 1, "backoff": 0.1, "max_backoff": 2.0, "breaker_failures": 3,
        "breaker_cooldown": 1.0, "hang_timeout": 20.0, "max_reply_bytes": 1000, "max_pixels": 64,
    }  # fmt: skip
    named = json.loads(json.dumps(name_of(RemoteGenerator(**settings))))  # type: ignore[arg-type]
    assert {key: named[key] for key in settings} == settings
    assert build(named).config() == settings


@pytest.mark.parametrize(
    "setting",
    [
        {"model": "other"},
        {"size": "64x64"},
        {"prompts": "a drawing of a {label}"},
        {"extra": {"steps": 4}},
        {"seed_field": None},
        {"seed_bits": 16},
    ],
)
def test_what_changes_a_sample_names_another_pool(setting: dict[str, Any], tmp_path: Path) -> None:
    assert _pool_name(tmp_path, **setting) != _pool_name(tmp_path)


@pytest.mark.parametrize(
    "setting",
    [
        {"url": "https://elsewhere.example/v1"},
        {"api_key_env": "SOME_KEY"},
        {"concurrency": 1},
        {"timeout": 5.0},
        {"retries": 0},
        {"backoff": 1.0},
        {"max_backoff": 1.0},
        {"breaker_failures": 1},
        {"breaker_cooldown": 1.0},
        {"hang_timeout": 600.0},
        {"max_reply_bytes": 1000},
        {"max_pixels": 1000},
        {"response_format": None},
    ],
)
def test_where_and_how_fast_a_server_is_names_the_same_pool(setting: dict[str, Any], tmp_path: Path) -> None:
    assert _pool_name(tmp_path, **setting) == _pool_name(tmp_path)


def _pool_name(root: Path, **settings: Any) -> str:
    generator = RemoteGenerator(**{"url": "http://127.0.0.1:1/v1", **settings})
    return job_for(generator, root).pool_header(generator, None).fingerprint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed_bits", 0),
        ("seed_bits", 64),
        ("concurrency", 0),
        ("concurrency", "many"),
        ("timeout", -1),
        ("timeout", 100.0),
        ("retries", -1),
        ("backoff", float("nan")),
        ("max_backoff", 50.0),
        ("breaker_failures", 0),
        ("breaker_cooldown", -1),
        ("max_reply_bytes", 0),
        ("max_pixels", 1.5),
        ("size", "big"),
        ("prompts", ""),
        ("prompts", []),
        ("prompts", {"cat": None}),
        ("extra", {"prompt": "x"}),
        ("extra", {"seed": 1}),
        ("url", "ftp://host/v1"),
        ("url", "file:///etc/passwd"),
        ("url", "127.0.0.1:8000"),
        ("url", "http://host:99999/v1"),
        ("url", "http:///v1"),
        ("url", "http://host/v1\r\nX: y"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"generator.{key}"):
        RemoteGenerator(**{key: value})


@pytest.mark.parametrize(
    "url", ["http://user:s3cret@host/v1", "http://host/v1?key=s3cret", "http://host/v1#s3cret", "http://s3cret@host/v1"]
)
def test_a_url_with_a_secret_in_it_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"generator.api_key_env") as error:
        RemoteGenerator(url)
    assert "s3cret" not in str(error.value)


def test_without_a_url_it_says_what_to_set(tmp_path: Path) -> None:
    generator = RemoteGenerator()
    with pytest.raises(ConfigurationError, match=r"generator.url is not set.*Start one and set"):
        job_for(generator, tmp_path).recipe(generator)


@pytest.mark.parametrize("shape", [(2, 8, 8), (8, 8), (3,)])
def test_data_that_are_no_picture_are_refused(shape: tuple[int, ...], make: Make) -> None:
    with pytest.raises(ConfigurationError, match=r"data.fields"):
        make(shape)


def test_a_job_tells_the_generator_what_the_data_are(server: Server, tmp_path: Path) -> None:
    job = Job.read(job_for(RemoteGenerator(server.url), tmp_path).write(tmp_path / "job.json"))
    generator = build(job.generator)
    with pytest.raises(GeneratorError, match="bind"):
        generator.generate(labels(0), [1])
    assert job.recipe(generator).generator.generate(labels(1), [1]).shape == (1, 1, 4, 4)
    assert server.asked[0].body["prompt"] == "a photo of a b"


# The key ------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_written_nowhere(
    server: Server, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("IMAGES_KEY", KEY)
    generator = make(api_key_env="IMAGES_KEY", retries=1)
    generator.generate(labels(0), [1])
    assert server.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    job = job_for(generator, tmp_path)
    written = [
        repr(generator), repr(vars(generator)), repr(generator.config()), repr(generator.sample_key()),
        job.write(tmp_path / "job.json").read_text(), repr(job.pool_header(generator, None)),
    ]  # fmt: skip
    server.always(images_server.echo_key)
    with pytest.raises(GeneratorError) as error:
        generator.generate(labels(0), [2])
    assert "Incorrect key: ***, *** see the log" in str(error.value)
    written += [str(error.value), str(error.value.__context__), caplog.text]
    assert not [text for text in written if KEY.lower() in text.lower()]


def test_without_a_setting_no_key_is_sent(server: Server, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    make().generate(labels(0), [1])
    assert "Authorization" not in server.asked[0].headers


@pytest.mark.parametrize(
    ("value", "text"), [(None, "is not set"), ("", "is not set"), ("a\nb", "holds what is no key")]
)
def test_a_missing_or_broken_key_is_said_by_its_variable(
    value: str | None, text: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGES_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("IMAGES_KEY", value)
    with pytest.raises(ConfigurationError, match=f"IMAGES_KEY.*generator.api_key_env.*{text}") as error:
        make(api_key_env="IMAGES_KEY")
    assert "a\nb" not in str(error.value)


def test_a_key_given_in_place_of_its_variable_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigurationError, match=r"generator.api_key_env is no name") as error:
        RemoteGenerator(api_key_env=KEY)
    assert KEY not in str(error.value)


def test_a_key_over_plain_http_to_another_machine_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("IMAGES_KEY", KEY)
    for url in ("https://images.example/v1", "http://127.0.0.1:1/v1"):
        RemoteGenerator(url, api_key_env="IMAGES_KEY").bind(spec(3, 8, 8), CLASSES)
    assert not caplog.records
    RemoteGenerator("http://images.example/v1", api_key_env="IMAGES_KEY").bind(spec(3, 8, 8), CLASSES)
    assert "Use https" in caplog.text
