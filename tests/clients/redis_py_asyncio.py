"""redis-py's asyncio client, also through Sentinel: argv is host:port of each node.

As `redis_py_asyncio.py load HOST:PORT ...` it reads and writes through these nodes until its input
ends, and counts what was answered by an error. Prints "ok" at its end. Called by
tests/clients/redis_py.rs.
"""

import asyncio
import sys

import redis.asyncio as redis
from redis.asyncio.sentinel import Sentinel


def client_of(address: str, protocol: int = 3) -> redis.Redis:
    host, port = address.rsplit(":", 1)
    return redis.Redis(
        host=host, port=int(port), protocol=protocol, decode_responses=True, socket_timeout=15
    )


async def session(address: str, protocol: int) -> None:
    client = client_of(address, protocol)
    name = f"aio:{address}:{protocol}"
    assert await client.set(f"{name}:a", "1") is True
    assert await client.get(f"{name}:a") == "1"
    assert await client.set(f"{name}:t", "x", px=100_000) is True
    assert 98_000 < await client.pttl(f"{name}:t") <= 100_000

    # Many at once, over a pool of connections.
    counted = await asyncio.gather(*(client.incr(f"{name}:n") for _ in range(100)))
    assert sorted(counted) == list(range(1, 101))

    async with client.pipeline(transaction=True) as pipeline:
        replies = await pipeline.set(f"{name}:b", "x").append(f"{name}:b", "y").execute()
    assert replies == [True, 2]

    # A WATCH that somebody else's write breaks.
    async with client.pipeline() as pipeline:
        await pipeline.watch(f"{name}:a")
        value = int(await pipeline.get(f"{name}:a"))
        await client.set(f"{name}:a", "7")
        pipeline.multi()
        pipeline.set(f"{name}:a", value + 1)
        try:
            await pipeline.execute()
            raise AssertionError("the watched key has changed")
        except redis.WatchError:
            pass

    # Messages.
    async with client.pubsub() as pubsub:
        await pubsub.subscribe(f"{name}:news")
        assert (await pubsub.get_message(timeout=10))["type"] == "subscribe"
        await client.publish(f"{name}:news", "hello")
        message = await pubsub.get_message(timeout=10)
        assert (message["type"], message["data"]) == ("message", "hello"), message

    # What everybody sends is shown to who monitors.
    async with client.monitor() as monitor:
        await client.get(f"{name}:seen")
        async for shown in monitor.listen():
            if f"{name}:seen" in shown["command"]:
                assert shown["command"].startswith("GET "), shown
                break
    await client.aclose()


async def through_sentinel(addresses: list[str]) -> None:
    nodes = [address.rsplit(":", 1) for address in addresses]
    sentinel = Sentinel([(host, int(port)) for host, port in nodes])
    host, port = await sentinel.discover_master("main")
    assert f"{host}:{port}" in addresses
    master = sentinel.master_for("main", decode_responses=True)
    assert (await master.execute_command("ROLE"))[0] == "master"
    assert await master.set("aio:sentinel", "1") is True
    replica = sentinel.slave_for("main", decode_responses=True)
    assert await replica.get("aio:sentinel") == "1"
    await master.aclose()
    await replica.aclose()


async def load(addresses: list[str]) -> None:
    ended = asyncio.Event()
    done, errors = 0, []

    async def work(number: int) -> None:
        nonlocal done
        client = client_of(addresses[number % len(addresses)])
        count = 0
        while not ended.is_set():
            try:
                count += 1
                assert await client.incr(f"aio:load:{number}") == count
                assert await client.get(f"aio:load:{number}") == str(count)
                done += 2
            except (redis.RedisError, AssertionError) as error:
                errors.append(repr(error))
                return
        await client.aclose()

    async def wait() -> None:
        while done < 200 and not errors:
            await asyncio.sleep(0.01)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        ended.set()

    await asyncio.gather(wait(), *(work(number) for number in range(8)))
    assert not errors, errors
    print("ok", done, "commands")


async def main() -> None:
    if sys.argv[1] == "load":
        return await load(sys.argv[2:])
    for address in sys.argv[1:]:
        for protocol in (3, 2):
            await session(address, protocol)
    await through_sentinel(sys.argv[1:])
    print("ok", redis.__name__)


asyncio.run(main())
