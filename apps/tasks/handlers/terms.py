"""The terms of a call within a task: each upstream once, spending checked at the attempt, booked when it ends."""

from apps.access.admission import AT_ATTEMPT
from apps.completions.spending import Terms
from apps.tasks.attempt import Run


def of_task(run: Run) -> Terms:
    """The terms of an attempt's calls."""
    return Terms(once_each=True, checks=AT_ATTEMPT, put=run.book)
