"""The addresses that browsers try by themselves: the one without a path leads to the admin, the icon to ours."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.templatetags.static import static


def home(request: HttpRequest) -> HttpResponse:
    """Redirect to the admin."""
    return redirect("admin:index")


def favicon(request: HttpRequest) -> HttpResponse:
    """Redirect to the icon."""
    return redirect(static("redrive/favicon.svg"))
