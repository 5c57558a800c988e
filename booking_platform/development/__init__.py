"""What developers run: the demo, the set-up of `make run`, and stand-ins for servers.

The stand-ins (Stripe, a mail server, a broker made of files) keep no promise that money rests on, so
nothing here can be imported in production.
"""

from booking_platform import environment

if environment.production():
    raise ImportError("booking_platform.development is not for production, which DJANGO_ENV names.")
