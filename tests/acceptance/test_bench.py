"""The benchmark, in trials too short to tell anything but that it works."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import contenders as who
from bench.__main__ import main
from bench.harness import Contender, Failure, Goal, Measurement, Plan, Results, Unavailable, Verdict, run
from bench.lines import connected, highest_rate
from bench.report import as_markdown
from bench.servers import SERVERS, Server, running

REPOSITORY = Path(__file__).resolve().parents[2]
ALPHA = Contender("this package", Path(sys.executable), "posttroll")
BETA = Contender("released", Path(sys.executable), "posttroll")


def measurement(measure, *goals):
    return Measurement("nothing", {"rate": "1/s"}, ("this package", "released"), measure, goals)


def test_the_command_measures_this_package_beside_bare_sockets(tmp_path):
    file = tmp_path / "samples.json"

    outcome = subprocess.run(
        [sys.executable, "-m", "bench", "--only", "sizes", "--rounds=1", "--seconds=0.05", "--peers", "--json", file],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert outcome.returncode == 0, outcome.stderr
    samples = json.loads(file.read_text())["measurements"]["sizes"]["samples"]
    assert {*samples["10 kB"]} == {who.OURS, who.RAW}
    assert "| this package |" in outcome.stdout


@pytest.mark.parametrize(
    "option", ["--rounds=0", "--seconds=-1", "--json=/nowhere/file", "--beside=other", "--beside=other=/nowhere/python"]
)
def test_an_option_that_cannot_be_is_refused_before_anything_is_measured(option, capsys):
    with pytest.raises(SystemExit) as ended:
        main([option])

    assert ended.value.code == 2
    assert "error: argument" in capsys.readouterr().err


def test_a_checkout_to_measure_beside_may_be_given_from_the_directory_of_the_command(monkeypatch):
    monkeypatch.chdir(REPOSITORY / "bench")

    contender = who.beside(f"before={sys.executable}:..")

    assert Path(contender.path).is_absolute()
    assert Path(contender.path).samefile(REPOSITORY)


def test_a_rate_is_that_of_messages_which_all_arrive():
    with connected(ALPHA, "file") as line:
        transfer = line.transfer(500)
        delays = line.delays(20, rate=1000.0, composed=True)

        assert transfer.received == transfer.sent == 500
        assert len(delays) == 20
        assert delays[0] > 0
        assert highest_rate(line, Plan(seconds=0.05)) > 0


def test_contenders_take_turns_in_each_round_and_another_one_begins():
    turns = []

    def measure(contender, plan):
        turns.append(contender.name)
        return {"rate": 1.0}

    run(measurement(measure), [ALPHA, BETA], Plan(rounds=2))

    assert turns == ["this package", "released", "released", "this package"]


@pytest.mark.parametrize("error", [Unavailable("no such server"), Failure("it died")])
def test_who_cannot_be_measured_is_left_out_with_a_note(error):
    def measure(contender, plan):
        if contender is BETA:
            raise error
        return {"rate": 5.0}

    results = run(measurement(measure), [ALPHA, BETA], Plan(rounds=3))

    assert results.notes == [f"released: {error}"]
    assert results.samples == {"rate": {"this package": [5.0, 5.0, 5.0]}}


def test_a_system_whose_server_is_not_installed_is_left_out_with_a_note(monkeypatch):
    monkeypatch.setattr("bench.servers.shutil.which", lambda *arguments, **options: None)
    monkeypatch.setattr("bench.environments.clients", lambda: Path(sys.executable))
    notes = []

    with contextlib.ExitStack() as stack:
        contenders = who.made(["NATS", who.OURS], stack, notes.append)

    assert [contender.name for contender in contenders] == [who.OURS]
    assert notes == ["NATS is left out: nats-server is not installed"]


def test_a_server_that_does_not_start_is_left_out_with_what_it_said():
    server = Server("sh", "amqp", lambda program, port, directory: [program, "-c", "echo no such setting; exit 1"])

    with pytest.raises(Unavailable, match="sh does not start: no such setting"), running(server):
        pass


def test_contenders_that_need_the_same_server_share_it(monkeypatch):
    listening = Server(
        Path(sys.executable).name,
        "amqp",
        lambda program, port, directory: [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"],
    )
    monkeypatch.setitem(SERVERS, who.RABBITMQ, listening)
    monkeypatch.setattr("bench.environments.clients", lambda: Path(sys.executable))

    with contextlib.ExitStack() as stack:
        classic, quorum = who.made([who.RABBITMQ, who.QUORUM], stack, print)

    assert classic.server == quorum.server
    assert classic.ends != quorum.ends


def test_a_goal_is_held_against_the_ratio_of_the_medians():
    results = Results(measurement(None, Goal("rate", over="released", at_least=4.0)))
    for ours, theirs in ((9.0, 3.0), (60.0, 4.0), (12.0, 3.0)):
        results.add("this package", {"rate": ours})
        results.add("released", {"rate": theirs})

    [verdict] = results.verdicts()

    assert verdict.value == 4.0
    assert verdict.is_reached
    assert "| nothing | rate: this package at least 4 times released | 4.00 | yes |" in as_markdown(
        {}, Plan(), [results], []
    )


@pytest.mark.parametrize(
    ("goal", "missed", "grossly"),
    [(Goal("rate", at_least=10.0), 6.0, 3.0), (Goal("rate", at_most=10.0, slack=3.0), 25.0, 31.0)],
)
def test_only_what_is_missed_by_more_than_the_slack_is_a_gross_regression(goal, missed, grossly):
    assert not Verdict(goal, missed).is_reached
    assert not Verdict(goal, missed).is_gross_regression
    assert Verdict(goal, grossly).is_gross_regression
    assert not Verdict(goal, None).is_gross_regression
