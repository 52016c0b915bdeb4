"""Calls, over messengers that have no network."""

from __future__ import annotations

import datetime as dt
import gc
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from posttroll.errors import (
    ConfigurationError,
    EncodeError,
    JournalFull,
    LocalProtocolError,
    RemoteProtocolError,
    RequestTimeout,
    TimedOut,
)
from posttroll.message import Message
from posttroll.protocol import calls
from posttroll.protocol.frames import Outcome
from posttroll.protocol.link import Delivery
from posttroll.protocol.properties import Properties
from posttroll.rpc import (
    CallCancelled,
    CallContext,
    CallInterrupted,
    MethodNotFound,
    Proxy,
    RemoteError,
    RemoteMethod,
    RpcClient,
    RpcServer,
    current_call,
    public,
)
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child

SHORT = 0.1 * UNIT


class Letter:
    """What follows a message, as a tracker does."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.state, self.reason = "pending", ""
        self.buffered = True
        self._lock = threading.RLock()
        self._callbacks: list[Callable[[Letter], object]] = []

    def add_done_callback(self, callback: Callable[[Letter], object]) -> None:
        with self._lock:
            self._callbacks.append(callback)
        self.tell()

    def cancel(self) -> bool:
        is_here = self.buffered and self.state == "pending"
        if is_here:
            self.conclude("released")
        return is_here

    def conclude(self, state: str, reason: str = "") -> None:
        self.state, self.reason = state, reason
        self.tell()

    def tell(self) -> None:
        with self._lock:
            callbacks, self._callbacks = (self._callbacks, []) if self.state != "pending" else ([], self._callbacks)
        for callback in callbacks:
            callback(self)


class Target:
    """Where messages of one kind arrive at a messenger."""

    def __init__(self, on_arrival: Callable[[], None]) -> None:
        self.on_arrival = on_arrival
        self.waiting: deque[tuple[Message, Letter]] = deque()
        self.letters: dict[int, Letter] = {}
        self.released = 0

    def take(self) -> Message | None:
        try:
            message, letter = self.waiting.popleft()
        except IndexError:
            return None
        self.letters[id(message.delivery)] = letter
        return message

    def settle_soon(self, delivery: Delivery, outcome: Outcome) -> None:
        if outcome.state == "released":
            self.released += 1
        else:
            self.letters.pop(id(delivery)).conclude(outcome.state, outcome.reason)


class Messenger:
    """A messenger whose messages arrive at once, in the thread that puts them, or wait until the peer is there."""

    def __init__(self, office: Office, name: str) -> None:
        self.name = name
        self.office = office
        self.targets: dict[str, Target] = {}
        self.is_full = False

    @property
    def peers(self) -> set[str]:
        return {*self.office.messengers}

    def open_target(self, name: str, on_arrival: Callable[[], None], **options: Any) -> Target:
        self.targets[name] = Target(on_arrival)
        self.office.deliver()
        return self.targets[name]

    def put(
        self, to: str, message: Message, *, target: str, ttl: float, id: str = "", correlation_id: str = ""
    ) -> Letter:
        if self.is_full:
            raise JournalFull("the queue has no room")
        id = id or f"message {len(self.office.sent)}"
        properties = Properties(id=id, to=to, correlation_id=correlation_id, source=self.name)
        letter = Letter(id)
        self.office.bag.append((to, target, message.encode(), properties, 1, letter))
        self.office.sent.append((target, message.type, ttl))
        self.office.deliver()
        return letter


class Office:
    """Delivers what messengers put."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.messengers: dict[str, Messenger] = {}
        self.bag: deque[tuple[str, str, str, Properties, int, Letter]] = deque()
        self.sent: list[tuple[str, str, float]] = []
        """The target, type and time to live of each message."""
        self.closed: set[str] = set()
        """Targets that nothing is delivered to."""

    def messenger(self, name: str) -> Messenger:
        self.messengers[name] = Messenger(self, name)
        return self.messengers[name]

    def deliver(self) -> None:
        for _ in range(len(self.bag)):
            with self.lock:
                target = self.deliver_next()
            if target is not None:
                target.on_arrival()

    def deliver_next(self) -> Target | None:
        if not self.bag:
            return None
        to, target_name, text, properties, count, letter = self.bag.popleft()
        if letter.state != "pending":
            return None
        messenger = self.messengers.get(to)
        target = messenger.targets.get(target_name) if messenger else None
        if target is None or target_name in self.closed:
            self.bag.append((to, target_name, text, properties, count, letter))
            return None
        letter.buffered = False
        message = Message.decode(text)
        message.properties = properties
        message.delivery = Delivery("queue", 1, count, text.encode(), key=f"key of {properties.source}")
        target.waiting.append((message, letter))
        return target

    def count(self, kind: str) -> int:
        return sum(kind == sent for _, sent, _ in self.sent)


class NoSuchArea(Exception):
    """An exception that only the called side knows."""


class Areas:
    """Something to call."""

    secret = "of no concern to others"

    def __init__(self) -> None:
        self.sizes = {"euro4": [1024, 1024]}
        self.called: list[str] = []
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.calls: list[CallContext] = []

    @public
    def size(self, area: str) -> list[int]:
        self.called.append(area)
        return self.sizes[area]

    @public
    def add(self, area: str, *, width: int, height: int = 1) -> None:
        self.sizes[area] = [width, height]

    @public
    def echo(self, value: Any) -> Any:
        return value

    @public
    def wait(self) -> str:
        """Go on until the test says so, or nobody is interested any more."""
        self.called.append("wait")
        self.calls.append(current_call())
        self.began.set()
        while not self.may_end.wait(0.005) and not current_call().cancelled:
            pass
        return "waited"

    @public
    def count(self, number: int) -> Iterator[int]:
        self.calls.append(current_call())
        for value in range(number):
            self.called.append(str(value))
            yield value
        return "counted"

    @public
    def tell(self, number: int) -> str:
        for value in range(number):
            current_call().progress(value)
        return "told"

    @public
    def fail(self, kind: str) -> None:
        raise {"built in": KeyError(kind), "own": NoSuchArea("euro5"), "exit": SystemExit(3)}[kind]

    @public
    def unspeakable(self) -> object:
        return object()

    @public
    @staticmethod
    def without_self() -> int:
        return 1

    def not_public(self) -> None:
        raise AssertionError

    def _private(self) -> None:
        raise AssertionError


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def alice(office: Office) -> Any:
    """Return the messenger of who calls."""
    return office.messenger("alice")


@pytest.fixture
def bob(office: Office) -> Any:
    """Return the messenger of who is called."""
    return office.messenger("bob")


@pytest.fixture
def thing() -> Iterator[Areas]:
    areas = Areas()
    yield areas
    areas.may_end.set()


@pytest.fixture
def server(bob: Any, thing: Areas) -> Iterator[RpcServer]:
    with RpcServer(bob) as server:
        server.register(thing, "areas")
        yield server
        thing.may_end.set()


@pytest.fixture
def client(alice: Any) -> Iterator[RpcClient]:
    with RpcClient(alice, timeout=5 * UNIT) as client:
        yield client


@pytest.fixture
def areas(client: RpcClient, server: RpcServer) -> Proxy:
    return client.proxy("bob", "areas")


def redelivered(bob: Messenger, proxy_call: Callable[[], Any], repeated: bool = False) -> None:
    """Have the requests that bob has got come again, as they do when he is restarted before he answered."""
    office = bob.office
    office.closed.add("requests")
    proxy_call()
    for _ in range(len(office.bag)):
        to, target, text, properties, _, letter = office.bag.popleft()
        office.bag.append((to, target, text, properties, 2, letter))
    office.closed.clear()
    office.deliver()


def test_a_call_returns_what_the_method_returns(areas: Proxy) -> None:
    assert areas.size("euro4") == [1024, 1024]


def test_arguments_may_have_names(areas: Proxy) -> None:
    result = areas.add("baltic", width=640, height=960)

    assert result is None
    assert areas.size(area="baltic") == [640, 960]


@pytest.mark.parametrize("value", [None, 1.5, "text", ["a", {"b": []}], {"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}])
def test_what_a_message_can_hold_can_be_given_and_returned(areas: Proxy, value: Any) -> None:
    assert areas.echo(value) == value


def test_functions_are_called_without_the_name_of_an_object(client: RpcClient, server: RpcServer) -> None:
    @server.function
    def double(number: int) -> int:
        return 2 * number

    server.register_function(lambda: "other", "another")
    bob = client.proxy("bob")

    assert double(2) == 4
    assert (bob.double(4), bob.another()) == (8, "other")


def test_a_static_method_can_be_public(areas: Proxy) -> None:
    assert areas.without_self() == 1


def test_a_call_waits_for_the_peer_to_appear(office: Office, client: RpcClient, thing: Areas) -> None:
    with in_background(lambda: client.proxy("bob", "areas").size("euro4")) as size:
        assert size.is_pending()
        server = RpcServer(office.messenger("bob"))  # type: ignore[arg-type]
        server.register(thing, "areas")
        with server:
            assert size.result() == [1024, 1024]


def test_both_ends_can_be_called_at_once(alice: Any, bob: Any, client: RpcClient, server: RpcServer) -> None:
    with RpcServer(alice) as at_alice:
        at_alice.register_function(lambda number: number + 1, "increase")
        backwards = RpcClient(bob).proxy("alice")
        server.register_function(lambda number: 10 * backwards.increase(number), "increase_a_lot")

        assert client.proxy("bob").increase_a_lot(4) == 50


def test_several_clients_can_use_one_messenger(alice: Any, areas: Proxy) -> None:
    other = RpcClient(alice).proxy("bob", "areas")

    assert areas.echo(1) == 1
    assert other.echo(2) == 2
    assert areas.echo(3) == 3


def test_calls_come_from_any_thread(areas: Proxy) -> None:
    with ExitStack() as stack:
        results = [stack.enter_context(in_background(lambda number=number: areas.echo(number))) for number in range(20)]

        assert [one.result() for one in results] == list(range(20))


def test_a_call_has_the_same_id_at_both_ends(areas: Proxy, thing: Areas, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "posttroll.rpc")
    call = areas.wait.start()
    thing.began.wait(5 * UNIT)
    thing.may_end.set()
    call.result()

    assert thing.calls[0].id == call.id
    assert f"call {call.id} of areas.wait by alice" in caplog.text


def test_a_handler_knows_who_calls(areas: Proxy, thing: Areas) -> None:
    areas.count.start(0).result()

    assert (thing.calls[0].peer, thing.calls[0].key) == ("alice", "key of alice")


def test_there_is_no_current_call_but_in_a_handler() -> None:
    with pytest.raises(LocalProtocolError):
        current_call()


def test_proxies_tell_what_they_stand_for(areas: Proxy, client: RpcClient) -> None:
    assert repr(areas) == "<proxy of areas at bob>"
    assert repr(client.proxy("bob")) == "<proxy of the functions at bob>"
    assert repr(areas.size) == "<method areas.size at bob>"
    assert " of areas.size at bob>" in repr(areas.size.start("euro4"))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("areas", "nothing"),
        ("areas", "not_public"),
        ("areas", "secret"),
        ("areas", "size.__call__"),
        ("areas", "__init__"),
        ("areas", "_private"),
        ("areas.size", "__call__"),
        ("nothing", "size"),
        ("", "size"),
        ("", "eval"),
    ],
)
def test_what_is_not_public_is_not_found_and_counted(
    client: RpcClient, server: RpcServer, name: str, method: str
) -> None:
    remote = RemoteMethod(client, "bob", name, method, client._options)

    with pytest.raises(MethodNotFound, match="there is no public"):
        remote()

    assert server.dropped == {"unknown method": 1}
    assert client.proxy("bob", "areas").echo(1) == 1


def test_private_methods_are_not_even_asked_for(areas: Proxy) -> None:
    with pytest.raises(AttributeError):
        areas._private()


@pytest.mark.parametrize("name", ["_private", "x" * 300])
def test_what_is_private_cannot_be_offered(server: RpcServer, name: str) -> None:
    with pytest.raises(ConfigurationError):
        server.register_function(print, name)


def test_an_object_without_public_methods_cannot_be_offered(server: RpcServer) -> None:
    with pytest.raises(ConfigurationError, match="no method that is marked as public"):
        server.register(object(), "object")


def test_an_object_that_has_any_attribute_asked_for_offers_nothing_by_that(server: RpcServer) -> None:
    class Anything:
        def __getattr__(self, name: str) -> Any:
            return Anything()

    anything = Anything()
    anything.attribute = Anything()

    with pytest.raises(ConfigurationError):
        server.register(anything, "anything")


def test_an_object_needs_a_name(server: RpcServer) -> None:
    with pytest.raises(ConfigurationError):
        server.register(Areas(), "")


def test_nothing_is_offered_twice(server: RpcServer) -> None:
    with pytest.raises(ConfigurationError, match="already"):
        server.register(Areas(), "areas")


def test_wrong_arguments_are_told_to_the_caller(areas: Proxy) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        areas.size()


@pytest.mark.parametrize("data", ["text", {}, {"object": "areas", "method": "size"}, [[[[]]]]])
def test_what_is_no_request_is_rejected(alice: Any, areas: Proxy, server: RpcServer, data: Any) -> None:
    letter = alice.put("bob", Message("/rpc", "request", data), target="requests", ttl=1)

    eventually(lambda: letter.state == "rejected")
    assert server.dropped == {"not a request": 1}
    assert areas.echo(1) == 1


def test_another_kind_of_message_is_no_request(alice: Any, areas: Proxy) -> None:
    letter = alice.put("bob", Message("/rpc", "flow", {"taken": 1}), target="requests", ttl=1)

    eventually(lambda: letter.state == "rejected")


def test_a_caller_whose_request_is_rejected_is_told(areas: Proxy, bob: Any) -> None:
    with pytest.raises(RemoteError, match="the call was refused: not a valid request"):
        areas.echo(*range(1001))


def test_too_many_arguments_do_no_harm(areas: Proxy) -> None:
    with pytest.raises(RemoteError, match="refused"):
        areas.add("euro4", **{f"argument{number}": 1 for number in range(2000)})

    assert areas.echo(1) == 1


@pytest.mark.parametrize("kind", ["nonsense", "cancel", "flow"])
def test_notices_of_unknown_calls_do_no_harm(alice: Any, areas: Proxy, kind: str) -> None:
    letter = alice.put("bob", Message("/rpc", kind, {"taken": 1}), target="cancellations", ttl=1, correlation_id="x")

    assert letter.state == "accepted"
    assert areas.echo(1) == 1


def test_what_was_cancelled_early_is_remembered_within_bounds(alice: Any, server: RpcServer) -> None:
    for number in range(1500):
        alice.put("bob", Message("/rpc", "cancel", {}), target="cancellations", ttl=1, correlation_id=f"call {number}")

    assert len(server._early) == 1000


def test_a_built_in_exception_arrives_as_itself_with_the_remote_traceback(areas: Proxy) -> None:
    with pytest.raises(KeyError, match="built in") as caught:
        areas.fail("built in")

    assert "in fail" in caught.value.remote_traceback


def test_another_exception_arrives_by_its_name(areas: Proxy) -> None:
    with pytest.raises(RemoteError, match="NoSuchArea: euro5") as caught:
        areas.fail("own")

    assert caught.value.type == "NoSuchArea"
    assert "in fail" in caught.value.remote_traceback


def test_a_handler_that_wants_to_exit_ends_its_call_only(areas: Proxy) -> None:
    for _ in range(10):
        with pytest.raises(RemoteError, match="SystemExit: 3"):
            areas.fail("exit")

    assert areas.echo(1) == 1


def test_remote_tracebacks_can_be_kept_back(bob: Any, client: RpcClient, thing: Areas) -> None:
    with RpcServer(bob, transfer_tracebacks=False) as server:
        server.register(thing, "areas")

        with pytest.raises(KeyError) as caught:
            client.proxy("bob", "areas").fail("built in")

    assert caught.value.remote_traceback == ""


def test_remote_exceptions_can_be_kept_back_and_are_logged_then(
    bob: Any, client: RpcClient, thing: Areas, caplog: pytest.LogCaptureFixture
) -> None:
    with RpcServer(bob, transfer_exceptions=False) as server:
        server.register(thing, "areas")
        areas = client.proxy("bob", "areas")

        with pytest.raises(RemoteError) as caught:
            areas.fail("built in")
        with pytest.raises(MethodNotFound):
            areas.nothing()

    assert (str(caught.value), caught.value.type, caught.value.remote_traceback) == ("the call failed", "", "")
    assert "KeyError: 'built in'" in caplog.text


def test_a_result_that_cannot_be_written_is_told_of(areas: Proxy) -> None:
    with pytest.raises(RemoteError, match=r"EncodeError: .* not JSON serializable"):
        areas.unspeakable()


def test_an_argument_that_cannot_be_written_is_told_of_here(areas: Proxy, office: Office) -> None:
    with pytest.raises(EncodeError):
        areas.echo(object())

    assert office.sent == []


def test_a_result_that_is_refused_is_told_of(office: Office, areas: Proxy, bob: Any, alice: Any) -> None:
    office.closed.add("replies")
    call = areas.echo.start(1)
    (_, _, _, _, _, letter) = eventually(lambda: office.bag and office.bag[0])
    letter.conclude("rejected", "too large")
    office.closed.clear()
    office.deliver()

    with pytest.raises(RemoteError, match="the result was refused: too large"):
        call.result()


def test_a_caller_who_cannot_be_answered_has_its_request_rejected(
    areas: Proxy, thing: Areas, server: RpcServer, bob: Any
) -> None:
    call = areas.wait.start()
    thing.began.wait(5 * UNIT)
    bob.is_full = True
    thing.may_end.set()

    with pytest.raises(RemoteError, match="refused: no answer: the queue has no room"):
        call.result()
    assert server.dropped == {"not answered": 1}


@pytest.mark.parametrize("kind", ["request", "nonsense"])
def test_a_reply_that_is_none_ends_the_call(bob: Any, client: RpcClient, kind: str) -> None:
    call = client.proxy("bob", "areas").size.start("euro4")

    bob.put("alice", Message("/rpc", kind, {}), target="replies", ttl=1, correlation_id=call.id)

    with pytest.raises(RemoteProtocolError):
        call.result()


def test_a_reply_to_nothing_does_no_harm(areas: Proxy, bob: Any) -> None:
    letter = bob.put("alice", Message("/rpc", "result", {"value": 1}), target="replies", ttl=1, correlation_id="x")

    assert letter.state == "accepted"
    assert areas.echo(2) == 2


def test_a_call_that_nobody_answers_ends_in_time(client: RpcClient) -> None:
    nobody = client.proxy("nobody", "areas", timeout=SHORT)
    began = time.monotonic()

    with pytest.raises(RequestTimeout, match=r"nobody did not answer areas.size within .* s, it was not reached"):
        nobody.size("euro4")

    assert SHORT <= time.monotonic() - began < SHORT + 2 * UNIT


def test_a_call_that_takes_too_long_ends_in_time_at_both_ends(areas: Proxy, thing: Areas, server: RpcServer) -> None:
    with pytest.raises(RequestTimeout, match=r"bob did not answer areas.wait within .* s$"):
        areas.options(timeout=SHORT).wait()

    eventually(lambda: server.active == 0)
    assert thing.calls[0].cancelled


def test_a_timeout_of_the_result_leaves_the_call_as_it_is(areas: Proxy, thing: Areas) -> None:
    call = areas.wait.start()

    with pytest.raises(TimedOut, match=r"bob has not answered areas.wait after"):
        call.result(timeout=SHORT)
    is_done = call.done()
    thing.may_end.set()

    assert not is_done
    assert call.result() == "waited"
    assert call.done()


def test_who_was_interrupted_while_taking_a_result_can_take_it_again(areas: Proxy, thing: Areas) -> None:
    call = areas.size.start("euro4")
    result = call.result()

    call._end_awaited.acquire()  # as if the interruption came before that is given back

    assert call.result(timeout=SHORT) == result
    assert call.done()


def test_in_the_child_of_a_fork_there_is_nothing_to_stop(client: RpcClient, areas: Proxy, server: RpcServer) -> None:
    areas.size.start("euro4").result()

    with server._turn:  # as another thread may have done at the fork
        told = [in_child(end) for end in (server.stop, client.stop)]

    assert told == ["None", "None"]


def test_nobody_needs_to_wait_for_a_call_to_be_over(client: RpcClient) -> None:
    call = client.proxy("nobody", "areas", timeout=SHORT).size.start("euro4")

    eventually(call.done)

    with pytest.raises(RequestTimeout):
        call.result()


def test_a_handler_knows_its_deadline(areas: Proxy, thing: Areas) -> None:
    areas.options(timeout=7, max_retries=1).count.start(0).result()

    assert 13 < thing.calls[0].remaining <= 14


def test_a_handler_can_wait_for_the_deadline(areas: Proxy, server: RpcServer) -> None:
    waited: list[bool] = []
    server.register_function(lambda: waited.extend([current_call().wait(0.001), current_call().wait()]), "wait")

    with pytest.raises(RequestTimeout):
        areas._client.proxy("bob", timeout=SHORT).wait()

    eventually(lambda: waited == [False, True])


def test_what_was_asked_again_is_not_run_twice(areas: Proxy, thing: Areas, office: Office, server: RpcServer) -> None:
    call = areas.options(timeout=SHORT, max_retries=100).wait.start()
    with in_background(call.result) as result:
        eventually(lambda: office.count("request") >= 3)
        thing.may_end.set()

        assert result.result() == "waited"
    assert thing.called == ["wait"]
    eventually(lambda: server.active == 0)


def test_all_attempts_together_take_as_long_as_was_asked_for(areas: Proxy, office: Office) -> None:
    began = time.monotonic()

    with pytest.raises(RequestTimeout):
        areas.options(timeout=SHORT, max_retries=2).wait()

    assert 3 * SHORT <= time.monotonic() - began < 3 * SHORT + 2 * UNIT
    assert office.count("request") == 3


def test_what_was_not_sent_need_not_be_asked_again(client: RpcClient, office: Office) -> None:
    with pytest.raises(RequestTimeout):
        client.proxy("nobody", "areas", timeout=SHORT, max_retries=2).size("euro4")

    assert office.count("request") == 1
    assert office.sent[0][2] == pytest.approx(3 * SHORT, rel=0.1)


@pytest.mark.parametrize(
    "options",
    [{"timeout": 0}, {"timeout": -1}, {"timeout": float("inf")}, {"ttl": 0}, {"max_retries": -1}, {"color": 1}],
)
def test_options_that_make_no_sense_are_refused(client: RpcClient, options: Any) -> None:
    with pytest.raises(ConfigurationError):
        client.proxy("bob", "areas", **options)


def test_at_least_one_worker_is_needed(bob: Any) -> None:
    with pytest.raises(ConfigurationError):
        RpcServer(bob, workers=0)


def test_a_call_that_may_have_been_executed_is_not_run_again(
    areas: Proxy, thing: Areas, bob: Any, server: RpcServer
) -> None:
    started: list[Any] = []

    redelivered(bob, lambda: started.append(areas.size.start("euro4")))

    with pytest.raises(CallInterrupted, match=r"areas.size was interrupted"):
        started[0].result()
    assert thing.called == []
    assert server.dropped == {"interrupted": 1}


def test_an_idempotent_call_is_run_again(areas: Proxy, thing: Areas, bob: Any) -> None:
    started: list[Any] = []

    redelivered(bob, lambda: started.append(areas.options(idempotent=True).size.start("euro4")))

    assert started[0].result() == [1024, 1024]
    assert thing.called == ["euro4"]


def test_a_call_that_comes_again_while_it_is_under_way_is_not_run_twice(
    areas: Proxy, thing: Areas, bob: Any, alice: Any, server: RpcServer
) -> None:
    call = areas.options(idempotent=True).wait.start()
    thing.began.wait(5 * UNIT)
    kind, data = calls.encode(msgspec.structs.replace(call._request, repeated=True))
    again = alice.put("bob", Message("/rpc", kind, data), target="requests", ttl=1, id=call.id)
    eventually(lambda: len(thing.calls[0]._messages) == 2)
    thing.may_end.set()

    assert call.result() == "waited"
    eventually(lambda: again.state == "accepted")
    assert thing.called == ["wait"]
    assert server.active == 0


def test_a_repeated_request_of_an_unknown_call_may_have_been_executed(areas: Proxy, alice: Any) -> None:
    call = areas._client.proxy("nobody", "areas").size.start("euro4")
    kind, data = calls.encode(msgspec.structs.replace(call._request, repeated=True))

    alice.put("bob", Message("/rpc", kind, data), target="requests", ttl=1, id=call.id)

    with pytest.raises(CallInterrupted):
        call.result()


def test_a_caller_that_vanishes_leaves_nothing_behind(areas: Proxy, office: Office, server: RpcServer) -> None:
    office.closed.add("replies")
    call = areas.echo.start(1)
    (_, _, _, _, _, letter) = eventually(lambda: office.bag and office.bag[0])
    held = server.active

    letter.conclude("expired")

    assert held == 1
    assert server.active == 0
    assert call is not None


def test_the_answer_is_kept_as_long_as_the_caller_is_interested(areas: Proxy, office: Office) -> None:
    areas.options(timeout=3, max_retries=1).echo(1)

    (ttl,) = [ttl for _, kind, ttl in office.sent if kind == "result"]
    assert 5 < ttl <= 6


def test_a_signal_returns_at_once_and_is_not_answered(areas: Proxy, thing: Areas, office: Office) -> None:
    result = areas.add.signal("baltic", width=640)

    assert result is None
    eventually(lambda: "baltic" in thing.sizes)
    assert office.count("result") == 0


def test_a_signal_that_fails_is_not_answered_either(areas: Proxy, office: Office, server: RpcServer) -> None:
    areas.fail.signal("built in")
    areas.nothing.signal()

    eventually(lambda: server.dropped == {"unknown method": 1} and server.active == 0)
    assert office.count("error") == 0


def test_where_a_signal_failed_is_logged_as_nobody_is_told(areas: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    areas.fail.signal("built in")

    eventually(lambda: "Traceback" in caplog.text)
    assert caplog.records[-1].levelno == logging.ERROR


def test_what_a_caller_is_told_in_full_is_logged_in_a_line(areas: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    with pytest.raises(KeyError):
        areas.fail("built in")

    told = [record for record in caplog.records if "areas.fail by alice failed: KeyError" in record.getMessage()]
    assert [(record.levelno, record.exc_info) for record in told] == [(logging.INFO, None)]


def test_a_signal_has_a_time_to_live(client: RpcClient, office: Office) -> None:
    client.proxy("nobody", "areas", ttl=0.5).size.signal("euro4")
    client.proxy("nobody", "areas", timeout=3).size.signal("euro4")

    assert [ttl for _, _, ttl in office.sent] == [0.5, 3]


def test_a_signal_is_not_run_again_unless_it_is_idempotent(areas: Proxy, thing: Areas, bob: Any) -> None:
    redelivered(bob, lambda: areas.size.signal("euro4"))
    redelivered(bob, lambda: areas.options(idempotent=True).size.signal("baltic"))

    eventually(lambda: thing.called == ["baltic"])


def test_a_cancellation_reaches_the_handler(areas: Proxy, thing: Areas, server: RpcServer) -> None:
    call = areas.wait.start()
    thing.began.wait(5 * UNIT)

    was_cancelled = call.cancel(), call.cancel()

    assert was_cancelled == (True, False)
    eventually(lambda: server.active == 0)
    assert thing.calls[0].cancelled
    with pytest.raises(CallCancelled):
        call.result()


def test_a_request_that_is_on_nobodys_way_is_taken_back(client: RpcClient, office: Office) -> None:
    call = client.proxy("nobody", "areas").size.start("euro4")

    call.cancel()

    assert office.count("cancel") == 0
    office.deliver()
    assert not office.bag


def test_what_was_cancelled_before_it_began_is_not_run(bob: Any, client: RpcClient, thing: Areas) -> None:
    with RpcServer(bob, workers=1) as server:
        server.register(thing, "areas")
        areas = client.proxy("bob", "areas")
        first, second = areas.wait.start(), areas.size.start("euro4")
        thing.began.wait(5 * UNIT)

        second.cancel()
        thing.may_end.set()

        assert first.result() == "waited"
        assert areas.echo(1) == 1
    assert thing.called == ["wait"]


def test_a_handler_that_waits_is_woken(server: RpcServer, client: RpcClient) -> None:
    began = threading.Event()
    waited: list[bool] = []

    @server.function
    def sleep() -> None:
        began.set()
        waited.append(current_call().wait(60))

    call = client.proxy("bob").sleep.start()
    began.wait(5 * UNIT)
    call.cancel()

    eventually(lambda: waited == [True])


def test_a_client_that_stops_cancels_its_calls(areas: Proxy, client: RpcClient, thing: Areas) -> None:
    with in_background(areas.wait) as result:
        thing.began.wait(5 * UNIT)

        client.stop()

        with pytest.raises(CallCancelled):
            result.result()
    eventually(lambda: thing.calls[0].cancelled)


def test_a_call_that_nobody_holds_is_forgotten(client: RpcClient) -> None:
    call = client.proxy("nobody", "areas").size.start("euro4")
    known = len(client._replies.calls)

    del call
    gc.collect()

    assert (known, len(client._replies.calls)) == (1, 0)


def test_what_a_method_yields_can_be_iterated(areas: Proxy) -> None:
    assert list(areas.count.stream(1000)) == list(range(1000))


def test_what_a_generator_returns_is_the_result(areas: Proxy) -> None:
    call = areas.count.start(3)

    assert list(call.progress()) == [0, 1, 2]
    assert call.result() == "counted"


def test_a_handler_tells_how_far_it_is(areas: Proxy) -> None:
    call = areas.tell.start(3)

    assert list(call.progress()) == [0, 1, 2]
    assert call.result() == "told"
    assert list(areas.tell.stream(2)) == [0, 1]


def test_progress_that_nobody_looks_at_costs_nothing(areas: Proxy, office: Office) -> None:
    assert areas.tell(1000) == "told"
    assert office.count("progress") == 0


def test_a_handler_does_not_wait_for_one_who_does_not_look(areas: Proxy, office: Office) -> None:
    call = areas.tell.start(1000)

    eventually(call.done)
    assert office.count("progress") == 100


def test_a_generator_waits_for_one_who_looks_slowly(areas: Proxy, thing: Areas) -> None:
    values = areas.count.stream(1000)

    first = next(values)
    eventually(lambda: len(thing.called) == 101)
    last = list(values)[-1]

    assert (first, last) == (0, 999)
    assert len(thing.called) == 1000


def test_a_generator_waits_no_longer_for_one_who_wants_the_result(areas: Proxy) -> None:
    assert areas.count.start(5000).result() == "counted"


def test_who_leaves_the_iteration_cancels_the_call(areas: Proxy, thing: Areas, server: RpcServer) -> None:
    for value in areas.count.stream(10**9):
        if value == 5:
            break

    eventually(lambda: server.active == 0)
    assert thing.calls[0].cancelled


def test_a_failure_after_some_values_is_raised_after_those(areas: Proxy, server: RpcServer) -> None:
    @server.function
    def halfway() -> Iterator[int]:
        yield 1
        raise ValueError("halfway")

    values = areas._client.proxy("bob").halfway.stream()

    assert next(values) == 1
    with pytest.raises(ValueError, match="halfway"):
        next(values)


def test_any_iterator_can_be_returned(areas: Proxy, server: RpcServer) -> None:
    server.register_function(lambda: iter([1, 2]), "numbers")

    assert list(areas._client.proxy("bob").numbers.stream()) == [1, 2]


def test_a_method_that_yields_is_not_called_plainly(areas: Proxy, thing: Areas) -> None:
    with pytest.raises(TypeError, match=r"areas.count yields values: call it by stream or start"):
        areas.count(3)

    assert thing.called == []


def test_a_call_that_is_run_again_does_not_repeat_its_values(areas: Proxy, bob: Any) -> None:
    call = areas.wait.start()
    for number in (0, 1, 0, 1, 2):
        data = {"number": number, "value": number}
        bob.put("alice", Message("/rpc", "progress", data), target="replies", ttl=1, correlation_id=call.id)
    values = call.progress()

    assert [next(values) for _ in range(3)] == [0, 1, 2]


def test_a_call_that_is_run_again_is_told_how_much_room_there_is(areas: Proxy, bob: Any, office: Office) -> None:
    values = areas.count.stream(1000)
    taken = [next(values) for _ in range(300)]
    told = office.count("flow")
    (call,) = list(areas._client._calls)

    data = {"number": 0, "value": 0}
    bob.put("alice", Message("/rpc", "progress", data), target="replies", ttl=1, correlation_id=call.id)

    assert (taken[-1], told, office.count("flow")) == (299, 6, 7)


def test_what_is_on_its_way_to_a_caller_that_is_away_is_bounded(areas: Proxy, thing: Areas, office: Office) -> None:
    office.closed.add("replies")
    call = areas.options(timeout=30 * UNIT).count.start(10**9)

    with in_background(call.result) as result:
        eventually(lambda: len(thing.called) == 1001)
        is_waiting = result.is_pending()
        call.cancel()
        with pytest.raises(CallCancelled):
            result.result()

    assert is_waiting
    assert len(thing.called) == 1001


def test_a_peer_that_floods_has_its_eldest_values_dropped(areas: Proxy, bob: Any) -> None:
    call = areas.wait.start()
    for number in range(1500):
        data = {"number": number, "value": number}
        bob.put("alice", Message("/rpc", "progress", data), target="replies", ttl=1, correlation_id=call.id)

    assert next(call.progress()) == 500


def test_a_handler_that_tells_of_its_progress_ends_when_nobody_cares(areas: Proxy, server: RpcServer) -> None:
    ended = threading.Event()

    @server.function
    def report() -> None:
        try:
            while True:
                current_call().progress("still here")
        finally:
            ended.set()

    call = areas._client.proxy("bob").report.start()
    next(call.progress())
    call.cancel()

    assert ended.wait(5 * UNIT)


@pytest.fixture
def packed(alice: Any, bob: Any, thing: Areas) -> Iterator[Proxy]:
    with RpcServer(bob, encoders={"msgpack": msgspec.msgpack}) as server:
        server.register(thing, "areas")
        client = RpcClient(alice, timeout=5 * UNIT, encoders={"msgpack": msgspec.msgpack, "other": msgspec.msgpack})
        yield client.proxy("bob", "areas", encoder="msgpack")


def test_another_encoder_can_be_used(packed: Proxy) -> None:
    assert packed.echo({"bytes": b"\x00\xff"}) == {"bytes": b"\x00\xff"}
    assert packed.echo(value=b"\xff") == b"\xff"


def test_another_encoder_is_used_for_values_on_the_way(packed: Proxy, office: Office) -> None:
    assert list(packed.count.stream(3)) == [0, 1, 2]


def test_json_can_be_used_beside_another_encoder(packed: Proxy) -> None:
    assert packed.options(encoder="json").echo(1) == 1


def test_an_encoder_that_the_caller_does_not_know_is_refused_here(packed: Proxy) -> None:
    with pytest.raises(ConfigurationError, match="unknown encoder 'pickle'; known: json, msgpack, other"):
        packed.options(encoder="pickle")


def test_an_encoder_that_the_peer_does_not_know_is_told_of(packed: Proxy) -> None:
    with pytest.raises(RemoteError, match="unknown encoder 'other'; known: json, msgpack"):
        packed.options(encoder="other").echo(1)


def test_arguments_that_an_encoder_cannot_read_are_told_of(packed: Proxy, alice: Any) -> None:
    call = packed._client.proxy("nobody", "areas", encoder="msgpack").echo.start(1)
    kind, data = calls.encode(msgspec.structs.replace(call._request, arguments="wQ=="))

    alice.put("bob", Message("/rpc", kind, data), target="requests", ttl=1, id=call.id)

    with pytest.raises(RemoteError, match="msgpack cannot read what came"):
        call.result()


def test_no_more_calls_are_handled_at_a_time_than_there_are_workers(bob: Any, client: RpcClient, thing: Areas) -> None:
    with RpcServer(bob, workers=2) as server:
        server.register(thing, "areas")
        waiting = [client.proxy("bob", "areas").wait.start() for _ in range(5)]
        eventually(lambda: thing.called == ["wait"] * 2)
        not_taken = len(bob.targets["requests"].waiting)
        thing.may_end.set()

        assert [call.result() for call in waiting] == ["waited"] * 5
    assert not_taken == 3


def test_the_threads_of_a_server_tell_what_they_do(server: RpcServer) -> None:
    names = {thread.name for thread in threading.enumerate()}

    assert {f"posttroll-handlers-{number}" for number in range(1, 5)} <= names


def test_stopping_a_server_waits_for_calls_under_way(areas: Proxy, thing: Areas, server: RpcServer) -> None:
    call = areas.wait.start()
    thing.began.wait(5 * UNIT)

    with in_background(server.stop) as stop:
        is_waiting = stop.is_pending()
        thing.may_end.set()

    assert is_waiting
    assert call.result() == "waited"


def test_stopping_a_server_waits_until_its_answers_have_arrived(
    areas: Proxy, office: Office, server: RpcServer
) -> None:
    office.closed.add("replies")
    call = areas.echo.start(1)
    eventually(lambda: office.count("result") == 1)

    with in_background(server.stop) as stop:
        is_waiting = stop.is_pending()
        office.closed.clear()
        office.deliver()

    assert is_waiting
    assert call.result() == 1


def test_stopping_a_server_waits_no_longer_than_it_is_told_to(
    areas: Proxy, thing: Areas, server: RpcServer, bob: Any
) -> None:
    call = areas.wait.start()
    thing.began.wait(5 * UNIT)

    server.stop(drain=0)

    assert thing.calls[0].cancelled
    assert not call.done()
    assert bob.targets["requests"].released == 1


def test_what_comes_after_the_stop_is_handled_after_a_new_start(areas: Proxy, server: RpcServer) -> None:
    server.stop()
    server.stop()
    call = areas.echo.start(1)
    was_done = call.done()

    server.start()
    server.start()

    assert not was_done
    assert call.result() == 1


def test_a_handler_may_stop_its_server(areas: Proxy, server: RpcServer) -> None:
    server.register_function(server.stop, "quit")

    areas._client.proxy("bob").quit.signal()

    eventually(lambda: not [thread for thread in threading.enumerate() if "handlers" in thread.name])


def test_what_comes_before_anything_can_be_called_waits_for_that(bob: Any, client: RpcClient, thing: Areas) -> None:
    with RpcServer(bob) as server:
        call = client.proxy("bob", "areas").echo.start(1)
        server.register(thing, "areas")

        assert call.result() == 1


def test_what_comes_before_the_start_is_handled_then(bob: Any, client: RpcClient, thing: Areas) -> None:
    server = RpcServer(bob)
    server.register(thing, "areas")
    call = client.proxy("bob", "areas").echo.start(1)

    with server:
        assert call.result() == 1
