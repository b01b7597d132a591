// ioredis, also through Sentinel: its arguments are host:port of each node.
//
// As `ioredis.js load HOST:PORT ...` it reads and writes through these nodes until its input ends.
// Prints "ok" at its end. Called by tests/clients_node.rs.
"use strict";

const assert = require("assert");
const Redis = require("ioredis");

const split = (address) => {
  const place = address.lastIndexOf(":");
  return { host: address.slice(0, place), port: Number(address.slice(place + 1)) };
};

async function session(address) {
  // One try: an error is to be seen, and not said again.
  const client = new Redis({ ...split(address), maxRetriesPerRequest: 0 });
  const name = `ioredis:${address}`;
  assert.strictEqual(await client.set(`${name}:a`, "1"), "OK");
  assert.strictEqual(await client.get(`${name}:a`), "1");
  assert.strictEqual(await client.get(`${name}:none`), null);
  assert.strictEqual(await client.set(`${name}:t`, "x", "PX", 100000, "NX"), "OK");
  assert.ok((await client.pttl(`${name}:t`)) > 98000);
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await client.set(`${name}:bytes`, bytes);
  assert.ok(bytes.equals(await client.getBuffer(`${name}:bytes`)));

  const pipeline = client.pipeline();
  for (let number = 0; number < 100; number += 1) pipeline.incr(`${name}:n`);
  const replies = await pipeline.exec();
  assert.deepStrictEqual(replies.map(([error, count]) => [error, count]).pop(), [null, 100]);

  const changed = await client.multi().set(`${name}:b`, "x").append(`${name}:b`, "y").exec();
  assert.deepStrictEqual(changed, [[null, "OK"], [null, 2]]);
  const other = client.duplicate();
  await client.watch(`${name}:a`);
  await other.set(`${name}:a`, "2");
  assert.strictEqual(await client.multi().set(`${name}:a`, "3").exec(), null);

  const heard = new Promise((resolve) => other.on("message", (...words) => resolve(words)));
  await other.subscribe(`${name}:news`);
  await client.publish(`${name}:news`, "hello");
  assert.deepStrictEqual(await heard, [`${name}:news`, "hello"]);

  await assert.rejects(client.incr(`${name}:b`), /value is not an integer or out of range/);
  const monitor = await client.monitor();
  const shown = new Promise((resolve) => {
    monitor.on("monitor", (_, words) => words[1] === `${name}:seen` && resolve(words));
  });
  await client.get(`${name}:seen`);
  assert.deepStrictEqual(await shown, ["get", `${name}:seen`]);
  const keys = [];
  for await (const page of client.scanStream({ match: `${name}:*`, count: 2 })) keys.push(...page);
  assert.ok(keys.includes(`${name}:a`) && new Set(keys).size === keys.length, keys);
  [client, other, monitor].forEach((one) => one.disconnect());
}

async function throughSentinel(addresses) {
  const client = new Redis({ sentinels: addresses.map(split), name: "main" });
  assert.strictEqual((await client.call("ROLE"))[0], "master");
  assert.strictEqual(await client.set("ioredis:sentinel", "1"), "OK");
  client.disconnect();
}

async function load(addresses) {
  let [done, ended, ready] = [0, false, false];
  process.stdin.resume().on("end", () => (ended = true));
  const work = async (number) => {
    const address = split(addresses[number % addresses.length]);
    const client = new Redis({ ...address, maxRetriesPerRequest: 0 });
    for (let count = 1; !ended; count += 1) {
      assert.strictEqual(await client.incr(`ioredis:load:${number}`), count);
      assert.strictEqual(await client.get(`ioredis:load:${number}`), String(count));
      done += 2;
      if (done > 200 && !ready) {
        ready = true;
        console.log("ready");
      }
    }
    client.disconnect();
  };
  await Promise.all(Array.from({ length: 8 }, (_, number) => work(number)));
  console.log("ok", done, "commands");
}

async function main([first, ...rest]) {
  if (first === "load") return load(rest);
  const addresses = [first, ...rest];
  for (const address of addresses) await session(address);
  await throughSentinel(addresses);
  console.log("ok ioredis");
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
