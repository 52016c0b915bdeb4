"""Answering calls: one JSON object a line on standard input, and one on standard output, until the input ends."""

import json
import os
import sys
import traceback

__all__ = ["serve"]


def serve(actor):
    """Call the methods of `actor` that are asked for; at the end its ``close``, if there is one."""
    # What a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        call = json.loads(line)
        try:
            answer = {"result": getattr(actor, call["method"])(**call["arguments"])}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    getattr(actor, "close", lambda: None)()
