//! The command table: every row is found, agrees with itself, and keeps its code in the log.

use raftkv::kv::command::{Flags, Handler, NEVER_LOGGED, all, by_code, lookup, resolve};
use raftkv::kv::error::CommandError;
use raftkv::limits;
use raftkv::proto::args::{Args, push_arg};

#[test]
fn lookup_finds_every_command_in_any_case() {
    for row in all() {
        let found = lookup(row.name.to_ascii_uppercase().as_bytes()).expect(row.name);
        assert!(std::ptr::eq(found, row));
    }
    assert!(lookup(b"").is_none());
    assert!(lookup(b"gett").is_none());
    assert!(lookup(&[b'x'; 1000]).is_none());
}

#[test]
fn by_code_finds_what_is_logged_and_nothing_else() {
    for row in all().filter(|row| row.code != NEVER_LOGGED) {
        assert!(std::ptr::eq(by_code(row.code).expect(row.name), row));
    }
    for code in [NEVER_LOGGED, 17, 127, 128, u16::MAX] {
        assert!(by_code(code).is_none(), "{code}");
    }
}

/// A code in a log must mean the same to every version: this list only ever grows.
#[test]
fn codes_stay_as_they_are() {
    let codes: Vec<_> = (0..1000)
        .filter_map(|code| by_code(code).map(|row| format!("{code} {}", row.name)))
        .collect();
    let expected = "1 set, 2 get, 3 del, 4 exists, 5 mget, 6 mset, 7 setnx, 8 append, 9 incr, \
                    10 decr, 11 incrby, 12 decrby, 13 cas, 14 cad, 15 getrev, 16 strlen, \
                    18 expire, 19 pexpire, 20 ttl, 21 pttl, 22 persist, 23 dbsize, 24 keys, \
                    25 flushall, 26 getset, 27 getdel, 28 getex, 29 getrange, 30 substr, \
                    31 setrange, 32 setbit, 33 getbit, 34 bitcount, 35 lcs, 36 scan, \
                    37 randomkey, 38 krange, 39 kdel, 40 rename, 41 renamenx, 42 copy, 43 type, \
                    44 object|encoding, 45 object|refcount, 46 memory|usage, 47 unlink, 48 touch, \
                    49 flushdb, 50 expireat, 51 pexpireat, 52 expiretime, 53 pexpiretime, \
                    54 delifeq, 55 setex, 56 psetex, 57 msetnx, 58 incrbyfloat, 59 object|idletime, \
                    60 object|freq, 61 exec|reads, 62 exec|writes, 63 exec|grows, 80 publish, \
                    81 txn, 90 session|open, 91 session|close, 92 session|writes, \
                    93 session|grows, 95 lease|grant, 96 lease|keepalive, 97 lease|revoke, \
                    98 lease|ttl, 99 lease|list";
    assert_eq!(codes.join(", "), expected);
}

#[test]
fn rows_agree_with_their_handlers() {
    let rows = all().flat_map(|row| std::iter::once(row).chain(row.subcommands));
    for row in rows {
        let (writes, reads) = match row.handler {
            Handler::Write { .. } => (true, false),
            Handler::Read { .. } => (false, true),
            Handler::Connection { .. } | Handler::Container => (false, false),
        };
        assert_eq!(row.flags.contains(Flags::WRITE), writes, "{}", row.name);
        assert_eq!(row.flags.contains(Flags::READONLY), reads, "{}", row.name);
        assert!(!row.grows() || row.is_write(), "{}", row.name);
        assert_eq!(row.name, row.name.to_ascii_lowercase());
        assert!(!row.summary.is_empty(), "{}", row.name);
        assert_eq!(row.keys.first == 0, row.keys.access.is_empty(), "{}", row.name);
        assert!(row.takes(row.arity.unsigned_abs() as usize), "{}", row.name);
        assert!(!row.takes(0), "{}", row.name);
    }
}

#[test]
fn resolve_refuses_a_key_over_its_limit_wherever_it_stands() {
    let long = vec![b'k'; limits::KEY_BYTES + 1];
    let longest = &long[1..];
    let resolved = |words: &[&[u8]]| {
        let mut bytes = Vec::new();
        for word in words {
            push_arg(&mut bytes, word);
        }
        resolve(Args::new(words.len() as u32, &bytes)).map(|row| row.name)
    };
    assert_eq!(resolved(&[b"GET", &long]), Err(CommandError::KeyTooLong));
    assert_eq!(resolved(&[b"DEL", b"a", &long]), Err(CommandError::KeyTooLong));
    assert_eq!(resolved(&[b"MSET", b"a", b"1", &long, b"2"]), Err(CommandError::KeyTooLong));
    assert_eq!(resolved(&[b"MSET", b"a", &long, b"b", b"2"]), Ok("mset"));
    assert_eq!(resolved(&[b"SET", longest, &long]), Ok("set"));
}
