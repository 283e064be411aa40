"""All Django settings, one file; the environment is read once, by apps/core/conf.py."""

import secrets as random
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from apps.core.conf import load
from config.admin_theme import unfold_theme
from config.logging import configure_logging

BASE_DIR = Path(__file__).resolve().parent.parent
REDRIVE = load()

# Without a key of its own a process can run commands, but its sessions end with it.
SECRET_KEY = REDRIVE.secret_key.get_secret_value() or random.token_urlsafe(48)
DEBUG = False
ALLOWED_HOSTS = REDRIVE.allowed_hosts
CSRF_TRUSTED_ORIGINS = REDRIVE.csrf_trusted_origins

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",  # the default one would put its own site in place of ours
    "unfold.contrib.filters",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "config.admin_config.RedriveAdminConfig",
    "ninja",
    "rest_framework",
    "knox",
    "django_filters",
    "drf_spectacular",
    "axes",
    "django_celery_results",
    "django_celery_beat",
    "apps.core",
    "apps.access",
    "apps.providers",
    "apps.completions",
    "apps.tasks",
    "apps.dead_letters",
    "apps.webhooks",
    "apps.streaming",
]

# The operators' side only: /v1 is served by apps/core/lean_asgi.py without Django's middleware.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "config.csp.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


def postgres(url: str) -> dict[str, Any]:
    """Django's settings of the database at `url`; without a URL a backend that refuses every query."""
    if not url:
        return {"ENGINE": "django.db.backends.dummy"}
    parts = urlsplit(url)
    asked = dict(parse_qsl(parts.query))  # sslmode, sslrootcert, ...: libpq's words
    session = "-c statement_timeout=30s -c idle_in_transaction_session_timeout=60s " + asked.pop("options", "")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or 5432),
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "pool": {
                "min_size": 1,
                "max_size": REDRIVE.database_pool_size,
                "timeout": REDRIVE.database_timeout,
                # It backs off until then, and whoever asks next tries anew: after an hour's outage, seconds count.
                "reconnect_timeout": 2,
            },
            "connect_timeout": max(2, int(REDRIVE.database_timeout)),
            "tcp_user_timeout": 10_000,  # milliseconds: a host that vanished must not hold a thread
            "options": session.strip(),
            **asked,
        },
    }


DATABASES = {"default": postgres(REDRIVE.database_url)}
# Its own table stays unmade: the tokens are those of apps/access/models.py.
MIGRATION_MODULES = {"knox": None}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_CALLABLE = "config.error_views.locked_out"
AXES_IPWARE_PROXY_COUNT = REDRIVE.trusted_proxies or None

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = REDRIVE.secure_cookies
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if REDRIVE.trusted_proxies else None
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "config.error_views.csrf_failure"

LANGUAGE_CODE = "en-us"
USE_I18N = False
FORMAT_MODULE_PATH = ["config.formats"]
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "config" / "static"]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

# Rings and chores (docs/decisions/0010-tasks.md). Sockets give up soon: a frozen Redis must not slow what rings it.
CELERY_BROKER_URL = REDRIVE.broker_url or REDRIVE.redis_url
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_TIMEOUT = 0.5
CELERY_BROKER_TRANSPORT_OPTIONS = {"ack_emulation": False, "socket_timeout": 0.5, "socket_connect_timeout": 0.5}
CELERY_RESULT_BACKEND = "django-db"
CELERY_RESULT_EXPIRES = 3600
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_DEFAULT_QUEUE = "chores"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_TIMEZONE = "UTC"

UNFOLD = unfold_theme()

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "config.drf.OperatorTokens",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PARSER_CLASSES": [
        "config.drf.StrictJson",
        "rest_framework.parsers.FormParser",
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_THROTTLE_CLASSES": ["config.drf.PerPerson"],
    "DEFAULT_THROTTLE_RATES": {"person": "600/min", "stranger": "60/min"},
    "DEFAULT_PERMISSION_CLASSES": ["config.drf.ModelPermissions"],
    "DEFAULT_PAGINATION_CLASS": "config.drf.NewestFirst",
    "DEFAULT_FILTER_BACKENDS": ["config.drf.KnownFilters"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "config.drf.answer",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "PAGE_SIZE": 50,
}
# In the memory of each process. Of more entries some are forgotten at random.
CACHES = {
    name: {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": name,
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    }
    for name in ("default", "throttles")
}
KNOX_TOKEN_MODEL = "access.OperatorToken"  # noqa: S105 (a name)
REST_KNOX = {
    "SECURE_HASH_ALGORITHM": "hashlib.sha512",
    "AUTH_TOKEN_CHARACTER_LENGTH": 64,  # hexadecimal: 256 bits
    "TOKEN_PREFIX": "rdo_",
    "TOKEN_TTL": timedelta(days=90),
    "TOKEN_LIMIT_PER_USER": 20,
    "AUTO_REFRESH": False,
    "AUTH_HEADER_PREFIX": "Token",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Redrive operators' API",
    "DESCRIPTION": "What the admin shows and decides, for scripts: the same verbs and permissions. Send "
    "`Authorization: Token ...`, or the session cookie of /admin/. Lists are newest first and paged by cursor. Every "
    "error has the one body, `error`, whose `code` and `param` are for programs.",
    "VERSION": "1",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAdminUser"],
    "SERVE_INCLUDE_SCHEMA": False,
    "ENUM_NAME_OVERRIDES": {
        "TaskState": "apps.tasks.states.ALL",
        "TaskOutcome": "apps.tasks.states.FINAL",
        "GroupState": "apps.dead_letters.group_states.ALL",
        "LetterState": "apps.dead_letters.states.ALL",
        "OperationState": "apps.dead_letters.bulk_states.ALL",
        "OperationAction": "apps.dead_letters.models.BulkOperation.Action",
        "DiscardCode": "apps.dead_letters.models.DeadLetter.DiscardCode",
        "AlertState": "apps.dead_letters.models.Alert.State",
    },
}

LOGGING_CONFIG = None
configure_logging(level=REDRIVE.log_level, format=REDRIVE.log_format)
