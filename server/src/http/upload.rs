//! Bodies of requests: each is bounded, and those that are large are bounded together.

use crate::openai::Refusal;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a client may take for a body, with what it waits for room.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// When to come again, where there was no room.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Bytes that a body has without asking for room: as much lies in the buffers of any
/// connection. So nobody with a usual request waits for those with large ones.
const SMALL_BYTES: usize = 64 << 10;
/// So many bodies of the largest size have room together.
const LARGEST_TOGETHER: usize = 4;
/// Read as JSON a large one takes at most so many times the bytes that one may have, by the
/// values that it has: lists grow by doubling.
const READ_TIMES: usize = 16;
const VALUE_BYTES: usize = 2 * size_of::<serde_json::Value>();
/// Where addresses are limited, bodies have one in so many of those that are left: with what
/// is read of them, half.
const PART_OF_ADDRESSES: u64 = 2 * (1 + READ_TIMES as u64);
/// Room is given in units of so many bytes.
const UNIT_BYTES: usize = 1 << 10;
/// Of a body that is too large, so many times the bytes that one may have are read, for
/// so long.
const DISCARDED_TIMES: usize = 4;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Room for bodies.
pub struct Uploads {
    /// Bytes of one.
    most: usize,
    /// Units of those that are large.
    room: Arc<Semaphore>,
    within: Duration,
}

/// A body that has come, with the room that it takes until it is dropped.
pub struct Upload {
    /// What came.
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Upload {
    /// What came otherwise.
    pub fn of(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), _room: None }
    }

    /// Whether reading it takes as long as a step of many answers.
    pub fn is_large(&self) -> bool {
        self.bytes.len() > SMALL_BYTES
    }
}

impl Uploads {
    /// For bodies of at most so many bytes, where so many bytes of addresses are left, if
    /// they are limited.
    pub fn new(most: usize, addresses: Option<u64>) -> Self {
        let part = addresses.map(|left| usize::try_from(left / PART_OF_ADDRESSES));
        let room = part.and_then(Result::ok).unwrap_or(usize::MAX);
        let room = room.min(most.saturating_mul(LARGEST_TOGETHER)).max(SMALL_BYTES);
        let (most, units) = (most.min(room), units(room) as usize);
        let room = Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)));
        Self { most, room, within: BODY_TIMEOUT }
    }

    /// The body, of JSON, if it is not too large, finds room and comes in time. A page that
    /// may not ask cannot send JSON without asking the browser first: that is why the type
    /// must be told.
    pub async fn read<B>(&self, headers: &HeaderMap, body: B) -> Result<Upload, Refusal>
    where
        B: Body<Data = Bytes, Error: Display> + Unpin,
    {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(untyped());
        }
        self.read_any(headers, body).await
    }

    /// A body of JSON, or none at all.
    pub async fn read_maybe<B>(&self, headers: &HeaderMap, body: B) -> Result<Upload, Refusal>
    where
        B: Body<Data = Bytes, Error: Display> + Unpin,
    {
        if headers.contains_key(CONTENT_TYPE) && !body.is_end_stream() {
            return self.read(headers, body).await;
        }
        let upload = self.read_any(headers, body).await?;
        if upload.bytes.is_empty() { Ok(upload) } else { Err(untyped()) }
    }

    async fn read_any<B>(&self, headers: &HeaderMap, mut body: B) -> Result<Upload, Refusal>
    where
        B: Body<Data = Bytes, Error: Display> + Unpin,
    {
        let told = headers.get(CONTENT_LENGTH).and_then(|told| told.to_str().ok()?.parse().ok());
        if told.is_some_and(|told: usize| told > self.most) {
            self.discard(body).await;
            return Err(large(self.most));
        }
        let mut waits = false;
        let come = self.come(told.unwrap_or(self.most), &mut body, &mut waits);
        match tokio::time::timeout(self.within, come).await {
            Ok(come) => come,
            Err(_) if waits => {
                self.discard(body).await;
                let words = "no room came free for so large a body";
                Err(Refusal::busy(words, RETRY_AFTER))
            }
            Err(_) => {
                Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))
            }
        }
    }

    /// Takes what comes, of a body that has so many bytes at most; `waits` says while there
    /// is no room for it.
    async fn come<B>(
        &self,
        expected: usize,
        body: &mut B,
        waits: &mut bool,
    ) -> Result<Upload, Refusal>
    where
        B: Body<Data = Bytes, Error: Display> + Unpin,
    {
        let (mut bytes, mut room, mut values) = (BytesMut::new(), None, 0);
        let values_max = (self.most.saturating_mul(READ_TIMES) / VALUE_BYTES).max(SMALL_BYTES);
        while let Some(frame) = body.frame().await {
            let broken = |error| Refusal::malformed(format!("the body broke off: {error}"));
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            let length = bytes.len() + data.len();
            if length > self.most {
                return Err(large(self.most));
            }
            values += data.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
            if values > values_max {
                return Err(manifold(values_max));
            }
            if length > SMALL_BYTES && room.is_none() {
                // All of it at once: parts that wait for each other would never end.
                *waits = true;
                let all = self.room.clone().acquire_many_owned(units(expected)).await;
                room = Some(all.expect("nobody closes it"));
                *waits = false;
                bytes.reserve(expected.saturating_sub(bytes.len()).min(self.most));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Upload { bytes: bytes.freeze(), _room: room })
    }

    /// Reads on for a while: a client that is still sending would not see the answer.
    pub async fn discard<B: Body<Data = Bytes> + Unpin>(&self, body: B) {
        discard(body, self.most).await;
    }
}

/// [`Uploads::discard`], where there is no room for bodies yet.
pub async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B, most: usize) {
    let reading = async {
        let mut left = most.saturating_mul(DISCARDED_TIMES);
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // Whether it ended or not, the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, reading).await;
}

/// Room for so many bytes.
fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

fn untyped() -> Refusal {
    let words = "the body must be JSON: send `Content-Type: application/json`";
    Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, words)
}

fn large(most: usize) -> Refusal {
    let words = format!(
        "the body may have {most} bytes: as many as --max-body-bytes says, and memory has room for"
    );
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words)
}

fn manifold(most: usize) -> Refusal {
    let words = format!("the body may have {most} values of JSON, as memory has room for");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words)
}

#[cfg(test)]
mod tests {
    use super::{LARGEST_TOGETHER, PART_OF_ADDRESSES, SMALL_BYTES, Upload, Uploads};
    use crate::openai::Refusal;
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
    use std::time::Duration;

    const MOST: usize = 4 * SMALL_BYTES;

    /// Reads a body of so many bytes whose length was not told.
    fn read(uploads: &Uploads, length: usize) -> Result<Upload, Refusal> {
        read_of(uploads, vec![b' '; length])
    }

    fn read_of(uploads: &Uploads, body: Vec<u8>) -> Result<Upload, Refusal> {
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = Full::new(Bytes::from(body));
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
        clock.expect("a runtime").block_on(uploads.read(&HeaderMap::from_iter([json]), body))
    }

    #[test]
    fn large_bodies_that_find_no_room_in_time_are_told_to_come_again() {
        let uploads = Uploads { within: Duration::from_millis(50), ..Uploads::new(MOST, None) };
        let large = || read(&uploads, SMALL_BYTES + 1);
        let mut held: Vec<Upload> =
            (0..LARGEST_TOGETHER).map(|_| large().expect("there is room")).collect();
        let refused = large().err().expect("no room is left");
        assert_eq!(refused.status, 429);
        assert!(refused.retry_after.is_some());
        let small = read(&uploads, SMALL_BYTES).expect("it needs no room");
        assert_eq!(small.bytes.len(), SMALL_BYTES);
        held.pop();
        large().expect("one has made room");
    }

    #[test]
    fn a_body_has_at_most_the_bytes_that_one_may_have() {
        let uploads = Uploads::new(MOST, None);
        assert_eq!(read(&uploads, MOST).expect("as many").bytes.len(), MOST);
        assert_eq!(read(&uploads, MOST + 1).err().expect("one more").status, 413);
    }

    #[test]
    fn a_body_has_at_most_the_values_that_there_is_memory_for() {
        let uploads = Uploads::new(64 * SMALL_BYTES, None);
        let list = |length| read_of(&uploads, b"0,".repeat(length / 2));
        assert!(list(2 * SMALL_BYTES).is_ok());
        let refused = list(64 * SMALL_BYTES).err().expect("too many");
        assert_eq!(refused.status, 413);
        assert!(refused.message.contains("values of JSON"), "{refused:?}");
        assert!(read(&uploads, 64 * SMALL_BYTES).is_ok());
    }

    #[test]
    fn where_addresses_are_few_bodies_have_a_part_of_them() {
        let room = 2 * SMALL_BYTES;
        let uploads = Uploads::new(MOST, Some(PART_OF_ADDRESSES * room as u64));
        assert_eq!(read(&uploads, room).expect("as many").bytes.len(), room);
        let refused = read(&uploads, room + 1).err().expect("one more");
        assert!(refused.message.contains(&room.to_string()), "{refused:?}");
        // Small ones always come.
        assert!(read(&Uploads::new(MOST, Some(0)), SMALL_BYTES).is_ok());
    }
}
