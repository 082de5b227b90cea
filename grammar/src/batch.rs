//! Masks of many texts at once. Who asks for them waits no longer than a deadline; a mask that
//! is late is computed all the same, and is there the next time.

use crate::crew::{Crew, Shape};
use crate::{Fault, Matcher};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Stack of a thread that computes masks.
const STACK_BYTES: usize = 16 << 20;

/// A text whose masks may be computed aside.
pub struct Desk {
    state: Mutex<State>,
    matcher: Mutex<Box<dyn Matcher>>,
    /// Words of a mask.
    words: usize,
}

enum State {
    Free,
    /// A thread computes its mask, or is to; somebody may wait for that.
    Busy(Option<Waiting>),
    /// A mask that nobody waited for any more.
    Ready(Outcome),
}

type Outcome = Result<Vec<u32>, Fault>;

/// Who waits for a mask.
struct Waiting {
    asked: Arc<Asked>,
    row: usize,
}

/// The mask of a text is being computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// A text that nobody else has.
pub struct Hand<'a> {
    matcher: MutexGuard<'a, Box<dyn Matcher>>,
    // Let go of last: no mask begins meanwhile.
    _state: MutexGuard<'a, State>,
}

impl Deref for Hand<'_> {
    type Target = dyn Matcher;
    fn deref(&self) -> &Self::Target {
        self.matcher.as_ref()
    }
}

impl DerefMut for Hand<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.matcher.as_mut()
    }
}

/// What no panic leaves half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// Of a text whose masks have so many words.
    pub fn new(matcher: Box<dyn Matcher>, words: usize) -> Self {
        Self { state: Mutex::new(State::Free), matcher: Mutex::new(matcher), words }
    }

    /// The text, to look at or to go on with. A mask that was late is of the text as it was:
    /// with `changes` it is dropped.
    pub fn text(&self, changes: bool) -> Result<Hand<'_>, Busy> {
        let mut state = lock(&self.state);
        match &*state {
            State::Busy(_) => return Err(Busy),
            State::Ready(_) if changes => *state = State::Free,
            State::Ready(_) | State::Free => {}
        }
        Ok(Hand { matcher: lock(&self.matcher), _state: state })
    }

    fn mask(&self) -> Outcome {
        let mut words = vec![0; self.words];
        lock(&self.matcher).mask(&mut words).map(|()| words)
    }

    /// No thread is at it any more; says what came of it to whoever waits.
    fn end(&self, outcome: Option<Outcome>) {
        let mut state = lock(&self.state);
        let State::Busy(waiting) = std::mem::replace(&mut *state, State::Free) else { return };
        let left = match (waiting, outcome) {
            (Some(waiting), outcome) => waiting.asked.tell(waiting.row, outcome),
            (None, outcome) => outcome,
        };
        if let Some(outcome) = left {
            *state = State::Ready(outcome);
        }
    }
}

/// Rows that are asked for at once.
struct Asked {
    state: Mutex<Rows>,
    /// None is lacking.
    complete: Condvar,
}

struct Rows {
    outcomes: Vec<Option<Outcome>>,
    lacking: usize,
    /// Somebody waits still.
    open: bool,
}

impl Asked {
    /// Whether somebody waits still.
    fn is_open(&self) -> bool {
        lock(&self.state).open
    }

    /// What came of a row, or that nothing will; gives it back if nobody waits any more.
    fn tell(&self, row: usize, outcome: Option<Outcome>) -> Option<Outcome> {
        let mut rows = lock(&self.state);
        if !rows.open {
            return outcome;
        }
        rows.outcomes[row] = outcome;
        rows.lacking -= 1;
        if rows.lacking == 0 {
            drop(rows);
            self.complete.notify_one();
        }
        None
    }
}

/// A mask to be computed.
struct Job {
    desk: Arc<Desk>,
    /// When whoever asked for it goes on without it.
    until: Option<Instant>,
    done: bool,
}

impl Job {
    fn run(mut self) {
        // Who waits no longer may find no core to go on with, but for this one.
        if self.until.is_some_and(|until| until <= Instant::now()) {
            thread::yield_now();
        }
        let outcome = self.desk.mask();
        self.done = true;
        self.desk.end(Some(outcome));
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.done {
            self.desk.end(None);
        }
    }
}

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// It is there.
    Done,
    /// It is not there yet, and of zeros.
    Late,
    /// There will be none.
    Fault(Fault),
}

/// Where the masks of a batch go, and until when they may come.
pub struct Batch<'a> {
    /// The texts, each another.
    pub desks: &'a [Arc<Desk>],
    /// `[desks][row_words]`: their masks. Words past those of a mask are zeros.
    pub words: &'a mut [u32],
    /// Words from one row to the next.
    pub row_words: usize,
    /// How long whoever asks waits; none, until all are there.
    pub patience: Option<Duration>,
}

/// Threads that compute masks.
pub struct Batches(Crew<Job>);

impl Batches {
    /// Starts so many.
    pub fn new(threads: usize) -> Self {
        let shape = Shape { name: "masks", count: threads, stack_bytes: STACK_BYTES, back: 0 };
        Self(Crew::new(shape, Job::run))
    }

    /// Computes the masks of a batch.
    pub fn masks(&self, batch: Batch<'_>) -> Vec<Row> {
        let Batch { desks, words, row_words, patience } = batch;
        let until = patience.map(|patience| Instant::now() + patience);
        let rows = Rows { outcomes: vec![None; desks.len()], lacking: desks.len(), open: true };
        let asked = Arc::new(Asked { state: Mutex::new(rows), complete: Condvar::new() });
        let jobs: Vec<Job> = desks
            .iter()
            .enumerate()
            .filter_map(|(row, desk)| ask(desk, Waiting { asked: asked.clone(), row }, until))
            .collect();
        self.0.push(jobs);
        let rows = lock(&asked.state);
        let lacks = |rows: &mut Rows| rows.lacking > 0;
        let mut rows = match patience {
            None => asked.complete.wait_while(rows, lacks).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                let waited = asked.complete.wait_timeout_while(rows, patience, lacks);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        rows.open = false;
        let outcomes = std::mem::take(&mut rows.outcomes);
        drop(rows);
        let to = words.chunks_exact_mut(row_words.max(1));
        outcomes.into_iter().zip(to).map(|(outcome, to)| write(outcome, to)).collect()
    }
}

/// A mask on its way, or at hand; a job where nobody is at it.
fn ask(desk: &Arc<Desk>, waiting: Waiting, until: Option<Instant>) -> Option<Job> {
    let mut state = lock(&desk.state);
    match std::mem::replace(&mut *state, State::Busy(None)) {
        State::Ready(outcome) => {
            *state = State::Free;
            waiting.asked.tell(waiting.row, Some(outcome));
            None
        }
        // One waits for it: to the other it is late, for only one can be told.
        State::Busy(Some(first)) if first.asked.is_open() => {
            *state = State::Busy(Some(first));
            waiting.asked.tell(waiting.row, None);
            None
        }
        State::Busy(_) => {
            *state = State::Busy(Some(waiting));
            None
        }
        State::Free => {
            *state = State::Busy(Some(waiting));
            Some(Job { desk: desk.clone(), until, done: false })
        }
    }
}

fn write(outcome: Option<Outcome>, to: &mut [u32]) -> Row {
    match outcome {
        Some(Ok(mask)) => {
            let (words, rest) = to.split_at_mut(mask.len().min(to.len()));
            words.copy_from_slice(&mask[..words.len()]);
            rest.fill(0);
            Row::Done
        }
        Some(Err(fault)) => {
            to.fill(0);
            Row::Fault(fault)
        }
        None => {
            to.fill(0);
            Row::Late
        }
    }
}

/// The same on the caller's thread, one after the other: late are those that were not begun in
/// time.
pub fn masks_here(batch: Batch<'_>) -> Vec<Row> {
    let Batch { desks, words, row_words, patience } = batch;
    let begun = Instant::now();
    let to = words.chunks_exact_mut(row_words.max(1));
    let row = |(desk, to): (&Arc<Desk>, &mut [u32])| {
        let late = patience.is_some_and(|patience| begun.elapsed() >= patience);
        match desk.text(false) {
            Ok(mut text) if !late => {
                let (words, rest) = to.split_at_mut(desk.words.min(to.len()));
                rest.fill(0);
                match text.mask(words) {
                    Ok(()) => Row::Done,
                    Err(fault) => {
                        words.fill(0);
                        Row::Fault(fault)
                    }
                }
            }
            _ => write(None, to),
        }
    };
    desks.iter().zip(to).map(row).collect()
}
