//! peer_message
