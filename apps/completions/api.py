"""The live routes of /v1: chat completions, embeddings, models. Thin: parse, one verb, render."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import Router

from apps.access.way_in import caller_of, end_user_of, once
from apps.completions import chat, embeddings, sse
from apps.completions.schemas.chat import ChatRequest
from apps.completions.schemas.embeddings import EmbeddingsRequest
from apps.completions.schemas.replies import ChatCompletion, Embeddings, Model, ModelList
from apps.core import errors, json_codec
from apps.core.lean_asgi import ByteStreamResponse
from apps.providers import routing
from apps.providers.contract import RouteConfig

router = Router()


@router.post(
    "/chat/completions", response=ChatCompletion, tags=["Chat"], operation_id="create_chat_completion", by_alias=True
)
async def create_chat_completion(request: HttpRequest, payload: ChatRequest) -> HttpResponseBase:
    """Answer a conversation. With `stream: true` the reply is server-sent events that end with `data: [DONE]`."""
    if "HTTP_IDEMPOTENCY_KEY" in request.META:
        return await once(request, payload, chat.create)
    if not payload.stream:
        return _json(await chat.create(caller_of(request), payload, end_user=end_user_of(request)))
    stream = await chat.open_stream(caller_of(request), payload, end_user=end_user_of(request))
    return ByteStreamResponse(
        sse.events(stream),
        release=stream.close,
        last_words=sse.stopping,
        content_type="text/event-stream; charset=utf-8",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@router.post("/embeddings", response=Embeddings, tags=["Embeddings"], operation_id="create_embedding")
async def create_embedding(request: HttpRequest, payload: EmbeddingsRequest) -> HttpResponseBase:
    """Turn texts into vectors."""
    if "HTTP_IDEMPOTENCY_KEY" in request.META:
        return await once(request, payload, embeddings.create)
    return _json(await embeddings.create(caller_of(request), payload, end_user=end_user_of(request)))


@router.get("/models", response=ModelList, tags=["Models"], operation_id="list_models")
async def list_models(request: HttpRequest) -> HttpResponseBase:
    """The models that this API key may use."""
    caller = caller_of(request)
    routes = sorted((await routing.routes()).values(), key=lambda route: route.public_name)
    return _json({"object": "list", "data": [_model(route) for route in routes if caller.may_use(route.public_name)]})


@router.get("/models/{path:model}", response=Model, tags=["Models"], operation_id="retrieve_model")
async def retrieve_model(request: HttpRequest, model: str) -> HttpResponseBase:
    """One model."""
    if not caller_of(request).may_use(model):
        raise errors.ModelNotFound(param="model")
    return _json(_model(await routing.find(model)))


def _json(value: Any) -> HttpResponse:
    return HttpResponse(json_codec.dumps(value), content_type="application/json")


def _model(route: RouteConfig) -> dict[str, Any]:
    return {"id": route.public_name, "object": "model", "created": route.created, "owned_by": "redrive"}
