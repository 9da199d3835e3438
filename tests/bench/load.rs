//! The load: clients that each send a request once the one before is answered.
//!
//! As little as possible happens here, so that Envoy is what is slow: requests are bytes that were
//! made before, of an answer only its status and length are read.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use latchkey_tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::proc;

/// Requests, ready to be sent; sent in turn.
pub(crate) type Requests = Rc<Vec<Vec<u8>>>;

/// What to send for how long.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Port on 127.0.0.1.
    pub(crate) port: u16,
    /// Requests, sent in turn.
    pub(crate) requests: Requests,
    /// Status that every answer must have.
    pub(crate) status: u16,
    /// How long what happens is not looked at.
    pub(crate) warm_up: Duration,
    /// How long it is.
    pub(crate) duration: Duration,
}

/// What came of a load.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Answers.
    pub(crate) requests: u64,
    /// How long they took altogether.
    pub(crate) seconds: f64,
    /// CPU time of each process that was watched, in nanoseconds.
    pub(crate) cpu_ns: Vec<u64>,
    /// Time to each answer in nanoseconds, sorted.
    latencies_ns: Vec<u32>,
}

impl Sample {
    /// Returns the CPU time of the watched process at an index, in microseconds per request.
    pub(crate) fn cpu_us(&self, index: usize) -> Option<f64> {
        Some(*self.cpu_ns.get(index)? as f64 / 1e3 / self.requests as f64)
    }

    /// Returns the answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// Returns the time within which so many of 1,000 answers came, in microseconds.
    pub(crate) fn latency_us(&self, per_mille: usize) -> f64 {
        let last = self.latencies_ns.len().saturating_sub(1);
        let index = (self.latencies_ns.len() * per_mille / 1000).min(last);
        f64::from(self.latencies_ns.get(index).copied().unwrap_or_default()) / 1e3
    }
}

/// What all clients share.
struct Shared {
    load: Load,
    next: Cell<usize>,
    is_measuring: Cell<bool>,
    is_over: Cell<bool>,
    latencies_ns: RefCell<Vec<u32>>,
}

impl Load {
    /// Applies the load, and watches how much CPU time some processes use meanwhile.
    ///
    /// # Errors
    ///
    /// If a connection breaks, or an answer has another status than expected; with the answer.
    pub(crate) async fn run(self, watched: &[u32]) -> anyhow::Result<Sample> {
        let (warm_up, duration) = (self.warm_up, self.duration);
        let shared = Rc::new(Shared {
            load: self,
            next: Cell::default(),
            is_measuring: Cell::default(),
            is_over: Cell::default(),
            latencies_ns: RefCell::default(),
        });
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            clients.spawn_local(keep_asking(Rc::clone(&shared)));
        }
        let measure = async {
            wait::pause(warm_up).await;
            let (before, start) = (cpu_ns(watched)?, Instant::now());
            shared.is_measuring.set(true);
            wait::pause(duration).await;
            shared.is_measuring.set(false);
            let (seconds, after) = (start.elapsed().as_secs_f64(), cpu_ns(watched)?);
            shared.is_over.set(true);
            let used = before.iter().zip(after).map(|(before, after)| after - before).collect();
            anyhow::Ok((seconds, used))
        };
        // A client ends early only if it fails.
        let (seconds, cpu_ns) = tokio::select! {
            measured = measure => measured?,
            Some(failed) = clients.join_next() => {
                failed??;
                bail!("a client ended by itself");
            }
        };
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        let mut latencies_ns = shared.latencies_ns.take();
        latencies_ns.sort_unstable();
        let requests = u64::try_from(latencies_ns.len())?;
        if requests == 0 {
            bail!("no answer at all");
        }
        Ok(Sample { requests, seconds, cpu_ns, latencies_ns })
    }
}

fn cpu_ns(watched: &[u32]) -> anyhow::Result<Vec<u64>> {
    watched.iter().map(|&process| proc::cpu_ns(process)).collect()
}

async fn keep_asking(shared: Rc<Shared>) -> anyhow::Result<()> {
    let Load { port, requests, status, .. } = &shared.load;
    let mut client = Client::connect(*port).await?;
    while !shared.is_over.get() {
        let index = shared.next.replace(shared.next.get() + 1) % requests.len();
        let request = requests.get(index).context("no requests")?;
        let sent = Instant::now();
        let answer = client.exchange(request).await?;
        if answer.status != *status {
            let text = client.last_answer(&answer);
            bail!("expected {status}, found {}: {text}", answer.status);
        }
        if shared.is_measuring.get() {
            let latency = u32::try_from(sent.elapsed().as_nanos()).unwrap_or(u32::MAX);
            shared.latencies_ns.borrow_mut().push(latency);
        }
    }
    Ok(())
}

/// A connection that is kept.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer in the client's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// Length of its head.
    head_bytes: usize,
    /// Length of all of it.
    bytes: usize,
}

impl Client {
    /// Connects to a port on 127.0.0.1.
    ///
    /// # Errors
    ///
    /// If nothing listens.
    pub(crate) async fn connect(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or what comes is no answer with a length.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.stream.write_all(request).await?;
        let mut bytes = 0;
        loop {
            let room = self.buffer.get_mut(bytes..).unwrap_or_default();
            let read = self.stream.read(room).await?;
            if read == 0 {
                let text = String::from_utf8_lossy(self.buffer.get(..bytes).unwrap_or_default());
                bail!("the connection was closed, or the answer is too long, after: {text}");
            }
            bytes += read;
            if let Some(answer) = read_answer(self.buffer.get(..bytes).unwrap_or_default())? {
                return Ok(answer);
            }
        }
    }

    /// Returns the text of an answer that was just read.
    pub(crate) fn last_answer(&self, answer: &Answer) -> String {
        let bytes = self.buffer.get(..answer.bytes).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Returns the body of an answer that was just read.
    pub(crate) fn last_body(&self, answer: &Answer) -> &[u8] {
        self.buffer.get(answer.head_bytes..answer.bytes).unwrap_or_default()
    }
}

/// Returns the answer that some bytes are, once they are all of it.
fn read_answer(bytes: &[u8]) -> anyhow::Result<Option<Answer>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?;
    let status = head.get(9..12).context("no status")?.parse()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    let length: usize = if status == 204 { 0 } else { length.context("no length")?.parse()? };
    let (head_bytes, whole) = (end + 4, end + 4 + length);
    Ok((bytes.len() >= whole).then_some(Answer { status, head_bytes, bytes: whole }))
}

/// Clients at the same time: enough that Envoy never waits for the next request.
const CONNECTIONS: usize = 16;

/// Room for one answer; the longest are those to lease calls.
const BUFFER_BYTES: usize = 64 * 1024;
