"""The bodies of the task routes: what a client may say beside a kind's own arguments, and what it gets."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from apps.completions.schemas.chat import ChatRequest, no_nul
from apps.completions.schemas.embeddings import EmbeddingsRequest

MAX_DEADLINE = 30 * 86_400  # seconds
MOST_METADATA = 16  # pairs

MetadataValue = Annotated[str, StringConstraints(max_length=512), AfterValidator(no_nul)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(no_nul)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MOST_METADATA)]
Seconds = Annotated[float, Field(gt=0, le=MAX_DEADLINE, allow_inf_nan=False)]
CallbackURL = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(no_nul)]


class Wishes(BaseModel):
    """What a client may ask of any task."""

    model_config = ConfigDict(strict=True)

    priority: Literal["high", "default", "low"] | None = None
    callback_url: CallbackURL | None = None
    metadata: Metadata | None = None
    deadline_seconds: Seconds | None = None

    def wishes(self) -> "Wishes":
        """These alone, without the fields of a class that adds them to its own."""
        return Wishes.model_construct(**{name: getattr(self, name) for name in Wishes.model_fields})


WISHES = frozenset(Wishes.model_fields)


class ChatTask(Wishes, ChatRequest):
    """`POST /v1/tasks/chat/completions`: a chat request, and the wishes. Its `metadata` is the task's."""

    model_config = ChatRequest.model_config


class EmbeddingsTask(Wishes, EmbeddingsRequest):
    """`POST /v1/tasks/embeddings`: an embeddings request, and the wishes."""

    model_config = EmbeddingsRequest.model_config


class NewTaskBody(Wishes):
    """`POST /v1/tasks`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    kind: Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(no_nul)]
    args: dict[str, Any]


class Links(BaseModel):
    self: str
    events: str
    cancel: str


class AcceptedTask(BaseModel):
    """The 202 body."""

    task_id: str
    status: str
    kind: str
    priority: str
    created_at: int
    links: Links


class Progress(BaseModel):
    current: int
    total: int
    status: str


class LetterOfTask(BaseModel):
    id: str
    state: str


class TaskStatus(AcceptedTask):
    """The status body."""

    started_at: int | None
    finished_at: int | None
    cancel_requested: bool
    metadata: dict[str, str]
    result: dict[str, Any] | None
    result_omitted: bool | None = Field(None, description="True in lists and events that leave out a large result.")
    error: dict[str, Any] | None
    progress: Progress | None
    attempts: int
    dead_letter: LetterOfTask | None


class TaskList(BaseModel):
    object: Literal["list"] = "list"
    data: list[TaskStatus]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AttemptOfTask(BaseModel):
    number: int
    outcome: str
    started_at: int
    finished_at: int | None
    error: dict[str, Any] | None
    upstream: str | None
    usage: dict[str, int]
    cost_usd: float


class AttemptList(BaseModel):
    object: Literal["list"] = "list"
    data: list[AttemptOfTask]
    has_more: bool


def unix(moment: datetime | None) -> int | None:
    """Whole unix seconds."""
    return None if moment is None else int(moment.timestamp())
