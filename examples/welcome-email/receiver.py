"""Sends a welcome e-mail to each user who registers.

    SIGNING_KEY=whsec_... python receiver.py

SIGNING_KEY  the Webhook's signing key, as it stands in its Secret
HOST         127.0.0.1 when absent; 0.0.0.0 in a pod
PORT         9201 when absent; 0 takes a free one
SMTP_HOST    the mail relay; when absent, mails are only written to OUTBOX
SMTP_PORT    25 when absent
MAIL_FROM    the sender, welcome@shop.example.com when absent
OUTBOX       the folder that keeps each mail that was sent; `outbox` beside this file when absent

An event may be delivered more than once, always under the same webhook-id. The outbox names each mail by it,
and what stands there is not sent again. Only a crash between sending and writing can send a mail twice.
"""

import os
import smtplib
import sys
import threading
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks import Webhook, WebhookVerificationError

SIGNING_KEY = os.environ.get("SIGNING_KEY") or sys.exit("SIGNING_KEY is not set: it stands in the Webhook's Secret")
HOST = os.environ.get("HOST", "127.0.0.1")
PORT = int(os.environ.get("PORT", "9201"))
SMTP_HOST = os.environ.get("SMTP_HOST")
SMTP_PORT = int(os.environ.get("SMTP_PORT", "25"))
MAIL_FROM = os.environ.get("MAIL_FROM", "welcome@shop.example.com")
OUTBOX = Path(os.environ.get("OUTBOX", Path(__file__).with_name("outbox")))

MAX_BODY_BYTES = 8 << 20
SMTP_TIMEOUT_SECONDS = 10  # less than the 15 s that Tidings waits for an answer

webhook = Webhook(SIGNING_KEY)
one_at_a_time = threading.Lock()


def welcome(webhook_id, user):
    """Sends the mail, unless it was sent before."""
    # The id is signed as well: nobody but Tidings chooses this name.
    sent = OUTBOX / f"{webhook_id}.eml"
    with one_at_a_time:
        if sent.exists():
            return
        mail = compose(webhook_id, user)
        if SMTP_HOST:
            with smtplib.SMTP(SMTP_HOST, SMTP_PORT, timeout=SMTP_TIMEOUT_SECONDS) as smtp:
                smtp.send_message(mail)
        # Renamed when it is whole, so that half a mail is never taken for a sent one.
        part = sent.with_suffix(".part")
        part.write_bytes(bytes(mail))
        part.replace(sent)


def compose(webhook_id, user):
    """The mail; a ValueError where the address cannot stand in one."""
    mail = EmailMessage()
    mail["From"] = MAIL_FROM
    mail["To"] = user["primaryEmail"]
    mail["Subject"] = "Welcome"
    # The same for each attempt: mail servers may drop a second one.
    mail["Message-ID"] = f"<{webhook_id}@{MAIL_FROM.rpartition('@')[2]}>"
    mail.set_content(f"Hello {user['name'] or user['username'] or 'there'},\n\nyour account is ready.\n")
    return mail


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
        user = event.get("user") or {}
        if not user.get("primaryEmail"):
            return self.answer(204)  # nobody to write to; the Webhook's filter leaves most of these out
        try:
            welcome(self.headers["webhook-id"], user)
        except (ValueError, smtplib.SMTPRecipientsRefused):
            return self.answer(422)  # this one address is bad: Tidings gives the event up in the end, and says so
        except OSError:  # SMTP's errors are among these
            return self.answer(503)  # no mail goes out now: Tidings tries again
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
            self.send_header("connection", "close")
        self.end_headers()


def main():
    OUTBOX.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer((HOST, PORT), Receiver)
    print(f"listening on http://{HOST}:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
