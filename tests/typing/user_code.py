"""The calls that users write, for the type checker: it is not run."""

from collections.abc import Iterator
from queue import Queue
from typing import assert_type

from posttroll.listener import ListenerContainer
from posttroll.message import Message
from posttroll.ns import NameServer, get_pub_addresses
from posttroll.publisher import NoisyPublisher, Publish, Publisher, create_publisher_from_dict_config
from posttroll.subscriber import NSSubscriber, Subscribe, Subscriber, create_subscriber_from_dict_config
from posttroll.testing import memory_bus, patched_publisher, patched_subscriber_recv


def publish() -> None:
    with Publish("a_service", 9000, aliases=["an_alias"], nameservers=["localhost"]) as publisher:
        publisher.send(Message("/a/subject", "file", {"uid": "a"}))
        publisher.send(str(Message("/a/subject", "info", "text")))
        publisher.heartbeat(30)
        assert_type(publisher.wait_for_subscriber("/a", timeout=1.0), bool)
    assert_type(create_publisher_from_dict_config({"name": "a_service"}), Publisher | NoisyPublisher)
    assert_type(Publisher("tcp://*:9000", when_full="block").start().port_number, int | None)
    NoisyPublisher("a_service", on_overrun=lambda publisher: print(publisher.overruns)).start().stop()


def subscribe() -> None:
    with Subscribe(["a_service"], topics="/a", addr_listener=True, nameserver=["one", "other"]) as subscriber:
        for message in subscriber.recv(timeout=1):
            assert_type(message, Message | None)
        subscriber.add_hook_pull("inproc://orders", lambda message: print(message.data))
    assert_type(NSSubscriber("a_service").start(), Subscriber)
    assert_type(create_subscriber_from_dict_config({"addresses": ["tcp://localhost:9000"]}), Subscriber)
    assert_type(Subscriber({"URI": "tcp://localhost:9000"})(timeout=1), Iterator[Message | None])
    assert_type(ListenerContainer(topics=["/a"], services="a_service").output_queue, Queue[Message])


def decode() -> None:
    message = Message.decode(b"pytroll://a b c@d 2020-01-01T00:00:00 v1.01")
    assert_type(message, Message)
    assert_type(message.subject, str)
    assert_type(message.encode(), str)


def serve_and_ask() -> None:
    NameServer(multicast_enabled=False).run()
    for entry in get_pub_addresses(["a_service"], timeout=1):
        print(entry["URI"])


def test() -> None:
    with patched_publisher() as sent:
        assert_type(sent, list[str])
    with patched_subscriber_recv([Message("/a", "info")]), memory_bus(seed=1, loss=0.1):
        pass
