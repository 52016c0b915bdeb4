"""The bare sockets with JSON, which both ends decode and encode: what one would write without any framework."""

import orjson

from children.calls import zmq_raw

__all__ = ["Caller", "Server"]


class Server(zmq_raw.Server):
    """A socket that replies with what it has understood."""

    def reply_to(self, request):
        return orjson.dumps(orjson.loads(request))


class Caller(zmq_raw.Caller):
    """A socket for one call at a time, and one for many."""

    def prepared(self, argument):
        return argument

    def call(self, argument):
        return orjson.loads(super().call(orjson.dumps(argument)))

    def begin(self, argument):
        result = super().begin(orjson.dumps(argument))
        return lambda: orjson.loads(result())
