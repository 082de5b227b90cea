//! Threads that do jobs, in the order in which they come.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Threads that wait for jobs. They end with it, as soon as each has done the job it is at;
/// jobs that none has begun are dropped.
pub struct Crew<J> {
    queue: Arc<Queue<J>>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads of a crew are.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How the system calls them.
    pub name: &'static str,
    /// How many there are, one at least.
    pub count: usize,
    /// Stack of each.
    pub stack_bytes: usize,
    /// By how much they [`stand_back`].
    pub back: i32,
}

struct Queue<J> {
    state: Mutex<State<J>>,
    /// There is a job, or nothing more to come.
    work: Condvar,
}

struct State<J> {
    jobs: VecDeque<J>,
    closed: bool,
}

impl<J: Send + 'static> Crew<J> {
    /// Starts it: each thread does its jobs by `work`.
    pub fn new(shape: Shape, work: impl Fn(J) + Clone + Send + 'static) -> Self {
        let state = Mutex::new(State { jobs: VecDeque::new(), closed: false });
        let queue = Arc::new(Queue { state, work: Condvar::new() });
        let thread = |at: usize| {
            let (queue, work) = (queue.clone(), work.clone());
            let builder = thread::Builder::new().name(format!("{}-{at}", shape.name));
            builder.stack_size(shape.stack_bytes).spawn(move || {
                if shape.back > 0 {
                    stand_back(shape.back);
                }
                while let Some(job) = queue.next() {
                    // A job that panics ends, and no other: what it holds says so as it goes.
                    let _ = catch_unwind(AssertUnwindSafe(|| work(job)));
                }
            })
        };
        // Where the system gives fewer, they do the work of all.
        let threads: Vec<_> = (0..shape.count.max(1)).map_while(|at| thread(at).ok()).collect();
        assert!(!threads.is_empty(), "the system gives a thread");
        Self { queue, threads }
    }

    /// Gives it jobs.
    pub fn push(&self, jobs: impl IntoIterator<Item = J>) {
        let mut state = self.queue.state();
        let before = state.jobs.len();
        state.jobs.extend(jobs);
        let came = state.jobs.len() - before;
        drop(state);
        (0..came.min(self.threads.len())).for_each(|_| self.queue.work.notify_one());
    }

    /// Jobs that no thread has begun.
    pub fn waiting(&self) -> usize {
        self.queue.state().jobs.len()
    }
}

impl<J> Drop for Crew<J> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.queue.work.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().expect("jobs do not end their thread");
        }
    }
}

impl<J> Queue<J> {
    /// What no panic leaves half done.
    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<J> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Makes the calling thread stand back where others want the core that it is on, for good:
/// beside one that does not, it gets a fourth of it by 5, a tenth by 10, a thirtieth by 15.
pub fn stand_back(by: i32) {
    // Elsewhere the whole process would. Where the system does not let it, it is as before.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(by);
    #[cfg(not(target_os = "linux"))]
    let _ = by;
}
