//! What each command answers, which errors are its own, and what differs from Redis: for people.
//!
//! The part of the manual that the command table's fields don't tell; `docs/COMMANDS.md` is made
//! from both (`tests/commands_page.rs`). A row for every command and subcommand that can be run.
//! Nothing here decides anything.

/// One command's part of the manual. Each is a sentence or a few, or empty.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// As in the table: in lower case, a subcommand's is `container|name`.
    pub name: &'static str,
    /// What it answers.
    pub replies: &'static str,
    /// Errors that are its own: those of arity, of a full store and of an unreachable majority are
    /// told once for all commands.
    pub errors: &'static str,
    /// What differs from Redis.
    pub differs: &'static str,
}

/// The row of a command.
pub fn entry(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

const fn row(
    name: &'static str,
    replies: &'static str,
    errors: &'static str,
    differs: &'static str,
) -> Entry {
    Entry { name, replies, errors, differs }
}

const OK: &str = "`OK`.";
const VALUE: &str = "The value, or nil where there is no such key.";
const INTEGER: &str = "`ERR value is not an integer or out of range`";
const TOO_LONG: &str = "`ERR string exceeds maximum allowed size (proto-max-bulk-len)`";
const EXPIRE: &str = "`ERR invalid expire time in '...' command`, `ERR syntax error`";
const OWN: &str = "Redis doesn't have it.";
const CLUSTER_OFF: &str =
    "`ERR This instance has cluster support disabled`, unless `client.redirect = \"moved\"`";
const ONE_SHARD: &str = "There is one shard: the leader is the master of all slots.";
const SENTINEL: &str =
    "Every node answers it on its client port; the master's name is `cluster.name`.";
const NODE: &str = "It is about the node that is asked, not about the cluster.";

/// All rows, in the order of the table's themes.
#[rustfmt::skip] // A command a line: the page's source is read as a table.
pub const ENTRIES: &[Entry] = &[
    row("set", "`OK`, or nil where a condition doesn't hold; with GET, the old value or nil.", "`ERR syntax error`, `ERR invalid expire time in 'set' command`", "`IFEQ value` is Valkey's; `IFREV revision` sets only where the key has that revision, 0 for \"must not exist\". Where the key is missing, both are nil. With `REV` it answers the revision that the value got, a fencing token, in place of `OK`."),
    row("setnx", "1 if it was set, 0 if there was a key.", "", ""),
    row("setex", OK, EXPIRE, ""),
    row("psetex", OK, EXPIRE, ""),
    row("get", VALUE, "", ""),
    row("mget", "An array: each value, nil for a key that is missing.", "", "All are read at one moment."),
    row("mset", OK, "", "At most 16 MiB in one command."),
    row("msetnx", "1 if all were set, 0 if one of the keys was there and nothing was.", "", ""),
    row("append", "The new length.", TOO_LONG, ""),
    row("strlen", "The length, 0 where there is no such key.", "", ""),
    row("getset", "The old value or nil.", "", ""),
    row("getdel", VALUE, "", ""),
    row("getex", VALUE, EXPIRE, ""),
    row("getrange", "That part of the value; empty where there is none.", INTEGER, ""),
    row("substr", "As GETRANGE.", INTEGER, ""),
    row("setrange", "The new length.", "`ERR offset is out of range`, `ERR string exceeds maximum allowed size (proto-max-bulk-len)`", ""),
    row("setbit", "The bit that was there.", "`ERR bit offset is not an integer or out of range`, `ERR bit is not an integer or out of range`", ""),
    row("getbit", "The bit, 0 behind the end.", "`ERR bit offset is not an integer or out of range`", ""),
    row("bitcount", "How many bits are 1.", INTEGER, ""),
    row("lcs", "The longest common subsequence; with LEN its length; with IDX a map of matches.", "`ERR If you want both the length and indexes, please just use IDX.`, `ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len`", "The table of two long values is bounded."),
    row("incr", "The new value.", "`ERR value is not an integer or out of range`, `ERR increment or decrement would overflow`", "A retry through a fail-over counts once."),
    row("decr", "The new value.", "`ERR value is not an integer or out of range`, `ERR increment or decrement would overflow`", ""),
    row("incrby", "The new value.", "`ERR value is not an integer or out of range`, `ERR increment or decrement would overflow`", ""),
    row("decrby", "The new value.", "`ERR value is not an integer or out of range`, `ERR decrement would overflow`", ""),
    row("incrbyfloat", "The new value as a string.", "`ERR value is not a valid float`, `ERR increment would produce NaN or Infinity`", "It is computed in decimal digits, alike on every node; Redis computes in the processor's long doubles."),
    row("cas", "1 swapped, 0 another value, -1 no such key.", EXPIRE, OWN),
    row("cad", "1 deleted, 0 another value, -1 no such key.", "", OWN),
    row("delifeq", "1 deleted, 0 not.", "", "Valkey's."),
    row("getrev", "An array of value and revision, or nil.", "", OWN),
    row("del", "How many were there.", "", ""),
    row("unlink", "How many were there.", "", "DEL frees no more at once than this does."),
    row("exists", "How many are there; one named twice counts twice.", "", ""),
    row("touch", "How many are there.", "", "When a key was last used is not kept."),
    row("dbsize", "How many keys there are.", "", ""),
    row("flushall", OK, "`ERR syntax error`", "Memory is given back in slices, whether ASYNC or SYNC."),
    row("flushdb", OK, "`ERR syntax error`", "There is one database."),
    row("rename", OK, "`ERR no such key`", ""),
    row("renamenx", "1 renamed, 0 if the new name was there.", "`ERR no such key`", ""),
    row("copy", "1 copied, 0 not.", "`ERR source and destination objects are the same`, `ERR DB index is out of range`", "There is one database."),
    row("keys", "An array of names.", "`ERR too many KEYS over many keys are under way`", "Over many keys it takes several turns, so that no one else waits: a key that comes or goes meanwhile may be listed or not."),
    row("scan", "An array of the next cursor, 0 at the end, and an array of names.", "`ERR invalid cursor`, `ERR syntax error`", "A cursor is good on every node and after a restart. Keys come in an order of their own."),
    row("randomkey", "A name, or nil.", "", ""),
    row("krange", "An array of the store's revision and the keys from `start` up to `end`, without the latter (empty: to the last), in order; with VALUES, each as key, value, revision.", "`ERR the range's reply exceeds ... MiB: use LIMIT`, `ERR syntax error`", OWN),
    row("kdel", "How many were deleted.", "`ERR one KDEL deletes at most ... keys: use LIMIT, and repeat`", OWN),
    row("type", "`string` or `none`.", "", "There is one type."),
    row("object|encoding", "`int`, `embstr` or `raw`, or nil.", "", "It is what Redis would say."),
    row("object|refcount", "1 or nil.", "", "Nothing is shared."),
    row("object|idletime", "", "`ERR when a key was last used is not kept`", "Refused always."),
    row("object|freq", "", "Redis's error where no LFU policy is selected.", "Refused always."),
    row("memory|usage", "Bytes, or nil.", "`ERR syntax error`", "SAMPLES changes nothing."),
    row("memory|doctor", "Text for people.", "", NODE),
    row("memory|stats", "A map of figures.", "", "It has few of Redis's fields."),
    row("expire", "1 set, 0 not.", "`ERR invalid expire time in 'expire' command`, `ERR Unsupported option ...`, `ERR NX and XX, GT or LT options at the same time are not compatible`", "A key expires by the cluster's clock, when an entry of the log says so: on all nodes at the same place of the order, up to a round trip after its deadline."),
    row("pexpire", "1 set, 0 not.", "As EXPIRE.", "As EXPIRE."),
    row("expireat", "1 set, 0 not.", "As EXPIRE.", "As EXPIRE."),
    row("pexpireat", "1 set, 0 not.", "As EXPIRE.", "As EXPIRE."),
    row("ttl", "Seconds; -1 without a deadline, -2 without the key.", "", ""),
    row("pttl", "Milliseconds; -1 without a deadline, -2 without the key.", "", ""),
    row("expiretime", "The deadline as Unix time in seconds; -1, -2 as TTL.", "", ""),
    row("pexpiretime", "The deadline in milliseconds; -1, -2 as TTL.", "", ""),
    row("persist", "1 if there was a deadline, else 0.", "", ""),
    row("multi", OK, "`ERR MULTI calls can not be nested`", ""),
    row("exec", "An array of each command's reply; nil where a watched key has changed.", "`ERR EXEC without MULTI`, `EXECABORT ...`", "A transaction is one entry of the log: all of it is done or nothing, also when nodes die meanwhile."),
    row("discard", OK, "`ERR DISCARD without MULTI`", ""),
    row("watch", OK, "`ERR WATCH inside MULTI is not allowed`", "Keys are watched by revision: setting a key to the value that it has counts as a change."),
    row("unwatch", OK, "", ""),
    row("txn", "`[1, [reply, ...]]` where all compares hold, else `[0, [reply, ...]]`: of the commands behind THEN or ELSE, each with the count of its words.", "`ERR syntax error`, `ERR Command not allowed inside a transaction`, and what is wrong with a command in it: nothing is done then.", OWN),
    row("kwatch", "The revision behind which the changes follow, in RESP2 as arrays: `kwatch`, the prefix, the event (`set`, `append`, `expire`, `persist`, `del`, `expired`, `clear`, `progress`, `compacted`), the revision, and what the event has: key, value, deadline in milliseconds.", "`COMPACTED revision ...`: changes up to there are gone; `CLUSTERDOWN ...`: this node is told nothing, as it was removed or has lost its disk; `ERR too many watches on this node`", "Redis doesn't have it. Every change is told once and in order; `FROM` the last revision that was told goes on, on any node. In RESP2 the connection takes only what subscribers may send, and KUNWATCH."),
    row("kunwatch", "How many watches were ended.", "", OWN),
    row("subscribe", "A message for each channel.", "`ERR too many subscriptions on this node`", "A client that doesn't take its messages is closed at 8 MiB."),
    row("psubscribe", "A message for each pattern.", "`ERR too many subscriptions on this node`", "As SUBSCRIBE."),
    row("unsubscribe", "A message for each channel, or one with nil.", "", ""),
    row("punsubscribe", "A message for each pattern, or one with nil.", "", ""),
    row("publish", "How many subscribers of the node that is asked get it.", "", "It goes through the log: subscribers of every node get all messages in one order."),
    row("pubsub|channels", "An array of channels.", "", NODE),
    row("pubsub|numsub", "An array: each channel, and how many subscribers it has.", "", NODE),
    row("pubsub|numpat", "How many patterns.", "", NODE),
    row("ping", "`PONG`, or the message.", "", "It is answered without a leader: RAFT HEALTH tells whether writes are."),
    row("echo", "The message.", "", ""),
    row("quit", "`OK`, and the connection is closed.", "", ""),
    row("select", OK, "`ERR DB index is out of range`", "There is database 0 alone."),
    row("hello", "A map that describes the server.", "`NOPROTO unsupported protocol version`, `WRONGPASS ...`, `ERR Syntax error in HELLO option '...'`", "There are no passwords: AUTH takes any one for the user `default`."),
    row("auth", OK, "`ERR AUTH <password> called without any password configured for the default user. ...`, `WRONGPASS ...`", "There are no passwords: it answers as Redis without one."),
    row("reset", "`RESET`.", "", "It ends watches, subscriptions and tracking too."),
    row("wait", "How many nodes besides the leader surely have this connection's last write on disk.", "`ERR timeout is not an integer or out of range`, `ERR timeout is negative`", "A write is on the disks of a majority before it is answered, so WAIT is needed for more than that only. On the leader the number is exact; a follower answers the majority that it knows of: after the whole time-out where more is asked, at once where that is 0. It may be sent to any node."),
    row("readonly", "`OK`; this connection reads the node's own state from now on.", "", "Writes stay allowed."),
    row("readwrite", "`OK`; reads are linearizable again.", "", ""),
    row("client|id", "The connection's number.", "", "Numbers are each node's own."),
    row("client|setname", OK, "`ERR Client names cannot contain spaces, newlines or special characters.`", ""),
    row("client|getname", "The name or nil.", "", ""),
    row("client|setinfo", OK, "`ERR Unrecognized option '...'`", ""),
    row("client|info", "The connection's line of CLIENT LIST.", "", ""),
    row("client|list", "A line for each connection.", "`ERR Unknown client type '...'`, `ERR Invalid client ID`", "The clients of the node that is asked, with the fields that mean something here."),
    row("client|kill", "`OK` for an address, else how many were ended.", "`ERR No such client`, `ERR No such user '...'`, `ERR client-id should be greater than 0`", "The clients of the node that is asked. A write that was sent before may be done."),
    row("client|pause", OK, "`ERR timeout is negative`, `ERR CLIENT PAUSE mode must be WRITE or ALL`", "The clients of the node that is asked; keys expire meanwhile. A packet with a write in it is held as a whole."),
    row("client|unpause", OK, "", "During a pause of ALL it is held as well, as in Redis."),
    row("client|reply", "`OK` for ON, nothing for OFF and SKIP.", "`ERR syntax error`", ""),
    row("client|unblock", "1 if the client waited, else 0.", "`ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR`", "What blocks is WAIT alone."),
    row("client|no-evict", OK, "`ERR syntax error`", "Nothing is evicted."),
    row("client|no-touch", OK, "`ERR syntax error`", "When a key was last used is not kept."),
    row("client|getredir", "The number of the client that is told, 0 where it is this one, -1 where nothing is tracked.", "", ""),
    row("client|trackinginfo", "A map of flags, redirection and prefixes.", "", ""),
    row("client|tracking", OK, "`ERR syntax error`, `ERR The client ID you want redirect to does not exist`, and Redis's about options that don't go together", "A node tells its own clients, whoever wrote where. At most 64 prefixes. A snapshot from the leader invalidates everything."),
    row("client|caching", OK, "`ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled`", ""),
    row("client|readmode", OK, "`ERR read mode must be one of linearizable, lease, stale`", OWN),
    row("command", "An array of each command's fields.", "", ""),
    row("command|count", "How many commands there are.", "", ""),
    row("command|info", "An array of each one's fields, nil for what is unknown.", "", ""),
    row("command|docs", "A map from names to documentation.", "", "Arguments in brackets are shown as one."),
    row("command|list", "An array of names.", "`ERR syntax error`", ""),
    row("command|getkeys", "An array of keys.", "`ERR Invalid command specified`, `ERR The command has no key arguments`", ""),
    row("info", "Text in sections.", "", "It has the fields that mean something here, and a section `raft`."),
    row("role", "As Redis: the leader is the master, others are replicas of it.", "", ""),
    row("time", "An array of seconds and microseconds.", "", "It is the cluster's clock, by which keys expire, to the millisecond."),
    row("config|get", "A map of parameters.", "", "It has few of Redis's parameters: those that clients and harnesses ask for."),
    row("config|set", OK, "`ERR Unknown option or number of arguments for CONFIG SET - '...'`, `ERR CONFIG SET failed (possibly related to argument '...') - ...`", "`maxmemory`, `notify-keyspace-events`, `slowlog-log-slower-than`, `slowlog-max-len`, `latency-monitor-threshold`, `timeout` and `maxclients` can change, on the node that is asked and until it ends; `maxclients` not beyond what the node was started with. Others may be set to what they are."),
    row("config|resetstat", OK, "", NODE),
    row("config|rewrite", "", "`ERR node.toml is never written by the server: ...`", "Refused always."),
    row("debug", "Depends on the subcommand: SLEEP, PROTOCOL, ERROR, LOG, SET-ACTIVE-EXPIRE.", "`ERR DEBUG command not allowed. ...`", "Refused unless `client.debug_commands` is on. SLEEP holds this node's clients; consensus goes on. SET-ACTIVE-EXPIRE changes nothing: keys expire by the log."),
    row("shutdown", "None: the connection is closed.", "`ERR No shutdown in progress.`, `ERR syntax error`", "The node hands leadership over, answers what is under way and ends. There is nothing to be saved, so its options change nothing."),
    row("save", "`OK`, once the snapshot is durable.", "`ERR a snapshot at index ... is being taken already`", "It takes a snapshot of this node's state while others are served. No write depends on it."),
    row("bgsave", "`Background saving started`.", "`ERR a snapshot at index ... is being taken already`", "As SAVE, answered at once."),
    row("lastsave", "Unix time of this process's last snapshot, 0 if it took none.", "", ""),
    row("swapdb", OK, "`ERR invalid first DB index`, `ERR DB index is out of range`", "There is database 0 alone."),
    row("move", "", "`ERR DB index is out of range`, `ERR source and destination objects are the same`", "Refused always: there is one database."),
    row("monitor", "`OK`, then a line for each command that is taken: `+1700000000.123000 [0 127.0.0.1:5000] \"SET\" \"a\" \"1\"`.", "", "It shows what the clients of the node that is asked send, when it is taken: before it is decided, so what a transaction has queued is shown at EXEC even where a WATCH lets it do nothing. Who has not taken 8 MiB of it is closed."),
    row("slowlog|get", "An array of entries: number, Unix time, microseconds, arguments, address, name.", "`ERR count should be greater than or equal to -1`", "A command's time is counted from its arrival to its answer, the way to a majority and their disks included. Commands that a node answers by itself are not in it."),
    row("slowlog|len", "How many entries there are.", "", NODE),
    row("slowlog|reset", OK, "", NODE),
    row("latency|latest", "An array: event, Unix time, latest and longest in milliseconds.", "", "There is the event `command` alone."),
    row("latency|history", "An array of pairs: Unix time and milliseconds.", "", "There is the event `command` alone."),
    row("latency|reset", "How many events were forgotten.", "", ""),
    row("latency|doctor", "Text for people.", "", ""),
    row("latency|histogram", "A map from each command that was used to its calls, and to a map of microseconds: how many calls took at most so long.", "", "A command's time is counted from its arrival to its answer, the way to a majority and their disks included. Commands that a node answers by itself are not counted."),
    row("function|flush", OK, "`ERR FUNCTION FLUSH only supports SYNC|ASYNC option`", "There are no functions; it is answered because test harnesses send it."),
    row("function|list", "An empty array.", "", "There are no functions."),
    row("function|stats", "A map.", "", "There are no functions."),
    row("function|kill", "", "`NOTBUSY No scripts in execution right now.`", "There are no functions."),
    row("script|flush", OK, "`ERR SCRIPT FLUSH only support SYNC|ASYNC option`", "There are no scripts."),
    row("script|exists", "An array of zeros.", "", "There are no scripts."),
    row("script|kill", "", "`NOTBUSY No scripts in execution right now.`", "There are no scripts."),
    row("client|capa", OK, "", "Valkey's. With `redirect`, a node that doesn't lead answers `REDIRECT host:port` to this connection's commands on keys; after READONLY, to its writes alone."),
    row("cluster|info", "`name:value` lines.", CLUSTER_OFF, ONE_SHARD),
    row("cluster|myid", "Forty hexadecimal digits.", CLUSTER_OFF, ""),
    row("cluster|nodes", "A line for each member.", CLUSTER_OFF, ONE_SHARD),
    row("cluster|slots", "One range of slots: the leader, then the others.", CLUSTER_OFF, ONE_SHARD),
    row("cluster|shards", "One shard.", CLUSTER_OFF, ONE_SHARD),
    row("cluster|keyslot", "The key's slot.", CLUSTER_OFF, ""),
    row("sentinel|get-master-addr-by-name", "The leader's host and port, or nil.", "", SENTINEL),
    row("sentinel|masters", "An array of one map.", "", SENTINEL),
    row("sentinel|master", "A map.", "`ERR No such master with that name`", SENTINEL),
    row("sentinel|replicas", "An array of maps.", "`ERR No such master with that name`", SENTINEL),
    row("sentinel|slaves", "As SENTINEL REPLICAS.", "`ERR No such master with that name`", SENTINEL),
    row("sentinel|sentinels", "An array of maps.", "`ERR No such master with that name`", SENTINEL),
    row("raft|info", "`name:value` lines.", "", OWN),
    row("raft|nodes", "A line for each member.", "", OWN),
    row("raft|health", "`OK` where this node can serve a linearizable write now.", "`CLUSTERDOWN ...`, `LOADING ...`, `MISCONF ...`: why not.", OWN),
    row("raft|snapshot", "`OK` once it is begun.", "`ERR a snapshot at index ... is being taken already`", OWN),
    row("raft|export", "Pieces of a snapshot's file, for `rkv-cli save`; nil where it is gone.", "", OWN),
    row("raft|add", "`OK` once the member is in the log; with DRYRUN what would be done.", "Why the membership can't change so.", OWN),
    row("raft|remove", "`OK` once it is done; with DRYRUN what would be done.", "Why the membership can't change so.", OWN),
    row("raft|promote", "`OK` once it votes; with DRYRUN what would be done.", "Why the membership can't change so.", OWN),
    row("raft|replace", "`OK` once it is done; with DRYRUN what would be done.", "Why the membership can't change so.", OWN),
    row("raft|move", "`OK` once the address is in the log; with DRYRUN what would be done.", "Why the membership can't change so.", OWN),
    row("raft|transfer", "`OK` once another node leads.", "Why nobody can take over.", OWN),
];
