"""Something that is done in the child of a fork."""

from __future__ import annotations

import os
import select
import warnings
from collections.abc import Callable

from tests.fixtures.waiting import UNIT


def in_child(function: Callable[[], object]) -> str:
    """Fork; return the text of what the function returns, or the name of what it raises, in the child."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            text = str(function())
        except BaseException as error:
            text = type(error).__name__
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    try:
        assert select.select([reading], [], [], 10 * UNIT)[0], "the child does not answer"
        return os.read(reading, 65536).decode()
    finally:
        os.close(reading)
        os.kill(child, 9)
        os.waitpid(child, 0)
