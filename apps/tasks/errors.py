"""The errors of tasks, as leaves of the tree in core/errors.py."""

from apps.core.errors import Conflict, InternalError, NotFound


class TaskNotFound(NotFound):
    default_message = "There is no such task."


class QueueNotFound(NotFound):
    default_message = "There is no such queue."


class QueueIsNotPaused(Conflict):
    default_message = "The queue is not paused."


class TaskIsFinal(Conflict):
    default_message = "The task has already ended."


class WorkerLost(InternalError):
    """The worker died, or was cut off, within the attempt; it may have run twice."""

    code = "worker_lost"
    default_message = "The worker was lost while it worked on this task; the attempt may have run twice."


class ResultNotStorable(InternalError):
    code = "result_not_storable"
    default_message = "The result could not be stored."


class UnknownKind(InternalError):
    """A task whose kind, or whose version of it, this code does not know."""

    code = "unknown_kind"
    default_message = "No handler knows this kind of task."
