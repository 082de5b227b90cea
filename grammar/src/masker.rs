//! Masks are computed aside while a step runs, each within bounded steps of its own; whoever
//! wants them waits no longer than there is patience for, and takes the rest later.

use crate::crew::{Crew, Shape};
use crate::{Fault, Grammar, Matcher, Tree, tree_masks};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
    /// The tokens that may come next: one bit for each, lowest first. Then, in words of their
    /// own, those after each token of each path; none where the path itself may not come.
    pub masks: Vec<u32>,
    /// Whether the text is complete, and there is no token to say so.
    pub complete: bool,
    /// Whether it took long.
    pub dear: bool,
}

/// Computes masks aside. A test may stand behind it.
pub trait Masker: Send {
    /// Begins with jobs.
    fn ask(&mut self, jobs: Vec<Job>);

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
) -> Result<(Vec<u32>, bool), Fault> {
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
    let complete = masks[..words].iter().all(|word| *word == 0) && matcher.may_end()?;
    Ok((masks, complete))
}

/// What takes longer is dear.
const DEAR: Duration = Duration::from_millis(2);
/// By how much the thread of dear jobs stands back.
const DEAR_BACK: i32 = 5;

/// Does jobs on threads of its own, dear ones on one that does nothing else and stands back:
/// so they keep no others.
pub struct Threads {
    all: Crew<Job>,
    dear: Crew<Job>,
    finished: Arc<Finished>,
    patience: Duration,
}

/// Jobs that are done, for whoever waits for them.
#[derive(Default)]
struct Finished {
    state: Mutex<State>,
    /// All who are waited for are there.
    complete: Condvar,
}

#[derive(Default)]
struct State {
    done: Vec<Done>,
    /// Jobs that are waited for, and lack.
    lacking: Vec<u64>,
}

impl Threads {
    /// Starts so many, and one for dear jobs; who waits for them does so for `patience` at
    /// most.
    pub fn new(count: usize, patience: Duration) -> Self {
        let finished: Arc<Finished> = Arc::default();
        let crew = |name, count, back| {
            let finished = finished.clone();
            let shape = Shape { name, count, stack_bytes: STACK_BYTES, back };
            Crew::new(shape, move |job| finished.push(timed(job)))
        };
        Self { all: crew("mask", count, 0), dear: crew("dear", 1, DEAR_BACK), finished, patience }
    }
}

impl Masker for Threads {
    fn ask(&mut self, jobs: Vec<Job>) {
        let (dear, others): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.dear);
        self.all.push(others);
        self.dear.push(dear);
    }

    fn done(&mut self, wanted: &[u64]) -> Vec<Done> {
        self.finished.take(wanted, self.patience)
    }
}

/// Does a job, and says whether it took long.
fn timed(job: Job) -> Done {
    let begun = Instant::now();
    let mut done = job.run();
    if let Ok(next) = &mut done.outcome {
        next.dear = begun.elapsed() > DEAR;
    }
    done
}

impl Finished {
    /// What no panic leaves half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, done: Done) {
        let mut state = self.state();
        let lacked = state.lacking.len();
        state.lacking.retain(|id| *id != done.id);
        let complete = lacked > 0 && state.lacking.is_empty();
        state.done.push(done);
        drop(state);
        if complete {
            self.complete.notify_one();
        }
    }

    /// All that is done, once these are, or patience is out.
    fn take(&self, wanted: &[u64], patience: Duration) -> Vec<Done> {
        let mut state = self.state();
        let there = |id: &u64| state.done.iter().any(|done| done.id == *id);
        let lacking = wanted.iter().copied().filter(|id| !there(id)).collect();
        state.lacking = lacking;
        let lacks = |state: &mut State| !state.lacking.is_empty();
        let waited = self.complete.wait_timeout_while(state, patience, lacks);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.lacking.clear();
        std::mem::take(&mut state.done)
    }
}
