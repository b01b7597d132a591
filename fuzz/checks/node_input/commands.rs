//! What clients send: whole commands mostly, and now and then any bytes at all.
//!
//! Everything goes through the real request decoder. Called by `server`.

use super::reader::Reader;

/// Lines that a client may send; each is a command, or nearly.
const LINES: [&str; 40] = [
    "SET a 1",
    "GET a",
    "INCR n",
    "GET n",
    "MSET a 2 b 3 c 4",
    "MGET a b c n",
    "DEL a",
    "CAS a 1 2",
    "CAD a 2",
    "SET a 1 PX 5",
    "SET b x EX 1 NX",
    "PEXPIRE a 3",
    "PERSIST a",
    "TTL a",
    "APPEND b yz",
    "STRLEN b",
    "GETREV a",
    "SET a 9 IFREV 3",
    "SET a 9 IFEQ 1",
    "EXISTS a b",
    "KEYS *",
    "DBSIZE",
    "FLUSHALL",
    "PING",
    "CLIENT READMODE stale",
    "CLIENT READMODE lease",
    "READWRITE",
    "HELLO 3",
    "HELLO 2",
    "INFO",
    "RAFT INFO",
    "RAFT NODES",
    "RAFT HEALTH",
    "CLIENT LIST",
    "ROLE",
    "COMMAND COUNT",
    "INCR b",
    "SET a",
    "NOSUCH a",
    "QUIT",
];

/// Appends what a client sends next.
pub fn write(reader: &mut Reader<'_>, out: &mut Vec<u8>) {
    match reader.byte() {
        255 => out.extend_from_slice(reader.bytes(32)),
        254 => {
            let value = vec![b'v'; 1 << reader.below(13)];
            out.extend_from_slice(
                format!("*3\r\n$3\r\nSET\r\n$1\r\nv\r\n${}\r\n", value.len()).as_bytes(),
            );
            out.extend_from_slice(&value);
            out.extend_from_slice(b"\r\n");
        }
        choice => {
            out.extend_from_slice(LINES[usize::from(choice) % LINES.len()].as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}
