"""What the import contracts cannot say about the modules of the package."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import posttroll

PACKAGE = Path(posttroll.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [name_of(file) for file in FILES]


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=PACKAGE.parent, check=False)


def names_used(node: ast.AST) -> Iterator[str]:
    """Yield the last part of each name that is called or derived from."""
    for part in ast.walk(node):
        used = [part.func] if isinstance(part, ast.Call) else part.bases if isinstance(part, ast.ClassDef) else []
        for name in used:
            yield getattr(name, "attr", getattr(name, "id", ""))


def files_that_use(*names: str) -> set[str]:
    return {
        file.relative_to(PACKAGE).as_posix()
        for file in FILES
        if not set(names).isdisjoint(names_used(ast.parse(file.read_text())))
    }


def test_threads_are_made_in_one_module_only():
    assert files_that_use("Thread", "Timer", "ThreadPoolExecutor", "start_new_thread") == {"threads.py"}


def test_nothing_sleeps_but_tasks():
    assert {file.partition("/")[0] for file in files_that_use("sleep")} <= {"asyncio"}
    assert not any("time.sleep" in file.read_text() for file in FILES)


def test_no_module_hides_the_settings_object_of_the_package():
    assert not (PACKAGE / "config.py").exists()
    assert not (PACKAGE / "config").exists()


IMPORTS_EACH = """
import importlib, os, sys
import asyncio, donfig, msgspec, yaml, zmq  # which would take most of the time

for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        importlib.import_module(name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(name)
"""


def test_each_module_can_be_imported_first_and_alone():
    done = run_python(IMPORTS_EACH, *MODULES)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("module", MODULES)
def test_what_a_module_offers_is_there_and_documented(module: str):
    loaded = importlib.import_module(module)

    assert loaded.__doc__
    offered = getattr(loaded, "__all__", [])
    assert len(offered) == len(set(offered))
    for name in offered:
        thing = getattr(loaded, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__, f"{name} has no docstring"


def test_each_module_with_code_says_what_it_offers():
    silent = {module for module in MODULES if not hasattr(importlib.import_module(module), "__all__")}

    assert {module for module in silent if not is_empty(module)} == set()


def is_empty(module: str) -> bool:
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    return all(isinstance(statement, ast.Expr) for statement in body)


def test_importing_the_package_loads_no_transport():
    program = "import sys, posttroll; print(*sorted({'asyncio', 'orjson', 'pika', 'zmq'} & sys.modules.keys()))"

    done = run_python(program)

    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_a_program_loads_only_what_it_needs_to_publish_and_subscribe():
    program = (
        "import sys; before = set(sys.modules); "
        "import posttroll.publisher, posttroll.subscriber, posttroll.backends.zmq.backend; "
        "unneeded = {'argparse', 'asyncio', 'difflib', 'donfig', 'pkgutil', 'ssl', 'yaml', "
        "'posttroll.messenger', 'posttroll.rpc', 'posttroll.components', 'posttroll.link_peer'}; "
        "print(*sorted(unneeded & sys.modules.keys() - before))"
    )

    done = run_python(program)

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_importing_the_package_starts_nothing():
    program = (
        "import posttroll, posttroll.publisher, posttroll.subscriber, posttroll.ns, threading; "
        "print(threading.active_count())"
    )

    done = run_python(program)

    assert done.stdout.strip() == "1"
