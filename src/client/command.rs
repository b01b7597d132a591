//! Commands as a client sees them: their encoding, and which of them may be sent twice.
//!
//! Called by the connection and the fail-over beside it, and by `rkv-bench`.

/// Appends one command in RESP: an array of bulks.
pub fn encode_command(args: &[impl AsRef<[u8]>], out: &mut Vec<u8>) {
    push_header(b'*', args.len(), out);
    for arg in args {
        let arg = arg.as_ref();
        push_header(b'$', arg.len(), out);
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Without `format!`: `rkv-bench` measures servers, not this.
fn push_header(kind: u8, mut number: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(&digits[start..]);
    out.extend_from_slice(b"\r\n");
}

/// Commands that change nothing but their own connection, so that sending them twice does no harm.
const REPEATABLE: [&str; 29] = [
    "COMMAND",
    "DBSIZE",
    "ECHO",
    "EXISTS",
    "EXPIRETIME",
    "GET",
    "GETRANGE",
    "GETREV",
    "HELLO",
    "INFO",
    "KEYS",
    "LASTSAVE",
    "MGET",
    "OBJECT",
    "PEXPIRETIME",
    "PING",
    "PTTL",
    "RANDOMKEY",
    "READONLY",
    "READWRITE",
    "ROLE",
    "SCAN",
    "SELECT",
    "STRLEN",
    "SUBSTR",
    "TIME",
    "TTL",
    "TYPE",
    "AUTH",
];

/// The same, told apart by their second word.
const REPEATABLE_PAIRS: [(&str, &str); 12] = [
    ("CLIENT", "GETNAME"),
    ("CLIENT", "ID"),
    ("CLIENT", "INFO"),
    ("CLIENT", "LIST"),
    ("CLIENT", "READMODE"),
    ("CLIENT", "SETINFO"),
    ("CLIENT", "SETNAME"),
    ("CONFIG", "GET"),
    ("RAFT", "DIGEST"),
    ("RAFT", "HEALTH"),
    ("RAFT", "INFO"),
    ("RAFT", "NODES"),
];

/// Whether a command may be sent again when it is not known whether it was done. An unknown
/// command may not.
pub fn is_repeatable(args: &[impl AsRef<[u8]>]) -> bool {
    let word = |place: usize, expected: &str| {
        args.get(place).is_some_and(|arg| arg.as_ref().eq_ignore_ascii_case(expected.as_bytes()))
    };
    REPEATABLE.iter().any(|name| word(0, name))
        || REPEATABLE_PAIRS.iter().any(|(name, second)| word(0, name) && word(1, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encode_command_writes_an_array_of_bulks() {
        let mut out = Vec::new();
        encode_command(&["SET", "k", "a value of 21 bytes.."], &mut out);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$21\r\na value of 21 bytes..\r\n");
        out.clear();
        encode_command(&[""], &mut out);
        assert_eq!(out, b"*1\r\n$0\r\n\r\n");
    }

    #[test]
    fn is_repeatable_tells_reads_from_all_else() {
        assert!(is_repeatable(&["get", "a"]));
        assert!(is_repeatable(&["Raft", "nodes"]));
        assert!(!is_repeatable(&["SET", "a", "1"]));
        assert!(!is_repeatable(&["RAFT", "REMOVE", "1"]));
        assert!(!is_repeatable(&["RAFT"]));
        assert!(!is_repeatable(&["GETSET", "a", "1"]));
        assert!(!is_repeatable(&[] as &[&str]));
    }
}
