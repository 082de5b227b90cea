//! Work on a thread of its own, which stands back where others want the cores.

use crate::openai::Refusal;
use tokio::sync::oneshot;

/// How far it does.
const BACK: i32 = 10;

/// Has a thread do something. Where whoever asked goes away, it is done all the same, and
/// what came of it is dropped there.
pub async fn aside<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let (to, done) = oneshot::channel();
    let work = move || {
        grammar::stand_back(BACK);
        // Whoever asked may have gone.
        let _ = to.send(work());
    };
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| Refusal::internal(format!("{name}: {error}")))?;
    let broken = |_| Refusal::internal(format!("{name}: the work broke: a fault of the server"));
    done.await.map_err(broken)
}
