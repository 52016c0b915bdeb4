"""What it costs to lose nothing, and how soon another worker gets what a dead one had."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench import contenders as who
from bench.accounts import memory_megabytes, session_megabytes
from bench.harness import Child, Contender, Failure, Goal, Measurement, Plan
from bench.lines import Line, complete_rate, connected, highest_rate

__all__ = ["MEASUREMENT"]

_ONE_BY_ONE = "one by one"
_PIPELINED = "pipelined"
_REDELIVERY = "redelivery"
_MEMORY = "memory, {:,} kept"
_DISK = "disk, {:,} kept"
_PLAIN = "plain, journal"
_PLAIN_ALONE = "plain, no journal"
_PLAIN_SHARE = "plain, share"

_ENDS = {"posttroll": "durable", "rabbitmq": "rabbitmq_durable"}
_KIND = "file"
_SILENCE = 3.0
_ACK_WAIT = 1.0
_HELD = 10
_ATTACHING = 0.5
_REDELIVERY_TIMEOUT = 20.0
_KEPT = 100_000
_KEPT_BY_US = 1_000_000
_KEEPING_TIMEOUT = 200.0


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return the rates, the time to redelivery, and what it takes to keep messages."""
    # First, while a server has not taken any memory that it could use again.
    values = {} if plan.quick or contender.name in (who.SYNCED, who.QUORUM) else _once(_kept, contender, plan)
    values[_ONE_BY_ONE] = rate = _rate(contender, plan)
    values[_PIPELINED] = _rate(contender, plan, pipelined=True) if contender.server else rate
    if contender.name != who.SYNCED:
        values[_REDELIVERY] = _redelivery(contender)
        values |= {} if contender.server else _plain(contender, plan)
    return values


def _once(measure: Callable[[Contender, Plan], dict[str, float]], contender: Contender, plan: Plan) -> dict[str, float]:
    """Measure in the first round only what takes long and hardly varies."""
    name = f"{measure.__name__} of {contender.name}"
    if name in plan.found:
        return {}
    plan.found[name] = 1.0
    return measure(contender, plan)


@contextlib.contextmanager
def _durable(contender: Contender, **options: object) -> Iterator[Contender]:
    """Give the contender with its durable ends, which keep their messages where it is empty yet."""
    with tempfile.TemporaryDirectory(prefix="posttroll-bench-") as directory:
        place = {} if contender.server else {"journal": f"{directory}/journal"}
        yield dataclasses.replace(
            contender,
            ends=_ENDS.get(contender.ends, contender.ends),
            options={**contender.options, **place, **options},
        )


def _rate(contender: Contender, plan: Plan, **options: object) -> float:
    with _durable(contender, **options) as durable, connected(durable, _KIND) as line:
        return complete_rate(line, plan)


def _redelivery(contender: Contender) -> float:
    """Return the milliseconds from the end of a worker to when another one gets what it had."""
    options = {"ack_wait": _ACK_WAIT} if contender.ends == "jetstream" else {}
    with contextlib.ExitStack() as stack:
        durable = stack.enter_context(_durable(contender, **options))
        sender, worker = _started(stack, durable)
        worker.call("keep")
        worker.call("prepare", count=_HELD)
        sender.call("send", count=_HELD)
        if worker.call("receive", silence=_SILENCE, patience=_SILENCE)[0] < _HELD:
            raise Failure("a worker does not get all")
        other = stack.enter_context(Child(durable, "receiver", durable.ends, sender.call("addresses")))
        other.call("prepare", count=1)
        other.ask("receive", silence=_SILENCE, patience=_REDELIVERY_TIMEOUT)
        time.sleep(_ATTACHING)
        killed = time.monotonic()
        worker.kill()
        received, moment = other.answer()
    if not received:
        raise Failure("nothing is redelivered")
    return 1000.0 * float(moment - killed)


def _started(stack: contextlib.ExitStack, durable: Contender) -> tuple[Child, Child]:
    """Return a sender and a receiver between which messages pass."""
    sender = stack.enter_context(Child(durable, "sender", durable.ends, dict(durable.options), 1))
    receiver = stack.enter_context(Child(durable, "receiver", durable.ends, sender.call("addresses")))
    Line(durable.name, sender, [receiver]).greet(_KIND)
    return sender, receiver


def _kept(contender: Contender, plan: Plan) -> dict[str, float]:
    """Return by how much memory and files have grown with messages for a consumer that has left."""
    options = {"pipelined": True} if contender.server else {}
    with contextlib.ExitStack() as stack:
        durable = stack.enter_context(_durable(contender, **options))
        sender, receiver = _started(stack, durable)
        receiver.close()
        values: dict[str, float] = {}
        sent, (memory, disk) = 0, _taken(durable, sender)
        for kept in (_KEPT,) if contender.server else (_KEPT, _KEPT_BY_US):
            sender.call("send", timeout=_KEEPING_TIMEOUT, count=kept - sent)
            sent, (more_memory, more_disk) = kept, _taken(durable, sender)
            values |= {_MEMORY.format(kept): more_memory - memory, _DISK.format(kept): more_disk - disk}
        return values


def _taken(durable: Contender, sender: Child) -> tuple[float, float]:
    """Return the megabytes of memory and of files that whoever keeps the messages takes."""
    if durable.server:
        memory, directory = session_megabytes(durable.server.session), durable.server.directory
    else:
        memory, directory = memory_megabytes(sender.pid), Path(durable.options["journal"]).parent
    return memory, _size(directory) / 1e6


def _size(directory: Path) -> int:
    """Return how many bytes files take, of which some may vanish meanwhile."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _plain(contender: Contender, plan: Plan) -> dict[str, float]:
    """Return the highest lossless rate to a plain subscriber, of publishers with and without a journal."""
    with tempfile.TemporaryDirectory(prefix="posttroll-bench-") as directory:
        journaling = dataclasses.replace(contender, name=_PLAIN, options={"journal": f"{directory}/journal"})
        rates = {}
        for metric, publisher in ((_PLAIN, journaling), (_PLAIN_ALONE, contender)):
            with connected(publisher, _KIND) as line:
                rates[metric] = highest_rate(line, plan)
    return {**rates, _PLAIN_SHARE: rates[_PLAIN] / rates[_PLAIN_ALONE]}


MEASUREMENT = Measurement(
    name="durable",
    units={
        _ONE_BY_ONE: "1/s",
        _PIPELINED: "1/s",
        _REDELIVERY: "ms",
        **{text.format(kept): "MB" for kept in (_KEPT, _KEPT_BY_US) for text in (_MEMORY, _DISK)},
        _PLAIN: "1/s",
        _PLAIN_ALONE: "1/s",
        _PLAIN_SHARE: "times",
    },
    contenders=(who.OURS, who.SYNCED, *who.DURABLE_PEERS),
    measure=measure,
    goals=(
        *(Goal(_ONE_BY_ONE, over=peer, at_least=1) for peer in (who.JETSTREAM, who.RABBITMQ)),
        *(
            Goal(_ONE_BY_ONE, over=peer, at_least=1, contender=who.SYNCED)
            for peer in (who.JETSTREAM_SYNCED, who.RABBITMQ, who.QUORUM)
        ),
        *(Goal(_PIPELINED, over=peer, at_least=1) for peer in (who.RABBITMQ, who.QUORUM)),
        Goal(_MEMORY.format(_KEPT_BY_US), at_most=20.0),
        Goal(_PLAIN_SHARE, at_least=0.8),
    ),
    explanation=(
        "Messages of 1 KB a second from a publisher to one durable consumer that accepts each, from the first that is "
        "sent to the last that arrives. One by one: the next is sent when the one before is kept for certain; "
        f"pipelined: up to 4000 (JetStream) or 1000 (RabbitMQ) may be on their way to be kept. `{who.OURS}` keeps each "
        "message itself before sending returns, so that it has one figure for both. Survives the end of a process: "
        f"`{who.OURS}` (`journal_sync` normal), `{who.JETSTREAM}`; the loss of power, too: `{who.SYNCED}` "
        f"(`journal_sync` full), `{who.JETSTREAM_SYNCED}` (`sync_interval` always), `{who.RABBITMQ}` (classic queues, "
        f"which sync before they confirm) and `{who.QUORUM}`. All is kept below the directory for temporary files. "
        "Redelivery: from `kill -9` of a worker that had not acknowledged ten messages to when another one gets the "
        f"first of them, {_ATTACHING:g} s after the worker got them; JetStream does not notice that it is dead but "
        f"waits for `ack_wait` after delivery, here {_ACK_WAIT:g} s and 30 s by default. Kept: by how much those who "
        "keep messages for a consumer that has left grow, which is the publisher or the server. Plain: the highest "
        "lossless rate to a subscriber that is not durable, of publishers with a journal and without one."
    ),
)
