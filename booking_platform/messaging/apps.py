from django.apps import AppConfig


class MessagingConfig(AppConfig):
    name = "booking_platform.messaging"
    label = "messaging"
    verbose_name = "Messaging"

    def ready(self) -> None:
        from booking_platform.messaging import checks  # noqa: F401  (registers the system check)
