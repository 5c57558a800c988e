"""The platform's own transactions without a broker: ready groups, one after the other.

``python -m bench.floors.sql FILE FIRST STEP FROM`` takes every STEP-th group of the file, from the group
FIRST on. It says "begin" after FROM groups and "end" after the last, and waits for a line each time.
``DATABASE_URL`` names the database. Announcements are stored and not published: no relay runs here.
"""

import pickle
import sys
from pathlib import Path

import django

from bench.contenders.platform import CREATED_QUEUE


def main(file: str, first: int, step: int, begin: int) -> None:
    django.setup()
    from booking_platform.messaging import inbox
    from booking_platform.messaging.groups import Delivery
    from booking_platform.messaging.rules import CONSUMERS

    consumer = CONSUMERS[CREATED_QUEUE]
    groups = pickle.loads(Path(file).read_bytes())[first::step]  # noqa: S301  (our own file)
    for at, bodies in enumerate(groups):
        if at == begin:
            print("begin", flush=True)
            sys.stdin.readline()
        inbox.process(consumer, [Delivery(each) for each in bodies])
    print("end", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
