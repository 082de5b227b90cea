//! An update of weights that was started: tensors come in as many calls as they need, until a
//! last one takes all of them. Who does not end it in time loses it.

use crate::deadline::Deadline;
use crate::openai::Refusal;
use checkpoint::Checkpoint;
use engine::weights::Tensors;
use hyper::StatusCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The one that is started, if one is.
#[derive(Default)]
pub struct Begun(Mutex<State>);

/// What came of it so far.
#[derive(Default)]
pub struct Came {
    /// The checkpoint of a folder, if one came, and the version that it will be.
    pub whole: Option<(u64, Checkpoint)>,
    /// Tensors, by name.
    pub tensors: Tensors,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    Open {
        came: Box<Came>,
        until: Deadline,
    },
    /// It was not ended in time. Its next calls are told so: they must not be taken for calls
    /// of no update.
    Late(Deadline),
}

impl Begun {
    /// Starts one; whatever was started before is dropped. What it holds is free at its
    /// deadline.
    pub fn start(self: &Arc<Self>, until: Deadline) {
        *self.lock() = State::Open { came: Box::default(), until };
        let Some(at) = until.at() else { return };
        let begun = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            // Where another one was started since, its own deadline counts.
            drop(begun.settled());
        });
    }

    /// Whether one was started, and not ended.
    pub fn is_open(&self) -> bool {
        !matches!(*self.settled(), State::None)
    }

    /// Something joins it.
    pub fn join(
        &self,
        something: impl FnOnce(&mut Came) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        match &mut *self.settled() {
            State::None => Err(not_begun()),
            State::Open { came, .. } => something(came),
            State::Late(until) => Err(late(*until)),
        }
    }

    /// Ends it, with all that came and its deadline.
    pub fn take(&self) -> Result<(Came, Deadline), Refusal> {
        match std::mem::take(&mut *self.settled()) {
            State::None => Err(not_begun()),
            State::Open { came, until } => Ok((*came, until)),
            State::Late(until) => Err(late(until)),
        }
    }

    /// The state as it is now: whether or not somebody woke up for a deadline, it counts.
    fn settled(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if let State::Open { until, .. } = &*state
            && until.has_passed()
        {
            tracing::warn!("an update of weights was not ended in time: it is dropped");
            *state = State::Late(*until);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_begun() -> Refusal {
    let words = "no update of weights is started: /start_weight_update starts one";
    Refusal::new(StatusCode::CONFLICT, words)
}

fn late(until: Deadline) -> Refusal {
    let seconds = until.seconds().unwrap_or_default();
    let words = format!(
        "the update of weights was not ended within {seconds} seconds of its start, and was \
         dropped: /start_weight_update starts another, and `deadline_seconds` gives it more time"
    );
    let mut refusal = Refusal::new(StatusCode::GONE, words);
    refusal.code = Some("weight_update_expired");
    refusal
}

#[cfg(test)]
mod tests {
    use super::Begun;
    use crate::deadline::Deadline;
    use engine::weights::{Element, Tensor, Tensors};
    use hyper::StatusCode;
    use std::sync::{Arc, Weak};
    use std::time::Duration;

    fn until(seconds: f64) -> Deadline {
        Deadline::of("deadline_seconds", seconds).expect("a time")
    }

    /// A tensor, and whether it is still there.
    fn tensors() -> (Tensors, Weak<Vec<u8>>) {
        let file = Arc::new(vec![0u8; 4]);
        let there = Arc::downgrade(&file);
        let tensor = Tensor::new(Element::Other { bytes: 1 }, vec![4], file, 0..4);
        ([("t".to_owned(), tensor.expect("four bytes"))].into(), there)
    }

    fn add(begun: &Begun, tensors: Tensors) -> Result<(), crate::openai::Refusal> {
        begun.join(|came| {
            came.tensors.extend(tensors);
            Ok(())
        })
    }

    fn status<T>(outcome: Result<T, crate::openai::Refusal>) -> Option<StatusCode> {
        outcome.err().map(|refusal| refusal.status)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_ended_in_time_is_dropped_with_what_it_holds() {
        let begun = Arc::new(Begun::default());
        assert_eq!(status(add(&begun, Tensors::new())), Some(StatusCode::CONFLICT));
        begun.start(until(10.0));
        let (some, there) = tensors();
        add(&begun, some).expect("it is open");
        tokio::time::sleep(Duration::from_millis(9_999)).await;
        assert!(there.upgrade().is_some());
        tokio::time::sleep(Duration::from_millis(2)).await;
        // Nobody has asked for it meanwhile.
        assert!(there.upgrade().is_none());
        assert!(begun.is_open(), "who goes on is no stranger");
        assert_eq!(status(add(&begun, tensors().0)), Some(StatusCode::GONE));
        assert_eq!(status(begun.take()), Some(StatusCode::GONE));
        assert_eq!(status(begun.take()), Some(StatusCode::CONFLICT), "it is told once");
    }

    #[tokio::test(start_paused = true)]
    async fn who_starts_anew_has_all_the_time_again() {
        let begun = Arc::new(Begun::default());
        begun.start(until(10.0));
        let (some, there) = tensors();
        add(&begun, some).expect("it is open");
        tokio::time::sleep(Duration::from_secs(8)).await;
        begun.start(until(10.0));
        assert!(there.upgrade().is_none(), "a start drops what came before");
        tokio::time::sleep(Duration::from_secs(8)).await;
        add(&begun, tensors().0).expect("it is open");
        assert_eq!(begun.take().expect("it is open").0.tensors.len(), 1);
        // The deadline of one that was ended is nobody's.
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(status(begun.take()), Some(StatusCode::CONFLICT));
    }
}
