//! The host side of device plugins, on a device that puts off what it is given: what is
//! submitted, released and collected in any order is what the CPU does in this order.

use backends::cpu::Cpu;
use backends::plugin::Plugin;
use engine::engine::Engine;
use kernels_core::Error;
use kernels_core::device::{Backend, Buffer, Launch, Program, Ticket};
use kernels_core::error::Fault;
use pagewise_tests::guided::Late;
use pagewise_tests::harness::Noise;
use pagewise_tests::model::{load, thin};
use pagewise_tests::queued::Watch;
use pagewise_tests::queued::steps::{
    COLUMNS, INDICES, MATRIX, ROWS, Ready, add, all_of, cpu, floats, gather,
};
use pagewise_tests::serving::{Answer, Served, generate, greedy, prompt, settings, vocabulary};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Numbers of rows; one in eight has one that is none.
fn indices(noise: &mut Noise) -> Vec<u8> {
    let mut indices = noise.permutation(ROWS);
    if noise.below(8) == 0 {
        indices[noise.below(ROWS) as usize] = ROWS + noise.below(3);
    }
    bytemuck::cast_slice(&indices).to_vec()
}

/// A device and the CPU, which do the same. What the CPU refuses when it is submitted the
/// device refuses when it is collected.
struct Twins {
    device: Plugin,
    cpu: Cpu,
    matrices: Vec<[Buffer; 2]>,
    weight: [Buffer; 2],
    indices: [Buffer; 2],
    programs: Vec<[Program; 2]>,
    flying: Vec<(Ticket, Result<Vec<u8>, Error>)>,
}

impl Twins {
    fn new(mut device: Plugin, noise: &mut Noise) -> Self {
        let mut cpu = cpu();
        let weight = Arc::new(floats(noise, COLUMNS));
        let weight = [device.import(weight.clone()), cpu.import(weight)].map(Result::unwrap);
        let indices = [device.alloc(INDICES as u64), cpu.alloc(INDICES as u64)];
        let indices = indices.map(Result::unwrap);
        let (matrices, programs, flying) = (Vec::new(), Vec::new(), Vec::new());
        Self { device, cpu, matrices, weight, indices, programs, flying }
    }

    fn alloc(&mut self, noise: &mut Noise) {
        let [a, b] = [self.device.alloc(MATRIX as u64), self.cpu.alloc(MATRIX as u64)];
        let matrix = [a.unwrap(), b.unwrap()];
        if noise.below(2) == 0 {
            let bytes = floats(noise, ROWS * COLUMNS);
            self.device.write(all_of(matrix[0], MATRIX), &bytes).unwrap();
            self.cpu.write(all_of(matrix[1], MATRIX), &bytes).unwrap();
        }
        self.matrices.push(matrix);
    }

    fn record(&mut self, noise: &mut Noise) {
        let picked = noise.permutation(self.matrices.len() as u32);
        let [a, b, c] = [0, 1, 2].map(|at| self.matrices[picked[at] as usize]);
        let commands = |of: usize| {
            let back = gather(b[of], self.indices[of], a[of]);
            let sum = add(b[of], self.weight[of], c[of], a[of]);
            [gather(a[of], self.indices[of], b[of]), sum, back]
        };
        // Few commands take less scratch than many.
        let count = 1 + noise.below(3) as usize;
        let device = self.device.record(&commands(0)[..count]).unwrap();
        let cpu = self.cpu.record(&commands(1)[..count]).unwrap();
        self.programs.push([device, cpu]);
    }

    fn submit(&mut self, noise: &mut Noise) {
        let program = self.programs[noise.below(self.programs.len() as u32) as usize];
        let (indices, bytes) = (indices(noise), floats(noise, ROWS * COLUMNS));
        let written = self.matrices[noise.below(self.matrices.len() as u32) as usize];
        let read = self.matrices[noise.below(self.matrices.len() as u32) as usize];
        let has_all = noise.below(3) > 0;
        let with = |of: usize| {
            let writes = [
                (all_of(self.indices[of], INDICES), &indices[..]),
                (all_of(written[of], MATRIX), &bytes[..]),
            ];
            let reads = vec![all_of(read[of], MATRIX), all_of(self.indices[of], INDICES)];
            (writes[..1 + usize::from(has_all)].to_vec(), reads)
        };
        let [(writes, reads), (cpu_writes, cpu_reads)] = [with(0), with(1)];
        let launch = Launch { writes: &cpu_writes, program: program[1], reads: &cpu_reads };
        let answer = self.cpu.submit(launch).map(|ticket| {
            let mut answer = vec![0; MATRIX + INDICES];
            self.cpu.collect(ticket, &mut answer).unwrap();
            answer
        });
        let launch = Launch { writes: &writes, program: program[0], reads: &reads };
        let ticket = self.device.submit(launch);
        // A program whose memory was released is refused at once, by both.
        match (ticket, answer) {
            (Ok(ticket), answer) => self.flying.push((ticket, answer)),
            (Err(error), answer) => assert_eq!(Err(error), answer.map(drop)),
        }
    }

    fn collect(&mut self, noise: &mut Noise) {
        if self.flying.is_empty() {
            return;
        }
        let at = noise.below(self.flying.len() as u32) as usize;
        let (ticket, expected) = self.flying.remove(at);
        let mut got = vec![0; MATRIX + INDICES];
        let collected = self.device.collect(ticket, &mut got);
        assert_eq!(collected.map(|()| got), expected);
        let again = self.device.collect(ticket, &mut [0; MATRIX + INDICES]);
        assert_eq!(again.expect_err("it was collected").fault, Fault::Stale);
    }

    /// Takes a matrix away, with every program: another takes its place.
    fn release(&mut self, noise: &mut Noise) {
        let at = noise.below(self.matrices.len() as u32) as usize;
        let [device, cpu] = self.matrices.swap_remove(at);
        for [device, cpu] in self.programs.drain(..) {
            self.device.forget(device).unwrap();
            self.cpu.forget(cpu).unwrap();
        }
        self.device.release(device).unwrap();
        self.cpu.release(cpu).unwrap();
        self.alloc(noise);
        self.record(noise);
    }
}

/// So many things at random, several submissions deep.
fn at_random(seed: u64, steps: u32) {
    let (watch, device) = Watch::opened(seed);
    let mut noise = Noise::new(seed ^ 1);
    let mut twins = Twins::new(device, &mut noise);
    (0..4).for_each(|_| twins.alloc(&mut noise));
    twins.record(&mut noise);
    let mut deepest = 0;
    for _ in 0..steps {
        match noise.below(16) {
            0 => twins.record(&mut noise),
            1 => twins.release(&mut noise),
            2..9 => twins.submit(&mut noise),
            _ => twins.collect(&mut noise),
        }
        deepest = deepest.max(twins.flying.len());
    }
    assert!(deepest > 1, "submissions wait behind one another");
    // Some are under way when all of it goes.
    drop(twins);
    assert_eq!(watch.left(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn submissions_in_any_order_equal_the_cpus(seed in any::<u64>()) {
        at_random(seed, 120);
    }
}

#[test]
fn what_is_released_stays_until_its_last_step_has_ended() {
    let mut ready = Ready::new(3);
    let whole = ready.watch.left();
    let tickets = [0, 1, 2].map(|at| ready.submit(at).expect("a good step"));
    // Staging memory and an event for each.
    assert_eq!(ready.watch.left(), whole + 6);
    ready.device.forget(ready.program).expect("it is there");
    for buffer in ready.buffers.clone() {
        ready.device.release(buffer).expect("it is there");
    }
    ready.assert_collects(tickets[2], 2);
    // The device, its stream with an event, and what imports went through; staging memory and
    // an event for each step; what the program has of its own, for two are not collected.
    assert_eq!(ready.watch.left(), 4 + 6 + 3);
    ready.assert_collects(tickets[0], 0);
    ready.assert_collects(tickets[1], 1);
    assert_eq!(ready.watch.left(), 4 + 6);
}

#[test]
fn staging_memory_is_used_again() {
    let mut ready = Ready::new(4);
    let mut left = None;
    for round in 0..50 {
        let tickets = [0, 1, 2].map(|at| ready.submit(at).expect("a good step"));
        for at in [1, 2, 0] {
            ready.assert_collects(tickets[at], at);
        }
        let now = ready.watch.left();
        assert_eq!(*left.get_or_insert(now), now, "round {round}");
    }
}

#[test]
fn submitting_waits_for_nothing() {
    let mut ready = Ready::new(6);
    let tickets = [0, 1, 2].map(|at| ready.submit(at).expect("a good step"));
    assert!(ready.watch.waiting() > 0, "something is under way");
    (0..3).for_each(|at| ready.assert_collects(tickets[at], at));
    assert_eq!(ready.watch.waiting(), 0);
}

#[test]
fn an_engine_says_the_same_bits_on_it() {
    let requests = || {
        let lengths = [3, 37, 18, 50, 9, 26];
        lengths.into_iter().enumerate().map(|(at, len)| {
            let mut request = greedy(at as u64 + 1, &prompt(at as u32, len), 12);
            let asked = generate(&mut request);
            (asked.top, asked.prompt_top) = (Some(3), (at == 3).then_some(2));
            if at % 2 == 1 {
                (asked.sampling.temperature, asked.sampling.seed) = (1.0, at as u64);
                (asked.sampling.presence, asked.sampling.top_p) = (0.5, 0.9);
            }
            request
        })
    };
    let serve = |served: &mut Served| {
        requests().for_each(|request| served.submit(request));
        served.run();
        served.assert_all_pages_free();
        served.answers.values().map(Answer::bits).collect::<Vec<_>>()
    };
    let expected = serve(&mut Served::new(settings()));
    for seed in 0..3 {
        let (watch, mut device) = Watch::opened(seed);
        let model = load(&mut device, &thin::checkpoint(), None).expect("the golden loads");
        let masker = Box::new(Late::new(0));
        let engine = Engine::new(Box::new(device), model, vocabulary(), masker, settings());
        let engine = engine.expect("it is served");
        let mut served = Served { engine, answers: BTreeMap::new(), now: Duration::ZERO };
        assert_eq!(serve(&mut served), expected, "seed {seed}");
        drop(served);
        assert_eq!(watch.left(), 0);
    }
}
