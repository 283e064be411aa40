"""The shapes of replies, for the OpenAPI document (replies are rendered from plain objects, not through these)."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Reply(BaseModel):
    model_config = ConfigDict(extra="allow")


class CompletionUsage(Reply):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ReplyMessage(Reply):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[dict[str, Any]] | None = None


class Choice(Reply):
    index: int
    finish_reason: str
    logprobs: dict[str, Any] | None
    message: ReplyMessage


class ChatCompletion(Reply):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    cost_usd: float


class Embedding(Reply):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(Reply):
    prompt_tokens: int
    total_tokens: int


class Embeddings(Reply):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
    cost_usd: float


class Model(Reply):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Reply):
    object: Literal["list"]
    data: list[Model]
