import apps.core.ids
import django.contrib.postgres.fields
import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models



from apps.core.triggers import bump_config_version_on_change


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ("core", "0001_config_version"),
    ]

    operations = [
        migrations.CreateModel(
            name='Project',
            fields=[
                ('id', models.UUIDField(default=apps.core.ids.new_uuid, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=64, unique=True, validators=[django.core.validators.RegexValidator('\\A[A-Za-z0-9][A-Za-z0-9._-]*\\Z', 'Letters, digits and . _ - only.')])),
                ('store_bodies', models.BooleanField(default=False, help_text='Keep the texts of requests and answers. Off: only counts, costs and times are kept.')),
                ('body_retention_days', models.PositiveSmallIntegerField(default=30, help_text='Days until stored texts are deleted by `manage.py prune`.', validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(3650)])),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
            ],
        ),
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.UUIDField(default=apps.core.ids.new_uuid, editable=False, primary_key=True, serialize=False)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('actor_id', models.IntegerField(null=True)),
                ('actor', models.CharField(max_length=150)),
                ('action', models.CharField(max_length=64)),
                ('object_type', models.CharField(max_length=64)),
                ('object_id', models.CharField(max_length=64)),
                ('object_name', models.CharField(max_length=200)),
                ('reason', models.TextField(blank=True)),
                ('before', models.JSONField(null=True)),
                ('after', models.JSONField(null=True)),
                ('request_id', models.CharField(blank=True, max_length=128)),
            ],
            options={
                'verbose_name_plural': 'audit entries',
                'indexes': [models.Index(fields=['-at', '-id'], name='audit_newest_first'), models.Index(fields=['object_type', 'object_id', '-at'], name='audit_of_an_object')],
            },
        ),
        migrations.CreateModel(
            name='ApiKey',
            fields=[
                ('id', models.UUIDField(default=apps.core.ids.new_uuid, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(help_text='Who or what uses this key.', max_length=64)),
                ('prefix', models.CharField(editable=False, help_text="The key's first characters, to tell keys apart.", max_length=12)),
                ('digest', models.CharField(editable=False, max_length=64, unique=True)),
                ('previous_digest', models.CharField(editable=False, max_length=64, null=True, unique=True)),
                ('previous_expires_at', models.DateTimeField(editable=False, null=True)),
                ('allowed_models', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=128), blank=True, default=list, help_text='Model names this key may use, with * as a wildcard, comma separated. Empty: all.', size=None)),
                ('expires_at', models.DateTimeField(blank=True, help_text='The key stops working at this time. Empty: never.', null=True)),
                ('disabled_at', models.DateTimeField(blank=True, editable=False, null=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='api_keys', to='access.project')),
            ],
            options={
                'verbose_name': 'API key',
            },
        ),
        migrations.CreateModel(
            name='Limit',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('requests_per_minute', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1)])),
                ('tokens_per_minute', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1)])),
                ('concurrency', models.PositiveIntegerField(blank=True, help_text='Requests at the same time.', null=True, validators=[django.core.validators.MinValueValidator(1)])),
                ('monthly_budget_usd', models.DecimalField(blank=True, decimal_places=4, help_text='US dollars in a calendar month (UTC).', max_digits=12, null=True, validators=[django.core.validators.MinValueValidator(0)])),
                ('end_user_requests_per_minute', models.PositiveIntegerField(blank=True, help_text='For each end user (X-User-ID, or `user` in the body), in addition to the limits above.', null=True, validators=[django.core.validators.MinValueValidator(1)])),
                ('api_key', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='limit', to='access.apikey')),
                ('project', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='limit', to='access.project')),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(models.Q(('api_key__isnull', True), ('project__isnull', False)), models.Q(('api_key__isnull', False), ('project__isnull', True)), _connector='OR'), name='limit_is_of_a_project_or_of_a_key')],
            },
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('previous_digest__isnull', True), ('previous_expires_at__isnull', True)), models.Q(('previous_digest__isnull', False), ('previous_expires_at__isnull', False)), _connector='OR'), name='api_key_previous_digest_has_an_end'),
        ),
        bump_config_version_on_change('access_project', 'access_apikey', 'access_limit'),
        migrations.RunSQL(
            """
            CREATE FUNCTION access_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'the audit is append-only'; END $$;
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON access_auditentry
            FOR EACH ROW EXECUTE FUNCTION access_audit_is_append_only();
            """,
            "DROP TRIGGER append_only ON access_auditentry; DROP FUNCTION access_audit_is_append_only();",
        ),
    ]
