//! Socket options of client and peer connections.
//!
//! Called where connections are taken in. A failure is not an error: a socket without
//! an option works, only less promptly; a socket that is already reset fails all of them.

use std::time::Duration;

use mio::net::TcpStream;
use rustix::net::sockopt;

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
