"""What bench/run measures, and what is aimed at: ratios of ours to each peer, in one run."""

# Name, and what rkv-bench is told. The rows of one size of values stand together: a server's keys
# are filled anew where the size changes.
ROWS = [
    ("SET, 1 client", ["-w", "set", "--clients", "1"]),
    ("SET, 50 clients", ["-w", "set", "--clients", "50"]),
    ("SET, 256 clients", ["-w", "set", "--clients", "256"]),
    ("SET, 50 clients, pipeline 16", ["-w", "set", "--clients", "50", "-P", "16"]),
    ("SET, 50 clients, pipeline 64", ["-w", "set", "--clients", "50", "-P", "64"]),
    ("GET, 50 clients", ["-w", "get", "--clients", "50"]),
    ("GET, 256 clients", ["-w", "get", "--clients", "256"]),
    ("GET, 50 clients, pipeline 16", ["-w", "get", "--clients", "50", "-P", "16"]),
    ("SET 1 KiB, 50 clients", ["-w", "set", "--clients", "50", "--value-bytes", "1024"]),
    (
        "SET 1 KiB, 50 clients, pipeline 16",
        ["-w", "set", "--clients", "50", "-P", "16", "--value-bytes", "1024"],
    ),
]

# For the plot of throughput against clients.
CLIENTS = [1, 4, 16, 64, 256]

ETCD, REDISRAFT = "etcd, 3 nodes", "RedisRaft, 3 nodes, log fsync"
REDIS, PLAIN = "Redis, 1 node, appendfsync always", "Redis, 1 node, keeps nothing"

# What takes long and nothing is aimed at: etcd has no pipelines, and its rows would take a third of
# the time of all.
LEFT_OUT = {
    "GET, 50 clients, pipeline 16": [ETCD],
    "SET 1 KiB, 50 clients": [ETCD],
    "SET 1 KiB, 50 clients, pipeline 16": [ETCD],
}

# Row, figure, and for each peer what ours is to be of theirs: at least (of a rate) or at most (of
# anything else). The figures of the last three are measured apart from the rows.
TARGETS = [
    ("SET, 1 client", "p50", {ETCD: 0.33, REDISRAFT: 0.62, REDIS: 1.5}),
    ("SET, 50 clients", "per_second", {ETCD: 4.5, REDISRAFT: 1.65, REDIS: 0.68}),
    ("SET, 256 clients", "per_second", {ETCD: 5, REDISRAFT: 1.65, REDIS: 0.78}),
    ("SET, 50 clients, pipeline 16", "per_second", {ETCD: 17, REDISRAFT: 12, REDIS: 1.25}),
    ("SET, 50 clients, pipeline 64", "per_second", {ETCD: 17, REDISRAFT: 20, REDIS: 1.6}),
    ("SET 1 KiB, 50 clients", "per_second", {REDISRAFT: 3.5, REDIS: 0.95}),
    ("SET 1 KiB, 50 clients, pipeline 16", "per_second", {REDISRAFT: 20, REDIS: 1.8}),
    ("GET, 50 clients", "per_second", {ETCD: 6, REDISRAFT: 1.4, REDIS: 0.85}),
    ("GET, 50 clients, pipeline 16", "per_second", {REDISRAFT: 6, REDIS: 0.8}),
    ("SET, 256 clients", "p99", {ETCD: 0.2, REDISRAFT: 0.7, REDIS: 1.5}),
    ("memory", "mib", {ETCD: 0.3, REDISRAFT: 0.6, PLAIN: 0.75}),
    ("restart", "seconds", {ETCD: 0.1, REDISRAFT: 0.25}),
    ("failover", "median_ms", {ETCD: 0.04, REDISRAFT: 0.04}),
]

# How a figure is called in the table of targets.
FIGURES = {
    "per_second": "commands a second",
    "p50": "p50",
    "p99": "p99",
    "mib": "resident memory",
    "seconds": "seconds",
    "median_ms": "ms to the next write",
}
