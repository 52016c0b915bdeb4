"""Writing and reading messages of several kinds: how long it takes, and how many instructions."""

import os
import re
import shutil
import subprocess
import sys
import time

from children import messages
from children.serving import serve
from posttroll.message import Message

_SLICES = 20
_REPEATED = 100
_INSTRUCTIONS = re.compile(r"I +refs: +([\d,]+)")
_BYTES = bytes(range(256)) * 256


def _parts(kind):
    """Return the type and the data of a message, and whether it is binary."""
    if kind != "bytes":
        message = Message.decode(messages.as_message(kind))
        return message.type, message.data, False
    try:
        Message(messages.SUBJECT, "binary", _BYTES, binary=True).encode()
    except TypeError:  # releases take text
        return "binary", _BYTES.decode("iso-8859-1"), True
    return "binary", _BYTES, True


def _encoder(kind):
    type, data, is_binary = _parts(kind)
    return lambda: Message(messages.SUBJECT, type, data, binary=is_binary).encode()


def _decoder(kind):
    frame = _encoder(kind)().encode()
    return lambda: Message.decode(frame)


_TASKS = {"encode": _encoder, "decode": _decoder}


class Codec:
    """What can be called."""

    def microseconds(self, task, kind, seconds):
        """Return the time of one message in the slice of the time given that was disturbed least."""
        function = _TASKS[task](kind)
        function()
        count = max(1, int(seconds / _SLICES / _duration(function, 10)))
        return 1e6 * min(_duration(function, count) for _ in range(_SLICES))

    def instructions(self, tasks):
        """Return the thousands of instructions that one message takes for each of the tasks; None without valgrind."""
        program = shutil.which("valgrind")
        if program is None:
            return None
        counter = [program, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        done = subprocess.run(
            [*counter, sys.executable, "-P", "-m", "children.codec", *(" ".join(task) for task in tasks)],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        nothing, *counts = (int(count.replace(",", "")) for count in _INSTRUCTIONS.findall(done.stderr))
        return [(count - nothing) / _REPEATED / 1000 for count in counts[: len(tasks)]]


def _duration(function, count):
    start = time.perf_counter()
    _repeat(function, count)
    return (time.perf_counter() - start) / count


def _repeat(function, count):
    for _ in range(count):
        function()


def _repeat_apart(tasks):
    """Do nothing, and each task many times, in a process of its own each."""
    functions = [_TASKS[task](kind) for task, kind in tasks]
    for function in functions:
        _repeat(function, _REPEATED)
    for function, count in [(functions[0], 0), *((function, _REPEATED) for function in functions)]:
        pid = os.fork()
        if pid == 0:
            _repeat(function, count)
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    if sys.argv[1:]:
        _repeat_apart([argument.split() for argument in sys.argv[1:]])
    else:
        serve(Codec())
