//! Bytes on a connection, as no well-behaved client sends them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A connection.
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// To a server.
    pub fn open(address: SocketAddr) -> Self {
        Self::open_maybe(address).expect("a connection")
    }

    /// To a server that may be gone.
    pub fn open_maybe(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("a socket");
        Some(Self { stream })
    }

    /// Sends bytes; the server may have had enough of them.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a whole request with a body of JSON, which it need not be.
    pub fn post(&mut self, path: &str, body: &[u8]) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat());
    }

    /// The next bytes that come, up to so many; none where the connection has ended.
    pub fn some(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let count = self.stream.read(&mut bytes).unwrap_or(0);
        bytes.truncate(count);
        bytes
    }

    /// All that comes until a chunked body, or the connection, has ended.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n0\r\n\r\n") {
            let more = self.some(1 << 16);
            if more.is_empty() {
                break;
            }
            bytes.extend(more);
        }
        bytes
    }

    /// The status of the response that comes; `None` where none does.
    pub fn status(&mut self) -> Option<u16> {
        let text = String::from_utf8_lossy(&self.some(4096)).into_owned();
        text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }
}
