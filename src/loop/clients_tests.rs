//! Client connections over real sockets: limits, half-closed ends, idleness. Without a node: the
//! tests themselves answer.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use mio::{Events, Poll};

use super::*;
use crate::config;
use crate::types::ServerId;

const FIRST_TOKEN: usize = 100;

/// A few connections and the poll they are registered with.
struct Bench {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    clients: Clients,
    scratch: Vec<u8>,
    now: Instant,
}

impl Bench {
    fn new(max_clients: usize, idle_timeout: Duration) -> Bench {
        let config = Config {
            id: ServerId(1),
            data_dir: "unused".into(),
            cluster: config::ClusterConfig {
                name: "main".to_owned(),
                nodes: Vec::new(),
                readmit: config::Readmit::Manual,
            },
            join: Vec::new(),
            listen: config::ListenConfig::default(),
            raft: config::RaftConfig::default(),
            client: config::ClientConfig { idle_timeout, ..Default::default() },
            storage: config::StorageConfig::default(),
            limits: config::LimitsConfig { max_clients, ..Default::default() },
            log: config::LogConfig::default(),
        };
        Bench {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(64),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            clients: Clients::new(&config, Hello::client(), FIRST_TOKEN),
            scratch: vec![0; limits::READ_SCRATCH_BYTES],
            now: Instant(1),
        }
    }

    /// A client's own end, and its name here unless it was refused.
    fn connect(&mut self) -> (std::net::TcpStream, Option<ClientId>) {
        let outer = std::net::TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        outer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (inner, address) = self.listener.accept().unwrap();
        inner.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(inner);
        let admitted = self.clients.admit(stream, address, self.poll.registry(), self.now);
        (outer, admitted.map(|(id, _)| id))
    }

    /// Polls and reads until `count` commands came, or for a while if there should be none.
    fn commands(&mut self, count: usize) -> Requests {
        let mut requests = Requests::default();
        for _ in 0..100 {
            self.poll.poll(&mut self.events, Some(Duration::from_millis(2))).unwrap();
            for event in &self.events {
                self.clients.on_event(event.token().0 - FIRST_TOKEN, event);
            }
            self.clients.read_queries(self.now, &mut self.scratch, &mut requests);
            if count > 0 && requests.len() >= count {
                break;
            }
        }
        requests
    }

    fn answer(&mut self, id: ClientId, reply: Reply) {
        self.clients.reply(id, Protocol::Resp2, &reply);
        self.flush();
    }

    fn flush(&mut self) {
        self.clients.flush(self.now, self.poll.registry());
    }

    fn gone(&mut self) -> Vec<ClientId> {
        let mut gone = Vec::new();
        self.clients.forget_gone(|id| gone.push(id));
        gone
    }
}

#[test]
fn half_closed_client_gets_what_it_is_owed_and_then_the_end() {
    // 1. `printf ... | nc`: two commands, and the sending side is closed.
    let mut bench = Bench::new(10, Duration::ZERO);
    let (mut outer, id) = bench.connect();
    let id = id.unwrap();
    outer.write_all(b"SET a 1\r\nGET a\r\n").unwrap();
    outer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(bench.commands(2).len(), 2);
    bench.commands(0);
    bench.flush();
    assert_eq!(bench.gone(), [], "two replies are owed");

    // 2. One reply does not end it, the second one does.
    bench.answer(id, Reply::OK);
    assert_eq!(bench.gone(), []);
    bench.answer(id, Reply::Integer(1));
    assert_eq!(bench.gone(), [id]);

    // 3. The end: both replies, and the connection is closed without a reset.
    let mut replies = String::new();
    outer.read_to_string(&mut replies).unwrap();
    assert_eq!(replies, "+OK\r\n:1\r\n");
}

#[test]
fn one_client_too_many_is_told_so_and_a_free_place_is_given_again() {
    let mut bench = Bench::new(1, Duration::ZERO);
    let (first, id) = bench.connect();
    let (mut second, refused) = bench.connect();
    assert_eq!(refused, None);
    let mut said = String::new();
    second.read_to_string(&mut said).unwrap();
    assert_eq!(said, "-ERR max number of clients reached\r\n");

    drop(first);
    bench.commands(0);
    bench.flush();
    assert_eq!(bench.gone(), [id.unwrap()]);
    let (_third, next) = bench.connect();
    let (id, next) = (id.unwrap(), next.unwrap());
    assert_eq!(next.slot, id.slot);
    assert!(next.generation > id.generation, "two users of a slot are told apart");
}

#[test]
fn client_that_does_not_read_is_paused_and_past_the_limit_cut_off() {
    // 1. Replies pile up beyond what the kernel takes: its commands stay in the socket.
    let mut bench = Bench::new(10, Duration::ZERO);
    let (mut outer, id) = bench.connect();
    let id = id.unwrap();
    outer.write_all(b"GET a\r\n".repeat(16).as_slice()).unwrap();
    assert_eq!(bench.commands(16).len(), 16);
    let reply = Reply::Bulk(vec![b'x'; limits::VALUE_BYTES].into());
    for _ in 0..3 {
        bench.answer(id, reply.clone());
    }
    outer.write_all(b"PING\r\n").unwrap();
    assert_eq!(bench.commands(0).len(), 0);

    // 2. It reads: it is read again, by itself.
    let mut taken = vec![0; 3 * (limits::VALUE_BYTES + "$8388608\r\n\r\n".len())];
    let reader = std::thread::spawn(move || {
        outer.read_exact(&mut taken).unwrap();
        outer
    });
    let mut resumed = 0;
    while resumed == 0 || !reader.is_finished() {
        resumed += bench.commands(0).len();
        bench.flush();
    }
    let _outer = reader.join().unwrap();
    assert_eq!(resumed, 1);

    // 3. It never reads again: the limit ends it.
    for _ in 0..13 {
        bench.answer(id, reply.clone());
    }
    assert_eq!(bench.gone(), [id]);
}

#[test]
fn closing_client_has_time_for_as_long_as_it_reads() {
    // 1. QUIT behind a large reply: more than the kernel takes at once.
    let mut bench = Bench::new(10, Duration::ZERO);
    let (mut outer, id) = bench.connect();
    let id = id.unwrap();
    outer.write_all(b"GET a\r\nQUIT\r\n").unwrap();
    assert_eq!(bench.commands(2).len(), 2);
    let reply = Reply::Bulk(vec![b'x'; limits::VALUE_BYTES].into());
    for _ in 0..2 {
        bench.clients.reply(id, Protocol::Resp2, &reply);
    }
    bench.clients.close(id, bench.now);
    bench.flush();

    // 2. It reads a little each second, and gets everything, however long that takes. (Once all of
    // it is with the kernel, the connection may be forgotten here.)
    let mut left = 2 * (limits::VALUE_BYTES + "$8388608\r\n\r\n".len());
    let mut chunk = vec![0; 2 * 1024 * 1024];
    while left > 0 {
        let wanted = left.min(chunk.len());
        outer.read_exact(&mut chunk[..wanted]).unwrap();
        left -= wanted;
        bench.commands(0);
        bench.flush();
        bench.now = bench.now.after(Duration::from_secs(1));
        bench.clients.sweep(bench.now);
        bench.gone();
    }

    // 3. It stops reading: now its time runs out.
    let (outer, id) = bench.connect();
    let (mut outer, id) = (outer, id.unwrap());
    outer.write_all(b"GET a\r\nQUIT\r\n").unwrap();
    assert_eq!(bench.commands(2).len(), 2);
    bench.clients.reply(id, Protocol::Resp2, &reply);
    bench.clients.close(id, bench.now);
    bench.flush();
    bench.gone();
    bench.now = bench.now.after(limits::CLIENT_CLOSE_TIMEOUT);
    bench.clients.sweep(bench.now);
    assert_eq!(bench.gone(), [id]);
}

#[test]
fn idle_clients_are_closed_and_dripping_bytes_are_idleness() {
    let idle = Duration::from_secs(10);
    let mut bench = Bench::new(10, idle);
    let (mut dripping, dripping_id) = bench.connect();
    let (mut busy, busy_id) = bench.connect();
    let (mut waiting, _) = bench.connect();
    waiting.write_all(b"GET a\r\n").unwrap();
    assert_eq!(bench.commands(1).len(), 1);

    // 1. Just before the limit one sends a command, and one a byte of it.
    bench.now = Instant(1).after(idle - Duration::from_secs(1));
    dripping.write_all(b"P").unwrap();
    busy.write_all(b"PING\r\n").unwrap();
    assert_eq!(bench.commands(0).len(), 1);
    bench.answer(busy_id.unwrap(), Reply::Simple("PONG"));
    bench.clients.sweep(bench.now);
    assert_eq!(bench.gone(), []);

    // 2. At the limit: who sent no whole command goes; who waits for its answer stays.
    bench.now = Instant(1).after(idle);
    bench.clients.sweep(bench.now);
    assert_eq!(bench.gone(), [dripping_id.unwrap()]);
}

#[test]
fn replies_go_out_before_pushes_and_each_turn_pushes_to_some() {
    let mut bench = Bench::new(1000, Duration::ZERO);
    let watchers: Vec<_> = (0..2 * limits::TOLD_CLIENTS + 1).map(|_| bench.connect()).collect();
    let (mut asker, asker_id) = bench.connect();
    asker.write_all(b"PING\r\n").unwrap();
    assert_eq!(bench.commands(1).len(), 1);
    let has_heard = |watcher: &std::net::TcpStream| {
        let is_told = |()| watcher.peek(&mut [0]).is_ok();
        watcher.set_nonblocking(true).map(is_told).unwrap()
    };

    // 1. All watchers are told something, and then there is a reply, for the last watcher too.
    let last = watchers.len() - 1;
    for (_, id) in &watchers {
        bench.clients.push(id.unwrap(), b"+told\r\n", bench.now);
    }
    bench.clients.reply(asker_id.unwrap(), Protocol::Resp2, &Reply::Simple("PONG"));
    bench.clients.push(asker_id.unwrap(), b"+and told\r\n", bench.now);
    bench.flush();
    let mut answer = [0; 18];
    asker.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n+and told\r\n", "what one client gets keeps its order");
    let heard = |range: std::ops::Range<usize>| {
        watchers[range].iter().filter(|(watcher, _)| has_heard(watcher)).count()
    };
    assert_eq!(heard(0..last + 1), limits::TOLD_CLIENTS, "some of them in this turn");
    assert!(bench.clients.has_told(), "the rest makes another turn due");

    // 2. They are served in their order, and whoever is told more meanwhile keeps its place.
    bench.clients.push(watchers[last].1.unwrap(), b"+more\r\n", bench.now);
    bench.clients.push(watchers[0].1.unwrap(), b"+more\r\n", bench.now);
    bench.flush();
    assert_eq!(heard(0..last), 2 * limits::TOLD_CLIENTS);
    bench.flush();
    assert!(!bench.clients.has_told());
    let mut told = [0; 14];
    let mut watcher = &watchers[last].0;
    watcher.set_nonblocking(false).unwrap();
    watcher.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"+told\r\n+more\r\n");
}
