//! The C library's allocator: what it keeps of memory that was freed, and when that goes back.
//!
//! See mallopt(3) and malloc_trim(3). Called by the program at its start, and by the loop behind a
//! snapshot. Never called where a turn is in a hurry; does nothing with another C library.
#![cfg_attr(
    target_env = "gnu",
    allow(unsafe_code, reason = "the allocator's settings are functions of the C library")
)]

#[cfg(target_env = "gnu")]
use std::sync::atomic::{AtomicBool, Ordering};

/// A piece of this size or more is the system's own, page by page, each time that it is taken: that
/// is more than a batch or a buffer of the loop.
#[cfg(target_env = "gnu")]
const OWN_PIECE_BYTES: i32 = 32 * 1024 * 1024;

/// So much that is free at the heap's end stays, to be used again. The next batch would have the
/// kernel find and clear pages once more.
#[cfg(target_env = "gnu")]
const KEPT_FREE_BYTES: i32 = 64 * 1024 * 1024;

/// What is free between pieces in use goes back if it is at most so much, and of what is at the
/// heap's end the rest: to give back more takes longer than a turn may. A MiB takes up to a
/// millisecond.
#[cfg(target_env = "gnu")]
const GIVEN_BACK_BYTES: usize = 32 * 1024 * 1024;

/// Less than this in all is not worth it.
#[cfg(target_env = "gnu")]
const LEAST_BYTES: usize = 2 * 1024 * 1024;

/// Where counting what is free takes more of the processor's time than this, it is in very many
/// pieces, and to give them back would take much longer: 60 MiB in 400,000 pieces took 0.6 s.
#[cfg(target_env = "gnu")]
const COUNTING_NANOSECONDS: i64 = 3_000_000;

/// Set once it did: from then on nothing is counted, as that would be too long a turn each time.
#[cfg(target_env = "gnu")]
static IS_IN_PIECES: AtomicBool = AtomicBool::new(false);

/// Has the allocator keep what a steady load takes and frees again and again.
pub fn keep_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: they set two numbers of the allocator, under its own lock.
    unsafe {
        // What it refuses stays as it was.
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PIECE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE_BYTES);
    }
}

/// Gives back what is free, between pieces in use too, if that is soon done. To be called where much
/// was freed and it is not taken again at once. Whether there is more that goes in another turn.
pub fn give_back() -> bool {
    #[cfg(target_env = "gnu")]
    {
        if IS_IN_PIECES.load(Ordering::Relaxed) {
            return false;
        }
        let began = processor_nanoseconds();
        // SAFETY: it looks only at what is free, under the allocator's own lock.
        let info = unsafe { libc::mallinfo2() };
        let (free_bytes, end_bytes) = (info.fordblks, info.keepcost);
        if processor_nanoseconds() - began > COUNTING_NANOSECONDS {
            log::debug!("freed memory is in too many pieces to be given back");
            IS_IN_PIECES.store(true, Ordering::Relaxed);
        } else if free_bytes >= LEAST_BYTES && free_bytes - end_bytes <= GIVEN_BACK_BYTES {
            let of_end_bytes = GIVEN_BACK_BYTES - (free_bytes - end_bytes);
            let left_bytes = end_bytes.saturating_sub(of_end_bytes);
            // SAFETY: as above.
            unsafe { libc::malloc_trim(left_bytes) };
            return left_bytes > 0 && of_end_bytes > 0;
        }
    }
    false
}

/// What this thread has used of a processor.
#[cfg(target_env = "gnu")]
fn processor_nanoseconds() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it fills what it is given, and every thread has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn give_back_leaves_what_is_in_use_as_it_is() {
        let mut pieces: Vec<Vec<u8>> = (0..4096u32).map(|n| vec![n as u8; 8192]).collect();
        // Every second one goes: there are holes between those that stay.
        let mut number = 0;
        pieces.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        give_back();
        for (place, piece) in pieces.iter().enumerate() {
            let expected = (2 * place + 1) as u8;
            assert!(piece.len() == 8192 && piece.iter().all(|byte| *byte == expected));
        }
    }
}
