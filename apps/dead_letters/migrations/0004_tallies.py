"""Statement triggers that tally what happens to letters, whoever writes them; the clock folds tallies into groups."""

from django.db import migrations

TALLY = """
CREATE FUNCTION dead_letters_tally_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO dead_letters_grouptally (group_id, project_id, api_key_id, at, died, opened)
  SELECT group_id, project_id, api_key_id, max(created_at), count(*), count(*) FILTER (WHERE state = 'open')
  FROM new_letters GROUP BY group_id, project_id, api_key_id, date_trunc('hour', created_at)
  ORDER BY group_id;
  RETURN NULL;
END $$;
CREATE FUNCTION dead_letters_tally_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO dead_letters_grouptally (group_id, opened, redriven, succeeded, failed, cancelled, discarded)
  SELECT n.group_id,
    sum((n.state = 'open')::int - (o.state = 'open')::int),
    sum((n.state = 'redriven')::int - (o.state = 'redriven')::int),
    sum((n.outcome = 'succeeded')::int - (o.outcome = 'succeeded')::int),
    sum((n.outcome = 'dead')::int - (o.outcome = 'dead')::int),
    sum((n.outcome = 'cancelled')::int - (o.outcome = 'cancelled')::int),
    sum((n.state = 'discarded')::int - (o.state = 'discarded')::int)
  FROM new_letters n JOIN old_letters o ON o.id = n.id
  WHERE n.state <> o.state OR n.outcome <> o.outcome
  GROUP BY n.group_id ORDER BY n.group_id;
  RETURN NULL;
END $$;
CREATE TRIGGER tally_new AFTER INSERT ON dead_letters_deadletter REFERENCING NEW TABLE AS new_letters
  FOR EACH STATEMENT EXECUTE FUNCTION dead_letters_tally_new();
CREATE TRIGGER tally_change AFTER UPDATE ON dead_letters_deadletter
  REFERENCING OLD TABLE AS old_letters NEW TABLE AS new_letters
  FOR EACH STATEMENT EXECUTE FUNCTION dead_letters_tally_change();
"""
NO_TALLY = """
DROP TRIGGER tally_new ON dead_letters_deadletter;
DROP TRIGGER tally_change ON dead_letters_deadletter;
DROP FUNCTION dead_letters_tally_new;
DROP FUNCTION dead_letters_tally_change;
"""
# Letters of before: how their redriven tasks ended, then what they count.
EARLIER = """
UPDATE dead_letters_deadletter l SET outcome = CASE WHEN t.cycle = l.cycle + 1 THEN t.state ELSE 'dead' END
FROM tasks_task t
WHERE t.id = l.task_id AND l.state = 'redriven'
  AND (t.cycle > l.cycle + 1 OR (t.cycle = l.cycle + 1 AND t.state IN ('succeeded', 'dead', 'cancelled')));
UPDATE dead_letters_failuregroup g SET last_seen = l.last FROM (
  SELECT group_id, max(created_at) AS last FROM dead_letters_deadletter GROUP BY group_id) l
WHERE g.fingerprint = l.group_id;
INSERT INTO dead_letters_grouptally
  (group_id, project_id, api_key_id, at, died, opened, redriven, succeeded, failed, cancelled, discarded)
SELECT group_id, project_id, api_key_id, max(created_at), count(*),
  count(*) FILTER (WHERE state = 'open'), count(*) FILTER (WHERE state = 'redriven'),
  count(*) FILTER (WHERE outcome = 'succeeded'), count(*) FILTER (WHERE outcome = 'dead'),
  count(*) FILTER (WHERE outcome = 'cancelled'), count(*) FILTER (WHERE state = 'discarded')
FROM dead_letters_deadletter GROUP BY group_id, project_id, api_key_id, date_trunc('hour', created_at);
"""


class Migration(migrations.Migration):

    dependencies = [
        ('dead_letters', '0003_triage'),
        ('tasks', '0004_operators'),
    ]

    operations = [migrations.RunSQL(EARLIER, migrations.RunSQL.noop), migrations.RunSQL(TALLY, NO_TALLY)]
