//! The rows of CLUSTER and SENTINEL, for clients that ask where the leader is.
//!
//! Any node serves any client here, so nobody has to ask. Who wants to save the hop can: where the
//! configuration says `redirect = "moved"`, the leader is the one master that has all of Redis
//! Cluster's slots, and CLUSTER names it; SENTINEL names it anywhere. `node/redirects.rs` carries
//! them out; nothing here knows who leads.

use super::command::{Command, ConnectionCommand, Group, Handler, ROW};
use super::connection::{ADMIN, LOADING_STALE};
use crate::proto::args::Args;

/// How many hash slots Redis Cluster has.
pub const SLOTS: u16 = 16_384;

/// Which of them it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterCommand {
    /// `CLUSTER INFO`
    Info,
    /// `CLUSTER MYID`
    MyId,
    /// `CLUSTER NODES`
    Nodes,
    /// `CLUSTER SLOTS`
    Slots,
    /// `CLUSTER SHARDS`
    Shards,
    /// `CLUSTER KEYSLOT key`
    KeySlot,
    /// `SENTINEL GET-MASTER-ADDR-BY-NAME name`
    MasterAddress,
    /// `SENTINEL MASTERS`
    Masters,
    /// `SENTINEL MASTER name`
    Master,
    /// `SENTINEL REPLICAS name`, `SENTINEL SLAVES name`
    Replicas,
    /// `SENTINEL SENTINELS name`
    Sentinels,
}

impl ClusterCommand {
    /// Whether it is one of CLUSTER's, which are refused where no client is redirected.
    pub fn is_cluster(self) -> bool {
        use ClusterCommand as C;
        matches!(self, C::Info | C::MyId | C::Nodes | C::Slots | C::Shards | C::KeySlot)
    }
}

const fn row(name: &'static str, arity: i32, command: ClusterCommand) -> Command {
    let command = ConnectionCommand::Cluster(command);
    let handler = Handler::Connection { check: |_: Args<'_>| Ok(()), command };
    Command { name, arity, handler, group: Group::Cluster, flags: LOADING_STALE, ..ROW }
}

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "cluster",
        arity: -2,
        group: Group::Cluster,
        since: "3.0.0",
        complexity: "Depends on subcommand.",
        summary: "A container for cluster commands",
        subcommands: CLUSTER,
        ..ROW
    },
    Command {
        name: "sentinel",
        arity: -2,
        group: Group::Sentinel,
        since: "2.8.4",
        complexity: "Depends on subcommand.",
        summary: "A container for Sentinel commands, which name the leader",
        subcommands: SENTINEL,
        ..ROW
    },
];

const CLUSTER: &[Command] = &[
    Command {
        since: "3.0.0",
        summary: "Provides info about the cluster's state, in the words of Redis Cluster",
        ..row("cluster|info", 2, ClusterCommand::Info)
    },
    Command {
        since: "3.0.0",
        summary: "Return this node's name in Redis Cluster's form",
        ..row("cluster|myid", 2, ClusterCommand::MyId)
    },
    Command {
        since: "3.0.0",
        complexity: "O(N) where N is the total number of nodes",
        summary: "Get the members, the leader as the master of all slots",
        ..row("cluster|nodes", 2, ClusterCommand::Nodes)
    },
    Command {
        since: "3.0.0",
        complexity: "O(N) where N is the total number of nodes",
        summary: "Get which node has which slots: the leader has all of them",
        tips: &["nondeterministic_output"],
        ..row("cluster|slots", 2, ClusterCommand::Slots)
    },
    Command {
        since: "7.0.0",
        complexity: "O(N) where N is the total number of nodes",
        summary: "Get which nodes have which slots: there is one shard",
        tips: &["nondeterministic_output"],
        ..row("cluster|shards", 2, ClusterCommand::Shards)
    },
    Command {
        since: "3.0.0",
        complexity: "O(N) where N is the number of bytes in the key",
        summary: "Returns the hash slot of the specified key",
        usage: "key",
        ..row("cluster|keyslot", 3, ClusterCommand::KeySlot)
    },
];

const fn sentinel(name: &'static str, arity: i32, command: ClusterCommand) -> Command {
    let usage = if arity == 3 { "master-name" } else { "" };
    let since = "2.8.4";
    Command { group: Group::Sentinel, flags: ADMIN, usage, since, ..row(name, arity, command) }
}

const SENTINEL: &[Command] = &[
    Command {
        summary: "Get the leader's address for clients; the name is the cluster's",
        ..sentinel("sentinel|get-master-addr-by-name", 3, ClusterCommand::MasterAddress)
    },
    Command {
        summary: "Show the leader, as the one master that is monitored",
        ..sentinel("sentinel|masters", 2, ClusterCommand::Masters)
    },
    Command {
        summary: "Show the leader",
        ..sentinel("sentinel|master", 3, ClusterCommand::Master)
    },
    Command {
        summary: "Show the members that don't lead",
        ..sentinel("sentinel|replicas", 3, ClusterCommand::Replicas)
    },
    Command {
        summary: "Show the members that don't lead",
        ..sentinel("sentinel|slaves", 3, ClusterCommand::Replicas)
    },
    Command {
        summary: "Show the other members, each of which answers SENTINEL too",
        ..sentinel("sentinel|sentinels", 3, ClusterCommand::Sentinels)
    },
];

/// A key's hash slot in Redis Cluster: CRC16 (XMODEM) of the key, or of what stands between the
/// first `{` and the next `}` behind it, if that is something.
pub fn key_slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let inner = &key[open + 1..];
        let close = inner.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &inner[..close])
    });
    let crc = tag.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        let mut crc = crc ^ u16::from(*byte) << 8;
        for _ in 0..8 {
            let carries = crc & 0x8000 != 0;
            crc <<= 1;
            if carries {
                crc ^= 0x1021;
            }
        }
        crc
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a Redis 7.0 in cluster mode.
    #[test]
    fn key_slot_is_redis_cluster_s() {
        let slots: [(&[u8], u16); 7] = [
            (b"123456789", 12_739),
            (b"foo", 12_182),
            (b"bar", 5061),
            (b"{foo}bar", 12_182),
            (b"x{foo}{bar}", 12_182),
            (b"{}foo", 9500),
            (b"", 0),
        ];
        for (key, slot) in slots {
            assert_eq!(key_slot(key), slot, "{}", key.escape_ascii());
        }
    }
}
