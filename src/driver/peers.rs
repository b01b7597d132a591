//! What a connection between servers says, when one is dialled, and which of two gives way.
//!
//! Design pages 1 §4 and 4 §5. Checks what can be checked without the node (frames, checksums, the
//! order hello before messages). Called by `loop/` and `sim/`. Judges no hello; holds no connection.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::limits;
use crate::proto::frame::{FrameDecoder, FrameError, FrameKind};
use crate::proto::hello::{Hello, HelloError, HelloRefused};
use crate::proto::message::Packet;
use crate::proto::peer_message::{self, PeerError};
use crate::types::{Instant, ServerId};

/// What a peer said, in the order it came.
#[derive(Debug)]
pub enum News {
    /// Its first frame.
    Hello(Hello),
    /// It does not accept ours.
    Refused(HelloRefused),
    /// A message.
    Packet(Packet),
}

/// Why a peer's bytes make no sense.
#[derive(Debug)]
pub enum Nonsense {
    /// They are no frames.
    Frame(FrameError),
    /// The first frame cannot be read as what it says it is.
    Hello(HelloError),
    /// A message cannot be read.
    Message(PeerError),
    /// A frame that has no place here, by its kind.
    Misplaced(FrameKind),
}

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nonsense::Frame(error) => write!(f, "{error}"),
            Nonsense::Hello(error) => write!(f, "{error}"),
            Nonsense::Message(error) => write!(f, "{error}"),
            Nonsense::Misplaced(kind) => write!(f, "a {kind:?} frame out of its place"),
        }
    }
}

/// The decoder's state of one connection with a peer.
#[derive(Debug)]
pub struct Hearing {
    frames: FrameDecoder,
    /// The other side's hello has come; whether it is acceptable is not said by this.
    greeted: bool,
}

impl Hearing {
    /// Of a connection on which nothing has come.
    pub fn new() -> Hearing {
        Hearing { frames: FrameDecoder::new(), greeted: false }
    }

    /// Of one whose hello has come; the next byte is the preface.
    pub fn greeted() -> Hearing {
        Hearing { greeted: true, ..Hearing::new() }
    }

    /// Takes the connection's next bytes, and appends what they say to `news`.
    ///
    /// # Errors
    /// They make no sense; what came before that was said all the same.
    pub fn receive(&mut self, mut bytes: &[u8], news: &mut Vec<News>) -> Result<(), Nonsense> {
        while let Some(frame) = self.frames.decode(&mut bytes).map_err(Nonsense::Frame)? {
            match (frame.kind, self.greeted) {
                (FrameKind::Hello, false) => {
                    let hello = Hello::decode(frame.payload).map_err(Nonsense::Hello)?;
                    self.greeted = true;
                    news.push(News::Hello(hello));
                }
                (FrameKind::HelloRefused, _) => {
                    let refused = HelloRefused::decode(frame.payload).map_err(Nonsense::Hello)?;
                    news.push(News::Refused(refused));
                }
                (FrameKind::Peer, true) => {
                    // The one copy: all entries of the message share it, in memory and on disk.
                    let payload = Bytes::copy_from_slice(frame.payload);
                    let packet = peer_message::decode(&payload).map_err(Nonsense::Message)?;
                    news.push(News::Packet(packet));
                }
                (kind, _) => return Err(Nonsense::Misplaced(kind)),
            }
        }
        Ok(())
    }
}

impl Default for Hearing {
    fn default() -> Hearing {
        Hearing::new()
    }
}

/// When a peer that is to be dialled from now on is dialled first. As a rule the smaller id dials;
/// the larger one waits, so that the two don't meet halfway.
pub fn first_dial(own: ServerId, peer: ServerId, now: Instant) -> Instant {
    if own < peer { now } else { now.after(limits::DIAL_BY_LARGER) }
}

/// How long to wait with the next attempt behind `failures` that failed: soon at first, more seldom
/// while it goes on failing. The clock's last digits are chance enough to keep two servers from
/// calling in step. `is_stranger`: the last one was ended because one is no member for the other.
pub fn dial_pause(failures: u32, is_stranger: bool, now: Instant) -> Duration {
    let pause = limits::DIAL_RETRY_MIN * (1 << failures.min(8));
    let pause = match is_stranger {
        true => limits::DIAL_RETRY_STRANGER,
        false => pause.min(limits::DIAL_RETRY_MAX),
    };
    pause + pause * (now.0 % 256) as u32 / 1024
}

/// Whether a new connection with `peer` gives way to one that stands (`older_dialled`, if there is
/// one: whether this server has dialled it). Where both have dialled, the smaller id's connection is
/// kept, so that both keep the same one. To a process that is not known yet (`is_news`) it never
/// does: the older connection is that of a process that is no more.
pub fn gives_way(
    own: ServerId,
    peer: ServerId,
    is_news: bool,
    dialled: bool,
    older_dialled: Option<bool>,
) -> bool {
    let by_smaller = |dialled: bool| dialled == (own < peer);
    !is_news && older_dialled.is_some_and(by_smaller) && !by_smaller(dialled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: ServerId = ServerId(1);
    const LARGE: ServerId = ServerId(2);

    #[test]
    fn gives_way_keeps_the_connection_of_the_smaller_id_at_both_ends() {
        // The smaller one has dialled the older one, and the larger one the newer.
        assert!(gives_way(SMALL, LARGE, false, false, Some(true)));
        assert!(gives_way(LARGE, SMALL, false, true, Some(false)));
        // The other way round the newer one is kept.
        assert!(!gives_way(SMALL, LARGE, false, true, Some(false)));
        assert!(!gives_way(LARGE, SMALL, false, false, Some(true)));
        // One of the same kind takes the older one's place.
        assert!(!gives_way(SMALL, LARGE, false, true, Some(true)));
        assert!(!gives_way(SMALL, LARGE, false, false, None));
    }

    #[test]
    fn gives_way_never_where_the_process_at_the_other_end_is_another() {
        assert!(!gives_way(SMALL, LARGE, true, false, Some(true)));
        assert!(!gives_way(LARGE, SMALL, true, true, Some(false)));
    }

    #[test]
    fn dial_pause_grows_to_its_bound() {
        let now = Instant(512);
        assert_eq!(dial_pause(0, false, now), limits::DIAL_RETRY_MIN);
        assert_eq!(dial_pause(1, false, now), 2 * limits::DIAL_RETRY_MIN);
        assert_eq!(dial_pause(u32::MAX, false, now), limits::DIAL_RETRY_MAX);
        assert_eq!(dial_pause(0, true, now), limits::DIAL_RETRY_STRANGER);
    }
}
