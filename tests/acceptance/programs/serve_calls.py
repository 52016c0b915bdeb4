"""Serve calls under a name: ``serve_calls.py NAME RECORD …``; each execution of ``work`` is a line of RECORD."""

import argparse
import logging
import signal
import sys
import threading

from posttroll.messenger import Messenger
from posttroll.rpc import RpcClient, RpcServer, current_call, public

parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("record")
parser.add_argument("--link-port", type=int, default=0)
parser.add_argument("--no-nameserver", action="store_true")
parser.add_argument("--nameservers", nargs="*")
parser.add_argument("--workers", type=int, default=4)
parser.add_argument("--silence", type=float, default=10.0)
parser.add_argument("--life", default="0", help="what tells this run from the others")
options = parser.parse_args()

signal.signal(signal.SIGTERM, signal.default_int_handler)
logging.basicConfig(level=logging.WARNING)


def note(what, token):
    """Add a line to the record."""
    record.write(f"{what} {token} {options.life}\n")


def tell(what, token):
    """Print a line in one piece, as other handlers do the same."""
    sys.stdout.write(f"{what} {token}\n")
    sys.stdout.flush()


class Office:
    """What is served."""

    public_number = 7

    @public
    def echo(self, value=None):
        """Return what was given."""
        return value

    @public
    def work(self, token, seconds=0.0):
        """Note that it was called, take some time and return which life has done it."""
        note("begun", token)
        tell("begun", token)
        threading.Event().wait(seconds)
        note("done", token)
        return options.life

    @public
    def wait(self, token):
        """Wait until nobody is interested any more."""
        tell("waiting", token)
        while not current_call().wait(1.0):
            pass
        tell("cancelled", token)

    @public
    def ask_back(self, value):
        """Ask who called."""
        return client.proxy(current_call().peer, "office").echo(value)

    @public
    def key(self):
        """Return the key of who called."""
        return current_call().key

    @public
    def threads(self):
        """Return how many threads there are."""
        return threading.active_count()

    def _hidden(self):
        note("hidden", "called")

    def secret(self):
        """Be called by nobody."""
        note("secret", "called")


nameservers = False if options.no_nameserver else options.nameservers
messenger = Messenger(options.name, link_port=options.link_port, nameservers=nameservers, silence=options.silence)
with (
    open(options.record, "a", buffering=1) as record,
    messenger,
    RpcServer(messenger, workers=options.workers) as server,
):
    client = RpcClient(messenger)
    server.register(Office(), "office")
    print(f"ready {messenger.address}\n", end="", flush=True)
    messenger.run()
