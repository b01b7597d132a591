//! The rows that are counted: what is asked for, and what one thing is varied in each family.
//!
//! Called by `main`. The expected counts of `bench/instructions.txt` go by the rows' names.

/// A command of the workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// SET of a random key that is there.
    Set,
    /// GET of a random key that is there, linearizable.
    Get,
    /// INCR of a random counter that is there.
    Incr,
}

/// One row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Which of the dimensions its family varies.
    pub family: &'static str,
    /// What the clients send.
    pub command: Command,
    /// Clients that send, all in the same turn.
    pub clients: usize,
    /// Commands that each of them sends at once.
    pub pipeline: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Keys in the store.
    pub keys: u64,
    /// Clients that are connected and silent.
    pub idle: usize,
    /// Nodes of the cluster.
    pub nodes: usize,
}

/// What is varied in a family stands in its rows; everything else is this.
const BASE: Row = Row {
    family: "",
    command: Command::Set,
    clients: 50,
    pipeline: 1,
    value_bytes: 64,
    keys: 1000,
    idle: 0,
    nodes: 3,
};

impl Row {
    /// The name, of one word.
    pub fn name(&self) -> String {
        let Row { family, clients, pipeline, value_bytes, keys, idle, nodes, .. } = self;
        let command = format!("{:?}", self.command).to_lowercase();
        let what = match *family {
            "batch" => format!("{clients}x{pipeline}"),
            "value" => format!("{value_bytes}"),
            "keys" => format!("{keys}"),
            "idle" => format!("{idle}"),
            "nodes" => format!("{nodes}"),
            other => unreachable!("no family {other}"),
        };
        format!("{family}/{command}/{what}")
    }

    /// Commands that are sent in one step.
    pub fn batch(&self) -> usize {
        self.clients * self.pipeline
    }
}

/// All rows. Those with a million keys and more take minutes to fill, and come with `deep` only.
pub fn rows(deep: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for command in [Command::Set, Command::Get, Command::Incr] {
        for (clients, pipeline) in [(1, 1), (10, 1), (50, 1), (256, 1), (50, 16), (50, 64)] {
            rows.push(Row { family: "batch", command, clients, pipeline, ..BASE });
        }
    }
    for command in [Command::Set, Command::Get] {
        for value_bytes in [16, 256, 1024, 16_384] {
            rows.push(Row { family: "value", command, value_bytes, ..BASE });
        }
        for nodes in [1, 3, 5] {
            rows.push(Row { family: "nodes", command, nodes, ..BASE });
        }
        for idle in [0, 1000, 9950] {
            rows.push(Row { family: "idle", command, idle, ..BASE });
        }
        for keys in [1000, 10_000, 100_000, 1_000_000, 10_000_000] {
            if keys < 1_000_000 || deep {
                // One node: what the others do with a key is the same.
                rows.push(Row { family: "keys", command, keys, nodes: 1, ..BASE });
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_have_names_of_their_own_and_deep_ones_come_with_deep_only() {
        let shallow: BTreeSet<String> = rows(false).iter().map(Row::name).collect();
        let deep: BTreeSet<String> = rows(true).iter().map(Row::name).collect();
        assert_eq!(deep.len(), rows(true).len(), "the expected counts go by names");
        let added: Vec<&String> = deep.difference(&shallow).collect();
        assert_eq!(added.len(), 4, "{added:?}");
        assert!(added.iter().all(|name| name.ends_with("000000")), "{added:?}");
    }
}
