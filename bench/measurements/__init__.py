"""The measurements, in the order in which they are made and reported."""

__all__ = ["NAMES", "QUICK"]

NAMES = (
    "codec",
    "rates",
    "latency",
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
QUICK = ("codec", "rates", "latency", "durable", "calls", "addressed")
