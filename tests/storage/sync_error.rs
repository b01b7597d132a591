//! A sync that fails is final: with errors injected into its system calls, a process that uses the
//! storage stops at the first one, names it, and whatever it had acknowledged is there.

use std::process::Command;

use crate::support::*;
use raftkv::config::SyncMode;
use raftkv::storage::StorageError;

const DIRECTORY: &str = "RAFTKV_TEST_SYNC_ERROR_DIR";

/// Not a test of its own: the process into which the errors are injected.
#[test]
#[ignore = "run by sync_error_is_final_and_named, in a process of its own"]
fn writer_process() {
    let dir = std::env::var(DIRECTORY).unwrap();
    let options = options(std::path::Path::new(&dir), SyncMode::Thread, 65536);
    let run = || -> Result<(), StorageError> {
        let (mut storage, recovered) = raftkv::storage::Storage::open(&options)?;
        let first = recovered.entries.len() as u64 + 1;
        for index in first..first + 40 {
            persist(&mut storage, index, &entries(vec![entry(index, 1, &[1; 4000])]))?;
            println!("\nacknowledged {index}");
        }
        Ok(())
    };
    match run() {
        Ok(()) => println!("\nno error"),
        Err(error) => println!("\nerror: {error}"),
    }
}

#[test]
fn sync_error_is_final_and_named() {
    if !Command::new("strace").arg("-V").output().is_ok_and(|out| out.status.success()) {
        println!("skipped: strace is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    let mut errors = 0;
    for when in [5, 2, 12, 17, 1, 30] {
        let inject = format!("inject=fdatasync,fsync:error=EIO:when={when}");
        let output = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=fdatasync,fsync", "-e", &inject])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "sync_error::writer_process", "--ignored", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let traced = String::from_utf8_lossy(&output.stderr);
        if !traced.contains("INJECTED") {
            println!("skipped: this process may not be traced: {traced}");
            return;
        }
        // 1. It stopped, and said which operation failed on which file, and why.
        let error = said.lines().find_map(|line| line.strip_prefix("error: "));
        let error = error.unwrap_or_else(|| panic!("{said}"));
        assert!(error.contains("sync failed on ") && error.contains("os error 5"), "{error}");
        errors += 1;
        // 2. It never tried again: the injected call was the last sync.
        let last = traced.lines().rfind(|line| line.contains("sync("));
        assert!(last.is_some_and(|line| line.contains("INJECTED")), "{traced}");
        // 3. At least one sync was counted for each acknowledgement.
        let new = said.lines().filter(|line| line.starts_with("acknowledged ")).count();
        let syncs = traced.lines().filter(|line| line.contains("fdatasync(")).count();
        assert!(syncs >= new, "{syncs} syncs, {new} acknowledgements");
        let last = said.lines().rfind(|line| line.starts_with("acknowledged "));
        if let Some(last) = last {
            acknowledged = last["acknowledged ".len()..].parse().unwrap();
        }
        // 4. Nothing acknowledged is lost.
        let (_, recovered) = open(&options(dir.path(), SyncMode::Thread, 65536));
        assert!(recovered.entries.len() >= acknowledged);
    }
    assert_eq!(errors, 6);
}
