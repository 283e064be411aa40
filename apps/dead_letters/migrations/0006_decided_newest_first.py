"""Lists of decided letters have an index, and Postgres is told that not every kind waits in every queue."""

from django.db import migrations, models

# Without it, a kind and a queue that never meet are looked for in all letters of the kind.
TOGETHER = "CREATE STATISTICS letter_kind_and_queue (mcv) ON kind, queue FROM dead_letters_deadletter"
APART = "DROP STATISTICS letter_kind_and_queue"


class Migration(migrations.Migration):

    dependencies = [
        ('dead_letters', '0005_alerts'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='deadletter',
            index=models.Index(condition=models.Q(('state', 'open'), _negated=True), fields=['state', '-created_at', '-id'], name='letter_decided_newest'),
        ),
        migrations.RunSQL(TOGETHER, APART),
    ]
