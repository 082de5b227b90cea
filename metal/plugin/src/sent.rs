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
    /// Those under way that earlier events stand for: buffers begin in order, and need not end
    /// in it.
    before: Vec<B>,
    /// An event stands for them: the next one begins anew.
    is_marked: bool,
}

// Deriving it would ask the same of `B`.
impl<B> Default for Sent<B> {
    fn default() -> Self {
        Self { buffers: Vec::new(), before: Vec::new(), is_marked: false }
    }
}

impl<B: Clone> Sent<B> {
    /// One more. Those that are done are let go.
    pub fn push(&mut self, buffer: B, state: impl Fn(&B) -> State) {
        if self.is_marked {
            self.before.append(&mut self.buffers);
            self.is_marked = false;
        }
        self.before.retain(|buffer| state(buffer) == State::UnderWay);
        self.buffers.retain(|buffer| state(buffer) != State::Done);
        self.buffers.push(buffer);
    }

    /// All since the last mark, and what is still under way of those before. What has failed is
    /// not told by a second mark.
    pub fn mark(&mut self, state: impl Fn(&B) -> State) -> Self {
        if self.is_marked {
            self.buffers.retain(|buffer| !matches!(state(buffer), State::Failed(_)));
        }
        self.is_marked = true;
        self.clone()
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = &B> {
        self.before.iter().chain(&self.buffers)
    }

    /// The first failure there is since the mark before, once all have ended.
    pub fn state(&self, state: impl Fn(&B) -> State) -> State {
        if self.iter().any(|buffer| state(buffer) == State::UnderWay) {
            return State::UnderWay;
        }
        let states: Vec<State> = self.buffers.iter().map(state).collect();
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
            let event = sent(&states).mark(|state| *state);
            assert_eq!(event.state(|state| *state), told, "{states:?}");
        }
    }

    #[test]
    fn what_was_sent_before_an_event_is_not_told_of_the_next_program() {
        let told = |sent: &mut Sent<State>| sent.mark(|state| *state).state(|state| *state);
        let mut sent = sent(&[failed(2)]);
        assert_eq!(told(&mut sent), failed(2));
        assert_eq!(told(&mut sent), State::Done, "nothing was sent since");
        sent.push(failed(3), |state| *state);
        assert_eq!(told(&mut sent), failed(3));
        sent.push(State::Done, |state| *state);
        assert_eq!(told(&mut sent), State::Done);
    }

    #[test]
    fn what_an_earlier_event_stands_for_is_waited_for_and_not_told_again() {
        let states = std::cell::RefCell::new(vec![State::UnderWay, State::UnderWay]);
        let state = |at: &usize| states.borrow()[*at];
        let mut sent = Sent::default();
        sent.push(0, state);
        sent.mark(state);
        sent.push(1, state);
        let event = sent.mark(state);
        // The later one ends first.
        states.borrow_mut()[1] = State::Done;
        assert_eq!(event.state(state), State::UnderWay);
        states.borrow_mut()[0] = failed(2);
        assert_eq!(event.state(state), State::Done);
        assert_eq!(event.iter().count(), 2, "both are waited for");
    }

    #[test]
    fn what_is_done_is_let_go() {
        let sent = sent(&[State::Done, failed(2), State::Done, State::UnderWay]);
        assert_eq!(sent.iter().collect::<Vec<_>>(), [&failed(2), &State::UnderWay]);
    }
}
