//! The sequential store that a history is held against: commands on a few keys, values by number.
//!
//! Semantics: Redis's, as `kv/` documents them, written again from the specification so that a
//! mistake there is not repeated here. Called by `search`. Never looks at times or clients.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::history::{Answer, Command};
use super::transaction::Transaction;
use crate::proto::integer::{parse_integer, push_integer};

/// A value by its number; [`ABSENT`] for none.
pub(super) type ValueId = u32;

/// No value: the key does not exist.
pub(super) const ABSENT: ValueId = 0;

/// An integer that nothing still to come tells from another one (see `told`).
pub(super) const SOME_INTEGER: ValueId = 1;

/// Likewise any other value.
pub(super) const SOME_TEXT: ValueId = 2;

/// Values and their numbers. Numbers are given in the order of first use, so that they are the
/// same in each run; the map is only ever looked up.
pub(super) struct Values {
    numbers: HashMap<Rc<[u8]>, ValueId>,
    /// What each number stands for; the first three are the places of the constants above.
    words: Vec<Rc<[u8]>>,
}

impl Values {
    pub fn new() -> Values {
        Values { numbers: HashMap::new(), words: vec![Rc::from([]); 3] }
    }

    fn number(&mut self, word: &[u8]) -> ValueId {
        if let Some(&known) = self.numbers.get(word) {
            return known;
        }
        let number = ValueId::try_from(self.words.len()).expect("the budget is far below 2^32");
        let word: Rc<[u8]> = word.into();
        self.words.push(Rc::clone(&word));
        self.numbers.insert(word, number);
        number
    }

    /// The number of an integer's text.
    pub fn integer(&mut self, integer: i64) -> ValueId {
        let mut text = Vec::new();
        push_integer(&mut text, integer);
        self.number(&text)
    }

    /// The bytes of a value, or `None` for the absent one.
    pub fn word(&self, value: ValueId) -> Option<&[u8]> {
        (value != ABSENT).then(|| &*self.words[value as usize])
    }

    /// The integer that a value is, if it is one.
    pub fn as_integer(&self, value: ValueId) -> Option<i64> {
        self.word(value).and_then(parse_integer)
    }

    fn length(&self, value: ValueId) -> i64 {
        i64::try_from(self.words[value as usize].len()).expect("values are far below 2^63 bytes")
    }
}

/// An answer in numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Result {
    Ok,
    Integer(i64),
    Value(ValueId),
    Values(Vec<ValueId>),
    /// Of a transaction: whether its compares held, and what came of that branch.
    Replies(bool, Vec<Result>),
    Error,
}

/// A command in numbers: keys are places in the state.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Action {
    Get(usize),
    Strlen(usize),
    Exists(Vec<usize>),
    MGet(Vec<usize>),
    /// SET and MSET.
    Put(Vec<(usize, ValueId)>),
    PutNew(usize, ValueId),
    Delete(Vec<usize>),
    /// CAS, and CAD with [`ABSENT`] as the new value.
    Swap {
        key: usize,
        old: ValueId,
        new: ValueId,
    },
    Add(usize, i64),
    Append(usize, ValueId),
    /// GET, SET and DEL in both branches, and nothing else.
    Transaction {
        compares: Vec<(usize, ValueId)>,
        then: Vec<Action>,
        otherwise: Vec<Action>,
    },
}

impl Action {
    /// `places` maps the keys to their places.
    pub fn new(command: &Command, places: &BTreeMap<&[u8], usize>, values: &mut Values) -> Action {
        let at = |key: &[u8]| places[key];
        let all = |keys: &[Vec<u8>]| keys.iter().map(|key| places[key.as_slice()]).collect();
        match command {
            Command::Get { key } => Action::Get(at(key)),
            Command::Strlen { key } => Action::Strlen(at(key)),
            Command::Exists { keys } => Action::Exists(all(keys)),
            Command::MGet { keys } => Action::MGet(all(keys)),
            Command::Set { key, value } => Action::Put(vec![(at(key), values.number(value))]),
            Command::MSet { pairs } => {
                let pair = |(key, value): &(Vec<u8>, Vec<u8>)| (at(key), values.number(value));
                Action::Put(pairs.iter().map(pair).collect())
            }
            Command::SetNx { key, value } => Action::PutNew(at(key), values.number(value)),
            Command::Del { keys } => Action::Delete(all(keys)),
            Command::Cas { key, old, new } => {
                Action::Swap { key: at(key), old: values.number(old), new: values.number(new) }
            }
            Command::Cad { key, old } => {
                Action::Swap { key: at(key), old: values.number(old), new: ABSENT }
            }
            Command::Incr { key, by } => Action::Add(at(key), *by),
            Command::Append { key, tail } => Action::Append(at(key), values.number(tail)),
            Command::Transaction(Transaction { compares, then, otherwise }) => {
                let compare = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
                    let value = value.as_ref().map_or(ABSENT, |value| values.number(value));
                    (at(key), value)
                };
                let compares = compares.iter().map(compare).collect();
                let mut all = |branch: &[Command]| {
                    branch.iter().map(|one| Action::new(one, places, values)).collect()
                };
                Action::Transaction { compares, then: all(then), otherwise: all(otherwise) }
            }
        }
    }

    /// What the answer is in numbers.
    pub fn result(&self, answer: &Answer, values: &mut Values) -> Result {
        if let (Action::Transaction { .. }, Answer::Replies { held, replies }) = (self, answer) {
            let actions = self.branch(*held);
            if actions.len() != replies.len() {
                return Result::Error;
            }
            let results = actions.iter().zip(replies).map(|(one, reply)| one.result(reply, values));
            return Result::Replies(*held, results.collect());
        }
        let mut number = |word: &Option<Vec<u8>>| match word {
            Some(word) => values.number(word),
            None => ABSENT,
        };
        match (self, answer) {
            // SETNX and SET NX are one command with two ways to say so.
            (Action::PutNew(..), Answer::Ok) => Result::Integer(1),
            (Action::PutNew(..), Answer::Nil) => Result::Integer(0),
            (_, Answer::Ok) => Result::Ok,
            (_, Answer::Nil) => Result::Value(ABSENT),
            (_, Answer::Integer(number)) => Result::Integer(*number),
            (_, Answer::Value(word)) => Result::Value(values.number(word)),
            (_, Answer::Values(words)) => Result::Values(words.iter().map(&mut number).collect()),
            (_, Answer::Error(_) | Answer::Replies { .. }) => Result::Error,
        }
    }

    /// What a transaction does where its compares hold, or don't; nothing of any other command.
    pub fn branch(&self, held: bool) -> &[Action] {
        match self {
            Action::Transaction { then, .. } if held => then,
            Action::Transaction { otherwise, .. } => otherwise,
            _ => &[],
        }
    }

    /// Runs it on `state`.
    pub fn run(&self, state: &mut [ValueId], values: &mut Values) -> Result {
        match self {
            Action::Get(key) => Result::Value(state[*key]),
            Action::Strlen(key) => Result::Integer(values.length(state[*key])),
            Action::Exists(keys) => count(keys.iter().filter(|key| state[**key] != ABSENT).count()),
            Action::MGet(keys) => Result::Values(keys.iter().map(|key| state[*key]).collect()),
            Action::Put(pairs) => {
                for (key, value) in pairs {
                    state[*key] = *value;
                }
                Result::Ok
            }
            Action::PutNew(key, value) => {
                let absent = state[*key] == ABSENT;
                if absent {
                    state[*key] = *value;
                }
                Result::Integer(i64::from(absent))
            }
            Action::Delete(keys) => {
                let mut deleted = 0;
                for key in keys {
                    deleted += usize::from(state[*key] != ABSENT);
                    state[*key] = ABSENT;
                }
                count(deleted)
            }
            Action::Swap { key, old, new } => match state[*key] {
                ABSENT => Result::Integer(-1),
                value if value != *old => Result::Integer(0),
                _ => {
                    state[*key] = *new;
                    Result::Integer(1)
                }
            },
            // The sum is known to nobody, and so fits no answer.
            Action::Add(key, _) if state[*key] == SOME_INTEGER => Result::Value(SOME_INTEGER),
            Action::Add(key, by) => {
                let current = match values.word(state[*key]) {
                    Some(word) => parse_integer(word),
                    None => Some(0),
                };
                let Some(sum) = current.and_then(|current| current.checked_add(*by)) else {
                    return Result::Error;
                };
                state[*key] = values.integer(sum);
                Result::Integer(sum)
            }
            Action::Append(key, tail) => {
                let mut word = values.word(state[*key]).unwrap_or_default().to_vec();
                word.extend_from_slice(values.word(*tail).unwrap_or_default());
                state[*key] = values.number(&word);
                Result::Integer(values.length(state[*key]))
            }
            Action::Transaction { compares, .. } => {
                let held = compares.iter().all(|(key, value)| state[*key] == *value);
                let results = self.branch(held).iter().map(|one| one.run(state, values));
                Result::Replies(held, results.collect())
            }
        }
    }

    /// Whether it changed nothing, wherever it was, if it was answered `result`.
    pub fn changes_nothing(&self, result: &Result) -> bool {
        match self {
            Action::Get(_) | Action::Strlen(_) | Action::Exists(_) | Action::MGet(_) => true,
            Action::Put(_) | Action::Append(..) => false,
            Action::PutNew(..) | Action::Delete(_) => *result == Result::Integer(0),
            Action::Swap { .. } => *result != Result::Integer(1),
            Action::Add(..) => *result == Result::Error,
            Action::Transaction { .. } => match result {
                Result::Replies(held, results) => {
                    let mut branch = self.branch(*held).iter().zip(results);
                    branch.all(|(one, result)| one.changes_nothing(result))
                }
                _ => true,
            },
        }
    }

    /// The keys it touches.
    pub fn keys(&self) -> Vec<usize> {
        match self {
            Action::Get(key)
            | Action::Strlen(key)
            | Action::PutNew(key, _)
            | Action::Swap { key, .. }
            | Action::Add(key, _)
            | Action::Append(key, _) => vec![*key],
            Action::Exists(keys) | Action::MGet(keys) | Action::Delete(keys) => keys.clone(),
            Action::Put(pairs) => pairs.iter().map(|(key, _)| *key).collect(),
            Action::Transaction { compares, then, otherwise } => {
                let compared = compares.iter().map(|(key, _)| *key);
                compared.chain(then.iter().chain(otherwise).flat_map(Action::keys)).collect()
            }
        }
    }

    /// Whether it could answer `result` in some state in which `key` holds `value`. May say yes
    /// where the truth is no, never the reverse.
    pub fn fits(&self, result: &Result, key: usize, value: ValueId, values: &mut Values) -> bool {
        match (self, result) {
            (Action::MGet(keys), Result::Values(seen)) => {
                keys.len() == seen.len()
                    && keys.iter().zip(seen).all(|(one, seen)| *one != key || *seen == value)
            }
            (Action::Exists(_) | Action::Delete(_), Result::Integer(0)) => value == ABSENT,
            (Action::Exists(keys) | Action::Delete(keys), Result::Integer(number))
                if usize::try_from(*number) == Ok(keys.len()) =>
            {
                value != ABSENT
            }
            // An answer about several keys says little about one; a Put answers always the same.
            (Action::Exists(_) | Action::Delete(_) | Action::Put(_) | Action::MGet(_), _) => true,
            (Action::Transaction { .. }, _) => true,
            _ => {
                let mut state = vec![ABSENT; key + 1];
                state[key] = value;
                self.run(&mut state, values) == *result
            }
        }
    }
}

fn count(number: usize) -> Result {
    Result::Integer(i64::try_from(number).expect("keys of one command"))
}
