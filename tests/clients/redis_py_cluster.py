"""redis-py's cluster and Sentinel modes: each finds the leader, also after it has changed.

Arguments: every node's client address, as host:port. The leader is asked to hand over once.
"""

import sys
import time

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.sentinel import Sentinel

addresses = [address.rsplit(":", 1) for address in sys.argv[1:]]
addresses = [(host, int(port)) for host, port in addresses]


def leader():
    for host, port in addresses:
        client = redis.Redis(host=host, port=port)
        if client.role()[0] == b"master":
            return (host, port)
    raise AssertionError("nobody leads")


def eventually(check):
    for _ in range(200):
        try:
            return check()
        except (AssertionError, redis.RedisError):
            time.sleep(0.05)
    return check()


def cluster_session():
    nodes = [ClusterNode(host, port) for host, port in addresses]
    client = RedisCluster(startup_nodes=nodes, decode_responses=True)
    assert client.set("cluster:a", "1") is True
    assert client.get("cluster:a") == "1"
    assert client.cluster_keyslot("foo") == 12182
    primary = client.get_primaries()
    assert [(node.host, node.port) for node in primary] == [leader()], primary
    assert len(client.get_replicas()) == len(addresses) - 1
    with client.pipeline() as pipeline:
        for number in range(100):
            pipeline.set(f"cluster:{number}", number)
        assert pipeline.execute() == [True] * 100
    # A node that doesn't lead sends who doesn't follow the map to the one that does.
    other = next(address for address in addresses if address != leader())
    try:
        redis.Redis(host=other[0], port=other[1]).set("foo", "1")
        raise AssertionError("a follower has served")
    except redis.exceptions.MovedError as moved:
        assert (moved.host, moved.port, moved.slot_id) == (*leader(), 12182), moved
    return client


def sentinel_session():
    sentinel = Sentinel(addresses)
    host, port = sentinel.discover_master("main")
    assert (host, port) == leader(), (host, port)
    assert len(sentinel.discover_slaves("main")) == len(addresses) - 1
    master = sentinel.master_for("main", decode_responses=True)
    assert master.set("sentinel:a", "2") is True
    return master


client, master = cluster_session(), sentinel_session()
before = leader()
redis.Redis(host=before[0], port=before[1]).execute_command("RAFT", "TRANSFER")


def changed():
    assert leader() != before


eventually(changed)
# Both find the new leader by themselves.
assert eventually(lambda: client.set("cluster:a", "3")) is True
# A connection through Sentinel stays where it is until it is made anew: a node whose clients are
# sent on tells it so.
master.connection_pool.disconnect()
assert eventually(lambda: master.get("cluster:a")) == "3"
assert client.get("sentinel:a") == "2"
print("ok", redis.__version__)
