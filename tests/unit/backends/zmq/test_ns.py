from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from posttroll.backends.base import Peer
from posttroll.backends.zmq.ns import (
    create_secure_zmq_nameserver_address,
    create_unsecure_zmq_nameserver_address,
    zmq_request_to_nameserver,
)
from posttroll.backends.zmq.requests import ZMQReplies
from posttroll.errors import MessageError, RequestTimeout
from posttroll.message import Message
from posttroll.settings import config
from posttroll.threads import Worker
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT

REQUEST = Message("/oper/ns", "request", {"service": "viirs"})


@pytest.mark.parametrize(
    ("nameserver", "uri"),
    [
        ("localhost", "tcp://localhost:{port}"),
        ("10.0.0.1:99", "tcp://10.0.0.1:99"),
        ("tcp://10.0.0.1", "tcp://10.0.0.1:{port}"),
        ("tcp://10.0.0.1:99", "tcp://10.0.0.1:99"),
        ("ipc:///tmp/nameserver", "ipc:///tmp/nameserver"),
    ],
)
def test_the_address_of_a_nameserver_has_the_configured_port_unless_it_has_its_own(nameserver: str, uri: str) -> None:
    with config.set(nameserver_port=1000, secure_zmq_nameserver_port=1001):
        assert create_unsecure_zmq_nameserver_address(nameserver) == uri.format(port=1000)
        assert create_secure_zmq_nameserver_address(nameserver) == uri.format(port=1001)


@contextmanager
def answering(answer: Callable[[bytes | None], bytes], backend: str = "unsecure_zmq") -> Iterator[str]:
    """Answer in the background; give the address."""
    with closing(ZMQReplies([Peer("tcp://127.0.0.1:0", backend)])) as replies:

        def answer_all(worker: Worker) -> None:
            while not worker.stopping:
                if question := replies.receive(None):
                    replies.reply(question, answer(question.frame))

        worker = Worker("posttroll-answers", answer_all, wake=replies.close).start()
        try:
            yield replies.addresses[0]
        finally:
            worker.stop()


@pytest.mark.parametrize("backend", ["unsecure_zmq", "secure_zmq"])
def test_a_nameserver_is_asked_and_replies(keys: Keys, backend: str) -> None:
    def answer(frame: bytes | None) -> bytes:
        return str(Message("/oper/ns", "info", Message.decode(frame or b"").data)).encode()

    with config.set(backend=backend, **keys.settings()), answering(answer, backend) as address:
        reply = zmq_request_to_nameserver(address, REQUEST, 5 * UNIT)

    assert (reply.type, reply.data) == ("info", {"service": "viirs"})


def test_a_silent_nameserver_is_told() -> None:
    with pytest.raises(RequestTimeout, match=r"nameserver tcp://127.0.0.1:9 did not answer within 0.1 s"):
        zmq_request_to_nameserver("tcp://127.0.0.1:9", REQUEST, 0.1)


def test_a_reply_that_is_no_message_is_told() -> None:
    with answering(lambda frame: b"rubbish") as address, pytest.raises(MessageError):
        zmq_request_to_nameserver(address, REQUEST, 5 * UNIT)
