"""Parses server-sent events (WHATWG HTML, section 9.2) from bytes that are cut anywhere; only `data` matters here."""

from apps.providers.errors import UpstreamBroken

MAX_EVENT = 8 * 1024 * 1024  # bytes of one event


class EventParser:
    """Feed it blocks as they come; it gives back the data of each event that is complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0  # bytes of the lines in _data, line ends included

    def feed(self, block: bytes) -> list[bytes]:
        """The data of the events that this block completes. Raises UpstreamBroken for one that never ends."""
        *lines, self._rest = (self._rest + block).split(b"\n")
        events: list[bytes] = []
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._size += len(line) + 1
                if self._size > MAX_EVENT:
                    break
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
                self._size = 0
        if len(self._rest) + self._size > MAX_EVENT:
            raise UpstreamBroken("The model's provider sent an endless event.")
        return events

    def end(self) -> list[bytes]:
        """What is left when the stream has ended, for servers that leave out the last blank line."""
        return self.feed(b"\n\n") if self._rest or self._data else []
