"""The arguments of dead tasks, for those who may edit them: read in the kind's present version, written as a revision.

A revision is never changed; the last one counts. For `dead_letters.triage`, which redrives what was edited.
"""

import difflib
import itertools
import json
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Case, F, Func, IntegerField, Subquery, TextField, Value, When
from pydantic import ValidationError

from apps.access import audit
from apps.access.permissions import require
from apps.core import field_paths, json_codec
from apps.core.database import storable
from apps.core.errors import Conflict, InvalidRequest
from apps.tasks import kinds, states
from apps.tasks.errors import TaskNotFound, UnknownKind
from apps.tasks.models import Task, TaskPayload

MAY_EDIT = "tasks.edit_payload"
MAX_REVISIONS = 1000
Json = dict[str, Any]


class RevisionIsOld(Conflict):
    default_message = "The payload has a later revision."


class Change(NamedTuple):
    """What a revision changed, as the audit keeps it: which arguments, by name and length, never their words."""

    before: Json
    after: Json


class Revision(NamedTuple):
    """One stored revision. body: JSON text."""

    number: int
    body: str
    created_at: Any


@transaction.atomic
def present(task_id: UUID, *, actor: Any = None, reason: str = "") -> tuple[int, Json]:
    """The number of the last revision and its arguments in the kind's present version. The look is audited.

    Raises TaskNotFound, PermissionDenied; Conflict where no code of today knows its kind, or nobody may edit it.
    """
    require(actor, MAY_EDIT)
    task = Task.objects.filter(pk=task_id).first()
    if task is None:
        raise TaskNotFound()
    _refuse_ours(task.kind)
    audit.record("reveal", task, actor=actor, reason=reason)
    last = _last(task)
    return last.revision, _upcast(task, last.body)


class Outline(NamedTuple):
    """A stored revision without its words. size: bytes."""

    number: int
    size: int
    created_at: Any


def latest(task_id: UUID) -> tuple[str, list[Outline]]:
    """The last revision's JSON text, empty where it is gone; and all revisions, first to last, without their texts."""
    mine = TaskPayload.objects.filter(task_id=task_id)
    size = Func("body", function="octet_length", output_field=IntegerField())
    last = Subquery(mine.order_by("-revision").values("revision")[:1])
    text = Case(When(revision=last, then=F("body")), default=Value(""), output_field=TextField())
    rows = mine.annotate(size=size, text=text).order_by("-revision")
    found = list(rows.values_list("revision", "size", "created_at", "text")[:MAX_REVISIONS])
    return found[0][3] if found else "", [Outline(*row[:3]) for row in reversed(found)]


def revisions(task_id: UUID) -> list[Revision]:
    """All revisions of a task, first to last."""
    rows = TaskPayload.objects.filter(task_id=task_id).order_by("revision")
    return [Revision(row.revision, row.body, row.created_at) for row in rows[:MAX_REVISIONS]]


def differences(found: list[Revision]) -> str:
    """What each later revision changed, as unified diffs of readable JSON."""
    texts = [(f"revision {one.number}", json_codec.readable(one.body).splitlines()) for one in found]
    return "\n".join(
        line
        for (old, before), (new, after) in itertools.pairwise(texts)
        for line in difflib.unified_diff(before, after, old, new, lineterm="", n=3)
    )


def compare(task_id: UUID, *, text: str, actor: Any = None) -> str:
    """What a draft, JSON text, would change, as a unified diff; empty for nothing. The look is audited.

    Raises as `present`, and InvalidRequest where the draft is not valid.
    """
    revision, before = present(task_id, actor=actor, reason="compared with a draft")
    after = _checked(kinds.find(Task.objects.values_list("kind", flat=True).get(pk=task_id)), text)
    old, new = (json.dumps(args, indent=2).splitlines() for args in (before, after))
    return "\n".join(difflib.unified_diff(old, new, f"revision {revision}", "your draft", lineterm="", n=3))


@transaction.atomic
def revise(task_id: UUID, *, text: str, revision: int) -> Change:
    """Write a dead task's next revision: JSON text of its kind's arguments, made of the revision that was edited.

    The caller has checked who may. Raises TaskNotFound (gone, or not dead), RevisionIsOld, InvalidRequest; Conflict as
    `present`.
    """
    task = Task.objects.select_for_update().filter(pk=task_id, state=states.DEAD).first()
    if task is None:
        raise TaskNotFound()
    _refuse_ours(task.kind)
    last = _last(task)
    if last.revision != revision:
        raise RevisionIsOld()
    before = _upcast(task, last.body)  # which says so where no code knows the kind
    args = _checked(kinds.find(task.kind), text)
    changed = {name for name in before.keys() | args.keys() if _text(before, name) != _text(args, name)}
    if not changed:
        raise InvalidRequest("Nothing was changed. Redrive it as it is, or edit it.", param="payload")
    body = json_codec.ascii_dumps(args)
    TaskPayload.objects.create(task_id=task_id, revision=revision + 1, body=body)
    version = kinds.find(task.kind).version
    if task.schema_version != version:
        Task.objects.filter(pk=task_id).update(schema_version=version)
    return Change(
        {"revision": revision, **_sizes(before, changed)}, {"revision": revision + 1, **_sizes(args, changed)}
    )


def is_ours(kind: str) -> bool:
    """Whether nobody may edit arguments of this kind: a delivery's, or a notification's.

    They name an event or a channel by its id, and whoever wrote them could send any event again, or their own words to
    any channel, without the permissions for that.
    """
    return kind in kinds.silent()


def _refuse_ours(kind: str) -> None:
    if is_ours(kind):
        raise Conflict(f"What a {kind} is about is not for people to write. Redrive it as it is.")


def _checked(kind: kinds.Kind, text: str) -> Json:
    if len(text) > settings.REDRIVE.max_body:
        raise InvalidRequest("The payload is too large.", param="payload")
    try:
        args = json_codec.loads_strict(text.encode())
    except (ValueError, UnicodeEncodeError) as error:
        raise InvalidRequest(f"This is not JSON: {error}", param="payload") from None
    if not isinstance(args, dict):
        raise InvalidRequest("A payload is a JSON object: {...}.", param="payload")
    try:
        kind.args.model_validate(args)
    except ValidationError as error:
        first = error.errors()[0]
        raise field_paths.invalid(first, first["loc"], args) from None
    return args


def _last(task: Task) -> TaskPayload:
    last = TaskPayload.objects.filter(task_id=task.pk).order_by("-revision").first()
    if last is None:
        raise TaskNotFound("Its payload is gone.")
    return last


def _upcast(task: Task, body: str) -> Json:
    try:
        kind = kinds.find(task.kind)
        found = json.loads(body)
        if not isinstance(found, dict):
            raise TypeError("a payload is a JSON object")
        return kinds.upcast(kind, task.schema_version, found)
    except UnknownKind as error:
        raise Conflict(error.message) from None
    except Exception:  # an upcaster's, of what it was not written for
        return {"payload": body[:1000]}  # whoever edits it sees at least what is stored


def _text(args: Json, name: str) -> str | None:
    """The argument as JSON, for 1 and true are one in Python; None where it is not there."""
    return json.dumps(args[name], sort_keys=True) if name in args else None


def _sizes(args: Json, names: set[str]) -> Json:
    return {
        f"payload.{storable(str(name))[:60]}": f"{len(json.dumps(args[name]))} characters"
        for name in sorted(names)[:50]
        if name in args
    }
