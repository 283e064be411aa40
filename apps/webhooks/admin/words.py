"""What the pages of webhooks share: projects and tasks in words."""

from typing import Any

from django.urls import reverse
from django.utils.html import format_html


def project_name_of(row: Any) -> str:
    """Its name, or its id if it is gone."""
    return str(row._state.fields_cache.get("project") or row.project_id)


def task_link(task_id: Any) -> str:
    """A link to its page."""
    url = reverse("admin:tasks_task_change", args=[task_id])
    return format_html('<a class="text-link" href="{}">task_{}</a>', url, task_id.hex)
