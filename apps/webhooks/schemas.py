"""The bodies of the webhook routes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class RedeliverBody(BaseModel):
    """Which event; without one the task's last."""

    model_config = ConfigDict(strict=True, extra="forbid")

    event_id: str | None = None


class DeliveryError(BaseModel):
    code: str
    message: str


class WebhookDelivery(BaseModel):
    """One try to tell a callback URL of a task's end."""

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    task_id: str
    event_id: str
    event_type: str
    attempt: int
    url: str
    created_at: int
    duration_ms: int
    status_code: int | None
    response: str | None
    error: DeliveryError | None


class WebhookDeliveryList(BaseModel):
    object: Literal["list"] = "list"
    data: list[WebhookDelivery]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Redelivered(BaseModel):
    """An event that is on its way; `delivery_task_id` is the task that delivers it."""

    object: Literal["webhook_event"] = "webhook_event"
    id: str
    type: str
    task_id: str
    delivery_task_id: str
