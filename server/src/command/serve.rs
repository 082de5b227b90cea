//! `pagewise serve`.

use super::load::{Loaded, load};
use super::{Failure, action_sets};
use crate::adapters::Load;
use crate::atropos::Atropos;
use crate::backend::Busy;
use crate::checkpoints::{self, Checkpoints};
use crate::config::{self, LogFormat};
use crate::grpc;
use crate::http::{self, Door};
use crate::metrics::Metrics;
use crate::openai::Refusal;
use crate::rollouts::Shelf;
use crate::runtime::{self, Pace, Runtime};
use crate::served::Served;
use checkpoint::archive::Archive;
use engine::engine::Engine;
use std::any::Any;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Threads for connections; the kernels have their own.
const THREADS: usize = 2;
/// How long readers of requests have to end, when all else has.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Serves until it is told to stop.
pub fn run(
    settings: &config::Serve,
    given: &[(String, String)],
    out: &mut impl Write,
) -> Result<(), Failure> {
    log(settings);
    // Before the model is loaded: a port that is taken is known at once, and whoever asks
    // meanwhile is told to wait.
    let mut host = Host::open(settings)?;
    let Some(Loaded { engine, busy, mut served, told }) = host.load(settings)? else {
        return host.close();
    };
    served.trust_request_chat_template = settings.limits.trust_request_chat_template;
    served.atropos = Atropos::open(&settings.atropos, served.context)?;
    served.action_sets = action_sets::read(&settings.action_set, served.vocabulary)?;
    tell(out, given, &told)?;
    let (name, address) = (served.name.clone(), host.address);
    if let Some((_, address)) = &host.grpc {
        writeln!(out, "listening grpc://{address}")?;
    }
    let serving = host.serve(engine, busy, served, settings)?;
    invite(out, address, &name)?;
    serving.attend()
}

/// A port at which clients are told that the model is being loaded.
struct Host {
    threads: tokio::runtime::Runtime,
    address: SocketAddr,
    /// Where gRPC is to be listened for, if it is, until somebody does.
    grpc: Option<(tokio::net::TcpListener, SocketAddr)>,
    /// Where versions are to be saved, if they are, until somebody does.
    archive: Option<Archive>,
    door: Arc<Door>,
    /// By which it is told to stop.
    signals: [Signal; 2],
    stop: watch::Sender<bool>,
    /// Ends when it was said to stop, and all has ended.
    connections: tokio::task::JoinHandle<()>,
}

/// One that has a model.
struct Serving {
    host: Host,
    runtime: Runtime,
    engine: JoinHandle<()>,
    /// What writes checkpoints, if something does.
    writer: Option<JoinHandle<()>>,
    /// Who hands scored groups over, if somebody does.
    envoy: Option<(tokio::task::JoinHandle<()>, watch::Sender<bool>)>,
}

impl Host {
    fn open(settings: &config::Serve) -> Result<Self, Failure> {
        let archive = archive(&settings.checkpoints)?;
        let listener = listen(&settings.host, settings.port)?;
        let address = listener.local_addr()?;
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .build()
            .map_err(Failure::Thread)?;
        let grpc = settings.grpc_port.map(|port| listen(&settings.host, port)).transpose()?;
        let (listener, grpc, signals) = threads.block_on(async {
            let signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
            let grpc = grpc.map(|listener| {
                let address = listener.local_addr()?;
                io::Result::Ok((tokio::net::TcpListener::from_std(listener)?, address))
            });
            let listener = tokio::net::TcpListener::from_std(listener)?;
            io::Result::Ok((listener, grpc.transpose()?, signals))
        })?;
        let door = Door::new(settings.limits.clone());
        let (stop, stopped) = watch::channel(false);
        let connections = threads.spawn(http::serve(listener, door.clone(), stopped));
        Ok(Self { threads, address, grpc, archive, door, signals, stop, connections })
    }

    /// The model, unless it is told to stop before that is loaded.
    fn load(&mut self, settings: &config::Serve) -> Result<Option<Loaded>, Failure> {
        let (settings, Self { threads, signals, .. }) = (settings.clone(), self);
        let loading = threads.spawn_blocking(move || {
            // Before the model: a folder that is taken is known at once.
            let shelf = Shelf::open(&settings.trajectories)?;
            let name = settings.served_model_name.as_deref();
            let mut loaded = load(&settings.model, name, &settings.running, &settings.machine)?;
            loaded.told.extend(shelf.as_ref().map(|shelf| ("store", shelf.described())));
            loaded.served.shelf = shelf.map(Arc::new);
            Ok(loaded)
        });
        threads.block_on(async {
            tokio::select! {
                loaded = loading => {
                    loaded.map_err(|error| Failure::Broken(error.to_string()))?.map(Some)
                }
                () = told(signals) => Ok(None),
            }
        })
    }

    /// Ends before there is a model; its loading ends with the process.
    fn close(self) -> Result<(), Failure> {
        tracing::warn!("told to stop while the model is being loaded");
        self.stop.send_replace(true);
        let ended = self.threads.block_on(self.connections);
        self.threads.shutdown_background();
        ended.map_err(|error| Failure::Broken(error.to_string()))
    }

    /// Lets clients in to a model.
    fn serve(
        mut self,
        engine: Engine,
        busy: Busy,
        mut served: Served,
        settings: &config::Serve,
    ) -> Result<Serving, Failure> {
        let shape = engine.settings();
        let metrics = Arc::new(Metrics::new(
            &served.name,
            shape.page_len,
            shape.pages,
            served.device.as_ref(),
        ));
        let limits = &settings.limits;
        let pace = Pace {
            gather: Duration::from_millis(settings.batch_timeout),
            timeout: match limits.request_timeout_seconds {
                0 => None,
                seconds => Some(Duration::from_secs(seconds)),
            },
            open_max: settings.running.max_batch_size as usize + limits.max_queue as usize,
        };
        let (runtime, engine) =
            runtime::start(engine, busy, pace, metrics.clone(), served.labels.clone())
                .map_err(Failure::Thread)?;
        self.threads.spawn(served.episodes.clone().reap(runtime.clone()));
        let mut writer = None;
        if let Some(archive) = self.archive.take() {
            let config = std::fs::read(served.folder.join("config.json"))?;
            let model = checkpoints::Served { name: served.name.clone(), config };
            let every = settings.checkpoints.checkpoint_every;
            let (checkpoints, thread) = Checkpoints::start(archive, every, model, metrics.clone())
                .map_err(Failure::Thread)?;
            served.save_versions(&checkpoints);
            writer = Some(thread);
        }
        let served = Arc::new(served);
        for (name, folder) in &settings.running.adapters.lora_modules {
            let load = Load::at_start(name, folder);
            let loaded = self.threads.block_on(served.adapters.load(&runtime, load));
            let words = |refusal: Refusal| format!("--lora-modules {name}: {}", refusal.message);
            loaded.map_err(|refusal| Failure::Setting(words(refusal)))?;
        }
        if let (Some(checkpoints), true) =
            (&served.checkpoints, settings.checkpoints.checkpoint_resume)
        {
            let resumed = checkpoints::resume(checkpoints, &served, &runtime);
            let words = |refusal: Refusal| format!("--checkpoint-resume: {}", refusal.message);
            let resumed = self.threads.block_on(resumed);
            resumed.map_err(|refusal| Failure::Setting(words(refusal)))?;
        }
        let envoy = served.atropos.as_ref().and_then(Atropos::envoy);
        let envoy = envoy.map(|envoy| {
            let (stop, stopped) = watch::channel(false);
            (self.threads.spawn(envoy.run(stopped, metrics.clone())), stop)
        });
        self.door.open(served, runtime.clone(), metrics);
        if let (Some((listener, _)), Some(server)) = (self.grpc.take(), self.door.server()) {
            self.threads.spawn(grpc::serve(listener, server, self.stop.subscribe()));
        }
        Ok(Serving { host: self, runtime, engine, writer, envoy })
    }
}

impl Serving {
    /// Serves until it is told to stop and all has ended, or until the engine breaks.
    fn attend(self) -> Result<(), Failure> {
        let Self { host, runtime, engine, writer, envoy } = self;
        let Host { threads, door, mut signals, stop, mut connections, .. } = host;
        let ended = threads.block_on(async {
            tokio::select! {
                () = told(&mut signals) => {}
                () = runtime.ended() => tracing::error!("the engine has stopped: so does the server"),
            }
            stop.send_replace(true);
            tokio::select! {
                ended = &mut connections => ended.map_err(|error| Failure::Broken(error.to_string())),
                // Whoever says it twice does not want to wait.
                () = told(&mut signals) => Err(Failure::Stopped { open: runtime.open() }),
            }
        });
        if ended.is_err() {
            threads.shutdown_background();
            return ended;
        }
        if let Some((envoy, stop)) = envoy {
            // No group comes any more. It bounds its leave by itself.
            stop.send_replace(true);
            let _ = threads.block_on(envoy);
        }
        let failure = runtime.failure().map(str::to_owned);
        drop((door, runtime));
        threads.shutdown_timeout(END_WITHIN);
        // Nobody reaches the engine any more: its thread ends, if it has not broken. So does
        // what writes checkpoints, when it has written those that wait.
        // A device that failed may keep its engine for ever: that one ends with the process.
        let engine = Some(engine).filter(|_| failure.is_none());
        for thread in engine.into_iter().chain(writer) {
            thread.join().map_err(|panic| Failure::Broken(words(panic.as_ref())))?;
        }
        failure.map_or(Ok(()), |why| Err(Failure::Failed(why)))
    }
}

/// Where versions are saved, if they are.
fn archive(settings: &config::Checkpoints) -> Result<Option<Archive>, Failure> {
    let Some(folder) = &settings.checkpoint_dir else { return Ok(None) };
    Ok(Some(checkpoints::open(folder, settings.settings())?))
}

/// Waits until it is told to stop.
async fn told([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// What a thread said when it broke.
fn words(panic: &(dyn Any + Send)) -> String {
    let fixed = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
    let words = fixed.or_else(|| panic.downcast_ref::<String>().cloned());
    words.unwrap_or_else(|| "a thread broke".to_owned())
}

fn listen(host: &str, port: u16) -> Result<TcpListener, Failure> {
    let unknown = |error| Failure::Address(format!("--host {host}: no address is known: {error}"));
    let mut addresses: Vec<_> = (host, port).to_socket_addrs().map_err(unknown)?.collect();
    // A name may have addresses of both kinds: clients that know one mostly know this.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let listener = TcpListener::bind(&addresses[..]).map_err(|error| {
        Failure::Address(match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "port {port} of {host} is taken, perhaps by another server; --port takes another \
                 one, 0 any that is free"
            ),
            io::ErrorKind::PermissionDenied => {
                format!("port {port} of {host} is not for everybody: take one above 1023")
            }
            io::ErrorKind::AddrNotAvailable => {
                format!("this machine has no address {host}: --host names one it has")
            }
            _ => format!("port {port} of {host} cannot be listened at: {error}"),
        })
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn log(settings: &config::Serve) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(settings.log_level)
        .with_writer(io::stderr)
        .with_target(false);
    match settings.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
}

/// What is served, and all settings as they are.
fn tell(
    out: &mut impl Write,
    given: &[(String, String)],
    told: &[(&'static str, String)],
) -> io::Result<()> {
    writeln!(out, "pagewise  {}", env!("CARGO_PKG_VERSION"))?;
    for (name, words) in told {
        writeln!(out, "{name:<9} {words}")?;
    }
    writeln!(out, "settings")?;
    given.iter().try_for_each(|(name, words)| writeln!(out, "  {name:<27} {words}"))
}

/// Where it listens, and how to ask it.
fn invite(out: &mut impl Write, address: SocketAddr, name: &str) -> io::Result<()> {
    let name = name.replace(['"', '\\', '\''], "");
    writeln!(out, "listening http://{address}\n")?;
    writeln!(
        out,
        "curl http://{address}/v1/chat/completions -H 'Content-Type: application/json' \\\n  \
         -d '{{\"model\": \"{name}\", \"messages\": [{{\"role\": \"user\", \"content\": \"What is 12 + 34?\"}}]}}'\n"
    )?;
    writeln!(
        out,
        "from openai import OpenAI\n\
         client = OpenAI(base_url=\"http://{address}/v1\", api_key=\"none\")\n\
         question = [{{\"role\": \"user\", \"content\": \"What is 12 + 34?\"}}]\n\
         answer = client.chat.completions.create(model=\"{name}\", messages=question)\n\
         print(answer.choices[0].message.content)\n"
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::Host;
    use crate::backend::Machine;
    use crate::command::Failure;
    use crate::command::load::{Loaded, load, load_on};
    use crate::config::Serve;
    use kernels_core::device::{
        Backend, Buffer, Command, HostBytes, Launch, Needs, Program, Slice, Ticket,
    };
    use kernels_core::error::{Error, Fault};
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    /// A device that fails for good when it is told to.
    struct Failing {
        inner: Box<dyn Backend>,
        fails: Arc<AtomicBool>,
    }

    impl Backend for Failing {
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
            self.inner.submit(launch)
        }
        fn collect(&mut self, ticket: Ticket, into: &mut [u8]) -> Result<(), Error> {
            self.inner.collect(ticket, into)?;
            let gone = Fault::Device { says: "an illegal address was met", code: 700 };
            match self.fails.load(Ordering::SeqCst) {
                true => Err(Error::new("cuda", "event", gone)),
                false => Ok(()),
            }
        }
    }

    /// Asks on a connection of its own; what came, to the end.
    fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("somebody listens");
        stream.write_all(call(method, path, body).as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn call(method: &str, path: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close");
        format!(
            "{head}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    }

    /// Sends a request for a long answer, and reads what comes until the end; says when
    /// something did.
    fn ask(mut stream: TcpStream, streamed: bool, begun: &Sender<()>) -> String {
        let body = format!(
            "{{\"prompt\": \"1\", \"max_tokens\": 60, \"n\": 100, \"ignore_eos\": true, \
             \"stream\": {streamed}}}"
        );
        let length = body.len();
        let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close";
        write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}").expect("sent");
        let mut first = [0];
        stream.read_exact(&mut first).expect("an answer");
        // Nobody waits for the second.
        let _ = begun.send(());
        let mut answer = String::from(char::from(first[0]));
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    #[test]
    fn an_engine_that_breaks_answers_what_is_begun_and_ends_the_server() {
        let settings = Serve::of(&["--port", "0", "--max-batch-size", "1"]);
        let host = Host::open(&settings).expect("a port");
        let Loaded { engine, busy, served, .. } =
            load(&settings.model, None, &settings.running, &settings.machine)
                .expect("the box's model");
        let address = host.address;
        let serving = host.serve(engine, busy, served, &settings).expect("it serves");
        let runtime = serving.runtime.clone();
        let (begun, begins) = channel();
        let asked = [false, true].map(|streamed| {
            let stream = TcpStream::connect(address).expect("a connection");
            let begun = begun.clone();
            std::thread::spawn(move || ask(stream, streamed, &begun))
        });
        let breaks = std::thread::spawn(move || {
            while runtime.open() < 200 {
                std::thread::yield_now();
            }
            // The one that streams: an answer that has not begun would be a plain 500.
            begins.recv().expect("an answer begins");
            runtime.break_off();
        });
        let outcome = serving.attend();
        assert!(matches!(outcome, Err(Failure::Broken(why)) if why == "told to break"));
        breaks.join().expect("it broke");
        let [whole, streamed] = asked.map(|asked| asked.join().expect("an answer"));
        assert!(whole.starts_with("HTTP/1.1 500 "), "{whole}");
        let told = "\"the engine has stopped\"";
        assert!(whole.contains(told) && streamed.contains(told), "{streamed}");
        assert!(streamed.contains("data: [DONE]"), "{streamed}");
    }

    #[test]
    fn a_device_that_fails_ends_all_answers_in_words_and_then_the_server() {
        let settings = Serve::of(&["--port", "0", "--max-batch-size", "1"]);
        let host = Host::open(&settings).expect("a port");
        let address = host.address;
        let machine = Machine::open(&settings.machine).expect("the CPU is there");
        let fails = Arc::new(AtomicBool::new(false));
        let failing = |inner| {
            let fails = fails.clone();
            Box::new(Failing { inner, fails }) as Box<dyn Backend>
        };
        let Loaded { engine, busy, served, .. } =
            load_on(machine, &settings.model, None, &settings.running, failing)
                .expect("the box's model");
        let serving = host.serve(engine, busy, served, &settings).expect("it serves");
        let runtime = serving.runtime.clone();
        let short = r#"{"prompt": "1", "max_tokens": 1}"#;
        let clients = std::thread::spawn(move || {
            assert!(exchange(address, "GET", "/health", "").starts_with("HTTP/1.1 200 "));
            // One whose body is on its way: the doors stay open for it.
            let mut slow = TcpStream::connect(address).expect("somebody listens");
            let whole = call("POST", "/v1/completions", short);
            let (begun, rest) = whole.split_at(whole.len() - 5);
            slow.write_all(begun.as_bytes()).expect("sent");
            // One that streams already, and one that waits for its seat.
            let (begun, begins) = channel();
            let asked = [true, false].map(|streamed| {
                let (stream, begun) = (TcpStream::connect(address), begun.clone());
                let stream = stream.expect("somebody listens");
                let asked = std::thread::spawn(move || ask(stream, streamed, &begun));
                if streamed {
                    begins.recv().expect("an answer begins");
                }
                asked
            });
            // Whoever is only on the way would be refused, not answered.
            let executor = tokio::runtime::Builder::new_current_thread().build().expect("one");
            let taken = || executor.block_on(runtime.with(|engine| engine.counters().requests));
            while taken().expect("the engine runs") < 2 {
                std::thread::yield_now();
            }
            drop(runtime);
            fails.store(true, Ordering::SeqCst);
            let asked = asked.map(|asked| asked.join().expect("an answer"));
            let mut health = String::new();
            while !health.starts_with("HTTP/1.1 503 ") {
                health = exchange(address, "GET", "/health", "");
                std::thread::sleep(Duration::from_millis(2));
            }
            let ready = exchange(address, "GET", "/ready", "");
            let late = exchange(address, "POST", "/v1/completions", short);
            slow.write_all(rest.as_bytes()).expect("sent");
            let mut last = String::new();
            slow.read_to_string(&mut last).expect("an answer");
            (asked, [health, ready], [late, last])
        });
        let outcome = serving.attend();
        let told = "cuda: event failed with 700: an illegal address was met";
        assert!(matches!(&outcome, Err(Failure::Failed(why)) if why == told), "{outcome:?}");
        let ([streamed, whole], looked, refused) = clients.join().expect("they were answered");
        assert!(whole.starts_with("HTTP/1.1 500 ") && whole.contains(told), "{whole}");
        assert!(streamed.contains(told) && streamed.contains("data: [DONE]"), "{streamed}");
        for looked in looked {
            assert!(looked.starts_with("HTTP/1.1 503 ") && looked.contains(told), "{looked}");
        }
        for refused in refused {
            assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains(told), "{refused}");
            assert!(refused.contains("\"code\":\"device_failed\""), "{refused}");
        }
    }
}
