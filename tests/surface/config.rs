//! node.toml: what the defaults are, and that every mistake is one line that names its key.
//!
//! A table of mistakes with their exact messages; then the program itself: exit code 2, one line on
//! stderr, and a data directory that was not touched.

use std::process::Command;
use std::time::Duration;

use raftkv::config::{ClientConfig, Config, Overrides, SyncMode};
use raftkv::types::ServerId;

const THREE: &str = r#"id = 1
data_dir = "/var/lib/raftkv"

[[cluster.node]]
id = 1
peer = "10.0.0.1:7201"
client = "10.0.0.1:7101"
http = "10.0.0.1:7301"

[[cluster.node]]
id = 2
peer = "10.0.0.2:7201"
client = "10.0.0.2:7101"

[[cluster.node]]
id = 3
peer = "10.0.0.3:7201"
client = "10.0.0.3:7101"
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, &Overrides::default()).map_err(|mistake| mistake.to_string())
}

#[test]
fn parse_empty_file_is_a_single_node_with_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.id, ServerId(1));
    assert_eq!(config.data_dir.to_str(), Some("./raftkv-data"));
    assert_eq!(config.cluster.name, "main");
    assert_eq!(config.cluster.nodes.len(), 1);
    assert_eq!(config.client_listen(), ("127.0.0.1:7101", "cluster.node.client"));
    assert_eq!(config.peer_listen(), ("127.0.0.1:7201", "cluster.node.peer"));
    assert_eq!(config.raft.election_timeout.0, Duration::from_millis(150));
    assert_eq!(config.raft.election_timeout.1, Duration::from_millis(300));
    assert_eq!(config.raft.heartbeat, Duration::from_millis(50));
    assert!(!config.raft.lease);
    assert_eq!(config.client.request_timeout, Duration::from_secs(5));
    assert_eq!(config.client.idle_timeout, Duration::ZERO);
    assert_eq!(config.storage.sync, SyncMode::Auto);
    assert_eq!(config.storage.segment_bytes, 64 << 20);
    assert_eq!(config.storage.snapshot_log_bytes, 64 << 20);
    assert_eq!(config.limits.max_memory, 0);
    assert_eq!(config.limits.max_clients, 10_000);
    assert_eq!(config.log.level, log::LevelFilter::Info);
    assert_eq!(config.log.file, None);
}

#[test]
fn parse_reads_every_key() {
    let text = format!(
        "{THREE}
        [listen]
        client = \"0.0.0.0:7101\"
        peer = \"[::]:7201\"
        http = \"0.0.0.0:7301\"
        [cluster]
        name = \"orders-2\"
        [raft]
        election_timeout_ms = [1000, 2000]
        heartbeat_ms = 100
        lease = true
        [client]
        request_timeout_ms = 700
        idle_timeout_ms = 60000
        debug_commands = true
        [storage]
        sync = \"thread\"
        segment_bytes = 65536
        snapshot_log_bytes = 70000
        [limits]
        max_memory = 1000000
        max_clients = 50
        [log]
        level = \"debug\"
        file = \"/tmp/n.log\"
        "
    );
    // `[cluster]` after `[[cluster.node]]` is TOML's own rule for super-tables: allowed.
    let config = parse(&text).unwrap();
    assert_eq!(config.client_listen(), ("0.0.0.0:7101", "listen.client"));
    assert_eq!(config.peer_listen(), ("[::]:7201", "listen.peer"));
    assert_eq!(config.own().http.as_deref(), Some("10.0.0.1:7301"));
    assert_eq!(config.cluster.name, "orders-2");
    assert_eq!(config.raft.election_timeout.1, Duration::from_secs(2));
    assert!(config.raft.lease);
    assert_eq!(config.client.request_timeout, Duration::from_millis(700));
    assert_eq!(config.client.idle_timeout, Duration::from_secs(60));
    assert!(config.client.debug_commands && !ClientConfig::default().debug_commands);
    assert_eq!(config.storage.sync, SyncMode::Thread);
    assert_eq!(config.storage.segment_bytes, 65_536);
    assert_eq!(config.storage.snapshot_log_bytes, 70_000);
    assert_eq!(config.limits.max_memory, 1_000_000);
    assert_eq!(config.limits.max_clients, 50);
    assert_eq!(config.log.level, log::LevelFilter::Debug);
    assert_eq!(config.log.file.unwrap().to_str(), Some("/tmp/n.log"));
}

#[test]
fn parse_command_line_beats_the_file() {
    let overrides = Overrides {
        id: Some(ServerId(3)),
        data_dir: Some("/elsewhere".into()),
        ..Overrides::default()
    };
    let config = Config::parse(THREE, &overrides).unwrap();
    assert_eq!(config.id, ServerId(3));
    assert_eq!(config.own().client, "10.0.0.3:7101");
    assert_eq!(config.data_dir.to_str(), Some("/elsewhere"));

    let overrides = Overrides { id: Some(ServerId(9)), data_dir: None, ..Overrides::default() };
    let mistake = Config::parse(THREE, &overrides).unwrap_err();
    assert_eq!(
        mistake.to_string(),
        "--id: is 9, which no [[cluster.node]] has, expected one of 1, 2, 3"
    );
    assert_eq!(mistake.line, None);
}

/// Each mistake and its exact message.
const MISTAKES: &[(&str, &str)] = &[
    // What is no TOML.
    ("id = \n", "line 1: id: string values must be quoted, expected literal string"),
    ("[raft\n", "line 1: raft: unclosed table, expected `]`"),
    // Unknown, twice, of a wrong type.
    (
        "hartbeat = 1\n",
        "line 1: hartbeat: is not a key here, expected one of `id`, `data_dir`, `cluster`, \
         `listen`, `raft`, `client`, `storage`, `limits`, `log`",
    ),
    (
        "[raft]\nhartbeat_ms = 50\n",
        "line 2: raft.hartbeat_ms: is not a key here, expected one of `election_timeout_ms`, \
         `heartbeat_ms`, `lease`",
    ),
    (
        "[[cluster.node]]\nid = 1\nadress = \"a:1\"\n",
        "line 3: cluster.node.adress: is not a key here, expected one of `id`, `peer`, `client`, \
         `http`",
    ),
    ("id = 1\nid = 2\n", "line 2: id: is there twice; keep one"),
    (
        "[raft]\nlease = true\nheartbeat_ms = 1\nlease = false\n",
        "line 4: raft.lease: is there twice; keep one",
    ),
    ("[raft]\n[log]\n[raft]\n", "line 3: raft: is there twice; keep one"),
    (
        "id = \"one\"\n",
        "line 1: id: invalid type: string \"one\", expected a whole number, 0 or above",
    ),
    ("id = -1\n", "line 1: id: invalid value: integer `-1`, expected a whole number, 0 or above"),
    (
        "\n[raft]\nheartbeat_ms = 1.5\n",
        "line 3: raft.heartbeat_ms: invalid type: floating point `1.5`, expected a whole number, \
         0 or above",
    ),
    (
        "[raft]\nelection_timeout_ms = 150\n",
        "line 2: raft.election_timeout_ms: invalid type: integer `150`, expected two whole \
         numbers, such as [150, 300]",
    ),
    (
        "[raft]\nelection_timeout_ms = [150]\n",
        "line 2: raft.election_timeout_ms: invalid length 1, expected two whole numbers, such as \
         [150, 300]",
    ),
    (
        "[raft]\nlease = \"no\"\n",
        "line 2: raft.lease: invalid type: string \"no\", expected a boolean",
    ),
    ("raft = 3\n", "line 1: raft: invalid type: integer `3`, expected a table"),
    ("data_dir = 3\n", "line 1: data_dir: invalid type: integer `3`, expected a string"),
    // The list of nodes.
    (
        "id = 1\n[[cluster.node]]\npeer = \"a:1\"\nclient = \"a:2\"\n",
        "line 2: cluster.node.id: is missing, expected such as id = 1",
    ),
    (
        "id = 1\n[[cluster.node]]\nid = 1\nclient = \"a:2\"\n",
        "line 2: cluster.node.peer: is missing, expected such as peer = \"10.0.0.1:7201\"",
    ),
    (
        "id = 1\n[[cluster.node]]\nid = 1\npeer = \"a:2\"\n",
        "line 2: cluster.node.client: is missing, expected such as client = \"10.0.0.1:7101\"",
    ),
    (
        "id = 1\n[[cluster.node]]\nid = 0\npeer = \"a:1\"\nclient = \"a:2\"\n",
        "line 3: cluster.node.id: is 0, expected 1 to 9223372036854775807",
    ),
    (
        "id = 1\n[[cluster.node]]\nid = 1\npeer = \"a:1\"\nclient = \"a:2\"\n\
         [[cluster.node]]\nid = 1\npeer = \"b:1\"\nclient = \"b:2\"\n",
        "line 7: cluster.node.id: two nodes have the id 1; each needs its own",
    ),
    (
        "id = 1\n[[cluster.node]]\nid = 1\npeer = \"a:1\"\nclient = \"a:2\"\n\
         [[cluster.node]]\nid = 2\npeer = \"A:2\"\nclient = \"b:2\"\n",
        "line 8: cluster.node.peer: a:2 is node 1's client address already; each port needs its \
         own",
    ),
    (
        "id = 1\n[[cluster.node]]\nid = 1\npeer = \"a:1\"\nclient = \"a:2\"\nhttp = \"a:1\"\n",
        "line 6: cluster.node.http: a:1 is node 1's peer address already; each port needs its own",
    ),
    (
        "id = 4\n[[cluster.node]]\nid = 1\npeer = \"a:1\"\nclient = \"a:2\"\n",
        "line 1: id: is 4, which no [[cluster.node]] has, expected one of 1",
    ),
    (
        "[[cluster.node]]\nid = 1\npeer = \"a:1\"\nclient = \"a:2\"\n",
        "id: is missing here and on the command line, expected one of 1",
    ),
    ("id = 0\n", "line 1: id: is 0, expected 1 to 9223372036854775807"),
    // Addresses.
    (
        "id = 1\n[[cluster.node]]\nid = 1\npeer = \"a\"\nclient = \"a:2\"\n",
        "line 4: cluster.node.peer: \"a\" has no port; expected host:port, such as \
         \"10.0.0.1:7101\"",
    ),
    (
        "id = 1\n[[cluster.node]]\nid = 1\npeer = \"a:1\"\nclient = \"a:70000\"\n",
        "line 5: cluster.node.client: \"a:70000\" has no port from 1 to 65535; expected \
         host:port, such as \"10.0.0.1:7101\"",
    ),
    (
        "id = 1\n[[cluster.node]]\nid = 1\npeer = \"a:1\"\nclient = \"a:2\"\nhttp = \":+8\"\n",
        "line 6: cluster.node.http: \":+8\" has no valid host; expected host:port, such as \
         \"10.0.0.1:7101\"",
    ),
    (
        "[listen]\nclient = \"::1:7101\"\n",
        "line 2: listen.client: \"::1:7101\" has no valid host; expected host:port, such as \
         \"10.0.0.1:7101\"",
    ),
    (
        "[listen]\nclient = \"0.0.0.0:+1\"\n",
        "line 2: listen.client: \"0.0.0.0:+1\" has no port from 1 to 65535; expected host:port, \
         such as \"10.0.0.1:7101\"",
    ),
    (
        "[listen]\nclient = \"0.0.0.0:1\"\npeer = \"0.0.0.0:1\"\n",
        "line 3: listen.peer: 0.0.0.0:1 is listen.client already; each port needs its own",
    ),
    (
        "[listen]\nhttp = \"0.0.0.0:1\"\n",
        "line 2: listen.http: node 1 serves no HTTP, expected http in its [[cluster.node]]",
    ),
    // Ranges and combinations.
    (
        "[cluster]\nname = \"\"\n",
        "line 2: cluster.name: expected 1 to 64 letters, digits, '-', '_' or '.'",
    ),
    ("data_dir = \"\"\n", "line 1: data_dir: is empty, expected a directory"),
    (
        "[raft]\nheartbeat_ms = 150\n",
        "line 2: raft.heartbeat_ms: is 150, expected 1 to 149: below raft.election_timeout_ms's \
         lowest, 150",
    ),
    (
        "[raft]\nelection_timeout_ms = [20, 40]\n",
        "line 2: raft.heartbeat_ms: is 50, expected 1 to 19: below raft.election_timeout_ms's \
         lowest, 20",
    ),
    (
        "[raft]\nheartbeat_ms = 0\n",
        "line 2: raft.heartbeat_ms: is 0, expected 1 to 149: below raft.election_timeout_ms's \
         lowest, 150",
    ),
    (
        "[raft]\nelection_timeout_ms = [300, 150]\n",
        "line 2: raft.election_timeout_ms: is [300, 150], expected [lowest, highest] from 10 to \
         60000, the first below the second",
    ),
    (
        "[client]\nrequest_timeout_ms = 0\n",
        "line 2: client.request_timeout_ms: is 0, expected 1 to 3600000",
    ),
    (
        "[client]\nidle_timeout_ms = 9000000000\n",
        "line 2: client.idle_timeout_ms: is 9000000000, expected 0 to 2592000000",
    ),
    (
        "[storage]\nsync = \"fast\"\n",
        "line 2: storage.sync: is \"fast\", expected \"auto\", \"uring\" or \"thread\"",
    ),
    (
        "[storage]\nsegment_bytes = 1\n",
        "line 2: storage.segment_bytes: is 1, expected 65536 to 1073741824",
    ),
    (
        "[storage]\nsegment_bytes = 65537\n",
        "line 2: storage.segment_bytes: is 65537, expected a multiple of 4096",
    ),
    (
        "[storage]\nsnapshot_log_bytes = 1\n",
        "line 2: storage.snapshot_log_bytes: is 1, expected 65536 to 1099511627776",
    ),
    ("[limits]\nmax_clients = 0\n", "line 2: limits.max_clients: is 0, expected 1 to 1000000"),
    (
        "[log]\nlevel = \"loud\"\n",
        "line 2: log.level: is \"loud\", expected \"error\", \"warn\", \"info\", \"debug\" or \
         \"trace\"",
    ),
    ("[log]\nfile = \"\"\n", "line 2: log.file: is empty, expected a file's path"),
];

#[test]
fn parse_names_each_mistake() {
    let mut wrong = Vec::new();
    for (text, expected) in MISTAKES {
        let got = parse(text).map(|_| "accepted".to_owned()).unwrap_or_else(|mistake| mistake);
        if got != *expected {
            wrong.push(format!("{text:?}\n     got {got}\nexpected {expected}"));
        }
        assert_eq!(got.lines().count(), 1, "one line: {got:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn parse_refuses_more_members_than_the_limit() {
    let mut text = "id = 1\n".to_owned();
    for id in 1..=32 {
        text += &format!("[[cluster.node]]\nid = {id}\npeer = \"a:{id}\"\nclient = \"b:{id}\"\n");
    }
    assert_eq!(
        parse(&text).unwrap_err(),
        "line 126: cluster.node: more than 31 nodes in one cluster"
    );
}

fn raftkvd(arguments: &[&str], directory: &std::path::Path) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftkvd"));
    command.args(arguments).current_dir(directory).output().unwrap()
}

#[test]
fn raftkvd_refuses_a_mistake_with_one_line_code_2_and_no_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let mistakes: &[(&str, &str)] = &[
        ("[raft]\nhartbeat_ms = 1\n", "raftkvd: node.toml: line 2: raft.hartbeat_ms: is not"),
        ("id = 7\n[[cluster.node]]\n", "raftkvd: node.toml: line 2: cluster.node.id: is missing"),
        ("\u{1}", "raftkvd: node.toml: line 1: "),
    ];
    for (text, expected) in mistakes {
        std::fs::write(directory.path().join("node.toml"), text).unwrap();
        for arguments in
            [&["-c", "node.toml", "--data-dir", "data"][..], &["check", "-c", "node.toml"][..]]
        {
            let output = raftkvd(arguments, directory.path());
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            assert!(stderr.starts_with(expected), "{stderr}");
            assert!(output.stdout.is_empty());
        }
    }
    let missing = raftkvd(&["-c", "nowhere.toml"], directory.path());
    assert_eq!(missing.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(missing.stderr).unwrap(),
        "raftkvd: nowhere.toml: No such file or directory (os error 2)\n"
    );
    let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "only node.toml is there: {names:?}");
}

#[test]
fn raftkvd_check_prints_what_would_be_run() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("node.toml"), THREE).unwrap();
    let output = raftkvd(&["check", "-c", "node.toml", "--id", "2"], directory.path());
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout).unwrap();
    for expected in ["node 2 of 3", "10.0.0.2:7101", "10.0.0.2:7201", "/var/lib/raftkv"] {
        assert!(stdout.contains(expected), "{expected} in {stdout}");
    }
    assert!(std::fs::read_dir(directory.path()).unwrap().count() == 1);
}
