//! `pagewise serve`.

use super::Failure;
use super::load::{Loaded, load};
use crate::config::{self, LogFormat};
use crate::http::{self, Server};
use crate::metrics::Metrics;
use crate::runtime::{self, Pace};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Threads for connections; the kernels have their own.
const THREADS: usize = 2;
/// How long readers of requests have to end, when all else has.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Serves until it is told to stop.
pub fn run(
    settings: &config::Serve,
    machine: &config::Machine,
    out: &mut impl Write,
) -> Result<(), Failure> {
    log(settings);
    // Before the model is loaded: a port that is taken is known at once.
    let listener = listen(SocketAddr::new(settings.host, settings.port))?;
    let address = listener.local_addr()?;
    let name = settings.served_model_name.as_deref();
    let Loaded { engine, busy, mut served, told } =
        load(&settings.model, name, &settings.running, machine)?;
    served.trust_request_chat_template = settings.limits.trust_request_chat_template;
    tell(out, settings, &told)?;
    let shape = engine.settings();
    let metrics = Arc::new(Metrics::new(&served.name, shape.page_len, shape.pages));
    let limits = settings.limits.clone();
    let pace = Pace {
        gather: Duration::from_millis(settings.batch_timeout),
        timeout: match limits.request_timeout_seconds {
            0 => None,
            seconds => Some(Duration::from_secs(seconds)),
        },
        open_max: settings.running.max_batch_size as usize + limits.max_queue as usize,
    };
    let (runtime, thread) =
        runtime::start(engine, busy, pace, metrics.clone()).map_err(Failure::Thread)?;
    invite(out, address, &served.name)?;
    let server = Server::new(Arc::new(served), runtime, metrics, limits);
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(Failure::Thread)?;
    let outcome = threads.block_on(serve(listener, server));
    threads.shutdown_timeout(END_WITHIN);
    // Nobody reaches the engine any more: its thread ends.
    let _ = thread.join();
    outcome
}

async fn serve(listener: TcpListener, server: Arc<Server>) -> Result<(), Failure> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = watch::channel(false);
    let serving = http::serve(listener, server, stopped);
    tokio::pin!(serving);
    let told = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        () = serving.as_mut() => return Ok(()),
        () = told => {}
    }
    let _ = stop.send(true);
    tokio::select! {
        () = serving => {}
        // Whoever interrupts twice does not want to wait.
        _ = interrupt.recv() => tracing::warn!("interrupted again: requests are given up"),
    }
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let (host, port) = (address.ip(), address.port());
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

/// The settings, as they are.
fn tell(
    out: &mut impl Write,
    settings: &config::Serve,
    told: &[(&'static str, String)],
) -> io::Result<()> {
    writeln!(out, "pagewise  {}", env!("CARGO_PKG_VERSION"))?;
    for (name, words) in told {
        writeln!(out, "{name:<9} {words}")?;
    }
    let limits = &settings.limits;
    let timeout = match limits.request_timeout_seconds {
        0 => "no timeout".to_owned(),
        seconds => format!("{seconds} s for a request"),
    };
    let keys = match limits.api_key.len() {
        0 => "no key is asked for".to_owned(),
        count => format!("{count} keys"),
    };
    writeln!(
        out,
        "limits    {} may wait, {} streams, {timeout}, bodies of {}, {keys}",
        limits.max_queue,
        limits.max_concurrent_streams,
        super::sized(limits.max_body_bytes as u64)
    )
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
