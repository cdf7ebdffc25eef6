"""Keeps sign-ins, and prints how many there were on each day.

    SIGNING_KEY=whsec_... python receiver.py     receives them
    python receiver.py report                    prints the report

SIGNING_KEY  the Webhook's signing key, as it stands in its Secret
HOST         127.0.0.1 when absent; 0.0.0.0 in a pod
PORT         9205 when absent; 0 takes a free one
DATABASE     the SQLite database's file; `sign-ins.db` beside this file when absent

An event may be delivered more than once, always under the same webhook-id: it is the row's key. Of a sign-in only
what the report needs is kept: neither address nor browser.
"""

import os
import sqlite3
import sys
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks import Webhook, WebhookVerificationError

HOST = os.environ.get("HOST", "127.0.0.1")
PORT = int(os.environ.get("PORT", "9205"))
DATABASE = Path(os.environ.get("DATABASE", Path(__file__).with_name("sign-ins.db")))

MAX_BODY_BYTES = 8 << 20

SCHEMA = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS sign_ins (
        webhook_id TEXT PRIMARY KEY,
        at TEXT NOT NULL,
        user_id TEXT NOT NULL,
        application TEXT NOT NULL
    );
"""

# The times are Logto's, in UTC, as 2026-11-23T18:16:38.591Z.
REPORT = """
    SELECT substr(at, 1, 10) AS day, application, count(*), count(DISTINCT user_id)
    FROM sign_ins GROUP BY day, application ORDER BY day, application
"""


def connect():
    return closing(sqlite3.connect(DATABASE, timeout=10))


def create():
    with connect() as db:
        db.executescript(SCHEMA)


def keep(webhook_id, event):
    """Writes the sign-in down, once."""
    application = (event.get("application") or {}).get("name", "-")
    row = [webhook_id, event["createdAt"], event["userId"], application]
    with connect() as db, db:  # the second one is the transaction
        db.execute("INSERT OR IGNORE INTO sign_ins VALUES (?, ?, ?, ?)", row)


def report():
    with connect() as db:
        rows = [("DAY", "APPLICATION", "SIGN-INS", "USERS"), *db.execute(REPORT)]
    width = max(len(application) for _, application, _, _ in rows)
    for day, application, sign_ins, users in rows:
        print(f"{day:<10}  {application:<{width}}  {sign_ins:>8}  {users:>5}")


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds of silence, after which a connection is closed

    def do_POST(self):
        try:
            # A body that is longer is cut off, and fails its signature.
            length = min(int(self.headers.get("content-length", "0")), MAX_BODY_BYTES)
            event = self.server.webhook.verify(self.rfile.read(max(length, 0)), dict(self.headers))
        except (WebhookVerificationError, ValueError):
            return self.answer(401)
        try:
            keep(self.headers["webhook-id"], event)
        except KeyError:
            return self.answer(422)  # not a sign-in: Tidings gives the event up in the end, and says so
        except sqlite3.OperationalError:
            return self.answer(503)  # locked for long, or the disk is full: Tidings tries again
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
            self.send_header("connection", "close")
        self.end_headers()


def serve():
    signing_key = os.environ.get("SIGNING_KEY") or sys.exit("SIGNING_KEY is not set: it stands in the Webhook's Secret")
    server = ThreadingHTTPServer((HOST, PORT), Receiver)
    server.webhook = Webhook(signing_key)
    print(f"listening on http://{HOST}:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    create()
    match sys.argv[1:]:
        case []:
            serve()
        case ["report"]:
            report()
        case _:
            sys.exit("usage: receiver.py [report]")
