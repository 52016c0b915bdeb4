"""Run a nameserver that forgets after some seconds: ``nameserver.py MAX_AGE [--no-multicast]``."""

import signal
import sys
from datetime import timedelta

from posttroll.ns import NameServer

signal.signal(signal.SIGTERM, signal.default_int_handler)
nameserver = NameServer(timedelta(seconds=float(sys.argv[1])), multicast_enabled="--no-multicast" not in sys.argv)
nameserver.run(on_ready=lambda: print("ready", flush=True))
