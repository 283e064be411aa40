"""All addresses: the client API, health and metrics (lean side), the admin (Django's side)."""

from django.contrib import admin
from django.urls import path

from config.api import api
from config.health_views import livez, metrics, readyz
from config.root_views import home

urlpatterns = [
    path("v1/", api.urls),
    path("livez", livez),
    path("readyz", readyz),
    path("metrics", metrics),
    path("admin/", admin.site.urls),
    path("", home),
]
