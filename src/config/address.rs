//! `host:port`, as node.toml writes addresses.
//!
//! Called by `check`, and for RAFT ADD and its like. Looks at the text only: whether a name
//! resolves is found out when it is bound or connected to, because it may come to resolve later.

use crate::limits;

/// What is wrong with an address, or nothing.
pub fn problem(address: &str) -> Option<String> {
    const RIGHT: &str = "expected host:port, such as \"10.0.0.1:7101\"";
    if address.len() > limits::ADDRESS_BYTES {
        return Some(format!("it is longer than {} bytes; {RIGHT}", limits::ADDRESS_BYTES));
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return Some(format!("{address:?} has no port; {RIGHT}"));
    };
    if !host_is_plausible(host) {
        return Some(format!("{address:?} has no valid host; {RIGHT}"));
    }
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if digits && number > 0 => None,
        _ => Some(format!("{address:?} has no port from 1 to 65535; {RIGHT}")),
    }
}

/// A name or an IPv4 address as it is, an IPv6 address in brackets.
fn host_is_plausible(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty() && host.bytes().all(allowed)
}
