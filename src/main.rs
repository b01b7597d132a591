//! raftkvd: one node of a raftkv cluster, and the tools around it.
//!
//! Parses the command line and hands over to `daemon`. See `raftkvd --help`.
#![deny(unsafe_code)]

mod daemon;

use std::process::ExitCode;

use clap::Parser as _;
use daemon::arguments::{Arguments, SnapshotSubcommands, Subcommands};
use daemon::{recover_quorum, snapshot};
use raftkv::storage::pages::StorePages;

#[global_allocator]
static ALLOCATOR: StorePages = StorePages;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        None => daemon::run::run(&arguments),
        Some(Subcommands::Check(node)) => daemon::check::check(node),
        Some(Subcommands::Demo(demo)) => daemon::demo::demo(demo),
        Some(Subcommands::Snapshot { command }) => match command {
            SnapshotSubcommands::Restore(restore) => snapshot::restore::restore(restore),
            SnapshotSubcommands::Inspect { file, json } => snapshot::inspect::inspect(file, *json),
        },
        Some(Subcommands::RecoverQuorum(recover)) => recover_quorum::recover_quorum(recover),
        Some(Subcommands::Verify(verify)) => daemon::inspect::verify(verify),
        Some(Subcommands::Inspect(inspect)) => daemon::inspect::inspect(inspect),
    }
}
