"""Loads the benchmark's database by INSERT ... SELECT: letters with all that their pages show, fresh statistics."""

import sys
import time
from typing import Any

import psycopg

from bench.triage import shape

PIECE = 100_000  # letters of one statement

# What a letter is, before anything is written of it. Decisions are about old letters: the newest are all open.
STAGE = """
CREATE UNLOGGED TABLE bench_letter AS
SELECT row_number() OVER (ORDER BY at) AS n, uuidv7(at - now()) AS id,
  uuidv7(at - now() - interval '4 minutes') AS task, d.*, k.project_id, k.key_id,
  CASE WHEN at < now() - interval '2 days' AND dice < 0.28 THEN 'redriven'
       WHEN at < now() - interval '5 days' AND dice < 0.5 THEN 'discarded' ELSE 'open' END AS state,
  CASE WHEN at < now() - interval '2 days' THEN CASE
    WHEN dice < 0.19 THEN 'succeeded' WHEN dice < 0.25 THEN 'dead' WHEN dice < 0.26 THEN 'cancelled' ELSE '' END
  ELSE '' END AS outcome
FROM (
  SELECT g.*, random() AS dice, CASE WHEN random() < 0.15 THEN 4 ELSE 1 END AS tries,
    now() - make_interval(secs => (g.until + (g.since - g.until) * random()) * 86400) AS at,
    CASE WHEN g.first_key = 40 THEN 40 ELSE (g.first_key + floor(g.keys * power(random(), 2))::int) %% 40 END AS key
  FROM bench_group g CROSS JOIN LATERAL generate_series(1, g.size)) d
JOIN bench_key k ON k.n = d.key
"""
INDEX = "CREATE INDEX ON bench_letter (n)"
KEYS = """
INSERT INTO access_apikey (id, project_id, name, prefix, digest, allowed_models)
SELECT key_id, project_id, 'key ' || n, 'rd_' || n, md5(key_id::text) || md5(n::text), '{}' FROM bench_key
"""
GROUPS = """
INSERT INTO dead_letters_failuregroup (fingerprint, kind, queue, upstream, code, status, message, first_seen, last_seen)
SELECT fingerprint, kind, queue, upstream, code, status, message, now() - make_interval(secs => since * 86400),
  now() - make_interval(secs => until * 86400) FROM bench_group
"""
TASKS = """
INSERT INTO tasks_task (id, project_id, api_key_id, request_id, end_user, kind, schema_version, state, priority, queue,
  next_attempt_at, cancel_requested, attempt, cycle, charged_failures, worker_losses, callback_url, metadata, progress,
  error, created_at, started_at, finished_at)
SELECT task, project_id, key_id, 'req_' || n, '', kind, 1,
  CASE WHEN state <> 'redriven' THEN 'dead' WHEN outcome = '' THEN 'pending' ELSE outcome END, 'default', queue,
  now() + make_interval(secs => dice * 3600), false, tries, CASE WHEN state = 'redriven' THEN 2 ELSE 1 END, tries, 0,
  '', '', '', jsonb_build_object('code', code, 'message', message)::text, at - interval '4 minutes',
  at - interval '4 minutes', CASE WHEN state = 'redriven' AND outcome = '' THEN NULL WHEN state = 'redriven'
  THEN at + interval '47 hours' ELSE at END
FROM bench_letter WHERE n BETWEEN %(first)s AND %(last)s
"""
PAYLOADS = """
INSERT INTO tasks_taskpayload (task_id, revision, body, created_at)
SELECT task, 1, '{"model": "gpt-4o", "temperature": 0.2, "messages": [{"role": "system", "content": "Answer in one '
  || 'sentence, in the language of the question."}, {"role": "user", "content": "Summarise ticket ' || n
  || ': the parcel was left with a neighbour who is away until next week."}]}', at - interval '4 minutes'
FROM bench_letter WHERE n BETWEEN %(first)s AND %(last)s
"""
ATTEMPTS = """
INSERT INTO tasks_taskattempt (task_id, number, cycle, token, worker, started_at, finished_at, outcome, charged,
  error_code, error_status, error_message, fingerprint, traceback, upstream, input_tokens, output_tokens, cost_nusd)
SELECT task, number, 1, n * 4 + number, %(worker)s, at - make_interval(secs => (tries - number) * 50 + 3),
  at - make_interval(secs => (tries - number) * 50), 'failed', true, code, status, replace(message, '<n>', n::text),
  fingerprint, CASE WHEN number = tries AND n %% 5 = 0 THEN %(traceback)s ELSE '' END, upstream, 0, 0, 0
FROM bench_letter CROSS JOIN LATERAL generate_series(1, tries) AS number WHERE n BETWEEN %(first)s AND %(last)s
"""
LETTERS = """
INSERT INTO dead_letters_deadletter (id, task_id, cycle, group_id, project_id, api_key_id, kind, queue, code, attempts,
  state, created_at, decided_at, decided_by, reason, discard_code, outcome)
SELECT id, task, 1, fingerprint, project_id, key_id, kind, queue, code, tries, state, at,
  CASE WHEN state <> 'open' THEN at + interval '46 hours' END, CASE WHEN state <> 'open' THEN 'ada' ELSE '' END,
  CASE WHEN state <> 'open' THEN 'the provider is back' ELSE '' END,
  CASE WHEN state = 'discarded' THEN 'too_late' ELSE '' END, CASE WHEN state = 'redriven' THEN outcome ELSE '' END
FROM bench_letter WHERE n BETWEEN %(first)s AND %(last)s
"""
DIED_AGAIN = """
INSERT INTO dead_letters_deadletter (id, task_id, cycle, group_id, project_id, api_key_id, kind, queue, code, attempts,
  state, created_at, decided_by, reason)
SELECT uuidv7(at + interval '47 hours' - now()), task, 2, fingerprint, project_id, key_id, kind, queue, code, tries,
  'open', at + interval '47 hours', '', ''
FROM bench_letter WHERE state = 'redriven' AND outcome = 'dead' AND n BETWEEN %(first)s AND %(last)s
"""
AUDIT = """
INSERT INTO access_auditentry (id, at, actor, action, object_type, object_id, object_name, reason, before, after,
  request_id)
SELECT uuidv7(at + interval '46 hours' - now()), at + interval '46 hours', 'ada',
  CASE WHEN state = 'redriven' THEN 'redrive' ELSE 'discard' END, 'dead_letters.deadletter', id::text,
  'letter of task_' || replace(task::text, '-', ''), 'the provider is back', '{"state": "open"}',
  jsonb_build_object('state', state), ''
FROM bench_letter WHERE state <> 'open' AND n BETWEEN %(first)s AND %(last)s
"""
EACH_PIECE = (TASKS, PAYLOADS, ATTEMPTS, LETTERS, DIED_AGAIN, AUDIT)
# The triggers tally what is inserted; what became of it is tallied here, as the triggers would have done.
DECIDED = """
INSERT INTO dead_letters_grouptally (group_id, redriven, succeeded, failed, cancelled, discarded)
SELECT fingerprint, count(*) FILTER (WHERE state = 'redriven'),
  count(*) FILTER (WHERE state = 'redriven' AND outcome = 'succeeded'),
  count(*) FILTER (WHERE state = 'redriven' AND outcome = 'dead'),
  count(*) FILTER (WHERE state = 'redriven' AND outcome = 'cancelled'), count(*) FILTER (WHERE state = 'discarded')
FROM bench_letter WHERE state <> 'open' GROUP BY 1
"""
LEDGER = """
INSERT INTO completions_ledgerentry (id, created_at, request_id, project_id, api_key_id, end_user, operation, model,
  provider, upstream_model, upstream_request_id, attempt, stream, outcome, status, error_code, input_tokens,
  cached_tokens, output_tokens, cost_nusd, estimated, latency_ms, elapsed_ms)
SELECT uuidv7(at - now()), at, 'req_live_' || n, k.project_id, k.key_id, '', 'chat_completion', split_part(u, '/', 2),
  split_part(u, '/', 1), split_part(u, '/', 2), 'up_' || n, 1, false,
  CASE WHEN n %% 20 = 0 THEN 'failed' ELSE 'succeeded' END, CASE WHEN n %% 20 = 0 THEN 503 ELSE 200 END,
  CASE WHEN n %% 20 = 0 THEN 'model_error' ELSE '' END, 400, 0, 150, 900000, false, 300 + n %% 2000, 310 + n %% 2000
FROM (SELECT n, now() - make_interval(secs => 86400.0 * n / %(rows)s) AS at,
        (%(upstreams)s::text[])[1 + n %% array_length(%(upstreams)s::text[], 1)] AS u
      FROM generate_series(1, %(rows)s) AS n) e
JOIN (SELECT n AS number, project_id, key_id FROM bench_key) k ON k.number = n %% 40
"""
MOVED = """
UPDATE dead_letters_failuregroup g SET state = s.state, state_changed_at = now(),
  owner_id = CASE WHEN s.state = 'open' THEN %(owner)s END,
  note = CASE WHEN s.n %% 40 = 0 THEN 'See the runbook.' ELSE '' END,
  snoozed_until = CASE WHEN s.state = 'snoozed' THEN now() + interval '3 days' END
FROM (SELECT fingerprint, n, CASE WHEN n %% 20 < 12 THEN 'for_review' WHEN n %% 20 < 15 THEN 'open'
        WHEN n %% 20 < 17 THEN 'snoozed' WHEN n %% 20 < 19 THEN 'resolved' ELSE 'regressed' END AS state
      FROM (SELECT fingerprint, row_number() OVER (ORDER BY size DESC, fingerprint) - 1 AS n FROM bench_group) b) s
WHERE g.fingerprint = s.fingerprint
"""
GROUP_AUDIT = """
INSERT INTO access_auditentry (id, at, actor, action, object_type, object_id, object_name, reason, before, after,
  request_id)
SELECT uuidv7(-make_interval(secs => n * 60)), now() - make_interval(secs => n * 60), 'ada', 'assign',
  'dead_letters.failuregroup', fingerprint, code, '', '{"owner": null}', '{"owner": "ada"}', ''
FROM (SELECT *, row_number() OVER () AS n FROM bench_group) g
"""
HOLDS = "INSERT INTO tasks_retryhold (fingerprint) SELECT fingerprint FROM bench_group ORDER BY size DESC LIMIT 20"
OPERATIONS = """
INSERT INTO dead_letters_bulkoperation (id, action, state, groups, query, title, reason, discard_code, created_by,
  created_at, rate, max_in_flight, canary, stop_percent, breakdown, started_by, resumes_in, stop_reason, finished_at,
  total, skipped, released, succeeded, failed, cancelled, judged_from, judged_failed)
SELECT uuidv7(n * interval '-1 hour'), 'redrive', 'done', ARRAY[fingerprint], '', 'Redrive: ' || code, '', '', 'ada',
  now() - n * interval '1 hour', 20, 100, 3, 20, '{}', 'ada', '', '', now() - (n - 1) * interval '1 hour', 0, 0,
  0, 0, 0, 0, 0, 0
FROM (SELECT *, row_number() OVER (ORDER BY size DESC) AS n FROM bench_group LIMIT 300) g
"""
ITEMS = """
WITH o AS (SELECT id FROM dead_letters_bulkoperation ORDER BY created_at DESC LIMIT 1),
 letters AS (
  SELECT id, task, fingerprint, outcome FROM bench_letter WHERE state = 'redriven' AND outcome <> ''
  ORDER BY n LIMIT %(items)s),
 decided AS (UPDATE dead_letters_deadletter l SET operation_id = o.id FROM o, letters WHERE l.id = letters.id),
 items AS (
  INSERT INTO dead_letters_bulkitem (operation_id, letter_id, task_id, cycle, group_id, state, cause, outcome)
  SELECT o.id, letters.id, task, 1, fingerprint, 'released', '', outcome FROM letters, o RETURNING outcome),
 counts AS (
  SELECT count(*) AS n, count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
    count(*) FILTER (WHERE outcome = 'dead') AS failed, count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled
  FROM items)
UPDATE dead_letters_bulkoperation b SET total = n, released = n, succeeded = counts.succeeded, failed = counts.failed,
  cancelled = counts.cancelled, query = 'state:open', groups = '{}'
FROM o, counts WHERE b.id = o.id
"""
ALERTS = """
INSERT INTO dead_letters_alert (id, event, severity, subject, title, body, state, opened_at, acknowledged_by, ended_at)
SELECT uuidv7(-make_interval(mins => n)), 'rate', 'critical', 'subject ' || n, '10 failures within 1 hour', '',
  CASE WHEN n <= 20 THEN 'firing' ELSE 'ended' END, now() - make_interval(mins => n), '',
  CASE WHEN n > 20 THEN now() - make_interval(mins => n - 5) END
FROM generate_series(1, 2000) AS n
"""
TRACEBACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "/srv/redrive/apps/{name}.py", line {line}, in {name.rpartition("/")[2]}\n    return await call(run)\n'
    for line, name in ((144, "tasks/attempt"), (61, "tasks/handlers/chat_completion"), (203, "providers/client"))
)


def load(url: str, *, letters: int, groups: int, owner: int, ledger: int = 20_000, items: int = 100_000) -> None:
    """Fill an empty, migrated database. owner: the id of the user to whom groups are assigned."""
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        _plan(connection, shape.groups(letters, groups))
        run(connection, STAGE, INDEX, "ANALYZE bench_letter", KEYS, GROUPS)
        values = {"worker": "00000000-0000-7000-8000-000000000000", "traceback": TRACEBACK}
        for first in range(1, letters + 1, PIECE):
            for statement in EACH_PIECE:
                connection.execute(statement, {**values, "first": first, "last": first + PIECE - 1})
            print(f"{min(first + PIECE - 1, letters):,} letters, {time.monotonic() - began:,.0f} s", file=sys.stderr)
        run(connection, DECIDED, GROUP_AUDIT, HOLDS, OPERATIONS, ALERTS)
        connection.execute(ITEMS, {"items": items})
        connection.execute(LEDGER, {"rows": ledger, "upstreams": list(shape.UPSTREAMS)})
        connection.execute("VACUUM ANALYZE")
        fold()
        connection.execute(MOVED, {"owner": owner})
        connection.execute("DROP TABLE bench_letter, bench_group, bench_key")
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    print(f"loaded in {time.monotonic() - began:,.0f} s", file=sys.stderr)


def fold() -> None:
    """Let the clock's chore count what was loaded."""
    from apps.dead_letters import tallies

    while tallies.fold():
        pass


def run(connection: "psycopg.Connection[Any]", *statements: str) -> None:
    """One after the other, without parameters."""
    for statement in statements:
        connection.execute(statement.replace("%%", "%"))


def _plan(connection: "psycopg.Connection[Any]", groups: list[shape.Group]) -> None:
    connection.execute(
        "CREATE UNLOGGED TABLE bench_group (fingerprint text, size int, kind text, queue text, upstream text, "
        "code text, status int, message text, since float8, until float8, first_key int, keys int)"
    )
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY bench_group ({', '.join(shape.COLUMNS)}) FROM STDIN") as copy:
            for row in shape.rows(groups):
                copy.write_row(row)
        connection.execute("CREATE UNLOGGED TABLE bench_key (n int, key_id uuid, project_id uuid)")
        for name, keys in shape.PROJECTS.items():
            connection.execute(
                "WITH p AS (INSERT INTO access_project (id, name, store_bodies, body_retention_days) "
                "VALUES (uuidv7(), %s, false, 30) RETURNING id) "
                "INSERT INTO bench_key SELECT n, uuidv7(), p.id FROM p, unnest(%s::int[]) AS n",
                [name, list(keys)],
            )
