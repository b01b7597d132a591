//! Somebody who changes the members of a cluster while it breaks: asks until it is done.
//!
//! Called by the soak. It runs in a thread of its own, goes to another node where one cannot
//! answer, and says the same again: each of its commands is good for that.

use std::collections::BTreeSet;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::{Client, Reply};

/// A change takes an election or two, and a learner that catches up, between two faults.
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(100);
/// How long a command may take: the change is concluded before it is answered.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A change of members under way.
pub struct Change {
    what: String,
    thread: JoinHandle<usize>,
    began: Instant,
}

impl Change {
    /// Asks any of `addresses` for `words`, until exactly these servers vote.
    pub fn begin(addresses: Vec<String>, words: Vec<String>, voters: BTreeSet<u64>) -> Change {
        let what = words.join(" ");
        let thread = std::thread::spawn(move || carry_out(&addresses, &words, &voters));
        Change { what, thread, began: Instant::now() }
    }

    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Says how often it had to be asked for.
    pub fn finish(self) {
        let asked = self.thread.join().unwrap_or_else(|_| panic!("{} failed", self.what));
        println!("{}: asked {asked} times, done after {:?}", self.what, self.began.elapsed());
    }
}

fn carry_out(addresses: &[String], words: &[String], voters: &BTreeSet<u64>) -> usize {
    let end = Instant::now() + PATIENCE;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut asked = 0;
    let mut said = "nothing yet".to_owned();
    for address in addresses.iter().cycle() {
        assert!(Instant::now() < end, "{words:?} is not done; the last answer was: {said}");
        std::thread::sleep(PAUSE);
        let Ok(mut client) = Client::connect(address) else { continue };
        client.set_timeout(TIMEOUT);
        if all_vote(&mut client, voters) {
            return asked;
        }
        asked += 1;
        said = match client.call(&words) {
            Ok(reply) => reply.text(),
            Err(error) => error.to_string(),
        };
    }
    unreachable!("there are addresses, and they are tried again and again")
}

/// Whether a node knows these members and no others, all with a vote.
fn all_vote(client: &mut Client, voters: &BTreeSet<u64>) -> bool {
    let Ok(Reply::Bulk(text)) = client.call(&["RAFT", "NODES"]) else { return false };
    let text = String::from_utf8_lossy(&text).into_owned();
    let id = |line: &str| line.split(' ').next()?.strip_prefix("id=")?.parse::<u64>().ok();
    let known: Option<BTreeSet<u64>> = text.lines().map(id).collect();
    known.as_ref() == Some(voters) && text.lines().all(|line| line.contains(" vote=yes "))
}
