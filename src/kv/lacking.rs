//! Commands of Redis for what raftkv does not have: other types of values, and scripts.
//!
//! They are answered like unknown commands, and with what would help: which kind of store this is.
//! Redis 7.0's command list is the source. Called by `error.rs` alone.

/// Commands on values that are no strings, in the order of their names.
#[rustfmt::skip] // One line for each would hide the file's point.
const TYPES: [&str; 122] = [
    "blmove", "blmpop", "blpop", "brpop", "brpoplpush", "bzmpop", "bzpopmax", "bzpopmin",
    "geoadd", "geodist", "geohash", "geopos", "georadius", "georadius_ro", "georadiusbymember",
    "georadiusbymember_ro", "geosearch", "geosearchstore", "hdel", "hexists", "hget", "hgetall",
    "hincrby", "hincrbyfloat", "hkeys", "hlen", "hmget", "hmset", "hrandfield", "hscan", "hset",
    "hsetnx", "hstrlen", "hvals", "lindex", "linsert", "llen", "lmove", "lmpop", "lpop", "lpos",
    "lpush", "lpushx", "lrange", "lrem", "lset", "ltrim", "pfadd", "pfcount", "pfdebug",
    "pfmerge", "pfselftest", "rpop", "rpoplpush", "rpush", "rpushx", "sadd", "scard", "sdiff",
    "sdiffstore", "sinter", "sintercard", "sinterstore", "sismember", "smembers", "smismember",
    "smove", "sort", "sort_ro", "spop", "srandmember", "srem", "sscan", "sunion", "sunionstore",
    "xack", "xadd", "xautoclaim", "xclaim", "xdel", "xgroup", "xinfo", "xlen", "xpending",
    "xrange", "xread", "xreadgroup", "xrevrange", "xsetid", "xtrim", "zadd", "zcard", "zcount",
    "zdiff", "zdiffstore", "zincrby", "zinter", "zintercard", "zinterstore", "zlexcount", "zmpop",
    "zmscore", "zpopmax", "zpopmin", "zrandmember", "zrange", "zrangebylex", "zrangebyscore",
    "zrangestore", "zrank", "zrem", "zremrangebylex", "zremrangebyrank", "zremrangebyscore",
    "zrevrange", "zrevrangebylex", "zrevrangebyscore", "zrevrank", "zscan", "zscore", "zunion",
    "zunionstore",
];

/// Commands that run scripts, likewise.
const SCRIPTS: [&str; 6] = ["eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"];

/// What is said behind the error for an unknown command.
pub(super) fn hint(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    if TYPES.binary_search(&name.as_str()).is_ok() {
        "; raftkv stores strings, and no other type"
    } else if SCRIPTS.binary_search(&name.as_str()).is_ok() {
        "; raftkv runs no scripts: see MULTI, CAS and SET's IFEQ"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::command::lookup;

    #[test]
    fn hint_names_what_is_lacking_and_nothing_that_is_there() {
        assert!(TYPES.is_sorted() && SCRIPTS.is_sorted(), "they are searched by halves");
        assert_eq!(hint("LPush"), "; raftkv stores strings, and no other type");
        assert!(hint("EVALSHA").contains("no scripts"));
        assert_eq!(hint("gett"), "");
        for name in TYPES.iter().chain(&SCRIPTS) {
            assert!(lookup(name.as_bytes()).is_none(), "{name} is a command");
        }
    }
}
