//! The host side of device plugins where something fails or is wrong: whichever call fails,
//! nothing is touched after it was given back, nothing stays behind, and what comes later is
//! right or refused; what is gone, another device's or too small is refused by its field.

use backends::plugin::Plugin;
use kernels_core::Error;
use kernels_core::device::{Backend, Buffer, Launch, Program, Slice, Ticket};
use kernels_core::error::Fault;
use pagewise_tests::harness::Noise;
use pagewise_tests::queued::steps::{
    INDICES, MATRIX, ROWS, Ready, Step, all_of, commands, made, steps, submit,
};
use pagewise_tests::queued::{Failing, Watch};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a script holds: a program on three matrices.
struct Script {
    device: Plugin,
    buffers: Vec<Buffer>,
    program: Option<Program>,
    tickets: Vec<(Ticket, Vec<u8>)>,
    errors: Vec<Error>,
}

impl Script {
    fn take<T>(&mut self, outcome: Result<T, Error>) -> Option<T> {
        outcome.map_err(|error| self.errors.push(error)).ok()
    }

    fn submit(&mut self, step: &Step) {
        let Some(program) = self.program else { return };
        let ticket = submit(&mut self.device, &self.buffers, program, step);
        if let Some(ticket) = self.take(ticket) {
            self.tickets.push((ticket, step.answer.clone()));
        }
    }

    /// Collects one of those under way: it is right or refused.
    fn collect(&mut self, at: usize) {
        if at >= self.tickets.len() {
            return;
        }
        let (ticket, expected) = self.tickets.remove(at);
        let mut got = vec![0; expected.len()];
        let collected = self.device.collect(ticket, &mut got);
        if self.take(collected).is_some() {
            assert!(got == expected, "what is collected is right");
        }
    }

    /// Memory and a program on it.
    fn record(&mut self, weight: &[u8]) {
        let buffers = made(&mut self.device, weight);
        self.buffers = self.take(buffers).unwrap_or_default();
        if !self.buffers.is_empty() {
            let program = self.device.record(&commands(&self.buffers));
            self.program = self.take(program);
        }
    }

    fn give_back(&mut self) {
        if let Some(program) = self.program.take() {
            let forgotten = self.device.forget(program);
            self.take(forgotten);
        }
        for buffer in std::mem::take(&mut self.buffers) {
            let released = self.device.release(buffer);
            self.take(released);
        }
    }
}

/// All that a host does with a device, whatever fails of it; the refusals of what failed.
fn script(watch: &Watch, weight: &[u8], steps: &[Step]) -> Vec<Error> {
    let device = match watch.open() {
        Ok(device) => device,
        Err(error) => return vec![error],
    };
    let (buffers, program, tickets, errors) = (Vec::new(), None, Vec::new(), Vec::new());
    let mut script = Script { device, buffers, program, tickets, errors };
    // It goes through the same memory as what is imported next.
    let imported = script.device.import(Arc::new(steps[6].x.clone()));
    script.take(imported);
    script.record(weight);
    steps[..3].iter().for_each(|step| script.submit(step));
    script.collect(1);
    script.submit(&steps[3]);
    // What is under way uses all of it still.
    script.give_back();
    script.record(weight);
    script.submit(&steps[4]);
    script.collect(0);
    script.submit(&steps[5]);
    (0..2).for_each(|_| script.collect(0));
    if let Some(&buffer) = script.buffers.get(1) {
        let written = script.device.write(all_of(buffer, MATRIX), &steps[0].x);
        script.take(written);
    }
    script.submit(&steps[0]);
    // Two are under way when the device goes.
    script.errors
}

/// Calls that the script makes where nothing fails.
fn calls(seed: u64, weight: &[u8], steps: &[Step]) -> u64 {
    let watch = Watch::new(seed);
    assert!(script(&watch, weight, steps).is_empty(), "nothing fails");
    watch.calls()
}

#[test]
fn whichever_call_fails_nothing_is_lost_or_touched_after_its_end() {
    let (weight, steps) = steps(&mut Noise::new(5), 7);
    let mut functions = BTreeSet::new();
    for failing in [Failing::Once, Failing::ForGood] {
        for seed in 0..4 {
            for call in 1..=calls(seed, &weight, &steps) {
                let watch = Watch::new(seed);
                watch.fail(call, failing);
                let errors = script(&watch, &weight, &steps);
                for error in &errors {
                    let made =
                        matches!(error.fault, Fault::Device { says: "it was made to fail", .. });
                    assert!(made, "call {call}, {failing:?}: {error}");
                }
                assert_eq!(watch.wrongs(), [""; 0], "call {call}, {failing:?}, seed {seed}");
                assert_eq!(watch.left(), 0, "call {call}, {failing:?}, seed {seed}");
                functions.extend(watch.failed());
                // Whether it has ended is asked, and the last wait is nobody's to hear of.
                let may_go_unheard = ["event_done", "event_record", "event_wait"];
                let failed = watch.failed().expect("as many calls were made");
                match errors.len() {
                    0 => assert!(may_go_unheard.contains(&failed), "call {call}: {failed}"),
                    // What comes after it is right.
                    1 => {}
                    more => assert_eq!(failing, Failing::ForGood, "call {call}: {more} refused"),
                }
            }
        }
    }
    let all = [
        "about",
        "alloc",
        "event",
        "event_done",
        "event_record",
        "event_wait",
        "graph_begin",
        "graph_end",
        "graph_launch",
        "host_alloc",
        "launch",
        "open",
        "read",
        "stream",
        "write",
        "zero",
    ];
    assert_eq!(functions.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn a_refused_step_names_its_command_and_the_next_one_runs() {
    for seed in 0..8 {
        let mut ready = Ready::new(seed);
        let good = std::mem::replace(&mut ready.steps[1].indices, vec![0xff; INDICES]);
        let tickets = [0, 1, 2].map(|at| ready.submit(at).expect("nothing is known of it yet"));
        let error = ready.device.collect(tickets[1], &mut [0; 2 * MATRIX]);
        let (least, most, got) = (0, i64::from(ROWS) - 1, i64::from(u32::MAX));
        let fault = Fault::Element { at: 0, least, most, got };
        assert_eq!(error, Err(Error::new("gather", "indices", fault)));
        ready.assert_collects(tickets[2], 2);
        ready.assert_collects(tickets[0], 0);
        ready.steps[1].indices = good;
        let ticket = ready.submit(1).expect("a good step");
        ready.assert_collects(ticket, 1);
    }
}

fn launch<'a>(program: Program, writes: &'a [(Slice, &'a [u8])], reads: &'a [Slice]) -> Launch<'a> {
    Launch { writes, program, reads }
}

#[test]
fn what_is_gone_or_anothers_is_refused() {
    let (mut ready, mut other) = (Ready::new(7), Ready::new(8));
    let stale = |outcome: Result<(), Error>, field: &str| {
        let error = outcome.expect_err("it is not there");
        assert_eq!((error.field, error.fault), (field, Fault::Stale));
    };
    let (ticket, others) = (ready.submit(0).expect("good"), other.submit(0).expect("good"));
    let mut into = vec![0; 2 * MATRIX];
    stale(ready.device.collect(others, &mut into), "ticket");
    let later = Ticket { number: ticket.number + 1, ..ticket };
    stale(ready.device.collect(later, &mut into), "ticket");
    // A place for another number of bytes leaves the ticket as it was.
    let error = ready.device.collect(ticket, &mut into[1..]).expect_err("it is too short");
    let (expected, got) = (into.len() as u64, into.len() as u64 - 1);
    assert_eq!((error.field, error.fault), ("into", Fault::Bytes { expected, got }));
    ready.assert_collects(ticket, 0);
    stale(ready.device.collect(ticket, &mut into), "ticket");

    let foreign = other.buffers[1];
    stale(ready.device.release(foreign), "buffer");
    stale(ready.device.write(all_of(foreign, MATRIX), &into[..MATRIX]), "writes");
    stale(ready.device.forget(other.program), "program");
    let mut mixed = ready.buffers.clone();
    mixed[1] = foreign;
    stale(ready.device.record(&commands(&mixed)).map(drop), "x");
    stale(ready.device.query(&commands(&mixed)[0]).map(drop), "x");
    let writes = [(all_of(foreign, MATRIX), &into[..MATRIX])];
    let reads = [all_of(foreign, MATRIX)];
    stale(ready.device.submit(launch(other.program, &[], &[])).map(drop), "program");
    stale(ready.device.submit(launch(ready.program, &writes, &[])).map(drop), "writes");
    stale(ready.device.submit(launch(ready.program, &[], &reads)).map(drop), "reads");

    // A released buffer's place is another's, which its programs do not take for it.
    ready.device.release(ready.buffers[1]).expect("it is there");
    let again = ready.device.alloc(MATRIX as u64).expect("nothing fails");
    assert_eq!(
        (again.id, again.generation),
        (ready.buffers[1].id, ready.buffers[1].generation + 1)
    );
    stale(ready.device.release(ready.buffers[1]), "buffer");
    stale(ready.device.submit(launch(ready.program, &[], &[])).map(drop), "x");
    ready.device.forget(ready.program).expect("it is there");
    stale(ready.device.submit(launch(ready.program, &[], &[])).map(drop), "program");
    stale(ready.device.forget(ready.program), "program");
}

#[test]
fn a_call_with_too_little_scratch_is_refused_by_its_bytes() {
    let watch = Watch::new(9);
    for (given, refused) in [(255, true), (0, true), (256, false), (1 << 20, false)] {
        let fault = Fault::Bytes { expected: 256, got: given };
        let expected = refused.then_some(Error::new("gather", "workspace", fault));
        assert_eq!(watch.launched_with(given), expected);
    }
}

#[test]
fn what_a_plugin_refuses_comes_back_as_that_refusal() {
    let ready = Ready::new(10);
    let [gather, _] = commands(&ready.buffers);
    for fault in [
        Fault::Range { least: 1, most: 256, got: 300 },
        Fault::Multiple { of: 8, got: 12 },
        Fault::Align { expected: 4, got: 2 },
        Fault::Unsupported { expected: "f32 and bf16", got: 4 },
        Fault::Missing { needed_by: "a softcap" },
    ] {
        let refusal = Error::new("gather", "columns", fault);
        ready.watch.refuse(refusal);
        assert_eq!(ready.device.query(&gather), Err(refusal));
    }
}
