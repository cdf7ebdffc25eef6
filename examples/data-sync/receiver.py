"""Keeps a copy of the auth server's users in a SQLite database of one's own.

    SIGNING_KEY=whsec_... python receiver.py

SIGNING_KEY  the Webhook's signing key, as it stands in its Secret
HOST         127.0.0.1 when absent; 0.0.0.0 in a pod
PORT         9204 when absent; 0 takes a free one
DATABASE     the database's file; `users.db` beside this file when absent

An event may be delivered more than once, always under the same webhook-id. The ids that were seen are kept in the
transaction that changes the users, so that an event takes effect once, whatever crashes when.
"""

import json
import os
import sqlite3
import sys
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks import Webhook, WebhookVerificationError

SIGNING_KEY = os.environ.get("SIGNING_KEY") or sys.exit("SIGNING_KEY is not set: it stands in the Webhook's Secret")
HOST = os.environ.get("HOST", "127.0.0.1")
PORT = int(os.environ.get("PORT", "9204"))
DATABASE = Path(os.environ.get("DATABASE", Path(__file__).with_name("users.db")))

MAX_BODY_BYTES = 8 << 20

SCHEMA = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS users (
        id TEXT PRIMARY KEY,
        username TEXT,
        email TEXT,
        name TEXT,
        suspended INTEGER NOT NULL,
        profile TEXT NOT NULL,
        custom_data TEXT NOT NULL,
        updated_at INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS deleted_users (id TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS seen (webhook_id TEXT PRIMARY KEY, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
"""

# Logto's own time decides, not the order of arrival: an older state never replaces a newer one, and a user who
# is gone does not come back.
UPSERT = """
    INSERT INTO users
    SELECT :id, :username, :primaryEmail, :name, :isSuspended, :profile, :customData, :updatedAt
    WHERE :id NOT IN (SELECT id FROM deleted_users)
    ON CONFLICT (id) DO UPDATE SET
        username = excluded.username, email = excluded.email, name = excluded.name, suspended = excluded.suspended,
        profile = excluded.profile, custom_data = excluded.custom_data, updated_at = excluded.updated_at
    WHERE excluded.updated_at >= users.updated_at
"""

# Events of these routes carry one part of the user alone, and the user's id in the route's parameters.
UPDATE_PART = {
    "/users/:userId/profile": "UPDATE users SET profile = ? WHERE id = ?",
    "/users/:userId/custom-data": "UPDATE users SET custom_data = ? WHERE id = ?",
}

webhook = Webhook(SIGNING_KEY)


def connect():
    return closing(sqlite3.connect(DATABASE, timeout=10))


def take(webhook_id, event):
    """Brings the copy up to date, once for each webhook-id."""
    with connect() as db, db:  # the second one is the transaction
        if db.execute("INSERT OR IGNORE INTO seen (webhook_id) VALUES (?)", [webhook_id]).rowcount:
            apply(db, event)
        # Tidings tries for three days; a replay that comes later than this changes nothing either.
        db.execute("DELETE FROM seen WHERE at < datetime('now', '-30 days')")


def apply(db, event):
    if event["event"] == "User.Deleted":
        user_id = event["data"]["id"]
        db.execute("DELETE FROM users WHERE id = ?", [user_id])
        db.execute("INSERT OR IGNORE INTO deleted_users VALUES (?)", [user_id])
    elif update := UPDATE_PART.get(event.get("matchedRoute")):
        db.execute(update, [text(event["data"]), event["params"]["userId"]])
    else:
        user = event["user"] if event["event"] == "PostRegister" else event["data"]
        db.execute(UPSERT, {**user, "profile": text(user["profile"]), "customData": text(user["customData"])})


def text(value):
    return json.dumps(value, ensure_ascii=False)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds of silence, after which a connection is closed

    def do_POST(self):
        try:
            # A body that is longer is cut off, and fails its signature.
            length = min(int(self.headers.get("content-length", "0")), MAX_BODY_BYTES)
            event = webhook.verify(self.rfile.read(max(length, 0)), dict(self.headers))
        except (WebhookVerificationError, ValueError):
            return self.answer(401)
        try:
            take(self.headers["webhook-id"], event)
        except sqlite3.OperationalError:
            return self.answer(503)  # locked for long, or the disk is full: Tidings tries again
        except (KeyError, TypeError, sqlite3.Error):
            return self.answer(422)  # not the shape of a user: Tidings gives the event up in the end, and says so
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
            self.send_header("connection", "close")
        self.end_headers()


def main():
    with connect() as db:
        db.executescript(SCHEMA)
    server = ThreadingHTTPServer((HOST, PORT), Receiver)
    print(f"listening on http://{HOST}:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
