"""Settings, grouped by system. Every variable is listed in docs/settings.md."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from benchsite import env
from benchsite.keep import kept, socket_folder

BASE_DIR = Path(__file__).resolve().parent.parent
DATA = Path(env.text("DATA", str(BASE_DIR / "var"))).resolve()
_KEPT = kept(DATA)

# --- site -------------------------------------------------------------------------

PORT = env.integer("PORT", 8000, least=1, most=65_535)
LISTEN = env.text("LISTEN", "127.0.0.1")
SITE_URL = env.text("SITE_URL", f"http://127.0.0.1:{PORT}").rstrip("/")
# Where agents reach the site, when it is not where people do.
AGENT_SITE_URL = env.text("AGENT_SITE_URL", SITE_URL).rstrip("/")
AGENT_PYTHON = env.text("AGENT_PYTHON", "")
AGENT_WHEELHOUSE = env.text("AGENT_WHEELHOUSE", "")
SECRET_KEY = env.secret_or_file("SECRET_KEY", _KEPT.secret_key)
# Seals operators' accounts at Providers; SECRET_KEY where it is empty.
CREDENTIALS_KEY = env.secret_or_file("CREDENTIALS_KEY", "")
DEBUG = env.flag("DEBUG", default=False)
ALLOWED_HOSTS = [
    host.strip()
    for host in env.text(
        "ALLOWED_HOSTS", f"{urlsplit(SITE_URL).hostname},127.0.0.1,localhost,[::1]"
    ).split(",")
]
CSRF_TRUSTED_ORIGINS = [SITE_URL]
WEB_THREADS = env.integer("WEB_THREADS", 32, least=1, most=256)
WORKER_THREADS = env.integer("WORKER_THREADS", 4, least=1, most=64)

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SITE_URL.startswith("https://")
# Several installations on one host (ports are not part of a cookie's scope).
SESSION_COOKIE_NAME = f"holdfast_session_{PORT}"
CSRF_COOKIE_NAME = f"holdfast_csrf_{PORT}"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024  # bytes of a request body

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_dramatiq",
    "runs",
]
MIDDLEWARE = [
    "runs.api.heartbeat.heartbeats",
    "django.middleware.security.SecurityMiddleware",
    "benchsite.headers.policy",
    "django.middleware.gzip.GZipMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "benchsite.urls"
WSGI_APPLICATION = "benchsite.wsgi.application"
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
            "builtins": ["runs.templatetags.runs_format"],
        },
    }
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "runs"
LOGOUT_REDIRECT_URL = "home"
PASSWORD_RESET_TIMEOUT = 24 * 3600  # seconds a one-time sign-in link is good for
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = DATA / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "benchsite.static_files.HashedFiles"},
}

# --- relational database ----------------------------------------------------------


CONNECTION_AGE_MAX_S = 300  # a thread keeps its connection for so long


def _database(url: str) -> dict[str, object]:
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(parts.path),
            "CONN_MAX_AGE": CONNECTION_AGE_MAX_S,
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
            "TEST": {"NAME": str(DATA / "test.sqlite3")},
        }
    if parts.scheme in {"postgres", "postgresql"}:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path.lstrip("/"),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parts.hostname or "",
            "PORT": parts.port or "",
            "CONN_MAX_AGE": CONNECTION_AGE_MAX_S,
            "CONN_HEALTH_CHECKS": True,
        }
    raise ImproperlyConfigured(
        f"DATABASE_URL must begin with sqlite:// or postgres://, not {parts.scheme!r}"
    )


DATABASE_URL = env.text("DATABASE_URL", f"sqlite://{DATA}/site.sqlite3")
DATABASES = {"default": _database(DATABASE_URL)}
# What pages share within a process; of 1,000 Shards an entry is some 100 KB at most.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 1_000},
    }
}

# --- ClickHouse, object storage, broker -------------------------------------------

CLICKHOUSE_URL = env.text("CLICKHOUSE_URL", f"chdb://{DATA}/clickhouse")

S3_EMBEDDED = not env.text("S3_ENDPOINT_URL", "")
S3_ENDPOINT_URL = env.text("S3_ENDPOINT_URL", f"http://127.0.0.1:{_KEPT.s3_port}")
S3_BUCKET = env.text("S3_BUCKET", "raw")
S3_REGION = env.text("S3_REGION", "us-east-1" if S3_EMBEDDED else "auto")
S3_ACCESS_KEY_ID = env.secret_or_file("S3_ACCESS_KEY_ID", _KEPT.s3_access_key_id)
S3_SECRET_ACCESS_KEY = env.secret_or_file(
    "S3_SECRET_ACCESS_KEY", _KEPT.s3_secret_access_key
)

BROKER_EMBEDDED = not env.text("BROKER_URL", "")
BROKER_SOCKET = socket_folder(DATA) / "redis.sock"
BROKER_URL = env.secret_or_file("BROKER_URL", f"unix://{BROKER_SOCKET}")

DRAMATIQ_BROKER = {
    "BROKER": (
        "dramatiq.brokers.rabbitmq.RabbitmqBroker"
        if BROKER_URL.startswith("amqp")
        else "dramatiq.brokers.redis.RedisBroker"
    ),
    "OPTIONS": {"url": BROKER_URL},
    "MIDDLEWARE": [
        "dramatiq.middleware.AgeLimit",
        "dramatiq.middleware.TimeLimit",
        "dramatiq.middleware.Callbacks",
        "dramatiq.middleware.Retries",
        "django_dramatiq.middleware.DbConnectionsMiddleware",
        "runs.broker.LookAfter",
    ],
}
DRAMATIQ_AUTODISCOVER_MODULES = ["actors"]

# --- Runs -------------------------------------------------------------------------

RUN_TICK_INTERVAL_S = 1
RUN_LEASE_S = env.integer("RUN_LEASE_S", 30, least=5, most=600)
RUN_SANDBOX_COUNT_MAX = env.integer(
    "RUN_SANDBOX_COUNT_MAX", 1_000_000, least=1, most=2_000_000
)
RUN_COLLECT_TIMEOUT_S = env.integer("RUN_COLLECT_TIMEOUT_S", 60, least=1, most=3_600)

# --- fleets -----------------------------------------------------------------------

FLEETS_FILE = env.text("FLEETS_FILE", "")
WORLD_LISTEN = env.text("WORLD_LISTEN", "127.0.0.1")

# --- logging ----------------------------------------------------------------------

LOG_LEVEL = env.text("LOG_LEVEL", "INFO").upper()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "botocore": {"level": "WARNING"},
        "boto3": {"level": "WARNING"},
        "urllib3": {"level": "ERROR"},
        "dramatiq": {"level": "WARNING"},
        "waitress": {"level": "WARNING"},
        "waitress.queue": {"level": "ERROR"},
        "django.request": {"level": "ERROR"},
    },
}
