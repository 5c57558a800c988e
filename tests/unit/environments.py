"""Environments of processes that tests start."""

from secrets import token_urlsafe

PRODUCTION = {
    "DJANGO_ENV": "production",
    "DJANGO_SECRET_KEY": token_urlsafe(60),
    "DJANGO_ALLOWED_HOSTS": "bookings.example",
    "DATABASE_URL": "postgres://user:hidden-word@host:5432/name?sslmode=require",
    "RABBITMQ_URL": "amqps://user:hidden-word@host:5671/vhost",
}

STRIPE = {"STRIPE_SECRET_KEY": "sk_live_x", "STRIPE_WEBHOOK_SECRET": "whsec_x"}
MAIL = {"SMTP_HOST": "smtp.example.com", "EMAIL_FROM": "Tours <noreply@example.com>"}
