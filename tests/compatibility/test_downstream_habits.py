"""What programs written for released versions do with this package: the calls they make, the names they replace."""

from __future__ import annotations

import inspect
import logging
import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import zmq

import posttroll
import posttroll.address_receiver
import posttroll.backends.zmq
import posttroll.backends.zmq.ns
import posttroll.backends.zmq.socket
import posttroll.listener
import posttroll.message
import posttroll.ns
import posttroll.publisher
import posttroll.subscriber
import posttroll.subscription
from posttroll.address_receiver import AddressReceiver, get_local_ips
from posttroll.backends.zmq.publisher import ZMQPublisher
from posttroll.backends.zmq.subscriber import ZMQSubscriber
from posttroll.listener import Listener, ListenerContainer
from posttroll.message import CURRENT_MESSAGE_VERSION, Message, MessageError
from posttroll.ns import NameServer, get_pub_address, get_pub_addresses
from posttroll.publisher import NoisyPublisher, Publish, Publisher, create_publisher_from_dict_config, get_own_ip
from posttroll.settings import config
from posttroll.subscriber import NSSubscriber, Subscribe, Subscriber, create_subscriber_from_dict_config
from posttroll.testing import patched_publisher, patched_subscriber_recv
from tests.fixtures.background import in_background
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

TEXT = "pytroll://1b/viirs file user@host 2026-03-01T12:30:15 v1.01 text/ascii data"

ARGUMENTS: dict[str, Any] = {"subject": "/a", "atype": "info", "data": {"b": 1}}


@contextmanager
def publishing(port: int) -> Iterator[Publisher]:
    with closing(Publisher(f"tcp://*:{port}", "test").start()) as publisher:
        yield publisher


@pytest.mark.parametrize(
    "make",
    [
        lambda: Message("/a", "info", {"b": 1}),
        lambda: Message("/a", "info", data={"b": 1}),
        lambda: Message("/a", atype="info", data={"b": 1}),
        lambda: Message(**ARGUMENTS),
        lambda: Message.decode(Message("/a", "info", {"b": 1}).encode()),
    ],
)
def test_messages_are_made_in_all_the_ways_that_are_seen(make: Callable[[], Message]) -> None:
    message = make()

    assert (message.subject, message.type, message.data) == ("/a", "info", {"b": 1})


def test_a_message_is_made_of_its_text() -> None:
    with pytest.warns(PendingDeprecationWarning):
        message = Message(rawstr=TEXT)

    assert str(message) == TEXT


def test_a_message_has_the_attributes_that_are_read() -> None:
    message = Message.decode(TEXT)

    assert (message.user, message.host) == ("user", "host")
    assert message.head == TEXT.removesuffix(" text/ascii data")
    assert (message.time.isoformat(), message.version, message.binary) == ("2026-03-01T12:30:15", "v1.01", False)


def test_attributes_of_a_message_are_assigned() -> None:
    message = Message.decode(TEXT)

    message.subject, message.type, message.data = "/new", "dataset", {"uid": "a"}

    assert str(message).startswith("pytroll://new dataset user@host")
    assert str(message).endswith(' application/json {"uid": "a"}')


def test_private_names_of_messages_are_there() -> None:
    assert posttroll.message._MAGICK == "pytroll:/"
    assert posttroll.message.CURRENT_MESSAGE_VERSION == CURRENT_MESSAGE_VERSION == "v1.2"
    assert issubclass(MessageError, Exception)


def test_publish_takes_its_first_arguments_by_position() -> None:
    with patched_publisher() as sent, Publish("name", 0, ["alias"], 2) as publisher:
        publisher.send(TEXT)

    assert sent == [TEXT]


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "test", "port": 9999, "nameservers": False},
        {"name": "test", "port": 0, "nameservers": ["localhost"], "aliases": "a"},
        {"name": "test", "nameservers": None, "broadcast_interval": 1},
    ],
)
def test_publish_takes_a_dict_of_settings(settings: dict[str, Any]) -> None:
    with patched_publisher() as sent, Publish(**settings) as publisher:
        publisher.send(TEXT)

    assert sent == [TEXT]


def test_a_noisy_publisher_takes_its_first_arguments_by_position() -> None:
    with patched_publisher() as sent, closing(NoisyPublisher("name", 0, ["alias"], 2, ["localhost"])) as publisher:
        publisher.start()
        publisher.send(TEXT)

    assert sent == [TEXT]


def test_a_publisher_has_a_port_and_a_heartbeat(free_port: int) -> None:
    with publishing(free_port) as publisher:
        publisher.heartbeat(30)

        assert publisher.port_number == free_port


def test_sending_too_early_or_too_late_raises_what_is_caught(free_port: int) -> None:
    publisher = Publisher(f"tcp://*:{free_port}", "test")

    with pytest.raises(AttributeError):
        publisher.send(TEXT)
    publisher.start().stop()
    with pytest.raises(zmq.ZMQError):
        publisher.send(TEXT)


def test_a_port_in_use_raises_what_is_caught(free_port: int) -> None:
    with publishing(free_port), pytest.raises(zmq.ZMQError):
        Publisher(f"tcp://*:{free_port}", "other").start()


@pytest.mark.parametrize("end", ["stop", "close"])
def test_a_publisher_made_of_settings_is_started_used_and_ended(end: str) -> None:
    with patched_publisher() as sent:
        publisher = create_publisher_from_dict_config({"name": "test", "port": 9999, "nameservers": False})
        publisher.start()
        publisher.send(TEXT)
        getattr(publisher, end)()

    assert sent == [TEXT]


def test_a_publisher_without_a_name_is_a_key_error_and_an_unknown_keyword_a_type_error() -> None:
    with pytest.raises(KeyError, match="name"):
        create_publisher_from_dict_config({"port": 0})
    with pytest.raises(TypeError):
        create_publisher_from_dict_config({"port": 9999, "nameservers": False, "colour": "red"})
    with pytest.raises(TypeError):
        Subscriber("tcp://127.0.0.1:9999", colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "make", [lambda: Publisher("tcp://*:0"), lambda: Subscriber([]), NameServer, lambda: get_pub_address("x")]
)
def test_an_unknown_backend_is_not_implemented(make: Callable[[], object]) -> None:
    with config.set(backend="pigeons"), pytest.raises(NotImplementedError):
        make()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Publisher", {"name": "test", "port": 9999, "nameservers": False}),
        ("NoisyPublisher", {"name": "test"}),
    ],
)
def test_a_publisher_class_that_is_replaced_is_the_one_made(name: str, settings: dict[str, Any]) -> None:
    with mock.patch(f"posttroll.publisher.{name}") as replacement:
        publisher = create_publisher_from_dict_config(settings)
        with Publish(**settings):
            pass

    assert publisher is replacement.return_value
    assert replacement.call_count == 2


def test_publish_is_replaced_in_its_module() -> None:
    with mock.patch("posttroll.publisher.Publish") as replacement:
        assert posttroll.publisher.Publish is replacement


def test_the_own_address_comes_from_the_modules_socket() -> None:
    with mock.patch("posttroll.publisher.socket") as replacement:
        replacement.socket.return_value.getsockname.return_value = ("10.1.2.3", 1)

        assert get_own_ip() == "10.1.2.3"


def test_the_own_address_that_is_announced_is_looked_up_in_the_module(network: Network) -> None:
    # Tests of others replace it so that nothing depends on the host they run on.
    with (
        config.set(advertised_host=None),
        mock.patch("posttroll.publisher.get_own_ip", return_value="192.0.2.1") as own,
        Publish("test"),
    ):
        own.assert_called_once()


def test_subscribe_takes_its_first_arguments_by_position() -> None:
    with mock.patch("posttroll.subscriber.NSSubscriber") as replacement:
        Subscribe("service", ["/topic"], True, nameserver=None)

    arguments = replacement.call_args.kwargs
    assert (arguments["services"], arguments["topics"], arguments["addr_listener"]) == ("service", ["/topic"], True)
    assert arguments["nameserver"] == "localhost"


def test_a_subscriber_is_called_for_messages(free_port: int) -> None:
    with publishing(free_port) as publisher, closing(Subscriber(f"tcp://127.0.0.1:{free_port}", "/1b")) as subscriber:
        assert publisher.wait_for_subscriber("/1b", 5 * UNIT)
        publisher.send(TEXT)

        assert str(next(subscriber(timeout=1))) == TEXT
        assert [address["URI"] for address in subscriber.addresses] == [f"tcp://127.0.0.1:{free_port}"]


def test_a_subscriber_made_of_settings_receives_with_and_without_a_timeout(free_port: int) -> None:
    settings = {"addresses": [f"tcp://127.0.0.1:{free_port}"], "nameserver": False, "topics": "/1b", "services": ""}
    with publishing(free_port) as publisher, closing(create_subscriber_from_dict_config(settings)) as subscriber:
        assert publisher.wait_for_subscriber("/1b", 5 * UNIT)
        publisher.send(TEXT)
        publisher.send(TEXT)

        assert str(next(subscriber.recv())) == TEXT
        assert str(next(subscriber.recv(2))) == TEXT
        subscriber.stop()


def test_a_subscriber_class_that_is_replaced_is_the_one_made() -> None:
    with mock.patch("posttroll.subscriber.Subscriber") as replacement:
        subscriber = create_subscriber_from_dict_config({"addresses": ["tcp://127.0.0.1:9"], "nameserver": False})
        with Subscribe(addresses=["tcp://127.0.0.1:9"], nameserver=False):
            pass

    assert subscriber is replacement.return_value
    assert replacement.call_count == 2


def test_a_nameserver_subscriber_class_that_is_replaced_is_the_one_made() -> None:
    with mock.patch("posttroll.subscriber.NSSubscriber") as replacement:
        subscriber = create_subscriber_from_dict_config({"services": "test"})

    assert subscriber is replacement.return_value.start.return_value


def test_the_start_of_a_nameserver_subscriber_is_replaced() -> None:
    with mock.patch("posttroll.subscriber.NSSubscriber.start") as start, Subscribe("test") as subscriber:
        assert subscriber is start.return_value


def test_the_look_up_of_addresses_is_replaced(free_port: int) -> None:
    found = [{"URI": f"tcp://127.0.0.1:{free_port}"}]
    with mock.patch("posttroll.subscriber.get_pub_addresses", return_value=found), Subscribe("test") as subscriber:
        assert [address["URI"] for address in subscriber.addresses] == [f"tcp://127.0.0.1:{free_port}"]


@pytest.mark.parametrize("name", ["Subscribe", "Subscriber", "NSSubscriber", "get_pub_address", "get_pub_addresses"])
def test_names_of_the_subscriber_module_can_be_replaced(name: str) -> None:
    with mock.patch(f"posttroll.subscriber.{name}") as replacement:
        assert getattr(posttroll.subscriber, name) is replacement


@pytest.mark.parametrize("name", ["posttroll.subscriber", "posttroll.publisher"])
def test_whole_modules_are_replaced(name: str) -> None:
    replacement = mock.MagicMock()

    with mock.patch.dict(sys.modules, {name: replacement}):
        # What a program imports while its test has replaced the module.
        module = __import__(name, fromlist=["Subscribe"])

    assert module is replacement


def test_a_patched_subscriber_receives_what_is_given() -> None:
    message = Message.decode(TEXT)
    settings = {"addresses": ["tcp://127.0.0.1:9"], "nameserver": False}

    with patched_subscriber_recv([message]), closing(create_subscriber_from_dict_config(settings)) as subscriber:
        assert list(subscriber.recv()) == [message]
        assert list(subscriber.recv(1)) == [message]
        assert list(subscriber.recv(timeout=1)) == [message]


def test_a_listener_container_fills_its_queue_without_a_nameserver(free_port: int) -> None:
    with publishing(free_port) as publisher:
        container = ListenerContainer(
            topics=["/1b"], addresses=[f"tcp://127.0.0.1:{free_port}"], nameserver=False, services=""
        )
        try:
            assert publisher.wait_for_subscriber("/1b", 5 * UNIT)
            publisher.send(TEXT)

            assert str(container.output_queue.get(True, 1)) == TEXT
            with pytest.raises(queue.Empty):
                container.output_queue.get(True, 0.01)
        finally:
            container.stop()


def test_a_listener_that_is_replaced_is_the_one_run() -> None:
    with mock.patch("posttroll.listener.Listener") as replacement:
        container = ListenerContainer(["/1b"])
        container.stop()

    assert container.listener is replacement.return_value
    replacement.return_value.run.assert_called_once_with()


@pytest.mark.timeout(60 * UNIT)
def test_a_listener_container_survives_a_nameserver_that_is_away(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(posttroll.subscription._NAMESERVER_DEFAULTS, "timeout", 0.2)  # it would be 10 s
    container = ListenerContainer(["/1b"], nameserver="127.0.0.1")

    assert container.thread is not None
    assert container.thread.is_alive()
    container.stop()


def test_listeners_log_under_their_own_names(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    ListenerContainer(["/1b"], ["tcp://127.0.0.1:9"], nameserver=False).stop()

    assert {entry.name for entry in caplog.records} >= {Listener.logger.name, ListenerContainer.logger.name}
    assert ListenerContainer.logger.name == "posttroll.listener.ListenerContainer"
    assert Listener.logger.name == "posttroll.listener.Listener"


@contextmanager
def answering(look_up: Any, address: str) -> Iterator[None]:
    nameserver = NameServer()
    with in_background(lambda: nameserver.run(look_up, address)):
        try:
            yield
        finally:
            nameserver.stop()


def test_a_nameserver_answers_from_anything_that_has_get(network: Network) -> None:
    entries = [{"URI": "tcp://127.0.0.1:9", "service": ["known"]}]
    with answering({"known": entries}, "127.0.0.1"):
        assert get_pub_address("known", nameserver="127.0.0.1") == entries
        assert get_pub_address("unknown", nameserver="127.0.0.1") == ""
        assert get_pub_addresses(["known"], nameserver="127.0.0.1") == entries


def test_a_nameserver_is_asked_by_hand(network: Network) -> None:
    with answering({"known": [{"URI": "tcp://127.0.0.1:9"}]}, "127.0.0.1"):
        address = posttroll.backends.zmq.ns.create_unsecure_zmq_nameserver_address("127.0.0.1")
        request = Message("/oper/ns", "request", {"service": "known"})
        reply = posttroll.backends.zmq.ns.zmq_request_to_nameserver(address, request, 5 * UNIT)

    assert address == f"tcp://127.0.0.1:{network.nameserver}"
    assert (reply.subject, reply.type, reply.data) == ("/oper/ns", "info", [{"URI": "tcp://127.0.0.1:9"}])


def test_ports_are_told(network: Network) -> None:
    assert posttroll.ns.get_configured_unsecure_zmq_nameserver_port() == network.nameserver
    assert posttroll.ns.get_configured_nameserver_port() == network.nameserver


def test_an_address_receiver_takes_a_message_by_hand(network: Network) -> None:
    receiver = AddressReceiver(max_age=timedelta(minutes=1))
    publisher = mock.Mock()

    receiver.process_address_message(
        Message("/address/test", "info", {"URI": "tcp://127.0.0.1:9", "service": ["test"]}).encode(), publisher
    )

    assert [entry["URI"] for entry in receiver.get("test")] == ["tcp://127.0.0.1:9"]
    (text,) = publisher.send.call_args.args
    assert Message.decode(text).data["status"] is True


def test_names_of_the_address_receiver_are_replaced(network: Network) -> None:
    announcement = Message("/address/test", "info", {"URI": "tcp://127.0.0.1:9", "service": ["test"]}).encode()
    with (
        mock.patch("posttroll.address_receiver.Publish") as publish,
        mock.patch("posttroll.address_receiver.MulticastReceiver") as multicast,
    ):
        multicast.return_value.side_effect = [(announcement, ("127.0.0.1", 1)), *[TimeoutError] * 10_000]
        receiver = AddressReceiver().start()
        try:
            entry = eventually(lambda: receiver.get("test"))[0]
        finally:
            receiver.stop()

    assert entry["URI"] == "tcp://127.0.0.1:9"
    assert publish.return_value.__enter__.return_value.send.called


def test_the_message_class_of_the_address_receiver_can_be_replaced() -> None:
    with mock.patch("posttroll.address_receiver.Message") as replacement:
        assert posttroll.address_receiver.Message is replacement


def test_the_local_addresses_include_loopback() -> None:
    assert "127.0.0.1" in get_local_ips()


def test_one_context_serves_the_whole_process() -> None:
    with pytest.warns(UserWarning, match="deprecated"):
        context, same = posttroll.get_context(), posttroll.get_context()

    assert context is same is posttroll.backends.zmq.get_context()
    with context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        pull.bind("inproc://orders")
        push.connect("inproc://orders")
        push.send(b"order")

        assert pull.poll(1000)
        assert pull.recv() == b"order"


def test_a_context_put_in_place_of_the_own_is_used_and_can_be_ended(free_port: int) -> None:
    context: zmq.Context[Any] = zmq.Context()

    with (
        mock.patch("posttroll.backends.zmq.socket.get_context", return_value=context),
        publishing(free_port) as publisher,
        closing(Subscriber(f"tcp://127.0.0.1:{free_port}", "/1b")) as subscriber,
    ):
        assert publisher._publisher.publish_socket.context is context  # type: ignore[union-attr]
        assert [socket.context for socket in subscriber.subscribers] == [context]
        assert publisher.wait_for_subscriber("/1b", 5 * UNIT)
        publisher.send(TEXT)
        assert str(next(subscriber.recv(2))) == TEXT

    with in_background(context.term):
        pass


def test_sockets_of_the_zeromq_ends_are_reached() -> None:
    publisher = ZMQPublisher("tcp://127.0.0.1:*").start()
    try:
        assert isinstance(publisher.publish_socket, zmq.Socket)
        assert publisher.port_number
        subscriber = ZMQSubscriber(publisher.destination)
        try:
            assert list(subscriber.addr_sub) == [publisher.destination]
        finally:
            subscriber.close()
    finally:
        publisher.close()


def test_keys_are_generated_from_python(tmp_path: Path) -> None:
    posttroll.backends.zmq.generate_keys(["somebody", "-d", str(tmp_path)])

    assert {path.name for path in tmp_path.iterdir()} == {"somebody.key", "somebody.key_secret"}


def test_the_configuration_is_read_set_and_put_back() -> None:
    with posttroll.config.set(message_version="v1.01"):
        assert posttroll.config["message_version"] == "v1.01"

    assert posttroll.config.get("message_version", "unset") == "unset"
    assert posttroll.config["backend"] == "unsecure_zmq"


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (Publish, ["name", "port", "aliases", "broadcast_interval", "nameservers", "min_port", "max_port"]),
        (NoisyPublisher, ["name", "port", "aliases", "broadcast_interval", "nameservers", "min_port", "max_port"]),
        (Publisher, ["address", "name", "min_port", "max_port"]),
        (Subscriber, ["addresses", "topics", "message_filter", "translate"]),
        (
            NSSubscriber,
            ["services", "topics", "addr_listener", "addresses", "timeout", "translate", "nameserver"],
        ),
        (
            Subscribe,
            [
                "services",
                "topics",
                "addr_listener",
                "addresses",
                "timeout",
                "translate",
                "nameserver",
                "message_filter",
            ],
        ),
        (ListenerContainer, ["topics", "addresses", "nameserver", "services"]),
        (Listener, ["topics", "queue", "addresses", "nameserver", "services"]),
        (Message, ["subject", "atype", "data", "binary", "rawstr", "version"]),
        (get_pub_address, ["name", "timeout", "nameserver"]),
        (get_pub_addresses, ["names", "timeout", "nameserver"]),
        (NameServer, ["max_age", "multicast_enabled", "restrict_to_localhost"]),
        (AddressReceiver, ["max_age", "port", "do_heartbeat", "multicast_enabled", "restrict_to_localhost"]),
    ],
)
def test_arguments_keep_their_names_and_their_order(function: Callable[..., Any], names: list[str]) -> None:
    assert list(inspect.signature(function).parameters)[: len(names)] == names
