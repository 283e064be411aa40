"""Checks a callback URL when a task is accepted, so that a client hears at once what could never be delivered."""

from uuid import UUID

from apps.access.models import Project
from apps.core.database import in_db
from apps.core.errors import InvalidRequest
from apps.core.outbound import AddressRefused, outbound
from apps.webhooks.models import DisabledUrl, WebhookSecret

PARAM = "callback_url"


async def check(project_id: UUID, url: str) -> None:
    """Raise InvalidRequest for a URL that may not be called, and for a project without a secret to sign with.

    What its name leads to is looked up for half a second at most; the delivery looks again, and that counts.
    """
    try:
        outbound().parse(url)
        if words := await in_db(_objection, project_id, url):
            raise InvalidRequest(words, param=PARAM)
        await outbound().look(url)
    except AddressRefused as refused:
        raise InvalidRequest(str(refused), param=PARAM) from None


def _objection(project_id: UUID, url: str) -> str:
    if not WebhookSecret.objects.filter(project=project_id).exists():
        name = Project.objects.filter(pk=project_id).values_list("name", flat=True).first()
        return (
            "The project has no webhook secret to sign with. An operator makes one in the admin (Webhook secrets), or "
            f"by `manage.py webhook_secret create --project {name}`."
        )
    if DisabledUrl.objects.filter(project=project_id, url=url).exists():
        return "This URL answered 410 Gone and is disabled. An operator can enable it again in the admin."
    return ""
