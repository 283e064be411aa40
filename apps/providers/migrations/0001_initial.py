import apps.core.crypto
import apps.core.ids
import apps.providers.models
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
            name='ModelRoute',
            fields=[
                ('id', models.UUIDField(default=apps.core.ids.new_uuid, editable=False, primary_key=True, serialize=False)),
                ('public_name', models.CharField(max_length=128, unique=True, validators=[django.core.validators.RegexValidator('\\A[a-zA-Z0-9_.:/@-]+\\Z', 'Letters, digits and _ . : / @ - only.')])),
                ('enabled', models.BooleanField(default=True)),
                ('default_params', models.JSONField(blank=True, default=apps.providers.models.default_params, help_text='Sent with chat requests where the client left them out. Empty {} for models that refuse them.', validators=[apps.providers.models.validate_params])),
                ('context_window', models.PositiveIntegerField(default=128000, help_text='Tokens of input and output together.', validators=[django.core.validators.MinValueValidator(1)])),
                ('max_output_tokens', models.PositiveIntegerField(default=16384, help_text='The greatest max_tokens a request may ask for.', validators=[django.core.validators.MinValueValidator(1)])),
                ('unknown_fields', models.CharField(choices=[('refuse', 'Refuse with 400'), ('forward', 'Forward to the provider')], default='refuse', help_text='What to do with fields of a request that OpenAI does not document.', max_length=8)),
                ('fallback_after', models.FloatField(blank=True, help_text="Seconds without a first byte after which the next upstream is tried. Empty: the provider's timeout.", null=True, validators=[django.core.validators.MinValueValidator(0.1), django.core.validators.MaxValueValidator(600)])),
                ('input_usd_per_million', models.DecimalField(blank=True, decimal_places=6, help_text="US dollars for a million input tokens. Empty: the published price of the upstream's model.", max_digits=12, null=True, validators=[django.core.validators.MinValueValidator(0)], verbose_name='input price')),
                ('output_usd_per_million', models.DecimalField(blank=True, decimal_places=6, help_text='US dollars for a million output tokens.', max_digits=12, null=True, validators=[django.core.validators.MinValueValidator(0)], verbose_name='output price')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
            ],
        ),
        migrations.CreateModel(
            name='Provider',
            fields=[
                ('id', models.UUIDField(default=apps.core.ids.new_uuid, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=64, unique=True, validators=[django.core.validators.RegexValidator('\\A[a-z0-9][a-z0-9._-]*\\Z', 'Lower-case letters, digits and . _ - only.')])),
                ('kind', models.CharField(choices=[('openai_http', 'OpenAI-compatible HTTP')], default='openai_http', max_length=32)),
                ('base_url', models.CharField(help_text='As in the SDK: ends in /v1.', max_length=500, validators=[apps.providers.models.validate_base_url], verbose_name='base URL')),
                ('api_key', apps.core.crypto.EncryptedTextField(blank=True, default='', help_text='Stored encrypted; never shown again.', verbose_name='API key')),
                ('headers', apps.core.crypto.EncryptedTextField(blank=True, default='', help_text='Further headers for every request, one `Name: value` a line. Stored encrypted; never shown again.', validators=[apps.providers.models.validate_headers])),
                ('enabled', models.BooleanField(default=True)),
                ('connect_timeout', models.FloatField(default=5, help_text='Seconds to connect.', validators=[django.core.validators.MinValueValidator(0.1), django.core.validators.MaxValueValidator(60)])),
                ('first_token_timeout', models.FloatField(default=60, help_text='Seconds until the first content of a stream.', validators=[django.core.validators.MinValueValidator(0.1), django.core.validators.MaxValueValidator(600)])),
                ('idle_timeout', models.FloatField(default=60, help_text='Seconds between two pieces of a stream.', validators=[django.core.validators.MinValueValidator(0.1), django.core.validators.MaxValueValidator(600)])),
                ('total_timeout', models.FloatField(default=600, help_text='Seconds for a whole call, retries included; the only limit on answers that are not streamed.', validators=[django.core.validators.MinValueValidator(0.1), django.core.validators.MaxValueValidator(600)])),
                ('max_concurrency', models.PositiveIntegerField(default=1000, help_text='Calls at the same time, for each gateway process.', validators=[django.core.validators.MinValueValidator(1)])),
                ('breaker_failures', models.PositiveSmallIntegerField(default=3, help_text='Failures in a row, within the window, that open the circuit breaker of a model.', validators=[django.core.validators.MinValueValidator(1)])),
                ('breaker_window', models.FloatField(default=60, help_text='Seconds within which the failures count.', validators=[django.core.validators.MinValueValidator(0.1), django.core.validators.MaxValueValidator(3600)])),
                ('breaker_reset', models.FloatField(default=30, help_text='Seconds until an open breaker lets one call through to probe.', validators=[django.core.validators.MinValueValidator(0.1), django.core.validators.MaxValueValidator(3600)])),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
            ],
        ),
        migrations.CreateModel(
            name='Upstream',
            fields=[
                ('id', models.UUIDField(default=apps.core.ids.new_uuid, editable=False, primary_key=True, serialize=False)),
                ('model', models.CharField(help_text="The model's name there.", max_length=128, validators=[django.core.validators.RegexValidator('\\A[a-zA-Z0-9_.:/@-]+\\Z', 'Letters, digits and _ . : / @ - only.')])),
                ('position', models.PositiveSmallIntegerField(default=1, help_text='1 is tried first, then 2, and so on.')),
                ('weight', models.PositiveSmallIntegerField(default=1, help_text='Share of the traffic among those of one position.', validators=[django.core.validators.MinValueValidator(1)])),
                ('provider', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='upstreams', to='providers.provider')),
                ('route', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='upstreams', to='providers.modelroute')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('route', 'provider', 'model'), name='upstream_once_per_route')],
            },
        ),
        bump_config_version_on_change('providers_provider', 'providers_modelroute', 'providers_upstream'),
    ]
