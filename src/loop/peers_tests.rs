//! Two servers' peer connections over real sockets: who dials, what a hello does, how one ends.

use std::net::TcpListener;
use std::time::Duration;

use mio::{Events, Poll};

use super::*;
use crate::driver::peers::Nonsense;
use crate::proto::hello::{Refusal, Role};
use crate::proto::message::{Envelope, Message};
use crate::types::{Boot, ClusterId, Incarnation, Nonce};

const FIRST_TOKEN: usize = 100;

/// News and faults of a turn, each with the place of the peer it is about.
type Happened = (Vec<(usize, News)>, Vec<(usize, Fault)>);

/// One server's side.
struct Side {
    poll: Poll,
    events: Events,
    peers: Peers,
    own: ServerId,
    now: Instant,
}

fn hello(sender: ServerId, receiver: ServerId) -> Hello {
    Hello {
        role: Role::Peer,
        cluster: "main".to_owned(),
        sender,
        receiver,
        sender_incarnation: Incarnation(7),
        receiver_incarnation: Incarnation::ZERO,
        boot: Boot(1),
        nonce: Nonce(2),
        membership_index: crate::types::LogIndex(0),
        lineage: crate::types::Lineage::ZERO,
        is_blank: false,
        command_set: crate::types::CommandSet::FIRST,
    }
}

impl Side {
    fn new(own: u64) -> Side {
        Side {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(64),
            peers: Peers::new(ServerId(own), FIRST_TOKEN),
            own: ServerId(own),
            now: Instant(1),
        }
    }

    /// One turn: what was said, and where, and the faults.
    fn turn(&mut self) -> Happened {
        let Side { poll, events, peers, own, now } = self;
        poll.poll(events, Some(Duration::from_millis(5))).unwrap();
        for event in events.iter() {
            let slot = event.token().0 - FIRST_TOKEN;
            peers.on_event(slot, event, |peer| hello(*own, peer), *now);
        }
        peers.keep_up(poll.registry(), *now);
        let (mut said, mut faults) = (Vec::new(), Vec::new());
        for slot in peers.take_ready() {
            let (mut news, mut scratch) = (Vec::new(), vec![0; 65536]);
            if let Err(fault) = peers.read(slot, &mut scratch, &mut news) {
                faults.push((slot, fault));
            }
            said.extend(news.into_iter().map(|item| (slot, item)));
            peers.settle(slot);
        }
        peers.flush(poll.registry(), *now);
        (said, faults)
    }

    /// Turns until something is said.
    fn hears(&mut self) -> (usize, News) {
        for _ in 0..1000 {
            let (mut said, faults) = self.turn();
            assert!(faults.is_empty(), "{faults:?}");
            if let Some(first) = said.pop() {
                return first;
            }
        }
        panic!("nothing was said");
    }

    /// Turns until a connection ends.
    fn fault(&mut self) -> (usize, Fault) {
        for _ in 0..1000 {
            if let Some(fault) = self.turn().1.pop() {
                return fault;
            }
        }
        panic!("no connection ended");
    }
}

/// Server 1 dials server 2, and both hellos are on their way or accepted.
fn connected() -> (Side, usize, Side, usize) {
    // 1. The smaller id dials.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (mut small, mut large) = (Side::new(1), Side::new(2));
    small.peers.update(&[Peer { id: ServerId(2), address, dial: true }], small.now);
    small.turn();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    large.peers.admit(TcpStream::from_std(stream), large.poll.registry(), large.now);

    // 2. It says hello, is accepted and answered.
    small.turn();
    let (there, News::Hello(first)) = large.hears() else { panic!("a hello comes first") };
    assert_eq!((first.sender, first.receiver), (ServerId(1), ServerId(2)));
    assert!(large.peers.may_greet(there, ServerId(1)));
    let answer = hello(ServerId(2), ServerId(1));
    assert_eq!(large.peers.establish(there, ServerId(1), &answer, large.now), None);
    large.turn();

    // 3. The answer is accepted.
    let (here, News::Hello(second)) = small.hears() else { panic!("a hello answers") };
    assert_eq!(second.sender, ServerId(2));
    assert!(small.peers.may_greet(here, ServerId(2)));
    assert_eq!(small.peers.establish(here, ServerId(2), &answer, small.now), None);
    assert_eq!(small.peers.established_peer(here), Some(ServerId(2)));
    (small, here, large, there)
}

#[test]
fn peers_greet_and_the_end_of_one_is_heard_at_once() {
    let (mut small, here, mut large, there) = connected();
    assert_eq!(large.peers.close(there, Fault::TimedOut, large.now), Some(ServerId(1)));
    let (slot, fault) = small.fault();
    assert!(slot == here && matches!(fault, Fault::Closed | Fault::Io(_)), "{fault:?}");
    assert_eq!(small.peers.close(slot, fault, small.now), Some(ServerId(2)));

    // The next attempt comes after a pause, and within the longest one.
    assert!(small.peers.deadline() >= small.now.after(limits::DIAL_RETRY_MIN));
    assert!(small.peers.deadline() <= small.now.after(limits::DIAL_RETRY_MAX * 2));
}

#[test]
fn peers_dialling_in_a_slot_that_was_to_be_flushed_goes_on() {
    // 1. Something waits for server 2 when its connection ends.
    let (mut small, here, _large, _) = connected();
    small.peers.slots[here].say_hello(&hello(ServerId(1), ServerId(2)), &mut Spares::default());
    small.peers.settle(here);
    assert!(small.peers.slots[here].in_dirty);
    assert_eq!(small.peers.close(here, Fault::TimedOut, small.now), Some(ServerId(2)));

    // 2. In the same turn server 3 is dialled, in the slot that is free now.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    small.peers.update(&[Peer { id: ServerId(3), address, dial: true }], small.now);
    small.turn();
    assert_eq!(small.peers.peer(here), Some(ServerId(3)));

    // 3. The end: it is told that the connection stands, and says hello.
    small.turn();
    assert_eq!(small.peers.slots[here].stage, Stage::Greeting);
}

#[test]
fn peers_large_id_never_dials() {
    let mut large = Side::new(2);
    large.peers.update(
        &[Peer { id: ServerId(1), address: "127.0.0.1:1".to_owned(), dial: false }],
        large.now,
    );
    large.turn();
    assert_eq!(large.peers.deadline(), Instant::NEVER);
    assert!(large.peers.slots.is_empty());
}

#[test]
fn peers_large_id_waits_once_however_often_leaders_change() {
    // Whoever has moved is dialled by nobody, and must dial itself; it may only for as long as it
    // knows no leader.
    let mut large = Side::new(2);
    let peer = |dial| Peer { id: ServerId(1), address: "127.0.0.1:1".to_owned(), dial };
    let first = large.now.after(limits::DIAL_BY_LARGER);
    for _ in 0..3 {
        large.peers.update(&[peer(true)], large.now);
        assert_eq!(large.peers.deadline(), first);
        large.peers.update(&[peer(false)], large.now);
        large.now = large.now.after(limits::DIAL_BY_LARGER / 2);
    }
    large.peers.update(&[], large.now);
    large.peers.update(&[peer(true)], large.now);
    let first = large.now.after(limits::DIAL_BY_LARGER);
    assert_eq!(large.peers.deadline(), first, "it was forgotten, and is missed anew");
}

#[test]
fn peers_newer_connection_replaces_the_older_one() {
    let (_small, _, mut large, there) = connected();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _again = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    large.peers.admit(TcpStream::from_std(stream), large.poll.registry(), large.now);

    let newer = there + 1;
    let answer = hello(ServerId(2), ServerId(1));
    let replaced = large.peers.establish(newer, ServerId(1), &answer, large.now);
    assert_eq!(replaced, Some(ServerId(1)));
    assert_eq!(large.peers.established_peer(there), None);
    assert_eq!(large.peers.established_peer(newer), Some(ServerId(1)));
}

#[test]
fn peers_refused_hello_is_heard_with_its_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (mut small, mut large) = (Side::new(1), Side::new(2));
    small.peers.update(&[Peer { id: ServerId(2), address, dial: true }], small.now);
    small.turn();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    large.peers.admit(TcpStream::from_std(stream), large.poll.registry(), large.now);
    small.turn();
    let (there, _) = large.hears();

    let text = "another disk".to_owned();
    let refused = HelloRefused { code: Refusal::LostDisk, text };
    large.peers.refuse(there, &refused, large.poll.registry(), large.now);
    let (_, News::Refused(heard)) = small.hears() else { panic!("the refusal is heard") };
    assert_eq!(heard, refused);
    assert_eq!(large.peers.violations(), 1);
}

#[test]
fn peers_garbage_and_silence_end_a_connection_and_change_nothing() {
    let (mut small, _, mut large, _) = connected();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();

    // 1. Garbage.
    let mut stranger = std::net::TcpStream::connect(address).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    large.peers.admit(TcpStream::from_std(stream), large.poll.registry(), large.now);
    std::io::Write::write_all(&mut stranger, b"\0RKX").unwrap();
    let (slot, fault) = large.fault();
    assert!(matches!(fault, Fault::Nonsense(Nonsense::Frame(_))), "{fault:?}");
    assert_eq!(large.peers.close(slot, fault, large.now), None);
    assert_eq!(large.peers.violations(), 1);

    // 2. Silence.
    let _silent = std::net::TcpStream::connect(address).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    large.peers.admit(TcpStream::from_std(stream), large.poll.registry(), large.now);
    assert_eq!(large.peers.slots.len(), 2);
    large.now = large.now.after(limits::HELLO_TIMEOUT);
    large.turn();
    assert_eq!(large.peers.slots.len(), 1);

    // 3. The end: the established connection is untouched.
    assert!(small.turn().1.is_empty());
}

#[test]
fn send_to_a_peer_that_does_not_read_ends_the_connection_and_says_so_later() {
    let (mut small, here, _large, _) = connected();
    let envelope = Envelope {
        cluster: ClusterId(1),
        from: ServerId(1),
        from_incarnation: Incarnation(7),
        to: ServerId(2),
        to_incarnation: Incarnation(7),
    };
    let message = Message::Forward { batch: vec![0; limits::APPEND_BYTES].into() };
    let packet = Packet { envelope, message };
    // 1. What the kernel doesn't take waits, up to the bound.
    let mut sent = 0;
    while small.peers.established_peer(here).is_some() {
        assert!(!small.peers.has_lost(), "it stands");
        small.peers.send(&packet, small.now);
        small.peers.flush(small.poll.registry(), small.now);
        sent += limits::APPEND_BYTES;
    }
    assert!(sent > limits::PEER_OUTPUT_BYTES, "{sent}");
    // 2. It ended while effects were carried out: the node is told in the next turn.
    assert_eq!(small.peers.take_lost(), [ServerId(2)]);
    assert_eq!(small.peers.violations(), 0, "slow is no violation");
    // 3. The end: what is sent to nobody is dropped.
    small.peers.send(&packet, small.now);
    assert!(!small.peers.has_lost());
}
