import os

from django.core.wsgi import get_wsgi_application

from booking_platform.messaging import metric_files

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "booking_platform.settings")
application = get_wsgi_application()
metric_files.refuse_unwritable()
