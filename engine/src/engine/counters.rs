//! What an engine has done so far, as numbers for those who watch it.

use crate::request::Miss;

/// Counts since an engine began, and how it stands now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// Steps that computed something.
    pub steps: u64,
    /// Steps by how full they were, in tenths: rows of sequences over all there are.
    pub fill_tenths: [u64; 10],
    /// The sum of how full they were, 1 each at the most.
    pub fill_sum: f64,
    /// Tokens of prompts, and of answers whose keys and values had gone, computed.
    pub prompt_tokens: u64,
    /// Tokens of prompts that pages held already.
    pub cached_tokens: u64,
    /// Tokens drawn.
    pub generated_tokens: u64,
    /// Prompts that found at least one page, once for each request.
    pub hits: u64,
    /// Why prompts found no more, in the order of [`Miss::ALL`].
    pub misses: [u64; Miss::ALL.len()],
    /// Chunks of a prompt that were not its last.
    pub chunks: u64,
    /// Choices that began from pages another choice had filled.
    pub forks: u64,
    /// Pages that were copied because somebody wrote who shared them.
    pub page_copies: u64,
    /// Sequences that gave their pages back and had to wait again.
    pub preemptions: u64,
    /// Pages given up to make room.
    pub evictions: u64,
    /// Episodes that rested and gave pages up to make room.
    pub episode_evictions: u64,
    /// Guesses of what comes next: answers that had one, in all steps.
    pub guesses: u64,
    /// Tokens of them.
    pub guessed: u64,
    /// Those of them that came.
    pub held: u64,
    /// Steps in which the model that guesses failed: nothing was guessed there.
    pub failed_guesses: u64,
    /// Tokens drawn under the mask of a grammar.
    pub masks: u64,
    /// Steps whose tokens were drawn from logits that were copied and changed before: masks
    /// alone do not ask for that.
    pub copied_logits: u64,
    /// Times that a mask came too late for a step: its answer drew in a later one.
    pub late_masks: u64,
    /// Requests taken.
    pub requests: u64,
    /// Answers and embeddings that failed.
    pub failures: u64,
    /// Steps that a backend failed.
    pub failed_steps: u64,
    /// Sequences that run.
    pub running: u32,
    /// Sequences that wait.
    pub waiting: u32,
    /// Sequences of each [`Class`](crate::request::Class) that run.
    pub running_of: [u32; 2],
    /// Those that wait.
    pub waiting_of: [u32; 2],
    /// Tokens of each class that were computed, guesses among them.
    pub tokens_of: [u64; 2],
    /// Pages of keys and values.
    pub pages_total: u32,
    /// Of these, pages that nobody holds.
    pub pages_free: u32,
    /// Pages that only the index of prefixes holds: they can be had at any time.
    pub pages_idle: u32,
    /// Tokens computed in the last step.
    pub last_tokens: u32,
    /// Of these, tokens of prompts.
    pub last_prompt_tokens: u32,
    /// Sequences in the last step.
    pub last_rows: u32,
}

impl Counters {
    /// A step has computed that many rows of sequences.
    pub(super) fn count_fill(&mut self, rows: u32, rows_max: u32) {
        let fill = f64::from(rows) / f64::from(rows_max.max(1));
        let tenth = ((fill * 10.0).ceil() as usize).clamp(1, 10) - 1;
        self.fill_tenths[tenth] += 1;
        self.fill_sum += fill;
    }

    pub(super) fn count_miss(&mut self, miss: Miss) {
        let at = Miss::ALL.iter().position(|&other| other == miss);
        self.misses[at.expect("every reason is listed")] += 1;
    }
}
