//! What was sent to the GPU since an event was recorded: one event stands for many command
//! buffers, and tells the first that failed. Pure.

use kernels_core::Error;

/// What is known of a command buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    UnderWay,
    Done,
    Failed(Error),
}

/// Command buffers of a queue, in the order of their commits.
#[derive(Clone)]
pub struct Sent<B> {
    buffers: Vec<B>,
    /// An event stands for them: the next one begins anew.
    is_marked: bool,
}

// Deriving it would ask the same of `B`.
impl<B> Default for Sent<B> {
    fn default() -> Self {
        Self { buffers: Vec::new(), is_marked: false }
    }
}

impl<B: Clone> Sent<B> {
    /// One more. Those that are done are let go.
    pub fn push(&mut self, buffer: B, state: impl Fn(&B) -> State) {
        if self.is_marked {
            *self = Self::default();
        }
        self.buffers.retain(|buffer| state(buffer) != State::Done);
        self.buffers.push(buffer);
    }

    /// All since the last mark; or, where there are none, those that the last mark stood for.
    pub fn mark(&mut self) -> Self {
        self.is_marked = true;
        self.clone()
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = &B> {
        self.buffers.iter()
    }

    /// The first failure there is once all have ended.
    pub fn state(&self, state: impl Fn(&B) -> State) -> State {
        let states: Vec<State> = self.iter().map(state).collect();
        if states.contains(&State::UnderWay) {
            return State::UnderWay;
        }
        states.into_iter().find(|state| *state != State::Done).unwrap_or(State::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::{Sent, State};
    use kernels_core::Error;
    use kernels_core::error::Fault;

    fn failed(code: i64) -> State {
        State::Failed(Error::new("device", "commands", Fault::Device { says: "it stopped", code }))
    }

    fn sent(states: &[State]) -> Sent<State> {
        let mut sent = Sent::default();
        states.iter().for_each(|state| sent.push(*state, |state| *state));
        sent
    }

    #[test]
    fn an_event_tells_the_first_that_failed_once_all_have_ended() {
        use State::{Done, UnderWay};
        assert_eq!(sent(&[]).state(|state| *state), Done);
        for (states, told) in [
            (vec![Done, Done], Done),
            (vec![Done, failed(2), failed(3), Done], failed(2)),
            (vec![failed(2), UnderWay], UnderWay),
        ] {
            assert_eq!(sent(&states).mark().state(|state| *state), told, "{states:?}");
        }
    }

    #[test]
    fn what_was_sent_before_an_event_is_not_told_of_the_next_program() {
        let mut sent = sent(&[failed(2)]);
        assert_eq!(sent.mark().state(|state| *state), failed(2));
        assert_eq!(sent.mark().state(|state| *state), failed(2), "nothing was sent since");
        sent.push(State::Done, |state| *state);
        assert_eq!(sent.mark().state(|state| *state), State::Done);
    }

    #[test]
    fn what_is_done_is_let_go() {
        let sent = sent(&[State::Done, failed(2), State::Done, State::UnderWay]);
        assert_eq!(sent.iter().collect::<Vec<_>>(), [&failed(2), &State::UnderWay]);
    }
}
