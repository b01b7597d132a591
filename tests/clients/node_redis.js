// node-redis, with RESP2 and RESP3: its arguments are host:port of each node.
//
// As `node_redis.js load HOST:PORT ...` it reads and writes through these nodes until its input ends.
// Prints "ok" at its end. Called by tests/clients_node.rs.
"use strict";

const assert = require("assert");
const { createClient, WatchError } = require("redis");

async function open(address, RESP = 2) {
  const client = createClient({ url: `redis://${address}`, RESP });
  client.on("error", (error) => console.error(`${address}: ${error}`));
  return client.connect();
}

async function session(address, version) {
  const client = await open(address, version);
  const name = `node:${address}:${version}`;
  assert.strictEqual(await client.set(`${name}:a`, "1"), "OK");
  assert.strictEqual(await client.get(`${name}:a`), "1");
  assert.strictEqual(await client.get(`${name}:none`), null);
  const expiration = { type: "PX", value: 100000 };
  assert.strictEqual(await client.set(`${name}:t`, "x", { expiration, condition: "NX" }), "OK");
  assert.ok((await client.pTTL(`${name}:t`)) > 98000);

  // Commands of one moment go out together.
  const all = Array.from({ length: 100 }, () => client.incr(`${name}:n`));
  assert.strictEqual((await Promise.all(all)).pop(), 100);
  const changed = await client.multi().set(`${name}:b`, "x").append(`${name}:b`, "y").exec();
  assert.deepStrictEqual(changed, ["OK", 2]);
  const other = await open(address, version);
  await client.watch(`${name}:a`);
  await other.set(`${name}:a`, "2");
  await assert.rejects(client.multi().set(`${name}:a`, "3").exec(), WatchError);

  const listener = await open(address, version);
  const heard = new Promise((resolve) => {
    listener.subscribe(`${name}:news`, resolve).then(() => client.publish(`${name}:news`, "hello"));
  });
  assert.strictEqual(await heard, "hello");
  await assert.rejects(client.incr(`${name}:b`), /value is not an integer or out of range/);
  const keys = [];
  for await (const page of client.scanIterator({ MATCH: `${name}:*`, COUNT: 2 })) {
    keys.push(...page);
  }
  assert.ok(keys.includes(`${name}:a`) && new Set(keys).size === keys.length, keys);
  assert.strictEqual(await client.sendCommand(["CAS", `${name}:a`, "2", "3"]), 1);
  [client, other, listener].forEach((one) => one.destroy());
}

async function load(addresses) {
  let [done, ended, ready] = [0, false, false];
  process.stdin.resume().on("end", () => (ended = true));
  const work = async (number) => {
    const client = await open(addresses[number % addresses.length]);
    for (let count = 1; !ended; count += 1) {
      assert.strictEqual(await client.incr(`node:load:${number}`), count);
      assert.strictEqual(await client.get(`node:load:${number}`), String(count));
      done += 2;
      if (done > 200 && !ready) {
        ready = true;
        console.log("ready");
      }
    }
    client.destroy();
  };
  await Promise.all(Array.from({ length: 8 }, (_, number) => work(number)));
  console.log("ok", done, "commands");
}

async function main([first, ...rest]) {
  if (first === "load") return load(rest);
  for (const address of [first, ...rest]) {
    for (const version of [2, 3]) await session(address, version);
  }
  console.log("ok node-redis");
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
