//! A load run: arguments, threads, the progress line, the result.
//!
//! Called by `main`. The load itself is in `worker`.

use std::io::{self, IsTerminal};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use raftkv::client::{Client, Options, Wire};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::json;

use crate::report::Report;
use crate::worker::{self, Plan};
use crate::workload::{Kind, Workload, key_name, random_value};

/// The command line of a load run.
#[derive(Args, Debug)]
pub struct LoadArguments {
    /// The nodes; connections are spread over them
    #[arg(short, long = "connect", value_name = "HOST:PORT,...", value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:7101")]
    connect: Vec<String>,

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

    /// Set every key before the run, so that GET finds something
    #[arg(long)]
    fill: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs a load and prints its result; tells whether there was no error.
pub fn run(arguments: &LoadArguments) -> io::Result<bool> {
    let plan = plan_of(arguments)?;
    if arguments.fill {
        fill(arguments)?;
    }
    let report = run_threads(&plan, arguments.threads as usize)?;
    if arguments.json {
        println!("{}", report.json(run_json(arguments)));
    } else {
        print!("{}", report.table(&title(arguments)));
    }
    Ok(report.errors.is_empty() && report.requests() > 0)
}

fn plan_of(arguments: &LoadArguments) -> io::Result<Plan> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for endpoint in &arguments.connect {
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
        },
        connections: arguments.clients as usize,
        pipeline: arguments.pipeline as usize,
        warm_up: Duration::from_secs(arguments.warm_up),
        measure: match arguments.requests {
            Some(requests) => worker::Measure::Requests(requests),
            None => worker::Measure::For(Duration::from_secs(arguments.seconds)),
        },
    })
}

/// Sets all keys through one connection.
fn fill(arguments: &LoadArguments) -> io::Result<()> {
    let mut options = Options::new(arguments.connect.clone());
    options.wire = Wire::Text;
    let mut client = Client::new(options);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let value = random_value(&mut rng, arguments.value_bytes as usize);
    let mut number = 0;
    while number < arguments.keys {
        let end = arguments.keys.min(number + 1000);
        let commands: Vec<Vec<Vec<u8>>> = (number..end)
            .map(|number| vec![b"SET".to_vec(), key_name(number).into_bytes(), value.clone()])
            .collect();
        for result in client.pipeline(&commands) {
            result.map_err(|error| io::Error::other(format!("filling the keys: {error}")))?;
        }
        number = end;
    }
    Ok(())
}

fn run_threads(plan: &Plan, threads: usize) -> io::Result<Report> {
    let threads = threads.min(plan.connections);
    let answered = AtomicU64::new(0);
    let running = AtomicUsize::new(threads);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (answered, running) = (&answered, &running);
                scope.spawn(move || {
                    let report = worker::run(plan, thread, threads, answered);
                    running.fetch_sub(1, Ordering::Release);
                    report
                })
            })
            .collect();
        if io::stderr().is_terminal() {
            show_progress(&answered, &running);
        }
        let mut total = Report::new();
        for handle in handles {
            match handle.join() {
                Ok(report) => total.merge(&report?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(total)
    })
}

fn show_progress(answered: &AtomicU64, running: &AtomicUsize) {
    let style = ProgressStyle::with_template("{elapsed_precise} {pos} answered, {per_sec}")
        .expect("the template is a constant and well-formed");
    let bar = ProgressBar::no_length().with_style(style);
    while running.load(Ordering::Acquire) > 0 {
        bar.set_position(answered.load(Ordering::Relaxed));
        thread::sleep(Duration::from_millis(100));
    }
    bar.finish_and_clear();
}

fn title(arguments: &LoadArguments) -> String {
    let kind = match arguments.workload {
        Kind::Mixed => format!("GET {} %, SET {} %", arguments.reads, 100 - arguments.reads),
        kind => format!("{kind:?}").to_uppercase(),
    };
    format!(
        "{kind}: closed loop, {} connections to {}, pipeline {}, values of {} bytes, {} keys",
        arguments.clients,
        arguments.connect.join(","),
        arguments.pipeline,
        arguments.value_bytes,
        arguments.keys,
    )
}

fn run_json(arguments: &LoadArguments) -> serde_json::Value {
    json!({
        "workload": format!("{:?}", arguments.workload).to_lowercase(),
        "loop": "closed",
        "endpoints": arguments.connect,
        "clients": arguments.clients,
        "pipeline": arguments.pipeline,
        "value_bytes": arguments.value_bytes,
        "keys": arguments.keys,
        "read_percent": arguments.reads,
        "warm_up_seconds": arguments.warm_up,
        "threads": arguments.threads,
        "filled": arguments.fill,
    })
}
