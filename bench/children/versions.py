"""What is installed beside an interpreter."""

import importlib.metadata
import platform

from children.serving import serve

_PACKAGES = (
    "posttroll",
    "pyzmq",
    "orjson",
    "msgspec",
    "nats-py",
    "redis",
    "paho-mqtt",
    "pika",
    "eclipse-zenoh",
    "rpyc",
    "zerorpc",
)


class Versions:
    """What can be asked."""

    def installed(self):
        """Return the versions of Python and of the packages that matter, as a text."""
        found = [f"Python {platform.python_version()}"]
        for package in _PACKAGES:
            try:
                found.append(f"{package} {importlib.metadata.version(package)}")
            except importlib.metadata.PackageNotFoundError:
                continue
        return ", ".join(found)


if __name__ == "__main__":
    serve(Versions())
