"""The measurements, in the order in which they are made and reported."""

__all__ = ["NAMES", "QUICK"]

NAMES = (
    "codec",
    "rates",
    "latency",
    "asyncio",
    "flood",
    "fan",
    "sizes",
    "mixed",
    "durable",
    "calls",
    "addressed",
    "discovery",
    "nameserver",
    "process",
)
QUICK = ("codec", "rates", "latency", "asyncio", "durable", "calls", "addressed")
