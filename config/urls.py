"""All addresses: the client API, health and metrics (lean side), the admin and the operators' API (Django's side)."""

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import APIRootView, DefaultRouter

from apps.access.operator_api import AuditViewSet
from apps.completions.operator_api import LedgerViewSet
from apps.dead_letters.operator_api import AlertViewSet, BulkViewSet, GroupViewSet, LetterViewSet
from apps.providers.operator_api import BreakerViewSet
from apps.tasks.operator_api import ClockViewSet, QueueViewSet, TaskViewSet, WorkerViewSet
from config.api import api
from config.health_views import livez, metrics, readyz
from config.root_views import favicon, home

handler400 = "config.error_views.handler400"
handler403 = "config.error_views.handler403"
handler404 = "config.error_views.handler404"
handler500 = "config.error_views.handler500"


class Operators(APIRootView):
    """What the admin shows and decides, for scripts. Send `Authorization: Token ...`, or the session of /admin/."""


operators = DefaultRouter()
operators.include_format_suffixes = False
operators.APIRootView = Operators
operators.register("groups", GroupViewSet, basename="groups")
operators.register("letters", LetterViewSet, basename="letters")
operators.register("bulk", BulkViewSet, basename="bulk")
operators.register("alerts", AlertViewSet, basename="alerts")
operators.register("audit", AuditViewSet, basename="audit")
operators.register("ledger", LedgerViewSet, basename="ledger")
operators.register("breakers", BreakerViewSet, basename="breakers")
operators.register("tasks", TaskViewSet, basename="tasks")
operators.register("queues", QueueViewSet, basename="queues")
operators.register("workers", WorkerViewSet, basename="workers")
operators.register("clock", ClockViewSet, basename="clock")

schema = SpectacularAPIView.as_view(urlconf=[path("ops/api/", include(operators.urls))])

urlpatterns = [
    path("v1/", api.urls),
    path("livez", livez),
    path("readyz", readyz),
    path("metrics", metrics),
    path("admin/", admin.site.urls),
    path("ops/api/schema/", schema, name="operators-schema"),
    path("ops/api/", include(operators.urls)),
    path("favicon.ico", favicon),
    path("", home),
]
