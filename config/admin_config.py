"""Registers the operators' admin: the apps' own pages, then ours in place of those of Django, axes and Celery."""

from django.contrib.admin.apps import AdminConfig


class RedriveAdminConfig(AdminConfig):
    """Apart from the site itself, which may only be imported once all models are there."""

    default_site = "config.admin_site.RedriveAdminSite"

    def ready(self) -> None:
        """Run once all apps are there."""
        super().ready()
        from config import chores_admin, users_admin

        users_admin.register()
        chores_admin.register()
