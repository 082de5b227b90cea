//! What a model takes of a device: its weights, and nothing of its files beside them.
#![cfg(emulated)]

use backends::cpu::Cpu;
use backends::plugin::Plugin;
use checkpoint::Checkpoint;
use engine::engine::{InFlight, OpenError, Settings};
use engine::model::{Model, Source};
use engine::processor::Keep;
use engine::weights::{Aside, Quantize};
use kernels_core::device::Backend;
use kernels_core::error::Fault;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::model::golden::{GOLDENS, Golden};
use pagewise_tests::model::{load, thin};
use pagewise_tests::serving::{Making, Served, generate, greedy, prompt, settings};

fn device() -> Plugin {
    Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there")
}

fn source(checkpoint: &Checkpoint, quantize: Option<Quantize>) -> Source<'_> {
    let Checkpoint { config, tensors, .. } = checkpoint;
    Source { config, tensors, quantize, workers: &Inline }
}

fn weights_bytes(checkpoint: &Checkpoint, quantize: Option<Quantize>) -> u64 {
    Model::bytes(&source(checkpoint, quantize)).expect("a good checkpoint")
}

/// Bytes of an embedding table that stays as its file has it.
fn table_bytes(checkpoint: &Checkpoint) -> u64 {
    let table = &checkpoint.tensors["model.embed_tokens.weight"];
    if checkpoint.config.tied { 0 } else { table.bytes().len() as u64 }
}

#[test]
fn a_model_takes_its_weights_and_nothing_of_its_files_beside_them() {
    for (family, _) in GOLDENS {
        let checkpoint = Golden::open(family, "config").checkpoint;
        for quantize in [None, Some(Quantize::Q8)] {
            let expected = weights_bytes(&checkpoint, quantize);
            let mut device = device();
            let model = load(&mut device, &checkpoint, quantize).expect("it loads");
            assert_eq!(device.allocated_bytes(), expected, "{family}, {quantize:?}");
            model.release(&mut device).expect("it is there");
            assert_eq!(device.allocated_bytes(), 0, "{family}, {quantize:?}");
        }
    }
}

#[test]
fn weights_made_aside_take_no_more() {
    let checkpoint = thin::checkpoint();
    let (mut aside, mut device) = (Aside::default(), device());
    let source = source(&checkpoint, None);
    let model = Model::load(&mut aside, &source, &mut |_, _| {}).expect("it loads");
    aside.bring(model, &mut device).expect("there is room");
    assert!(table_bytes(&checkpoint) > 0, "its table is brought as it is");
    assert_eq!(device.allocated_bytes(), weights_bytes(&checkpoint, None));
}

#[test]
fn the_cpu_borrows_a_table_where_its_file_lies() {
    let checkpoint = Golden::open("llama", "config").checkpoint;
    let mut cpu = Cpu::new(Level::best(), 1);
    load(&mut cpu, &checkpoint, None).expect("it loads");
    let [all, table] = [weights_bytes(&checkpoint, None), table_bytes(&checkpoint)];
    assert!(table > 0);
    assert_eq!(cpu.allocated_bytes(), all - table);
}

/// The binary with the emulator as CUDA's plugin.
#[cfg(not(any(feature = "sanitized", feature = "races")))]
mod binary {
    use pagewise_tests::server::{Server, checkpoint, command};
    use serde_json::json;
    use std::path::PathBuf;

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        /// With the emulator in it.
        fn of_plugins(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder");
            let test = std::env::current_exe().expect("a test has a path");
            let built = test.with_file_name("libemulator.so");
            std::fs::copy(built, folder.join("libpagewise_cuda.so")).expect("it is built, too");
            Self(folder)
        }

        fn path(&self) -> &str {
            self.0.to_str().expect("UTF-8")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_server_tells_its_device_and_has_a_draft_model_on_it() {
        let plugins = Folder::of_plugins("pagewise-memory");
        let draft = checkpoint::write();
        let _goes = Folder(draft.parent().expect("its own").to_owned());
        let model = draft.to_str().expect("UTF-8");
        let device = ["--device", "cuda:0", "--plugins", plugins.path(), "--kv-cache-memory", "1M"];
        let server = Server::start(&[&device[..], &["--draft-model", model]].concat());
        let asked = json!({"prompt": "one two three", "max_tokens": 8, "temperature": 0});
        let answer = server.ask("/v1/completions", &asked);
        let held = &answer["usage"]["completion_tokens_details"]["accepted_prediction_tokens"];
        assert!(held.as_u64().is_some_and(|held| held > 0), "{answer}");
        let info = server.get("/server_info").json();
        assert_eq!((&info["device"], info["device_name"].is_string()), (&json!("cuda"), true));
        let bytes = |part: &str| info["device_memory"][part].as_u64().expect("a number");
        assert!(bytes("allocated_bytes") > 1 << 20, "{info}");
        // Each of two has the emulator's memory to itself.
        assert!(bytes("free_bytes") < bytes("total_bytes"), "{info}");
        let text = String::from_utf8(server.get("/metrics").body).expect("UTF-8");
        let told = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_else(|| panic!("{text}"));
            line.rsplit(' ').next().and_then(|it| it.parse::<f64>().ok()).expect("a number")
        };
        assert_eq!(told("pagewise:device_memory_total_bytes") as u64, bytes("total_bytes"));
        assert!(told("pagewise:device_memory_allocated_bytes") > f64::from(1 << 20));
        assert!(told("pagewise:device_info") == 1.0 && text.contains(r#"kind="cuda""#), "{text}");
    }

    #[test]
    fn info_sums_the_memory_of_the_device() {
        let plugins = Folder::of_plugins("pagewise-info");
        let folder = checkpoint::write();
        let _goes = Folder(folder.parent().expect("its own").to_owned());
        let told = |options: &[&str]| {
            let out = command().arg("info").arg(&folder).args(options).output().expect("it starts");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).expect("UTF-8")
        };
        let device = told(&["--device", "cuda:0", "--plugins", plugins.path()]);
        assert!(device.contains("numerics cuda-emulated-2"), "{device}");
        let line =
            |text: &str| text.lines().find(|it| it.starts_with("memory ")).map(str::to_owned);
        assert!(line(&device).is_some_and(|line| line.contains("4.0 GiB available")), "{device}");
        assert!(!told(&[]).contains("emulated"), "the CPU is asked unless a device is named");
    }
}

/// What buffers of an engine take of its device.
fn allocated(served: &Served) -> u64 {
    served.engine.device_memory().expect("it is no host's").allocated_bytes
}

/// An engine whose device has so much memory.
fn within(bytes: u64) -> Served {
    emulator::memory_bytes(bytes);
    let devices: [Box<dyn Backend>; 2] = [Box::new(device()), Box::new(device())];
    emulator::memory_bytes(4 << 30);
    Served::made(settings(), Making { devices: Some(devices), ..Making::default() })
}

#[test]
fn a_model_that_does_not_fit_is_refused_and_leaves_nothing() {
    let checkpoint = thin::checkpoint();
    let bytes = weights_bytes(&checkpoint, None);
    for most in [0, bytes / 2, bytes - 1] {
        emulator::memory_bytes(most);
        let mut device = device();
        let refused = load(&mut device, &checkpoint, None).expect_err("it has no room");
        assert!(refused.to_string().contains("cannot grow by"), "{refused}");
        assert_eq!(device.allocated_bytes(), 0, "of {most}");
    }
    emulator::memory_bytes(bytes);
    load(&mut device(), &checkpoint, None).expect("just so much is enough");
}

/// What all of an engine takes of its device.
fn taken(served: &Served) -> u64 {
    let memory = served.engine.device_memory().expect("it is no host's");
    memory.total_bytes - memory.free_bytes
}

#[test]
fn no_request_takes_memory_that_was_not_taken_at_the_start() {
    /// Where its programs are told of faults.
    const FAULTS: u64 = 4 << 10;
    let start = taken(&within(4 << 30));
    let mut served = within(start + FAULTS);
    let mut asked = greedy(1, &prompt(1, 5), 3);
    let wants = generate(&mut asked);
    (wants.top, wants.kept, wants.prompt_top) = (Some(100), Some(Keep::Tokens), Some(5));
    (wants.sampling.bias, wants.chosen) = ([(3, -1.0)].into(), [4, 5].into());
    served.submit(asked);
    served.submit(greedy(2, &prompt(2, 5), 3));
    served.run();
    for id in [1, 2] {
        assert_eq!(served.answers[&id].tokens(0).len(), 3, "request {id}");
    }
    assert_eq!(served.engine.counters().failed_steps, 0);
    assert!(taken(&served) > start, "it recorded what it had not");
    // After a trainer had the memory of pages it is taken again.
    assert_eq!(served.engine.release_pages(), Ok(true));
    served.engine.take_pages().expect("there is room");
    assert!(taken(&served).abs_diff(start) < FAULTS, "{start}");
}

#[test]
fn weights_that_do_not_fit_beside_those_that_serve_are_refused_and_these_go_on() {
    let checkpoint = thin::checkpoint();
    let weights = weights_bytes(&checkpoint, None);
    let mut served = within(taken(&within(4 << 30)) + weights - 1);
    let start = allocated(&served);
    served.submit(greedy(1, &prompt(1, 5), 3));
    served.step();
    let mut aside = Aside::default();
    let other = Model::load(&mut aside, &source(&checkpoint, None), &mut |_, _| {});
    let made = (aside, other.expect("it loads"));
    let refused = served.engine.replace_weights(made, InFlight::Wait).expect_err("no room");
    let OpenError::Backend(refused) = refused else { panic!("{refused}") };
    assert!(matches!(refused.fault, Fault::OutOfMemory { .. }), "{refused}");
    assert_eq!(allocated(&served), start, "what was brought is given back");
    assert_eq!(served.engine.failure(), None, "a device without room has not failed");
    served.run();
    assert_eq!(served.answers[&1].tokens(0).len(), 3);
}

#[test]
fn an_engine_tells_what_it_takes_and_gives_it_back() {
    let devices: [Box<dyn Backend>; 2] = [Box::new(device()), Box::new(device())];
    let mut served =
        Served::made(settings(), Making { devices: Some(devices), ..Making::default() });
    let checkpoint = thin::checkpoint();
    let weights = weights_bytes(&checkpoint, None);
    let before = allocated(&served);
    assert!(before > weights);
    // Pages go while a trainer needs their memory.
    let Settings { pages, .. } = settings();
    let page = engine::model::Slabs::page_bytes(&checkpoint.config, &settings().capacity());
    assert_eq!(served.engine.release_pages(), Ok(true));
    assert_eq!(allocated(&served), before - u64::from(pages) * page.expect("it is little"));
    served.engine.take_pages().expect("there is room");
    assert_eq!(allocated(&served), before);
    // Other weights come beside those that serve, which go when nobody has them any more.
    served.submit(greedy(1, &prompt(1, 5), 3));
    served.step();
    let mut aside = Aside::default();
    let other = Model::load(&mut aside, &source(&checkpoint, None), &mut |_, _| {});
    let made = (aside, other.expect("it loads"));
    served.engine.replace_weights(made, InFlight::Wait).expect("there is room");
    assert_eq!(allocated(&served), before + weights);
    served.run();
    assert_eq!(allocated(&served), before);
    let memory = served.engine.device_memory().expect("it is no host's");
    assert!(memory.free_bytes <= memory.total_bytes - memory.allocated_bytes, "{memory:?}");
    let cpu = Served::new(settings());
    assert_eq!(cpu.engine.device_memory(), None, "the host's memory is no device's");
}
