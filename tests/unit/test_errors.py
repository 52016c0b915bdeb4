"""The tree of exceptions."""

from __future__ import annotations

import inspect

import pytest

from posttroll import errors

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value)]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_of_the_package(error: type[Exception]) -> None:
    assert issubclass(error, errors.PosttrollError)


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_tells_when_it_is_raised(error: type[Exception]) -> None:
    assert error.__doc__


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_prints_as_its_text(error: type[Exception]) -> None:
    assert str(error("what went wrong")) == "what went wrong"


@pytest.mark.parametrize(
    ("error", "built_in"),
    [
        (errors.EncodeError, TypeError),
        (errors.DecodeError, ValueError),
        (errors.UnsupportedVersion, errors.DecodeError),
        (errors.UnknownBackend, NotImplementedError),
        (errors.MissingSetting, KeyError),
        (errors.BackendNotInstalled, ImportError),
        (errors.TransportError, OSError),
        (errors.BindFailed, OSError),
        (errors.TimedOut, TimeoutError),
        (errors.RequestTimeout, TimeoutError),
        (errors.AddressNotFound, TimeoutError),
        (errors.NotStarted, AttributeError),
        (errors.MethodNotFound, AttributeError),
        (errors.JournalFull, OSError),
        (errors.JournalInUse, OSError),
    ],
)
def test_errors_are_caught_as_the_built_in_ones_they_refine(error: type[Exception], built_in: type[Exception]) -> None:
    assert issubclass(error, built_in)


def test_all_errors_are_exported() -> None:
    assert sorted(errors.__all__) == sorted(error.__name__ for error in CLASSES)


def test_the_tree_in_the_documentation_is_the_true_one() -> None:
    lines = [line.strip(" │├└") for line in (errors.__doc__ or "").splitlines()]
    drawn = {line.partition("(")[0] for line in lines if line and hasattr(errors, line.partition("(")[0])}

    assert drawn == set(errors.__all__)
