"""Reads an upstream's objects leniently, and adds the keys that OpenAI's schema requires and the upstream left out."""

import time
from typing import Any

from apps.completions import usage
from apps.core import ids
from apps.providers.contract import Json, Usage


def complete_whole(completion: Json, model: str, used: Usage) -> None:
    """CreateChatCompletionResponse, in place; `choices` is a list of objects with a `message` already."""
    completion["id"] = ids.completion_id()
    completion["object"] = "chat.completion"
    completion["model"] = model
    _fill(completion, "created", int(time.time()))
    for position, choice in enumerate(completion["choices"]):
        _fill(choice, "index", position)
        choice.setdefault("logprobs", None)
        message = choice["message"]
        _fill(message, "role", "assistant")
        message.setdefault("content", None)
        message.setdefault("refusal", None)
        for tool_call in objects(message.get("tool_calls")):
            _fill(tool_call, "id", f"call_{ids.new_hex()}")
            _fill(tool_call, "type", "function")
        _fill(choice, "finish_reason", "tool_calls" if message.get("tool_calls") else "stop")
    reported = completion.get("usage")
    extras = reported if isinstance(reported, dict) and not used.estimated else {}
    completion["usage"] = {**extras, **usage.render(used)}


def complete_piece(choice: Json, position: int) -> None:
    """A choice of CreateChatCompletionStreamResponse, in place; it has a `delta` already."""
    _fill(choice, "index", position)
    choice.setdefault("finish_reason", None)
    for place, tool_call in enumerate(objects(choice["delta"].get("tool_calls"))):
        _fill(tool_call, "index", place)


def text_of(message: Json) -> str:
    """The generated text of a message or a delta, arguments of tool calls included."""
    content = message.get("content")
    if isinstance(content, str) and len(message) == 1:  # nearly every piece of a stream
        return content
    texts = [message.get(name) for name in ("content", "refusal", "reasoning_content")]
    for tool_call in objects(message.get("tool_calls")):
        function = tool_call.get("function")
        texts.append(function.get("arguments") if isinstance(function, dict) else None)
    return "".join(text for text in texts if isinstance(text, str))


def _fill(target: Json, key: str, value: Any) -> None:
    if target.get(key) is None:
        target[key] = value


def objects(value: Any) -> list[Json]:
    """Those items of a list that are objects; nothing where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
