"""Tasks, queues, workers and the clock for the operators' scripts: /ops/api/{tasks,queues,workers,clock}/."""

from apps.tasks.operator_api.queues import QueueViewSet
from apps.tasks.operator_api.tasks import TaskViewSet
from apps.tasks.operator_api.workers import ClockViewSet, WorkerViewSet

__all__ = ["ClockViewSet", "QueueViewSet", "TaskViewSet", "WorkerViewSet"]
