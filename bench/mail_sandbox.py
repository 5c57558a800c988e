"""A mail server in a process of its own: ``python -m bench.mail_sandbox``.

It says its port; when a line comes, it says how many messages each recipient has got, as JSON, and ends.
"""

import json
import sys
from collections import Counter

from booking_platform.development.mail_server import running

if __name__ == "__main__":
    with running() as server:
        print(server.port, flush=True)
        sys.stdin.readline()
        print(json.dumps(Counter(recipient for recipient, _ in server.messages)), flush=True)
