from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "booking_platform.operations"
