//! gRPC of a real server: what it says is what HTTP says, and calls that end early leave what
//! came.

use pagewise_tests::server::Server;
use proto::control_client::ControlClient;
use proto::episodes_client::EpisodesClient;
use proto::step_request::Observation;
use proto::{
    AbortRequest, EndEpisodeRequest, FinishWeightUpdateRequest, ForkEpisodeRequest,
    GetEpisodeRequest, GetModelInfoRequest, GetWeightVersionRequest, IsPausedRequest,
    ListLorasRequest, LoadLoraRequest, PauseGenerationRequest, PauseMode, ResumeGenerationRequest,
    StartEpisodeRequest, StartWeightUpdateRequest, StepRequest, StepResponse, Tokens,
    UpdateWeightVersionRequest, UpdateWeightsRequest, update_weights_request,
};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

struct Served {
    server: Server,
    threads: Runtime,
    channel: Channel,
}

fn served(options: &[&str]) -> Served {
    let options = [&["--grpc-port", "0"], options].concat();
    let server = Server::start(&options);
    let threads = Runtime::new().expect("threads");
    let address = format!("http://{}", server.grpc.expect("it listens"));
    let channel = Channel::from_shared(address).expect("an address");
    let channel = threads.block_on(channel.connect()).expect("a connection");
    Served { server, threads, channel }
}

fn step(id: &str, tokens: &[u32]) -> StepRequest {
    StepRequest {
        episode_id: id.into(),
        observation: Some(Observation::Tokens(Tokens { ids: tokens.to_vec() })),
        max_tokens: Some(6),
        temperature: Some(0.0),
        ignore_eos: Some(true),
        logprobs: Some(1),
        ..StepRequest::default()
    }
}

async fn whole(
    client: &mut EpisodesClient<Channel>,
    request: StepRequest,
) -> Result<Vec<StepResponse>, tonic::Status> {
    let mut stream = client.step(request).await?.into_inner();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await? {
        pieces.push(piece);
    }
    Ok(pieces)
}

fn tokens(pieces: &[StepResponse]) -> Vec<u32> {
    pieces.iter().flat_map(|piece| piece.token_ids.iter().copied()).collect()
}

/// Tokens computed of inference and of rollouts.
fn class_tokens(server: &Server) -> [u64; 2] {
    let told = server.get("/debug/metrics").json();
    serde_json::from_value(told["class_tokens"].clone()).expect("two counts")
}

#[test]
fn who_watches_health_hears_that_the_server_closes() {
    let Served { server, threads, channel } = served(&[]);
    threads.block_on(async {
        let mut watched = Vec::new();
        for service in ["", "pagewise.v1.Episodes", "pagewise.v1.Control"] {
            let asked = HealthCheckRequest { service: service.into() };
            let told = HealthClient::new(channel.clone()).watch(asked).await.expect("it is known");
            let mut told = told.into_inner();
            let now = told.message().await.expect("it stands").expect("it says how it is");
            assert_eq!(now.status(), ServingStatus::Serving, "{service}");
            watched.push(told);
        }
        server.terminate();
        for mut told in watched {
            let now = told.message().await.expect("it stands").expect("it says how it is");
            assert_eq!(now.status(), ServingStatus::NotServing);
        }
    });
}

#[test]
fn an_episode_says_over_grpc_what_http_says_of_the_same_tokens() {
    let Served { server, threads, channel } = served(&[]);
    let mut client = EpisodesClient::new(channel);
    threads.block_on(async {
        let begun = client.start_episode(StartEpisodeRequest::default()).await.expect("it begins");
        let id = begun.into_inner().episode_id;
        let mut all = Vec::new();
        for new in [vec![65, 66, 67], vec![70], vec![71, 72]] {
            let request =
                StepRequest { expected_position: Some(all.len() as u64), ..step(&id, &new) };
            let pieces = whole(&mut client, request.clone()).await.expect("a step");
            all.extend(&new);
            let plain = server.ask(
                "/inference/v1/generate",
                &json!({
                    "token_ids": all, "sampling_params":
                        { "max_tokens": 6, "temperature": 0, "ignore_eos": true, "logprobs": 1 },
                }),
            );
            let expected: Vec<u32> =
                serde_json::from_value(plain["choices"][0]["token_ids"].clone()).expect("tokens");
            assert_eq!(tokens(&pieces), expected);
            let logprobs: Vec<u32> = pieces
                .iter()
                .flat_map(|piece| piece.logprobs.iter().map(|entry| entry.logprob.to_bits()))
                .collect();
            let content = plain["choices"][0]["logprobs"]["content"].as_array().expect("entries");
            let expected: Vec<u32> = content
                .iter()
                .map(|entry| (entry["logprob"].as_f64().expect("a number") as f32).to_bits())
                .collect();
            assert_eq!(logprobs, expected, "bit for bit");
            let last = pieces.last().expect("pieces");
            all.extend(tokens(&pieces));
            assert_eq!((last.position, last.rebuilt_tokens), (all.len() as u64, Some(0)));
            assert_eq!(last.finish_reason.as_deref(), Some("length"));
            assert_eq!(last.weight_versions[0].end, 6);
            // Sent again, it is told again.
            let count = server.count("generated_tokens");
            let again = whole(&mut client, request).await.expect("the same step");
            assert_eq!(tokens(&again), tokens(&pieces));
            assert_eq!(server.count("generated_tokens"), count);
        }
        // Who asks is a field, too; a trainer, where it is not given.
        let [inference, rollouts] = class_tokens(&server);
        assert!(inference == 0 && rollouts > 0, "{inference}, {rollouts}");
        let odd = StepRequest { request_class: Some("odd".into()), ..step(&id, &[70]) };
        let refused = whole(&mut client, odd).await.expect_err("there is no such class");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("class"), "{refused}");
        let asked = StepRequest { request_class: Some("inference".into()), ..step(&id, &[70]) };
        all.push(70);
        all.extend(tokens(&whole(&mut client, asked).await.expect("a step")));
        while class_tokens(&server)[0] == 0 {}
        let fork = ForkEpisodeRequest { from_episode_id: id.clone(), ..Default::default() };
        let fork = client.fork_episode(fork).await.expect("it forks").into_inner();
        assert_eq!(fork.position, all.len() as u64);
        let state = GetEpisodeRequest { episode_id: fork.episode_id };
        let state = client.get_episode(state).await.expect("it stands").into_inner();
        assert_eq!((state.token_ids, state.step_in_flight), (all.clone(), false));
        let end = EndEpisodeRequest { episode_id: id.clone() };
        let ended = client.end_episode(end.clone()).await.expect("it ends").into_inner();
        assert_eq!(ended.position, all.len() as u64);
        let gone = client.end_episode(end).await.expect_err("it has ended");
        assert_eq!(gone.code(), Code::NotFound);
    });
}

#[test]
fn a_step_that_is_collected_tells_its_trajectory_and_reward() {
    let name = format!("pagewise-grpc-{}", std::process::id());
    let store = std::env::temp_dir().join(name);
    let Served { server, threads, channel } =
        served(&["--trajectory-dir", store.to_str().expect("plain")]);
    let mut client = EpisodesClient::new(channel);
    let pieces = threads.block_on(async {
        let begun = client.start_episode(StartEpisodeRequest::default()).await.expect("it begins");
        let options = json!({
            "collect_trajectory": true, "metadata": {"a": 1},
            "scoring_function": {"name": "length", "min": 6},
        });
        let request = StepRequest {
            options_json: Some(options.to_string()),
            expected_position: Some(0),
            ..step(&begun.into_inner().episode_id, &[65, 66])
        };
        let pieces = whole(&mut client, request.clone()).await.expect("a step");
        let again = whole(&mut client, request).await.expect("the same step");
        assert_eq!(again[0].trajectory_id, pieces.last().expect("pieces").trajectory_id);
        assert_eq!(again[0].reward, Some(1.0));
        pieces
    });
    let (last, others) = pieces.split_last().expect("pieces");
    assert!(others.iter().all(|piece| piece.trajectory_id.is_none()));
    assert_eq!((last.reward, &last.trajectory_error), (Some(1.0), &None));
    let id = last.trajectory_id.expect("it is kept");
    let kept = server.get(&format!("/v1/trajectories/{id}")).json();
    assert_eq!(kept["answer"], json!(tokens(&pieces)));
    assert_eq!((&kept["prompt"], &kept["metadata"]["a"]), (&json!([65, 66]), &json!(1)));
    let _ = std::fs::remove_dir_all(store);
}

#[test]
fn a_call_that_is_cancelled_or_late_ends_its_step_and_leaves_what_came() {
    let Served { server, threads, channel } = served(&["--max-model-len", "300"]);
    let mut client = EpisodesClient::new(channel);
    threads.block_on(async {
        // Stopped in its middle; where the machine has much to do, the pause may come too late.
        let mut tries = 0..50;
        let (id, stream) = loop {
            assert!(tries.next().is_some(), "no step was ever in flight");
            let begun = client.start_episode(StartEpisodeRequest::default()).await;
            let id = begun.expect("it begins").into_inner().episode_id;
            let long = StepRequest { max_tokens: Some(250), ..step(&id, &[65, 66]) };
            let mut stream = client.step(long).await.expect("it begins").into_inner();
            stream.message().await.expect("a piece").expect("one");
            server.ask("/pause?mode=keep", &json!({}));
            match client.step(step(&id, &[70])).await {
                Err(busy) => {
                    assert_eq!(busy.code(), Code::FailedPrecondition);
                    break (id, stream);
                }
                Ok(_) => server.ask("/resume", &json!({})),
            };
            client.end_episode(EndEpisodeRequest { episode_id: id }).await.expect("it ends");
        };
        let long =
            |tokens: &[u32], most| StepRequest { max_tokens: Some(most), ..step(&id, tokens) };
        drop(stream);
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.ask("/resume", &json!({}));
        let get = GetEpisodeRequest { episode_id: id.clone() };
        let rested = async |client: &mut EpisodesClient<Channel>| {
            loop {
                let state = client.get_episode(get.clone()).await.expect("it lives").into_inner();
                if !state.step_in_flight {
                    return state.position;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let position = rested(&mut client).await;
        assert!((3..252).contains(&position), "{position}");
        server.ask("/pause?mode=keep", &json!({}));
        let mut late = Request::new(long(&[70], 2));
        late.set_timeout(Duration::from_millis(50));
        let outcome = match client.step(late).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => panic!("it was too long for its time"),
                        Err(status) => break status,
                    }
                }
            }
        };
        assert!(matches!(outcome.code(), Code::DeadlineExceeded | Code::Cancelled), "{outcome}");
        server.ask("/resume", &json!({}));
        rested(&mut client).await;
        // The episode may still settle.
        let wrong = StepRequest { expected_position: Some(1), ..step(&id, &[70]) };
        let wrong = loop {
            let refused = client.step(wrong.clone()).await.expect_err("not so many");
            if !refused.message().contains("in flight") {
                break refused;
            }
        };
        assert_eq!(wrong.code(), Code::FailedPrecondition);
        assert!(wrong.message().contains("expected_position"), "{wrong}");
        let end = EndEpisodeRequest { episode_id: id.clone() };
        client.end_episode(end).await.expect("it ends");
    });
    // What is told of pages is as of the last step.
    server.ask("/v1/completions", &json!({ "prompt": [65], "max_tokens": 1 }));
    server.rests();
}

#[test]
fn weights_come_as_their_call_says_and_in_time() {
    let Served { server, threads, channel } = served(&[]);
    let server = Arc::new(server);
    let folder = server.folder().to_str().expect("plain").to_owned();
    threads.block_on(async {
        let mut control = ControlClient::new(channel.clone());
        let update = |in_flight: &str, timeout_seconds| UpdateWeightsRequest {
            source: Some(update_weights_request::Source::WeightDir(folder.clone())),
            weight_version: Some("w".into()),
            in_flight: Some(in_flight.into()),
            timeout_seconds,
        };
        let wrong = control.update_weights(update("drop", None)).await.expect_err("no such way");
        assert_eq!(wrong.code(), Code::InvalidArgument);
        assert!(wrong.message().contains("in_flight"), "{wrong}");
        let wrong = control.update_weights(update("keep", Some(f64::NAN))).await;
        assert_eq!(wrong.expect_err("no time").code(), Code::InvalidArgument);
        let late = control.update_weights(update("keep", Some(0.0))).await.expect_err("late");
        assert_eq!(late.code(), Code::DeadlineExceeded);
        // An answer in flight ends, for the update says so.
        let ask = json!({ "token_ids": [65, 66], "sampling_params":
            { "max_tokens": 450, "ignore_eos": true } });
        let mut tries = 0..50;
        loop {
            assert!(tries.next().is_some(), "no answer was ever in flight");
            let (server, ask) = (server.clone(), ask.clone());
            let count = server.count("generated_tokens");
            let asking = {
                let server = server.clone();
                tokio::task::spawn_blocking(move || server.ask("/inference/v1/generate", &ask))
            };
            while server.count("generated_tokens") < count + 3 {
                tokio::task::yield_now().await;
            }
            control.update_weights(update("abort", Some(60.0))).await.expect("they come");
            let answer = asking.await.expect("an answer");
            if answer["choices"][0]["finish_reason"] == "abort" {
                break;
            }
        }
        // One that is started has its time, and no more.
        let start = StartWeightUpdateRequest { deadline_seconds: Some(0.0) };
        control.start_weight_update(start).await.expect("it is started");
        let finish =
            FinishWeightUpdateRequest { in_flight: Some("recompute".into()), ..Default::default() };
        let late = control.finish_weight_update(finish.clone()).await.expect_err("late");
        assert_eq!(late.code(), Code::FailedPrecondition);
        assert!(late.message().contains("deadline_seconds"), "{late}");
        let wrong = StartWeightUpdateRequest { deadline_seconds: Some(-1.0) };
        let wrong = control.start_weight_update(wrong).await.expect_err("no time");
        assert_eq!(wrong.code(), Code::InvalidArgument);
        let file = std::fs::read(server.folder().join("model.safetensors")).expect("it is there");
        control.start_weight_update(StartWeightUpdateRequest::default()).await.expect("started");
        let tensors = UpdateWeightsRequest {
            source: Some(update_weights_request::Source::Safetensors(file)),
            ..Default::default()
        };
        control.update_weights(tensors).await.expect("they are taken");
        let finish = FinishWeightUpdateRequest { weight_version: Some("v9".into()), ..finish };
        let finished = control.finish_weight_update(finish).await.expect("they serve");
        assert_eq!(finished.into_inner().weight_version, "v9");
    });
}

#[test]
fn controls_do_what_their_http_calls_do_and_errors_have_codes() {
    let Served { server, threads, channel } = served(&["--api-key", "secret"]);
    threads.block_on(async {
        let mut bare = ControlClient::new(channel.clone());
        let refused = bare.is_paused(IsPausedRequest {}).await.expect_err("no key");
        assert_eq!(refused.code(), Code::Unauthenticated);
        let key = |mut request: Request<()>| {
            request.metadata_mut().insert("authorization", "Bearer secret".parse().expect("one"));
            Ok(request)
        };
        let mut control = ControlClient::with_interceptor(channel.clone(), key);
        let info = control.get_model_info(GetModelInfoRequest {}).await.expect("told");
        assert!(info.into_inner().vocab_size > 0);
        let pause = PauseGenerationRequest { mode: PauseMode::Keep.into(), clear_cache: None };
        control.pause_generation(pause).await.expect("it rests");
        let paused = control.is_paused(IsPausedRequest {}).await.expect("told").into_inner();
        assert!(paused.is_paused);
        control.resume_generation(ResumeGenerationRequest {}).await.expect("it goes on");
        let version = UpdateWeightVersionRequest { new_version: "v8".into() };
        control.update_weight_version(version).await.expect("named");
        let version = control.get_weight_version(GetWeightVersionRequest {}).await;
        assert_eq!(version.expect("told").into_inner().weight_version, "v8");
        let load = LoadLoraRequest {
            lora_name: "a".into(),
            source_path: "/no/such".into(),
            ..Default::default()
        };
        let refused = control.load_lora(load).await.expect_err("no folder");
        assert_eq!(refused.code(), Code::NotFound);
        let list = control.list_loras(ListLorasRequest {}).await.expect("told").into_inner();
        assert!(list.adapters.is_empty());
        let aborted = control.abort(AbortRequest::default()).await.expect("told").into_inner();
        assert_eq!(aborted.aborted, 0);
        let mut episodes = EpisodesClient::with_interceptor(channel, key);
        let wrong = StartEpisodeRequest { model: Some("nobody".into()), ..Default::default() };
        let refused = episodes.start_episode(wrong).await.expect_err("no such model");
        assert_eq!(refused.code(), Code::NotFound);
        let begun = episodes.start_episode(StartEpisodeRequest::default()).await.expect("begins");
        let id = begun.into_inner().episode_id;
        let hot = StepRequest { temperature: Some(-1.0), ..step(&id, &[65]) };
        let refused = episodes.step(hot).await.expect_err("a wrong field");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("temperature"), "{refused}");
        let options = StepRequest { options_json: Some("{\"n\": 3}".into()), ..step(&id, &[65]) };
        let refused = episodes.step(options).await.expect_err("one answer");
        assert_eq!(refused.code(), Code::InvalidArgument);
    });
    drop(server);
}
