"""Who may import what, beyond the layers that import-linter holds."""

import ast
import functools
import re
from pathlib import Path

import pytest
from django.db.models import Model, QuerySet

from tests.architecture.test_files import PRODUCT, name, tree

# Package -> the files that may import it.
ALLOWED = {
    "ninja": r"config/api\.py|apps/\w+/(\w+_)?api\.py",
    "rest_framework": r"config/(drf|urls|settings)\.py|apps/\w+/operator_api(/\w+)?\.py",
    "drf_spectacular": r"config/\w+\.py|apps/\w+/operator_api(/\w+)?\.py",
    "knox": r"config/drf\.py|apps/access/(models|operator_tokens)\.py",
    "celery": r"config/celery\.py|apps/tasks/(doorbell|worker)\.py",
    "channels": r"apps/streaming/consumer\.py",
    "asgiref": r"",
    "aiohttp": r"apps/core/outbound\.py|apps/providers/(http|probe|adapters/\w+)\.py",
    "redis": r"apps/core/(redis|error_payload|store_checks|embedded/valkey)\.py"
    r"|apps/access/admission\.py|apps/providers/(breaker_board|circuit_breaker|probe|admin/providers)\.py",
    "genai_prices": r"apps/providers/pricing\.py",
    "apprise": r"apps/dead_letters/alerts/sending\.py",
    "cryptography": r"apps/core/(crypto|embedded/\w+)\.py",
    "psycopg": r"apps/core/(database|embedded/\w+|management/commands/rotate_encryption)\.py"
    r"|apps/completions/ledger\.py|apps/tasks/presence\.py",
}


@functools.cache
def imported(path: Path) -> set[str]:
    """The top packages that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    strays = [
        name(path) for path in PRODUCT if package in imported(path) and not re.fullmatch(ALLOWED[package], name(path))
    ]
    assert strays == []


def test_one_door_leads_from_async_code_to_postgres() -> None:
    others = re.compile(r"sync_to_async|AsyncConnection(?!Pool)|AsyncCursor|AsyncConnectionPool")
    # What `up` asks of a Postgres that is still starting is asked before there is an application.
    product = [path for path in PRODUCT if not name(path).startswith("apps/core/embedded/")]
    assert [name(path) for path in product if others.search(path.read_text())] == []


def async_twins() -> set[str]:
    """The names of Django's asynchronous ORM methods."""
    twins = set()
    for kind in (QuerySet, Model):
        for method in dir(kind):
            if method.startswith("a") and hasattr(kind, method[1:]):
                twins.add(method)
    assert {"aget", "acreate", "aexists", "asave", "arefresh_from_db"} <= twins
    return twins


def test_the_asynchronous_orm_is_not_used() -> None:
    twins = async_twins()
    used = [
        f"{name(path)}: {node.attr}"
        for path in PRODUCT
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in twins
    ]
    assert used == []


def test_the_environment_is_read_once() -> None:
    allowed = (
        r"apps/core/(conf\.py|embedded/.+|management/commands/up\.py)|config/(asgi|celery)\.py"
        r"|apps/providers/management/commands/add_provider\.py"
    )
    readers = [
        name(path)
        for path in PRODUCT
        if re.search(r"\bos\.(environ|getenv)\b", path.read_text()) and not re.fullmatch(allowed, name(path))
    ]
    assert readers == []
