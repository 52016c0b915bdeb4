"""The configuration of components."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import pytest

from posttroll.components.configuration import Configuration, find, make_middleware
from posttroll.components.middleware import CountMiddleware, LogMiddleware, Middleware, RetryMiddleware
from posttroll.errors import ConfigurationError


class Own(Middleware):
    def __init__(self, colour: str) -> None:
        self.colour = colour


def written(directory: Path, text: str) -> Path:
    file = directory / "component.yaml"
    file.write_text(text)
    return file


def test_a_name_is_all_that_is_needed() -> None:
    configuration = Configuration.load({"name": "resampler"})

    assert (configuration.name, configuration.services, configuration.workers) == ("resampler", "", 1)


def test_a_file_is_read(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "name: resampler\nservices: [viirs_files]\nshared: resamplers\nstart_at: first\nsettings: {areas: [euro4]}\n",
    )

    configuration = Configuration.load(file)

    assert (configuration.services, configuration.shared) == (["viirs_files"], "resamplers")
    assert configuration.start_at == "first"
    assert configuration.settings == {"areas": ["euro4"]}


def test_items_can_be_overridden(tmp_path: Path) -> None:
    file = written(tmp_path, "name: resampler\nworkers: 3\n")

    configuration = Configuration.load(file, name="resampler_2")

    assert (configuration.name, configuration.workers) == ("resampler_2", 3)


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        ({"name": "a", "worker": 2}, "unknown item 'worker' in the configuration; the nearest known one is workers"),
        ({"name": "a", 5: 2}, "unknown item 5 in the configuration; known: addresses, aliases"),
        ({}, "the configuration: Object missing required field `name`"),
        ({"name": 5}, "Expected `str`, got `int` - at `$.name`"),
        ({"name": "a b"}, "name is empty or has white space"),
        ({"name": ""}, "name is empty or has white space"),
        ({"name": "a", "workers": "many"}, "Expected `int`, got `str` - at `$.workers`"),
        ({"name": "a", "workers": 0}, "workers and request_workers have to be 1 to 1000"),
        ({"name": "a", "request_workers": 100_000}, "workers and request_workers have to be 1 to 1000"),
        ({"name": "a", "port": -1}, "port and link_port have to be 0 to 65535"),
        ({"name": "a", "link_port": 65_536}, "port and link_port have to be 0 to 65535"),
        ({"name": "a", "fingerprint": {"pid": 1}}, "an own item of the fingerprint has the name of a usual one"),
        ({"name": "a", "drain_timeout": -1}, "timeout and drain_timeout cannot be negative"),
        ({"name": "a", "shared": "b", "private": "c"}, "shared and private exclude each other"),
        ({"name": "a", "services": {"b": "c"}}, "at `$.services`"),
        ({"name": "a", "start_at": "soon"}, "at `$.start_at`"),
        ({"name": "a", "nameservers": True}, "nameservers are hosts, or false"),
    ],
)
def test_what_is_wrong_is_told(items: dict[Any, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Configuration.load(items)

    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: [", "is not YAML"),
        ("", "has no items"),
        ("- name", "has no items"),
        ("name: a\nsetings: {}\n", "settings"),
    ],
)
def test_a_complaint_names_the_file(tmp_path: Path, text: str, complaint: str) -> None:
    file = written(tmp_path, text)

    with pytest.raises(ConfigurationError) as error:
        Configuration.load(file)

    assert str(file) in str(error.value)
    assert complaint in str(error.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Configuration.load(tmp_path / "missing.yaml")


def test_an_object_or_a_module_is_found_by_its_place() -> None:
    assert find("string:digits") == string.digits
    assert find("string") is string


@pytest.mark.parametrize("place", ["no_such_module:Class", "string:no_such_name", "", ":Class"])
def test_what_cannot_be_found_is_told(place: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot find {place}"):
        find(place)


def test_a_module_that_is_a_path_is_told() -> None:
    with pytest.raises(ConfigurationError, match="not of the form module:Class"):
        find("./worker.py:Class")


def test_where_a_module_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "halfway.py").write_text("def work(:\n")

    with pytest.raises(ConfigurationError, match=r"cannot find halfway:Class: invalid syntax \(halfway.py, line 1\)"):
        find("halfway:Class")


def test_middleware_is_made_by_name_or_place_with_arguments() -> None:
    own = f"{__name__}:Own"

    log, retry, count, mine = make_middleware(["log", {"retry": {"max_retries": 5}}, "count", {own: {"colour": "red"}}])

    assert isinstance(log, LogMiddleware)
    assert isinstance(retry, RetryMiddleware)
    assert isinstance(count, CountMiddleware)
    assert type(mine).__name__ == "Own"
    assert vars(mine) == {"colour": "red"}


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        ("rety", "unknown middleware 'rety'; the nearest known one is retry, or module:Class"),
        ({"retry": {"maximum": 3}}, "middleware retry: .*unexpected keyword argument 'maximum'"),
        ("string:Formatter", "middleware string:Formatter is no Middleware"),
        ("string:digits", "middleware string:digits: .*not callable"),
    ],
)
def test_middleware_that_cannot_be_made_is_told(wish: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        make_middleware([wish])


def test_the_documentation_tells_all_items() -> None:
    page = Path(__file__).parents[3] / "doc" / "source" / "howto" / "write_a_component.md"
    _, _, table = page.read_text().partition("\n| Item |")
    rows = table.partition("\n\n")[0].splitlines()[2:]

    assert [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])] == [
        *Configuration.__struct_fields__
    ]
