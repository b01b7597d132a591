//! Lineages: no server with data of the cluster before a restore is heard in the one after it.
//!
//! Ours: a restore from a backup, and the recovery of a lost quorum, start a new cluster under the
//! old name. Its number, drawn at random, is part of the cluster's identity in every message and in
//! every hello. A blank server takes over the lineage of whoever admits it; one with data keeps its
//! own for good. Called by `handshake.rs` for every hello. Never changes a server that has data.

use std::collections::BTreeSet;

use super::node::Node;
use crate::limits;
use crate::proto::hello::{Hello, HelloRefused, Refusal};
use crate::types::{ClusterId, Lineage, ServerId};

/// Which cluster of its name a server belongs to.
#[derive(Debug)]
pub(super) struct Descent {
    pub lineage: Lineage,
    /// Servers with data of another one, that were told of in the log.
    strangers: BTreeSet<ServerId>,
}

impl Descent {
    /// As the data directory has it.
    pub fn new(lineage: Lineage) -> Descent {
        Descent { lineage, strangers: BTreeSet::new() }
    }
}

impl Node {
    /// Whether this server has no data: neither log nor snapshot.
    pub(super) fn is_blank(&self) -> bool {
        let log = self.raft.log();
        log.last_index() == log.base().last.index && self.raft.membership().is_empty()
    }

    /// Whether the sender's data, and ours, can be of one cluster.
    pub(super) fn check_lineage(&mut self, hello: &Hello) -> Result<(), HelloRefused> {
        if hello.lineage == self.descent.lineage || hello.is_blank != self.is_blank() {
            return Ok(());
        }
        let text = lineage_text(hello, self.identity.server, self.descent.lineage);
        if !hello.is_blank {
            self.tell_stranger(hello.sender, format!("refused a server: {text}"));
        }
        Err(HelloRefused { code: Refusal::Lineage, text })
    }

    /// Said once of each server in the log.
    pub(super) fn tell_stranger(&mut self, server: ServerId, text: String) {
        if self.descent.strangers.len() < limits::MEMBERS && self.descent.strangers.insert(server) {
            self.notice(text);
        }
    }

    /// The cluster that this server and one of that lineage are in together, once the hello is
    /// accepted.
    pub(super) fn cluster_of(&self, lineage: Lineage, is_blank: bool) -> ClusterId {
        match is_blank || lineage == self.descent.lineage {
            true => self.identity.cluster,
            false => ClusterId::from_name(&self.config.cluster.name).of_lineage(lineage),
        }
    }

    /// A hello was accepted: if this server is blank, and the sender isn't, it belongs to the
    /// sender's cluster from now on. Returns the lineage if it is another one than before.
    pub(super) fn adopt(&mut self, cluster: ClusterId, lineage: Lineage) -> Option<Lineage> {
        if cluster == self.identity.cluster {
            return None;
        }
        assert!(self.is_blank(), "a server with data keeps its lineage");
        self.identity.cluster = cluster;
        self.descent.lineage = lineage;
        for peer in self.known_peers.values_mut() {
            peer.cluster = cluster;
        }
        self.notice(format!(
            "belongs to the cluster's lineage {:016x} from now on, which admits it",
            lineage.0
        ));
        Some(lineage)
    }
}

/// What is said where two lineages meet; it fits [`limits::REFUSAL_BYTES`].
fn lineage_text(hello: &Hello, own: ServerId, lineage: Lineage) -> String {
    let (peer, theirs) = (hello.sender, hello.lineage);
    if hello.is_blank {
        return format!(
            "neither server {peer} nor server {own} has data, and they were admitted to different \
             lineages of the cluster"
        );
    }
    let before = match (theirs, lineage) {
        (Lineage::ZERO, _) => format!("server {peer}"),
        (_, Lineage::ZERO) => format!("server {own}"),
        _ => "one of them".to_owned(),
    };
    format!(
        "server {peer} has data of lineage {:016x}, server {own} of {:016x}: a restore lies \
         between them, and {before} belongs to the cluster before it; with an empty data \
         directory it can join the other",
        theirs.0, lineage.0
    )
}
