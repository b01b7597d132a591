"""A session of redis-py with a real cluster: argv is host:port of each node.

Speaks RESP3 (what redis-py 8 asks for by default) and RESP2; prints "ok" at its end. Called by
tests/clients/redis_py.rs.
"""

import sys

import redis


def session(address: str, protocol: int) -> None:
    host, port = address.rsplit(":", 1)
    client = redis.Redis(
        host=host, port=int(port), protocol=protocol, decode_responses=True, socket_timeout=10
    )
    name = f"py:{port}:{protocol}"

    assert client.ping() is True
    assert client.set(f"{name}:a", "1") is True
    assert client.get(f"{name}:a") == "1"
    assert client.get(f"{name}:none") is None
    assert client.set(f"{name}:a", "2", nx=True) is None
    assert client.set(f"{name}:a", "2", xx=True, get=True) == "1"
    assert client.mset({f"{name}:b": "b", f"{name}:c": "c"}) is True
    assert client.mget(f"{name}:b", f"{name}:none", f"{name}:c") == ["b", None, "c"]
    assert client.incr(f"{name}:n") == 1
    assert client.incrby(f"{name}:n", 41) == 42
    assert client.decr(f"{name}:n") == 41
    assert client.append(f"{name}:b", "cd") == 3
    assert client.strlen(f"{name}:b") == 3
    assert client.set(f"{name}:t", "x", ex=100) is True
    assert 98 <= client.ttl(f"{name}:t") <= 100
    assert client.persist(f"{name}:t") is True
    assert client.ttl(f"{name}:t") == -1
    assert client.expire(f"{name}:t", 50) is True
    assert client.exists(f"{name}:a", f"{name}:none") == 1
    assert sorted(client.keys(f"{name}:[bc]")) == [f"{name}:b", f"{name}:c"]
    assert client.execute_command("CAS", f"{name}:a", "2", "3") == 1
    assert client.execute_command("CAS", f"{name}:a", "2", "4") == 0
    value, revision = client.execute_command("GETREV", f"{name}:a")
    assert value == "3" and revision > 0
    assert client.delete(f"{name}:a", f"{name}:none") == 1

    try:
        client.incr(f"{name}:b")
        raise AssertionError("not a number, and no error")
    except redis.ResponseError as error:
        assert str(error) == "value is not an integer or out of range", error
    try:
        client.execute_command("NOSUCH", "a")
        raise AssertionError("no such command, and no error")
    except redis.ResponseError as error:
        assert str(error).startswith("unknown command 'NOSUCH'"), error

    with client.pipeline(transaction=False) as pipeline:
        for number in range(100):
            pipeline.set(f"{name}:p{number}", number)
            pipeline.get(f"{name}:p{number}")
        replies = pipeline.execute()
    assert replies[0::2] == [True] * 100
    assert replies[1::2] == [str(number) for number in range(100)]

    info = client.info()
    assert info["redis_version"] and info["tcp_port"] == int(port), info
    assert client.client_setname("py") is True
    assert client.client_getname() == "py"
    assert any(one["name"] == "py" for one in client.client_list())
    assert client.dbsize() > 100
    assert isinstance(client.execute_command("HELLO"), (dict, list))
    client.close()


for address in sys.argv[1:]:
    for protocol in (3, 2):
        session(address, protocol)
print("ok", redis.__version__)
