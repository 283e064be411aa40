"""How many sockets one process holds, of whom."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from apps.access.authentication import Caller, Limits
from apps.core import errors
from apps.streaming import sockets
from apps.streaming.closing import CloseSocket
from apps.streaming.sockets import OpenSockets


def caller() -> Caller:
    return Caller(uuid4(), uuid4(), "rd_x", (), Limits(), Limits(), False, 30, None)


class Quiet:
    """A socket that does nothing; it keeps why it was told to leave."""

    def __init__(self) -> None:
        self.secret = ""
        self.caller: Caller | None = None
        self.blocked = self.unused = 0.0
        self.farewells: list[int] = []

    def leave(self, farewell: CloseSocket) -> None:
        self.farewells.append(farewell.code)

    def blocked_for(self) -> float:
        return self.blocked

    def unused_for(self) -> float:
        return self.unused


@pytest.fixture
def room(settings: Any, monkeypatch: pytest.MonkeyPatch) -> OpenSockets:
    """Room for 2 strangers, and for 3 that are known, 2 of them of one key."""
    monkeypatch.setattr(sockets, "STRANGERS", 2)
    monkeypatch.setattr(sockets, "EVERY", 0.01)
    return OpenSockets(settings.REDRIVE.model_copy(update={"max_sockets": 3, "sockets_per_key": 2}))


def known(room: OpenSockets, owner: Caller) -> Quiet:
    """A socket of this key. Raises CloseSocket."""
    room.refuse_if_crowded()
    socket = Quiet()
    room.add(socket)
    try:
        room.know(owner)
    except CloseSocket:
        room.remove(socket)
        raise
    socket.caller = owner
    return socket


async def test_a_key_and_a_process_have_so_many_sockets_and_strangers_do_not_count(room: OpenSockets) -> None:
    first, second = caller(), caller()
    strangers = [Quiet(), Quiet()]
    room.add(strangers[0])
    held = [known(room, first), known(room, first)]
    with pytest.raises(CloseSocket) as refused:
        known(room, first)
    assert refused.value.code == 4429
    held.append(known(room, second))
    with pytest.raises(CloseSocket) as refused:
        known(room, second)
    assert refused.value.code == 1013
    room.add(strangers[1])
    with pytest.raises(errors.ServiceUnavailable):
        room.refuse_if_crowded()
    room.remove(strangers[0])
    room.remove(held[0])
    room.remove(held[0])  # twice is once
    held[0] = known(room, second)
    with pytest.raises(CloseSocket):
        known(room, second)
    for socket in (*held, strangers[1]):
        room.remove(socket)
    assert not room._per_key
    assert not room._sockets


async def test_those_that_read_nothing_or_do_nothing_are_told_to_leave(room: OpenSockets) -> None:
    busy, slow, idle = Quiet(), Quiet(), Quiet()
    slow.blocked, idle.unused = room.conf.socket_stall + 1, room.conf.socket_idle + 1
    for socket in (busy, slow, idle):
        room.add(socket)
    async with asyncio.timeout(5):
        while not (slow.farewells and idle.farewells):
            await asyncio.sleep(0.01)
    assert (slow.farewells[0], idle.farewells[0], busy.farewells) == (1013, 1000, [])
    for socket in (busy, slow, idle):
        room.remove(socket)
    async with asyncio.timeout(5):
        await asyncio.gather(*room._looks)  # the look-outs end with the last socket
