// Tells a chat of lockouts, suspensions and changes of roles.
//
//     SIGNING_KEY=whsec_... CHAT_WEBHOOK_URL=https://chat.example.com/hooks/... node receiver.mjs
//
// SIGNING_KEY       the Webhook's signing key, as it stands in its Secret
// CHAT_WEBHOOK_URL  the chat's incoming webhook, which takes {"text": "..."}: Slack, Mattermost, Rocket.Chat and others.
//                   Whoever knows it can write into the chat, so it is never printed
// HOST              127.0.0.1 when absent; 0.0.0.0 in a pod
// PORT              9202 when absent; 0 takes a free one
//
// An event may be delivered more than once, always under the same webhook-id. The last ids are kept in memory: after
// a restart a message may come twice, which does no harm in a chat.

import { createServer } from "node:http";

import { Webhook } from "standardwebhooks";

const { SIGNING_KEY, CHAT_WEBHOOK_URL, HOST = "127.0.0.1", PORT = "9202" } = process.env;
if (!SIGNING_KEY) stop("SIGNING_KEY is not set: it stands in the Webhook's Secret");
if (!URL.canParse(CHAT_WEBHOOK_URL ?? "")) stop("CHAT_WEBHOOK_URL is not set, or is no URL");

const MAX_BODY_BYTES = 8 << 20;
const CHAT_TIMEOUT_MS = 10_000; // less than the 15 s that Tidings waits for an answer
const REMEMBERED = 1000;

const webhook = new Webhook(SIGNING_KEY);
const told = new Set();

/** What is said of an event. */
function textOf({ event, ...rest }) {
  const { data, params } = rest;
  const role = `Role ${data?.name ?? rest.roleId ?? params?.id}`;
  switch (event) {
    case "Identifier.Lockout":
      return `Locked out after too many failed sign-ins: ${rest.type} ${rest.value}, from ${rest.ip ?? "somewhere"}`;
    case "User.SuspensionStatus.Updated":
      return `User ${data.name ?? data.username ?? data.id} is ${data.isSuspended ? "suspended" : "no longer suspended"}`;
    case "Role.Created":
      return `${role} was created`;
    case "Role.Deleted":
      return `${role} was deleted`;
    case "Role.Scopes.Updated":
      return `${role} has other permissions now${scopes(data)}`;
    default:
      return event.startsWith("Role.") ? `${role} was changed` : `Event ${event}`;
  }
}

/** The permissions by name; a removal does not tell which are left. */
function scopes(data) {
  return Array.isArray(data) ? `: ${data.map(({ name }) => name).join(", ")}` : "";
}

/** Names come from users: without this, one called <!channel> would call everybody. */
function escape(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Writes into the chat; the answer for Tidings. */
async function tell(text) {
  try {
    const answer = await fetch(CHAT_WEBHOOK_URL, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ text: escape(text) }),
      redirect: "error", // following one could lose the message and look like success
      signal: AbortSignal.timeout(CHAT_TIMEOUT_MS),
    });
    await answer.arrayBuffer();
    if (answer.ok) return { status: 204 };
    console.error(`the chat answered ${answer.status}`);
    return { status: 502, retryAfter: answer.headers.get("retry-after") };
  } catch (error) {
    console.error(`the chat cannot be reached: ${error.cause?.code ?? error.name}`);
    return { status: 503 };
  }
}

async function receive(request) {
  const body = await read(request);
  let event;
  try {
    event = webhook.verify(body, request.headers);
  } catch {
    return { status: 401 };
  }
  const id = request.headers["webhook-id"];
  if (told.has(id)) return { status: 204 };
  const answer = await tell(textOf(event));
  if (answer.status === 204) remember(id);
  return answer;
}

function remember(id) {
  told.add(id);
  if (told.size > REMEMBERED) told.delete(told.values().next().value);
}

/** The body; one that is too long is cut off, and fails its signature. */
async function read(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length <= MAX_BODY_BYTES) chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function stop(message) {
  console.error(message);
  process.exit(1);
}

const server = createServer(async (request, response) => {
  const failed = (error) => {
    console.error(`an event of a shape that is not known here: ${error.name}`);
    return { status: 422 };
  };
  const { status, retryAfter } = await receive(request).catch(failed);
  response.writeHead(status, retryAfter ? { "retry-after": retryAfter } : {}).end();
});
server.listen(Number(PORT), HOST, () => {
  console.log(`listening on http://${HOST}:${server.address().port}`);
});
