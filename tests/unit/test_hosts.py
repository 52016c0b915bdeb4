import pytest

from posttroll.errors import ConfigurationError
from posttroll.hosts import Hosts

SETTING = "authorized_client_addresses"


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("10.1.0.0/16", "10.1.255.1", "10.2.0.1"),
        ("10.1.2.3/16", "10.1.255.1", "10.2.0.1"),
        ("fd00::/8", "fd00::1", "fe80::1"),
        ("localhost", "127.0.0.1", "10.0.0.1"),
    ],
)
def test_a_host_is_given_as_address_network_or_name(text: str, inside: str, outside: str) -> None:
    hosts = Hosts([text], SETTING)

    assert inside in hosts
    assert outside not in hosts


@pytest.mark.parametrize("address", ["", "localhost", "10.0.0", None])
def test_what_is_no_address_is_in_no_list(address: object) -> None:
    assert address not in Hosts(["localhost", "0.0.0.0/0"], SETTING)


def test_a_name_that_cannot_be_resolved_is_told_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    hosts = Hosts(["10.0.0.1", "no such host"], SETTING)

    assert "10.0.0.1" in hosts
    assert SETTING in caplog.text


@pytest.mark.parametrize("texts", [[], ["no such host"]])
def test_a_list_without_any_host_is_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=SETTING):
        Hosts(texts, SETTING)
