//! Which changes are told to subscribers: the letters of Redis's `notify-keyspace-events`.
//!
//! Called for node.toml's `[client] notify_keyspace_events`, and by `node/subscribers.rs`. Letters
//! of what raftkv doesn't have (other types, evictions) are taken, as Redis does, and mean nothing.

use std::fmt;

/// A set of classes of events, and where they are told.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NotifyFlags(u32);

/// Each letter, in the order in which Redis shows them.
const LETTERS: &[u8; 14] = b"g$lshzxetdnKEm";

/// Those that `A` stands for: all but `n`, `K`, `E` and `m`.
const ALL: NotifyFlags = NotifyFlags((1 << 10) - 1);

impl NotifyFlags {
    /// What happens to keys of any type.
    pub const GENERIC: NotifyFlags = NotifyFlags(1);
    /// What happens to strings.
    pub const STRING: NotifyFlags = NotifyFlags(1 << 1);
    /// Keys that expire.
    pub const EXPIRED: NotifyFlags = NotifyFlags(1 << 6);
    /// Told to who listens to the key.
    pub const KEYSPACE: NotifyFlags = NotifyFlags(1 << 11);
    /// Told to who listens to the event.
    pub const KEYEVENT: NotifyFlags = NotifyFlags(1 << 12);

    /// Reads letters; `None` if one is unknown.
    pub fn parse(letters: &[u8]) -> Option<NotifyFlags> {
        let mut flags = NotifyFlags::default();
        for letter in letters {
            flags.0 |= match LETTERS.iter().position(|known| known == letter) {
                Some(place) => 1 << place,
                None if *letter == b'A' => ALL.0,
                None => return None,
            };
        }
        Some(flags)
    }

    /// Whether all of `other` are there.
    pub fn contains(self, other: NotifyFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for NotifyFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        if self.contains(ALL) {
            f.write_str("A")?;
            rest &= !ALL.0;
        }
        for (place, letter) in LETTERS.iter().enumerate() {
            if rest & (1 << place) != 0 {
                write!(f, "{}", char::from(*letter))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_takes_redis_letters_and_shows_them_as_redis_does() {
        for (given, shown) in [("", ""), ("KEA", "AKE"), ("Kx", "xK"), ("g$xE", "g$xE")] {
            let flags = NotifyFlags::parse(given.as_bytes()).unwrap();
            assert_eq!(flags.to_string(), shown, "{given}");
        }
        assert_eq!(NotifyFlags::parse(b"KQ"), None);
        let flags = NotifyFlags::parse(b"EA").unwrap();
        assert!(flags.contains(NotifyFlags::EXPIRED) && !flags.contains(NotifyFlags::KEYSPACE));
        // `A` leaves out what a client must ask for by name.
        assert!(!NotifyFlags::parse(b"A").unwrap().to_string().contains('m'));
    }
}
