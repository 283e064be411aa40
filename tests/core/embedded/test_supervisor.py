"""The supervisor with small processes of the test's own: order, restarts, fatal ends, reasons, hurry."""

import asyncio
import os
import signal
import sys

import pytest

from apps.core.embedded.service import Launch, Run, Service, Step, UpError
from apps.core.embedded.supervisor import Supervisor

DEADLINE = 20.0


@pytest.fixture
def run(tmp_path):
    (tmp_path / "log").mkdir()
    secrets = {"secret_key": "s", "encryption_keys": ["k"], "api_key": ""}
    return Run(data_dir=tmp_path, names=frozenset(), ports={}, secrets=secrets, database_url="", redis_url="")


def note(run, text):
    with (run.data_dir / "events").open("a") as file:
        file.write(text + "\n")


def events(run):
    path = run.data_dir / "events"
    return path.read_text().split() if path.exists() else []


SCRIPT = """
import os, signal, sys
name, folder, mood = sys.argv[1:]
def note(text):
    with open(folder + "/events", "a") as file:
        file.write(text + "\\n")
def end(*_):
    note("stop-" + name)
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mood == "stubborn" else end)
note("start-" + name)
print("a last word", flush=True)
if mood == "dies":
    sys.exit(3)
open(folder + "/ready-" + name, "w").close()
while True:
    signal.pause()
"""


def service(name, *, mood="", **options):
    async def launch(run):
        (run.data_dir / f"ready-{name}").unlink(missing_ok=True)
        return Launch((sys.executable, "-S", "-c", SCRIPT, name, str(run.data_dir), mood), dict(os.environ))

    async def is_ready(run):
        return (run.data_dir / f"ready-{name}").exists()

    return Service(name=name, launch=launch, is_ready=is_ready, **options)


class Started:
    """A supervisor that runs in this test's loop; its handlers of signals are called directly."""

    def __init__(self, run, entries):
        self.announced = asyncio.Event()
        self.supervisor = Supervisor(run, entries, lambda _: self.announced.set())
        self.task = asyncio.create_task(self.supervisor.run())

    async def until_announced(self):
        await asyncio.wait_for(self.announced.wait(), DEADLINE)

    async def stop(self):
        self.supervisor._on_signal()
        return await asyncio.wait_for(self.task, DEADLINE)

    def pid(self, name):
        return self.supervisor._children[name].pid


async def until(condition):
    for _ in range(int(DEADLINE / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true in time")


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_starts_in_order_and_stops_in_the_opposite_order(run):
    started = Started(run, [service("a"), service("b", after=("a",)), service("c", after=("b",))])
    await started.until_announced()
    assert await started.stop() == 0
    assert events(run) == ["start-a", "start-b", "start-c", "stop-c", "stop-b", "stop-a"]
    assert not (run.data_dir / "up.json").exists()


async def test_a_step_is_done_between_services(run):
    async def act(run, gate):
        note(run, "early")
        await gate()
        note(run, "step")

    entries = [service("a"), Step("step", act, needed_by=("b",), after=("a",)), service("b", after=("step",))]
    started = Started(run, entries)
    await started.until_announced()
    await started.stop()
    assert events(run)[:4] == ["early", "start-a", "step", "start-b"]


async def test_what_is_not_part_of_the_run_is_not_waited_for(run):
    started = Started(run, [service("b", after=("a",))])
    await started.until_announced()
    assert await started.stop() == 0


async def test_a_process_that_may_restart_does_with_its_new_pid_in_up_json(run):
    started = Started(run, [service("a")])
    await started.until_announced()
    old = started.pid("a")
    os.kill(old, signal.SIGKILL)
    await until(
        lambda: started.pid("a") != old and f'"a": {started.pid("a")}' in (run.data_dir / "up.json").read_text()
    )
    assert await started.stop() == 0


async def test_a_restart_that_fails_is_tried_again(run, capsys):
    base = service("a")
    moods = iter(["", "dies", ""])

    async def launch(run):
        return await service("a", mood=next(moods)).launch(run)

    started = Started(run, [Service(name="a", launch=launch, is_ready=base.is_ready)])
    await started.until_announced()
    os.kill(started.pid("a"), signal.SIGKILL)
    await until(lambda: events(run).count("start-a") == 3)
    await until(lambda: f'"a": {started.pid("a")}' in (run.data_dir / "up.json").read_text())
    assert await started.stop() == 0
    assert "ended while starting (exit code 3)" in capsys.readouterr().err


async def test_the_end_of_a_process_that_all_need_stops_all(run, capsys):
    started = Started(run, [service("a", restarts=False), service("b", after=("a",))])
    await started.until_announced()
    other = started.pid("b")
    os.kill(started.pid("a"), signal.SIGKILL)
    assert await asyncio.wait_for(started.task, DEADLINE) == 1
    assert not is_alive(other)
    said = capsys.readouterr().err
    assert "a ended, and nothing can go on without it (killed by SIGKILL)" in said


async def test_a_death_while_starting_says_why(run, capsys):
    started = Started(run, [service("a"), service("b", after=("a",), mood="dies")])
    assert await asyncio.wait_for(started.task, DEADLINE) == 1
    said = capsys.readouterr().err
    assert "b ended while starting (exit code 3)" in said
    assert "a last word" in said
    assert events(run)[-1] == "stop-a"


async def test_a_step_that_fails_stops_all(run, capsys):
    async def act(run, gate):
        await gate()
        raise UpError("the reason")

    started = Started(run, [service("a"), Step("step", act, needed_by=("a",), after=("a",))])
    assert await asyncio.wait_for(started.task, DEADLINE) == 1
    assert "the reason" in capsys.readouterr().err
    assert events(run)[-1] == "stop-a"


async def test_one_that_never_gets_ready_is_given_up(run, capsys):
    async def never(run):
        return False

    base = service("a", start_seconds=0.3)
    stuck = Service(name="a", launch=base.launch, is_ready=never, start_seconds=0.3)
    started = Started(run, [stuck])
    assert await asyncio.wait_for(started.task, DEADLINE) == 1
    assert "did not get ready within" in capsys.readouterr().err


async def test_one_that_does_not_stop_is_killed_in_time(run):
    started = Started(run, [service("a", mood="stubborn", stop_seconds=0.2)])
    await started.until_announced()
    pid = started.pid("a")
    assert await started.stop() == 0
    assert not is_alive(pid)


async def test_a_second_signal_hurries(run):
    started = Started(run, [service("a", mood="stubborn", stop_seconds=600)])
    await started.until_announced()
    started.supervisor._on_signal()
    assert await started.stop() == 0


async def test_a_stop_while_starting_leaves_nothing(run):
    async def never(run):
        return False

    base = service("a")
    started = Started(run, [Service(name="a", launch=base.launch, is_ready=never), service("b", after=("a",))])
    await until(lambda: "start-a" in events(run))
    pid = started.pid("a")
    assert await started.stop() == 0
    assert not is_alive(pid)
    assert "start-b" not in events(run)
