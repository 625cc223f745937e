#!/usr/bin/env python3
"""Receives events and verifies that they are AgentForge's, by the Standard Webhooks specification.

  WEBHOOK_SECRET=whsec_… python3 receiver.py [PORT]      port 0 takes a free one

Prints each event once, as a line of JSON. Answers 204 when an event is taken, 401 when its signature is not right.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# An older signature may be a copy that someone kept.
TOLERANCE_SECONDS = 5 * 60
BODY_BYTES_MAX = 1024 * 1024
# Ids of events that were taken. A real receiver stores them with what the event caused, in one transaction.
IDS_MAX = 10_000
taken = OrderedDict()


def is_signed(secret, headers, body, now):
    """Whether one of the signatures is ours: during a rotation there are several."""
    event, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent.isdigit() or abs(now - int(sent)) > TOLERANCE_SECONDS:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, f"{event}.{sent}.".encode() + body, hashlib.sha256)).decode()
    given = [part.partition(",") for part in headers.get("webhook-signature", "").split()]
    # compare_digest takes as long for a wrong signature as for a right one.
    return any(version == "v1" and hmac.compare_digest(value, expected) for version, _, value in given)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        if length > BODY_BYTES_MAX:
            return self.answer(413)
        body = self.rfile.read(length)
        if not is_signed(os.environ["WEBHOOK_SECRET"], self.headers, body, time.time()):
            return self.answer(401)
        # Delivery is at least once: the same id is the same event.
        event = self.headers["webhook-id"]
        if event not in taken:
            taken[event] = True
            if len(taken) > IDS_MAX:
                taken.popitem(last=False)
            print(json.dumps({"id": event, "event": json.loads(body)}), flush=True)
        return self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        if status != 204:
            # What was not read must not be taken for the next request.
            self.send_header("connection", "close")
            self.close_connection = True
        self.end_headers()

    def log_message(self, *_):
        """Events are the output."""


if __name__ == "__main__":
    if not os.environ.get("WEBHOOK_SECRET", "").startswith("whsec_"):
        sys.exit(__doc__)
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), Receiver)
    print(f"listening on http://127.0.0.1:{server.server_port}/", file=sys.stderr, flush=True)
    server.serve_forever()
