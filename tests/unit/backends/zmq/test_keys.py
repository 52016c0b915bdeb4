from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest
import zmq
from zmq.auth import create_certificates, load_certificate

from posttroll.backends.zmq.keys import KeyDirectory, generate_keys, load_public_key, load_secret_key
from posttroll.errors import ConfigurationError, KeyFileError
from tests.fixtures.keys import Keys


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def certificate(public: str) -> str:
    return f'metadata\ncurve\n    public-key = "{public}"\n'


def test_generated_keys_are_a_pair_that_pyzmq_reads(tmp_path: Path) -> None:
    generate_keys(["host", "-d", str(tmp_path)])

    public, nothing = load_certificate(tmp_path / "host.key")
    same_public, secret = load_certificate(tmp_path / "host.key_secret")
    assert secret is not None
    assert zmq.curve_public(secret) == public == same_public
    assert nothing is None
    assert {path.name for path in tmp_path.iterdir()} == {"host.key", "host.key_secret"}


def test_the_files_say_what_is_to_be_done_with_them(tmp_path: Path) -> None:
    generate_keys(["host", "-d", str(tmp_path)])

    assert "give it to the peers" in (tmp_path / "host.key").read_text()
    assert "**secret**" in (tmp_path / "host.key_secret").read_text()


def test_keys_go_to_the_current_directory_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["posttroll-generate-keys", "host"])

    generate_keys()

    assert (tmp_path / "host.key_secret").exists()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_secret_file_is_the_owners_alone_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    former = os.umask(mask)
    try:
        generate_keys(["host", "-d", str(tmp_path)])
    finally:
        os.umask(former)

    assert mode_of(tmp_path / "host.key_secret") == 0o600
    assert mode_of(tmp_path / "host.key") == 0o644 & ~mask


@pytest.mark.parametrize("existing", ["host.key", "host.key_secret"])
def test_files_that_exist_are_not_replaced(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")

    with pytest.raises(SystemExit, match=f"{existing} exists; choose another name, or --force"):
        generate_keys(["host", "-d", str(tmp_path)])

    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "precious"


def test_a_link_to_nowhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "host.key_secret").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SystemExit, match="exists"):
        generate_keys(["host", "-d", str(tmp_path)])

    assert not (tmp_path / "elsewhere").exists()


def test_files_that_exist_are_replaced_by_force(tmp_path: Path) -> None:
    secret = tmp_path / "host.key_secret"
    secret.write_text("old")
    secret.chmod(0o644)

    generate_keys(["host", "-d", str(tmp_path), "--force"])

    assert load_secret_key(secret)
    assert mode_of(secret) == 0o600


def test_force_works_where_there_is_nothing(tmp_path: Path) -> None:
    generate_keys(["host", "-d", str(tmp_path), "--force"])

    assert load_secret_key(tmp_path / "host.key_secret")


@pytest.mark.parametrize("directory", ["missing", "file"])
def test_a_directory_that_cannot_be_written_to_is_told_in_one_line(tmp_path: Path, directory: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SystemExit) as ended:
        generate_keys(["host", "-d", str(tmp_path / directory)])

    assert str(ended.value).startswith("posttroll-generate-keys: cannot write")
    assert str(tmp_path / directory) in str(ended.value)
    assert "\n" not in str(ended.value)


def test_a_key_pair_is_loaded(keys: Keys) -> None:
    public, secret = load_secret_key(keys.secret("server"))

    assert load_public_key(keys.public("server")) == public
    assert zmq.curve_public(secret) == public


def test_the_public_key_is_also_in_the_secret_file(keys: Keys) -> None:
    assert load_public_key(keys.secret("server")) == load_public_key(Path(keys.public("server")))


def test_a_public_file_where_the_secret_is_needed_is_told(keys: Keys) -> None:
    with pytest.raises(KeyFileError, match=r"server\.key holds no secret key; give the file that ends in \.key_secret"):
        load_secret_key(keys.public("server"))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for load in (load_public_key, load_secret_key):
        with pytest.raises(KeyFileError, match=r"nothing\.key cannot be read"):
            load(tmp_path / "nothing.key")


def test_a_directory_is_no_key_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_public_key(tmp_path)


@pytest.mark.parametrize("text", ["", "rubbish", "metadata\ncurve\n", "\x00"])
def test_a_file_without_a_key_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.key"
    path.write_text(text)

    with pytest.raises(KeyFileError, match="is no key file"):
        load_public_key(path)


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.key"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(KeyFileError, match="is no key file"):
        load_public_key(path)


@pytest.mark.parametrize("key", ["", "short", "x" * 39, "x" * 45, "~" * 40, "ä" * 40, "#" * 40])
def test_a_damaged_key_is_told(tmp_path: Path, key: str) -> None:
    path = tmp_path / "bad.key"
    path.write_text(certificate(key))

    with pytest.raises(KeyFileError, match=r"bad\.key is damaged"):
        load_public_key(path)


def test_an_error_of_a_key_file_is_of_the_configuration_and_of_the_system() -> None:
    assert issubclass(KeyFileError, ConfigurationError)
    assert issubclass(KeyFileError, OSError)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_that_others_can_read_is_warned_about(keys: Keys, caplog: pytest.LogCaptureFixture, mode: int) -> None:
    Path(keys.secret("server")).chmod(mode)

    load_secret_key(keys.secret("server"))

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "chmod it to 0600" in record.getMessage()


def test_a_secret_that_nobody_else_can_read_is_not_warned_about(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    load_secret_key(keys.secret("server"))

    assert caplog.records == []


def test_errors_and_warnings_never_show_a_secret(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(keys.secret("server"))
    path.chmod(0o644)
    _, secret = load_secret_key(path)
    damaged = secret.decode()[:-1]
    path.write_text(path.read_text().replace(secret.decode(), damaged))

    with pytest.raises(KeyFileError) as caught:
        load_secret_key(path)

    assert damaged not in f"{caught.value}{caplog.text}"


def test_a_directory_contains_the_keys_of_its_key_files(keys: Keys) -> None:
    directory = KeyDirectory(keys.clients)

    assert load_public_key(keys.public("client")) in directory
    assert load_public_key(keys.public("stranger")) not in directory
    assert "no bytes" not in directory


def test_a_key_that_is_added_counts_and_a_removed_one_does_not(keys: Keys) -> None:
    directory = KeyDirectory(str(keys.clients))
    key = load_public_key(keys.public("stranger"))
    assert key not in directory

    added = keys.clients / "added.key"
    added.write_text(Path(keys.public("stranger")).read_text())
    assert key in directory

    added.unlink()
    assert key not in directory


def test_a_key_that_is_replaced_in_place_counts_no_longer(keys: Keys, tmp_path: Path) -> None:
    directory = KeyDirectory(keys.clients)
    key = load_public_key(keys.public("client"))
    assert key in directory

    create_certificates(tmp_path, "client")
    (tmp_path / "client.key").replace(keys.clients / "client.key")

    assert key not in directory
    assert load_public_key(keys.clients / "client.key") in directory


def test_only_key_files_are_read(keys: Keys) -> None:
    (keys.clients / "client.key").rename(keys.clients / "client.txt")

    assert load_public_key(keys.public("client")) not in KeyDirectory(keys.clients)


def test_a_damaged_file_is_told_once_and_hides_no_other(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    (keys.clients / "bad.key").write_text("rubbish")
    (keys.clients / "gone.key").symlink_to("nowhere")
    directory = KeyDirectory(keys.clients)

    assert all(load_public_key(keys.public("client")) in directory for _ in range(3))

    (record,) = caplog.records
    assert "bad.key" in record.getMessage()


def test_a_directory_that_vanishes_contains_nothing(keys: Keys) -> None:
    directory = KeyDirectory(keys.clients)
    (keys.clients / "client.key").unlink()
    keys.clients.rmdir()

    assert load_public_key(keys.public("client")) not in directory


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_directory_that_is_none_is_told_with_its_setting(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(KeyFileError, match="clients_public_keys_directory"):
        KeyDirectory(tmp_path / name)
