//! Threads that stay and spin briefly between commands, for a step is hundreds of
//! short ones; when nothing comes they sleep.

use kernels_core::simd::environment;
use kernels_core::workers::Workers;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Looks at the bell before a thread goes to sleep: some tens of microseconds.
const SPINS: u32 = 20_000;

/// A fixed number of threads, the calling one included.
pub struct Threads {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
    /// One caller at a time: the job has one place.
    turn: Mutex<()>,
}

type Job = *const (dyn Fn(u32) + Sync);

struct Shared {
    /// Rises by one with each job; the others watch it.
    bell: AtomicU64,
    /// The job of the last ring. Written before the bell rises, while no other runs.
    job: Mutex<Option<SendJob>>,
    tiles: AtomicU32,
    next: AtomicU32,
    /// Others that have not finished the job.
    busy: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

#[derive(Clone, Copy)]
struct SendJob(Job);
// SAFETY: the job is `Sync`, and `run` waits for every thread before it returns.
unsafe impl Send for SendJob {}

impl Threads {
    /// `count` threads in all; at least one, which is the caller's.
    pub fn new(count: u32) -> Self {
        let shared = Arc::new(Shared {
            bell: AtomicU64::new(0),
            job: Mutex::new(None),
            tiles: AtomicU32::new(0),
            next: AtomicU32::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let others = (1..count.max(1)).map_while(|index| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("pagewise-{index}"));
            // Fewer threads than asked for still give every answer.
            builder.spawn(move || serve(&shared)).ok()
        });
        let others = others.collect();
        Self { shared, others, turn: Mutex::new(()) }
    }
}

// SAFETY: every number below `tiles` is taken once from `next`, and `run` waits
// until the others are no longer busy.
unsafe impl Workers for Threads {
    fn count(&self) -> u32 {
        self.others.len() as u32 + 1
    }

    fn run(&self, tiles: u32, f: &(dyn Fn(u32) + Sync)) {
        if tiles <= 1 || self.others.is_empty() {
            for tile in 0..tiles {
                f(tile);
            }
            return;
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime goes; `run` returns after the last use.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(u32) + Sync), Job>(f) };
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(SendJob(job));
        shared.tiles.store(tiles, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        shared.busy.store(self.others.len(), Ordering::Relaxed);
        shared.bell.fetch_add(1, Ordering::SeqCst);
        for other in &self.others {
            other.thread().unpark();
        }
        let mine = catch_unwind(AssertUnwindSafe(|| take_tiles(shared, f)));
        let mut spins = 0u32;
        while shared.busy.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins.is_multiple_of(SPINS) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let theirs = shared.panicked.swap(false, Ordering::Relaxed);
        drop(turn);
        if let Err(panic) = mine {
            resume_unwind(panic);
        }
        assert!(!theirs, "a tile panicked on another thread");
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.bell.fetch_add(1, Ordering::SeqCst);
        for other in self.others.drain(..) {
            other.thread().unpark();
            // A thread's own panic was already reported by `run`.
            let _ = other.join();
        }
    }
}

fn take_tiles(shared: &Shared, f: &(dyn Fn(u32) + Sync)) {
    let tiles = shared.tiles.load(Ordering::Relaxed);
    loop {
        let tile = shared.next.fetch_add(1, Ordering::Relaxed);
        if tile >= tiles {
            return;
        }
        f(tile);
    }
}

/// The life of another thread.
fn serve(shared: &Shared) {
    let _normal = environment::Normal::enter();
    let mut heard = 0;
    loop {
        let mut spins = 0;
        while shared.bell.load(Ordering::Acquire) == heard {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::park();
            }
        }
        heard = shared.bell.load(Ordering::Acquire);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let job = *shared.job.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(SendJob(job)) = job {
            // SAFETY: `run` keeps the job alive until `busy` is zero.
            let f = unsafe { &*job };
            if catch_unwind(AssertUnwindSafe(|| take_tiles(shared, f))).is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::Threads;
    use kernels_core::workers::Workers;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn every_tile_runs_once_whatever_the_threads() {
        for count in [1, 2, 3] {
            let threads = Threads::new(count);
            for tiles in [0, 1, 2, 7, 100] {
                let ran: Vec<AtomicU32> = (0..tiles).map(|_| AtomicU32::new(0)).collect();
                threads.run(tiles, &|tile| {
                    ran[tile as usize].fetch_add(1, Ordering::Relaxed);
                });
                assert!(ran.iter().all(|ran| ran.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_in_a_tile_reaches_the_caller_and_the_threads_live_on() {
        let threads = Threads::new(2);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            threads.run(8, &|tile| assert!(tile != 5, "tile five"));
        }));
        assert!(outcome.is_err());
        let sum = AtomicU32::new(0);
        threads.run(4, &|tile| {
            sum.fetch_add(tile, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 6);
    }
}
