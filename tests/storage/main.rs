//! The storage on a real disk: what is there after a reopening, a damage, a failed sync.

mod damage;
mod files;
mod log;
mod snapshots;
mod support;
mod sync_error;
