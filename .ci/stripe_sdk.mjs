// Stripe's SDK for Node, unmodified, against the reference server in Stripe's dialect: what
// stripe_sdk.py asks of the one for Python. Usage: stripe_sdk.mjs SERVER_BINARY, with the directory
// that npm has installed the SDK into as STRIPE_PACKAGES.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import readline from "node:readline";

const Stripe = createRequire(join(process.env.STRIPE_PACKAGES, "package.json"))("stripe");

const CALL = { caller_id: "+14155551234", destination: "+14155556789" };
const OTHER_CALL = { ...CALL, destination: "+442079460000" };

async function main(binary) {
  const home = mkdtempSync(join(tmpdir(), "stripe-"));
  const options = ["--listen", "127.0.0.1:0", "--store", join(home, "store")];
  options.push("--journal", join(home, "journal"), "--dialect", "stripe");
  options.push("--latency", "1s", "--wait", "0ms");
  const server = spawn(binary, options, { stdio: ["ignore", "pipe", "inherit"] });
  try {
    const [line] = await new Promise((listening) =>
      readline.createInterface(server.stdout).once("line", (...said) => listening(said)),
    );
    const proxy = await Proxy.before(Number(line.split(":").at(-1)));
    await check(proxy);
    proxy.close();
    const journal = readFileSync(join(home, "journal"), "utf8");
    assert.equal(journal.split('"method":"POST"').length - 1, 3, journal);
  } finally {
    server.kill();
    rmSync(home, { recursive: true });
  }
}

/** Passes bytes on, counts the requests, and loses an answer when it is told to. */
class Proxy {
  requests = 0;
  loses = false;

  static async before(port) {
    const proxy = new Proxy();
    proxy.server = net.createServer((client) => proxy.pass(client, net.connect(port, "127.0.0.1")));
    await new Promise((listening) => proxy.server.listen(0, "127.0.0.1", listening));
    return proxy;
  }

  pass(client, server) {
    client.on("data", (bytes) => {
      this.requests += bytes.toString("latin1").split(" /v1/").length - 1;
      server.write(bytes);
    });
    server.on("data", (bytes) => {
      if (this.loses) {
        this.loses = false;
        client.destroy();
      } else {
        client.write(bytes);
      }
    });
    for (const [one, other] of [[client, server], [server, client]]) {
      one.on("error", () => {});
      one.on("close", () => other.destroy());
    }
  }

  /** Returns the number of requests that some work makes. */
  async counting(work) {
    const before = this.requests;
    await work();
    return this.requests - before;
  }

  close() {
    this.server.close();
  }
}

async function check(proxy) {
  const { port } = proxy.server.address();
  const at = { host: "127.0.0.1", port, protocol: "http" };
  const stripe = new Stripe("sk_test_1", { ...at, maxNetworkRetries: 10 });
  const place = (call, options) => stripe.rawRequest("POST", "/v1/calls", call, options);
  const replays = ({ lastResponse }) => lastResponse.headers["idempotent-replayed"] === "true";

  // The answer is lost after the call was placed: the SDK sends it again, under a key of its own.
  let placed;
  proxy.loses = true;
  assert.equal(await proxy.counting(async () => (placed = await place(CALL))), 2);
  assert.deepEqual([placed.lastResponse.statusCode, replays(placed)], [201, true]);
  assert.match(placed.lastResponse.requestId, /^req_/);

  // Two at once: one is told 409 idempotency_key_in_use, and the SDK asks again until it replays.
  const key = { idempotencyKey: "a" };
  let answers;
  const both = () => Promise.all([place(OTHER_CALL, key), place(OTHER_CALL, key)]);
  assert.ok((await proxy.counting(async () => (answers = await both()))) > 2);
  assert.equal(answers[0].id, answers[1].id);
  assert.deepEqual(answers.map(replays).sort(), [false, true]);

  const refused = async (type, call, options, { sdk = stripe, ...expected }) => {
    const attempt = () => sdk.rawRequest("POST", "/v1/calls", call, options);
    const ask = () => assert.rejects(attempt, { type, ...expected });
    assert.equal(await proxy.counting(ask), 1, `${type} is not retried`);
  };
  const conflict = { statusCode: 400, message: /Try using a key other than 'a'/ };
  await refused("StripeIdempotencyError", CALL, key, conflict);
  const invalid = { ...CALL, caller_id: "4155551234" };
  const field = { statusCode: 400, param: "caller_id" };
  await refused("StripeInvalidRequestError", invalid, {}, field);
  const unnamed = new Stripe(null, { ...at, authenticator: async () => {} });
  await refused("StripeAuthenticationError", CALL, key, { sdk: unnamed, statusCode: 401 });
  const other = new Stripe("sk_test_2", at);
  const theirs = await other.rawRequest("POST", "/v1/calls", CALL, key);
  assert.equal(replays(theirs), false, "another secret key has keys of its own");

  const deleted = await stripe.rawRequest("DELETE", `/v1/calls/${answers[0].id}`);
  assert.equal(deleted.deleted, true);
  const version = Stripe.PACKAGE_VERSION;
  console.log(`stripe ${version} for Node: replays, retries and errors are its own`);
}

await main(process.argv[2]);
