"""What the page of one letter shows, from top to bottom: verdict, error, tries, payload, what is related, audit."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from apps.access.models import AuditEntry
from apps.core.database import related
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
    task = Task.objects.filter(pk=letter.task_id).annotate(worker_name=search.worker_name()).first()
    rows = search.last_attempts(letter.task_id)
    attempts = _of_cycle(letter, rows)
    previous, next_ = _neighbours(letter)
    group, project = related(letter, "group"), related(letter, "project")
    payload, revisions = payloads.latest(letter.task_id)
    return {
        "letter": letter,
        "task": task,
        "group": group,
        "shown_task": shown_id(letter.task_id),
        "verdict": verdict.of_letter(letter, group, attempts),
        "failure": _failure(attempts),
        "timeline": search.timeline(task, rows, task.worker_name or "") if task else [],
        "earlier_attempts": max(task.attempt - search.MOST_ATTEMPTS, 0) if task else 0,
        "payload": masked(payload) if payload else "",
        "revisions": revisions,
        "previous": previous,
        "next": next_,
        "audit": AuditEntry.objects.filter(
            object_type=letter._meta.label_lower, object_id=str(letter.pk)
        ).order_by("-at")[:SHOWN_AUDIT],
        "webhooks_url": _webhooks_url(letter),
        "project_search": f"project:{words.quoted(project.name)} state:open" if project else "",
        "curl": curl(letter.kind, request.build_absolute_uri("/")[:-1]),
        "is_open": letter.state == states.OPEN,
        "may_redrive": request.user.has_perm(triage.MAY_REDRIVE),
        "may_discard": request.user.has_perm(triage.MAY_DISCARD),
        "may_edit": request.user.has_perm(triage.MAY_EDIT) and not payloads.is_ours(letter.kind),
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


def _of_cycle(letter: DeadLetter, rows: Sequence[TaskAttempt]) -> list[TaskAttempt]:
    """The attempts of the letter's cycle, first to last. rows: the last ones of its task."""
    if len(rows) > search.MOST_ATTEMPTS and rows[0].cycle >= letter.cycle:  # some of it are before these
        of_it = TaskAttempt.objects.filter(task_id=letter.task_id, cycle=letter.cycle)
        return list(of_it.order_by("-number")[: search.MOST_ATTEMPTS])[::-1]
    return [row for row in rows if row.cycle == letter.cycle]


def _neighbours(letter: DeadLetter) -> tuple[DeadLetter | None, DeadLetter | None]:
    """The open letters of the group that died before and after this one, the nearest of each; by one query."""
    rows = DeadLetter.objects.filter(group_id=letter.group_id, state=states.OPEN)
    before = rows.filter(pk__lt=letter.pk).order_by("-pk")[:1]
    after = rows.filter(pk__gt=letter.pk).order_by("pk")[:1]
    found = {row.pk < letter.pk: row for row in before.union(after, all=True)}
    return found.get(True), found.get(False)


def _webhooks_url(letter: DeadLetter) -> str:
    try:
        return f"{reverse('admin:webhooks_webhookevent_changelist')}?q={letter.task_id}"
    except NoReverseMatch:  # that app is not installed
        return ""
