from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('dead_letters', '0001_initial'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='deadletter',
            index=models.Index(condition=models.Q(('state', 'open'), _negated=True), fields=['decided_at'], name='letter_decided'),
        ),
    ]
