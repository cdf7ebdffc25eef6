"""What the tests stand on: real processes, real sockets, and stand-ins for the services that receivers call.

    capture --raw socket--> tidings dev --HTTP--> receiver --> a stand-in, or a file

Nothing here sleeps to let something happen: `eventually` asks again until a condition holds, and fails with a
sentence when it never does.
"""

import hashlib
import hmac
import http.client
import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

EXAMPLES = Path(__file__).resolve().parent
FIXTURES = EXAMPLES.parent / "tests" / "fixtures"
TIDINGS = os.environ.get("TIDINGS_BIN") or str(EXAMPLES.parent / "target" / "debug" / "tidings")
CASES = ["welcome-email", "chat-notification", "api-call", "data-sync", "sign-in-report"]
HOOK_KEY = (FIXTURES / "logto" / "signing-key").read_text().strip()

PATIENCE = 30  # seconds; generous, since nothing is measured by it


def eventually(what, ask):
    """The first answer that is true, or a failure that says what was waited for."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {PATIENCE} s: {what}")
        time.sleep(0.01)
    return answer


def manifests(case):
    return (EXAMPLES / case / "manifests.yaml").read_text()


def signing_key(case):
    return re.search(r"signingKey: (\S+)", manifests(case))[1]


# --- what Logto sends


@dataclass(frozen=True)
class Capture:
    """One request of Logto: head and body, byte for byte."""

    head: bytes
    body: bytes

    def changed(self, old, new):
        """The same request with another body, signed anew as Logto signs."""
        assert old.encode() in self.body, f"{old} is not in the captured body"
        body = self.body.replace(old.encode(), new.encode())
        signature = hmac.new(HOOK_KEY.encode(), body, hashlib.sha256).hexdigest()
        head = re.sub(rb"(?m)^(logto-signature-sha-256:) \w+", rb"\1 " + signature.encode(), self.head)
        head = re.sub(rb"(?m)^(content-length:) \d+", rb"\1 %d" % len(body), head)
        return replace(self, head=head, body=body)


def capture(name):
    """A request by its file's name, such as `30-PostRegister`."""
    [head] = FIXTURES.glob(f"*/{name}.headers")
    return Capture(head.read_bytes(), head.with_suffix(".body").read_bytes())


# --- processes


class Process:
    """A program under test, and what it printed."""

    def __init__(self, command, **environment):
        self.lines = []
        self._process = subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, pattern):
        """The first line that matches, as a match."""
        return eventually(f"a line matches {pattern}", lambda: self._match(pattern))

    def _match(self, pattern):
        match = next(filter(None, (re.search(pattern, line) for line in list(self.lines))), None)
        assert match or self._process.poll() is None, "it ended:\n" + "\n".join(self.lines)
        return match

    def stop(self):
        assert self._process.poll() is None, "it ended by itself:\n" + "\n".join(self.lines)
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._reader.join()
            self._process.stdout.close()


class Receiver(Process):
    """A use case's receiver, on a free port."""

    def __init__(self, case, **environment):
        self.key = signing_key(case)
        self._secrets = [self.key, *(value for name, value in environment.items() if name.endswith(("URL", "TOKEN")))]
        super().__init__(command(case), PORT="0", SIGNING_KEY=self.key, **environment)

    def ready(self):
        self.url = self.wait_for(r"^listening on (\S+)$")[1]

    def stop(self):
        super().stop()
        for secret in self._secrets:
            assert not any(secret in line for line in self.lines), "a secret was printed"


def command(case):
    script = EXAMPLES / case / "receiver.py"
    return [sys.executable, str(script)] if script.exists() else ["node", str(script.with_suffix(".mjs"))]


class Tidings(Process):
    """`tidings dev` with a use case's own manifests, but for the endpoint's port and the hook's key."""

    def __init__(self, folder, case, endpoint, hook_key=HOOK_KEY, previous_key=None):
        self.webhook = "/".join(re.search(r"name: (\S+)\n  namespace: (\S+)", manifests(case)).group(2, 1))
        auth_server = (EXAMPLES / "auth-server.yaml").read_text()
        webhook = substitute(r"(?<=url: )http://127\.0\.0\.1:\d+/", endpoint + "/", manifests(case))
        if previous_key:
            webhook += f"  previousSigningKey: {previous_key}\n"
        (folder / "auth-server.yaml").write_text(substitute(r"(?<=signingKey: )\S+", hook_key, auth_server))
        (folder / "webhook.yaml").write_text(webhook)
        super().__init__(
            [TIDINGS, "dev", "-f", str(folder / "auth-server.yaml"), str(folder / "webhook.yaml"), "-o", "json"]
            + ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", str(folder / "data")]
        )

    def ready(self):
        ready = json.loads(self.wait_for(r'^\{.*"type":"ready".*')[0])
        self.events, self._admin = ready["events"], ready["admin"]

    def send(self, *captures):
        """Sends requests as Logto does, byte for byte; each is stored before this returns."""
        for sent in captures:
            status, body = raw(self.events, sent)
            assert status == 200, f"{status}: {body}"

    def deliveries(self):
        """The attempts so far, the newest last."""
        return get(self._admin, f"/deliveries?webhook={self.webhook}")["deliveries"]

    def tally(self):
        [webhook] = get(self._admin, "/webhooks")
        return webhook

    def wait_until_delivered(self, count):
        eventually(f"{count} events are delivered", lambda: self.tally()["delivered"] == count)


def substitute(pattern, new, text):
    # A function, so that nothing in `new` is taken for an escape.
    text, count = re.subn(pattern, lambda _: new, text)
    assert count == 1, f"{pattern} stands there {count} times"
    return text


def raw(url, sent):
    """Writes a request's very bytes to a socket; status and body of the answer."""
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), PATIENCE) as connection:
        connection.sendall(sent.head + sent.body)
        with http.client.HTTPResponse(connection, method="POST") as answer:
            answer.begin()
            return answer.status, answer.read().decode()


def get(url, path):
    status, body = exchange(url, "GET", path, {}, None)
    assert status == 200, f"{path}: {status} {body}"
    return json.loads(body)


def exchange(url, method, path, headers, body):
    """One request on a connection of its own; status and body of the answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# --- stand-ins


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict  # names in lower case
    body: bytes

    def json(self):
        return json.loads(self.body)


class StandIn:
    """A server of the test's own; it listens once it is made."""

    def __init__(self, server):
        self.port = str(server.server_address[1])
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=[0.05])
        self._thread.start()

    def ready(self):
        pass

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Service(StandIn):
    """An HTTP service that keeps what it is sent; `answer` gives each answer's status and headers."""

    def __init__(self, answer=lambda _: (204, {})):
        self.requests = []
        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), self._handler(answer)))
        self.url = f"http://127.0.0.1:{self.port}"

    def _handler(self, answer):
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, body)
                status, headers = answer(request)
                requests.append(request)
                self.send_response(status)
                for header in headers.items():
                    self.send_header(*header)
                self.end_headers()

            do_DELETE = do_POST

            def log_message(self, *_):
                pass

        return Handler

    def wait_for(self, count):
        """The requests, once there are this many."""
        eventually(f"{count} requests came", lambda: len(self.requests) >= count)
        assert len(self.requests) == count
        return list(self.requests)


def fails_once(status, **headers):
    """Answers that fail the first time."""
    answers = iter([(status, headers)])
    return lambda _: next(answers, (201, {}))


def loses_first_answer(receiver):
    """Hands deliveries on to a receiver, and loses its first 204: Tidings has to deliver that event again."""
    lost = iter([500])

    def answer(request):
        status, _ = exchange(receiver.url, request.method, request.path, request.headers, request.body)
        return (next(lost, status) if status == 204 else status), {}

    return answer


class MailRelay(StandIn):
    """An SMTP server that keeps the mails it takes; at first it is busy `busy` times."""

    def __init__(self, busy=0):
        self.mails = []
        super().__init__(socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler(iter(range(busy)))))

    def _handler(self, busy):
        mails = self.mails

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                if next(busy, None) is not None:
                    return self.say("421 busy")
                self.say("220 ready")
                while command := self.rfile.readline().strip().upper():
                    if command == b"DATA":
                        self.say("354 go on")
                        mails.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
                    self.say("221 bye" if command == b"QUIT" else "250 ok")

            def say(self, line):
                self.wfile.write(line.encode() + b"\r\n")

        return Handler
