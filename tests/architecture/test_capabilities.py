"""The pages for users of other systems leave nothing out, and the tests that they name exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "doc" / "source" / "coming_from"
SYSTEMS = {"snakemq": ("S", 35), "postage": ("G", 36), "messenger": ("M", 27), "proton_events": ("E", 14)}
ROW = re.compile(r"^\| (?P<id>[A-Z]\d\d) \| (?P<there>[^|]+) \| (?P<here>[^|]+) \| (?P<shown>[^|]*)\|$", re.MULTILINE)
TEST = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<name>test_\w+)`")
NO_PLACE = "No place here: "


class Row(NamedTuple):
    """What another system can do, what does it here, and which tests show that."""

    id: str
    there: str
    here: str
    shown: str


def rows_of(system: str) -> list[Row]:
    return [Row(*row) for row in ROW.findall((PAGES / f"{system}.md").read_text())]


ROWS = [row for system in SYSTEMS for row in rows_of(system)]


@cache
def functions_in(file: Path) -> set[str]:
    body = ast.parse(file.read_text()).body if file.is_file() else []
    return {statement.name for statement in body if isinstance(statement, ast.FunctionDef)}


def test_there_is_a_page_for_each_system():
    assert {page.stem for page in PAGES.glob("*.md")} == {*SYSTEMS}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_page_has_each_capability_once_and_in_order(system: str):
    letter, count = SYSTEMS[system]

    assert [row.id for row in rows_of(system)] == [f"{letter}{number:02}" for number in range(1, count + 1)]


def test_each_capability_is_shown_by_tests_or_has_no_place_for_a_reason():
    shown = {row.id for row in ROWS if TEST.search(row.shown)}
    without_place = {row.id for row in ROWS if row.here.startswith(NO_PLACE)}

    assert {row.id for row in ROWS} - shown - without_place == set()


def test_what_is_said_to_show_a_capability_are_tests_that_exist():
    named = {(test["file"], test["name"]) for row in ROWS for test in TEST.finditer(row.shown)}

    assert {row.id: rest for row in ROWS if (rest := TEST.sub("", row.shown).strip(", "))} == {}
    assert {(file, name) for file, name in named if name not in functions_in(ROOT / file)} == set()
