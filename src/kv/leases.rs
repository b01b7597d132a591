//! Leases: keys that die together, when the lease that they are attached to ends.
//!
//! Ours; etcd's leases are the model. A lease ends by the store's clock, as a key does: from then on
//! its keys are invisible, and they are removed a few with each entry. Who is attached to what
//! stands in a table of its own, because few keys are: a record has no field for it. Called by
//! `store.rs` and by the commands in `lease.rs`; reads no clock of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use byteorder::{ByteOrder, LittleEndian};

use super::error::CommandError;
use super::store::Store;
use crate::limits;
use crate::types::{ClusterTime, LeaseId};

/// What a lease, and a key that is attached to one, are estimated to take beside the key's bytes,
/// which stand here once.
const LEASE_BYTES: usize = 160;
const ATTACHED_BYTES: usize = 96;

/// One lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// How long it lasts from when it was granted or kept alive.
    pub ttl_ms: u64,
    /// When it ends, by the cluster clock.
    pub deadline: ClusterTime,
    /// The keys that end with it, in order.
    pub keys: BTreeSet<Arc<[u8]>>,
}

/// All leases.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Leases {
    /// A snapshot that is being taken shares them as they were: who changes then makes a copy.
    table: BTreeMap<LeaseId, Arc<Lease>>,
    /// The one that ends first comes first.
    by_deadline: BTreeSet<(ClusterTime, LeaseId)>,
    by_key: BTreeMap<Arc<[u8]>, LeaseId>,
    bytes: usize,
    /// Changes with everything that happens to a lease.
    folded: u64,
}

impl Leases {
    /// How many keys are attached, the dead ones included.
    pub fn keys(&self) -> usize {
        self.by_key.len()
    }

    /// An estimate of the memory that all this takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A lease that has not ended.
    pub fn get(&self, id: LeaseId, now: ClusterTime) -> Option<&Lease> {
        self.table.get(&id).map(Arc::as_ref).filter(|lease| lease.deadline > now)
    }

    /// The leases that have not ended, in the order of their numbers.
    pub fn ids(&self, now: ClusterTime) -> impl Iterator<Item = LeaseId> {
        let living =
            move |(id, lease): (&LeaseId, &Arc<Lease>)| (lease.deadline > now).then_some(*id);
        self.table.iter().filter_map(living)
    }

    /// The lease that a key is attached to.
    pub fn of_key(&self, key: &[u8]) -> Option<LeaseId> {
        self.by_key.get(key).copied()
    }

    /// Whether there is a lease of this number, though it may have ended.
    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.table.contains_key(&id)
    }

    /// A number that differs where something else happened to a lease; 0 where there never was one.
    pub(super) fn digest(&self) -> u64 {
        self.folded
    }

    /// When the next one ends, or ended whose keys are not all removed.
    pub(super) fn next_deadline(&self) -> Option<ClusterTime> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Whether the key's lease has ended.
    pub(super) fn is_dead(&self, key: &[u8], now: ClusterTime) -> bool {
        // As a rule none has, and nothing is looked up.
        let has_ended = self.next_deadline().is_some_and(|deadline| deadline <= now);
        has_ended && self.of_key(key).is_some_and(|id| self.table[&id].deadline <= now)
    }

    /// The keys of leases that have ended.
    pub(super) fn dead_keys(&self, now: ClusterTime) -> impl Iterator<Item = &Arc<[u8]>> {
        let ended = self.by_deadline.iter().take_while(move |(deadline, _)| *deadline <= now);
        ended.flat_map(|(_, id)| &self.table[id].keys)
    }

    /// Begins a lease under a number that none has.
    fn grant(&mut self, id: LeaseId, ttl_ms: u64, deadline: ClusterTime) {
        let lease = Lease { ttl_ms, deadline, keys: BTreeSet::new() };
        let before = self.table.insert(id, Arc::new(lease));
        assert!(before.is_none(), "its caller has looked whether there is one");
        self.by_deadline.insert((deadline, id));
        self.bytes += LEASE_BYTES;
        self.fold(id.0 ^ deadline.0);
    }

    /// The lease ends at `deadline` instead.
    fn move_deadline(&mut self, id: LeaseId, deadline: ClusterTime) {
        let lease = self.table.get_mut(&id).expect("its caller has looked whether there is one");
        let lease = Arc::make_mut(lease);
        self.by_deadline.remove(&(lease.deadline, id));
        lease.deadline = deadline;
        self.by_deadline.insert((deadline, id));
        self.fold(id.0 ^ deadline.0);
    }

    /// Forgets a lease that no key is attached to.
    fn end(&mut self, id: LeaseId) {
        let lease = self.table.remove(&id).expect("its caller has looked whether there is one");
        assert!(lease.keys.is_empty(), "its keys went before");
        self.by_deadline.remove(&(lease.deadline, id));
        self.bytes -= LEASE_BYTES;
        self.fold(id.0);
    }

    fn attach(&mut self, key: &[u8], id: LeaseId) {
        self.detach(key);
        let key: Arc<[u8]> = key.into();
        self.bytes += ATTACHED_BYTES + key.len();
        self.fold(id.0 ^ u64::from(crc32fast::hash(&key)) << 32);
        let lease = self.table.get_mut(&id).expect("its caller has looked whether there is one");
        Arc::make_mut(lease).keys.insert(key.clone());
        self.by_key.insert(key, id);
    }

    /// The key got another value, or is gone.
    pub(super) fn detach(&mut self, key: &[u8]) {
        if self.by_key.is_empty() {
            return;
        }
        let Some(id) = self.by_key.remove(key) else { return };
        let lease = self.table.get_mut(&id).expect("a key's lease is in the table");
        Arc::make_mut(lease).keys.remove(key);
        self.bytes -= ATTACHED_BYTES + key.len();
        self.fold(id.0 ^ u64::from(crc32fast::hash(key)) << 32);
    }

    /// Every key is gone.
    pub(super) fn detach_all(&mut self) {
        for (key, id) in std::mem::take(&mut self.by_key) {
            self.bytes -= ATTACHED_BYTES + key.len();
            self.fold(id.0);
        }
        for lease in self.table.values_mut() {
            // Not made a copy of, if it is shared, only to be emptied.
            let (ttl_ms, deadline) = (lease.ttl_ms, lease.deadline);
            *lease = Arc::new(Lease { ttl_ms, deadline, keys: BTreeSet::new() });
        }
    }

    fn fold(&mut self, number: u64) {
        // Never 0 again: the multiplier is odd, and so is what is multiplied.
        let mixed = self.folded.rotate_left(7) ^ number;
        self.folded = (mixed | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The leases as they are now, to be made sections of, whatever happens to them meanwhile.
    /// Copies none of the keys.
    pub(super) fn captured(&self) -> CapturedLeases {
        let leases = self.table.iter().map(|(id, lease)| (*id, Arc::clone(lease)));
        CapturedLeases { folded: self.folded, is_begun: false, left: leases.collect() }
    }

    /// Takes over one such piece; `None`, and something of it perhaps taken, where it is none.
    pub(super) fn restore(&mut self, mut section: &[u8]) -> Option<()> {
        let rest = &mut section;
        let folded = take_number(rest)?;
        while !rest.is_empty() {
            let id = LeaseId(take_number(rest)?);
            let (ttl_ms, deadline) = (take_number(rest)?, ClusterTime(take_number(rest)?));
            let numbers = 1..=i64::MAX as u64;
            let is_possible = numbers.contains(&id.0) && numbers.contains(&ttl_ms);
            if !is_possible || self.contains(id) || self.table.len() >= limits::LEASES {
                return None;
            }
            self.grant(id, ttl_ms, deadline);
            for _ in 0..take_number(rest)? {
                let length = usize::try_from(take_number(rest)?).ok()?;
                let key = rest.split_off(..length)?;
                if self.of_key(key).is_some() || key.len() > limits::KEY_BYTES {
                    return None;
                }
                self.attach(key, id);
            }
        }
        self.folded = folded;
        Some(())
    }
}

/// The leases as they were when a snapshot began.
#[derive(Clone, Debug)]
pub(super) struct CapturedLeases {
    folded: u64,
    is_begun: bool,
    left: VecDeque<(LeaseId, Arc<Lease>)>,
}

impl Iterator for CapturedLeases {
    type Item = Vec<u8>;

    /// The next piece that a snapshot has of them, of some [`limits::SNAPSHOT_BLOCK_BYTES`]; a lease
    /// is never parted. Where there is none but was one, a piece says so.
    fn next(&mut self) -> Option<Vec<u8>> {
        let is_told = std::mem::replace(&mut self.is_begun, true) || self.folded == 0;
        if self.left.is_empty() && is_told {
            return None;
        }
        let mut out = self.folded.to_le_bytes().to_vec();
        while out.len() < limits::SNAPSHOT_BLOCK_BYTES
            && let Some((id, lease)) = self.left.pop_front()
        {
            for number in [id.0, lease.ttl_ms, lease.deadline.0, lease.keys.len() as u64] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            for key in &lease.keys {
                out.extend_from_slice(&(key.len() as u64).to_le_bytes());
                out.extend_from_slice(key);
            }
        }
        Some(out)
    }
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    rest.split_off(..8).map(LittleEndian::read_u64)
}

impl Store {
    /// The leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Begins a lease that ends at `deadline`; under the number of a mutation where none is given.
    ///
    /// # Errors
    /// There is one of that number, or there are [`limits::LEASES`] of them.
    pub(super) fn grant_lease(
        &mut self,
        id: Option<LeaseId>,
        ttl_ms: u64,
        deadline: ClusterTime,
    ) -> Result<LeaseId, CommandError> {
        if id.is_some_and(|id| self.leases.get(id, self.clock()).is_some()) {
            return Err(CommandError::LeaseExists);
        }
        let is_there = id.is_some_and(|id| self.leases.contains(id));
        if self.leases.table.len() >= limits::LEASES && !is_there {
            return Err(CommandError::TooManyLeases);
        }
        if let Some(id) = id {
            self.finish_ended(id);
        }
        let id = id.unwrap_or_else(|| {
            loop {
                let id = LeaseId(self.take_revision().0);
                if !self.leases.contains(id) {
                    break id;
                }
            }
        });
        self.leases.grant(id, ttl_ms, deadline);
        Ok(id)
    }

    /// Removes what is left of a lease that has ended, if there is one of this number: nobody can
    /// tell it from one that is gone.
    fn finish_ended(&mut self, id: LeaseId) {
        if !self.leases.contains(id) {
            return;
        }
        while let Some(key) = self.leases.table[&id].keys.first().cloned() {
            self.expire_leased(&key);
        }
        self.leases.end(id);
    }

    /// The lease lasts its whole time from now on again; returns that.
    ///
    /// # Errors
    /// There is no such lease.
    pub(super) fn keep_lease_alive(&mut self, id: LeaseId) -> Result<u64, CommandError> {
        let now = self.clock();
        let lease = self.leases.get(id, now).ok_or(CommandError::NoLease)?;
        let ttl_ms = lease.ttl_ms;
        self.leases.move_deadline(id, ClusterTime(now.0.saturating_add(ttl_ms)));
        Ok(ttl_ms)
    }

    /// Ends a lease and deletes its living keys, each a mutation; returns how many.
    ///
    /// # Errors
    /// There is no such lease.
    pub(super) fn revoke_lease(&mut self, id: LeaseId) -> Result<usize, CommandError> {
        let lease = self.leases.get(id, self.clock()).ok_or(CommandError::NoLease)?;
        let keys: Vec<Arc<[u8]>> = lease.keys.iter().cloned().collect();
        let deleted = keys.iter().filter(|key| self.delete(key)).count();
        // One that was dead by its own deadline is removed in its turn, without this lease.
        keys.iter().for_each(|key| self.leases.detach(key));
        self.leases.end(id);
        Ok(deleted)
    }

    /// Whether one more key can be attached to the lease.
    ///
    /// # Errors
    /// There is no such lease, or it has too many keys, or all together have.
    pub(super) fn may_attach(&self, key: &[u8], id: LeaseId) -> Result<(), CommandError> {
        let lease = self.leases.get(id, self.clock()).ok_or(CommandError::NoLease)?;
        let is_there = lease.keys.contains(key);
        let bytes = self.leases.bytes + ATTACHED_BYTES + key.len();
        let is_full = lease.keys.len() >= limits::LEASE_KEYS || bytes > limits::LEASES_BYTES;
        if is_full && !is_there { Err(CommandError::TooManyLeasedKeys) } else { Ok(()) }
    }

    /// Attaches a key to the lease, if it lives; [`may_attach`](Store::may_attach) was asked before.
    pub(super) fn attach(&mut self, key: &[u8], id: LeaseId) {
        if self.contains(key) {
            self.leases.attach(key, id);
        }
    }

    /// A key of a lease that has ended; `Some(None)` where that had none left and is forgotten now.
    pub(super) fn next_leased_dead(&mut self) -> Option<Option<Arc<[u8]>>> {
        let first = self.leases.by_deadline.first().copied();
        let (_, id) = first.filter(|(deadline, _)| *deadline <= self.clock())?;
        let key = self.leases.table[&id].keys.first().cloned();
        if key.is_none() {
            self.leases.end(id);
        }
        Some(key)
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
