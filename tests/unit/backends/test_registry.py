"""Names of backends."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from posttroll.backends import memory, registry
from posttroll.backends.registry import configured_backend, find_backend, known_backends
from posttroll.errors import BackendNotInstalled, UnknownBackend
from posttroll.settings import config

BUILT_IN = ["memory", "secure_zmq", "unsecure_zmq"]


@pytest.fixture(autouse=True)
def nothing_loaded_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_loaded", {})


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> list[importlib.metadata.EntryPoint]:
    """Stand for what is installed; the list may be added to."""
    points: list[importlib.metadata.EntryPoint] = []

    def entry_points(**wanted: Any) -> importlib.metadata.EntryPoints:
        return importlib.metadata.EntryPoints(points).select(**wanted)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return points


def plug_in(name: str, target: str) -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint(name, target, "posttroll.backends")


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_backend_is_found_by_its_name(name: str) -> None:
    assert find_backend(name).name == name


def test_a_backend_is_found_once_and_for_all() -> None:
    assert find_backend("unsecure_zmq") is find_backend("unsecure_zmq")


def test_the_own_backends_are_known() -> None:
    assert set(BUILT_IN) <= set(known_backends())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownBackend, match=r"no backend 'zqm'; known: .*memory.*secure_zmq.*unsecure_zmq"):
        find_backend("zqm")


def test_an_unknown_name_is_a_not_implemented_error() -> None:
    with pytest.raises(NotImplementedError):
        find_backend("zqm")


def test_the_configured_backend_is_used() -> None:
    with config.set(backend="memory"):
        assert configured_backend() is memory.backend


def test_an_unknown_configured_backend_is_refused() -> None:
    with config.set(backend="zqm"), pytest.raises(UnknownBackend, match="zqm"):
        configured_backend()


def test_an_installed_plug_in_is_known_and_found(plug_ins: list[importlib.metadata.EntryPoint]) -> None:
    plug_ins.append(plug_in("pigeons", "posttroll.backends.memory:backend"))

    assert known_backends() == sorted([*BUILT_IN, "pigeons"])
    assert find_backend("pigeons") is memory.backend


def test_a_plug_in_cannot_take_the_place_of_an_own_backend(plug_ins: list[importlib.metadata.EntryPoint]) -> None:
    plug_ins.append(plug_in("unsecure_zmq", "posttroll.backends.memory:backend"))

    assert find_backend("unsecure_zmq").name == "unsecure_zmq"


def test_a_plug_in_that_lacks_something_says_what(plug_ins: list[importlib.metadata.EntryPoint]) -> None:
    plug_ins.append(plug_in("pigeons", "no_such_module_as_this:backend"))

    with pytest.raises(BackendNotInstalled, match="'pigeons' needs no_such_module_as_this, which is not installed"):
        find_backend("pigeons")


def test_a_plug_in_that_cannot_be_imported_says_why(
    plug_ins: list[importlib.metadata.EntryPoint], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hurt_pigeons.py").write_text("raise ImportError('the wings are broken')")
    monkeypatch.syspath_prepend(tmp_path)
    plug_ins.append(plug_in("pigeons", "hurt_pigeons:backend"))

    with pytest.raises(BackendNotInstalled, match="'pigeons' cannot be loaded: the wings are broken"):
        find_backend("pigeons")
