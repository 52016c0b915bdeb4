"""What a nameserver costs, and how soon it answers, with many publishers and many followers of its address feed."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench import contenders as who
from bench.accounts import memory_megabytes, share_of_a_core
from bench.harness import Child, Contender, Failure, Goal, Measurement, Plan
from bench.network import Network, start_nameserver

__all__ = ["MEASUREMENT"]

_INTERVAL = 2.0
_SIZES = (1000, 5000, 20_000)
_USUAL_SIZE = 5000
_LARGEST_SIZE = 20_000
_QUICK_SIZE = 1000
_QUICK_QUERIES = 200
_QUERIES = 1000
_LISTS = 5
_REGISTERING = 1000
_REGISTERING_PROCESSES = 4
_FOLLOWERS = 200
_NEWCOMERS = 30
_WATCHED = 4.0
_QUICK_WATCHED = 1.0
_KNOWN_TIMEOUT = 20.0
_STEP = 0.2
_QUERY = "{}, one look-up"
_SLOWEST = "{}, one look-up, p99"
_LIST = "{}, all addresses"
_CPU = "{}, processor"
_MEMORY = "{}, memory"
_RECEIVED = "one change, as a follower receives it"
_ANNOUNCEMENT = "one announcement"
# What is measured in the first round only, as it takes long and shows how the others grow.
_seen: set[str] = set()


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return processor time, memory and times to answer for each number of publishers."""
    _allow_many_connections()
    if plan.quick:
        return _multicast(contender, plan, _QUICK_SIZE)
    values = _multicast(contender, plan, _USUAL_SIZE)
    if contender.name not in _seen:
        _seen.add(contender.name)
        values |= _designated(contender, plan)
        for size in _SIZES:
            if size != _USUAL_SIZE:
                try:
                    values |= _multicast(contender, plan, size)
                except Failure as reason:  # a slow machine cannot keep up with the most
                    print(f"{contender.name} left out with {_publishers(size)}: {reason}", file=sys.stderr, flush=True)
    return values


@dataclass
class _Site:
    nameserver: Child
    queries: Child
    network: Network

    def await_known(self, count: int) -> None:
        """Wait until so many publishers are known; `Failure`."""
        deadline = time.monotonic() + _KNOWN_TIMEOUT
        while (known := self.queries.call("count_known")) < count:
            if time.monotonic() > deadline:
                raise Failure(f"the nameserver knows {known} of {count} publishers")
            time.sleep(_STEP)


@contextlib.contextmanager
def _site(contender: Contender, *options: str) -> Iterator[_Site]:
    network = Network.free()
    with (
        start_nameserver(contender, network, *options) as nameserver,
        Child(contender, "queries", **network.settings()) as queries,
    ):
        yield _Site(nameserver, queries, network)


def _multicast(contender: Contender, plan: Plan, size: int) -> dict[str, float]:
    """Let so many publishers announce themselves by multicast."""
    name = _publishers(size)
    # To capture an announcement they need a discovery of their own.
    with _site(contender) as site, Child(contender, "announcers", **Network.free().settings()) as announcers:
        length = announcers.call("announce", count=size, interval=_INTERVAL, port=site.network.announcements)
        site.await_known(size)
        values = {_ANNOUNCEMENT: length, **_load(site, plan, name)}
        values |= _answers(site, plan, name, size)
        if size == _LARGEST_SIZE:
            values |= _followed(site, plan, announcers)
        return values


def _load(site: _Site, plan: Plan, name: str) -> dict[str, float]:
    share = share_of_a_core(site.nameserver.pid, _QUICK_WATCHED if plan.quick else _WATCHED)
    return {_CPU.format(name): share, _MEMORY.format(name): memory_megabytes(site.nameserver.pid)}


def _answers(site: _Site, plan: Plan, name: str, size: int) -> dict[str, float]:
    count = _QUICK_QUERIES if plan.quick else _QUERIES
    look_ups = sorted(1000 * seconds for seconds in site.queries.call("look_up", publishers=size, count=count))
    lists = sorted(1000 * seconds for seconds in site.queries.call("list_all", count=_LISTS))
    return {
        _QUERY.format(name): look_ups[count // 2],
        _SLOWEST.format(name): look_ups[int(count * 0.99)],
        _LIST.format(name): lists[_LISTS // 2],
    }


def _followed(site: _Site, plan: Plan, announcers: Child) -> dict[str, float]:
    """Connect followers of the address feed while some new publishers come."""
    name = f"{_publishers(_LARGEST_SIZE)}, {_FOLLOWERS} followers"
    site.queries.call("follow", count=_FOLLOWERS, address=f"tcp://127.0.0.1:{site.network.addresses}")
    time.sleep(_WATCHED / 2)  # until all are connected
    _, before = site.queries.call("received")
    place = {"first": _LARGEST_SIZE, "seconds": _WATCHED, "port": site.network.announcements}
    announcers.ask("announce_others", count=_NEWCOMERS, **place)
    values = _load(site, plan, name)
    announcers.answer()
    values |= _answers(site, plan, name, _LARGEST_SIZE)
    _, after = site.queries.call("received")
    return values | {_RECEIVED: (after - before) / _NEWCOMERS / _FOLLOWERS}


def _designated(contender: Contender, plan: Plan) -> dict[str, float]:
    """Let publishers register, each over a connection of its own."""
    name = f"{_REGISTERING} registering publishers"
    share = _REGISTERING // _REGISTERING_PROCESSES
    with _site(contender, "--no-multicast") as site, contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(Child(contender, "registrations", **site.network.settings()))
            for _ in range(_REGISTERING_PROCESSES)
        ]
        for number, child in enumerate(children):
            child.ask("register", first=number * share, count=share, interval=_INTERVAL)
        for child in children:
            child.answer()
        site.await_known(_REGISTERING)
        time.sleep(_INTERVAL)
        values = _load(site, plan, name) | _answers(site, plan, name, _REGISTERING)
        for child in children:
            child.kill()  # saying goodbye a thousand times would take long
        return values


def _allow_many_connections() -> None:
    """Let the processes open as many files as the system permits."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def _publishers(size: int) -> str:
    return f"{size:,} publishers"


def _units() -> dict[str, str]:
    names = [
        *map(_publishers, _SIZES),
        f"{_publishers(_LARGEST_SIZE)}, {_FOLLOWERS} followers",
        f"{_REGISTERING} registering publishers",
    ]
    metrics = {_CPU: "% of a core", _MEMORY: "MB", _QUERY: "ms", _SLOWEST: "ms", _LIST: "ms"}
    return {metric.format(name): unit for name in names for metric, unit in metrics.items()} | {
        _ANNOUNCEMENT: "B",
        _RECEIVED: "B",
    }


MEASUREMENT = Measurement(
    name="nameserver",
    units=_units(),
    contenders=(who.OURS, who.RELEASED),
    measure=measure,
    goals=(
        Goal(_SLOWEST.format(_publishers(_USUAL_SIZE)), at_most=3.0),
        Goal(_LIST.format(_publishers(_USUAL_SIZE)), at_most=20.0),
        Goal(_CPU.format(_publishers(_USUAL_SIZE)), at_most=5.0),
        Goal(_MEMORY.format(_publishers(_USUAL_SIZE)), at_most=35.0),
        Goal(_SLOWEST.format(f"{_publishers(_LARGEST_SIZE)}, {_FOLLOWERS} followers"), at_most=10.0),
    ),
    explanation=(
        "Publishers that announce themselves every 2 s, by multicast or by registering at the nameserver. A look-up is "
        "a call of get_pub_address, with its connection. Followers are subscribers with an address listener, here "
        "while 7.5 new publishers come in each second."
    ),
)
