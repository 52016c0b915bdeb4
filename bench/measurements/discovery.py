"""How soon publishers and subscribers find each other, and a nameserver that was killed finds all again."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bench import contenders as who
from bench.harness import Child, Contender, Failure, Goal, Measurement, Plan
from bench.network import Network, start_nameserver

__all__ = ["MEASUREMENT"]

_REPEATS = 30
_QUICK_REPEATS = 5
_BATCH = 10
_EARLIER_PUBLISHERS = 20
_INTERVAL = 2.0
_INTERVAL_REACHED = 1.5
_LONGEST_PAUSE = 0.5
_SETTLED = 0.3
_SHORT_LOOK_UP = 0.1
_LOOK_UP = 10.0
_PATIENCE = 10.0
_ORDERS = ("subscriber first", "publisher first", "subscriber waiting")
_WAYS: Mapping[str, tuple[list[str], list[str] | None]] = {
    "multicast": ([], None),
    "designated": (["--no-multicast"], ["localhost"]),
}


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return the milliseconds from the start of the second party to the first message, and the seconds to recover."""
    values: dict[str, float] = {}
    repeats = _QUICK_REPEATS if plan.quick else _REPEATS
    for way, (options, nameservers) in _WAYS.items():
        with _discovery(contender, options, nameservers) as discovery:
            for order, trial in zip(_ORDERS, (_subscriber_first, _publisher_first, _subscriber_waiting), strict=True):
                delays = sorted(1000 * delay for delay in _repeated(trial, discovery, repeats))
                values[f"{order}, {way}"] = delays[len(delays) // 2]
                values[f"{order}, {way}, p99"] = delays[int(len(delays) * 0.99)]
    return values | (_recovery(contender) if not plan.quick else {})


@dataclass
class _Discovery:
    publishers: Child
    subscribers: Child
    nameservers: list[str] | None
    services: Iterator[str]

    def publish(self, service: str) -> float:
        return float(self.publishers.call("publish", services=[service], nameservers=self.nameservers))

    def await_message(self, service: str) -> float:
        received = self.subscribers.call("await_message", service=service, patience=_PATIENCE)
        self.publishers.call("stop_publishing", service=service)
        if received is None:
            raise Failure("no message came")
        return float(received)


@contextlib.contextmanager
def _discovery(contender: Contender, options: list[str], nameservers: list[str] | None) -> Iterator[_Discovery]:
    network = Network.free()
    with (
        start_nameserver(contender, network, *options),
        Child(contender, "discovery", **network.settings()) as publishers,
        Child(contender, "discovery", **network.settings()) as subscribers,
    ):
        yield _Discovery(publishers, subscribers, nameservers, _names())


def _names() -> Iterator[str]:
    yield from (f"service_{number:05}" for number in range(100_000))


Trial = Callable[[_Discovery, int], list[float]]


def _repeated(trial: Trial, discovery: _Discovery, repeats: int) -> list[float]:
    trial(discovery, 1)  # the first ever is slower
    delays: list[float] = []
    while len(delays) < repeats:
        delays += trial(discovery, min(_BATCH, repeats - len(delays)))
    return delays


def _subscriber_first(discovery: _Discovery, count: int) -> list[float]:
    """Subscribers that have looked in vain receive; then the publishers start, one after the other."""
    services = [next(discovery.services) for _ in range(count)]
    for service in services:
        discovery.subscribers.call("subscribe", service=service, patience=_SHORT_LOOK_UP)
    for service in services:
        discovery.subscribers.call("await_ready", service=service)
    time.sleep(_SETTLED)
    return [_delay_of_publisher(discovery, service) for service in services]


def _subscriber_waiting(discovery: _Discovery, count: int) -> list[float]:
    """Subscribers still look for their services, each since another moment, when the publishers start."""
    services = [next(discovery.services) for _ in range(count)]
    for service in services:
        discovery.subscribers.call("subscribe", service=service, patience=_LOOK_UP)
        time.sleep(random.uniform(0, 2 * _LONGEST_PAUSE / count))
    return [_delay_of_publisher(discovery, service) for service in services]


def _delay_of_publisher(discovery: _Discovery, service: str) -> float:
    started = discovery.publish(service)
    return discovery.await_message(service) - started


def _publisher_first(discovery: _Discovery, count: int) -> list[float]:
    """Publishers are known; then the subscribers start, one after the other."""
    return [_delay_of_subscriber(discovery, next(discovery.services)) for _ in range(count)]


def _delay_of_subscriber(discovery: _Discovery, service: str) -> float:
    discovery.publish(service)
    if discovery.subscribers.call("await_known", services=[service], patience=_PATIENCE) is None:
        raise Failure("the nameserver does not hear of a publisher")
    started = discovery.subscribers.call("subscribe", service=service, patience=_LOOK_UP)
    return discovery.await_message(service) - float(started)


def _recovery(contender: Contender) -> dict[str, float]:
    """Kill the nameserver of several publishers and start another one."""
    network = Network.free()
    earlier, late = [f"earlier_{number}" for number in range(_EARLIER_PUBLISHERS)], "late"
    with (
        Child(contender, "discovery", **network.settings()) as publishers,
        Child(contender, "discovery", **network.settings()) as asker,
    ):
        with start_nameserver(contender, network) as nameserver:
            for service in earlier:
                publishers.call("publish", services=[service], sends=False)
                time.sleep(_INTERVAL / _EARLIER_PUBLISHERS)  # they do not announce themselves at the same moment
            time.sleep(_INTERVAL_REACHED)
            _await_known(asker, earlier)
            nameserver.kill()
        started = time.monotonic()
        with start_nameserver(contender, network):
            listening = time.monotonic()
            publishers.call("publish", services=[late], sends=False)
            return {
                "nameserver killed, new publisher found": _await_known(asker, [late]) - started,
                "nameserver killed, all known again": _await_known(asker, earlier) - listening,
            }


def _await_known(asker: Child, services: list[str]) -> float:
    known = asker.call("await_known", services=services, patience=_PATIENCE)
    if known is None:
        raise Failure("the nameserver does not hear of a publisher")
    return float(known)


MEASUREMENT = Measurement(
    name="discovery",
    units={
        **{f"{order}, {way}{which}": "ms" for way in _WAYS for order in _ORDERS for which in ("", ", p99")},
        "nameserver killed, new publisher found": "s",
        "nameserver killed, all known again": "s",
    },
    contenders=(who.OURS, who.RELEASED),
    measure=measure,
    goals=(
        *(Goal(f"{order}, {way}", at_most=5.0) for way in _WAYS for order in _ORDERS),
        *(Goal(f"{order}, {way}, p99", at_most=50.0) for way in _WAYS for order in _ORDERS),
        Goal("nameserver killed, new publisher found", at_most=0.5),
        Goal("nameserver killed, all known again", at_most=_INTERVAL + 0.1),  # asking takes a moment, too
    ),
    explanation=(
        "From the start of the second party, in a process that runs already, to the first message of a publisher that "
        "sends one each millisecond: the median, and the 99th percentile. A subscriber first has looked in vain and "
        "relies on its address listener; one waiting still looks for its service. After the nameserver was killed "
        "another one is started: a new publisher is found so many seconds after the start of that process, the 20 "
        "earlier ones, which announce themselves every 2 s, so many seconds after it listens."
    ),
)
