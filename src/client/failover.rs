//! One client over several nodes: goes to the next when one fails, and knows what it may repeat.
//!
//! Design page 2 §2: what was surely not done may be sent again, a read too; a write whose reply
//! was lost may not, and is returned as in doubt. Called by `rkv-cli` and by programs.

use std::time::{Duration, Instant};

use super::command::{encode_command, is_repeatable};
use super::connection::{Connection, Wire};
use super::error::{ClientError, Doubt, ErrorReply, LinkError};
use crate::limits;
use crate::proto::reply_decoder::Value;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of the nodes, in the order in which they are tried.
    pub endpoints: Vec<String>,
    /// What to speak.
    pub wire: Wire,
    /// How long connecting and greeting may take, for each endpoint.
    pub connect_timeout: Duration,
    /// How long to wait for one reply. Longer than the server's own time-out, so that its verdict
    /// comes first.
    pub reply_timeout: Duration,
    /// How long to go on trying what was surely not done. Until a first node was reached, one
    /// round over all endpoints is enough: more likely they are wrong than all down.
    pub retry_timeout: Duration,
}

impl Options {
    /// The defaults, for these endpoints.
    pub fn new(endpoints: Vec<String>) -> Options {
        Options {
            endpoints,
            wire: Wire::Frames,
            connect_timeout: Duration::from_secs(1),
            reply_timeout: Duration::from_secs(7),
            retry_timeout: Duration::from_secs(10),
        }
    }
}

/// The first and the longest pause between two rounds over all endpoints.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LONGEST: Duration = Duration::from_millis(200);

/// A client of a cluster. Connects when it is first used.
#[derive(Debug)]
pub struct Client {
    options: Options,
    connection: Option<Connection>,
    /// Whether any node was ever reached.
    was_connected: bool,
    /// Which endpoint the connection leads to, or is tried next.
    current: usize,
}

/// What came of sending one command once.
enum Attempt {
    Answered(Value),
    Lost(LinkError),
}

impl Client {
    /// A client that connects when it is first used.
    pub fn new(options: Options) -> Client {
        Client { options, connection: None, was_connected: false, current: 0 }
    }

    /// The endpoint that is connected to, or tried next; empty if there is none.
    pub fn endpoint(&self) -> &str {
        self.options.endpoints.get(self.current).map_or("", String::as_str)
    }

    /// All endpoints that are known.
    pub fn endpoints(&self) -> &[String] {
        &self.options.endpoints
    }

    /// Connects if not connected.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`] after one round over all endpoints.
    pub fn connect(&mut self) -> Result<(), ClientError> {
        self.connect_until(Instant::now())
    }

    /// Asks the node for the other members (`RAFT NODES`) and adds their addresses to the
    /// endpoints, so that one given endpoint is enough to survive its end. Returns how many are
    /// new.
    pub fn discover(&mut self) -> Result<usize, ClientError> {
        let nodes = match self.command(&["RAFT", "NODES"])? {
            Value::Bulk(text) | Value::Text(text) => String::from_utf8_lossy(&text).into_owned(),
            _ => return Ok(0),
        };
        let known = self.options.endpoints.len();
        for field in nodes.split_whitespace() {
            let Some(endpoint) = field.strip_prefix("client=").filter(|it| it.contains(':')) else {
                continue;
            };
            let is_new = !self.options.endpoints.iter().any(|known| known == endpoint);
            if is_new && self.options.endpoints.len() < limits::MEMBERS {
                self.options.endpoints.push(endpoint.to_owned());
            }
        }
        Ok(self.options.endpoints.len() - known)
    }

    /// Sends one command and returns its reply, through as many nodes as it takes.
    ///
    /// # Errors
    ///
    /// Error replies come back as [`ClientError::Reply`], except `-INDOUBT`. For what each error
    /// says of the command see [`ClientError`].
    pub fn command(&mut self, args: &[impl AsRef<[u8]>]) -> Result<Value, ClientError> {
        check_size(args)?;
        let give_up = Instant::now() + self.options.retry_timeout;
        let mut pause = PAUSE_FIRST;
        loop {
            self.connect_until(give_up)?;
            let refused = match self.attempt(args) {
                Attempt::Answered(value) => match result_of(value) {
                    Err(ClientError::Reply(reply)) if reply.is_passing() => reply,
                    result => return result,
                },
                Attempt::Lost(error) => {
                    let endpoint = self.abandon();
                    if !is_repeatable(args) {
                        return Err(ClientError::InDoubt(Doubt::Link { endpoint, error }));
                    }
                    if Instant::now() >= give_up {
                        let attempts = vec![(endpoint, error)];
                        return Err(ClientError::Unreachable { attempts });
                    }
                    continue;
                }
            };
            if Instant::now() + pause >= give_up {
                return Err(ClientError::Reply(refused));
            }
            self.abandon();
            // This client blocks by contract: its caller has nothing else to wait for.
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    /// Sends many commands without waiting for each reply; returns one result a command, in
    /// order. Passing refusals are not tried again, since that would change the order. Where the
    /// connection breaks, reads without a reply are done again one by one, writes are in doubt,
    /// and nothing more is sent.
    pub fn pipeline(
        &mut self,
        commands: &[Vec<impl AsRef<[u8]>>],
    ) -> Vec<Result<Value, ClientError>> {
        let mut results = Vec::with_capacity(commands.len());
        let mut broken = false;
        while results.len() < commands.len() {
            let rest = &commands[results.len()..];
            if broken {
                results.push(Err(ClientError::NotSent));
            } else if let Err(error) = check_size(&rest[0]) {
                results.push(Err(error));
            } else {
                broken = self.pipeline_window(rest, &mut results);
            }
        }
        results
    }

    /// Sends as many of `commands` as may go ahead of their replies, and adds their results.
    /// Returns whether something was lost.
    fn pipeline_window(
        &mut self,
        commands: &[Vec<impl AsRef<[u8]>>],
        results: &mut Vec<Result<Value, ClientError>>,
    ) -> bool {
        if let Err(error) = self.connect_until(Instant::now() + self.options.retry_timeout) {
            results.push(Err(error));
            return true;
        }
        let connection = self.connection.as_mut().expect("connected just now");
        let mut count = 0;
        for args in commands {
            if count > 0
                && connection.queued_bytes() + encoded_bytes(args) > limits::CLIENT_PIPELINE_BYTES
            {
                break;
            }
            // One that is too large ends the window here; it is the next one's first.
            if check_size(args).is_err() {
                break;
            }
            connection.queue(args);
            count += 1;
        }
        let mut deadline = Instant::now() + self.options.reply_timeout;
        let mut lost = connection.flush(deadline).err();
        let mut answered = 0;
        while lost.is_none() && answered < count {
            match connection.receive(deadline) {
                Ok(value) => {
                    results.push(result_of(value));
                    answered += 1;
                    deadline = Instant::now() + self.options.reply_timeout;
                }
                Err(error) => lost = Some(error),
            }
        }
        let Some(error) = lost else { return false };
        let endpoint = self.abandon();
        let mut error = Some(error);
        for args in &commands[answered..count] {
            results.push(if is_repeatable(args) {
                self.command(args)
            } else {
                let error = error.take().unwrap_or(LinkError::Closed);
                Err(ClientError::InDoubt(Doubt::Link { endpoint: endpoint.clone(), error }))
            });
        }
        true
    }

    /// Connects if not connected, going round the endpoints until `give_up`, once at the least.
    fn connect_until(&mut self, give_up: Instant) -> Result<(), ClientError> {
        if self.connection.as_ref().is_some_and(|connection| !connection.is_stale()) {
            return Ok(());
        }
        self.connection = None;
        let count = self.options.endpoints.len();
        if count == 0 {
            return Err(ClientError::NoEndpoint);
        }
        let mut pause = PAUSE_FIRST;
        loop {
            let mut attempts = Vec::new();
            for _ in 0..count {
                let Options { wire, connect_timeout, .. } = self.options;
                match Connection::open(self.endpoint(), wire, connect_timeout) {
                    Ok(connection) => {
                        self.connection = Some(connection);
                        self.was_connected = true;
                        return Ok(());
                    }
                    Err(error) => attempts.push((self.abandon(), error)),
                }
            }
            if !self.was_connected || Instant::now() + pause >= give_up {
                return Err(ClientError::Unreachable { attempts });
            }
            // Likewise blocking: asking all servers again at once would only burden them.
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    fn attempt(&mut self, args: &[impl AsRef<[u8]>]) -> Attempt {
        let connection = self.connection.as_mut().expect("callers connect first");
        match connection.call(args, self.options.reply_timeout) {
            Ok(value) => Attempt::Answered(value),
            Err(error) => Attempt::Lost(error),
        }
    }

    /// Leaves the current endpoint for the next one, and says which one was left.
    fn abandon(&mut self) -> String {
        self.connection = None;
        let left = self.endpoint().to_owned();
        self.current = (self.current + 1) % self.options.endpoints.len().max(1);
        left
    }
}

fn result_of(value: Value) -> Result<Value, ClientError> {
    match value {
        Value::Error(text) if text.starts_with("INDOUBT") => {
            Err(ClientError::InDoubt(Doubt::Server(text)))
        }
        Value::Error(text) => Err(ClientError::Reply(ErrorReply { text })),
        value => Ok(value),
    }
}

fn encoded_bytes(args: &[impl AsRef<[u8]>]) -> usize {
    // A bulk's header and ends take 25 bytes at the most; the array's header likewise.
    25 + args.iter().map(|arg| arg.as_ref().len() + 25).sum::<usize>()
}

fn check_size(args: &[impl AsRef<[u8]>]) -> Result<(), ClientError> {
    if args.is_empty() {
        return Err(ClientError::NoCommand);
    }
    if encoded_bytes(args) <= limits::COMMAND_BYTES {
        return Ok(());
    }
    let mut encoded = Vec::new();
    encode_command(args, &mut encoded);
    let bytes = encoded.len();
    if bytes <= limits::COMMAND_BYTES { Ok(()) } else { Err(ClientError::TooLarge { bytes }) }
}
