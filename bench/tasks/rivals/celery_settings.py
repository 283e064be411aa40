"""Django's settings of textbook Celery: what the documentation of Celery and django-celery-results asks for.

Acknowledgement, prefetch, results and the age of connections are the defaults; BENCH_CONN_MAX_AGE changes the last.
"""

import os
from urllib.parse import unquote, urlsplit

_parts = urlsplit(os.environ["BENCH_DATABASE_URL"])

SECRET_KEY = "bench"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django_celery_results"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _parts.path.lstrip("/"),
        "USER": unquote(_parts.username or ""),
        "PASSWORD": unquote(_parts.password or ""),
        "HOST": _parts.hostname,
        "PORT": _parts.port,
        "CONN_MAX_AGE": int(os.environ.get("BENCH_CONN_MAX_AGE", "0")),
    }
}
CELERY_BROKER_URL = os.environ["BENCH_BROKER_URL"]
CELERY_RESULT_BACKEND = "django-db"
