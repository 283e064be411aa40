"""What the page of one letter shows, from top to bottom: verdict, error, tries, payload, what is related, audit."""

import re
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from apps.access.keyset_admin import related
from apps.access.models import AuditEntry
from apps.dead_letters import search as words
from apps.dead_letters import states, triage, verdict
from apps.dead_letters.models import DeadLetter
from apps.tasks import operate, payloads, search
from apps.tasks.masking import masked
from apps.tasks.models import Task, TaskAttempt, shown_id

SHOWN_AUDIT = 30
# Two lines of a traceback, of a file of this project (not of a library): place, then the code that is there.
_OWN = re.compile(r'^  File "(?P<file>[^"\n]*/(?:apps|config)/[^"\n]+)", line .*(?:\n    .*)*', re.MULTILINE)
_ROUTES = {"chat_completion": "/v1/tasks/chat/completions", "embeddings": "/v1/tasks/embeddings"}


@dataclass(frozen=True, slots=True)
class Failure:
    """The last attempt's error. own: the frames of this project, as text."""

    code: str
    status: int | None
    message: str
    traceback: str
    own: str


def context(request: HttpRequest, letter: DeadLetter) -> dict[str, Any]:
    """The template's variables."""
    task = Task.objects.filter(pk=letter.task_id).first()
    attempts = list(TaskAttempt.objects.filter(task_id=letter.task_id, cycle=letter.cycle).order_by("number")[:100])
    group, project = related(letter, "group"), related(letter, "project")
    revisions = payloads.revisions(letter.task_id)
    return {
        "letter": letter,
        "task": task,
        "group": group,
        "shown_task": shown_id(letter.task_id),
        "verdict": verdict.of_letter(letter, group, attempts),
        "failure": _failure(attempts),
        "timeline": search.timeline(task) if task else [],
        "earlier_attempts": max(task.attempt - search.MOST_ATTEMPTS, 0) if task else 0,
        "payload": masked(revisions[-1].body) if revisions else "",
        "revisions": revisions,
        "previous": _neighbour(letter, older=True),
        "next": _neighbour(letter, older=False),
        "audit": AuditEntry.objects.filter(
            object_type=letter._meta.label_lower, object_id=str(letter.pk)
        ).order_by("-at")[:SHOWN_AUDIT],
        "webhooks_url": _webhooks_url(letter),
        "project_search": f"project:{words.quoted(project.name)} state:open" if project else "",
        "curl": curl(letter.kind, request.build_absolute_uri("/")[:-1]),
        "is_open": letter.state == states.OPEN,
        "may_redrive": request.user.has_perm(triage.MAY_REDRIVE),
        "may_discard": request.user.has_perm(triage.MAY_DISCARD),
        "may_edit": request.user.has_perm(triage.MAY_EDIT),
        "may_reveal": request.user.has_perm(operate.MAY_REVEAL),
    }  # fmt: skip


def curl(kind: str, origin: str) -> str:
    """The request as a command, with the key and the payload left to whoever runs it."""
    route = _ROUTES.get(kind, "/v1/tasks")
    return (
        f"curl {origin}{route} \\\n"
        '  -H "Authorization: Bearer $REDRIVE_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        "  -d @payload.json"
    )


def _failure(attempts: list[TaskAttempt]) -> Failure | None:
    last = attempts[-1] if attempts else None
    if last is None or not last.error_code:
        return None
    own = "\n".join(match.group(0) for match in _OWN.finditer(last.traceback) if "site-packages" not in match["file"])
    return Failure(last.error_code, last.error_status, last.error_message, last.traceback, own)


def _neighbour(letter: DeadLetter, *, older: bool) -> DeadLetter | None:
    """The next open letter of the group, by the order in which they died."""
    rows = DeadLetter.objects.filter(group_id=letter.group_id, state=states.OPEN)
    if older:
        return rows.filter(pk__lt=letter.pk).order_by("-pk").first()
    return rows.filter(pk__gt=letter.pk).order_by("pk").first()


def _webhooks_url(letter: DeadLetter) -> str:
    try:
        return f"{reverse('admin:webhooks_webhookevent_changelist')}?q={letter.task_id}"
    except NoReverseMatch:  # that app is not installed
        return ""
