"""The chat request: every parameter that OpenAI documents, with our limits (OpenAI's OpenAPI, CreateChatCompletion)."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

MODEL_PATTERN = r"^[a-zA-Z0-9_.:/@-]+$"
DEFAULT_MODEL = "gpt-4o-mini"
MAX_TEXT = 100_000  # characters
MAX_OUTPUT = 16_384  # tokens; a route may allow another number, see chat.py


def no_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("a NUL character is not allowed")
    return value


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a boolean is not a number")  # noqa: TRY004 (Pydantic reports ValueError)
    return value


ModelName = Annotated[str, Field(max_length=128, pattern=MODEL_PATTERN)]
Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT), AfterValidator(no_nul)
]
AnyText = Annotated[str, StringConstraints(max_length=MAX_TEXT), AfterValidator(no_nul)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(no_nul)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(no_nul)]
Count = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool)]
JsonObject = dict[str, Any]


class Part(BaseModel):
    """Strict, and open: what a provider adds to a nested object passes through."""

    model_config = ConfigDict(strict=True, extra="allow")


class TextPart(Part):
    type: Literal["text"]
    text: Text


class RefusalPart(Part):
    type: Literal["refusal"]
    refusal: AnyText


class ImageURL(Part):
    url: Annotated[str, StringConstraints(min_length=1), AfterValidator(no_nul)]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Part):
    type: Literal["image_url"]
    image_url: ImageURL


class AudioPart(Part):
    type: Literal["input_audio"]
    input_audio: JsonObject


class FilePart(Part):
    type: Literal["file"]
    file: JsonObject


ContentPart = Annotated[TextPart | RefusalPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]
Parts = Annotated[list[ContentPart], Field(min_length=1, max_length=1000, fail_fast=True)]


def one_or_list(value: Any) -> str:
    """Which member of a union of one and many a value is meant to be, so that an error names the wrong item."""
    return "<list>" if isinstance(value, list) else "<one>"


Content = Annotated[Annotated[Text, Tag("<one>")] | Annotated[Parts, Tag("<list>")], Discriminator(one_or_list)]
AnyContent = Annotated[Annotated[AnyText, Tag("<one>")] | Annotated[Parts, Tag("<list>")], Discriminator(one_or_list)]
Labels = Annotated[list[Label], Field(min_length=1, max_length=4)]
Stop = Annotated[Annotated[Label, Tag("<one>")] | Annotated[Labels, Tag("<list>")], Discriminator(one_or_list)]


class SystemMessage(Part):
    role: Literal["system", "developer"]
    content: Content
    name: Name | None = None


class UserMessage(Part):
    role: Literal["user"]
    content: Content
    name: Name | None = None


class FunctionCall(Part):
    name: Name
    arguments: AnyText


class ToolCall(Part):
    id: Label
    type: Literal["function", "custom"]
    function: FunctionCall | None = None


class AssistantMessage(Part):
    role: Literal["assistant"]
    content: AnyContent | None = None
    refusal: AnyText | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    function_call: FunctionCall | None = None
    audio: JsonObject | None = None


class ToolMessage(Part):
    role: Literal["tool"]
    content: AnyContent
    tool_call_id: Label


class FunctionMessage(Part):
    role: Literal["function"]
    content: AnyText | None
    name: Name


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage, Field(discriminator="role")
]


class StreamOptions(Part):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ResponseFormat(Part):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonObject | None = None


class Tool(Part):
    type: Literal["function", "custom"]
    function: JsonObject | None = None
    custom: JsonObject | None = None


class ChatRequest(BaseModel):
    """`POST /v1/chat/completions`. Fields that are not named here are refused unless the model route forwards them."""

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra={"additionalProperties": False})

    model: ModelName = DEFAULT_MODEL
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000, fail_fast=True)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    max_tokens: Annotated[Count, Field(ge=1, le=MAX_OUTPUT)] | None = None
    max_completion_tokens: Annotated[Count, Field(ge=1, le=MAX_OUTPUT)] | None = None
    n: Annotated[Count, Field(ge=1, le=128)] | None = None
    stop: Stop | None = None
    seed: Annotated[Count, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Count, Field(ge=0, le=20)] | None = None
    logit_bias: Annotated[dict[str, Annotated[Number, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | JsonObject | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[JsonObject], Field(max_length=128)] | None = None
    function_call: Literal["none", "auto"] | JsonObject | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    modalities: Annotated[list[Literal["text", "audio"]], Field(max_length=2)] | None = None
    audio: JsonObject | None = None
    prediction: JsonObject | None = None
    web_search_options: JsonObject | None = None
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=256)] | None = None
    prompt_cache_retention: Literal["in-memory", "24h"] | None = None
    safety_identifier: Annotated[str, Field(max_length=256)] | None = None
    user: Annotated[str, StringConstraints(max_length=256), AfterValidator(no_nul)] | None = None

    def characters(self) -> int:
        """Characters of all that becomes input, for the estimate of tokens (one for four characters)."""
        total = sum(_of_message(message) for message in self.messages)
        for part in (self.tools, self.functions, self.response_format, self.prediction):
            if part is not None:
                total += len(str(part))
        return total


IMAGE = 4_000  # characters that count for an image: about what a picture costs at high detail
DATA = 40  # characters of base64 in audio and files for one that counts
_PLAIN = frozenset({"role", "content", "name"})


def _of_message(message: Any) -> int:
    content = message.content
    if isinstance(content, str) and message.model_fields_set <= _PLAIN and not message.model_extra:
        return len(content)  # nearly every message
    return _weigh(message.model_dump(exclude_unset=True))


def _weigh(value: Any) -> int:
    """Characters of all texts in a value, names of fields included where they are the client's own."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_weigh, value))
    if not isinstance(value, dict):
        return 1
    if value.get("type") == "image_url":
        return IMAGE
    if value.get("type") in {"input_audio", "file"}:
        return max(IMAGE, sum(map(_weigh, value.values())) // DATA)
    return sum(_weigh(part) for name, part in value.items() if name not in {"role", "type"})
