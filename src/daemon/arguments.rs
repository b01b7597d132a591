//! The command line, as clap reads it; its doc comments are what `--help` prints.
//!
//! Called by `main`. A wrong command line ends the process with 2 before anything was touched.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use raftkv::config::Overrides;
use raftkv::types::ServerId;

/// A small, durable, strongly consistent key-value server that speaks Redis's protocol.
///
/// Three or five nodes keep the same data by Raft, and every one of them serves every client.
/// Without a file it runs a single node: data in ./raftkv-data, clients on 127.0.0.1:7101. To see a
/// cluster at once, run `raftkvd demo`.
///
/// Exit codes: 0 ended cleanly, 1 a fault while running, 2 a wrong command line or configuration.
#[derive(Parser, Debug)]
#[command(name = "raftkvd", version, disable_help_subcommand = true)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(flatten)]
    pub node: NodeArguments,

    /// End when the process with this id, which is our parent, ends: what `demo` asks its nodes.
    #[arg(long, value_name = "PID", hide = true)]
    pub end_with_parent: Option<i32>,

    #[command(subcommand)]
    pub command: Option<Subcommands>,
}

#[derive(Args, Debug)]
pub struct NodeArguments {
    /// The node's configuration; it is the same on all nodes but for `id` and `data_dir`
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Which of the listed nodes this is; beats the file's `id`
    #[arg(long, value_name = "N")]
    pub id: Option<u64>,

    /// Where the node's files are; beats the file's `data_dir`
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Join the cluster whose members have these peer addresses, instead of founding one; of
    /// FILE's nodes only this one counts. It waits until it is added: RAFT ADD, to any member
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    pub join: Vec<String>,
}

impl NodeArguments {
    /// What beats the file.
    pub fn overrides(&self) -> Overrides {
        let (id, data_dir) = (self.id.map(ServerId), self.data_dir.clone());
        Overrides { id, data_dir, join: self.join.clone() }
    }
}

#[derive(Subcommand, Debug)]
pub enum Subcommands {
    /// Run a whole cluster on this machine, to look at and to break
    ///
    /// Writes a configuration for each node into DIR, runs that many real nodes as processes of
    /// their own, and prints how to talk to them. Ctrl-C ends them; run it again and it goes on
    /// with the data that is there.
    Demo(DemoArguments),

    /// Print what a configuration would run, and run nothing; exit code 2 if it has a mistake
    Check(NodeArguments),

    /// Look into a backup, or make a data directory of one
    ///
    /// `rkv-cli snapshot save FILE` makes a backup of a cluster that runs.
    Snapshot {
        #[command(subcommand)]
        command: SnapshotSubcommands,
    },

    /// Go on with this server alone, when a majority of the members is gone for good
    ///
    /// For a stopped node. Keeps all that its log holds, keeps the old files beside, and makes it
    /// the only member of a new cluster of the same name. What was acknowledged and never reached
    /// this node is lost. It says what it is about to do, and asks.
    RecoverQuorum(RecoverArguments),

    /// Check every byte of a stopped node's data directory, and change nothing
    ///
    /// Prints a line for each file, and what a start would do. Exit code 0 if all is sound, 1 with
    /// the first bad byte's file and offset if not. A last write that a crash has torn is sound: it
    /// was never acknowledged.
    Verify(VerifyArguments),

    /// Show what a stopped node's data directory holds, and change nothing
    Inspect(InspectArguments),
}

#[derive(Subcommand, Debug)]
pub enum SnapshotSubcommands {
    /// Make a data directory from a backup: a new cluster, whose only member is this server
    ///
    /// The whole file is verified first; a directory that isn't empty is refused. Revisions go on
    /// 2^40 higher, so that no fencing token that a client has seen comes again. Further servers
    /// join with empty directories (`--join`, RAFT ADD).
    Restore(RestoreArguments),

    /// Verify a backup from its first byte to its last, and say what it holds
    Inspect {
        /// The backup
        file: PathBuf,

        /// One line of JSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
pub struct RestoreArguments {
    /// The backup
    pub file: PathBuf,

    #[command(flatten)]
    pub node: NodeArguments,
}

#[derive(Args, Debug)]
pub struct RecoverArguments {
    #[command(flatten)]
    pub node: NodeArguments,

    /// Do it without asking
    #[arg(long)]
    pub yes_i_lost_the_majority_for_good: bool,
}

#[derive(Args, Debug)]
pub struct VerifyArguments {
    /// The data directory, or one that was set aside (damaged-N) [default: FILE's]
    #[arg(required_unless_present = "config")]
    pub dir: Option<PathBuf>,

    /// A node's configuration: whether the directory is this node's, of this cluster, is checked too
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Which of FILE's nodes; beats its `id`
    #[arg(long, value_name = "N", requires = "config")]
    pub id: Option<u64>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct InspectArguments {
    /// The data directory, or one that was set aside (damaged-N)
    pub dir: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// List every record of the log that can be read, a line (or a JSON document) each
    #[arg(long)]
    pub log: bool,
}

#[derive(Args, Debug)]
pub struct DemoArguments {
    /// How many nodes [default: 3, or what DIR holds]
    #[arg(long, value_name = "N")]
    pub nodes: Option<u16>,

    /// Where the nodes' configurations, data and logs are
    #[arg(long, value_name = "DIR", default_value = "./raftkv-demo")]
    pub dir: PathBuf,

    /// Node N serves clients on this port + N, peers on + 100 + N [default: 7100, or what DIR
    /// holds]
    #[arg(long, value_name = "PORT")]
    pub base_port: Option<u16>,
}
