"""Prompts and answers of the demo: what a shop might ask of a model."""

from random import Random
from typing import Any

from apps.core import ids
from apps.dead_letters.demo.failures import CHAT

MODELS = {"chat_completion": "gpt-4o-mini", "embeddings": "text-embedding-3-small"}
WHO = ("Anna Berg", "Luis Ortega", "Mei Lin", "Tom Baker", "Zofia Nowak", "Amara Okafor", "Jonas Weber", "Priya Nair")
WHAT = (
    "a wool blanket",
    "two desk lamps",
    "a pair of hiking boots",
    "a coffee grinder",
    "a garden hose",
    "a bike lock",
)
TROUBLE = ("arrived broken", "never arrived", "is the wrong colour", "came twice", "was charged twice", "is too small")
CALM = ("We are sorry about that.", "Thank you for telling us.", "Here is what we will do.", "Please keep the parcel.")
ASKED = (
    (
        "You sort support mail. Answer with one of: refund, exchange, question.",
        "Order {order}: {what} {trouble}. {who}",
    ),
    ("You answer customers of a shop, in two sentences.", "{who} writes: {what} {trouble}, order {order}."),
    ("Summarise the conversation in one line.", "{who}: my {what} {trouble}.\nAgent: order {order}?\n{who}: yes."),
    ("Translate into German.", "Dear {who}, {what} of order {order} is on its way to you."),
    ("Name the order and the product as JSON.", "Hello, I ordered {what} ({order}) and it {trouble}. {who}"),
)


def arguments(kind: str, rng: Random, *, long: bool = False) -> dict[str, Any]:
    """The arguments of a task."""
    facts = {
        "who": rng.choice(WHO),
        "what": rng.choice(WHAT),
        "trouble": rng.choice(TROUBLE),
        "order": f"A-{rng.randint(10_000, 99_999)}",
    }
    system, asked = rng.choice(ASKED)
    text = asked.format(**facts)
    if kind != CHAT:
        return {"model": MODELS[kind], "input": [text, f"{facts['what']} {facts['trouble']}"]}
    if long:  # more than a small model takes at once
        text = "\n".join(f"{number}. {asked.format(**facts)} {rng.choice(CALM)}" for number in range(1, 401))
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return {"model": MODELS[kind], "messages": messages, "max_tokens": 64, "temperature": 0.2}


def tokens(args: dict[str, Any], rng: Random) -> tuple[int, int]:
    """Of the prompt, by its length, and of an answer."""
    said = args["input"] if "input" in args else [message["content"] for message in args["messages"]]
    return max(1, sum(map(len, said)) // 4), rng.randint(8, 64) if "messages" in args else 0


def result(args: dict[str, Any], rng: Random, *, used: tuple[int, int], cost_usd: float, latency_ms: int) -> Any:
    """What a task gave: as the handlers of its kind put it."""
    model, (inwards, outwards) = args["model"], used
    usage = {"input_tokens": inwards, "output_tokens": outwards}
    if "input" in args:
        data = [
            {"object": "embedding", "index": index, "embedding": [round(rng.uniform(-1, 1), 4) for _ in range(8)]}
            for index in range(len(args["input"]))
        ]
        used_ = {"prompt_tokens": inwards, "total_tokens": inwards}
        response: dict[str, Any] = {"object": "list", "data": data, "model": model, "usage": used_}
        return {"status": "completed", "model": model, "usage": usage, "cost_usd": cost_usd, "response": response}
    content = " ".join(rng.sample(CALM, 2))
    message = {"role": "assistant", "content": content}
    response = {
        "id": ids.completion_id(),
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": inwards, "completion_tokens": outwards, "total_tokens": inwards + outwards},
        "cost_usd": cost_usd,
    }
    return {
        "status": "completed", "content": content, "model": model, "usage": usage, "latency_ms": latency_ms,
        "cost_usd": cost_usd, "response": response,
    }  # fmt: skip
