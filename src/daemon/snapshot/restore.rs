//! `raftkvd snapshot restore FILE`: a data directory of a new cluster from a backup.
//!
//! Ours; design page 3, §3. The file is verified as a whole before the directory is touched. The
//! new cluster has one voter, this server, a lineage of its own, and a revision that is higher than
//! any that a client has ever seen. Called by `main`.

use std::process::ExitCode;

use rand::TryRng as _;
use rand::rngs::SysRng;

use raftkv::config::Config;
use raftkv::limits;
use raftkv::node::refound::{NewCluster, Refounding, refounded};
use raftkv::storage::founding::Founding;
use raftkv::types::Lineage;

use super::{each_piece, verify};
use crate::daemon::arguments::RestoreArguments;
use crate::daemon::{FAULT, USAGE, configuration, fail, storage_options};

/// Restores; 0, 1 or 2.
pub fn restore(arguments: &RestoreArguments) -> ExitCode {
    if !arguments.node.join.is_empty() {
        return fail(USAGE, "a restored server begins a cluster: it joins none (--join)");
    }
    let overrides = arguments.node.overrides();
    let config = match configuration(arguments.node.config.as_deref(), &overrides) {
        Ok(config) => config,
        Err(problem) => return fail(USAGE, &problem),
    };
    match restore_into(arguments, &config) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(problem) => fail(FAULT, &problem),
    }
}

fn restore_into(arguments: &RestoreArguments, config: &Config) -> Result<String, String> {
    let contents = verify(&arguments.file)?;
    let lineage = new_lineage()?;
    let options = storage_options(config);
    let mut founding = Founding::begin(&options, lineage).map_err(|error| error.to_string())?;
    let new = new_cluster(config, &founding);
    let id = refounded(&contents.header, &new).map_err(|error| error.to_string())?.id;
    let mut refounding = Refounding::new(new);
    each_piece(&arguments.file, "restoring", |bytes| {
        let mut made = Vec::new();
        refounding.feed(bytes, &mut made).map_err(|error| error.to_string())?;
        founding.write(id, made).map_err(|error| error.to_string())
    })?;
    let mut made = Vec::new();
    let (_, end) = refounding.finish(&mut made).map_err(|error| error.to_string())?;
    founding.write(id, made).map_err(|error| error.to_string())?;
    founding.finish().map_err(|error| error.to_string())?;
    let revision = contents.header.revision.0 + limits::RESTORE_REVISIONS;
    let (own, name) = (config.own(), &config.cluster.name);
    Ok(format!(
        "restored {} records into {}\n\
         server {} is the only member of a new cluster \"{name}\" (lineage {:016x})\n\
         revisions go on behind {revision}\n\
         start it; then, for each further server, with an empty data directory:\n  \
         raftkvd -c node.toml --id N --join {}\n  \
         rkv-cli -c {} RAFT ADD N peer-address client-address\n",
        end.records,
        config.data_dir.display(),
        config.id,
        lineage.0,
        own.peer,
        own.client,
    ))
}

/// A lineage that no cluster has had.
///
/// # Errors
/// The system has no randomness.
pub fn new_lineage() -> Result<Lineage, String> {
    let number = SysRng.try_next_u64().map_err(|error| format!("no randomness: {error}"))?;
    Ok(Lineage(number.max(1)))
}

/// The cluster whose only member this server is.
pub fn new_cluster(config: &Config, founding: &Founding) -> NewCluster {
    let own = config.own();
    NewCluster {
        cluster: founding.cluster(),
        server: config.id,
        incarnation: founding.incarnation(),
        peer: own.peer.clone(),
        client: own.client.clone(),
        http: own.http.clone().unwrap_or_default(),
    }
}
