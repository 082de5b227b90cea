//! What an engine knows of a request, and of each of its answers.

use super::draft::Fared;
use super::guide::Guide;
use super::memory::Probed;
use super::sampling::Counted;
use super::settings::Settings;
use super::stop::Scan;
use super::swap::scope;
use super::versions::{Made, Policy, Span};
use crate::request::{Class, Generate, Miss, Pooling, Request, Scored, Task};
use grammar::{Grammar, Searched};
use kv::{Claim, Page, Scope, Table};
use std::collections::VecDeque;

/// A request that was taken and has not ended.
pub(super) struct Group {
    /// As it came, without its prompt: its sequences have that.
    pub request: Request,
    /// Choices that have no sequence yet: they begin when the prompt is computed.
    pub unforked: u32,
    /// Its sequences that have not ended.
    pub sequences: Vec<u64>,
    /// Tokens of its prompt that pages held, and why no more; once it was admitted.
    pub found: Option<(u32, Miss)>,
    /// Log-probabilities of the prompt so far, where they are asked for.
    pub scored: Vec<Option<Scored>>,
    /// `[hidden]` f32: the sum of the hidden states that its embedding is of, so far; and
    /// how many they are.
    pub hidden: Vec<f32>,
    pub pooled: usize,
    /// Whether its prompt was computed once.
    pub prompted: bool,
}

impl Group {
    pub fn new(request: Request) -> Self {
        let unforked = match &request.task {
            Task::Generate(generate) => generate.choices - 1,
            Task::Embed(_) => 0,
        };
        let mut group = Self {
            request,
            unforked,
            sequences: Vec::new(),
            found: None,
            scored: Vec::new(),
            hidden: Vec::new(),
            pooled: 0,
            prompted: false,
        };
        group.forget_scores();
        group
    }

    /// Nothing of its prompt is scored, or pooled, so far, unless that is told already.
    pub fn forget_scores(&mut self) {
        if self.prompted {
            return;
        }
        (self.hidden, self.pooled) = (Vec::new(), 0);
        let unscored = self
            .generate()
            .and_then(|generate| generate.prompt_top.map(|_| generate.prompt_from.max(1) as usize));
        self.scored = vec![None; unscored.unwrap_or(0)];
    }

    pub fn generate(&self) -> Option<&Generate> {
        match &self.request.task {
            Task::Generate(generate) => Some(generate),
            Task::Embed(_) => None,
        }
    }

    /// What every answer keeps to.
    pub fn grammar(&self) -> Option<&Grammar> {
        self.generate().and_then(|generate| generate.grammar.as_ref())
    }

    /// Adds hidden states, each `width` wide, in the order of the kernel `pool`: so their
    /// mean has the same bits wherever its prompt was cut.
    pub fn pool(&mut self, rows: &[f32], width: usize) {
        for row in rows.chunks_exact(width) {
            match self.pooled {
                0 => self.hidden = row.to_vec(),
                _ => self.hidden.iter_mut().zip(row).for_each(|(sum, x)| *sum += x),
            }
            self.pooled += 1;
        }
    }

    /// The mean of the hidden states that were added.
    pub fn mean(&self) -> Vec<f32> {
        let count = self.pooled as f32;
        self.hidden.iter().map(|sum| sum / count).collect()
    }

    /// The first of `known` tokens whose hidden state is still asked for: all but the last
    /// may come from pages otherwise.
    pub fn asked_from(&self, known: usize) -> usize {
        let last = known - 1;
        match &self.request.task {
            Task::Embed(Pooling::Mean) => self.pooled.min(last),
            Task::Embed(Pooling::Last) => last,
            Task::Generate(_) if self.prompted => last,
            Task::Generate(generate) => match generate.prompt_top {
                Some(_) => (self.scored.len() - 1).min(last),
                None => last,
            },
        }
    }
}

/// One answer, or a prompt that others will share.
pub(super) struct Sequence {
    /// The number of its request.
    pub request: u64,
    pub choice: u32,
    pub class: Class,
    pub priority: i32,
    /// The prompt, then what was drawn.
    pub tokens: Vec<u32>,
    pub prompt_len: usize,
    /// Pages with the tokens that are computed.
    pub table: Table,
    /// Places of the index that it is to fill, by the number of the page.
    pub claims: VecDeque<(usize, Claim)>,
    /// The step it came in.
    pub arrived: u64,
    /// The step since which it waits, or runs.
    pub since: u64,
    /// Tokens drawn since it runs.
    pub turn: u32,
    /// Its place among those that run: of its counts and its mask.
    pub seat: Option<u32>,
    /// Whether its counts and its mask have yet to be written.
    pub fresh: bool,
    pub scan: Scan,
    /// How far its stop expressions have been looked for.
    pub searched: Searched,
    /// What may come next of it, if it keeps to a grammar and has had a seat.
    pub guide: Option<Guide>,
    /// How what was guessed of it has fared.
    pub guessing: Fared,
    /// Tokens whose keys and values the model that guesses has, as far as it knows.
    pub drafted: usize,
    /// What its slot counts of what it generated.
    pub counted: Counted,
    /// What was found of it in pages, while it waits.
    pub probed: Option<Probed>,
    /// What its positions are computed with, in order; at least one.
    pub spans: Vec<Span>,
    /// How many of them tokens of the answer have told.
    pub told: usize,
    /// What pages of its first span are found by.
    pub scope: Scope,
    /// Whether it has had a seat.
    pub begun: bool,
    /// Which noise it draws, of those of one seed.
    pub noise: u32,
    /// The episode that it goes on with, and tokens whose keys and values that had.
    pub episode: Option<u64>,
    pub resumed: usize,
    /// Tokens that its episode had.
    pub before: usize,
    /// Pages that nobody takes from it.
    pub reserve: u32,
    /// Those of them that hold nothing yet.
    pub spare: Vec<Page>,
}

impl Sequence {
    /// The first of a request, under such settings, in step `now`.
    pub fn new(
        request: &Request,
        tokens: Vec<u32>,
        policy: Policy,
        settings: &Settings,
        now: u64,
    ) -> Self {
        Self {
            spans: vec![Span { from: 0, policy }],
            told: 0,
            scope: scope(policy, request.adapter, &request.salt),
            begun: false,
            noise: 0,
            episode: None,
            resumed: 0,
            before: 0,
            reserve: 0,
            spare: Vec::new(),
            request: request.id,
            choice: 0,
            class: request.class,
            priority: request.priority,
            prompt_len: tokens.len(),
            tokens,
            table: Table::new(settings.page_len),
            claims: VecDeque::new(),
            arrived: now,
            since: now,
            turn: 0,
            seat: None,
            fresh: true,
            scan: Scan::default(),
            searched: Searched::default(),
            guide: None,
            guessing: Fared::new(&settings.guessing),
            drafted: 0,
            counted: Counted::default(),
            probed: None,
        }
    }

    /// Another choice of a request whose prompt is computed: it shares the pages of
    /// `table`.
    pub fn fork(&self, choice: u32, table: Table) -> Self {
        Self {
            spans: self.spans.clone(),
            told: 0,
            scope: self.scope.clone(),
            begun: true,
            noise: choice,
            episode: None,
            resumed: 0,
            before: 0,
            reserve: 0,
            spare: Vec::new(),
            request: self.request,
            choice,
            class: self.class,
            priority: self.priority,
            tokens: self.tokens[..self.prompt_len].to_vec(),
            prompt_len: self.prompt_len,
            table,
            claims: VecDeque::new(),
            arrived: self.arrived,
            since: self.since,
            turn: 0,
            seat: None,
            fresh: true,
            scan: Scan::default(),
            searched: Searched::default(),
            guide: None,
            guessing: Fared { guessed: 0, held: 0, ..self.guessing },
            drafted: self.drafted,
            counted: Counted::default(),
            probed: None,
        }
    }

    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    /// Whether a step has waited in vain for what may come next of it.
    pub fn is_late(&self) -> bool {
        matches!(self.guide, Some(Guide::Away { late: true }))
    }

    /// What its next row is computed with.
    pub fn policy(&self) -> Policy {
        self.spans[self.spans.len() - 1].policy
    }

    /// What makes its next token, which is told with it.
    pub fn tell_spans(&mut self) -> Made {
        let at = self.tokens.len() - 1;
        let which = self.spans.iter().rposition(|span| span.from <= at);
        let which = which.expect("the first span begins at position 0");
        let over = self.spans.get(self.told..which).unwrap_or_default().to_vec();
        self.told = which + 1;
        Made { span: self.spans[which], over }
    }

    /// Whether its keys and values are of several versions: they are nobody else's then.
    pub fn is_mixed(&self) -> bool {
        self.spans.len() > 1
    }

    /// Tokens whose keys and values are in its pages.
    pub fn computed(&self) -> usize {
        self.table.tokens() as usize
    }
}
