"""The settings and where their values come from."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import donfig
import pytest

import posttroll
from posttroll import settings
from posttroll.errors import ConfigurationError, MissingSetting
from posttroll.protocol.codec import NEWEST_VERSION, OLDEST_VERSION
from posttroll.settings import SETTINGS, Ports, config, doubtful_settings, keepalive, read, required, tell_settings

WITHOUT_DEFAULT = sorted(name for name, setting in SETTINGS.items() if setting.default is None)
WITH_DEFAULT = sorted(SETTINGS.keys() - set(WITHOUT_DEFAULT))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_has_its_default_when_it_is_not_set(name: str) -> None:
    assert read(name) == SETTINGS[name].default


@pytest.mark.parametrize("name", WITH_DEFAULT)
def test_every_default_is_a_valid_value(name: str) -> None:
    setting = SETTINGS[name]

    assert setting.parse(setting.default) == setting.default


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_says_what_it_is_for_and_what_it_takes(name: str) -> None:
    setting = SETTINGS[name]

    assert setting.help.endswith(".")
    assert setting.kind
    assert setting.environment == f"POSTTROLL_{name.upper()}"


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("nameserver_port", 1234, 1234),
        ("nameserver_port", "1234", 1234),
        ("nameserver_port", 1234.0, 1234),
        ("mc_group", "", ""),
        ("multicast_interface", "127.0.0.1", "127.0.0.1"),
        ("when_full", "block", "block"),
        ("tcp_keepalive", "1", 1),
        ("connection_heartbeat_interval", "0.5", 0.5),
        ("connection_heartbeat_interval", 0, 0.0),
        ("serve_unsecure_nameserver", "Yes", True),
        ("serve_unsecure_nameserver", 0, False),
        ("journal", "true", True),
        ("journal", 0, False),
        ("journal", "~/journals/viewer", "~/journals/viewer"),
        ("journal", Path("/journals/viewer"), "/journals/viewer"),
        ("journal_max_age", "3600", 3600.0),
        ("journal_max_size", 10_000_000_000.0, 10_000_000_000),
        ("journal_sync", "full", "full"),
        ("authorized_client_addresses", "10.0.0.1, 10.0.0.2", ("10.0.0.1", "10.0.0.2")),
        ("authorized_client_addresses", ["10.0.0.1"], ("10.0.0.1",)),
        ("authorized_client_addresses", [], ()),
        ("server_secret_key_file", Path("/keys/server.key_secret"), "/keys/server.key_secret"),
    ],
)
def test_values_are_taken_in_any_sensible_form(name: str, given: Any, value: Any) -> None:
    with config.set({name: given}):
        assert read(name) == value


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("nameserver_port", "http"),
        ("nameserver_port", 65536),
        ("nameserver_port", -1),
        ("nameserver_port", 1.5),
        ("nameserver_port", float("inf")),
        ("nameserver_port", True),
        ("nameserver_port", [1]),
        ("pub_max_port", 65537),
        ("send_high_water_mark", 0),
        ("when_full", "wait"),
        ("message_version", "v3"),
        ("message_version", 1.2),
        ("connection_heartbeat_interval", -1),
        ("connection_heartbeat_interval", "nan"),
        ("connection_heartbeat_interval", True),
        ("serve_unsecure_nameserver", "perhaps"),
        ("serve_unsecure_nameserver", [1]),
        ("journal", 5),
        ("journal", ""),
        ("journal_max_size", -1),
        ("journal_sync", "half"),
        ("max_deliveries", 0),
        ("multicast_interface", "eth0"),
        ("authorized_client_addresses", 5),
    ],
)
def test_a_wrong_value_is_told_with_its_setting_and_what_it_must_be(name: str, given: Any) -> None:
    with config.set({name: given}), pytest.raises(ConfigurationError) as caught:
        read(name)

    assert str(caught.value) == (
        f"setting {name} (POSTTROLL_{name.upper()}) is {given!r}, but must be {SETTINGS[name].kind}"
    )


def test_a_setting_can_be_set_for_a_while() -> None:
    with config.set(nameserver_port=1):
        inside = read("nameserver_port")

    assert (inside, read("nameserver_port")) == (1, 5557)


def test_a_setting_that_is_none_has_its_default() -> None:
    with config.set(nameserver_port=None):
        assert read("nameserver_port") == 5557


@pytest.mark.parametrize(
    ("name", "old_name", "text", "value"),
    [("nameserver_port", "NAMESERVER_PORT", "1234", 1234), ("mc_group", "PYTROLL_MC_GROUP", "225.0.0.1", "225.0.0.1")],
)
def test_an_old_environment_variable_counts_and_is_told_of(
    monkeypatch: pytest.MonkeyPatch, name: str, old_name: str, text: str, value: Any
) -> None:
    monkeypatch.setenv(old_name, text)

    with pytest.warns(PendingDeprecationWarning, match=f"{old_name} is deprecated, use POSTTROLL_{name.upper()}"):
        assert read(name) == value


def test_the_new_name_wins_over_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMESERVER_PORT", "1")

    with config.set(nameserver_port=2):
        assert read("nameserver_port") == 2


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_wrong_value_of_an_old_variable_is_told_under_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMESERVER_PORT", "http")

    with pytest.raises(ConfigurationError, match=r"nameserver_port \(NAMESERVER_PORT\) is 'http'"):
        read("nameserver_port")


@pytest.mark.parametrize("name", WITHOUT_DEFAULT)
def test_a_required_setting_that_is_missing_is_told_with_its_variable(name: str) -> None:
    with pytest.raises(MissingSetting) as caught:
        required(name)

    assert f"setting {name} (POSTTROLL_{name.upper()}) is missing" in str(caught.value)


def test_a_required_setting_must_not_be_empty() -> None:
    with config.set(server_secret_key_file=""), pytest.raises(KeyError):
        required("server_secret_key_file")


def test_a_required_setting_that_is_there_is_given() -> None:
    with config.set(server_secret_key_file="a"):
        assert required("server_secret_key_file") == "a"


def test_the_range_of_ports_comes_from_the_settings() -> None:
    with config.set(pub_min_port="5000", pub_max_port=5010):
        assert Ports.read() == Ports(5000, 5010)


def test_arguments_win_over_the_settings() -> None:
    with config.set(pub_min_port=5000, pub_max_port=5010):
        assert Ports.read(5005) == Ports(5005, 5010)
        assert Ports.read(None, "5006") == Ports(5000, 5006)
        assert Ports.read(0, 0) == Ports(5000, 5010)


@pytest.mark.parametrize(("minimum", "maximum"), [(5000, 5000), (5001, 5000), (-1, 5000), (5000, 65537)])
def test_a_range_without_a_port_is_refused(minimum: int, maximum: int) -> None:
    with pytest.raises(ConfigurationError, match="pub_min_port, pub_max_port"):
        Ports.read(minimum, maximum)


def test_only_the_keepalive_settings_that_are_set_are_given() -> None:
    with config.set(tcp_keepalive=1, tcp_keepalive_idle="60"):
        assert keepalive() == {"tcp_keepalive": 1, "tcp_keepalive_idle": 60}

    assert keepalive() == {}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"keepalive_intvl": 1},
            (
                "unknown setting keepalive_intvl (POSTTROLL_KEEPALIVE_INTVL) has no effect; "
                "the nearest known one is tcp_keepalive_intvl"
            ),
        ),
        ({"zzz": 1}, "unknown setting zzz (POSTTROLL_ZZZ) has no effect"),
        ({"tcp_keepalive_idle": 60}, "setting tcp_keepalive_idle has no effect unless tcp_keepalive is 1"),
        (
            {"server_secret_key_file": "a"},
            "setting server_secret_key_file has no effect without clients_public_keys_directory",
        ),
        (
            {"server_public_key_file": "a"},
            "setting server_public_key_file has no effect without client_secret_key_file",
        ),
    ],
)
def test_a_setting_without_effect_is_doubtful(given: dict[str, Any], line: str) -> None:
    with config.set(given):
        assert list(doubtful_settings()) == [line]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"config": "/etc/posttroll", "root_config": "/etc"},
        {"nameserver-port": 1},
        {"unknown": None},
        {"tcp_keepalive": 1, "tcp_keepalive_idle": 60},
        {"tcp_keepalive": "1", "tcp_keepalive_cnt": 3},
        {"server_secret_key_file": "a", "clients_public_keys_directory": "b"},
    ],
)
def test_settings_that_take_effect_are_not_doubtful(given: dict[str, Any]) -> None:
    with config.set(given):
        assert list(doubtful_settings()) == []


def test_a_doubtful_setting_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(settings, "_told", set())

    with config.set(namserver_port=1), caplog.at_level(logging.WARNING):
        settings.tell_doubtful_settings()
        settings.tell_doubtful_settings()

    assert caplog.text.count("nearest known one is nameserver_port") == 1


def read_elsewhere(name: str) -> str:
    """Return what a new process reads for a setting."""
    program = f"from posttroll.settings import read; print(read({name!r}))"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def test_a_file_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "posttroll.yaml").write_text("nameserver_port: 1234\n")
    monkeypatch.setenv("POSTTROLL_CONFIG", str(tmp_path))

    assert read_elsewhere("nameserver_port") == "1234"


def test_the_environment_wins_over_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "posttroll.yaml").write_text("nameserver_port: 1234\n")
    monkeypatch.setenv("POSTTROLL_CONFIG", str(tmp_path))
    monkeypatch.setenv("POSTTROLL_NAMESERVER_PORT", "4321")

    assert read_elsewhere("nameserver_port") == "4321"


@pytest.mark.parametrize("text", ["nameserver_port: [1,\n", "- a\n", "7: 8\n"])
def test_a_bad_file_is_told_in_one_line_at_the_first_use_not_at_the_import(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    program = [sys.executable, "-P", "-c", "from posttroll.ns import main; raise SystemExit(main([]))"]

    ended = subprocess.run(program, env={**os.environ, "POSTTROLL_CONFIG": str(path)}, capture_output=True, text=True)

    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith("nameserver: settings in ")
    assert f"{path} cannot be used: " in ended.stderr


def test_a_file_that_is_not_there_is_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTTROLL_CONFIG", "/nonexistent/posttroll.yaml")

    assert list(doubtful_settings()) == [
        "POSTTROLL_CONFIG has no effect: /nonexistent/posttroll.yaml is not there or cannot be read"
    ]


def test_all_settings_can_be_told_and_wrong_ones_are_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    with config.set(max_message_size="64MB"):
        tell_settings()

    assert "setting nameserver_port is 5557" in caplog.messages
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "setting max_message_size (POSTTROLL_MAX_MESSAGE_SIZE) is '64MB', but must be a number of bytes"
    ]


def run_unconfigured(program: str, home: Path, **environment: str) -> str:
    """Return what a program prints in a new process whose environment says nothing of posttroll but what is given."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("POSTTROLL_")}
    plain |= {"HOME": str(home), **environment}
    done = subprocess.run([sys.executable, "-c", program], env=plain, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_nothing_is_loaded_to_read_settings_when_nothing_is_configured(tmp_path: Path) -> None:
    program = (
        "import sys; from posttroll.settings import read; "
        "print(read('backend'), *{'donfig', 'yaml'} & sys.modules.keys())"
    )

    assert run_unconfigured(program, tmp_path) == "unsecure_zmq"


def test_what_is_set_after_a_setting_was_read_counts(tmp_path: Path) -> None:
    program = (
        "from posttroll import settings; first = settings.read('nameserver_port'); "
        "settings.config.set(nameserver_port=1); print(first, settings.read('nameserver_port'))"
    )

    assert run_unconfigured(program, tmp_path) == "5557 1"


def test_a_file_in_the_home_directory_counts(tmp_path: Path) -> None:
    (tmp_path / ".config" / "posttroll").mkdir(parents=True)
    (tmp_path / ".config" / "posttroll" / "posttroll.yaml").write_text("nameserver-port: 1234\n")

    assert run_unconfigured("from posttroll.settings import read; print(read('nameserver_port'))", tmp_path) == "1234"


def test_the_environment_is_read_when_the_program_starts(tmp_path: Path) -> None:
    program = (
        "import os, posttroll; os.environ['POSTTROLL_NAMESERVER_PORT'] = '1'; "
        "from posttroll.settings import read; print(read('nameserver_port'), posttroll.config.get('nameserver_port'))"
    )

    assert run_unconfigured(program, tmp_path, POSTTROLL_NAMESERVER_PORT="2") == "2 2"


def test_refreshing_reads_the_environment_again(tmp_path: Path) -> None:
    program = (
        "import os, posttroll; from posttroll.settings import read; os.environ['POSTTROLL_NAMESERVER_PORT'] = '1'; "
        "before = read('nameserver_port'); posttroll.config.refresh(); print(before, read('nameserver_port'))"
    )

    assert run_unconfigured(program, tmp_path) == "5557 1"


def test_files_are_looked_for_wherever_donfig_does(tmp_path: Path) -> None:
    program = (
        "from posttroll import config, settings; from os.path import normpath; "
        "print(set(map(normpath, settings._places())) == set(map(normpath, config.paths)))"
    )

    assert run_unconfigured(program, tmp_path) == "True"


def test_the_configuration_is_one_object_of_donfigs_kind() -> None:
    assert isinstance(posttroll.config, donfig.Config)
    assert posttroll.config is settings.config


def test_the_message_versions_offered_are_those_that_messages_have() -> None:
    for version in (OLDEST_VERSION, NEWEST_VERSION):
        with config.set(message_version=version):
            assert read("message_version") == version

    assert SETTINGS["message_version"].kind == f"{OLDEST_VERSION} or {NEWEST_VERSION}"
