//! `raftkvd snapshot inspect FILE`: what a backup holds, as a table or as JSON.
//!
//! Called by `main`. Reads the whole file first: it says nothing of one that is not whole.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use raftkv::raft::membership::{Member, Membership};

use super::{Contents, verify};
use crate::daemon::{FAULT, fail};

/// Prints; 0, or 1 where the file is no whole snapshot.
pub fn inspect(path: &Path, json: bool) -> ExitCode {
    match verify(path) {
        Ok(contents) => {
            print!("{}", if json { as_json(path, &contents) } else { as_table(path, &contents) });
            ExitCode::SUCCESS
        }
        Err(problem) => fail(FAULT, &problem),
    }
}

fn members(contents: &Contents) -> Vec<Member> {
    let membership = Membership::decode(&contents.header.membership);
    membership.map_or(Vec::new(), |membership| membership.members().to_vec())
}

fn role(member: &Member) -> &'static str {
    if member.is_learner() { "learner" } else { "voter" }
}

fn as_table(path: &Path, contents: &Contents) -> String {
    let Contents { header, end, .. } = contents;
    let mut text = format!("{}: whole\n", path.display());
    let mut line = |name: &str, value: String| {
        writeln!(text, "  {name:<12} {value}").expect("a String takes all that is written");
    };
    line("bytes", end.bytes.to_string());
    line("records", format!("{}, {} of them with a deadline", end.records, contents.expiring));
    line("keys", format!("{} bytes", contents.key_bytes));
    line("values", format!("{} bytes", contents.value_bytes));
    line("last entry", format!("{} of term {}", header.id.index, header.id.term));
    line("revision", header.revision.to_string());
    line("clock", format!("{} ms since 1970, by the cluster", header.clock));
    line("cluster", format!("{:016x}", header.cluster.0));
    line("digest", format!("{:016x}", header.digest));
    line("command set", header.command_set.to_string());
    line("gateways", header.gateways.len().to_string());
    for member in members(contents) {
        let value = format!("{}, peer {}, client {}", role(&member), member.peer, member.client);
        line(&format!("member {}", member.id), value);
    }
    text
}

fn as_json(path: &Path, contents: &Contents) -> String {
    let Contents { header, end, key_bytes, value_bytes, expiring } = contents;
    let member = |member: &Member| {
        format!(
            "{{\"id\":{},\"role\":\"{}\",\"peer\":{},\"client\":{},\"http\":{}}}",
            member.id,
            role(member),
            quoted(&member.peer),
            quoted(&member.client),
            quoted(&member.http)
        )
    };
    let members: Vec<String> = members(contents).iter().map(member).collect();
    format!(
        "{{\"file\":{},\"bytes\":{},\"records\":{},\"expiring\":{expiring},\
         \"key_bytes\":{key_bytes},\"value_bytes\":{value_bytes},\"index\":{},\"term\":{},\
         \"revision\":{},\"clock_ms\":{},\"cluster\":\"{:016x}\",\"digest\":\"{:016x}\",\
         \"command_set\":{},\"gateways\":{},\"members\":[{}]}}\n",
        quoted(&path.display().to_string()),
        end.bytes,
        end.records,
        header.id.index,
        header.id.term,
        header.revision,
        header.clock,
        header.cluster.0,
        header.digest,
        header.command_set,
        header.gateways.len(),
        members.join(",")
    )
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if u32::from(letter) < 0x20 => {
                write!(out, "\\u{:04x}", u32::from(letter))
                    .expect("a String takes all that is written");
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_escapes_what_json_does_not_take() {
        assert_eq!(quoted("a\"b\\c\n\u{e9}"), "\"a\\\"b\\\\c\\u000a\u{e9}\"");
    }
}
