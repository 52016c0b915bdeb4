"""Log a warning through a handler ten times a second, until standard input ends: ``log.py TEXT``."""

import logging
import select
import sys

from posttroll.logger import PytrollHandler

logging.getLogger().addHandler(PytrollHandler("records"))
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.1)[0]:
    logging.warning(sys.argv[1])
