"""Failures of one cause have one fingerprint, of two causes two: over the words that providers and libraries use."""

import itertools

import pytest

from apps.tasks import fingerprint
from apps.tasks.fingerprint import compute, normalise

# Per cause the words of two or more of its failures.
CAUSES: dict[str, list[str]] = {
    "openai rate limit": [
        "Rate limit reached for gpt-4o in organization org-Ab3dE5gH7jK9 on tokens per min (TPM): Limit 30000, Used "
        "29874, Requested 1520. Please try again in 2.788s. Visit https://platform.openai.com/account/rate-limits.",
        "Rate limit reached for gpt-4o in organization org-Zx8wV6uT4sR2 on tokens per min (TPM): Limit 30000, Used "
        "30000, Requested 4711. Please try again in 12.1s. Visit https://platform.openai.com/account/rate-limits.",
    ],
    "waited for a closed door": [
        "It waited for 5 s. No provider of this model can take a call right now.",
        "It waited for 11 s. No provider of this model can take a call right now.",
    ],
    "openai rate limit of another model": [
        "Rate limit reached for gpt-4o-mini in organization org-Ab3dE5gH7jK9 on tokens per min (TPM): Limit 30000, "
        "Used 29874, Requested 1520. Please try again in 2.788s. Visit https://platform.openai.com/account/rate-limits."
    ],
    "openai server": [
        "The server had an error while processing your request. Sorry about that! (request id: req_8a1b2c3d4e5f)",
        "The server had an error while processing your request. Sorry about that! (request id: req_00ff11ee22dd)",
    ],
    "openai key": [
        "Incorrect API key provided: sk-proj-a1b2c3d4e5. You can find your API key at https://platform.openai.com.",
        "Incorrect API key provided: sk-proj-9z8y7x6w5v. You can find your API key at https://platform.openai.com.",
    ],
    "openai context": [
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 131072 tokens.",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 140001 tokens.",
    ],
    "openai no model": ["The model `gpt-5-turbo` does not exist or you do not have access to it."],
    "openai other model": ["The model `gpt-9` does not exist or you do not have access to it."],
    "openai quota": ["You exceeded your current quota, please check your plan and billing details."],
    "openai filter": ["Your request was rejected as a result of our safety system."],
    "anthropic overloaded": [
        "Overloaded (request_id: req_011CSHoEeqs5C35K2UUqR7Fy)",
        "Overloaded (request_id: req_011CPzTy9kQmWbW1v3Lr8eNd)",
    ],
    "anthropic rate limit": [
        "This request would exceed your organization's rate limit of 40,000 input tokens per minute (org: "
        "7f1c2a34-9b8d-4e6f-a1b2-c3d4e5f60718, model: claude-sonnet-4-5).",
        "This request would exceed your organization's rate limit of 40,000 input tokens per minute (org: "
        "00000000-1111-4222-8333-444455556666, model: claude-sonnet-4-5).",
    ],
    "azure rate limit": [
        "Requests have exceeded the call rate limit of your current pricing tier. Please retry after 26 seconds.",
        "Requests have exceeded the call rate limit of your current pricing tier. Please retry after 3 seconds.",
    ],
    "a closed door": [
        "It waited for 600 s. The provider is not called for a while: it failed too often.",
        "It waited for 601 s. The provider is not called for a while: it failed too often.",
    ],
    "anthropic credit": ["Your credit balance is too low to access the Anthropic API."],
    "anthropic prompt": [
        "prompt is too long: 215112 tokens > 200000 maximum", "prompt is too long: 900001 tokens > 200000 maximum",
    ],
    "anthropic max_tokens": ["max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens"],
    "anthropic internal": ["Internal server error"],
    "vllm context": [
        "This model's maximum context length is 4096 tokens. However, you requested 5120 tokens (4096 in the messages, "
        "1024 in the completion). Please reduce the length of the messages or completion.",
        "This model's maximum context length is 4096 tokens. However, you requested 9999 tokens (8975 in the messages, "
        "1024 in the completion). Please reduce the length of the messages or completion.",
    ],
    "vllm dead engine": [
        "EngineCore encountered an issue. See stack trace at /usr/lib/python3/dist-packages/vllm/v1/engine/core.py.",
        "EngineCore encountered an issue. See stack trace at /opt/venv/lib/python3.12/vllm/v1/engine/core.py.",
    ],
    "vllm cuda": [
        "CUDA error: an illegal memory access was encountered at 0x7f3a9c2d10",
        "CUDA error: an illegal memory access was encountered at 0x7f00aa1b20",
    ],
    "vllm out of memory": [
        "CUDA out of memory. Tried to allocate 2048.00 MiB. Process 31337 has 79000 MiB memory in use.",
        "CUDA out of memory. Tried to allocate 1024.50 MiB. Process 40001 has 78123 MiB memory in use.",
    ],
    "vllm template": ["As of transformers v4.44, default chat template is no longer allowed."],
    "llama.cpp slot": ["no slot available, please wait"],
    "llama.cpp loading": ["Loading model"],
    "llama.cpp context": [
        "the request exceeds the available context size, try increasing it (n_prompt_tokens=10233, n_ctx=8192)",
        "the request exceeds the available context size, try increasing it (n_prompt_tokens=20466, n_ctx=8192)",
    ],
    "llama.cpp grammar": ["Failed to parse grammar"],
    "aiohttp refused": [
        "Cannot connect to host 10.12.0.7:8000 ssl:default [Connect call failed ('10.12.0.7', 8000)]",
        "Cannot connect to host 10.12.0.91:8000 ssl:default [Connect call failed ('10.12.0.91', 8000)]",
    ],
    "aiohttp resolve": ["Cannot connect to host model.internal:443 ssl:default [Name or service not known]"],
    "aiohttp certificate": [
        "Cannot connect to host 10.12.0.7:8000 ssl:True [SSLCertVerificationError: certificate has expired]"
    ],
    "aiohttp disconnected": ["Server disconnected"],
    "aiohttp reset": ["[Errno 104] Connection reset by peer"],
    "aiohttp payload": [
        "Response payload is not completed: <TransferEncodingError: 400, message='Not enough data', url=https://a.b/c>",
        "Response payload is not completed: <TransferEncodingError: 400, message='Not enough data', url=https://d.e/f>",
    ],
    "aiohttp timeout": ["Connection timeout to host http://10.0.0.1:8000/v1", "Connection timeout to host http://x/v1"],
    "psycopg refused": [
        'connection failed: connection to server at "10.1.2.3", port 5432 failed: Connection refused',
        'connection failed: connection to server at "10.9.8.7", port 5432 failed: Connection refused',
    ],
    "psycopg slots": ["FATAL: sorry, too many clients already"],
    "psycopg closed": ["server closed the connection unexpectedly"],
    "psycopg deadlock": [
        "deadlock detected DETAIL: Process 12345 waits for ShareLock on transaction 998877; blocked by process 54321.",
        "deadlock detected DETAIL: Process 22222 waits for ShareLock on transaction 111111; blocked by process 33333.",
    ],
    "psycopg duplicate": [
        'duplicate key value violates unique constraint "letter_open_once" DETAIL: Key '
        "(task_id)=(01a20bb8-bf9b-7213-8e50-3f7ce1056ff0) already exists.",
        'duplicate key value violates unique constraint "letter_open_once" DETAIL: Key '
        "(task_id)=(01a20bb8-c247-7fba-af3e-1cb735269053) already exists.",
    ],
    "psycopg statement": ["canceling statement due to statement timeout"],
    "json": [
        "Expecting value: line 1 column 20481 (char 20480)", "Expecting value: line 1 column 10001 (char 10000)",
    ],
    "mail": ["user ada@example.org may not use this", "user grace.hopper@mail.example.com may not use this"],
    "quoted prompt": [
        "invalid input: 'Tell me everything about the history of the Roman Empire, please'",
        "invalid input: 'Write a poem of forty lines about the sea and those who sail it'",
    ],
    "time": ["certificate expired at 2026-01-02T03:04:05Z", "certificate expired at 2026-11-24 13:14:15.123+01:00"],
}  # fmt: skip


def of(message: str, **fields: object) -> str:
    values: dict[str, object] = {"kind": "chat_completion", "upstream": "p/m", "code": "model_error", "status": 502}
    return compute(message=message, **{**values, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("cause", [cause for cause, words in CAUSES.items() if len(words) > 1])
def test_failures_of_one_cause_have_one_fingerprint(cause: str) -> None:
    assert len({normalise(words) for words in CAUSES[cause]}) == 1
    assert len({of(words) for words in CAUSES[cause]}) == 1


def test_no_two_causes_share_a_fingerprint() -> None:
    assert len(CAUSES) >= 40
    for (one, words), (other, others) in itertools.combinations(CAUSES.items(), 2):
        assert not {of(text) for text in words} & {of(text) for text in others}, f"{one}, {other}"


def test_what_is_shown_of_a_group_still_tells_the_cause() -> None:
    assert normalise(CAUSES["openai rate limit"][0]) == (
        "Rate limit reached for gpt-4o in organization <id> on tokens per min (TPM): Limit <n>, Used <n>, Requested "
        "<n>. Please try again in <n>s. Visit <url>"
    )
    assert normalise(CAUSES["psycopg deadlock"][0]) == (
        "deadlock detected DETAIL: Process <n> waits for ShareLock on transaction <n>; blocked by process <n>."
    )


def test_each_other_part_counts() -> None:
    prints = [
        of("x"), of("x", kind="embeddings"), of("x", upstream="q/m"), of("x", code="timeout"), of("x", status=None),
        of("x", status=503), of("x", frames=("a.py:f",)), of("x", frames=("a.py:f", "b.py:g")), of("y"),
    ]  # fmt: skip
    assert len(set(prints)) == len(prints)
    assert of("x", frames=("a", "b", "c", "d")) == of("x", frames=("a", "b", "c", "e"))  # the top three
    assert all(len(found) == 64 for found in prints)


def test_version_one_stays_as_it_was() -> None:
    # Rows keep their fingerprints for ever: whoever changes a rule makes a new version.
    assert fingerprint.VERSION == 1
    assert of("Overloaded (request_id: req_011CSHoEeqs5C35K2UUqR7Fy)") == (
        "835fd91110063df836079a6ebb5c9822faa25016963279f042dd050d3392327d"
    )


@pytest.mark.parametrize(
    "words", ["", "\0", "\ud800", *(odd * 1_000_000 for odd in ("x", "1", "'", "ab-", "/a", "f0", "x@"))], ids=range(10)
)
def test_no_words_are_too_odd_or_too_long(words: str) -> None:
    assert len(normalise(words)) <= fingerprint.MESSAGE
    assert len(of(words)) == 64


def test_frames_are_our_own_innermost_first_without_lines() -> None:
    from apps.core import json_codec

    try:
        json_codec.loads(b"NaN")
    except ValueError as error:
        frames = fingerprint.own_frames(error.__traceback__)
        text = fingerprint.traceback_text(error)
    assert frames == ("core/json_codec.py:_refuse", "core/json_codec.py:loads")
    assert "NaN is not JSON" in text
    assert len(text) <= fingerprint.MAX_TRACEBACK
