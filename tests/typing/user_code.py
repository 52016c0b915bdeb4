"""The calls that users write, for the type checker: it is not run."""

from collections.abc import Iterator
from datetime import UTC, datetime
from queue import Queue
from typing import assert_type

from posttroll.journal import MemoryJournal
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


def publish_and_subscribe_durably() -> None:
    with Publish(
        "a_service", journal=True, link_port=9001, on_expired=lambda name, count: print(name, count)
    ) as publisher:
        publisher.send(Message("/a/subject", "file", {"uid": "a"}), ttl=3600)
        assert_type(publisher.expired, int)
        assert_type(publisher.link_address, str | None)
        if publisher.journal is not None:
            for aside in publisher.journal.set_aside():
                publisher.journal.resend(aside.consumer, aside.sequence)
    Publisher("tcp://*:9000", journal=MemoryJournal())
    with Subscribe(
        "a_service", "/a", durable="archive", start_at=datetime.now(UTC), acknowledge="manual"
    ) as subscriber:
        for message in subscriber.recv():
            if message is not None and message.delivery is not None:
                assert_type(message.delivery.redelivered, bool)
                assert_type(subscriber.accept(message) or subscriber.reject(message, "why"), bool)
        assert_type(subscriber.replay(since=datetime.now(UTC)), Iterator[Message])
        assert_type(subscriber.missed, int)
    ListenerContainer("/a", services="a_service", durable="archive", start_at="first")


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
