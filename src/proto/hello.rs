//! The hello: who speaks, to whom, and in which version (design pages 1 §4 and 4 §5).
//!
//! The payload of a connection's first frame in each direction. Called by `loop/` for peers and
//! framed clients, and by `client/`. It says what was sent; whether that is acceptable is its
//! caller's to judge.

use std::error::Error;
use std::fmt;

use crate::limits;
use crate::types::{Boot, CommandSet, Incarnation, Lineage, LogIndex, Nonce, ServerId};

/// The version of what is exchanged behind the hello.
pub const PROTOCOL_VERSION: u16 = 1;

/// What the sender of a hello is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Role {
    /// A server; [`FrameKind::Peer`](super::frame::FrameKind::Peer) frames follow.
    Peer = 1,
    /// A client, or the server that answers one.
    Client = 2,
}

impl Role {
    fn from_code(code: u8) -> Option<Role> {
        match code {
            1 => Some(Role::Peer),
            2 => Some(Role::Client),
            _ => None,
        }
    }
}

/// Who speaks, and to whom it believes to speak.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// What the connection is for.
    pub role: Role,
    /// The cluster's name, at most [`limits::CLUSTER_NAME_BYTES`]. A client may leave it empty:
    /// any cluster.
    pub cluster: String,
    /// The sender's id; 0 for a client.
    pub sender: ServerId,
    /// Whom the sender means to reach; 0 if it does not know.
    pub receiver: ServerId,
    /// The sender's data directory; 0 for a client.
    pub sender_incarnation: Incarnation,
    /// The receiver's data directory as the sender knows it; 0 if it does not know.
    pub receiver_incarnation: Incarnation,
    /// How often the sender's data directory was started; 0 for a client.
    pub boot: Boot,
    /// A random number of the sender's process; 0 for a client.
    pub nonce: Nonce,
    /// The index of the newest membership in the sender's log, committed or not; 0 if it has none.
    /// Who was away for long tells by it whether a stranger is a newer member.
    pub membership_index: LogIndex,
    /// Which of the clusters of that name the sender's data is of.
    pub lineage: Lineage,
    /// Whether the sender has no data: it takes over the lineage of whoever admits it.
    pub is_blank: bool,
    /// The newest version of the command set that the sender knows; a client's says nothing.
    pub command_set: CommandSet,
}

/// Why a payload is no hello. Always its sender's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HelloError {
    /// Another version than [`PROTOCOL_VERSION`]; nothing behind the number was looked at.
    Version(u16),
    /// It ends too early.
    Truncated,
    /// Bytes follow behind its end.
    TrailingBytes,
    /// A flag that is neither set nor clear.
    BadFlag,
    /// No role has this code.
    UnknownRole(u8),
    /// The cluster's name or the explanation is longer than its bound.
    TextTooLong,
    /// The cluster's name or the explanation is not UTF-8.
    TextNotUtf8,
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HelloError::Version(version) => {
                write!(f, "protocol version {version}, expected {PROTOCOL_VERSION}")
            }
            HelloError::Truncated => write!(f, "a hello that ends too early"),
            HelloError::TrailingBytes => write!(f, "bytes behind the end of a hello"),
            HelloError::BadFlag => write!(f, "a hello with a flag that is neither 0 nor 1"),
            HelloError::UnknownRole(code) => write!(f, "a hello of unknown role {code}"),
            HelloError::TextTooLong => write!(f, "a hello whose text is too long"),
            HelloError::TextNotUtf8 => write!(f, "a hello whose text is not UTF-8"),
        }
    }
}

impl Error for HelloError {}

impl Hello {
    /// What a client says: any cluster, any server.
    pub fn client() -> Hello {
        Hello {
            role: Role::Client,
            cluster: String::new(),
            sender: ServerId::ZERO,
            receiver: ServerId::ZERO,
            sender_incarnation: Incarnation::ZERO,
            receiver_incarnation: Incarnation::ZERO,
            boot: Boot::ZERO,
            nonce: Nonce::ZERO,
            membership_index: LogIndex::ZERO,
            lineage: Lineage::ZERO,
            is_blank: false,
            command_set: CommandSet::FIRST,
        }
    }

    /// Appends the payload, [`PROTOCOL_VERSION`] first.
    ///
    /// # Panics
    ///
    /// If the cluster's name is over its bound, which the configuration checks.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.cluster.len() <= limits::CLUSTER_NAME_BYTES, "checked by the configuration");
        out.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        out.push(self.role as u8);
        for number in [
            self.sender.0,
            self.receiver.0,
            self.sender_incarnation.0,
            self.receiver_incarnation.0,
            self.boot.0,
            self.nonce.0,
            self.membership_index.0,
            self.lineage.0,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::from(self.is_blank));
        out.extend_from_slice(&self.command_set.0.to_le_bytes());
        push_text(&self.cluster, out);
    }

    /// Reads a payload. The version is looked at first, so that a hello of another version is told
    /// as that, whatever else it holds.
    pub fn decode(mut payload: &[u8]) -> Result<Hello, HelloError> {
        let input = &mut payload;
        let version = u16::from_le_bytes(take(input)?);
        if version != PROTOCOL_VERSION {
            return Err(HelloError::Version(version));
        }
        let [code] = take(input)?;
        let role = Role::from_code(code).ok_or(HelloError::UnknownRole(code))?;
        let sender = ServerId(take_u64(input)?);
        let receiver = ServerId(take_u64(input)?);
        let sender_incarnation = Incarnation(take_u64(input)?);
        let receiver_incarnation = Incarnation(take_u64(input)?);
        let boot = Boot(take_u64(input)?);
        let nonce = Nonce(take_u64(input)?);
        let membership_index = LogIndex(take_u64(input)?);
        let lineage = Lineage(take_u64(input)?);
        let is_blank = match take(input)? {
            [0] => false,
            [1] => true,
            [_] => return Err(HelloError::BadFlag),
        };
        let command_set = CommandSet(u32::from_le_bytes(take(input)?));
        let cluster = take_text(input, limits::CLUSTER_NAME_BYTES)?;
        Ok(Hello {
            role,
            cluster,
            sender,
            receiver,
            sender_incarnation,
            receiver_incarnation,
            boot,
            nonce,
            membership_index,
            lineage,
            is_blank,
            command_set,
        })
    }
}

/// What is wrong with a hello, as its receiver judges. The number is its code on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Refusal {
    /// A reason that this version does not know; the text says it.
    Unknown = 0,
    /// It could not be read, or was not the first frame.
    Malformed = 1,
    /// Another frame or protocol version.
    Version = 2,
    /// Another cluster's name.
    Cluster = 3,
    /// It was meant for another server.
    Receiver = 4,
    /// It was meant for another data directory of this server.
    ReceiverIncarnation = 5,
    /// The sender is no member.
    Sender = 6,
    /// The sender's id is a member's, on another data directory.
    LostDisk = 7,
    /// A client on the peers' port, or a peer on the clients'.
    Role = 8,
    /// The sender is an old copy of its data directory: a later process of that one has been met
    /// (a higher boot, or the same with another nonce).
    OldCopy = 9,
    /// Both have data, of two clusters with one name: a restore, or the recovery of a lost quorum,
    /// lies between them.
    Lineage = 10,
    /// The receiver has no room to remember the sender's process; later it may have.
    DiskFull = 11,
    /// The sender's build doesn't know the version of the command set that is in force.
    CommandSet = 12,
}

impl Refusal {
    fn from_code(code: u8) -> Refusal {
        match code {
            1 => Refusal::Malformed,
            2 => Refusal::Version,
            3 => Refusal::Cluster,
            4 => Refusal::Receiver,
            5 => Refusal::ReceiverIncarnation,
            6 => Refusal::Sender,
            7 => Refusal::LostDisk,
            8 => Refusal::Role,
            9 => Refusal::OldCopy,
            10 => Refusal::Lineage,
            11 => Refusal::DiskFull,
            12 => Refusal::CommandSet,
            _ => Refusal::Unknown,
        }
    }

    /// Whether it says that the sender's data directory is not the one that the cluster relies on:
    /// the sender must take part in nothing until it was admitted again. Anything else is a mistake
    /// in somebody's configuration.
    pub fn is_lost_disk(self) -> bool {
        matches!(self, Refusal::LostDisk | Refusal::OldCopy)
    }
}

/// The answer to a hello that is not accepted; then the connection is closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HelloRefused {
    /// What was wrong with it.
    pub code: Refusal,
    /// The same for people, at most [`limits::REFUSAL_BYTES`].
    pub text: String,
}

impl HelloRefused {
    /// Appends the payload; a text over its bound is cut, at a character's border.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code as u8);
        let mut end = self.text.len().min(limits::REFUSAL_BYTES);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        push_text(&self.text[..end], out);
    }

    /// Reads a payload.
    pub fn decode(mut payload: &[u8]) -> Result<HelloRefused, HelloError> {
        let input = &mut payload;
        let [code] = take(input)?;
        let text = take_text(input, limits::REFUSAL_BYTES)?;
        Ok(HelloRefused { code: Refusal::from_code(code), text })
    }
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).expect("texts are bounded far below 64 KiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], HelloError> {
    let (taken, rest) = input.split_first_chunk::<N>().ok_or(HelloError::Truncated)?;
    *input = rest;
    Ok(*taken)
}

fn take_u64(input: &mut &[u8]) -> Result<u64, HelloError> {
    take(input).map(u64::from_le_bytes)
}

/// The payload's last field: a length of at most `bound`, and just as many bytes of UTF-8.
fn take_text(input: &mut &[u8], bound: usize) -> Result<String, HelloError> {
    let length = usize::from(u16::from_le_bytes(take(input)?));
    if length > bound {
        return Err(HelloError::TextTooLong);
    }
    if input.len() < length {
        return Err(HelloError::Truncated);
    }
    if input.len() > length {
        return Err(HelloError::TrailingBytes);
    }
    let text = std::str::from_utf8(input).map_err(|_| HelloError::TextNotUtf8)?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(hello: &Hello) -> Vec<u8> {
        let mut out = Vec::new();
        hello.encode(&mut out);
        out
    }

    #[test]
    fn decode_rejects_each_bad_field() {
        let hello = Hello { cluster: "main".to_owned(), ..Hello::client() };
        let whole = encoded(&hello);
        assert_eq!(Hello::decode(&whole), Ok(hello));
        for length in 0..whole.len() {
            assert_eq!(Hello::decode(&whole[..length]), Err(HelloError::Truncated));
        }
        let changed = |place: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[place] = byte;
            Hello::decode(&bytes)
        };
        let length_at = whole.len() - "main".len() - 2;
        assert_eq!(changed(0, 2), Err(HelloError::Version(2)));
        assert_eq!(changed(2, 0), Err(HelloError::UnknownRole(0)));
        assert_eq!(changed(length_at - 5, 2), Err(HelloError::BadFlag));
        assert_eq!(changed(length_at, 3), Err(HelloError::TrailingBytes));
        assert_eq!(changed(length_at + 1, 1), Err(HelloError::TextTooLong));
        assert_eq!(changed(whole.len() - 1, 0xff), Err(HelloError::TextNotUtf8));
    }

    #[test]
    fn refused_cuts_a_long_text_at_a_characters_border() {
        let text = "x".repeat(limits::REFUSAL_BYTES - 1) + "é";
        let mut out = Vec::new();
        HelloRefused { code: Refusal::Receiver, text }.encode(&mut out);
        let decoded = HelloRefused::decode(&out).unwrap();
        assert_eq!(decoded.code, Refusal::Receiver);
        assert_eq!(decoded.text, "x".repeat(limits::REFUSAL_BYTES - 1));
    }

    #[test]
    fn refused_of_a_code_from_the_future_keeps_its_text() {
        let mut out = Vec::new();
        HelloRefused { code: Refusal::Role, text: "because".to_owned() }.encode(&mut out);
        out[0] = 200;
        let expected = HelloRefused { code: Refusal::Unknown, text: "because".to_owned() };
        assert_eq!(HelloRefused::decode(&out), Ok(expected));
    }

    proptest! {
        #[test]
        fn decode_gives_what_was_encoded(
            numbers in any::<[u64; 8]>(), set in any::<u32>(), is_blank in any::<bool>(), is_peer in any::<bool>(), cluster in "[a-zé]{0,32}",
        ) {
            let hello = Hello {
                role: if is_peer { Role::Peer } else { Role::Client },
                cluster,
                sender: ServerId(numbers[0]),
                receiver: ServerId(numbers[1]),
                sender_incarnation: Incarnation(numbers[2]),
                receiver_incarnation: Incarnation(numbers[3]),
                boot: Boot(numbers[4]),
                nonce: Nonce(numbers[5]),
                membership_index: LogIndex(numbers[6]),
                lineage: Lineage(numbers[7]),
                is_blank,
                command_set: CommandSet(set),
            };
            prop_assert_eq!(Hello::decode(&encoded(&hello)), Ok(hello));
        }
    }
}
