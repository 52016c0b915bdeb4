"""Make calls as told on standard input: ``call.py NAME PEER …``.

A line there is a JSON object: the method, its arguments and the options of the call. Each call is begun at once, and
``<method> returned <JSON>`` or ``<method> raised <error> <text>`` is printed in the end.
"""

import argparse
import json
import logging
import sys
import threading

from posttroll.messenger import Messenger
from posttroll.rpc import RpcClient, RpcServer, public

parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("peer")
parser.add_argument("--behind-nat", action="store_true", help="only connect, as nobody can connect to this program")
parser.add_argument("--no-nameserver", action="store_true")
parser.add_argument("--nameservers", nargs="*")
parser.add_argument("--silence", type=float, default=10.0)
options = parser.parse_args()

logging.basicConfig(level=logging.WARNING)


class Office:
    """What is served to those who ask back."""

    @public
    def echo(self, value):
        """Return what was given."""
        return value


def call(method, arguments, how):
    """Make a call and print what comes of it."""
    try:
        outcome = f"returned {json.dumps(getattr(office.options(**how), method)(*arguments))}"
    except Exception as error:
        outcome = f"raised {type(error).__name__} {error}"
    sys.stdout.write(f"{method} {outcome}\n")  # in one piece, as others do the same
    sys.stdout.flush()


messenger = Messenger(
    options.name,
    listen=not options.behind_nat,
    nameservers=False if options.no_nameserver else options.nameservers,
    silence=options.silence,
)
with messenger, RpcServer(messenger) as server:
    server.register(Office(), "office")
    office = RpcClient(messenger).proxy(options.peer, "office")
    print(f"ready {messenger.address}\n", end="", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        arguments = (request["method"], request.get("arguments", ()), request.get("options", {}))
        threading.Thread(target=call, args=arguments, daemon=True).start()
