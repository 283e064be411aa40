"""The embeddings request (OpenAI's OpenAPI, CreateEmbeddingRequest) with our limits."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

from apps.completions.schemas.chat import MAX_TEXT, Count, ModelName, no_nul

DEFAULT_MODEL = "text-embedding-3-small"
MAX_INPUTS = 2048

Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT), AfterValidator(no_nul)]
Token = Annotated[Count, Field(ge=0, le=2**31 - 1)]
# FailFast: an array of a million wrong items must not make a million errors.
Tokens = Annotated[list[Token], Field(min_length=1, max_length=MAX_TEXT, fail_fast=True)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
TokenLists = Annotated[list[Tokens], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]


def _kind(value: Any) -> str:
    if not isinstance(value, list):
        return "<text>"
    first = value[0] if value else ""
    return "<token lists>" if isinstance(first, list) else "<tokens>" if isinstance(first, int) else "<texts>"


Input = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[Texts, Tag("<texts>")]
    | Annotated[Tokens, Tag("<tokens>")]
    | Annotated[TokenLists, Tag("<token lists>")],
    Discriminator(_kind),
]


class EmbeddingsRequest(BaseModel):
    """`POST /v1/embeddings`."""

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra={"additionalProperties": False})

    model: ModelName = DEFAULT_MODEL
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[Count, Field(ge=1, le=3072)] | None = None
    user: Annotated[str, StringConstraints(max_length=256), AfterValidator(no_nul)] | None = None

    def tokens(self) -> int:
        """An estimate of the input's tokens: one for four characters, or the count of token arrays."""
        return _tokens(self.input)


def _tokens(value: Any) -> int:
    if isinstance(value, str):
        return max(1, len(value) // 4)
    if isinstance(value, int):
        return 1
    return sum(_tokens(item) for item in value)
