//! An engine with the golden Llama, on the CPU or another device, and what it has answered.

use crate::blank::Blank;
use crate::guided::Late;
use crate::model::{load, thin};
use backends::cpu::Cpu;
use checkpoint::Checkpoint;
use engine::engine::{Engine, Guessing, Made, Settings};
use engine::lora;
use engine::model::Model;
use engine::processor::Kept;
use engine::request::{
    Class, Event, Finish, Generate, Miss, Refused, Request, Sampling, Scored, Stop, Task,
};
use engine::vocabulary::Vocabulary;
use engine::weights::Quantize;
use grammar::Masker;
use kernels_core::Error;
use kernels_core::device::{
    Backend, Buffer, Command, HostBytes, Launch, Needs, Program, Slice, Ticket,
};
use kernels_core::dtype::Dtype;
use kernels_core::error::Fault;
use kernels_core::simd::Level;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Tokens of the golden Llama.
pub const VOCAB: u32 = 131;

/// Everything that was said of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Whether it was told that it had a seat.
    pub admitted: bool,
    /// Tokens of the prompt that were cached, why no more, and its log-probabilities.
    pub prompt: Option<(u32, Miss, Vec<Option<Scored>>)>,
    /// The tokens of each choice.
    pub choices: BTreeMap<u32, Vec<Scored>>,
    /// The version of each token of choice 0.
    pub versions: Vec<u64>,
    /// What made each token of choice 0.
    pub made: Vec<Made>,
    /// Bytes held after each token of choice 0.
    pub held: Vec<usize>,
    /// How each choice ended.
    pub ends: BTreeMap<u32, Finish>,
    /// Tokens that were guessed of each choice, and those that came.
    pub guesses: BTreeMap<u32, [u32; 2]>,
    /// Of an embedding.
    pub embedding: Option<Vec<f32>>,
}

impl Answer {
    /// The tokens of a choice.
    pub fn tokens(&self, choice: u32) -> Vec<u32> {
        self.choices.get(&choice).into_iter().flatten().map(|token| token.token).collect()
    }

    /// Every bit that does not depend on company: tokens, log-probabilities, ends.
    pub fn bits(&self) -> Vec<u64> {
        let mut bits = Vec::new();
        let scored = self.prompt.iter().flat_map(|prompt| prompt.2.iter());
        scored.for_each(|token| token.iter().for_each(|token| push(&mut bits, token)));
        for (choice, tokens) in &self.choices {
            bits.push(u64::from(*choice) << 40 | tokens.len() as u64);
            tokens.iter().for_each(|token| push(&mut bits, token));
        }
        bits.extend(self.embedding.iter().flatten().map(|x| u64::from(x.to_bits())));
        bits
    }
}

fn push(bits: &mut Vec<u64>, scored: &Scored) {
    bits.extend([scored.token, scored.raw.to_bits(), scored.processed.to_bits()].map(u64::from));
    let top = scored.top.iter();
    bits.extend(top.map(|(token, x)| u64::from(*token) << 32 | u64::from(x.to_bits())));
    match &scored.kept {
        None => {}
        Some(Kept::All) => bits.push(1 << 63),
        Some(Kept::Hash(hash)) => bits.push(*hash),
        Some(Kept::Tokens(tokens)) => bits.extend(tokens.iter().map(|token| u64::from(*token))),
    }
}

/// An engine, and the answers so far.
pub struct Served {
    /// The engine.
    pub engine: Engine,
    /// By the number of the request.
    pub answers: BTreeMap<u64, Answer>,
    /// What `step` is told.
    pub now: Duration,
}

/// A model that guesses, and what its weights become.
pub enum Drafter {
    /// One of its own.
    Model(Checkpoint, Option<Quantize>),
    /// The base: for its adapters, or for all by other weights.
    Base(Option<Quantize>),
}

/// How the golden Llama is made.
pub struct Making {
    /// Another model instead.
    pub checkpoint: Option<Checkpoint>,
    /// What its weights become.
    pub quantize: Option<Quantize>,
    /// The CPU's level.
    pub level: Level,
    /// Its threads.
    pub threads: u32,
    /// Tokens with which it ends.
    pub eos: Vec<u32>,
    /// Devices instead of the CPU: its own, and one for a model that guesses.
    pub devices: Option<[Box<dyn Backend>; 2]>,
    /// Whether the backend fails.
    pub fails: Option<Arc<AtomicBool>>,
    /// How it fails then.
    pub fault: Fault,
    /// Who computes its masks.
    pub masker: Box<dyn Masker>,
    /// Who guesses for it.
    pub drafter: Option<Drafter>,
    /// Slots for adapters.
    pub adapters: Option<lora::Settings>,
}

impl Default for Making {
    fn default() -> Self {
        Self {
            checkpoint: None,
            quantize: None,
            level: Level::best(),
            threads: 1,
            eos: Vec::new(),
            devices: None,
            fails: None,
            fault: Fault::OutOfMemory { bytes: 1 << 40 },
            masker: Box::new(Late::new(0)),
            drafter: None,
            adapters: None,
        }
    }
}

/// Another backend, which fails when it is told to.
struct Flaky {
    inner: Box<dyn Backend>,
    fails: Arc<AtomicBool>,
    fault: Fault,
}

impl Backend for Flaky {
    fn numerics(&self) -> &str {
        self.inner.numerics()
    }
    fn query(&self, command: &Command) -> Result<Needs, Error> {
        self.inner.query(command)
    }
    fn alloc(&mut self, bytes: u64) -> Result<Buffer, Error> {
        self.inner.alloc(bytes)
    }
    fn import(&mut self, bytes: HostBytes) -> Result<Buffer, Error> {
        self.inner.import(bytes)
    }
    fn release(&mut self, buffer: Buffer) -> Result<(), Error> {
        self.inner.release(buffer)
    }
    fn write(&mut self, slice: Slice, bytes: &[u8]) -> Result<(), Error> {
        self.inner.write(slice, bytes)
    }
    fn record(&mut self, commands: &[Command]) -> Result<Program, Error> {
        self.inner.record(commands)
    }
    fn forget(&mut self, program: Program) -> Result<(), Error> {
        self.inner.forget(program)
    }
    fn submit(&mut self, launch: Launch<'_>) -> Result<Ticket, Error> {
        let ticket = self.inner.submit(launch)?;
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::new("cpu", "ticket", self.fault));
        }
        Ok(ticket)
    }
    fn collect(&mut self, ticket: Ticket, into: &mut [u8]) -> Result<(), Error> {
        self.inner.collect(ticket, into)
    }
}

/// Small steps and pages, so that little requests meet all there is.
pub fn settings() -> Settings {
    Settings {
        step_tokens: 24,
        rows: 6,
        chunk: 16,
        beside: 12,
        page_len: 4,
        pages: 128,
        max_len: 96,
        kv: Dtype::F16,
        patience: 50,
        turn: 8,
        rollout_share: None,
        guessing: Guessing::NONE,
        weights: 1,
    }
}

/// Token 1 is `"1"`, token 25 `"25"`, each with a blank before it.
pub fn vocabulary() -> Vocabulary {
    Vocabulary::new((0..VOCAB).map(|token| format!(" {token}")))
}

impl Served {
    /// The golden Llama with one thread, under such settings.
    pub fn new(settings: Settings) -> Self {
        Self::made(settings, Making::default())
    }

    /// The golden Llama made in some way.
    pub fn made(settings: Settings, making: Making) -> Self {
        let mut checkpoint = making.checkpoint.unwrap_or_else(thin::checkpoint);
        checkpoint.config.eos = making.eos;
        let [mut own, mut beside] = making.devices.unwrap_or_else(|| {
            let cpu = Cpu::new(making.level, making.threads);
            let beside = Box::new(cpu.beside());
            [Box::new(cpu), beside]
        });
        let model = load(own.as_mut(), &checkpoint, making.quantize).expect("the golden loads");
        let repacked = match &making.drafter {
            Some(Drafter::Base(Some(quantize))) => {
                Some(load(own.as_mut(), &checkpoint, Some(*quantize)).expect("the golden loads"))
            }
            _ => None,
        };
        let backend: Box<dyn Backend> = match making.fails {
            Some(fails) => Box::new(Flaky { inner: own, fails, fault: making.fault }),
            None => own,
        };
        let mut served = Self::on(backend, model, making.masker, settings);
        served.engine = match making.drafter {
            None => served.engine,
            Some(Drafter::Base(_)) => {
                served.engine.with_base_drafter(repacked).expect("it has the base's shape")
            }
            Some(Drafter::Model(checkpoint, quantize)) => {
                let model = load(beside.as_mut(), &checkpoint, quantize);
                let model = model.expect("the smaller model loads");
                let drafting = served.engine.with_drafter(beside, model);
                drafting.expect("it knows the same tokens")
            }
        };
        if let Some(settings) = making.adapters {
            served.engine = served.engine.with_adapters(settings).expect("there is room");
        }
        served
    }

    /// The golden Llama where nothing is computed: every token is the first.
    pub fn blank(settings: Settings) -> Self {
        let mut blank = Blank::default();
        let model = load(&mut blank, &thin::checkpoint(), None).expect("the golden loads");
        Self::on(Box::new(blank), model, Box::new(Late::new(0)), settings)
    }

    fn on(
        backend: Box<dyn Backend>,
        model: Model,
        masker: Box<dyn Masker>,
        settings: Settings,
    ) -> Self {
        let engine = Engine::new(backend, model, vocabulary(), masker, settings);
        let engine = engine.expect("it is served");
        Self { engine, answers: BTreeMap::new(), now: Duration::ZERO }
    }

    /// Takes a request, which must be good.
    pub fn submit(&mut self, request: Request) {
        let id = request.id;
        self.engine.submit(request).unwrap_or_else(|refused| panic!("request {id}: {refused}"));
        self.answers.insert(id, Answer::default());
    }

    /// Why a request is refused.
    pub fn refused(&mut self, request: Request) -> Refused {
        self.engine.submit(request).expect_err("it is not to be taken")
    }

    /// One step; its events join the answers.
    pub fn step(&mut self) {
        for event in self.engine.step(self.now) {
            match event {
                Event::Admitted { id } => {
                    let answer = self.of(id);
                    assert_eq!(*answer, Answer::default(), "it is told once, and first");
                    answer.admitted = true;
                }
                Event::Prompt { id, cached, miss, logprobs } => {
                    assert!(self.of(id).admitted, "a prompt that is computed has had a seat");
                    let before = self.of(id).prompt.replace((cached, miss, logprobs));
                    assert_eq!(before, None, "a prompt is told once");
                }
                Event::Token { id, choice, token, made, held } => {
                    let answer = self.of(id);
                    assert!(!answer.ends.contains_key(&choice), "nothing follows an end");
                    answer.choices.entry(choice).or_default().push(token);
                    if choice == 0 {
                        answer.held.push(held);
                        answer.versions.push(made.span.policy.version());
                        answer.made.push(made);
                    }
                }
                Event::End { id, choice, why, guessed, held } => {
                    let before = self.of(id).ends.insert(choice, why);
                    assert_eq!(before, None, "a choice ends once");
                    assert!(held <= guessed && held <= self.of(id).tokens(choice).len() as u32);
                    self.of(id).guesses.insert(choice, [guessed, held]);
                }
                Event::Embedding { id, values } => {
                    assert!(self.of(id).admitted, "what is computed has had a seat");
                    self.of(id).embedding = Some(values);
                }
            }
        }
    }

    /// Steps until all have ended.
    pub fn run(&mut self) {
        for _ in 0..20_000 {
            if self.engine.is_idle() {
                return;
            }
            self.step();
        }
        panic!("everybody ends");
    }

    /// One request from its beginning to its end.
    pub fn answer(&mut self, request: Request) -> Answer {
        let id = request.id;
        self.submit(request);
        self.run();
        self.answers[&id].clone()
    }

    /// Everybody has ended, and every page is free once the index forgets.
    pub fn assert_all_pages_free(&mut self) {
        assert!(self.engine.is_idle());
        let counters = self.engine.counters();
        assert_eq!(counters.pages_free + counters.pages_idle, counters.pages_total);
        self.engine.forget_prefixes();
        let counters = self.engine.counters();
        assert_eq!((counters.pages_free, counters.pages_idle), (counters.pages_total, 0));
        assert_eq!((counters.running, counters.waiting), (0, 0));
    }

    fn of(&mut self, id: u64) -> &mut Answer {
        self.answers.get_mut(&id).expect("events are of requests that were taken")
    }
}

/// The most likely tokens after a prompt.
pub fn greedy(id: u64, prompt: &[u32], max_new: u32) -> Request {
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    Request {
        id,
        prompt: prompt.to_vec(),
        task: Task::Generate(Generate {
            choices: 1,
            max_new,
            sampling,
            stop: Stop::default(),
            top: None,
            chosen: [].into(),
            kept: None,
            prompt_top: None,
            prompt_from: 0,
            grammar: None,
        }),
        class: Class::Inference,
        priority: 0,
        salt: [].into(),
        adapter: None,
        episode: None,
        deadline: None,
    }
}

/// What a request generates, to be changed.
pub fn generate(request: &mut Request) -> &mut Generate {
    match &mut request.task {
        Task::Generate(generate) => generate,
        Task::Embed(_) => panic!("it embeds"),
    }
}

/// Some tokens that depend on a seed.
pub fn prompt(seed: u32, len: usize) -> Vec<u32> {
    let mut state = u64::from(seed) << 32 | 0x9e37_79b9;
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32 % VOCAB
    };
    std::iter::repeat_with(next).take(len).collect()
}
