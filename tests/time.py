"""Tests never move a clock: they make rows older. What lasts (a freeze, a stall) lasts in real time."""

import threading
from datetime import datetime, timedelta

from django.db import models


def age(row: models.Model, **duration: float) -> None:
    """Move every time of a row into the past: `age(key, hours=5)`."""
    by = timedelta(**duration)
    changed = {
        field.attname: getattr(row, field.attname) - by
        for field in row._meta.concrete_fields
        if isinstance(getattr(row, field.attname), datetime)
    }
    type(row)._base_manager.filter(pk=row.pk).update(**changed)
    row.refresh_from_db()


def stay(seconds: float) -> None:
    """Let a fault last so long. Never to wait for something: that is asked for until it is there."""
    threading.Event().wait(seconds)
