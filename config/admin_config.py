"""Registers the operators' admin: the apps' own pages, then ours in place of those of Django, axes and Celery."""

from django.apps import apps
from django.contrib.admin.apps import AdminConfig
from django.db.models.signals import post_migrate


class RedriveAdminConfig(AdminConfig):
    """Apart from the site itself, which may only be imported once all models are there."""

    default_site = "config.admin_site.RedriveAdminSite"

    def ready(self) -> None:
        """Run once all apps are there."""
        super().ready()
        from config import chores_admin, roles, users_admin

        # Django emits it for each app that has models, in their order; with the last one all permissions are there.
        last = [app for app in apps.get_app_configs() if app.models_module is not None][-1]
        post_migrate.connect(roles.write, sender=last, dispatch_uid="config.roles")

        users_admin.register()
        chores_admin.register()
