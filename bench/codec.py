"""Measure how many messages are written and read in a second, for data of several kinds."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from posttroll.message import Message

DURATION = 0.3
BATCH = 100
REPETITIONS = 3

START = datetime(2024, 1, 12, 10, 11, 23, 400_000)
GRANULE = {
    "uri": "/data/SVM05_npp_d20240112_t1011234_e1012476_b63401_c20240112103501283415_cspp_dev.h5",
    "uid": "SVM05_npp_d20240112_t1011234_e1012476_b63401_c20240112103501283415_cspp_dev.h5",
    "platform_name": "Suomi-NPP",
    "sensor": ["viirs"],
    "orbit_number": 63401,
    "start_time": START,
    "end_time": START + timedelta(seconds=84),
}
KINDS: dict[str, tuple[Any, bool]] = {
    "no data": ("", False),
    "text": ("a line of text about what has happened", False),
    "a granule": (GRANULE, False),
    "200 granules": ({"dataset": [GRANULE] * 200}, False),
    "64 kB of bytes": (bytes(range(256)) * 256, True),
}


def calls_per_second(function: Callable[[], object]) -> float:
    """Return the best of several runs, as that is disturbed least."""
    return max(_calls_per_second(function) for _ in range(REPETITIONS))


def _calls_per_second(function: Callable[[], object]) -> float:
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < DURATION:
        for _ in range(BATCH):
            function()
        count += BATCH
    return count / elapsed


def main() -> None:
    print(f"{'messages per second':<20} {'size':>10} {'written':>10} {'read':>10}")
    for kind, (data, is_binary) in KINDS.items():
        message = Message("/1b/viirs", "file", data, binary=is_binary)
        raw = message.encode().encode()
        written, read = calls_per_second(message.encode), calls_per_second(lambda raw=raw: Message.decode(raw))
        print(f"{kind:<20} {len(raw):>8} B {written:>10,.0f} {read:>10,.0f}")


if __name__ == "__main__":
    main()
