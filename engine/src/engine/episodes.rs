//! Episodes: sequences that go on from request to request. What one has computed stays with
//! it between its steps, down to its last token, until it ends; where pages run short, those
//! of the episode that rests longest are given up, and computed anew when it goes on.

use super::Engine;
use super::check::refused;
use super::memory::Parked;
use super::sequence::Sequence;
use super::swap::scope;
use super::versions::{InFlight, Policy, Span};
use crate::request::{Finish, Refused, Request, Task};
use kv::{Page, Scope, Table};
use std::sync::Arc;

/// What becomes of an episode when a version of its adapter, or of the weights, comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnSwap {
    /// It stays with the version it began with.
    Pin,
    /// It goes on under the new version over the keys and values it has.
    Keep,
    /// Its keys and values are computed anew when it goes on.
    Recompute,
}

impl OnSwap {
    pub(super) fn in_flight(self) -> InFlight {
        match self {
            Self::Pin => InFlight::Wait,
            Self::Keep => InFlight::Keep,
            Self::Recompute => InFlight::Recompute,
        }
    }
}

/// How an episode begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its adapter.
    pub adapter: Option<u64>,
    /// What keeps its pages from all that have another salt.
    pub salt: Arc<[u8]>,
    /// What becomes of it when a version comes.
    pub on_swap: OnSwap,
    /// Tokens for which it has pages in any case: these are never given up.
    pub reserve: u32,
}

/// How an episode stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its tokens: what was appended, and what was generated.
    pub tokens: Vec<u32>,
    /// Those of them whose keys and values are there.
    pub computed: u32,
    /// The request that goes on with it.
    pub request: Option<u64>,
    /// The version that its next token is computed with.
    pub version: u64,
    /// Times that its pages were given up to others.
    pub evictions: u32,
    /// Which noise it draws, of those of one seed, as choices of a request do.
    pub noise: u32,
}

/// An episode.
pub(super) struct Episode {
    pub adapter: Option<u64>,
    pub on_swap: OnSwap,
    salt: Arc<[u8]>,
    /// Which noise it draws: no two of one seed draw the same.
    noise: u32,
    /// The request that goes on with it, which has all that follows meanwhile.
    pub request: Option<u64>,
    pub tokens: Vec<u32>,
    pub spans: Vec<Span>,
    scope: Scope,
    evictions: u32,
}

impl Engine {
    /// Begins an episode of that number, of which nothing is there yet.
    pub fn start_episode(&mut self, id: u64, start: Start) -> Result<(), Refused> {
        if self.episodes.contains_key(&id) {
            return Err(refused("episode", "a number that no other has", id));
        }
        let Some(policy) = self.versions.policy(start.adapter) else {
            let got = start.adapter.unwrap_or_default();
            return Err(refused("adapter", "one that is there", got));
        };
        let pages = start.reserve.div_ceil(self.settings.page_len);
        let spare = self.reserve(pages).ok_or_else(|| {
            let tokens = self.settings.page_len.saturating_mul(self.reservable());
            let expected = format!("at most {tokens} tokens, for which there are pages now");
            refused("reserve", expected, start.reserve)
        })?;
        let spans = vec![Span { from: 0, policy }];
        self.versions.hold(&spans);
        self.noise = self.noise.wrapping_add(1);
        let episode = Episode {
            adapter: start.adapter,
            on_swap: start.on_swap,
            scope: scope(policy, start.adapter, &start.salt),
            salt: start.salt,
            noise: self.noise,
            request: None,
            tokens: Vec::new(),
            spans,
            evictions: 0,
        };
        self.episodes.insert(id, episode);
        let table = Table::new(self.settings.page_len);
        let parked = Parked { table, reserve: pages, spare, since: self.step };
        self.memory.parked.insert(id, parked);
        Ok(())
    }

    /// Begins another episode where one stands, which must rest. They share their pages
    /// until they part, and draw different noise.
    pub fn fork_episode(&mut self, from: u64, id: u64) -> Result<(), Refused> {
        if self.episodes.contains_key(&id) {
            return Err(refused("episode", "a number that no other has", id));
        }
        self.resting(from)?;
        let reserve = self.memory.parked[&from].reserve;
        // What they share it may have to copy: it has room for all of it.
        let spare = self.reserve(reserve).ok_or_else(|| {
            let expected = format!("at most {} pages for a fork", self.reservable());
            refused("reserve", expected, reserve)
        })?;
        let table = self.memory.parked[&from].table.fork(&mut self.memory.pages);
        let episode = &self.episodes[&from];
        self.noise = self.noise.wrapping_add(1);
        let fork = Episode {
            noise: self.noise,
            request: None,
            salt: episode.salt.clone(),
            tokens: episode.tokens.clone(),
            spans: episode.spans.clone(),
            scope: episode.scope.clone(),
            evictions: 0,
            ..*episode
        };
        self.versions.hold(&fork.spans);
        self.episodes.insert(id, fork);
        let parked = Parked { table, reserve, spare, since: self.step };
        self.memory.parked.insert(id, parked);
        Ok(())
    }

    /// Ends an episode, with the request that goes on with it. Says whether there was one.
    pub fn end_episode(&mut self, id: u64) -> bool {
        let request = self.episodes.get(&id).and_then(|episode| episode.request);
        if let Some(request) = request {
            self.end_group(request, &Finish::Aborted);
        }
        let Some(episode) = self.episodes.remove(&id) else { return false };
        if let Some(Parked { table, spare, .. }) = self.memory.parked.remove(&id) {
            table.release(&mut self.memory.pages);
            spare.into_iter().for_each(|page| self.memory.release(page));
        }
        let unused = self.versions.release(&episode.spans);
        self.let_go(unused);
        true
    }

    /// How an episode stands.
    pub fn episode(&self, id: u64) -> Option<Standing> {
        let episode = self.episodes.get(&id)?;
        let running = episode.request.and_then(|request| {
            let id = *self.groups.get(&request)?.sequences.first()?;
            self.running.get(&id).or_else(|| self.waiting.get(&id))
        });
        Some(match running {
            Some(sequence) => Standing {
                tokens: sequence.tokens.clone(),
                computed: sequence.computed() as u32,
                request: episode.request,
                version: sequence.policy().version(),
                evictions: episode.evictions,
                noise: episode.noise,
            },
            None => Standing {
                tokens: episode.tokens.clone(),
                computed: self.memory.parked.get(&id).map_or(0, |it| it.table.tokens() as u32),
                request: None,
                version: episode.policy().version(),
                evictions: episode.evictions,
                noise: episode.noise,
            },
        })
    }

    /// An episode that no request goes on with.
    fn resting(&self, id: u64) -> Result<&Episode, Refused> {
        match self.episodes.get(&id) {
            Some(Episode { request: Some(request), .. }) => {
                let expected = "one that rests";
                Err(refused("episode", expected, format!("{id}, which request {request} has")))
            }
            Some(episode) => Ok(episode),
            None => Err(refused("episode", "one that is there", id)),
        }
    }

    /// Checks that a request can go on with its episode, and puts what that has before its
    /// prompt.
    pub(super) fn take_up(&self, request: &mut Request) -> Result<(), Refused> {
        let Some(id) = request.episode else { return Ok(()) };
        let episode = self.resting(id)?;
        match &request.task {
            Task::Embed(_) => return Err(refused("episode", "absent of an embedding", id)),
            Task::Generate(generate) if generate.choices != 1 => {
                return Err(refused("choices", "1 in an episode", generate.choices));
            }
            Task::Generate(generate) => {
                let before = episode.tokens.len();
                if generate.prompt_top.is_some() && (generate.prompt_from as usize) < before {
                    let expected = format!("at least {before}, the tokens that the episode has");
                    return Err(refused("prompt_from", expected, generate.prompt_from));
                }
            }
        }
        request.adapter = episode.adapter;
        request.salt = episode.salt.clone();
        request.prompt.splice(..0, episode.tokens.iter().copied());
        Ok(())
    }

    /// Gives a sequence all that its episode has.
    pub(super) fn resume(&mut self, sequence: &mut Sequence, request: u64, id: u64) {
        let episode = self.episodes.get_mut(&id).expect("it was looked at");
        episode.request = Some(request);
        sequence.spans = std::mem::take(&mut episode.spans);
        sequence.scope = episode.scope.clone();
        (sequence.episode, sequence.noise) = (Some(id), episode.noise);
        sequence.begun = !episode.tokens.is_empty();
        let parked = self.memory.parked.remove(&id).expect("a resting episode has its pages");
        let Parked { mut table, reserve, spare, .. } = parked;
        (sequence.reserve, sequence.spare) = (reserve, spare);
        // The last token is computed in any case.
        let last = sequence.tokens.len() as u64 - 1;
        table.shorten(&mut self.memory.pages, last);
        (sequence.resumed, sequence.before) = (table.tokens() as usize, episode.tokens.len());
        sequence.table = table;
    }

    /// An episode rests with what a sequence has, which has ended for that reason.
    pub(super) fn park(&mut self, mut sequence: Sequence, id: u64, why: &Finish) {
        self.memory.abandon(&mut sequence);
        if matches!(why, Finish::Failed(_)) {
            // What a broken step has left in its pages, nobody knows.
            let (known, kept) = (sequence.before, sequence.resumed as u64);
            sequence.tokens.truncate(known);
            self.memory.shorten(&mut sequence, kept);
            let mut spans = sequence.spans.clone();
            spans.retain(|span| span.from == 0 || span.from < known);
            self.versions.hold(&spans);
            let old = std::mem::replace(&mut sequence.spans, spans);
            let unused = self.versions.release(&old);
            self.let_go(unused);
        }
        let episode = self.episodes.get_mut(&id).expect("it lives as long as its request");
        let Sequence { tokens, spans, scope, table, reserve, spare, .. } = sequence;
        episode.request = None;
        (episode.tokens, episode.spans, episode.scope) = (tokens, spans, scope);
        self.memory.parked.insert(id, Parked { table, reserve, spare, since: self.step });
    }

    /// Episodes whose pages were given up count it.
    pub(super) fn count_evicted_episodes(&mut self) {
        for id in std::mem::take(&mut self.memory.evicted_episodes) {
            self.counters.episode_evictions += 1;
            if let Some(episode) = self.episodes.get_mut(&id) {
                episode.evictions += 1;
            }
        }
    }

    /// Episodes that rest have another policy, each as it asked.
    pub(super) fn move_episodes(&mut self, to: impl Fn(Policy, Option<u64>) -> Option<Policy>) {
        let resting = self.episodes.iter().filter(|(_, episode)| episode.request.is_none());
        let moved: Vec<(u64, Policy)> = resting
            .filter(|(_, episode)| episode.on_swap != OnSwap::Pin || episode.tokens.is_empty())
            .filter_map(|(&id, episode)| Some((id, to(episode.policy(), episode.adapter)?)))
            .collect();
        for (id, policy) in moved {
            let mut parked = self.memory.parked.remove(&id).expect("it rests with its pages");
            let episode = self.episodes.get_mut(&id).expect("it was found");
            // All but the last was computed once, and told: given up, it is computed again so.
            let told = episode.tokens.len().saturating_sub(1);
            let from = told.max(parked.table.tokens() as usize);
            let mut spans = episode.spans.clone();
            match episode.on_swap {
                OnSwap::Keep if from > 0 => {
                    spans.retain(|span| span.from < from);
                    spans.push(Span { from, policy });
                }
                _ => {
                    let Parked { table, reserve, spare, .. } = &mut parked;
                    self.memory.forget(table, 0, *reserve, spare);
                    spans = vec![Span { from: 0, policy }];
                }
            }
            self.memory.parked.insert(id, parked);
            episode.scope = scope(spans[0].policy, episode.adapter, &episode.salt);
            self.versions.hold(&spans);
            let old = std::mem::replace(&mut episode.spans, spans);
            let unused = self.versions.release(&old);
            self.let_go(unused);
        }
    }

    /// Pages that can be taken from all others: they need some to go on at all.
    fn reservable(&self) -> u32 {
        let left = self.settings.max_len.div_ceil(self.settings.page_len);
        self.memory.free(u32::MAX).saturating_sub(left)
    }

    /// Pages for nobody else.
    fn reserve(&mut self, pages: u32) -> Option<Vec<Page>> {
        if pages > self.reservable() {
            return None;
        }
        self.memory.make_free(pages.into());
        let taken = (0..pages).map_while(|_| self.memory.pages.take().ok());
        let taken: Vec<Page> = taken.collect();
        if taken.len() == pages as usize {
            return Some(taken);
        }
        taken.into_iter().for_each(|page| self.memory.release(page));
        None
    }
}

impl Episode {
    /// What its next row is computed with.
    pub(super) fn policy(&self) -> Policy {
        self.spans[self.spans.len() - 1].policy
    }
}
