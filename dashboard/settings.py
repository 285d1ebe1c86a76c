"""Django's settings, made from `env.Env`."""

import logging as _logging
import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dashboard import broker as _broker
from dashboard import databases as _databases
from dashboard import env as _env

try:
    ENV = _env.load(os.environ)
    VAR_DIR = _env.own_folder(ENV.var_dir)
    SECRET_KEY = ENV.secret_key or _env.kept_secret(VAR_DIR, "secret_key")
    KEY_PEPPERS = ENV.key_peppers or (_env.kept_secret(VAR_DIR, "key_pepper"),)
    CREDENTIAL_KEYS = ENV.credential_keys or (_env.kept_credential_key(VAR_DIR),)
except _env.WrongSetting as why:
    sys.exit(f"penstock: {why}")
except OSError as why:
    sys.exit(
        f"penstock: cannot write to VAR_DIR ({why.filename}: {why.strerror}). "
        "Set VAR_DIR to a folder that this user may write to."
    )

BASE_DIR: Path = _env.BASE_DIR
_REDIS_WAIT_S = 0.25  # a page goes on without Redis after this long
DEBUG = ENV.debug
ALLOWED_HOSTS = list(ENV.allowed_hosts)
PUBLIC_URL = ENV.public_url or _env.address(ENV.host, ENV.port)
LEDGER_CURRENCY = ENV.ledger_currency

INSTALLED_APPS = [
    "dashboard",
    "gateway",
    "accounts",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "ninja",  # for the page of the API's documentation, whose scripts are then ours to serve
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "dashboard.access.ContentSecurityPolicy",
    "dashboard.problems.Problems",
    "dashboard.patience.Patience",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "dashboard.language.Language",
    "django_htmx.middleware.HtmxMiddleware",
    "dashboard.access.Acting",
    "dashboard.access.Sessions",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "dashboard.access.NoStore",
    "accounts.afterwards.Afterwards",
]
ROOT_URLCONF = "dashboard.urls"
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
                "dashboard.access.page_facts",
            ],
        },
    },
]
if ENV.database_url:
    DATABASES = {"default": _databases.postgresql(ENV)}
else:
    DATABASES = {"default": _databases.sqlite(VAR_DIR)}
if ENV.redis_url:
    CACHES = {
        "default": {
            "BACKEND": "dashboard.cache.SharedCache",
            "LOCATION": ENV.redis_url,
            "KEY_PREFIX": "pst:cache",
            "OPTIONS": {
                "serializer": "dashboard.cache.Json",
                "socket_timeout": _REDIS_WAIT_S,
                "socket_connect_timeout": _REDIS_WAIT_S,
            },
        }
    }
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {
                # No time limit for answers: it waits for news in a blocking command of some seconds.
                "hosts": [{"address": ENV.redis_url, "socket_connect_timeout": _REDIS_WAIT_S}],
                "prefix": "pst:channels",
            },
        }
    }
else:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            # With Django's 300, tries at invented accounts would push out what was counted of others.
            "OPTIONS": {"MAX_ENTRIES": 100_000},
        }
    }
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

CELERY_BROKER_URL = _broker.address(ENV.redis_url)
CELERY_BROKER_TRANSPORT = _broker.transport(ENV.redis_url)
CELERY_BROKER_TRANSPORT_OPTIONS = _broker.options(ENV.redis_url, VAR_DIR)
CELERY_BROKER_USE_SSL = _broker.encryption(ENV.redis_url)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # for ever: Redis comes back
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_TIMEZONE = "UTC"

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_ADAPTER = "accounts.adapter.ClosedSignup"
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False
ACCOUNT_FORMS = {"reset_password": "accounts.forms.account.ForgottenPassword"}
ACCOUNT_EMAIL_SUBJECT_PREFIX = "Penstock: "
# Ten wrong passwords a minute from an address, whoever is meant, and ten at an account, whoever asks;
# and no more than a hundred an hour, which holds off codes of six digits as well.
# So that a stranger who goes on guessing locks nobody out, browsers that an account knows, and whoever
# has just reset the password by mail, are counted apart from strangers: see accounts/known_browsers.py.
ACCOUNT_RATE_LIMITS = {"login_failed": "10/m/ip,10/m/key,100/h/key", "invitation": "30/m/ip"}
KNOWN_BROWSER_COOKIE_NAME = "known_browser"
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = False
ACCOUNT_REAUTHENTICATION_TIMEOUT = 900
MFA_ADAPTER = "accounts.adapter.SecondFactors"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes", "webauthn"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_WEBAUTHN_USER_VERIFICATION = "required"  # a passkey signs in alone, so it must be both factors
MFA_TOTP_ISSUER = "Penstock"
MFA_TOTP_TOLERANCE = 1  # a code typed as its half minute ends is good for one more (RFC 6238, section 5.2)
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGOUT_REDIRECT_URL = "/accounts/login/"

_mail = urlsplit(ENV.email_url)
if ENV.email_url:
    EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    EMAIL_HOST = _mail.hostname
    EMAIL_PORT = _mail.port or (465 if _mail.scheme == "smtps" else 587)
    EMAIL_HOST_USER = unquote(_mail.username or "")
    EMAIL_HOST_PASSWORD = unquote(_mail.password or "")
    EMAIL_USE_SSL = _mail.scheme == "smtps"
    EMAIL_USE_TLS = _mail.scheme == "smtp" and bool(_mail.username)
else:
    EMAIL_BACKEND = "accounts.mail.PrivateFiles"
    EMAIL_FILE_PATH = VAR_DIR / "mail"
DEFAULT_FROM_EMAIL = ENV.email_from

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ja", "日本語")]
LOCALE_PATHS = [BASE_DIR / "locale"]
FORMAT_MODULE_PATH = "dashboard.formats"
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_AGE = 365 * 86_400
TIME_ZONE = "UTC"

_ICON = "/static/penstock.svg"
UNFOLD = {
    "SITE_TITLE": "Penstock",
    "SITE_HEADER": "Penstock",
    "SITE_ICON": lambda request: _ICON,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: _ICON}],
    "ENVIRONMENT": "dashboard.access.admin_label",
    "SIDEBAR": {"navigation": "dashboard.access.admin_sidebar"},
    "COLORS": {  # tints and shades of --accent in static/penstock.css
        "primary": {
            "50": "#f1f7fc",
            "100": "#e4f0f9",
            "200": "#c3def2",
            "300": "#8fc3e7",
            "400": "#54a3d8",
            "500": "#2585c1",
            "600": "#0e6ba8",
            "700": "#0a5788",
            "800": "#0b4970",
            "900": "#0d3d5d",
            "950": "#08273d",
        }
    },
}

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_ALLOW_ALL_ORIGINS = False
SERVESTATIC_MAX_AGE = 60  # a changed file is asked for again within a minute; ETags make that cheap

CSRF_COOKIE_HTTPONLY = True
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # whether subdomains are HTTPS only is for whoever owns the domain to say
    "security.W008",  # the gateway speaks HTTP; what ends TLS in front of it redirects
    "security.W021",  # preloading binds a domain for years: not ours to ask for
]
if ENV.secure_cookies:
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-sessionid", "__Host-csrftoken"
    LANGUAGE_COOKIE_NAME, LANGUAGE_COOKIE_SECURE = "__Host-language", True
    KNOWN_BROWSER_COOKIE_NAME = "__Host-known_browser"
    SECURE_HSTS_SECONDS = 31_536_000

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "dashboard.access.OneLine", "format": "%(asctime)s %(levelname)s %(name)s %(message)s"}
    },
    "filters": {
        "without_traceback": {"()": "dashboard.access.WithoutTraceback"},
        "without_traceback_of_outages": {"()": "dashboard.access.WithoutTracebackOfOutages"},
        "without_traceback_below_error": {"()": "dashboard.access.WithoutTraceback", "below": _logging.ERROR},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "django.security.DisallowedHost": {"filters": ["without_traceback"]},
        "django.request": {  # 4xx, and 503 while the database is away; a 500 keeps its own
            "filters": ["without_traceback_below_error", "without_traceback_of_outages"]
        },
    },
    "root": {"handlers": ["stderr"], "level": ENV.log_level},
}
