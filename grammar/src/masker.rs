//! Masks are computed aside while a step runs, each within bounded steps of its own; whoever
//! wants them waits no longer than there is patience for, and takes the rest later.

use crate::{Fault, Grammar, Matcher, Tree, tree_masks};
use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Stack of a thread that computes masks.
const STACK_BYTES: usize = 16 << 20;

/// A text that goes on.
pub struct Job {
    /// Its number: one job of a text at a time.
    pub id: u64,
    /// The text so far.
    pub text: Text,
    /// The tokens that came.
    pub tokens: Vec<u32>,
    /// Tokens that may come after them, along paths that each begin there.
    pub paths: Vec<Vec<u32>>,
    /// Words of a mask.
    pub words: usize,
    /// The masks of this text take long: those of others come first.
    pub dear: bool,
}

/// A text so far.
pub enum Text {
    /// At its beginning.
    New(Grammar),
    /// Begun.
    Begun(Box<dyn Matcher>),
}

/// What came of a job.
pub struct Done {
    /// Its number.
    pub id: u64,
    /// The text, with the tokens that came; none where there was a fault.
    pub outcome: Result<Next, Fault>,
}

/// A text, and what may come next of it.
pub struct Next {
    /// The text.
    pub matcher: Box<dyn Matcher>,
    /// The tokens that may come next: one bit for each, lowest first. Then those after each
    /// token of each path; none where the path itself may not come.
    pub masks: Vec<Vec<u32>>,
    /// Whether the text is complete, and there is no token to say so.
    pub complete: bool,
    /// Whether it took long.
    pub dear: bool,
}

/// Computes masks aside. A test may stand behind it.
pub trait Masker: Send {
    /// Begins with a job.
    fn ask(&mut self, job: Job);

    /// All that is done, once those of these numbers are, or patience is out.
    fn done(&mut self, wanted: &[u64]) -> Vec<Done>;
}

impl Job {
    /// Does it.
    pub fn run(self) -> Done {
        let mut matcher = match self.text {
            Text::New(grammar) => grammar.begin(),
            Text::Begun(matcher) => matcher,
        };
        let outcome = next(matcher.as_mut(), &self.tokens, &self.paths, self.words);
        let outcome =
            outcome.map(|(masks, complete)| Next { matcher, masks, complete, dear: false });
        Done { id: self.id, outcome }
    }
}

/// What may come after these tokens and along paths from there, and whether nothing need.
fn next(
    matcher: &mut dyn Matcher,
    tokens: &[u32],
    paths: &[Vec<u32>],
    words: usize,
) -> Result<(Vec<Vec<u32>>, bool), Fault> {
    tokens.iter().try_for_each(|token| matcher.accept(*token))?;
    let drafted = paths.concat();
    // Each token comes after the one before it, the first of a path after the text.
    let mut parents: Vec<Option<u32>> =
        (0..drafted.len() as u32).map(|at| at.checked_sub(1)).collect();
    let mut first = 0;
    for path in paths.iter().filter(|path| !path.is_empty()) {
        parents[first] = None;
        first += path.len();
    }
    let mut masks = vec![0; (1 + drafted.len()) * words];
    tree_masks(matcher, Tree { tokens: &drafted, parents: &parents }, &mut masks)?;
    let masks: Vec<Vec<u32>> = masks.chunks(words.max(1)).map(<[u32]>::to_vec).collect();
    let complete = masks[0].iter().all(|word| *word == 0) && matcher.may_end()?;
    Ok((masks, complete))
}

/// What takes longer is dear.
const DEAR: Duration = Duration::from_millis(2);

/// Does jobs on threads of its own, dear ones on one that does nothing else: so they keep no
/// others.
pub struct Threads {
    /// Of jobs, then of dear ones.
    lanes: [Arc<Lane>; 2],
    done: Receiver<Done>,
    patience: Duration,
    threads: Vec<JoinHandle<()>>,
}

/// Jobs that wait for threads.
#[derive(Default)]
struct Lane {
    state: Mutex<State>,
    /// There is a job, or nothing more to come.
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Threads {
    /// Starts so many, and one for dear jobs; who waits for them does so for `patience` at
    /// most.
    pub fn new(count: usize, patience: Duration) -> Self {
        let lanes: [Arc<Lane>; 2] = Default::default();
        let (to, done) = mpsc::channel();
        let thread = |at: usize| {
            let lane = lanes[usize::from(at == 0)].clone();
            let to = to.clone();
            let builder = thread::Builder::new().name(format!("mask-{at}"));
            builder.stack_size(STACK_BYTES).spawn(move || lane.work(&to))
        };
        let threads = (0..=count.max(1)).map(thread);
        let threads = threads.collect::<Result<_, _>>().expect("the system gives threads");
        Self { lanes, done, patience, threads }
    }
}

impl Masker for Threads {
    fn ask(&mut self, job: Job) {
        let lane = &self.lanes[usize::from(job.dear)];
        lane.state().jobs.push_back(job);
        lane.work.notify_one();
    }

    fn done(&mut self, wanted: &[u64]) -> Vec<Done> {
        let mut all: Vec<Done> = self.done.try_iter().collect();
        let came = |done: &Done| wanted.contains(&done.id);
        let mut lacking = wanted.len() - all.iter().filter(|done| came(done)).count();
        let end = Instant::now() + self.patience;
        while lacking > 0 {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(done) = self.done.recv_timeout(left) else { break };
            lacking -= usize::from(came(&done));
            all.push(done);
        }
        all
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for lane in &self.lanes {
            let mut state = lane.state();
            state.closed = true;
            state.jobs.clear();
            drop(state);
            lane.work.notify_all();
        }
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread that computes masks does not panic");
        }
    }
}

impl Lane {
    /// What no panic leaves half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does jobs, as long as there is somebody to tell.
    fn work(&self, to: &Sender<Done>) {
        while let Some(job) = self.next() {
            let begun = Instant::now();
            let mut done = job.run();
            if let Ok(next) = &mut done.outcome {
                next.dear = begun.elapsed() > DEAR;
            }
            // Who asked may have gone.
            let _ = to.send(done);
        }
    }

    fn next(&self) -> Option<Job> {
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
