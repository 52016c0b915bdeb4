"""Be a nameserver with the options given, until standard input ends."""

import os
import signal
import sys
import threading

import posttroll.ns


def _end_with_input():
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.argv[0] = "nameserver"
    posttroll.ns.main()
