"""The process that is called; its argument is the module in `children.calls`."""

import importlib
import sys

from children.serving import serve


class Callee:
    """A server."""

    def __init__(self, ends):
        self._server = importlib.import_module(f"children.calls.{ends}").Server()

    def address(self):
        """Return where it is called."""
        return self._server.address

    def close(self):
        """Close the end."""
        self._server.close()


if __name__ == "__main__":
    serve(Callee(sys.argv[1]))
