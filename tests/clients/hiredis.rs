//! hiredis, against every node of a real cluster, and on surviving nodes while the leader dies.
//!
//! The program is tests/clients/hiredis.c, made with the system's compiler. Where that or the
//! library (Debian: libhiredis-dev) is missing, the tests say that they were skipped.

use std::process::Command;

use crate::common::{Cluster, skip};
use crate::fail_over::load_through_a_fail_over;
use tempfile::TempDir;

/// The program, in a directory that it goes with; `None`: it can't be made here.
fn program(test: &str) -> Option<(TempDir, Command)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hiredis");
    let probe = directory.path().join("probe.c");
    std::fs::write(&probe, "#include <hiredis/hiredis.h>\nint main(void) { return 0; }\n").unwrap();
    let compile = |source: &std::path::Path| {
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&path).arg(source);
        compiler.arg("-lhiredis").output()
    };
    if !compile(&probe).is_ok_and(|output| output.status.success()) {
        skip(test, "there is no C compiler with hiredis");
        return None;
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/hiredis.c");
    let output = compile(source.as_ref()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some((directory, Command::new(path)))
}

#[test]
fn hiredis_works_on_every_node() {
    let Some((_directory, mut command)) = program("hiredis_works_on_every_node") else {
        return;
    };
    let cluster = Cluster::start();
    cluster.wait_until_even();
    let addresses = cluster.nodes.iter().map(|node| &node.client);
    let output = command.args(addresses).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("ok hiredis "));
}

#[test]
fn hiredis_sees_no_error_on_surviving_nodes() {
    if let Some((_directory, command)) = program("hiredis_sees_no_error_on_surviving_nodes") {
        load_through_a_fail_over(command);
    }
}
