"""CURVE keys in pyzmq's certificate files, and `posttroll-generate-keys`, which makes them."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import struct
import sys
from datetime import UTC, datetime

import zmq
from zmq.utils import z85

from posttroll.errors import KeyFileError

__all__ = ["KeyDirectory", "generate_keys", "load_public_key", "load_secret_key"]

logger = logging.getLogger(__name__)

Path = str | os.PathLike[str]

_CERTIFICATE = """\
#   ****  Made by posttroll-generate-keys on {time}  ****
#   {use}

metadata
curve
    public-key = "{public}"
"""
_PUBLIC_USE = "ZeroMQ CURVE public certificate: give it to the peers."
_SECRET_USE = "ZeroMQ CURVE **secret** certificate: keep it here, readable by nobody else."


def load_public_key(path: Path) -> bytes:
    """Return the public key (Z85 text) in a certificate file; `KeyFileError`."""
    return _load(path)[0]


def load_secret_key(path: Path) -> tuple[bytes, bytes]:
    """Return the public and the secret key in a secret certificate file; `KeyFileError`."""
    public, secret = _load(path)
    if secret is None:
        raise KeyFileError(f"{path} holds no secret key; give the file that ends in .key_secret")
    if os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        logger.warning("secret key file %s can be read by others than its owner; chmod it to 0600", path)
    return public, secret


def _load(path: Path) -> tuple[bytes, bytes | None]:
    # Imported for those who have keys: loading it takes 2 ms and 0.3 MB.
    from zmq.auth.certs import load_certificate

    try:
        public, secret = load_certificate(path)
    except OSError as error:
        raise KeyFileError(f"key file {path} cannot be read: {error.strerror or 'no such file'}") from None
    except ValueError:
        raise KeyFileError(f"{path} is no key file: it has no section curve with a public-key") from None
    for key in (public, secret):
        if key is not None and not _is_key(key):
            raise KeyFileError(f"{path} is damaged: a key is 40 characters of the Z85 alphabet")
    return public, secret


def _is_key(text: bytes) -> bool:
    try:
        return len(z85.decode(text)) == 32
    except (KeyError, ValueError, struct.error):
        return False


class KeyDirectory:
    """The public keys of a directory's ``*.key`` files as they are now: added ones count, removed ones no longer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parsed: dict[str, tuple[tuple[int, int, int], bytes | None]] = {}
        if not os.path.isdir(path):
            raise KeyFileError(f"directory of public keys {path} (clients_public_keys_directory) is not a directory")

    def __contains__(self, key: object) -> bool:
        return key in self._keys()

    def _keys(self) -> set[bytes]:
        """Read what is new or changed; forget what is gone."""
        parsed = {}
        for path in self._files():
            with contextlib.suppress(OSError):
                status = os.stat(path)
                mark = (status.st_mtime_ns, status.st_size, status.st_ino)
                known = self._parsed.get(path)
                parsed[path] = known if known and known[0] == mark else (mark, self._read(path))
        self._parsed = parsed
        return {key for _, key in parsed.values() if key is not None}

    def _files(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError, PermissionError), os.scandir(self._path) as entries:
            return [entry.path for entry in entries if entry.name.endswith(".key")]
        return []

    @staticmethod
    def _read(path: str) -> bytes | None:
        try:
            return load_public_key(path)
        except KeyFileError as error:
            logger.error("client key passed over: %s", error)
            return None


def generate_keys(args: list[str] | None = None) -> None:
    """Write ``<name>.key`` and ``<name>.key_secret``; the command `posttroll-generate-keys`."""
    # Imported for the command alone, as every process with ZeroMQ loads this module: 2 ms and 0.3 MB.
    import argparse

    parser = argparse.ArgumentParser(description="Create a pair of keys for the secure_zmq backend.")
    parser.add_argument("name", help="Name of the files, for example that of the host or of its role.")
    parser.add_argument("-d", "--directory", default=".", help="Directory to write to (default: the current one).")
    parser.add_argument("--force", action="store_true", help="Replace files that exist.")
    options = parser.parse_args(args)
    try:
        _write_pair(options.directory, options.name, force=options.force)
    except FileExistsError as error:
        sys.exit(f"posttroll-generate-keys: {error.filename} exists; choose another name, or --force to replace it")
    except OSError as error:
        sys.exit(f"posttroll-generate-keys: cannot write {error.filename or options.directory}: {error.strerror}")


def _write_pair(directory: str, name: str, *, force: bool) -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    time = datetime.now(UTC).isoformat(timespec="seconds")
    files = {
        os.path.join(directory, f"{name}.key_secret"): (
            0o600,
            _CERTIFICATE.format(time=time, use=_SECRET_USE, public=public) + f'    secret-key = "{secret}"\n',
        ),
        os.path.join(directory, f"{name}.key"): (0o644, _CERTIFICATE.format(time=time, use=_PUBLIC_USE, public=public)),
    }
    for path in files:
        if force:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        elif os.path.exists(path):
            raise FileExistsError(17, "File exists", path)
    for path, (mode, text) in files.items():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "w") as file:
            file.write(text)
