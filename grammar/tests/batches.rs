//! Masks of many texts at once: who is late, and that nothing is lost.

use grammar::{Batch, Batches, Busy, Desk, Fault, Matcher, Row, masks_here};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// A text whose mask is its number, and takes a while, or fails.
struct Slow {
    number: u32,
    takes: Duration,
    fails: bool,
    computed: Arc<AtomicU32>,
}

impl Matcher for Slow {
    fn mask(&mut self, words: &mut [u32]) -> Result<(), Fault> {
        thread::sleep(self.takes);
        self.computed.fetch_add(1, Ordering::Relaxed);
        words.fill(self.number);
        if self.fails { Err(Fault::TooMuch("on purpose".into())) } else { Ok(()) }
    }
    fn accept(&mut self, token: u32) -> Result<(), Fault> {
        self.number = token;
        Ok(())
    }
    fn allowed(&mut self, tokens: &[u32]) -> Result<usize, Fault> {
        Ok(tokens.len())
    }
    fn take_back(&mut self, _count: usize) -> Result<(), Fault> {
        Ok(())
    }
    fn may_end(&mut self) -> Result<bool, Fault> {
        Ok(true)
    }
    fn fork(&self) -> Box<dyn Matcher> {
        let Self { number, takes, fails, ref computed } = *self;
        Box::new(Self { number, takes, fails, computed: computed.clone() })
    }
}

const WORDS: usize = 2;
/// One word more, which stays 0.
const ROW: usize = 3;

fn desk(number: u32, takes_ms: u64, fails: bool) -> (Arc<Desk>, Arc<AtomicU32>) {
    let computed = Arc::new(AtomicU32::new(0));
    let takes = Duration::from_millis(takes_ms);
    let slow = Slow { number, takes, fails, computed: computed.clone() };
    (Arc::new(Desk::new(Box::new(slow), WORDS)), computed)
}

fn ask(
    masks: impl FnOnce(Batch<'_>) -> Vec<Row>,
    desks: &[Arc<Desk>],
    patience_ms: Option<u64>,
) -> (Vec<Row>, Vec<u32>) {
    let mut words = vec![7; desks.len() * ROW];
    let patience = patience_ms.map(Duration::from_millis);
    let rows = masks(Batch { desks, words: &mut words, row_words: ROW, patience });
    (rows, words)
}

#[test]
fn who_waits_for_all_gets_all_and_faults_are_of_their_rows() {
    let batches = Batches::new(2);
    let desks = [desk(1, 1, false).0, desk(2, 0, true).0, desk(3, 0, false).0];
    for _ in 0..3 {
        let (rows, words) = ask(|batch| batches.masks(batch), &desks, None);
        let fault = Row::Fault(Fault::TooMuch("on purpose".into()));
        assert_eq!(rows, [Row::Done, fault.clone(), Row::Done]);
        assert_eq!(words, [1, 1, 0, 0, 0, 0, 3, 3, 0]);
        assert_eq!(ask(masks_here, &desks, None), (rows, words));
    }
}

#[test]
fn a_late_mask_is_computed_once_and_is_there_the_next_time() {
    let batches = Batches::new(1);
    let ((slow, computed), (quick, _)) = (desk(1, 150, false), desk(2, 0, false));
    let desks = [quick, slow.clone()];
    let begun = Instant::now();
    let (rows, words) = ask(|batch| batches.masks(batch), &desks, Some(30));
    assert!(begun.elapsed() < Duration::from_millis(140), "it waits no longer than it may");
    assert_eq!((rows, words), (vec![Row::Done, Row::Late], vec![2, 2, 0, 0, 0, 0]));
    // Meanwhile nobody else has the text.
    assert_eq!(slow.text(true).err(), Some(Busy));
    let (rows, words) = ask(|batch| batches.masks(batch), &desks, None);
    assert_eq!((rows, words), (vec![Row::Done, Row::Done], vec![2, 2, 0, 1, 1, 0]));
    assert_eq!(computed.load(Ordering::Relaxed), 1, "what was late was not begun again");
    // One that nobody fetched is of the text as it was.
    let (rows, _) = ask(|batch| batches.masks(batch), &desks, Some(1));
    assert_eq!(rows[1], Row::Late);
    while slow.text(false).is_err() {
        thread::sleep(Duration::from_millis(5));
    }
    slow.text(true).expect("it is free").accept(9).expect("any token");
    let (rows, words) = ask(|batch| batches.masks(batch), &desks, None);
    assert_eq!((rows, words), (vec![Row::Done, Row::Done], vec![2, 2, 0, 9, 9, 0]));
}

#[test]
fn jobs_that_threads_leave_behind_are_given_up() {
    let batches = Batches::new(1);
    let desks = [desk(1, 60, false).0, desk(2, 0, false).0];
    let (rows, _) = ask(|batch| batches.masks(batch), &desks, Some(1));
    assert_eq!(rows, [Row::Late, Row::Late]);
    drop(batches);
    // The first was computed to its end; the second was never begun, and is free.
    let again = Batches::new(1);
    let (rows, words) = ask(|batch| again.masks(batch), &desks, None);
    assert_eq!((rows, words), (vec![Row::Done, Row::Done], vec![1, 1, 0, 2, 2, 0]));
}

#[test]
fn on_the_callers_thread_none_begins_after_the_deadline() {
    let ((first, _), (second, computed)) = (desk(1, 30, false), desk(2, 0, false));
    let (rows, words) = ask(masks_here, &[first, second], Some(10));
    assert_eq!((rows, words), (vec![Row::Done, Row::Late], vec![1, 1, 0, 0, 0, 0]));
    assert_eq!(computed.load(Ordering::Relaxed), 0);
}

#[test]
fn many_ask_at_once_and_each_gets_its_own() {
    let (batches, together) = (Batches::new(2), Barrier::new(4));
    thread::scope(|scope| {
        for caller in 0..4_u32 {
            let (batches, together) = (&batches, &together);
            scope.spawn(move || {
                let numbers = caller * 100..caller * 100 + 50;
                let desks: Vec<_> = numbers.clone().map(|at| desk(at, 0, false).0).collect();
                together.wait();
                for _ in 0..20 {
                    let (rows, words) = ask(|batch| batches.masks(batch), &desks, None);
                    assert!(rows.iter().all(|row| *row == Row::Done));
                    let firsts = words.chunks(ROW).map(|row| row[0]);
                    assert!(firsts.eq(numbers.clone()), "caller {caller}");
                }
            });
        }
    });
}
