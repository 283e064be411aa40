"""The admin of tasks, queues, workers and retry policies."""

from apps.tasks.admin import policies, queues, tasks, workers

__all__ = ["policies", "queues", "tasks", "workers"]
