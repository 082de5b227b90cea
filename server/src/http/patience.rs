//! A connection whose other end must take what it is sent: one that takes nothing for too
//! long is closed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A connection, and how long its writes may wait.
pub struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits.
    alarm: Pin<Box<Sleep>>,
    waits: bool,
}

impl<S> Patient<S> {
    /// Around a connection.
    pub fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, alarm: Box::pin(sleep(patience)), waits: false }
    }

    fn timed<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waits = false;
            return outcome;
        }
        if !self.waits {
            self.waits = true;
            self.alarm.as_mut().reset(Instant::now() + self.patience);
        }
        match self.alarm.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.timed(outcome, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.timed(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.timed(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.timed(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::Patient;
    use std::io::ErrorKind;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    const PATIENCE: Duration = Duration::from_secs(60);
    /// Bytes on their way that the other end has not taken.
    const BUFFER: usize = 4;

    fn connection() -> (Patient<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(BUFFER);
        (Patient::new(near, PATIENCE), far)
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up_when_patience_is_out() {
        let (mut near, _far) = connection();
        near.write_all(&[1; BUFFER]).await.expect("it fits the buffer");
        // While nothing waits to be sent no time counts.
        sleep(10 * PATIENCE).await;
        let begun = Instant::now();
        let error = near.write_all(&[1]).await.expect_err("nobody takes it");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_now_and_then_is_waited_for() {
        let (mut near, mut far) = connection();
        let reads = tokio::spawn(async move {
            let mut taken = Vec::new();
            while taken.len() < 3 * BUFFER {
                sleep(PATIENCE - Duration::from_secs(1)).await;
                taken.push(far.read_u8().await.expect("a byte"));
            }
            taken
        });
        let begun = Instant::now();
        near.write_all(&[7; 3 * BUFFER]).await.expect("all is taken in the end");
        assert!(begun.elapsed() > 5 * PATIENCE);
        assert_eq!(reads.await.expect("it ends"), [7; 3 * BUFFER]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_may_do_so() {
        let (mut near, mut far) = connection();
        let says = tokio::spawn(async move {
            sleep(10 * PATIENCE).await;
            far.write_u8(9).await.expect("it is heard");
        });
        assert_eq!(near.read_u8().await.expect("a byte"), 9);
        says.await.expect("it ends");
    }
}
