//! What breaks between clients and servers: paths that carry nothing one way, or little, connections
//! that are reset in the middle of a reply; and kernels that take no more.
//!
//! Drawn from a generator of its own, so that a seed without any of it is what it was before there
//! was such a part. Called by [`super::swarm`], and by [`super::faults`] when such a fault strikes.
//! Draws from the seed alone.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::script::{Fault, Kind, Settings};
use super::world::{Event, World};

/// What is drawn here is not what is drawn elsewhere from the same seed.
const SALT: u64 = 0xc11e_5eed_07a6_5eed;

/// In one seed of so many clients are cut off, in another one kernels take little, and in another
/// one clients say what no server takes.
const SEEDS: u64 = 9;
const CLIENTS_AT: u64 = 3;
const KERNELS_AT: u64 = 5;
const NONSENSE_AT: u64 = 7;

/// Whether this file plans faults of that kind.
pub(super) fn plans(kind: Kind) -> bool {
    matches!(kind, Kind::ClientCut | Kind::ClientSlow | Kind::HalfReply)
}

/// Draws what the settings say of it.
pub(super) fn settle(seed: u64, settings: &mut Settings) {
    match seed % SEEDS {
        KERNELS_AT => {
            settings.kernel_kib = 16;
            settings.peer_output_kib = 64 + 4 * settings.value_bytes / 1024;
        }
        NONSENSE_AT => settings.nonsense_pc = 5,
        _ => {}
    }
}

/// Adds what strikes clients to the faults of a seed.
pub(super) fn plan(seed: u64, settings: &Settings, faults: &mut Vec<Fault>) {
    if seed % SEEDS != CLIENTS_AT {
        return;
    }
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ SALT);
    let mut below = |bound: u64| random.random_range(0..bound.max(1));
    for _ in 0..4 + below(8) {
        let (at_ms, client) = (below(settings.chaos_ms), below(settings.clients));
        let lasts_ms = 1 + below(2 * settings.client_timeout_ms);
        let (kind, b) = match below(3) {
            0 => (Kind::ClientCut, 1 + below(3)),
            1 => (Kind::ClientSlow, 20 + below(2000)),
            _ => (Kind::HalfReply, 0),
        };
        faults.push(Fault { at_ms, kind, a: client, b, c: lasts_ms });
    }
}

impl World {
    /// Nothing arrives of a client (`ways` 1), or at it (2), or neither (3).
    pub(super) fn cut_off_client(&mut self, client: usize, ways: u64, ms: u64) -> bool {
        if ways & 1 != 0 {
            self.network.unheard.insert(client);
        }
        if ways & 2 != 0 {
            self.network.deafened.insert(client);
        }
        self.plan(Duration::from_millis(ms), Event::ClientHeard { client });
        client < self.clients.len()
    }

    /// Only so many bytes a second reach a client.
    pub(super) fn slow_client(&mut self, client: usize, bytes: u64, ms: u64) -> bool {
        self.network.slow_clients.insert(client, bytes);
        self.plan(Duration::from_millis(ms), Event::ClientHeard { client });
        client < self.clients.len()
    }

    /// The path to a client is as good as ever.
    pub(super) fn client_is_heard(&mut self, client: usize) {
        self.network.unheard.remove(&client);
        self.network.deafened.remove(&client);
        self.network.slow_clients.remove(&client);
        self.network.release(self.now);
    }
}
