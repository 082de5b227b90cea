//! The controls of a server over gRPC: each does what its HTTP call does.

use super::status::status;
use crate::adapters::spelling::Swap;
use crate::adapters::{Given, Line, Load};
use crate::http::routes::Answer;
use crate::http::{Call, Reply, Server};
use crate::openai::Refusal;
use crate::vllm::control;
use crate::weights;
use proto::*;
use serde_json::{Value, json};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
pub struct Control(pub Arc<Server>);

/// What an HTTP call answers.
async fn told(answer: Answer) -> Result<Value, Status> {
    let response = answer.await.map_err(|refusal| status(&refusal))?;
    let body = match response.into_body() {
        Reply::Whole(Some(bytes)) => bytes,
        _ => return Ok(Value::Null),
    };
    serde_json::from_slice(&body).map_err(|error| Status::internal(error.to_string()))
}

fn refused(refusal: Refusal) -> Status {
    status(&refusal)
}

/// How a version is swapped in.
fn swap(
    weight_version: Option<String>,
    in_flight: Option<String>,
    timeout_seconds: Option<f64>,
) -> Result<Swap, Status> {
    let label = weight_version.map(Value::from);
    Swap::of(label, in_flight.as_deref(), timeout_seconds).map_err(refused)
}

fn mode(mode: PauseMode) -> &'static str {
    match mode {
        PauseMode::Unspecified | PauseMode::Abort => "abort",
        PauseMode::Wait => "wait",
        PauseMode::Keep => "keep",
    }
}

fn shown(line: Line) -> LoraAdapter {
    LoraAdapter {
        lora_id: line.id,
        lora_name: line.name,
        source_path: line.path,
        weight_version: line.version.to_string(),
        rank: line.rank,
        bytes: line.bytes,
        pinned: line.pinned,
    }
}

#[tonic::async_trait]
impl proto::control_server::Control for Control {
    async fn get_server_info(
        &self,
        _: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        let info = told(control::server_info(self.0.clone(), Call::of(json!({})))).await?;
        Ok(Response::new(GetServerInfoResponse { info_json: info.to_string() }))
    }

    async fn get_model_info(
        &self,
        _: Request<GetModelInfoRequest>,
    ) -> Result<Response<GetModelInfoResponse>, Status> {
        let served = &self.0.served;
        Ok(Response::new(GetModelInfoResponse {
            model: served.name.clone(),
            max_model_len: served.context,
            vocab_size: served.vocabulary,
            numerics: served.numerics.clone(),
        }))
    }

    async fn abort(
        &self,
        request: Request<AbortRequest>,
    ) -> Result<Response<AbortResponse>, Status> {
        let names = request.into_inner().request_ids;
        let body = if names.is_empty() { json!({}) } else { json!({ "request_ids": names }) };
        let reply = told(control::abort(self.0.clone(), Call::of(body))).await?;
        let aborted = reply["aborted"].as_u64().unwrap_or(0);
        Ok(Response::new(AbortResponse { aborted }))
    }

    async fn load_lora(
        &self,
        request: Request<LoadLoraRequest>,
    ) -> Result<Response<LoraAdapter>, Status> {
        let asked = request.into_inner();
        let swap = swap(asked.weight_version, asked.in_flight, asked.timeout_seconds)?;
        let load = Load {
            name: asked.lora_name,
            source: Given::Folder(asked.source_path.into()),
            replace: asked.load_inplace,
            pinned: asked.pinned,
            swap,
            canary: None,
        };
        let loaded = self.0.served.adapters.load(&self.0.runtime, load).await;
        loaded.map(|line| Response::new(shown(line))).map_err(refused)
    }

    async fn unload_lora(
        &self,
        request: Request<UnloadLoraRequest>,
    ) -> Result<Response<UnloadLoraResponse>, Status> {
        let name = request.into_inner().lora_name;
        let unloaded = self.0.served.adapters.unload(&self.0.runtime, &name).await;
        unloaded.map(|()| Response::new(UnloadLoraResponse {})).map_err(refused)
    }

    async fn list_loras(
        &self,
        _: Request<ListLorasRequest>,
    ) -> Result<Response<ListLorasResponse>, Status> {
        let adapters = self.0.served.adapters.list().into_iter().map(shown).collect();
        Ok(Response::new(ListLorasResponse { adapters }))
    }

    async fn pause_generation(
        &self,
        request: Request<PauseGenerationRequest>,
    ) -> Result<Response<PauseGenerationResponse>, Status> {
        let asked = request.into_inner();
        let body = json!({ "mode": mode(asked.mode()), "clear_cache": asked.clear_cache });
        told(control::pause(self.0.clone(), Call::of(body))).await?;
        Ok(Response::new(PauseGenerationResponse {}))
    }

    async fn resume_generation(
        &self,
        _: Request<ResumeGenerationRequest>,
    ) -> Result<Response<ResumeGenerationResponse>, Status> {
        told(control::resume(self.0.clone())).await?;
        Ok(Response::new(ResumeGenerationResponse {}))
    }

    async fn is_paused(
        &self,
        _: Request<IsPausedRequest>,
    ) -> Result<Response<IsPausedResponse>, Status> {
        let is_paused = self.0.runtime.pause().is_some();
        Ok(Response::new(IsPausedResponse { is_paused }))
    }

    async fn sleep(
        &self,
        request: Request<SleepRequest>,
    ) -> Result<Response<SleepResponse>, Status> {
        let asked = request.into_inner();
        let body = json!({ "level": asked.level, "mode": mode(asked.mode()) });
        told(control::sleep(self.0.clone(), Call::of(body))).await?;
        Ok(Response::new(SleepResponse {}))
    }

    async fn wake_up(
        &self,
        request: Request<WakeUpRequest>,
    ) -> Result<Response<WakeUpResponse>, Status> {
        let tags = request.into_inner().tags;
        told(control::wake(self.0.clone(), tags)).await?;
        Ok(Response::new(WakeUpResponse {}))
    }

    async fn is_sleeping(
        &self,
        _: Request<IsSleepingRequest>,
    ) -> Result<Response<IsSleepingResponse>, Status> {
        let is_sleeping = self.0.sleeping.load(std::sync::atomic::Ordering::SeqCst);
        Ok(Response::new(IsSleepingResponse { is_sleeping }))
    }

    async fn start_weight_update(
        &self,
        request: Request<StartWeightUpdateRequest>,
    ) -> Result<Response<StartWeightUpdateResponse>, Status> {
        let until = weights::deadline(&self.0, request.into_inner().deadline_seconds);
        self.0.served.updates.start(until.map_err(refused)?);
        Ok(Response::new(StartWeightUpdateResponse {}))
    }

    async fn update_weights(
        &self,
        request: Request<UpdateWeightsRequest>,
    ) -> Result<Response<UpdateWeightsResponse>, Status> {
        use update_weights_request::Source;
        let asked = request.into_inner();
        let (updates, runtime) = (&self.0.served.updates, &self.0.runtime);
        // Wrong fields are told whatever they go with.
        let swap = swap(asked.weight_version, asked.in_flight, asked.timeout_seconds)?;
        match asked.source {
            Some(Source::Safetensors(file)) => {
                updates.add(file).map_err(refused)?;
            }
            Some(Source::WeightDir(folder)) => {
                let folder = ("weight_dir", folder.into());
                updates.from_folder(runtime, folder, swap).await.map_err(refused)?;
            }
            Some(Source::UpdateInfoJson(info)) => {
                let info: Value = serde_json::from_slice(&info).map_err(|error| {
                    Status::invalid_argument(format!("update_info_json: {error}"))
                })?;
                let body = json!({ "update_info": info });
                told(weights::update(self.0.clone(), Call::of(body))).await?;
            }
            None => return Err(Status::invalid_argument("source: is required")),
        }
        Ok(Response::new(UpdateWeightsResponse {}))
    }

    async fn finish_weight_update(
        &self,
        request: Request<FinishWeightUpdateRequest>,
    ) -> Result<Response<FinishWeightUpdateResponse>, Status> {
        let asked = request.into_inner();
        let swap = swap(asked.weight_version, asked.in_flight, asked.timeout_seconds)?;
        let swapped = self.0.served.updates.finish(&self.0.runtime, swap).await;
        let weight_version = swapped.map_err(refused)?.label.to_string();
        Ok(Response::new(FinishWeightUpdateResponse { weight_version }))
    }

    async fn update_weight_version(
        &self,
        request: Request<UpdateWeightVersionRequest>,
    ) -> Result<Response<UpdateWeightVersionResponse>, Status> {
        let new_version = request.into_inner().new_version;
        let body = json!({ "new_version": new_version });
        told(control::relabel(self.0.clone(), Call::of(body))).await?;
        Ok(Response::new(UpdateWeightVersionResponse { new_version }))
    }

    async fn get_weight_version(
        &self,
        _: Request<GetWeightVersionRequest>,
    ) -> Result<Response<GetWeightVersionResponse>, Status> {
        let version = self.0.runtime.label(None).await.map_err(refused)?;
        let weight_version = version.map_or_else(String::new, |label| label.to_string());
        Ok(Response::new(GetWeightVersionResponse { weight_version }))
    }
}
