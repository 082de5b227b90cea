//! The way of scored groups into Atropos: the server registers itself as one of the
//! environments of a trajectory API, hands over every group that it scored, and says when it
//! goes.

use crate::command::Failure;
use crate::command::client::Client;
use crate::config;
use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use trajectories::Trajectory;

/// Groups that wait to be handed over at most: while nobody takes them, newer ones are dropped.
const WAITING: usize = 256;
/// How long the API may take for an answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// After how long what failed is tried again, and the trainer is looked for.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the API may take for what is left, and to hear that the server goes.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// What stands for a token that is not trained on.
const MASKED: i64 = -100;
/// What stands for the log-probability of such a one: no token has it.
const MASKED_LOGPROB: f32 = 1.0;

/// Where groups are left for the one who hands them over.
pub struct Atropos {
    groups: mpsc::Sender<Group>,
    envoy: Mutex<Option<Envoy>>,
}

/// Who hands groups over.
pub struct Envoy {
    client: Client,
    registration: Value,
    groups: mpsc::Receiver<Group>,
}

/// Answers to one prompt, as the API takes them: whole sequences.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Group {
    tokens: Vec<Vec<u32>>,
    masks: Vec<Vec<i64>>,
    scores: Vec<f64>,
    inference_logprobs: Vec<Vec<f32>>,
    generation_params: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_id: Option<u64>,
}

impl Group {
    /// One more answer, and what it is worth.
    pub fn push(&mut self, answer: &Trajectory, score: f64) {
        let (prompt, own) = (&answer.prompt, &answer.answer);
        self.tokens.push([&prompt[..], own].concat());
        let masked = std::iter::repeat_n(MASKED, prompt.len());
        self.masks.push(masked.chain(own.iter().map(|token| i64::from(*token))).collect());
        let masked = std::iter::repeat_n(MASKED_LOGPROB, prompt.len());
        self.inference_logprobs.push(masked.chain(answer.logprobs.raw.iter().copied()).collect());
        self.scores.push(score);
        let sampling = &answer.sampling;
        self.generation_params = json!({
            "temperature": sampling.temperature, "top_p": sampling.top_p,
            "top_k": sampling.top_k, "min_p": sampling.min_p,
        });
    }
}

impl Atropos {
    /// As the settings say, if they name one, of a model that takes so many tokens.
    pub fn open(settings: &config::Atropos, context: u32) -> Result<Option<Self>, Failure> {
        let Some(url) = &settings.atropos_url else { return Ok(None) };
        let client = Client::of("--atropos-url", url, None)?;
        let registration = json!({
            "max_token_length": context,
            "desired_name": settings.atropos_name,
            "weight": settings.atropos_weight,
            "group_size": settings.atropos_group_size,
        });
        let (sender, groups) = mpsc::channel(WAITING);
        let envoy = Mutex::new(Some(Envoy { client, registration, groups }));
        Ok(Some(Self { groups: sender, envoy }))
    }

    /// Leaves a group.
    pub fn leave(&self, group: Group) {
        if self.groups.try_send(group).is_err() {
            tracing::warn!("{WAITING} groups wait for Atropos: one more is not handed over");
        }
    }

    /// Who hands them over, the first time that it is asked for.
    pub fn envoy(&self) -> Option<Envoy> {
        self.envoy.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Envoy {
    /// Registers, hands groups over, and takes its leave once it is told that no more come.
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut late = stop.clone();
        tokio::select! {
            () = self.serve(stop) => {}
            () = async {
                stopped(&mut late).await;
                sleep(LEAVES_WITHIN).await;
            } => tracing::warn!("Atropos does not answer: it has not got all, or not been left"),
        }
    }

    /// For as long as groups may come.
    async fn serve(&mut self, mut stop: watch::Receiver<bool>) {
        let id = tokio::select! {
            id = self.register() => id,
            () = stopped(&mut stop) => return,
        };
        loop {
            let group = tokio::select! {
                biased;
                group = self.groups.recv() => group,
                () = stopped(&mut stop) => None,
            };
            let Some(group) = group else { break };
            let body = json!(Group { env_id: Some(id), ..group });
            self.insist("/scored_data", &body, |_| Some(())).await;
        }
        self.insist("/disconnect-env", &json!({ "env_id": id }), |_| Some(())).await;
    }

    /// The number that it has there: there is one once a trainer has begun.
    async fn register(&self) -> u64 {
        let id = |told: &Value| told["env_id"].as_u64().filter(|_| told["status"] == "success");
        let id = self.insist("/register-env", &self.registration, id).await;
        tracing::info!(env_id = id, "registered with Atropos");
        id
    }

    /// Asks until it is answered as it must be; says once that it is not.
    async fn insist<T>(&self, path: &str, body: &Value, read: impl Fn(&Value) -> Option<T>) -> T {
        let mut told = false;
        loop {
            let why = match self.ask(path, body.clone()).await {
                Ok(answer) => match read(&answer) {
                    Some(read) => return read,
                    None => answer.to_string(),
                },
                Err(why) => why,
            };
            if !std::mem::replace(&mut told, true) {
                tracing::warn!("Atropos answers {path} by: {why}; it is asked again and again");
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn ask(&self, path: &str, body: Value) -> Result<Value, String> {
        let answer = timeout(ANSWERS_WITHIN, self.client.json(Method::POST, path, Some(body)));
        let late = |_| format!("no answer within {} seconds", ANSWERS_WITHIN.as_secs());
        answer.await.map_err(late)?.map_err(|failure| failure.to_string())
    }
}

/// Waits until it is told to stop, or nobody is left who could.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
