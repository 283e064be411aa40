"""Tasks as links to their pages, for every page that names one."""

from uuid import UUID

from django.urls import reverse
from django.utils.html import format_html

from apps.tasks.models import shown_id


def task_link(task_id: UUID) -> str:
    """Its id, with a link."""
    url = reverse("admin:tasks_task_change", args=[task_id])
    return format_html('<a class="text-link" href="{}">{}</a>', url, shown_id(task_id))
