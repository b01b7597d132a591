//! What a request about the membership would do: `DRYRUN`.
//!
//! Design page 1, §4: the quorum before and after, who is in touch, and what would be at risk.
//! Called by `admin.rs`, on the leader, which alone knows who is heard. Changes nothing.

use std::fmt::Write;

use super::admin::{list, refusal};
use super::node::Node;
use crate::proto::admin::{AdminRequest, Answer};
use crate::raft::change::ChangeRefused;
use crate::raft::membership::Membership;
use crate::types::{Instant, ServerId};

impl Node {
    /// What `request` would do.
    pub(super) fn dry_run(&self, now: Instant, request: &AdminRequest) -> Answer {
        if let AdminRequest::Transfer { to } = request {
            return self.dry_transfer(now, *to);
        }
        let change = match self.change_of(now, request) {
            Ok(change) => change,
            Err(text) => return Answer::Refused(text),
        };
        let plan = match self.raft.plan_change(now, &change) {
            Ok(plan) => plan,
            Err(refused) => return Answer::Refused(refusal(&refused)),
        };
        let current = self.raft.membership();
        let Some(target) = &plan.target else {
            return Answer::Text("nothing would change: it is so already\r\n".to_owned());
        };
        let before: Vec<ServerId> = current.voters().collect();
        let after = voters_in_the_end(target);
        let heard = |ids: &[ServerId]| -> Vec<ServerId> {
            ids.iter().copied().filter(|id| self.raft.is_heard(now, *id)).collect()
        };
        let mut text = String::new();
        line(&mut text, "voters now", &described(&before, &heard(&before)));
        line(&mut text, "voters then", &described(&after, &heard(&after)));
        let joint =
            if before == after { "one entry" } else { "a joint membership, then the new one" };
        line(&mut text, "by way of", joint);
        for risk in self.risks(&before, &after, &heard(&after), plan.keeps_quorum()) {
            line(&mut text, "mind", &risk);
        }
        Answer::Text(text)
    }

    fn risks(
        &self,
        before: &[ServerId],
        after: &[ServerId],
        heard: &[ServerId],
        keeps_quorum: bool,
    ) -> Vec<String> {
        let mut risks = Vec::new();
        if before != after && !keeps_quorum {
            risks.push("a majority would be missing: refused, unless by FORCE".to_owned());
        }
        let newcomers: Vec<ServerId> =
            after.iter().copied().filter(|id| !before.contains(id)).collect();
        if !newcomers.is_empty() {
            risks.push(format!("{} votes once it has caught up, not before", list(&newcomers)));
        }
        let spare = |voters: usize| voters.saturating_sub(1) / 2;
        if spare(after.len()) < spare(before.len()) {
            risks.push(format!(
                "{} failures would be survived, instead of {}",
                spare(after.len()),
                spare(before.len())
            ));
        }
        if after.len().is_multiple_of(2) {
            let fewer = after.len() - 1;
            risks.push(format!("{fewer} voters survive as many failures as {} do", after.len()));
        }
        if heard.len() == after.len() / 2 + 1 && heard.len() < after.len() {
            risks
                .push("all voters in touch would be needed: one failure more stops all".to_owned());
        }
        let own = self.identity.server;
        if before.contains(&own) && !after.contains(&own) {
            risks.push(format!("server {own} leads, and would hand over"));
        }
        risks
    }

    fn dry_transfer(&self, now: Instant, to: Option<ServerId>) -> Answer {
        let refused = |refused: ChangeRefused| Answer::Refused(refusal(&refused));
        let own = self.identity.server;
        let voters = self.raft.membership().voters();
        let able: Vec<ServerId> =
            voters.filter(|id| *id != own && self.raft.is_heard(now, *id)).collect();
        let matches = self.raft.match_indexes();
        let last_index = self.raft.log().last_index();
        let behind = |id: &ServerId| last_index.0 - matches.get(id).map_or(0, |index| index.0);
        let successor = match to {
            Some(id) if id == own => {
                return Answer::Text("nothing would change: it leads already\r\n".to_owned());
            }
            Some(id) if self.raft.membership().member(id).is_none() => {
                return refused(ChangeRefused::NotMember(id));
            }
            Some(id) => able.iter().find(|one| **one == id).copied(),
            None => able.iter().min_by_key(|id| behind(id)).copied(),
        };
        let Some(successor) = successor else {
            return refused(ChangeRefused::NotSuccessor(to.unwrap_or(own)));
        };
        let mut text = String::new();
        line(&mut text, "leads now", &format!("server {own}"));
        let entries = behind(&successor);
        line(&mut text, "leads then", &format!("server {successor}, {entries} entries behind"));
        Answer::Text(text)
    }
}

/// Who votes once everyone who is to be promoted was.
fn voters_in_the_end(target: &Membership) -> Vec<ServerId> {
    let members = target.members();
    let replaced: Vec<ServerId> = members.iter().filter_map(|member| member.replaces).collect();
    let votes = members.iter().filter(|member| member.voter || member.promote);
    votes.map(|member| member.id).filter(|id| !replaced.contains(id)).collect()
}

fn described(voters: &[ServerId], heard: &[ServerId]) -> String {
    let quorum = voters.len() / 2 + 1;
    let (voters, count) = (list(voters), voters.len());
    let heard = if heard.is_empty() { "nobody".to_owned() } else { list(heard) };
    format!("{voters}; {quorum} of {count} are needed; in touch: {heard}")
}

fn line(text: &mut String, name: &str, value: &str) {
    write!(text, "{name}: {value}\r\n").expect("a String takes all that is written");
}
