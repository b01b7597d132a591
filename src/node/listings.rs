//! KEYS over many keys: some of them a turn, until its answer is whole.
//!
//! Redis walks all keys at once; here the leader would lose its place meanwhile. A key that is there
//! all the time is listed once; one that comes or goes meanwhile may be listed or not, as with
//! Redis's SCAN. Over few keys (`limits::KEYS_SLICE`) KEYS is a read like any other. Called by
//! `held.rs`, which begins them, and at the end of a turn by `node.rs`.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Effect;
use super::clients::{Clients, Origin};
use super::node::Node;
use super::pipeline::loading;
use crate::kv::keys;
use crate::kv::store::Store;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::Reply;

/// One KEYS that goes on.
#[derive(Debug)]
struct Listing {
    origin: Origin,
    pattern: Box<[u8]>,
    /// Where the next slice begins.
    from: Box<[u8]>,
    count: usize,
    encoded: Vec<u8>,
}

/// All of them, the next one first.
#[derive(Default, Debug)]
pub struct Listings {
    running: VecDeque<Listing>,
}

impl Listings {
    /// Whether none goes on.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// A read was released that is a KEYS over many keys. At the bound it is refused.
    pub fn begin(&mut self, origin: Origin, args: Args<'_>) -> Option<Reply> {
        if self.running.len() >= limits::LISTINGS {
            let text = "ERR too many KEYS over many keys are under way";
            return Some(Reply::Error(text.into()));
        }
        let pattern: Box<[u8]> = args.get(1).unwrap_or_default().into();
        let from = keys::first_listed(&pattern);
        self.running.push_back(Listing { origin, pattern, from, count: 0, encoded: Vec::new() });
        None
    }

    /// Goes on with one of them, by one slice.
    fn advance(&mut self, store: &Store, clients: &mut Clients, effects: &mut Vec<Effect>) {
        let Some(mut listing) = self.running.pop_front() else {
            return;
        };
        if !clients.awaits(listing.origin) {
            return;
        }
        let Listing { pattern, from, encoded, .. } = &mut listing;
        let slice = keys::list_slice(store, pattern, from, encoded);
        listing.count += slice.count;
        if listing.encoded.len() > limits::CLIENT_OUTPUT_BYTES {
            let text = "ERR the keys are more than an answer may be long";
            clients.answer(listing.origin, Reply::Error(text.into()), effects);
            return;
        }
        match slice.next {
            Some(next) => {
                listing.from = next;
                self.running.push_back(listing);
            }
            None => {
                let Listing { origin, count, encoded, .. } = listing;
                let reply = Reply::Bulks { count, encoded: Bytes::from(encoded) };
                clients.answer(origin, reply, effects);
            }
        }
    }
}

impl Node {
    /// The end of a turn: one slice, of one KEYS.
    pub(super) fn advance_listings(&mut self, effects: &mut Vec<Effect>) {
        if self.clients.listings.is_empty() {
            return;
        }
        let mut listings = std::mem::take(&mut self.clients.listings);
        if let Some(percent) = self.snapshots.loading_percent() {
            // What the state machine holds meanwhile is no state.
            for listing in listings.running.drain(..) {
                self.clients.answer(listing.origin, loading(percent), effects);
            }
        }
        listings.advance(self.machine.store(), &mut self.clients, effects);
        self.clients.listings = listings;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ClientInfo;
    use crate::proto::args::push_arg;
    use crate::proto::reply::Protocol;
    use crate::types::{ClientId, Instant};

    const KEYS: usize = 3 * limits::KEYS_SLICE + 7;

    fn store() -> Store {
        let mut store = Store::new();
        for number in 0..KEYS {
            store.set(format!("key:{number:06}").as_bytes(), b"value", None);
        }
        store
    }

    fn client(clients: &mut Clients) -> Origin {
        let id = ClientId { slot: 0, generation: 1 };
        let address = "127.0.0.1:1".parse().unwrap();
        let info = ClientInfo { id: 1, address, local_address: address };
        clients.arrive(Instant::ZERO, id, info);
        clients.open_slot(id).unwrap()
    }

    fn begin(listings: &mut Listings, origin: Origin, pattern: &[u8]) -> Option<Reply> {
        let mut bytes = Vec::new();
        push_arg(&mut bytes, b"KEYS");
        push_arg(&mut bytes, pattern);
        listings.begin(origin, Args::new(2, &bytes))
    }

    /// Turns until the answer is there.
    fn run(listings: &mut Listings, store: &mut Store, clients: &mut Clients) -> (usize, Vec<u8>) {
        let (mut turns, mut effects) = (0, Vec::new());
        while !listings.is_empty() {
            listings.advance(store, clients, &mut effects);
            turns += 1;
            // What has been passed already may change meanwhile.
            store.set(b"key:000000", b"another value", None);
        }
        let mut encoded = Vec::new();
        for effect in effects {
            let Effect::Reply { reply, .. } = effect else { panic!("{effect:?}") };
            reply.encode(Protocol::Resp2, &mut encoded);
        }
        (turns, encoded)
    }

    #[test]
    fn keys_over_many_keys_takes_turns_and_lists_each_once() {
        let (mut store, mut clients, mut listings) =
            (store(), Clients::default(), Listings::default());
        let origin = client(&mut clients);
        assert_eq!(begin(&mut listings, origin, b"key:*[02468]"), None);
        let (turns, encoded) = run(&mut listings, &mut store, &mut clients);
        assert_eq!(turns, 4);
        let listed = (0..KEYS).filter(|number| number % 2 == 0);
        let mut expected = format!("*{}\r\n", listed.clone().count());
        listed.for_each(|number| expected += &format!("$10\r\nkey:{number:06}\r\n"));
        assert!(encoded == expected.as_bytes());
    }

    #[test]
    fn keys_of_one_beginning_looks_at_no_others() {
        let (mut store, mut clients, mut listings) =
            (store(), Clients::default(), Listings::default());
        let origin = client(&mut clients);
        begin(&mut listings, origin, b"key:00400*");
        let (turns, encoded) = run(&mut listings, &mut store, &mut clients);
        assert_eq!((turns, &encoded[..5]), (1, &b"*10\r\n"[..]));
    }

    #[test]
    fn begin_refuses_at_the_bound_and_who_left_is_forgotten() {
        let (mut store, mut clients, mut listings) =
            (store(), Clients::default(), Listings::default());
        let origin = client(&mut clients);
        for _ in 0..limits::LISTINGS {
            assert_eq!(begin(&mut listings, origin, b"*"), None);
        }
        assert!(matches!(begin(&mut listings, origin, b"*"), Some(Reply::Error(_))));
        clients.leave(ClientId { slot: 0, generation: 1 });
        let (turns, encoded) = run(&mut listings, &mut store, &mut clients);
        assert_eq!((turns, encoded.len()), (limits::LISTINGS, 0));
    }
}
