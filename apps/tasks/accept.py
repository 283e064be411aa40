"""Accepts a client's task: its arguments are validated, its requests counted, its row committed. Plain values in."""

from typing import Any

from pydantic import BaseModel, ValidationError

from apps.access import admission
from apps.access.authentication import Caller
from apps.access.idempotency import Claim
from apps.core import errors, json_codec, request_context
from apps.tasks import enqueue, states
from apps.tasks.enqueue import Accepted, NewTask
from apps.tasks.kinds import Kind
from apps.tasks.schemas import WISHES, Wishes

Json = dict[str, Any]


async def accept(
    caller: Caller, kind: Kind, args: BaseModel, wishes: Wishes, *, end_user: str = "", claim: Claim | None = None
) -> Accepted:
    """Commit the task, or raise and change nothing. args: of the kind's schema; wishes in it are left out.

    Raises what the kind's check raises, RateLimitExceeded, IdempotencyKeyReused, ServiceUnavailable. Redis may be
    away: limits then fail open.
    """
    if kind.check is not None:
        await kind.check(caller, args)
    end_user = end_user or getattr(args, "user", None) or ""
    if wishes.callback_url is not None:
        raise errors.InvalidRequest("Webhooks are not available yet.", param="callback_url")
    left_out = set(WISHES) if isinstance(args, Wishes) else set()
    # Admitted even where the key is a repetition: whether it is one is known only when the row is written.
    await admission.admit(caller, tokens=0, nusd=0, end_user=end_user, which=admission.AT_ACCEPT)
    return await enqueue.accept(
        NewTask(
            project_id=caller.project_id,
            api_key_id=caller.key_id,
            kind=kind,
            args=json_codec.ascii_dumps(args.model_dump(mode="json", exclude_unset=True, exclude=left_out)),
            priority=wishes.priority or (kind.queue if kind.queue in states.PRIORITIES else states.DEFAULT),
            request_id=request_context.current().request_id,
            end_user=end_user,
            metadata=_metadata(wishes.metadata),
            deadline=wishes.deadline_seconds or kind.deadline,
            claim=claim,
        )
    )


def arguments(kind: Kind, args: Json) -> BaseModel:
    """The arguments in the kind's schema. Raises InvalidRequest with the path of the field that does not fit."""
    try:
        return kind.args.model_validate(args)
    except ValidationError as error:
        first = error.errors()[0]
        path = "args" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise errors.InvalidRequest(f"{path}: {first['msg']}", param=path[:200]) from None


def _metadata(found: dict[str, str] | None) -> str:
    return json_codec.ascii_dumps(dict(sorted(found.items()))) if found else ""
