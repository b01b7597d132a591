//! Socket options, and the process's limit on descriptors.
//!
//! What is set here is what std and mio don't offer. A failure is not an error: a socket without
//! an option works, only less promptly; a socket that is already reset fails all of them.

use std::time::Duration;

use mio::net::TcpStream;
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits;

/// Redis's `tcp-keepalive`: a client whose host is gone is found out in some minutes.
const CLIENT_KEEPALIVE: Duration = Duration::from_secs(300);

/// No waiting for more to send; a client whose host is gone is found out.
pub(super) fn tune_client(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, CLIENT_KEEPALIVE);
    let _ = sockopt::set_tcp_keepintvl(stream, CLIENT_KEEPALIVE / 3);
}

/// No waiting for more to send; silence of the other host ends the connection in seconds.
pub(super) fn tune_peer(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_tcp_user_timeout(stream, limits::PEER_SILENCE.as_millis() as u32);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, limits::PEER_SILENCE);
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1));
}

/// Raises the soft limit on open descriptors as far as the operator allows: the usual 1,024 is
/// fewer than the clients that are allowed.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_err() {
        log::warn!("the limit on open files stays at {:?}", limit.current);
    }
}
