//! What is sent: one command after the other for one connection, and what its reply must be.
//!
//! Called by `worker`. Keys and the choice of reads come from a seeded generator, so that two runs
//! send the same.

use clap::ValueEnum;
use raftkv::client::encode_command;
use raftkv::proto::reply_decoder::Value;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use rand_xoshiro::Xoshiro256PlusPlus;

/// The kinds of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// SET of a random key
    Set,
    /// GET of a random key
    Get,
    /// INCR of a random key (of its own key space)
    Incr,
    /// CAS of a key of the connection's own, each time to the next number (raftkv only)
    Cas,
    /// GET and SET of random keys: see --reads
    Mixed,
}

/// What all connections share.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What to send.
    pub kind: Kind,
    /// How many keys there are.
    pub keys: u64,
    /// The length of the values in bytes.
    pub value_bytes: usize,
    /// The share of reads of [`Kind::Mixed`], in percent.
    pub read_percent: u32,
    /// The exponent of Zipf's law, where some keys are used more often than others.
    pub zipf: Option<f64>,
}

/// A command in no protocol's words.
#[cfg(feature = "etcd")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plain {
    /// Its key.
    pub key: String,
    /// What to set it to; nothing to read it.
    pub value: Option<Vec<u8>>,
}

/// Makes the commands of one connection.
#[derive(Debug)]
pub struct Commands {
    workload: Workload,
    rng: Xoshiro256PlusPlus,
    /// How often the first, the second ... key is used.
    ranks: Option<Zipf<f64>>,
    value: Vec<u8>,
    /// The connection's own key, for [`Kind::Cas`].
    own_key: String,
    /// What the own key holds once all that was sent is done; `None` if that is not known.
    own_value: Option<u64>,
}

impl Commands {
    /// The commands of the connection with this number.
    pub fn new(workload: &Workload, connection: usize) -> Commands {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(connection as u64);
        Commands {
            value: random_value(&mut rng, workload.value_bytes),
            ranks: workload.zipf.and_then(|exponent| zipf(workload.keys, exponent)),
            workload: workload.clone(),
            rng,
            own_key: format!("bench:cas:{connection}"),
            own_value: None,
        }
    }

    /// Appends the next command.
    pub fn push_next(&mut self, out: &mut Vec<u8>) {
        match self.workload.kind {
            Kind::Set => self.push_set(out),
            Kind::Get => self.push_get(out),
            Kind::Incr => {
                let key = format!("bench:counter:{}", self.random_key());
                encode_command(&[&b"INCR"[..], key.as_bytes()], out);
            }
            Kind::Cas => self.push_cas(out),
            Kind::Mixed if self.rng.random_range(0..100) < self.workload.read_percent => {
                self.push_get(out);
            }
            Kind::Mixed => self.push_set(out),
        }
    }

    /// The next command of a workload that every key-value server has: GET and SET.
    #[cfg(feature = "etcd")]
    pub fn next_plain(&mut self) -> Plain {
        let is_read = match self.workload.kind {
            Kind::Get => true,
            Kind::Mixed => self.rng.random_range(0..100) < self.workload.read_percent,
            Kind::Set | Kind::Incr | Kind::Cas => false,
        };
        Plain { key: key_name(self.random_key()), value: (!is_read).then(|| self.value.clone()) }
    }

    /// The word under which a reply counts as an error, if it is one.
    pub fn error_of(&mut self, reply: &Value) -> Option<String> {
        let error = match reply {
            Value::Error(text) => Some(text.split(' ').next().unwrap_or_default().to_owned()),
            // A swap that did not take place although nobody else writes the key.
            Value::Integer(0 | -1) if self.workload.kind == Kind::Cas => {
                Some("not-swapped".to_owned())
            }
            _ => None,
        };
        if error.is_some() {
            self.forget();
        }
        error
    }

    /// What was sent may not have been done: begin anew where that matters.
    pub fn forget(&mut self) {
        self.own_value = None;
    }

    fn random_key(&mut self) -> u64 {
        match &self.ranks {
            None => self.rng.random_range(0..self.workload.keys),
            Some(ranks) => scatter(ranks.sample(&mut self.rng) as u64) % self.workload.keys,
        }
    }

    fn push_set(&mut self, out: &mut Vec<u8>) {
        let key = key_name(self.random_key());
        encode_command(&[&b"SET"[..], key.as_bytes(), &self.value], out);
    }

    fn push_get(&mut self, out: &mut Vec<u8>) {
        let key = key_name(self.random_key());
        encode_command(&[&b"GET"[..], key.as_bytes()], out);
    }

    fn push_cas(&mut self, out: &mut Vec<u8>) {
        let next = self.own_value.map_or(0, |value| value + 1);
        match self.own_value {
            None => encode_command(&["SET", &self.own_key, "0"], out),
            Some(value) => {
                let (old, new) = (value.to_string(), next.to_string());
                encode_command(&["CAS", &self.own_key, &old, &new], out);
            }
        }
        self.own_value = Some(next);
    }
}

/// Zipf's law for so many keys; nothing where the exponent is none.
pub fn zipf(keys: u64, exponent: f64) -> Option<Zipf<f64>> {
    Zipf::new(keys as f64, exponent).ok()
}

/// Mixes a number (the finaliser of SplitMix64), so that keys used often are not neighbours.
fn scatter(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The name of a key by its number.
pub fn key_name(number: u64) -> String {
    format!("bench:{number:012}")
}

/// Printable bytes that don't compress well.
pub fn random_value(rng: &mut impl Rng, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| rng.random_range(b'!'..=b'~')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftkv::proto::reply_decoder::ReplyDecoder;

    fn commands(kind: Kind) -> Commands {
        let workload = Workload { kind, keys: 10, value_bytes: 5, read_percent: 50, zipf: None };
        Commands::new(&workload, 3)
    }

    fn next(commands: &mut Commands) -> Vec<String> {
        let mut out = Vec::new();
        commands.push_next(&mut out);
        let Some(Value::Array(words)) = ReplyDecoder::new().decode(&mut &out[..]).unwrap() else {
            panic!("not one whole command");
        };
        let word = |value: &Value| match value {
            Value::Bulk(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            other => panic!("{other:?}"),
        };
        words.iter().map(word).collect()
    }

    #[test]
    fn push_next_stays_within_keys_and_sizes() {
        let mut commands = commands(Kind::Mixed);
        let mut reads = 0;
        for _ in 0..1000 {
            let words = next(&mut commands);
            assert!(words[1].as_str() < "bench:000000000010", "{words:?}");
            match words[0].as_str() {
                "GET" => reads += 1,
                _ => assert_eq!(words[2].len(), 5),
            }
        }
        assert!((400..600).contains(&reads), "{reads}");
    }

    #[test]
    fn random_key_by_zipfs_law_prefers_some_keys_and_stays_within_them() {
        let workload = Workload {
            kind: Kind::Get,
            keys: 1000,
            value_bytes: 5,
            read_percent: 50,
            zipf: Some(0.99),
        };
        let mut commands = Commands::new(&workload, 0);
        let mut counts = std::collections::BTreeMap::<u64, u32>::new();
        for _ in 0..10_000 {
            *counts.entry(commands.random_key()).or_default() += 1;
        }
        assert!(counts.keys().all(|key| *key < 1000));
        // 1 / (sum of 1 / i^0.99 for i up to 1000) is 13 %.
        let most = counts.values().max().unwrap();
        assert!((1000..1700).contains(most), "{most}");
        assert!(counts.len() > 300, "{}", counts.len());
    }

    #[test]
    fn push_next_of_cas_counts_on_until_something_fails() {
        let mut commands = commands(Kind::Cas);
        assert_eq!(next(&mut commands), ["SET", "bench:cas:3", "0"]);
        assert_eq!(next(&mut commands), ["CAS", "bench:cas:3", "0", "1"]);
        assert_eq!(commands.error_of(&Value::Integer(1)), None);
        assert_eq!(next(&mut commands), ["CAS", "bench:cas:3", "1", "2"]);
        assert_eq!(commands.error_of(&Value::Integer(0)).as_deref(), Some("not-swapped"));
        assert_eq!(next(&mut commands), ["SET", "bench:cas:3", "0"]);
    }

    #[test]
    fn error_of_is_the_first_word() {
        let error = Value::Error("CLUSTERDOWN no leader".to_owned());
        assert_eq!(commands(Kind::Set).error_of(&error).as_deref(), Some("CLUSTERDOWN"));
        assert_eq!(commands(Kind::Incr).error_of(&Value::Integer(0)), None);
    }
}
