// Keeps a tenant in another system for each organization, by that system's HTTP API.
//
//     SIGNING_KEY=whsec_... API_URL=https://billing.example.com/v1 API_TOKEN=... node receiver.mjs
//
// SIGNING_KEY  the Webhook's signing key, as it stands in its Secret
// API_URL      the API's base URL
// API_TOKEN    its bearer token; none is sent when absent
// HOST         127.0.0.1 when absent; 0.0.0.0 in a pod
// PORT         9203 when absent; 0 takes a free one
//
// An event may be delivered more than once, always under the same webhook-id. It goes on to the API as the
// Idempotency-Key, so that the API does the work once. This receiver keeps no state and makes no second try of its
// own: it passes the API's outcome on, and Tidings tries again.

import { createServer } from "node:http";

import { Webhook } from "standardwebhooks";

const { SIGNING_KEY, API_URL, API_TOKEN, HOST = "127.0.0.1", PORT = "9203" } = process.env;
if (!SIGNING_KEY) stop("SIGNING_KEY is not set: it stands in the Webhook's Secret");
if (!URL.canParse(API_URL ?? "")) stop("API_URL is not set, or is no URL");

const MAX_BODY_BYTES = 8 << 20;
const API_TIMEOUT_MS = 10_000; // less than the 15 s that Tidings waits for an answer

const webhook = new Webhook(SIGNING_KEY);

/** The call that an event asks for; none for an event that is not known here. */
function callFor({ event, data, params, organizationId, addedUserIds, removedUserIds }) {
  const tenant = (id) => `/tenants/${encodeURIComponent(id)}`;
  switch (event) {
    case "Organization.Created":
      return { method: "POST", path: "/tenants", body: { id: data.id, name: data.name } };
    case "Organization.Membership.Updated":
      // Before 1.40 Logto does not say who came and went: the API then reads the members anew.
      return { method: "POST", path: `${tenant(organizationId)}/members`, body: { addedUserIds, removedUserIds } };
    case "Organization.Deleted":
      return { method: "DELETE", path: tenant(params.id) };
    default:
      return undefined;
  }
}

async function call({ method, path, body }, idempotencyKey) {
  const answer = await fetch(API_URL.replace(/\/$/, "") + path, {
    method,
    headers: {
      "idempotency-key": idempotencyKey,
      ...(body && { "content-type": "application/json" }),
      ...(API_TOKEN && { authorization: `Bearer ${API_TOKEN}` }),
    },
    body: body && JSON.stringify(body),
    redirect: "error", // following one could lose the call and look like success
    signal: AbortSignal.timeout(API_TIMEOUT_MS),
  });
  await answer.arrayBuffer();
  return answer;
}

/** What the API's answer means for Tidings. */
function outcome({ ok, status, headers }) {
  if (ok) return { status: 204 };
  const isRefusal = status < 500 && ![408, 425, 429].includes(status);
  // Refused for good: Tidings gives this event up in the end, and says so; others go on meanwhile.
  if (isRefusal) return { status: 422 };
  // Down or overrun: tried again, no sooner than the API asks for.
  return { status: status === 429 || status === 503 ? 503 : 502, retryAfter: headers.get("retry-after") };
}

async function receive(request) {
  const body = await read(request);
  let event;
  try {
    event = webhook.verify(body, request.headers);
  } catch {
    return { status: 401 };
  }
  const wanted = callFor(event);
  if (!wanted) return { status: 204 };
  try {
    const answer = await call(wanted, request.headers["webhook-id"]);
    console.log(`${event.event}: the API answered ${answer.status}`);
    return outcome(answer);
  } catch (error) {
    console.error(`${event.event}: the API cannot be reached: ${error.cause?.code ?? error.name}`);
    return { status: 503 };
  }
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
