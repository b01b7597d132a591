//! Ports that belong to one cluster for as long as it lives.
//!
//! They lie below the range from which the kernel takes the ports of outgoing connections: a killed
//! node's port would otherwise be taken by any client before the node is back. A UDP socket of
//! the same number, held for the cluster's life, keeps other tests off.

use std::net::{TcpListener, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// Reserved ports; they are free again once this is dropped.
pub struct Ports {
    pub numbers: Vec<u16>,
    _reserved: Vec<UdpSocket>,
}

/// Reserves `count` ports on the loopback interface.
pub fn reserve(count: usize) -> Ports {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run side by side begin far apart.
    let start = (process::id() as u16).wrapping_mul(251) % COUNT;
    let mut numbers = Vec::new();
    let mut reserved = Vec::new();
    for _ in 0..COUNT {
        if numbers.len() == count {
            break;
        }
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        let Ok(token) = UdpSocket::bind(("127.0.0.1", port)) else {
            continue;
        };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            numbers.push(port);
            reserved.push(token);
        }
    }
    assert_eq!(numbers.len(), count, "no free ports left");
    Ports { numbers, _reserved: reserved }
}
