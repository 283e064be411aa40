"""What the accept says of a callback URL."""

from typing import Any
from uuid import UUID

import pytest

from apps.access.models import Project
from apps.core.errors import InvalidRequest
from apps.webhooks import disabled, secrets
from apps.webhooks.door import check
from tests.webhooks.conftest import MakeProject, on_db

pytestmark = pytest.mark.django_db(transaction=True)
FINE = "http://127.0.0.2/hook"


async def refused(project_id: UUID, url: str) -> str:
    """The words with which it is refused."""
    with pytest.raises(InvalidRequest) as error:
        await check(project_id, url)
    assert error.value.param == "callback_url"
    return error.value.message


async def test_a_fine_one_passes(make_project: MakeProject) -> None:
    project, _ = await on_db(make_project)()
    await check(project.pk, FINE)


async def test_a_bad_one_is_refused_in_clear_words(make_project: MakeProject) -> None:
    project, _ = await on_db(make_project)()
    for url, words in {
        "ftp://hooks.example/": "http",
        "http://user:pass@hooks.example/": "user",
        "http://127.0.0.1/": "not public",
        "http://169.254.169.254/": "not public",
        "http://[::1]/": "not public",
        "http://localhost:80/": "not public",
        "http://2130706433/": "usual form",
        "http://hooks.example:25/": "port",
        "not a url": "spaces",
        "http://hooks.example/" + "x" * 2040: "2048",
    }.items():
        assert words in await refused(project.pk, url)


async def test_without_a_secret_it_says_how_to_make_one(make_project: MakeProject) -> None:
    project, _ = await on_db(make_project)()
    await on_db(secrets.revoke)(project=project)
    words = await refused(project.pk, FINE)
    assert f"webhook_secret create --project {project.name}" in words


async def test_a_disabled_one_is_refused_in_its_project_alone(make_project: MakeProject) -> None:
    (project, _), (other, _) = await on_db(make_project)(), await on_db(make_project)()
    await on_db(disabled.disable)(project.pk, FINE)
    assert "410" in await refused(project.pk, FINE)
    await check(other.pk, FINE)
    row = await on_db(project.disabledurl_set.get)()  # type: ignore[attr-defined]
    assert await on_db(disabled.enable)(row=row)
    assert not await on_db(disabled.enable)(row=row)
    await check(project.pk, FINE)


async def test_a_name_that_leads_inside_is_refused(make_project: MakeProject, settings: Any) -> None:
    project, _ = await on_db(make_project)()
    # The only name that every machine resolves to its loopback; allowed by name with one port, and so not with others.
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"outbound_allow": ["localhost:8000"]})
    await check(project.pk, "http://localhost:8000/")
    assert "not public" in await refused(project.pk, "http://localhost:8001/")
    assert await on_db(Project.objects.filter(pk=project.pk).exists)()
