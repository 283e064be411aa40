"""The bounded box between streams and one client."""

import asyncio

from apps.streaming.outbox import MAX_CHARACTERS, MAX_FRAMES, Outbox


class Client:
    """Takes frames while its gate is open."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.gate = asyncio.Event()
        self.gone = False

    async def send(self, frame: str) -> None:
        await self.gate.wait()
        if self.gone:
            raise ConnectionResetError
        self.got.append(frame)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_frames_come_in_order_and_whoever_puts_too_many_waits() -> None:
    client = Client()
    box = Outbox(client.send)
    putting = [asyncio.ensure_future(box.put(str(number))) for number in range(MAX_FRAMES + 10)]
    await settle()
    assert sum(one.done() for one in putting) == MAX_FRAMES + 1  # one is being sent
    assert box.blocked_for() > 0
    client.gate.set()
    await asyncio.gather(*putting)
    await settle()
    assert client.got == [str(number) for number in range(MAX_FRAMES + 10)]
    assert box.blocked_for() == 0
    await box.close()


async def test_a_large_frame_fills_the_box_alone() -> None:
    client = Client()
    box = Outbox(client.send)
    for _ in range(2):
        await box.put("x" * MAX_CHARACTERS)
        await settle()
    waiting = asyncio.ensure_future(box.put("y"))
    await settle()
    assert not waiting.done()
    client.gate.set()
    await waiting
    await box.close()


async def test_the_last_frame_replaces_those_that_wait_and_frees_who_waits_for_room() -> None:
    client = Client()
    box = Outbox(client.send)
    putting = [asyncio.ensure_future(box.put(str(number))) for number in range(MAX_FRAMES + 10)]
    await settle()
    finishing = asyncio.ensure_future(box.finish("last", within=5))
    await settle()
    assert all(one.done() for one in putting)
    client.gate.set()
    await finishing
    assert client.got == ["0", "last"]
    await box.put("late")
    await settle()
    assert client.got == ["0", "last"]


async def test_a_last_frame_that_is_not_read_in_time_is_given_up() -> None:
    client = Client()
    box = Outbox(client.send)
    await box.put("never")
    await settle()
    async with asyncio.timeout(3):
        await box.finish("last", within=0.05)
    assert client.got == []


async def test_a_client_that_is_gone_frees_who_waits() -> None:
    client = Client()
    box = Outbox(client.send)
    putting = [asyncio.ensure_future(box.put("x")) for _ in range(MAX_FRAMES + 10)]
    await settle()
    client.gone = True
    client.gate.set()
    async with asyncio.timeout(3):
        await asyncio.gather(*putting)
        await box.close()
    assert client.got == []
