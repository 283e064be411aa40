"""The messages of clients, and `read`, which makes them of a text frame. Unknown types and fields are refused."""

import asyncio
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from apps.core import errors, field_paths, json_codec

PARSE_IN_THREAD = 256 * 1024  # characters from which JSON is parsed off the loop

StreamId = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[!-~]+$")]
Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Credentials(Message):
    api_key: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class ConnectionInit(Message):
    """The first message of a client that can set neither headers nor subprotocols."""

    type: Literal["connection_init"]
    payload: Credentials


class CreateCompletion(Message):
    """request: the body of `POST /v1/chat/completions`; it is streamed."""

    type: Literal["completion.create"]
    stream_id: StreamId
    request: dict[str, Any]
    durable: bool = False


class CancelCompletion(Message):
    """Ends a stream of either kind; a task that was only watched goes on."""

    type: Literal["completion.cancel"]
    stream_id: StreamId


class ResumeCompletion(Message):
    type: Literal["completion.resume"]
    stream_id: StreamId
    completion_id: Id
    starting_after: Annotated[int, Field(ge=0)] = 0


class SubscribeTask(Message):
    """starting_after: the sequence number, `{attempt}.{n}`, of the last event that the client has."""

    type: Literal["task.subscribe"]
    stream_id: StreamId
    task_id: Id
    starting_after: Annotated[str, StringConstraints(max_length=64)] = ""


class CancelTask(Message):
    type: Literal["task.cancel"]
    task_id: Id


class Ping(Message):
    type: Literal["ping"]


ClientMessage = (
    ConnectionInit | CreateCompletion | CancelCompletion | ResumeCompletion | SubscribeTask | CancelTask | Ping
)
_messages: TypeAdapter[ClientMessage] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


async def read(text: str) -> ClientMessage:
    """The message of a text frame. Raises InvalidRequest."""
    try:
        value = await asyncio.to_thread(_parse, text) if len(text) > PARSE_IN_THREAD else _parse(text)
    except ValueError:
        raise errors.InvalidRequest("The message is not valid JSON.") from None
    if not isinstance(value, dict):
        raise errors.InvalidRequest("The message must be a JSON object.")
    try:
        return _messages.validate_python(value)
    except ValidationError as error:
        complaint = error.errors(include_url=False, include_input=False)[0]
        if complaint["type"].startswith("union_tag"):
            raise errors.InvalidRequest("There is no such type of message.", param="type") from None
        raise field_paths.invalid(complaint, complaint["loc"][1:], value) from None


def _parse(text: str) -> Any:
    return json_codec.loads_strict(text.encode())
