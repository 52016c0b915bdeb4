from __future__ import annotations

import gc
import threading

import pytest

from posttroll.backends.zmq import keeper
from posttroll.backends.zmq.keeper import keep, release
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child


class Channel:
    """Counts how often it is looked after."""

    def __init__(self) -> None:
        self.looks = 0

    def look_after(self) -> None:
        self.looks += 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "_INTERVAL", 0.01)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "posttroll-keeper"]


def test_all_channels_are_looked_after_by_one_thread() -> None:
    channels = [Channel(), Channel()]
    for channel in channels:
        keep(channel)

    eventually(lambda: all(channel.looks > 2 for channel in channels))

    assert len(threads()) == 1
    for channel in channels:
        release(channel)


def test_a_channel_that_fails_does_not_end_the_care_for_others(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def look_after(self) -> None:
            raise ValueError("broken")

    broken, sound = Broken(), Channel()
    keep(broken)
    keep(sound)

    eventually(lambda: "broken" in caplog.text and sound.looks > 2)

    assert list(keeper._keeper._kept) == [sound]
    release(sound)


def test_nobody_is_looked_after_while_all_channels_will_call() -> None:
    class Waiting(Channel):
        will_call = threading.Event()

        def look_after(self) -> bool:
            super().look_after()
            self.will_call.set()
            return True

    waiting = Waiting()
    keep(waiting)
    for _ in range(3):
        assert waiting.will_call.wait(5 * UNIT)
        waiting.will_call.clear()
        assert not waiting.will_call.wait(0.1)
        keeper.call()

    release(waiting)
    assert not threads()


def test_the_thread_ends_with_the_last_channel() -> None:
    one, other = Channel(), Channel()
    keep(one)
    keep(other)

    release(one)
    assert threads()
    release(other)
    assert not threads()

    looks = one.looks
    keep(other)
    eventually(lambda: other.looks > 2)
    release(other)
    assert one.looks == looks


def test_a_channel_that_nobody_holds_is_not_kept_alive() -> None:
    staying = Channel()
    keep(staying)
    keep(Channel())

    gc.collect()

    assert list(keeper._keeper._kept) == [staying]
    release(staying)


def test_a_channel_may_be_released_twice_or_unknown() -> None:
    channel = Channel()
    keep(channel)

    release(channel)
    release(channel)
    release(Channel())

    assert not threads()


def test_the_child_of_a_fork_has_a_keeper_of_its_own() -> None:
    channel, own = Channel(), Channel()
    keep(channel)

    def looks() -> bool:
        release(channel)
        keep(own)
        eventually(lambda: own.looks > 2, 5 * UNIT)
        release(own)
        return True

    assert in_child(looks) == "True"
    assert threads()
    release(channel)
