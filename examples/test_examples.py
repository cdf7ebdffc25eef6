"""Each use case with its own manifests, its real receiver and the real `tidings dev`, by events of a real Logto."""

import base64
import email
import email.policy
import json
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from harness import (
    CASES,
    EXAMPLES,
    TIDINGS,
    MailRelay,
    Receiver,
    Service,
    Tidings,
    capture,
    command,
    exchange,
    fails_once,
    loses_first_answer,
    signing_key,
)

# The user of this capture registered without an address.
WITHOUT_ADDRESS = capture("30-PostRegister")
POST_REGISTER = WITHOUT_ADDRESS.changed('"primaryEmail":null', '"primaryEmail":"grace@example.com"')


# --- welcome e-mail


def mails_in(outbox):
    parse = email.message_from_bytes
    return [parse(mail.read_bytes(), policy=email.policy.default) for mail in outbox.glob("*.eml")]


def test_who_registers_gets_one_mail_though_the_event_is_delivered_twice(running, tmp_path):
    outbox = tmp_path / "outbox"
    receiver = running(Receiver("welcome-email", OUTBOX=str(outbox)))
    road = running(Service(loses_first_answer(receiver)))
    tidings = running(Tidings(tmp_path, "welcome-email", road.url))
    tidings.send(POST_REGISTER)
    first, second = road.wait_for(2)
    tidings.wait_until_delivered(1)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    [mail] = mails_in(outbox)
    assert mail["To"] == "grace@example.com"
    assert mail.get_content().startswith("Hello grace,")


def test_who_registers_without_an_address_gets_no_mail(running, tmp_path):
    outbox = tmp_path / "outbox"
    receiver = running(Receiver("welcome-email", OUTBOX=str(outbox)))
    tidings = running(Tidings(tmp_path, "welcome-email", receiver.url))
    tidings.send(WITHOUT_ADDRESS, POST_REGISTER)
    tidings.wait_until_delivered(1)
    assert tidings.tally()["dropped"] == 1
    assert [mail["To"] for mail in mails_in(outbox)] == ["grace@example.com"]


def test_a_mail_waits_for_a_relay_that_is_busy_and_goes_out_once(running, tmp_path):
    relay = running(MailRelay(busy=1))
    settings = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": relay.port, "OUTBOX": str(tmp_path / "outbox")}
    receiver = running(Receiver("welcome-email", **settings))
    road = running(Service(loses_first_answer(receiver)))
    tidings = running(Tidings(tmp_path, "welcome-email", road.url))
    tidings.send(POST_REGISTER)
    tidings.wait_until_delivered(1)
    # Busy, then sent but not heard of, then known.
    assert [attempt["statusCode"] for attempt in tidings.deliveries()] == [503, 500, 204]
    [mail] = relay.mails
    assert "To: grace@example.com\r\n" in mail


# --- chat notification


def test_the_chat_is_told_what_happened(running, tmp_path):
    chat = running(Service(lambda _: (200, {})))
    receiver = running(Receiver("chat-notification", CHAT_WEBHOOK_URL=f"{chat.url}/hooks/secret-of-the-chat"))
    tidings = running(Tidings(tmp_path, "chat-notification", receiver.url))
    tidings.send(
        capture("05-Identifier.Lockout"),
        capture("04-User.SuspensionStatus.Updated"),
        capture("11-Role.Scopes.Updated"),
        capture("31-PostSignIn"),
        capture("09-Role.Created").changed('"name":"clerk"', '"name":"<!channel>"'),
    )
    messages = chat.wait_for(4)
    assert {message.path for message in messages} == {"/hooks/secret-of-the-chat"}
    assert {message.json()["text"] for message in messages} == {
        "Locked out after too many failed sign-ins: username grace, from 198.51.100.7",
        "User Ada L. is no longer suspended",
        "Role 9939dlly3u7g7xdxi582m has other permissions now: read:orders, write:orders",
        "Role &lt;!channel&gt; was created",
    }


def test_a_message_waits_for_a_chat_that_is_overrun_and_is_written_once(running, tmp_path):
    chat = running(Service(fails_once(429, **{"retry-after": "1"})))
    receiver = running(Receiver("chat-notification", CHAT_WEBHOOK_URL=chat.url))
    tidings = running(Tidings(tmp_path, "chat-notification", receiver.url))
    tidings.send(capture("05-Identifier.Lockout"))
    refused, taken = chat.wait_for(2)
    assert refused.body == taken.body
    tidings.wait_until_delivered(1)
    first, second = tidings.deliveries()
    assert first["statusCode"] == 502
    assert second["timeMs"] - first["timeMs"] >= 1000, "no sooner than the chat asked for"
    # The same delivery once more, as after an answer that was lost.
    delivery = signed("chat-notification", capture("05-Identifier.Lockout").body)
    assert [post(receiver, *delivery) for _ in range(2)] == [204, 204]
    assert len(chat.wait_for(3)) == 3


# --- API call


def test_a_tenant_is_made_though_the_api_fails_at_first_and_members_follow(running, tmp_path):
    api = running(Service(fails_once(503)))
    receiver = running(Receiver("api-call", API_URL=f"{api.url}/v1", API_TOKEN="token-of-the-api"))
    tidings = running(Tidings(tmp_path, "api-call", receiver.url))
    added = capture("19-Organization.Membership.Updated").changed('"hookId"', '"addedUserIds":["u1"],"hookId"')
    tidings.send(capture("17-Organization.Created"), added, capture("27-Organization.Deleted"))
    calls = api.wait_for(4)
    assert [(call.method, call.path) for call in calls] == [
        ("POST", "/v1/tenants"),
        ("POST", "/v1/tenants"),
        ("POST", "/v1/tenants/rz3t5byyaz1f/members"),
        ("DELETE", "/v1/tenants/rz3t5byyaz1f"),
    ]
    assert calls[1].json() == {"id": "rz3t5byyaz1f", "name": "Analytical Engines"}
    assert calls[2].json() == {"addedUserIds": ["u1"]}
    assert {call.headers["authorization"] for call in calls} == {"Bearer token-of-the-api"}
    tidings.wait_until_delivered(3)
    attempts = tidings.deliveries()
    assert [attempt["statusCode"] for attempt in attempts] == [503, 204, 204, 204]
    keys = [call.headers["idempotency-key"] for call in calls]
    assert keys == [attempt["webhookId"] for attempt in attempts]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(("answered", "passed_on"), [(500, 502), (429, 503), (400, 422)])
def test_the_apis_refusal_is_passed_on_as_one_that_tidings_understands(running, answered, passed_on):
    api = running(Service(lambda _: (answered, {})))
    receiver = running(Receiver("api-call", API_URL=api.url))
    assert post(receiver, *signed("api-call", capture("17-Organization.Created").body)) == passed_on


# --- data sync


def users_in(database):
    with closing(sqlite3.connect(database)) as db:
        return db.execute("SELECT id, name, custom_data FROM users ORDER BY id").fetchall()


def test_a_users_row_is_made_changed_and_removed(running, tmp_path):
    database = tmp_path / "users.db"
    receiver = running(Receiver("data-sync", DATABASE=str(database)))
    road = running(Service(loses_first_answer(receiver)))
    tidings = running(Tidings(tmp_path, "data-sync", road.url))
    created, updated, deleted = map(capture, ["01-User.Created", "02-User.Data.Updated", "28-User.Deleted"])
    tidings.send(created)
    tidings.wait_until_delivered(1)
    assert len(road.wait_for(2)) == 2
    assert users_in(database) == [("xuzgglllql7t", "Ada Lovelace", "{}")]
    tidings.send(updated)
    tidings.wait_until_delivered(2)
    [(_, name, custom_data)] = users_in(database)
    assert name == "Ada L."
    assert json.loads(custom_data)["plan"] == "pro"
    tidings.send(WITHOUT_ADDRESS, deleted)
    tidings.wait_until_delivered(4)
    assert [user for user, *_ in users_in(database)] == ["gnhjdokuin7s"]


def test_an_older_state_replaces_no_newer_one_and_no_user_comes_back(running, tmp_path):
    database = tmp_path / "users.db"
    receiver = running(Receiver("data-sync", DATABASE=str(database)))


    def take(name):
        return post(receiver, *signed("data-sync", capture(name).body, webhook_id=name))

    assert [take("02-User.Data.Updated"), take("01-User.Created")] == [204, 204]
    assert [name for _, name, _ in users_in(database)] == ["Ada L."]
    assert [take("28-User.Deleted"), take("04-User.SuspensionStatus.Updated")] == [204, 204]
    assert users_in(database) == []


def test_a_part_of_a_user_is_changed_alone_and_once(running, tmp_path):
    database = tmp_path / "users.db"
    receiver = running(Receiver("data-sync", DATABASE=str(database)))

    def take(webhook_id, custom_data):
        event = json.loads(capture("02-User.Data.Updated").body)
        event |= {"matchedRoute": "/users/:userId/custom-data", "data": custom_data}
        assert post(receiver, *signed("data-sync", json.dumps(event).encode(), webhook_id)) == 204

    assert post(receiver, *signed("data-sync", capture("01-User.Created").body, "msg_1")) == 204
    # What looks like a user's id here is none.
    older, newer = {"theme": "dark", "id": "x"}, {"theme": "light", "id": "x"}
    for webhook_id, custom_data in [("msg_2", older), ("msg_3", newer), ("msg_2", older)]:
        take(webhook_id, custom_data)
    [(user, name, kept)] = users_in(database)
    assert (user, name, json.loads(kept)) == ("xuzgglllql7t", "Ada Lovelace", newer)


# --- report of sign-ins


def test_the_report_counts_each_sign_in_once_and_leaves_the_probe_out(running, tmp_path):
    database = str(tmp_path / "sign-ins.db")
    receiver = running(Receiver("sign-in-report", DATABASE=database))
    road = running(Service(loses_first_answer(receiver)))
    tidings = running(Tidings(tmp_path, "sign-in-report", road.url))
    grace = capture("31-PostSignIn")
    tidings.send(
        grace,
        grace.changed('"userAgent":"Mozilla/5.0', '"userAgent":"uptime-probe/1.0'),
        grace.changed("2026-11-23T18:16:38", "2026-11-23T21:00:00"),
        grace.changed('"userId":"gnhjdokuin7s"', '"userId":"xuzgglllql7t"'),
        grace.changed("2026-11-23T18:16:38", "2026-11-24T08:00:00"),
    )
    tidings.wait_until_delivered(4)
    assert len(road.wait_for(5)) == 5
    assert tidings.tally()["dropped"] == 1
    report = [*command("sign-in-report"), "report"]
    printed = subprocess.run(report, env={"DATABASE": database}, capture_output=True, text=True, check=True)
    assert [line.split() for line in printed.stdout.splitlines()] == [
        ["DAY", "APPLICATION", "SIGN-INS", "USERS"],
        ["2026-11-23", "web", "3", "2"],
        ["2026-11-24", "web", "1", "1"],
    ]


# --- every use case


@pytest.mark.parametrize("case", CASES)
def test_lint_finds_nothing_wrong(case):
    arguments = [TIDINGS, "lint", "-f", EXAMPLES / "auth-server.yaml", EXAMPLES / case]
    lint = subprocess.run(arguments, capture_output=True, text=True)
    assert lint.returncode == 0, lint.stdout + lint.stderr
    assert "4 objects judged: 0 errors, 0 warnings" in lint.stdout


TAKEN = {
    "welcome-email": POST_REGISTER,
    "chat-notification": capture("09-Role.Created"),
    "api-call": capture("17-Organization.Created"),
    "data-sync": capture("01-User.Created"),
    "sign-in-report": capture("31-PostSignIn"),
}


def signed(case, body, webhook_id="msg_1", at=None):
    """Headers and body of a delivery, signed by the official package."""
    at = at or datetime.now(timezone.utc)
    signature = Webhook(signing_key(case)).sign(webhook_id, at, body.decode())
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}
    return headers, body


def post(receiver, headers, body):
    return exchange(receiver.url, "POST", "/", headers, body)[0]


@pytest.mark.parametrize("case", CASES)
def test_a_receiver_takes_what_tidings_signed_and_nothing_else(running, tmp_path, case):
    service = running(Service())
    settings = {"OUTBOX": str(tmp_path), "DATABASE": str(tmp_path / "rows.db")}
    receiver = running(Receiver(case, CHAT_WEBHOOK_URL=service.url, API_URL=service.url, **settings))
    headers, body = signed(case, TAKEN[case].body)
    old, _ = signed(case, body, at=datetime.now(timezone.utc) - timedelta(minutes=6))
    assert post(receiver, headers, body.replace(b'"event"', b'"Event"')) == 401
    assert post(receiver, old, body) == 401
    assert post(receiver, {}, body) == 401
    for malformed in ({"webhook-signature": "v1"}, {"webhook-signature": "v1,%"}, {"webhook-timestamp": "now"}):
        assert post(receiver, headers | malformed, body) == 401
    assert post(receiver, headers, b"\xff" + body) == 401
    assert not service.requests and not list(tmp_path.glob("*.eml"))
    assert post(receiver, headers, body) == 204


# --- the official packages

VERIFY = """
    const { Webhook } = require("standardwebhooks");
    const { key, headers, body } = JSON.parse(require("fs").readFileSync(0));
    const verified = new Webhook(key).verify(Buffer.from(body, "base64"), headers);
    console.log(JSON.stringify(verified));
"""


def verified_by_node(key, headers, body):
    """The event, as the package of npm gives it; None where it refuses it."""
    given = json.dumps({"key": key, "headers": headers, "body": base64.b64encode(body).decode()})
    node = subprocess.run(["node", "-e", VERIFY], cwd=EXAMPLES, input=given, capture_output=True, text=True)
    assert node.returncode == 0 or "WebhookVerificationError" in node.stderr, node.stderr
    return json.loads(node.stdout) if node.returncode == 0 else None


def verified_by_python(key, headers, body):
    """The event, as the package of PyPI gives it; None where it refuses it."""
    try:
        return Webhook(key).verify(body, headers)
    except WebhookVerificationError:
        return None


@pytest.mark.parametrize("verified", [verified_by_python, verified_by_node])
def test_a_delivery_is_verified_by_the_official_package(running, tmp_path, verified):
    endpoint = running(Service())
    previous = "whsec_dGhlLWtleS1iZWZvcmUtdGhlLXJvdGF0aW9u"
    tidings = running(Tidings(tmp_path, "data-sync", endpoint.url, previous_key=previous))
    # Its body holds text beyond ASCII.
    sent = capture("02-User.Data.Updated")
    tidings.send(sent)
    [delivery] = endpoint.wait_for(1)
    assert delivery.body == sent.body
    key = signing_key("data-sync")
    assert verified(key, delivery.headers, delivery.body) == json.loads(sent.body)
    assert verified(previous, delivery.headers, delivery.body) == json.loads(sent.body)
    assert verified(signing_key("api-call"), delivery.headers, delivery.body) is None
    assert verified(key, delivery.headers, delivery.body + b" ") is None
    assert verified(key, delivery.headers | {"webhook-id": "msg_1"}, delivery.body) is None


# --- the README


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="it takes curl and openssl")
def test_the_readmes_command_posts_an_event(running, tmp_path):
    outbox = tmp_path / "outbox"
    receiver = running(Receiver("welcome-email", OUTBOX=str(outbox)))
    tidings = running(Tidings(tmp_path, "welcome-email", receiver.url, hook_key="example-key-of-the-hook-in-logto"))
    [script] = re.findall(r"```sh\n(key=.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL)
    script = script.replace("http://127.0.0.1:8787/events", tidings.events)
    posted = subprocess.run(["bash", "-c", script], cwd=EXAMPLES.parent, capture_output=True, text=True)
    assert '{"stored":true}' in posted.stdout, posted.stdout + posted.stderr
    tidings.wait_until_delivered(1)
    assert [mail["To"] for mail in mails_in(outbox)] == ["grace@example.com"]
