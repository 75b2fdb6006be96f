"""All settings, from the environment. The defaults are safe for production; `docs/operate/settings.md` lists them.

Every secret may also come from a file: `HYPRBOX_SECRET_KEY_FILE` instead of `HYPRBOX_SECRET_KEY`, and so on.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import environ
import structlog
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from hyprbox.lib import environment, roles
from hyprbox.lib.logs import redact
from hyprbox.lib.postgres import EmbeddedPostgres

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.FileAwareEnv()
_OUR_PATHS = (
    "api",
    "static",
    "login",
    "logout",
    "events",
    "healthz",
    "readyz",
    "metrics",
    "settings",
    "profile",
    "jobs",
    "nodes",
    "presets",
    "audit",
)

DEBUG: bool = environment.truth("HYPRBOX_DEBUG", env.str("HYPRBOX_DEBUG", default=""))
HYPRBOX_VAR_DIR = Path(env.str("HYPRBOX_VAR_DIR", default=str(BASE_DIR / "var"))).absolute()
HYPRBOX_PORT: int = environment.whole(
    "HYPRBOX_PORT", env.str("HYPRBOX_PORT", default=""), default=8000, least=1, most=65535
)
HYPRBOX_PUBLIC_URL: str = env.str("HYPRBOX_PUBLIC_URL", default=f"http://127.0.0.1:{HYPRBOX_PORT}").rstrip("/")
HYPRBOX_SIGNING_KEY_FILE = Path(env.str("HYPRBOX_SIGNING_KEY_FILE", default=str(HYPRBOX_VAR_DIR / "signing.key")))
HYPRBOX_MAC_KEY_FILE = Path(env.str("HYPRBOX_MAC_KEY_FILE", default=str(HYPRBOX_VAR_DIR / "mac.key")))
HYPRBOX_SECRETS_KEY_FILE = Path(env.str("HYPRBOX_SECRETS_KEY_FILE", default=str(HYPRBOX_VAR_DIR / "secrets.key")))
_checkpoint_file = env.str("HYPRBOX_AUDIT_CHECKPOINT_FILE", default="")
HYPRBOX_AUDIT_CHECKPOINT_FILE = Path(_checkpoint_file).absolute() if _checkpoint_file else None
HYPRBOX_TRUSTED_PROXIES: list[str] = environment.proxies(
    "HYPRBOX_TRUSTED_PROXIES", env.str("HYPRBOX_TRUSTED_PROXIES", default="")
)
HYPRBOX_OFFLINE_AFTER: int = environment.whole(
    "HYPRBOX_OFFLINE_AFTER", env.str("HYPRBOX_OFFLINE_AFTER", default=""), default=600, least=10, most=86_400 * 30
)  # seconds
HYPRBOX_SESSION_IDLE = timedelta(
    seconds=environment.whole(
        "HYPRBOX_SESSION_IDLE", env.str("HYPRBOX_SESSION_IDLE", default=""), default=1800, least=60, most=12 * 3600
    )
)
HYPRBOX_ALLOW_REGISTRATION: bool = environment.truth(
    "HYPRBOX_ALLOW_REGISTRATION", env.str("HYPRBOX_ALLOW_REGISTRATION", default="")
)
HYPRBOX_REQUIRE_SECOND_FACTOR: list[str] = environment.roles(
    "HYPRBOX_REQUIRE_SECOND_FACTOR", env.str("HYPRBOX_REQUIRE_SECOND_FACTOR", default="")
)
HYPRBOX_REQUIRE_NODE_TOKEN: bool = environment.truth(
    "HYPRBOX_REQUIRE_NODE_TOKEN", env.str("HYPRBOX_REQUIRE_NODE_TOKEN", default=""), default=True
)
HYPRBOX_ENABLE_DOCS: bool = (
    environment.truth("HYPRBOX_ENABLE_DOCS", env.str("HYPRBOX_ENABLE_DOCS", default="")) or DEBUG
)
HYPRBOX_METRICS_TOKEN: str = env.str("HYPRBOX_METRICS_TOKEN", default="")
HYPRBOX_ADMIN_PATH: str = environment.path(
    "HYPRBOX_ADMIN_PATH", env.str("HYPRBOX_ADMIN_PATH", default="") or "django-admin", taken=_OUR_PATHS
)
HYPRBOX_LOG_LEVEL: str = environment.level("HYPRBOX_LOG_LEVEL", env.str("HYPRBOX_LOG_LEVEL", default="") or "INFO")
_public = environment.public_address("HYPRBOX_PUBLIC_URL", HYPRBOX_PUBLIC_URL, is_debug=DEBUG)
_IS_HTTPS = _public.scheme == "https"
HYPRBOX_CORS_ORIGINS: list[str] = environment.origins(
    "HYPRBOX_CORS_ORIGINS", env.str("HYPRBOX_CORS_ORIGINS", default=""), is_debug=DEBUG
)


def _secret_key() -> str:
    key: str = env.str("HYPRBOX_SECRET_KEY", default="")
    if key:
        if not DEBUG and (len(key) < 32 or len(set(key)) < 10 or key.startswith("insecure-")):
            raise ImproperlyConfigured("HYPRBOX_SECRET_KEY is too weak: use 50 random characters.")
        return key
    try:
        return (HYPRBOX_VAR_DIR / "secret.key").read_text().strip()
    except OSError:
        if DEBUG:
            return "insecure-development-key-for-debug-only"
        raise ImproperlyConfigured(
            "There is no HYPRBOX_SECRET_KEY. `manage.py up` makes one for you; elsewhere set 50 random characters."
        ) from None


SECRET_KEY = _secret_key()
ALLOWED_HOSTS: list[str] = environment.hosts(
    "HYPRBOX_ALLOWED_HOSTS", env.str("HYPRBOX_ALLOWED_HOSTS", default=""), is_debug=DEBUG
) or sorted({str(_public.hostname), *environment.LOOPBACK[:3]})
CSRF_TRUSTED_ORIGINS = [HYPRBOX_PUBLIC_URL]

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "channels",
    "csp",
    "rest_framework",
    "drf_spectacular",
    "procrastinate.contrib.django",
    "hyprbox",
    "audit",
    "accounts",
    "tokens",
    "nodes",
    "presets",
    "jobs",
]

MIDDLEWARE = [
    "hyprbox.lib.middleware.SecurityHeadersMiddleware",
    "hyprbox.lib.middleware.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "accounts.authentication.ActorMiddleware",
    "hyprbox.lib.middleware.ErrorMiddleware",
    "accounts.step_up.StepUpMiddleware",
]

# frame-ancestors of the content security policy does what X-Frame-Options did.
SILENCED_SYSTEM_CHECKS = ["security.W002"]

ROOT_URLCONF = "hyprbox.urls"
ASGI_APPLICATION = "hyprbox.asgi.application"
APPEND_SLASH = False

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
                "hyprbox.lib.middleware.page_context",
            ],
            "builtins": ["hyprbox.lib.templatetags.ui"],
        },
    }
]

# --- PostgreSQL: DATABASE_URL, or the embedded server under the var directory ---


_POOL = environment.whole("HYPRBOX_DB_POOL", env.str("HYPRBOX_DB_POOL", default=""), default=12, least=5, most=1000)


def _database(name: str, address: str) -> dict[str, Any]:
    """What Django needs to know of the address in this setting. No complaint repeats it: it may have a password."""
    if not address.startswith(("postgres://", "postgresql://")):
        raise ImproperlyConfigured(f"{name} must be a postgresql:// address: HyprBox runs on PostgreSQL only.")
    try:
        found = env.db_url_config(address)
    except ValueError:
        raise ImproperlyConfigured(
            f"{name} is no address that can be read: write what is special in a password as in %40 for @."
        ) from None
    options = {
        "pool": {"min_size": 1, "max_size": _POOL, "timeout": 2, "max_idle": 60},
        "connect_timeout": 2,
        "options": (
            "-c statement_timeout=5000 -c lock_timeout=2000 -c idle_in_transaction_session_timeout=10000 "
            "-c synchronous_commit=on -c timezone=UTC"
        ),
        "application_name": "hyprbox",
    }
    of_pool = {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": True}  # the pool keeps connections
    return {**found, **of_pool, "OPTIONS": {**found.get("OPTIONS", {}), **options}}


_embedded = EmbeddedPostgres(HYPRBOX_VAR_DIR)
DATABASES = {"default": _database("DATABASE_URL", env.str("DATABASE_URL", default="") or _embedded.url)}
_IS_EMBEDDED = DATABASES["default"]["OPTIONS"].get("host") == str(_embedded.place.socket_dir)


def _owner() -> dict[str, Any]:
    """How migrations connect, as the role that owns the tables; {} where there is one role for everything."""
    address, mine = env.str("HYPRBOX_MIGRATION_DATABASE_URL", default=""), DATABASES["default"]
    if not address:
        return {**mine, "USER": roles.OWNER} if _IS_EMBEDDED else {}
    owner = _database("HYPRBOX_MIGRATION_DATABASE_URL", address)
    if _IS_EMBEDDED or owner["NAME"] != mine["NAME"]:
        raise ImproperlyConfigured(
            "HYPRBOX_MIGRATION_DATABASE_URL must lead to the database of DATABASE_URL, as the role that owns its tables; "
            "without DATABASE_URL there is nothing to set: the embedded PostgreSQL has both roles."
        )
    if not owner["USER"] or not mine["USER"]:
        raise ImproperlyConfigured(
            "HYPRBOX_MIGRATION_DATABASE_URL and DATABASE_URL must both name their role: "
            "postgresql://role:password@host/name."
        )
    return owner if owner["USER"] != mine["USER"] else {}


HYPRBOX_OWNER_DATABASE = _owner()
# Who is given what it needs after a migration. Of the embedded server's roles it is always the same one.
HYPRBOX_APP_ROLE: str = roles.APP if _IS_EMBEDDED else HYPRBOX_OWNER_DATABASE and DATABASES["default"]["USER"] or ""
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- people ---

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["accounts.backends.SealedBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.BCryptSHA256PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "accounts.validators.MaximumLengthValidator"},
    {"NAME": "accounts.validators.ContextWordsValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
SESSION_COOKIE_NAME = "hb_session"
SESSION_ENGINE = "accounts.sessions"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = _IS_HTTPS
CSRF_COOKIE_NAME = "hb_csrf"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SECURE = _IS_HTTPS
CSRF_FAILURE_VIEW = "hyprbox.views.csrf_failure"
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": SECRET_KEY,
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=15),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
    "ISSUER": "hyprbox",
    "AUDIENCE": "hyprbox",
    "LEEWAY": 30,
    "USER_ID_CLAIM": "sub",
}

# --- letters: to the console without EMAIL_URL ---

try:
    vars().update(env.email_url("EMAIL_URL", default="consolemail://"))
except (ImproperlyConfigured, ValueError):  # no complaint repeats it: it may have a password
    raise ImproperlyConfigured(
        "EMAIL_URL is no address of a mail server: it would be smtp+tls://user:password@mail.example:587."
    ) from None
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL: str = environment.sender(
    "HYPRBOX_MAIL_FROM", env.str("HYPRBOX_MAIL_FROM", default="") or f"HyprBox <hyprbox@{_public.hostname}>"
)
SERVER_EMAIL = DEFAULT_FROM_EMAIL

# --- the browser ---

SECURE_HSTS_SECONDS = 31_536_000 if _IS_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = _IS_HTTPS
SECURE_HSTS_PRELOAD = _IS_HTTPS
SECURE_SSL_REDIRECT = _IS_HTTPS
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _IS_HTTPS and HYPRBOX_TRUSTED_PROXIES else None
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "img-src": [SELF, "data:"],
        "manifest-src": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "object-src": [NONE],
    }
}
STATIC_URL = "/static/"
STATIC_ROOT = HYPRBOX_VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

# --- the API ---

DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.BearerAuthentication",
        "accounts.authentication.CookieAuthentication",
        "accounts.authentication.PageSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["hyprbox.lib.api.IsPerson"],
    "DEFAULT_PARSER_CLASSES": ["hyprbox.lib.api.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "hyprbox.lib.api.Pages",
    "DEFAULT_SCHEMA_CLASS": "hyprbox.openapi.document.Described",
    "EXCEPTION_HANDLER": "hyprbox.lib.api.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "hyprbox.lib.api.AlwaysJSON",
    "DATETIME_FORMAT": "%Y-%m-%dT%H:%M:%S.%fZ",
    "COERCE_DECIMAL_TO_STRING": False,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "HyprBox",
    "DESCRIPTION": "The HTTP contract of a HyprBox control plane, for people's programs and for agents.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api",
    "OAS_VERSION": "3.1.0",
    "PREPROCESSING_HOOKS": ["hyprbox.openapi.document.with_doors"],
    "POSTPROCESSING_HOOKS": ["hyprbox.openapi.document.complete"],
}

# --- language, time, logs ---

LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

_PRE_CHAIN: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        *_PRE_CHAIN,
        structlog.processors.StackInfoRenderer(),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                structlog.processors.JSONRenderer(),
            ],
            "foreign_pre_chain": _PRE_CHAIN,
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["console"], "level": HYPRBOX_LOG_LEVEL},
    "loggers": {
        # Django and uvicorn give these handlers of their own, which hide nothing: all goes through the one above.
        **{name: {"handlers": [], "propagate": True} for name in ("django", "django.server")},
        **{
            name: {"handlers": [], "propagate": True, "level": HYPRBOX_LOG_LEVEL}
            for name in ("uvicorn", "uvicorn.error")
        },
        "django.request": {"level": "ERROR"},
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "psycopg.pool": {"level": "ERROR"},
        "procrastinate": {"level": "WARNING"},
        "uvicorn.access": {"handlers": [], "propagate": True, "level": "WARNING"},
    },
}
