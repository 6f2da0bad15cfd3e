//! Counts what a thread allocates. Whoever names this crate has its allocator, which takes some
//! eight instructions more than the system's: little enough to stay in while time is taken. The
//! counters that can be had take a hundred.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What was allocated.
#[derive(Debug, Clone, Copy)]
pub struct Allocated {
    /// How often; a block that grew or shrank counts once more.
    pub count: u64,
    /// The octets held more than before.
    pub bytes: i64,
}

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

/// What `work` allocates in this thread.
pub fn measure(work: impl FnOnce()) -> Allocated {
    let now = || (COUNT.get(), BYTES.get());
    let (count, bytes) = now();
    work();
    let (count_after, bytes_after) = now();
    Allocated { count: count_after - count, bytes: bytes_after - bytes }
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

impl Counting {
    #[inline]
    fn note(count: u64, bytes: i64) {
        COUNT.set(COUNT.get() + count);
        BYTES.set(BYTES.get() + bytes);
    }
}

// SAFETY: every call is handed on to the system's allocator as it came. The counters are plain
// numbers without destructors, so that reading and writing them never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(1, layout.size() as i64);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Self::note(0, -(layout.size() as i64));
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note(1, layout.size() as i64);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::note(1, size as i64 - layout.size() as i64);
        unsafe { System.realloc(block, layout, size) }
    }
}
