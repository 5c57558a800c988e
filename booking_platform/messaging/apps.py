from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class MessagingConfig(AppConfig):
    name = "booking_platform.messaging"
    label = "messaging"
    verbose_name = "Messaging"

    def ready(self) -> None:
        """Register every app's consumers, in each process: workers, web, commands and shells."""
        autodiscover_modules("tasks")
