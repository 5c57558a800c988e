import os

from django.core.asgi import get_asgi_application

from booking_platform.messaging import metric_files

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "booking_platform.settings")
application = get_asgi_application()
metric_files.refuse_unwritable()
