"""The project that all of the demo belongs to, and by which it is found again."""

from django.db import transaction

from apps.access import audit, keys
from apps.access.models import ApiKey, Project
from apps.core.errors import Conflict

NAME = "demo"
KEYS = ("demo: support bot", "demo: nightly reports", "demo: search index")
REQUESTS_PER_MINUTE = 100_000


def find() -> Project | None:
    """The demo's project, if there is one. Raises Conflict where somebody else's has that name."""
    project = Project.objects.filter(name=NAME).first()
    if project is not None and not ApiKey.objects.filter(project=project, name__in=KEYS).exists():
        raise Conflict(f"The project `{NAME}` was not made by this command. Rename it first.")
    return project


@transaction.atomic
def make() -> tuple[Project, list[ApiKey]]:
    """The project and its keys, made where they are missing. Nobody gets to know their secrets."""
    project = find()
    if project is None:
        project = Project.objects.create(name=NAME)
        audit.record("create", project, reason="a demo", after=audit.snapshot(project))
    for name in KEYS:
        if not ApiKey.objects.filter(project=project, name=name).exists():
            keys.create(project=project, name=name, limits={"requests_per_minute": REQUESTS_PER_MINUTE})
    return project, list(ApiKey.objects.filter(project=project, name__in=KEYS).order_by("pk"))
