//! What the frozen base says of the tokens that an adapter has drawn: told with the answer, so
//! that no second model is needed for it.

use crate::http::Server;
use crate::openai::Refusal;
use crate::openai::answer::{Answers, Piece};
use crate::openai::sampling::Asked;
use crate::openai::shape::said;
use crate::runtime::Scoring;
use engine::request::Request;

/// The answers of one request, as far as they have come.
pub struct References {
    /// Of each request: its prompt, what keeps its pages apart, its rank.
    requests: Vec<Request>,
    per_prompt: usize,
    came: Vec<Vec<u32>>,
}

impl References {
    /// For the answers of a request that asks for them.
    pub fn new(asked: &Asked, requests: &[Request]) -> Option<Self> {
        let per_prompt = asked.choices as usize;
        let came = vec![Vec::new(); requests.len() * per_prompt];
        asked.references.then(|| Self { requests: requests.to_vec(), per_prompt, came })
    }

    /// Scores the answers that end with these pieces.
    pub async fn take(
        &mut self,
        pieces: &[Piece],
        answers: &mut Answers,
        server: &Server,
    ) -> Result<(), Refusal> {
        for piece in pieces {
            let came = &mut self.came[piece.index];
            came.extend(piece.tokens.iter().map(|(scored, _)| scored.token));
            if piece.end.is_none() {
                continue;
            }
            let request = &self.requests[piece.index / self.per_prompt];
            let from = request.prompt.len();
            let scores = if came.is_empty() {
                Vec::new()
            } else {
                let scoring = Scoring {
                    tokens: [&request.prompt[..], came].concat(),
                    from: from as u32,
                    adapter: None,
                    salt: request.salt.clone(),
                    class: request.class,
                    priority: request.priority,
                };
                server.runtime.score("reference", vec![scoring]).await?.remove(0)
            };
            let told = answers.rollout.each[piece.index].get_or_insert_default();
            told.ref_logprobs = Some(scores.into_iter().map(said).collect());
        }
        Ok(())
    }
}
