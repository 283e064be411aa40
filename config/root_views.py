"""The address without a path leads people to the admin."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect


def home(request: HttpRequest) -> HttpResponse:
    """Redirect to the admin."""
    return redirect("admin:index")
