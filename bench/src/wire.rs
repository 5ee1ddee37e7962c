//! Connections of peers that speak a protocol of bytes: requests are ready bytes, answers are taken from a
//! buffer as they come. Nothing is between the bytes and the socket, since the client shares the server's cores.

use std::net::SocketAddr;

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::drive::{Answered, Connection};
use crate::plan::Request;

/// Room for an answer; that to 1,000 events has about 40 KiB.
const INPUT_BYTES: usize = 64 * 1024;

/// How far an answer was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes that are done with.
    pub(crate) used: usize,
    /// Whether the request is answered.
    pub(crate) done: bool,
}

/// How a peer answers.
pub(crate) trait Protocol {
    /// Takes what is there of the answer to a request with these planned verdicts. Bytes put into `back` are
    /// sent to the peer.
    ///
    /// # Errors
    /// When the peer answers with an error, or with what is not its protocol.
    fn take(
        &mut self,
        input: &[u8],
        new: &[bool],
        answered: &mut Answered,
        back: &mut Vec<u8>,
    ) -> anyhow::Result<Progress>;
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire<P> {
    stream: TcpStream,
    input: Vec<u8>,
    protocol: P,
}

impl<P: Protocol> Wire<P> {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr, protocol: P) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::with_capacity(INPUT_BYTES), protocol })
    }

    /// Takes from the input until an answer is whole.
    async fn answer(&mut self, new: &[bool]) -> anyhow::Result<Answered> {
        let (mut answered, mut back) = (Answered::default(), Vec::new());
        loop {
            let progress = self.protocol.take(&self.input, new, &mut answered, &mut back)?;
            self.input.drain(..progress.used);
            if !back.is_empty() {
                self.stream.write_all(&back).await?;
                back.clear();
            }
            if progress.done {
                return Ok(answered);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        self.input.reserve(INPUT_BYTES / 2);
        ensure!(self.stream.read_buf(&mut self.input).await? > 0, "the peer closed the connection");
        Ok(())
    }
}

impl<P: Protocol> Connection for Wire<P> {
    type Content = Vec<u8>;

    async fn exchange(&mut self, request: &Request<Vec<u8>>) -> anyhow::Result<Answered> {
        self.stream.write_all(&request.content).await?;
        self.answer(&request.new).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each event with one letter, `n` for a new one.
    struct Letters(usize);

    impl Protocol for Letters {
        fn take(
            &mut self,
            input: &[u8],
            new: &[bool],
            answered: &mut Answered,
            back: &mut Vec<u8>,
        ) -> anyhow::Result<Progress> {
            for letter in input {
                answered.count(*letter == b'n', new[self.0]);
                back.push(*letter);
                self.0 += 1;
            }
            Ok(Progress { used: input.len(), done: self.0 == new.len() })
        }
    }

    #[tokio::test]
    async fn an_answer_in_pieces_is_one_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut wire = Wire::open(listener.local_addr().unwrap(), Letters(0)).await.unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 3];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(b"n").await.unwrap();
            let mut back = [0; 1];
            stream.read_exact(&mut back).await.unwrap();
            stream.write_all(b"od").await.unwrap();
            (request, back)
        };
        let request = Request { content: b"abc".to_vec(), new: vec![true, false, true] };
        let ((sent, back), answered) = tokio::join!(server, wire.exchange(&request));
        let answered = answered.unwrap();
        assert_eq!((&sent, &back), (b"abc", b"n"));
        assert_eq!((answered.accepted, answered.duplicates, answered.wrong), (1, 2, 1));
    }

    #[tokio::test]
    async fn a_peer_that_hangs_up_ends_the_run() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut wire = Wire::open(listener.local_addr().unwrap(), Letters(0)).await.unwrap();
        drop(listener.accept().await.unwrap());
        let request = Request { content: b"abc".to_vec(), new: vec![true] };
        assert!(wire.exchange(&request).await.is_err());
    }
}
