"""The look for all who wait belongs to none of them: not to the log lines of the request that was first."""

from uuid import UUID, uuid4

import pytest

from apps.core import request_context
from apps.core.request_context import RequestContext
from apps.tasks import waiters
from apps.tasks.waiters import Glimpse, Waiters

pytestmark = pytest.mark.django_db(transaction=True)


async def test_the_look_is_not_the_work_of_the_request_that_was_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RequestContext | None] = []
    glimpse = waiters._glimpse

    def watched(task_ids: list[UUID]) -> dict[UUID, Glimpse]:
        seen.append(request_context.current_or_none())
        return glimpse(task_ids)

    monkeypatch.setattr(waiters, "_glimpse", watched)
    request_context.enter(RequestContext("req_first"))
    assert await Waiters().wait_for_end(uuid4(), 0.3) is False
    assert set(seen) == {None}
