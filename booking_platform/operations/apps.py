from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "booking_platform.operations"

    def ready(self) -> None:
        from booking_platform.operations import logins  # noqa: F401  (a part of the cleanup)
