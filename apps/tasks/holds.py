"""Holds: fingerprints whose failures are not retried any more. Set by triage, read where an attempt ends (`finish`)."""

from collections.abc import Collection

from django.db.models import Exists, OuterRef

from apps.tasks.models import RetryHold


def hold(fingerprint: str) -> bool:
    """Let a failure with this fingerprint be a task's last. False: that was so already."""
    _, made = RetryHold.objects.get_or_create(fingerprint=fingerprint)
    return made


def release(fingerprint: str) -> bool:
    """Let such failures be retried again. False: they were."""
    deleted, _ = RetryHold.objects.filter(pk=fingerprint).delete()
    return bool(deleted)


def forget(fingerprints: Collection[str]) -> None:
    """Release those whose groups are gone: nobody could do it any more."""
    RetryHold.objects.filter(pk__in=fingerprints).delete()


def held(fingerprints: Collection[str]) -> set[str]:
    """Those of them that are held."""
    return set(RetryHold.objects.filter(pk__in=fingerprints).values_list("pk", flat=True))


def is_held(column: str = "pk") -> Exists:
    """To annotate rows whose `column` is a fingerprint."""
    return Exists(RetryHold.objects.filter(pk=OuterRef(column)))
