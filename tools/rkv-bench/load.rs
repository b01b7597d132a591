//! A load run: arguments, threads, the result.
//!
//! Called by `main`. The load itself is in `worker`, what is seen of it meanwhile in `progress`.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use raftkv::client::{Client, Options, Wire, is_endpoint};
use raftkv::proto::reply_decoder::Value;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::json;

#[cfg(feature = "etcd")]
use crate::etcd;
use crate::progress;
use crate::report::{Report, Second};
use crate::sessions;
use crate::worker::{self, Plan};
use crate::workload::{Kind, Workload, key_name, random_value, zipf};

/// The command line of a load run.
#[derive(Args, Debug)]
pub struct LoadArguments {
    /// The nodes; connections are spread over them
    #[arg(short, long = "connect", value_name = "HOST:PORT,...", value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:7101", value_parser = parse_endpoint)]
    connect: Vec<String>,

    /// Send everything to the node that leads when the run begins
    #[arg(long)]
    leader: bool,

    /// What to send
    #[arg(short, long, value_enum, default_value_t = Kind::Set)]
    workload: Kind,

    /// Connections
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,

    /// Commands that each connection sends before it waits for their replies
    #[arg(short = 'P', long, default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pipeline: u32,

    /// The length of the values in bytes
    #[arg(long, default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=8_388_608))]
    value_bytes: u32,

    /// How many keys there are
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,

    /// Use some keys more often than others, by Zipf's law with this exponent (0.99 is customary)
    #[arg(long, value_name = "EXPONENT", value_parser = parse_exponent)]
    zipf: Option<f64>,

    /// Send everything in client sessions, through the Rust client: one thread for each connection
    #[arg(long, conflicts_with_all = ["rate", "threads"])]
    sessions: bool,

    /// Send so many commands a second, whether or not the server keeps up (an open loop)
    #[arg(long, value_name = "COMMANDS", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,

    /// The share of reads in percent, for --workload mixed
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
    reads: u32,

    /// Seconds to measure
    #[arg(short, long, default_value_t = 10, conflicts_with = "requests")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Requests to measure, instead of a time
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,

    /// Seconds of the same load before measuring begins
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=3600))]
    warm_up: u64,

    /// Threads that send
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,

    /// Speak etcd's protocol (v3), not Redis's: only SET, GET and both mixed
    #[cfg(feature = "etcd")]
    #[arg(long, conflicts_with_all = ["leader", "sessions"])]
    etcd: bool,

    /// Set every key before the run, so that GET finds something
    #[arg(long)]
    fill: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    /// Print what each so many milliseconds came to, and not each second
    #[arg(long, default_value_t = 1000, requires_all = ["json", "quiet"])]
    #[arg(value_parser = clap::value_parser!(u64).range(10..=1000))]
    interval_ms: u64,

    /// Show nothing while it runs
    #[arg(short, long)]
    quiet: bool,
}

/// Connections with --sessions: each is a thread.
const SESSION_CLIENTS: u32 = 1000;

fn parse_exponent(text: &str) -> Result<f64, String> {
    let exponent: Option<f64> = text.parse().ok();
    let is_usable =
        |exponent: &f64| (0.0..=10.0).contains(exponent) && zipf(10, *exponent).is_some();
    exponent
        .filter(is_usable)
        .ok_or_else(|| "expected a number from 0 to 10, such as 0.99".to_owned())
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    if is_endpoint(text) {
        return Ok(text.to_owned());
    }
    Err("expected host:port, such as 127.0.0.1:7101".to_owned())
}

/// Runs a load and prints its result; tells whether there was no error.
pub fn run(arguments: &LoadArguments) -> io::Result<bool> {
    let endpoints = match arguments.leader {
        true => vec![find_leader(&arguments.connect)?],
        false => arguments.connect.clone(),
    };
    let plan = plan_of(arguments, &endpoints)?;
    if arguments.fill {
        fill(arguments)?;
    }
    let driver = driver_of(arguments)?;
    if arguments.sessions && arguments.clients > SESSION_CLIENTS {
        let text = format!("--sessions: at most {SESSION_CLIENTS} --clients, each is a thread");
        return Err(io::Error::other(text));
    }
    let threads = if arguments.sessions { arguments.clients } else { arguments.threads } as usize;
    let (report, seconds) = run_threads(&plan, driver, threads, arguments.quiet)?;
    if arguments.json {
        let mut result = report.json(run_json(arguments, &endpoints));
        let seconds = seconds.iter().map(|second| second.report.second_json(second.number));
        result["per_second"] = seconds.collect();
        println!("{result}");
    } else {
        print!("{}{}", report.table(&title(arguments, &endpoints)), report.distribution());
    }
    Ok(report.errors.is_empty() && report.requests() > 0)
}

/// Where clients reach the node that leads.
fn find_leader(endpoints: &[String]) -> io::Result<String> {
    let mut options = Options::new(endpoints.to_vec());
    options.wire = Wire::Text;
    let reply = Client::new(options).command(&["RAFT", "NODES"]).map_err(io::Error::other)?;
    let Value::Bulk(text) = reply else {
        return Err(io::Error::other("--leader: the server has no RAFT NODES"));
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let leads = text.lines().find(|line| line.contains(" role=leader "));
    let word = leads.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix("client=")));
    word.map(str::to_owned).ok_or_else(|| io::Error::other("--leader: no node leads"))
}

fn plan_of(arguments: &LoadArguments, endpoints: &[String]) -> io::Result<Plan> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for endpoint in endpoints {
        let mut found = endpoint
            .to_socket_addrs()
            .map_err(|error| io::Error::new(error.kind(), format!("{endpoint}: {error}")))?;
        addresses.extend(found.next());
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no endpoint has an address"));
    }
    Ok(Plan {
        addresses,
        workload: Workload {
            kind: arguments.workload,
            keys: arguments.keys,
            value_bytes: arguments.value_bytes as usize,
            read_percent: arguments.reads,
            zipf: arguments.zipf,
        },
        connections: arguments.clients as usize,
        pipeline: arguments.pipeline as usize,
        rate: arguments.rate.map(|rate| rate as f64),
        warm_up: Duration::from_secs(arguments.warm_up),
        measure: match arguments.requests {
            Some(requests) => worker::Measure::Requests(requests),
            None => worker::Measure::For(Duration::from_secs(arguments.seconds)),
        },
        interval: Duration::from_millis(arguments.interval_ms),
    })
}

/// What one thread of load is: it runs its share, and says what each second came to.
type Driver = fn(&Plan, usize, usize, &Sender<Second>) -> io::Result<Report>;

/// Which protocol is spoken.
fn driver_of(arguments: &LoadArguments) -> io::Result<Driver> {
    if arguments.sessions {
        return Ok(sessions::run);
    }
    #[cfg(feature = "etcd")]
    if arguments.etcd {
        return match arguments.workload {
            Kind::Set | Kind::Get | Kind::Mixed => Ok(etcd::run),
            Kind::Incr | Kind::Cas => Err(io::Error::other("--etcd: only set, get and mixed")),
        };
    }
    Ok(worker::run)
}

/// Keys that the fill sets by one command, and bytes of their values. Some servers take a connection's
/// commands one after the other, each through the log: a SET for each key would take minutes there.
const FILL_KEYS: usize = 100;
const FILL_COMMAND_BYTES: usize = 256 * 1024;

/// Commands of the fill that are under way.
const FILL_COMMANDS: usize = 10;

/// Sets all keys through one connection.
fn fill(arguments: &LoadArguments) -> io::Result<()> {
    #[cfg(feature = "etcd")]
    if arguments.etcd {
        return etcd::fill(&arguments.connect, arguments.keys, arguments.value_bytes as usize);
    }
    let mut options = Options::new(arguments.connect.clone());
    options.wire = Wire::Text;
    let mut client = Client::new(options);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let value = random_value(&mut rng, arguments.value_bytes as usize);
    let keys_each = (FILL_COMMAND_BYTES / (value.len() + 1)).clamp(1, FILL_KEYS) as u64;
    let mut number = 0;
    while number < arguments.keys {
        let mut commands: Vec<Vec<Vec<u8>>> = Vec::new();
        while commands.len() < FILL_COMMANDS && number < arguments.keys {
            let end = arguments.keys.min(number + keys_each);
            let mut words = vec![b"MSET".to_vec()];
            for key in number..end {
                words.extend([key_name(key).into_bytes(), value.clone()]);
            }
            commands.push(words);
            number = end;
        }
        for result in client.pipeline(&commands) {
            result.map_err(|error| io::Error::other(format!("filling the keys: {error}")))?;
        }
    }
    Ok(())
}

fn run_threads(
    plan: &Plan,
    driver: Driver,
    threads: usize,
    is_quiet: bool,
) -> io::Result<(Report, Vec<Second>)> {
    let threads = threads.min(plan.connections);
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let sender = sender.clone();
                scope.spawn(move || driver(plan, thread, threads, &sender))
            })
            .collect();
        // What is left are the workers' own: it is over when they are.
        drop(sender);
        let seconds = progress::follow(&receiver, threads, plan.measure, is_quiet);
        let mut total = Report::new();
        for handle in handles {
            match handle.join() {
                Ok(report) => total.merge(&report?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok((total, seconds))
    })
}

fn title(arguments: &LoadArguments, endpoints: &[String]) -> String {
    let kind = match arguments.workload {
        Kind::Mixed => format!("GET {} %, SET {} %", arguments.reads, 100 - arguments.reads),
        kind => format!("{kind:?}").to_uppercase(),
    };
    let rate = arguments.rate.map(|rate| format!("open loop, {rate} a second"));
    let zipf = arguments.zipf.map(|exponent| format!(" by Zipf's law, {exponent}"));
    format!(
        "{kind}: {}, {} {} to {}, pipeline {}, values of {} bytes, {} keys{}",
        rate.as_deref().unwrap_or("closed loop"),
        arguments.clients,
        if arguments.sessions { "sessions" } else { "connections" },
        endpoints.join(","),
        arguments.pipeline,
        arguments.value_bytes,
        arguments.keys,
        zipf.unwrap_or_default(),
    )
}

fn run_json(arguments: &LoadArguments, endpoints: &[String]) -> serde_json::Value {
    json!({
        "workload": format!("{:?}", arguments.workload).to_lowercase(),
        "loop": if arguments.rate.is_some() { "open" } else { "closed" },
        "rate": arguments.rate,
        "zipf": arguments.zipf,
        "endpoints": endpoints,
        "clients": arguments.clients,
        "pipeline": arguments.pipeline,
        "value_bytes": arguments.value_bytes,
        "keys": arguments.keys,
        "read_percent": arguments.reads,
        "warm_up_seconds": arguments.warm_up,
        "threads": arguments.threads,
        "filled": arguments.fill,
        "sessions": arguments.sessions,
        "interval_ms": arguments.interval_ms,
    })
}
