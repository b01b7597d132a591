//! The program's allocator: the store's pages apart from everything else.
//!
//! Records and their index lie in pieces of one length (`kv/slab.rs`, `kv/index.rs`), and are most of
//! what a node has. In the C library's heap they would stand between pieces of the log and of
//! buffers, and hold what those leave behind. Here they have an address space of their own, and what
//! is free of it goes back, page by page. Everything else is the C library's. Installed by `main.rs`;
//! never used by what links the library.
#![allow(unsafe_code, reason = "allocators are an unsafe interface")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::STORE_PAGE_BYTES;

/// Pages that are looked at together: a bit each.
const GROUP_PAGES: usize = u64::BITS as usize;

/// Groups at most: address space alone, which costs nothing.
const GROUPS: usize = 16 * 1024;
const SPACE_BYTES: usize = GROUPS * GROUP_PAGES * STORE_PAGE_BYTES;

/// Free pages that are kept, so that a store which grows and shrinks does not ask the system each
/// time.
const KEPT_PAGES: usize = 64;

/// See the file's head.
#[derive(Debug)]
pub struct StorePages;

static SPACE: Mutex<Space> = Mutex::new(Space::new());

/// Where the space begins, for who has no lock; 0 as long as there is none.
static BEGINS: AtomicUsize = AtomicUsize::new(0);

/// The pages, and which of them are free.
struct Space {
    /// Whether the system was asked for the address space.
    is_asked: bool,
    /// No group before this one has a free page.
    roomy: usize,
    /// By group: a bit for each page in use.
    used: [u64; GROUPS],
    /// By group: a bit for each page that holds memory. One that doesn't is all zeros.
    held: [u64; GROUPS],
    /// Pages that hold memory and are free.
    kept: usize,
}

impl Space {
    const fn new() -> Space {
        Space { is_asked: false, roomy: 0, used: [0; GROUPS], held: [0; GROUPS], kept: 0 }
    }

    /// Takes a page, the first one that is free; whether it is all zeros. None where there is no
    /// space left, or never was.
    fn take(&mut self) -> Option<(usize, bool)> {
        let begins = self.begins()?;
        while *self.used.get(self.roomy)? == u64::MAX {
            self.roomy += 1;
        }
        let group = self.roomy;
        let page = self.used[group].trailing_ones() as usize;
        let bit = 1 << page;
        let is_zero = self.held[group] & bit == 0;
        self.kept -= usize::from(!is_zero);
        self.used[group] |= bit;
        self.held[group] |= bit;
        let address = begins + (group * GROUP_PAGES + page) * STORE_PAGE_BYTES;
        if is_zero {
            populate(address);
        }
        Some((address, is_zero))
    }

    /// Gives a page back that was taken.
    fn give(&mut self, address: usize) {
        let number = (address - BEGINS.load(Ordering::Relaxed)) / STORE_PAGE_BYTES;
        let (group, bit) = (number / GROUP_PAGES, 1 << (number % GROUP_PAGES));
        self.used[group] &= !bit;
        self.roomy = self.roomy.min(group);
        if self.kept >= KEPT_PAGES && release(address) {
            self.held[group] &= !bit;
        } else {
            self.kept += 1;
        }
    }

    /// Where the pages begin. The system is asked for them once.
    fn begins(&mut self) -> Option<usize> {
        if !self.is_asked {
            self.is_asked = true;
            BEGINS.store(reserve().unwrap_or(0), Ordering::Relaxed);
        }
        Some(BEGINS.load(Ordering::Relaxed)).filter(|begins| *begins != 0)
    }
}

/// Has the system give a page its memory at once: all of it is about to be written, and would be
/// asked for in eight pieces.
fn populate(address: usize) {
    #[cfg(target_os = "linux")]
    {
        let page = ptr::with_exposed_provenance_mut(address);
        // SAFETY: the page is ours. Where the system doesn't know this, writing does it.
        unsafe { libc::madvise(page, STORE_PAGE_BYTES, libc::MADV_POPULATE_WRITE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = address;
}

/// Has the system take back what a free page holds; whether it did.
fn release(address: usize) -> bool {
    let page = ptr::with_exposed_provenance_mut(address);
    // SAFETY: the page is ours, and not in use.
    unsafe { libc::madvise(page, STORE_PAGE_BYTES, libc::MADV_DONTNEED) == 0 }
}

/// Address space for all pages, aligned to one.
fn reserve() -> Option<usize> {
    let (length, anywhere) = (SPACE_BYTES + STORE_PAGE_BYTES, ptr::null_mut());
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, at no address in particular, takes nothing from anyone.
    let at = unsafe { libc::mmap(anywhere, length, access, flags, -1, 0) };
    (at != libc::MAP_FAILED).then(|| at.expose_provenance().next_multiple_of(STORE_PAGE_BYTES))
}

fn space() -> MutexGuard<'static, Space> {
    SPACE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this is one of the pieces that are kept apart.
fn is_page(layout: Layout) -> bool {
    layout.size() == STORE_PAGE_BYTES && layout.align() <= STORE_PAGE_BYTES
}

/// Whether it was given out by [`Space::take`].
fn is_ours(piece: *mut u8) -> bool {
    let begins = BEGINS.load(Ordering::Relaxed);
    begins != 0 && (begins..begins + SPACE_BYTES).contains(&piece.addr())
}

// SAFETY: pages are taken once and given back once, under a lock, and are aligned to their length;
// all else is the system allocator's, who is told of nothing that it has not given out.
unsafe impl GlobalAlloc for StorePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_page(layout)
            && let Some((page, _)) = space().take()
        {
            return ptr::with_exposed_provenance_mut(page);
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_page(layout)
            && let Some((page, is_zero)) = space().take()
        {
            let page = ptr::with_exposed_provenance_mut(page);
            if !is_zero {
                // SAFETY: the page is whole and was just taken.
                unsafe { ptr::write_bytes(page, 0, STORE_PAGE_BYTES) };
            }
            return page;
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if is_ours(piece) {
            return space().give(piece.addr());
        }
        // SAFETY: the caller's promise is passed on; what is not ours came from there.
        unsafe { System.dealloc(piece, layout) }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        if !is_ours(piece) {
            // SAFETY: as above. A piece that becomes as long as a page stays where it is.
            return unsafe { System.realloc(piece, layout, new_bytes) };
        }
        // SAFETY: the caller promises that a layout of the new length is sound.
        let layout_after = unsafe { Layout::from_size_align_unchecked(new_bytes, layout.align()) };
        // SAFETY: the same; the new length is not 0.
        let moved = unsafe { self.alloc(layout_after) };
        if !moved.is_null() {
            // SAFETY: both are at least so long, and are two pieces; the old one is given back once.
            unsafe {
                ptr::copy_nonoverlapping(piece, moved, layout.size().min(new_bytes));
                self.dealloc(piece, layout);
            }
        }
        moved
    }
}

const _: () = assert!(STORE_PAGE_BYTES.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Layout = match Layout::from_size_align(STORE_PAGE_BYTES, 64) {
        Ok(layout) => layout,
        Err(_) => panic!("a page has a layout"),
    };

    /// Takes zeroed pages, and fills each with its number.
    fn take(numbers: std::ops::Range<u8>) -> Vec<*mut u8> {
        let filled = numbers.map(|number| {
            // SAFETY: the layout is not empty.
            let page = unsafe { StorePages.alloc_zeroed(PAGE) };
            assert!(is_ours(page) && page.addr().is_multiple_of(STORE_PAGE_BYTES));
            assert!(bytes(page).iter().all(|byte| *byte == 0));
            // SAFETY: the page is whole and ours.
            unsafe { page.write_bytes(number, STORE_PAGE_BYTES) };
            page
        });
        filled.collect()
    }

    fn bytes(page: *mut u8) -> &'static [u8] {
        // SAFETY: the tests look at pages that they hold.
        unsafe { std::slice::from_raw_parts(page, STORE_PAGE_BYTES) }
    }

    fn give(page: *mut u8) {
        // SAFETY: it was taken with this layout, and is given back once.
        unsafe { StorePages.dealloc(page, PAGE) };
    }

    #[test]
    fn pages_are_apart_zeroed_and_used_again() {
        // So many that some go back.
        let pages = take(0..200);
        assert!(pages.iter().zip(0..).all(|(page, n)| bytes(*page).iter().all(|byte| *byte == n)));
        pages.iter().step_by(2).for_each(|page| give(*page));
        let again = take(200..250);
        for (page, number) in pages.iter().zip(0..).skip(1).step_by(2) {
            assert!(bytes(*page).iter().all(|byte| *byte == number));
        }
        assert!(again.iter().all(|page| pages.contains(page)), "the first free ones are taken");
        pages.iter().skip(1).step_by(2).chain(&again).for_each(|page| give(*page));
        {
            let space = space();
            assert!(space.used.iter().all(|used| *used == 0));
            let held: u32 = space.held.iter().map(|held| held.count_ones()).sum();
            assert_eq!((space.kept, held as usize), (KEPT_PAGES, KEPT_PAGES));
        }
        // A page that becomes longer leaves, and its bytes go along.
        let page = take(7..8)[0];
        let twice = Layout::from_size_align(2 * STORE_PAGE_BYTES, 64).unwrap();
        // SAFETY: the layouts are those that the pieces have.
        unsafe {
            let grown = StorePages.realloc(page, PAGE, twice.size());
            assert!(!is_ours(grown) && bytes(grown).iter().all(|byte| *byte == 7));
            StorePages.dealloc(grown, twice);
        }
        assert!(space().used.iter().all(|used| *used == 0));
    }
}
