"""Puts the chunks of a stream together into the whole completion that the upstream would have sent without it."""

from apps.completions import required
from apps.providers.contract import Json

TEXTS = ("content", "refusal", "reasoning_content")


class Assembly:
    """Takes chunks in order; `completion()` is the object so far, its choices by index."""

    def __init__(self) -> None:
        self._head: Json = {}
        self._usage: Json = {}
        self._choices: dict[int, Json] = {}

    def add(self, chunk: Json) -> None:
        """Take a chunk of OpenAI's shape, as ChatStream gives it."""
        self._head = self._head or {key: chunk[key] for key in ("id", "created", "model")}
        if not chunk["choices"]:
            self._usage = {key: chunk[key] for key in ("usage", "cost_usd") if key in chunk}
        for piece in chunk["choices"]:
            choice = self._choices.setdefault(
                piece["index"],
                {
                    "index": piece["index"],
                    "message": {"role": "assistant", "content": None, "refusal": None},
                    "logprobs": None,
                    "finish_reason": None,
                },
            )
            choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]
            _add_delta(choice["message"], piece["delta"])
            _add_logprobs(choice, piece.get("logprobs"))

    def completion(self) -> Json:
        """The chat.completion, with `usage` and `cost_usd` once their chunk has come."""
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [_without_places(self._choices[index]) for index in sorted(self._choices)],
            **self._usage,
        }

    def text(self, choice: int = 0) -> str | None:
        """The content of a choice so far."""
        found = self._choices.get(choice)
        return None if found is None else found["message"]["content"]


def _without_places(choice: Json) -> Json:
    # A tool call has an `index` in a delta only.
    message = choice["message"]
    if "tool_calls" not in message:
        return choice
    calls = [{key: value for key, value in call.items() if key != "index"} for call in message["tool_calls"]]
    return {**choice, "message": {**message, "tool_calls": calls}}


def _add_delta(message: Json, delta: Json) -> None:
    for name in TEXTS:
        if isinstance(text := delta.get(name), str):
            message[name] = (message.get(name) or "") + text
    if isinstance(called := delta.get("function_call"), dict):
        _add_function(message.setdefault("function_call", {}), called)
    for piece in required.objects(delta.get("tool_calls")):
        calls = message.setdefault("tool_calls", [])
        call = next((one for one in calls if one.get("index") == piece["index"]), None)
        if call is None:
            call = {"index": piece["index"], "type": "function", "function": {}}
            calls.append(call)
        call.update({key: piece[key] for key in ("id", "type") if piece.get(key)})
        if isinstance(function := piece.get("function"), dict):
            _add_function(call["function"], function)


def _add_function(function: Json, piece: Json) -> None:
    if piece.get("name"):
        function["name"] = piece["name"]
    if isinstance(piece.get("arguments"), str):
        function["arguments"] = function.get("arguments", "") + piece["arguments"]


def _add_logprobs(choice: Json, piece: object) -> None:
    if not isinstance(piece, dict):
        return
    kept = choice["logprobs"] = choice["logprobs"] or {}
    for name in ("content", "refusal"):
        if isinstance(piece.get(name), list):
            kept[name] = [*(kept.get(name) or []), *piece[name]]
