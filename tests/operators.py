"""Speaks to the operators' REST API as a script does."""

from typing import Any

from django.test import Client

KEYS = {"message", "type", "param", "code", "request_id", "details"}


def post(client: Client, url: str, **body: Any) -> Any:
    """Send a body."""
    return client.post(url, body, content_type="application/json")


def walk(client: Client, url: str) -> list[list[Any]]:
    """The rows of every page, as `next` leads to them; the way back by `previous` shows the same pages."""
    pages, last = [], url
    while url:
        page = client.get(url).json()
        pages.append(page["results"])
        last, url = url, page["next"]
    back = client.get(last).json()["previous"]
    for rows in pages[-2::-1]:
        page = client.get(back).json()
        assert page["results"] == rows
        back = page["previous"]
    return pages


def refusal(response: Any, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """The one body of an error, which must be this one."""
    assert response.status_code == status, response.content
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == KEYS
    assert (error["code"], error["param"]) == (code, param)
    return error
