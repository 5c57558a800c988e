"""Settings, read once from the environment. README.md lists the variables.

In development each part falls back on its own to the embedded one (SQLite, a broker made of
files under ``var/``). In production nothing falls back: what is missing is an error at start.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from celery.schedules import crontab
from django.core.exceptions import ImproperlyConfigured

from booking_platform import confidential, databases, servers
from booking_platform import environment as env
from booking_platform.appearance import UNFOLD  # noqa: F401  (a setting)

BASE_DIR = Path(__file__).resolve().parent.parent
PRODUCTION = env.production()

PLAINTEXT_NETWORK = servers.plaintext_is_meant()  # asked for here so that no wrong value passes

# Where the embedded database and broker, the metrics' shared files and beat's schedule live.
VAR_DIR = Path(env.text("VAR_DIR", str(BASE_DIR / "var"))).absolute()
VAR_DIR.mkdir(parents=True, exist_ok=True)

# Looked at when a worker or the web process starts: booking_platform.messaging.metric_files.
METRICS_DIR = Path(env.text("PROMETHEUS_MULTIPROC_DIR", str(VAR_DIR / "metrics"))).absolute()

# --- Web -------------------------------------------------------------------------------------

# Off in development too: the debug mode keeps the text of every SQL statement, which a worker
# that applies thousands of events a second can't afford.
DEBUG = False
SECRET_KEY = env.signing_key("DJANGO_SECRET_KEY", "insecure-development-key")
ALLOWED_HOSTS = servers.allowed_hosts("localhost,127.0.0.1,[::1]")
DEFAULT_EXCEPTION_REPORTER = "booking_platform.error_reports.Reporter"

INSTALLED_APPS = [
    "booking_platform.operations",  # its templates before the theme's, and those before the admin's
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_prometheus",
    "axes",
    "booking_platform.messaging",
    "catalog",
    "payments",
    "notifications",
]
if not PRODUCTION:
    INSTALLED_APPS.append("booking_platform.development")
MIDDLEWARE = [
    "booking_platform.operations.request_ids.RequestIds",
    "booking_platform.operations.health.Health",
    "booking_platform.operations.scraping.Metrics",
    "booking_platform.web_metrics.Before",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "booking_platform.operations.requests.AdminAddresses",
    "axes.middleware.AxesMiddleware",  # last: it replaces the answer to a login
    "booking_platform.web_metrics.After",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "booking_platform.urls"
WSGI_APPLICATION = "booking_platform.wsgi.application"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = not PRODUCTION  # straight from the sources
LOGIN_REDIRECT_URL = "admin:index"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
# A name is locked for an address, and not for others: nobody can lock out a colleague from afar.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # who goes on trying does not prolong it
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "booking_platform.operations.clients.address"
AXES_LOCKOUT_CALLABLE = "booking_platform.operations.logins.locked_out"
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = AXES_VERBOSE = False
PROXY_COUNT = env.integer("PROXY_COUNT", 0, maximum=10)  # of ours that requests go through
METRICS_TOKEN = env.secret("METRICS_TOKEN", shortest=16)
METRICS_ALLOWED = servers.networks("METRICS_ALLOWED", "127.0.0.0/8,::1")
# Where a worker shows its metrics itself; 0: it does not, and the web process on its machine does.
WORKER_METRICS_PORT = env.integer("WORKER_METRICS_PORT", 0, maximum=65_535)
WORKER_METRICS_ADDRESS = servers.address("WORKER_METRICS_ADDRESS", "127.0.0.1")
# The HTTP API for web shops, and the web pages of others that may ask it.
API_ENABLED = env.switch("API_ENABLED")
API_CORS_ORIGINS = servers.origins("API_CORS_ORIGINS")
if API_ENABLED:
    _place = MIDDLEWARE.index("django.middleware.security.SecurityMiddleware") + 1
    MIDDLEWARE.insert(_place, "catalog.api.problems.ApiAnswers")
    if API_CORS_ORIGINS:
        INSTALLED_APPS.append("corsheaders")
        MIDDLEWARE.insert(_place, "corsheaders.middleware.CorsMiddleware")
        CORS_URLS_REGEX = "^/api/"
        CORS_ALLOW_ALL_ORIGINS = API_CORS_ORIGINS == ["*"]
        CORS_ALLOWED_ORIGINS = [] if CORS_ALLOW_ALL_ORIGINS else API_CORS_ORIGINS
        CORS_ALLOW_METHODS = ["GET", "HEAD", "OPTIONS"]
        CORS_ALLOW_HEADERS = ["accept", "if-none-match"]
        CORS_EXPOSE_HEADERS = ["etag"]
if PRODUCTION:
    SECURE_SSL_REDIRECT = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

LANGUAGE_CODE = "en"
TIME_ZONE = env.text("TIME_ZONE", "UTC")
if TIME_ZONE not in available_timezones():
    raise ImproperlyConfigured(f"TIME_ZONE is {TIME_ZONE!r}: set it to one such as Europe/Paris.")
USE_TZ = True

# --- Database --------------------------------------------------------------------------------

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASE_URL = (
    env.required("DATABASE_URL", "set it to postgres://user:password@host:5432/name")
    if PRODUCTION
    else env.text("DATABASE_URL", f"sqlite:///{VAR_DIR / 'db.sqlite3'}")
)
DATABASES = {"default": databases.from_url(DATABASE_URL)}
servers.check_database(DATABASES["default"])
confidential.hide(DATABASES)
confidential.remember_url(DATABASE_URL)
del DATABASE_URL  # with its password: no setting that is printed may hold it

# --- Broker and Celery -----------------------------------------------------------------------

# Not the URL, which has a password in it: booking_platform.celery asks for that itself.
EMBEDDED = servers.broker_url() == servers.EMBEDDED_BROKER
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a broker may be away for as long as it takes
CELERY_BROKER_CHANNEL_ERROR_RETRY = True  # RabbitMQ closes the channel of a group that waits 30'
if EMBEDDED:
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(VAR_DIR / "broker" / "messages"),
        "data_folder_out": str(VAR_DIR / "broker" / "messages"),
        "control_folder": str(VAR_DIR / "broker" / "exchanges"),
        "polling_interval": 0.01,  # seconds between looks into an empty folder
        "last_stop": "booking-events.unroutable",  # the queue of what no other takes
    }
CELERY_BROKER_HEARTBEAT = 5  # seconds: a connection that is open on one side only costs twice that
CELERY_TASK_DEFAULT_QUEUE = "maintenance"
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False  # they commit; repeats are known
CELERY_WORKER_LOST_WAIT = 0.5  # seconds for the last answer of a dead pool process to arrive
CELERY_TIMEZONE = TIME_ZONE
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "celerybeat-schedule")
CELERY_BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "cleanup": {"task": "messaging.cleanup", "schedule": crontab(hour="2", minute="0")},
    "audit": {"task": "operations.audit", "schedule": crontab(hour="3", minute="0")},
    "tallies": {
        "task": "operations.count_outcomes",
        "schedule": 60.0,
        "options": {"expiration": 60.0},
    },
}

# --- Events ----------------------------------------------------------------------------------

EVENTS_EXCHANGE = "booking-events"
# How often an event is begun whose worker dies over it each time, before it is called poison.
EVENT_DELIVERY_LIMIT = env.integer("EVENT_DELIVERY_LIMIT", 5, minimum=1)
# Over how many queues the events of an app are spread by what they are about; 0: over none.
EVENT_PARTITIONS = env.integer("EVENT_PARTITIONS", 0, maximum=256)
if EVENT_PARTITIONS and EMBEDDED:
    raise ImproperlyConfigured(
        "EVENT_PARTITIONS is set, and the embedded broker has no partitions: set RABBITMQ_URL, or leave "
        "EVENT_PARTITIONS out."
    )
EVENT_MAX_BYTES = env.integer("EVENT_MAX_BYTES", 256 * 1024, minimum=1024, maximum=16 * 1024 * 1024)

# The optimistic lock: attempts for one group, the last of which locks and so can't lose.
LOCK_ATTEMPTS = env.integer("LOCK_ATTEMPTS", 3, minimum=1)
# For how long a process that has lost a race locks before it reads; 0: never.
LOCK_FIRST_SECONDS = env.seconds("LOCK_FIRST_SECONDS", 5.0)
LOCK_BASE_SECONDS = env.seconds("LOCK_BASE_SECONDS", 0.005)
LOCK_MAX_SECONDS = env.seconds("LOCK_MAX_SECONDS", 0.25)

# The pauses of a group that waits in place for the database.
OUTAGE_BASE_SECONDS = env.seconds("OUTAGE_BASE_SECONDS", 0.1)
OUTAGE_MAX_SECONDS = env.seconds("OUTAGE_MAX_SECONDS", 5.0)

# How long duplicates are recognised. The system check messaging.E001 holds it against the rest.
PROCESSED_EVENTS_RETENTION = env.days("RETENTION_DAYS", 30, minimum=1)
REPLAY_WINDOW = env.days("REPLAY_WINDOW_DAYS", 7)
# After which a dead letter that is closed loses what came.
DEAD_LETTER_RETENTION = env.days("DEAD_LETTER_RETENTION_DAYS", 90, minimum=1)

# --- Attempts at calls to the world outside -------------------------------------------------

LEASE_SECONDS = env.seconds("LEASE_SECONDS", 180.0, minimum=0.01)  # longer than an attempt takes
RETRY_BASE_SECONDS = env.seconds("RETRY_BASE_SECONDS", 30.0)
RETRY_MAX_SECONDS = env.seconds("RETRY_MAX_SECONDS", 1800.0)
RETRY_ATTEMPTS = env.integer("RETRY_ATTEMPTS", 150, minimum=1)  # with the pauses above, over a day
SWEEP_SECONDS = env.seconds("SWEEP_SECONDS", 60.0, minimum=0.1)

CELERY_BEAT_SCHEDULE["bulk jobs"] = {
    "task": "operations.sweep_bulk_jobs",
    "schedule": SWEEP_SECONDS,
    "options": {"expiration": max(10.0, SWEEP_SECONDS)},  # as `sweeps.expiry`
}

# How often beat has announcements published that wait, where no worker's commit did so.
RELAY_SECONDS = env.seconds("RELAY_SECONDS", 5.0, minimum=0.1)

# --- Operations ------------------------------------------------------------------------------

# What waits for longer is late, says the audit: announcements, events, attempts that are due.
AUDIT_LATE = timedelta(seconds=env.seconds("AUDIT_LATE_SECONDS", 900.0, minimum=1.0))

# How often each task queue is asked whether a worker serves it: `/ready` tells.
HEARTBEAT_SECONDS = env.seconds("HEARTBEAT_SECONDS", 15.0, minimum=0.1)

# --- Stripe ----------------------------------------------------------------------------------

# Without a key the sandbox of `manage.py stripe_sandbox` answers, except in production: there no
# worker takes up refunds without one.
_SANDBOX_KEY = "sk_test_sandbox"
STRIPE_SANDBOX_PORT = 12111
STRIPE_SECRET_KEY = env.secret("STRIPE_SECRET_KEY", _SANDBOX_KEY)
STRIPE_API_BASE = servers.stripe_base(
    f"http://127.0.0.1:{STRIPE_SANDBOX_PORT}"
    if STRIPE_SECRET_KEY == _SANDBOX_KEY
    else "https://api.stripe.com"
)
# What goes out without a person, at most: minor units by currency; no limit for one not named.
REFUND_REVIEW_ABOVE = env.amounts("REFUND_REVIEW_ABOVE")
STRIPE_WEBHOOK_SECRET = env.secret("STRIPE_WEBHOOK_SECRET", "whsec_sandbox")

# --- E-mail ----------------------------------------------------------------------------------

# Without a host mails become files under MAIL_DIR, except in production: there no worker takes up
# mails without one.
MAIL_FILES = "files:"  # no host can have that name
MAIL_DIR = VAR_DIR / "mail"
SMTP_HOST = servers.smtp_host("" if PRODUCTION else MAIL_FILES)
_this_machine = servers.is_local(SMTP_HOST)
SMTP_SECURITY = env.choice(
    "SMTP_SECURITY", ("none", "starttls", "tls"), "none" if _this_machine else "starttls"
)
_ports = {"none": 25, "starttls": 587, "tls": 465}
SMTP_PORT = env.integer("SMTP_PORT", _ports[SMTP_SECURITY], minimum=1, maximum=65_535)
SMTP_USER = env.text("SMTP_USER")
SMTP_PASS = env.secret("SMTP_PASS")
if bool(SMTP_USER) != bool(SMTP_PASS):
    missing, given = ("SMTP_PASS", "SMTP_USER") if SMTP_USER else ("SMTP_USER", "SMTP_PASS")
    raise ImproperlyConfigured(f"{missing} is not set, but {given} is: set both, or neither.")
if not (SMTP_USER + SMTP_PASS).isascii():
    raise ImproperlyConfigured("SMTP_USER and SMTP_PASS must be ASCII: logins know no other.")
if SMTP_USER and SMTP_SECURITY == "none" and not _this_machine:
    raise ImproperlyConfigured(
        "SMTP_SECURITY is 'none', but SMTP_USER is set: the password would cross the network in "
        "the clear. Set it to starttls or tls."
    )
SMTP_EHLO = servers.smtp_name()  # empty: what this machine is called
SMTP_TIMEOUT_SECONDS = env.seconds("SMTP_TIMEOUT_SECONDS", 60.0, minimum=0.01)  # for each answer
EMAIL_FROM = env.sender("EMAIL_FROM", "" if PRODUCTION else "noreply@example.com")

# A mail of which it isn't known whether it was sent: ask a person, or send it again, once.
EMAIL_UNCERTAIN = env.choice("EMAIL_UNCERTAIN", ("ask", "resend"), "ask")
EMAIL_RETENTION = env.days("EMAIL_RETENTION_DAYS", 90, minimum=1)

# --- Spans -----------------------------------------------------------------------------------

SPANS = env.spans()  # the rest of OTEL_* is OpenTelemetry's own to read

# --- Logs ------------------------------------------------------------------------------------

LOGGING_CONFIG = "booking_platform.logs.configure"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_level = env.choice("LOG_LEVEL", (*_LEVELS, *map(str.lower, _LEVELS)), "INFO")
LOGGING = {"json": PRODUCTION, "level": _level.upper()}
