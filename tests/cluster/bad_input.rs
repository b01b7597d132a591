//! What strangers, broken programs and absent-minded clients do to a real node's ports (design
//! 5-faults, "Bad input"): every such connection ends as Redis ends it or stays harmless, nothing of
//! it is run, and the node goes on serving the others.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::common::{Client, Cluster, Options, Reply, eventually};
use raftkv::limits;
use raftkv::proto::frame::{ClientTag, FrameKind, PREFACE, encode_frame};
use raftkv::proto::hello::{Hello, HelloRefused, Refusal, Role};
use raftkv::types::{
    Boot, CommandSet, Incarnation, Lineage, LogIndex, Nonce, RequestSeq, ServerId, SessionId,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

fn single(toml: &str) -> Cluster {
    Cluster::start_with(Options { nodes: 1, toml: toml.to_owned(), ..Options::default() })
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `input`, then reads until the server closes. An error while sending only means that it has
/// closed already.
fn converse(address: &str, input: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    let _ = stream.write_all(input);
    rest(&mut stream)
}

/// All that comes until the server closes, which it has to do.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection stays open: {error}"),
    }
    answer
}

/// Where a node's peers reach it.
fn peer_address(cluster: &Cluster, position: usize) -> String {
    let text = std::fs::read_to_string(&cluster.nodes[position].file).unwrap();
    let mut peers = text.lines().filter_map(|line| line.strip_prefix("peer = "));
    peers.nth(position).unwrap().trim_matches('"').to_owned()
}

fn status_kib(process_id: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes of the value that [`with_a_large_value`] writes.
const LARGE_BYTES: usize = 1024 * 1024;

/// One node whose key `big` holds a large value, a client of it, and the memory that it takes, in
/// KiB.
fn with_a_large_value() -> (Cluster, Client, u64) {
    let cluster = single("");
    let mut client = cluster.client(0);
    assert_eq!(client.must(&["SET", "big", &"v".repeat(LARGE_BYTES)]), Reply::ok());
    let before = status_kib(cluster.nodes[0].process_id(), "VmRSS:");
    (cluster, client, before)
}

/// Panics if the node ever took more than `before` KiB and so many clients' whole outputs.
fn assert_peak_within(cluster: &Cluster, before: u64, outputs: u64) {
    let peak = status_kib(cluster.nodes[0].process_id(), "VmHWM:");
    let bound = before + outputs * (limits::CLIENT_OUTPUT_BYTES as u64 / 1024);
    println!("{before} KiB before, {peak} KiB at the most");
    assert!(peak < bound, "{peak} KiB");
}

/// Hundredths of a second of processor time that a process has used.
fn cpu_ticks(process_id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn bad_text_gets_redis_errors_and_the_end() {
    let cluster = single("");
    let address = cluster.nodes[0].client.clone();
    let mut witness = cluster.client(0);
    let long_line = [b"a".repeat(limits::INLINE_BYTES + 1), b"\r\n".to_vec()].concat();
    let table: [(&[u8], &str); 22] = [
        (b"*2147483648\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*+1\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*01\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$04\r\nPING\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$536870913\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$8388609\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (b"*1\r\n:4\r\n", "-ERR Protocol error: expected '$', got ':'\r\n"),
        (b"*1\r\n*1\r\n$4\r\nPING\r\n", "-ERR Protocol error: expected '$', got '*'\r\n"),
        (b"*1\r\n$4\r\nPINGxx", "-ERR Protocol error: expected CRLF after bulk\r\n"),
        (b"SET a \"b\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
        (&long_line, "-ERR Protocol error: too big inline request\r\n"),
        (b"*0\r\n*-1\r\n\r\nPING\r\nQUIT\r\n", "+PONG\r\n+OK\r\n"),
        (b"QUIT\r\nSET evil 1\r\n", "+OK\r\n"),
        (
            b"PING\r\n*1\r\n:4\r\nSET evil 1\r\n",
            "+PONG\r\n-ERR Protocol error: expected '$', got ':'\r\n",
        ),
        (b"GET / HTTP/1.1\r\n\r\nSET evil 1\r\n", ""),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET evil 1\r\n", ""),
        (b"Host: x\r\nSET evil 1\r\n", ""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ""),
        (b"\x80\x81\x82\r\nSET evil 1\r\n", ""),
        (b"\0RKX", ""),
        (b"\0RKV\x01\xff\xff\xff\xff\0\0\0\0\x01\0\0\0", ""),
    ];
    for (input, expected) in table {
        let answer = converse(&address, input);
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer, expected, "{}", input[..input.len().min(40)].escape_ascii());
        assert_eq!(witness.must(&["PING"]), Reply::Simple("PONG".to_owned()));
    }
    assert_eq!(witness.must(&["EXISTS", "evil"]), Reply::Integer(0), "nothing of it was run");
    // What is merely too long is named, and the connection stays.
    let key = "k".repeat(limits::KEY_BYTES + 1);
    let Reply::Error(text) = witness.must(&["SET", &key, "1"]) else { panic!("it was taken") };
    assert!(text.starts_with("ERR ") && text.len() < 300, "{text}");
    let Reply::Error(text) = witness.must(&["no\r\nsuch\x01", &key]) else {
        panic!("it was taken")
    };
    assert!(!text.contains(['\r', '\n', '\x01']) && text.len() < 500, "{text}");
}

#[test]
fn bad_frames_close_the_client_connection_and_run_nothing() {
    let cluster = single("");
    let address = cluster.nodes[0].client.clone();
    let greeting = |hello: &Hello| {
        let mut bytes = PREFACE.to_vec();
        encode_frame(FrameKind::Hello, 0, &mut bytes, |out| hello.encode(out));
        bytes
    };
    let request = |payload: &[u8]| {
        let mut bytes = greeting(&Hello::client());
        let tag = ClientTag { session: SessionId::ZERO, sequence: RequestSeq(1) };
        encode_frame(FrameKind::ClientRequest, 0, &mut bytes, |out| {
            tag.encode(out);
            out.extend_from_slice(payload);
        });
        bytes
    };
    let mut bad_sum = request(b"SET evil 1\r\n");
    *bad_sum.last_mut().unwrap() ^= 1;
    let unannounced = [PREFACE.to_vec(), bad_sum[greeting(&Hello::client()).len()..].to_vec()];
    let mut peers_frame = greeting(&Hello::client());
    encode_frame(FrameKind::Peer, 0, &mut peers_frame, |out| out.push(1));
    let other = Hello { cluster: "other".to_owned(), ..Hello::client() };
    for (what, input) in [
        ("a bad checksum", bad_sum),
        ("no hello", unannounced.concat()),
        ("a peer's frame", peers_frame),
        ("another cluster", greeting(&other)),
        ("a peer", greeting(&Hello { role: Role::Peer, ..Hello::client() })),
        ("half a command", request(b"*3\r\n$3\r\nSET\r\n$4\r\nevil\r\n")),
        ("two commands", request(b"SET evil 1\r\nSET evil 2\r\n")),
    ] {
        println!("{what}");
        converse(&address, &input);
    }
    assert_eq!(cluster.client(0).must(&["EXISTS", "evil"]), Reply::Integer(0));
}

#[test]
fn bad_peers_are_closed_and_counted_and_change_nothing() {
    let cluster = Cluster::start();
    cluster.wait_until_even();
    let leader = cluster.wait_for_leader();
    let before = cluster.info(leader).unwrap();
    let own = ServerId(leader as u64 + 1);
    let stranger = ServerId(if own == ServerId(1) { 2 } else { 1 });
    let hello = Hello {
        role: Role::Peer,
        cluster: "main".to_owned(),
        sender: stranger,
        receiver: own,
        sender_incarnation: Incarnation(1),
        receiver_incarnation: Incarnation::ZERO,
        boot: Boot(u64::MAX),
        nonce: Nonce(1),
        membership_index: LogIndex(0),
        lineage: Lineage::ZERO,
        is_blank: false,
        command_set: CommandSet::FIRST,
    };
    let framed = |kind: FrameKind, payload: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = PREFACE.to_vec();
        encode_frame(kind, 0, &mut bytes, |out| payload(out));
        bytes
    };
    let said = |hello: Hello| framed(FrameKind::Hello, &|out| hello.encode(out));
    let mut version = said(hello.clone());
    version[4] += 1;
    let mut protocol = Vec::new();
    hello.encode(&mut protocol);
    protocol[0] += 1;
    let mut bad_sum = said(hello.clone());
    *bad_sum.last_mut().unwrap() ^= 1;
    let header = |length: u32| {
        [&PREFACE[..], &length.to_le_bytes(), &[0; 4], &[FrameKind::Hello as u8, 0, 0, 0]].concat()
    };
    let refusal = HelloRefused { code: Refusal::LostDisk, text: "you lost it".to_owned() };
    let inputs = [
        ("random bytes", b"\x8f\x01\xfe\x00\x11\x9c".repeat(100)),
        ("a command", b"*1\r\n$4\r\nPING\r\n".to_vec()),
        ("length 0", header(0)),
        ("length 2^32-1", header(u32::MAX)),
        ("length over the limit", header(limits::FRAME_BYTES as u32 + 1)),
        ("a bad checksum", bad_sum),
        ("another frame version", version),
        ("another protocol version", framed(FrameKind::Hello, &|out| out.extend(&protocol))),
        ("another cluster", said(Hello { cluster: "other".to_owned(), ..hello.clone() })),
        ("another receiver", said(Hello { receiver: ServerId(99), ..hello.clone() })),
        ("no member", said(Hello { sender: ServerId(u64::MAX), ..hello.clone() })),
        ("itself", said(Hello { sender: own, ..hello.clone() })),
        ("another directory", said(hello.clone())),
        ("a client", said(Hello::client())),
        ("a message before the hello", framed(FrameKind::Peer, &|out| out.extend(&[0xff; 64]))),
        ("a refusal by a stranger", framed(FrameKind::HelloRefused, &|out| refusal.encode(out))),
        ("an empty hello", framed(FrameKind::Hello, &|out| out.push(0))),
    ];
    let count = inputs.len() as u64;
    for (what, input) in inputs {
        println!("{what}");
        converse(&peer_address(&cluster, leader), &input);
    }
    // A frame that is cut short ends with its sender.
    let mut cut = connect(&peer_address(&cluster, leader));
    cut.write_all(&said(hello)[..20]).unwrap();
    cut.shutdown(Shutdown::Write).unwrap();
    rest(&mut cut);

    let name = "raft_peer_rejects";
    eventually("the refusals are counted", PATIENCE, || {
        (cluster.figure(leader, name) >= before[name].parse::<u64>().unwrap() + count).then_some(())
    });
    let after = cluster.info(leader).unwrap();
    for name in ["raft_role", "raft_term", "raft_leader_id", "raft_commit_index"] {
        assert_eq!(after[name], before[name], "{name}");
    }
}

#[test]
fn silent_and_dripping_clients_are_closed_within_the_idle_limit() {
    let cluster = single("\n[client]\nidle_timeout_ms = 500\n");
    let address = cluster.nodes[0].client.clone();
    let mut busy = cluster.client(0);
    let mut silent = connect(&address);
    let mut half_preface = connect(&address);
    half_preface.write_all(&PREFACE[..2]).unwrap();
    let mut dripping = connect(&address);
    let began = Instant::now();
    let mut is_closed = false;
    while !is_closed && began.elapsed() < PATIENCE {
        assert_eq!(busy.must(&["PING"]), Reply::Simple("PONG".to_owned()));
        is_closed = dripping.write_all(b"P").is_err();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(is_closed && began.elapsed() < 3 * SECOND, "after {:?}", began.elapsed());
    for stream in [&mut silent, &mut half_preface] {
        assert_eq!(rest(stream), b"");
    }
    assert_eq!(busy.must(&["PING"]), Reply::Simple("PONG".to_owned()));
}

#[test]
fn client_that_never_reads_costs_a_bounded_amount_of_memory() {
    let (cluster, mut other, before) = with_a_large_value();
    // 1. It asks for more than it is ever sent, a little at a time, and reads nothing.
    let mut deaf = connect(&cluster.nodes[0].client);
    deaf.set_write_timeout(Some(SECOND)).unwrap();
    let mut asked = 0;
    // Long commands, so that not all of them fit in the sockets' buffers.
    let questions = format!("MGET big {}\r\n", "k".repeat(4096)).repeat(10);
    while asked < 100_000 && deaf.write_all(questions.as_bytes()).is_ok() {
        asked += 10;
        if asked % 100 == 0 {
            assert_eq!(other.must(&["PING"]), Reply::Simple("PONG".to_owned()));
        }
    }
    // 2. It was cut off, or is no longer read from; memory is bounded either way.
    assert!(asked < 100_000, "all its commands were taken");
    println!("asked {asked} times");
    assert_peak_within(&cluster, before, 3);
    // 3. The end: the others are served.
    assert_eq!(other.must(&["STRLEN", "big"]), Reply::Integer(LARGE_BYTES as i64));
}

#[test]
fn packet_of_large_reads_costs_a_bounded_amount_of_memory() {
    let (cluster, mut other, before) = with_a_large_value();
    // A gibibyte of replies to a few kilobytes of commands: reads alone, and behind a write.
    let reads = b"GET big\r\n".repeat(1000);
    for commands in [reads.clone(), [&b"SET a 1\r\n"[..], &reads].concat()] {
        let mut greedy = connect(&cluster.nodes[0].client);
        greedy.write_all(&commands).unwrap();
        rest(&mut greedy);
        assert_eq!(other.must(&["PING"]), Reply::Simple("PONG".to_owned()));
    }
    assert_peak_within(&cluster, before, 4);
}

#[test]
fn many_commands_behind_one_that_waits_are_left_in_the_socket() {
    let mut cluster = Cluster::start();
    let leader = cluster.wait_for_leader();
    for other in cluster.others(leader) {
        cluster.kill(other);
    }
    // A write that cannot be decided, and all the cheap commands that the connection takes.
    let process_id = cluster.nodes[leader].process_id();
    let before = status_kib(process_id, "VmRSS:");
    let mut stream = connect(&cluster.nodes[leader].client);
    stream.set_write_timeout(Some(SECOND)).unwrap();
    stream.write_all(b"SET a 1\r\n").unwrap();
    let pings = b"PING\r\n".repeat(10_000);
    let mut sent = 0;
    while sent < 500 && stream.write_all(&pings).is_ok() {
        sent += 1;
    }
    let after = status_kib(process_id, "VmRSS:");
    println!("{sent} times {} bytes sent; {before} KiB before, {after} KiB after", pings.len());
    assert!(sent < 500, "all of it was taken");
    assert!(after < before + 32 * 1024, "{after} KiB");
    // The end: every command is answered, in order, once the first one is.
    let mut answer = vec![0; b"-INDOUBT".len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, b"-INDOUBT");
}

#[test]
fn ten_thousand_idle_clients_cost_memory_only() {
    // As many as this process and the node may have, up to the default limit less a few.
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(20_000).min(20_000);
    setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum: limit.maximum }).unwrap();
    let count = (limits::CLIENTS - 16).min(allowed as usize - 512);
    let cluster = single("");
    let process_id = cluster.nodes[0].process_id();
    let mut witness = cluster.client(0);
    let before = status_kib(process_id, "VmRSS:");
    let mut idle: Vec<Client> = (0..count).map(|_| cluster.client(0)).collect();
    // Each has said something once, so that whatever it costs to serve it was spent.
    for client in &mut idle {
        assert_eq!(client.must(&["PING"]), Reply::Simple("PONG".to_owned()));
    }
    let after = status_kib(process_id, "VmRSS:");
    let each = (after - before) * 1024 / count as u64;
    println!("{count} connections: {before} KiB before, {after} KiB after, {each} bytes each");
    assert!(each < 4096, "{each} bytes for each connection");
    let ticks = cpu_ticks(process_id);
    std::thread::sleep(2 * SECOND);
    let used = cpu_ticks(process_id) - ticks;
    println!("{used} hundredths of a second used in two");
    assert!(used <= 20, "{used} hundredths of a second in two of idleness");
    let began = Instant::now();
    assert_eq!(witness.must(&["SET", "a", "1"]), Reply::ok());
    assert!(began.elapsed() < SECOND);
}

#[test]
fn no_descriptors_left_stops_neither_accepting_nor_anything_else() {
    let shell = "ulimit -n 64; exec \"$@\"";
    let wrapper: Vec<String> = ["sh", "-c", shell, "sh"].map(str::to_owned).to_vec();
    let cluster =
        Cluster::start_with(Options { nodes: 1, wrappers: vec![wrapper], ..Options::default() });
    let process_id = cluster.nodes[0].process_id();
    let mut witness = cluster.client(0);
    assert_eq!(witness.must(&["SET", "n", "0"]), Reply::ok());
    for round in 0..2 {
        // 1. Strangers take every descriptor that there is.
        let peer_port = peer_address(&cluster, 0);
        let strangers: Vec<TcpStream> = (0..80).map(|_| connect(&peer_port)).collect();
        eventually("descriptors run out", PATIENCE, || {
            let open = std::fs::read_dir(format!("/proc/{process_id}/fd")).unwrap().count();
            (open >= 63).then_some(())
        });
        // 2. The node serves whom it has, and does not spin.
        let ticks = cpu_ticks(process_id);
        let began = Instant::now();
        while began.elapsed() < SECOND {
            assert_eq!(witness.must(&["INCR", "n"]).number().map(|n| n > round), Some(true));
            std::thread::sleep(Duration::from_millis(50));
        }
        let used = cpu_ticks(process_id) - ticks;
        assert!(used < 30, "{used} hundredths of a second in one");
        // 3. They leave, and whoever comes next is served.
        drop(strangers);
        eventually("a new client is served", PATIENCE, || {
            let mut client = Client::connect(&cluster.nodes[0].client).ok()?;
            client.call(&["PING"]).ok()
        });
    }
    // 4. Clients alone never take the last descriptors: who is too many is told so.
    let many: Vec<TcpStream> = (0..80).map(|_| connect(&cluster.nodes[0].client)).collect();
    let mut last = many.last().unwrap();
    let mut line = Vec::new();
    last.read_to_end(&mut line).unwrap();
    assert_eq!(line, b"-ERR max number of clients reached\r\n");
    let open = std::fs::read_dir(format!("/proc/{process_id}/fd")).unwrap().count();
    assert!(open < 64, "{open} are open");
    assert_eq!(witness.must(&["SET", "a", "1"]), Reply::ok());
}

#[test]
fn pipelined_megabyte_values_are_answered_in_order() {
    // As client libraries do it: everything is written before the first reply is read.
    let cluster = Cluster::start();
    let value = "v".repeat(1024 * 1024);
    let mut commands = Vec::new();
    for number in 0..12 {
        commands.push(vec!["SET".to_owned(), format!("k{number}"), format!("{number}{value}")]);
        commands.push(vec!["GET".to_owned(), format!("k{number}")]);
    }
    for position in 0..3 {
        let replies = cluster.client(position).pipeline(&commands).unwrap();
        for (number, pair) in replies.chunks(2).enumerate() {
            assert_eq!(pair[0], Reply::ok());
            assert_eq!(pair[1].text().len(), value.len() + number.to_string().len());
        }
    }
}

#[test]
fn second_signal_ends_a_stop_that_takes_long() {
    let mut cluster = Cluster::start();
    let leader = cluster.wait_for_leader();
    for other in cluster.others(leader) {
        cluster.kill(other);
    }
    // Something is undecided, so that the stop waits for it.
    let mut client = cluster.client(leader);
    client.send(&["SET", "a", "1"]).unwrap();
    cluster.nodes[leader].signal(Signal::TERM);
    eventually("the stop has begun", PATIENCE, || {
        cluster.nodes[leader].logged().contains("asked to stop").then_some(())
    });
    let began = Instant::now();
    cluster.nodes[leader].signal(Signal::INT);
    let status = cluster.nodes[leader].wait(PATIENCE);
    assert_eq!(status.code(), Some(1));
    assert!(began.elapsed() < SECOND, "after {:?}", began.elapsed());
    assert!(cluster.nodes[leader].logged().contains("second signal"));
}
