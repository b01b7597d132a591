//! One client over several nodes: goes to the next when one fails, and knows what it may repeat.
//!
//! Design page 2 §2: what was surely not done may be sent again, a read too; and a write whose reply
//! was lost, where it is one of a client session: the state machine carries it out once. Any other
//! is returned as in doubt. Called by `rkv-cli` and by programs.

use std::time::{Duration, Instant};

use rand::TryRng;
use rand::rngs::SysRng;

use super::command::encode_command;
use super::connection::{Connection, Wire};
use super::error::{ClientError, Doubt, ErrorReply, LinkError};
use super::request::Request;
use super::session::{Session, gap, has_number, is_forgotten, is_of_node, is_over};
use crate::limits;
use crate::proto::frame::SessionMark;
use crate::proto::reply_decoder::Value;
use crate::types::SessionId;

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
    /// Whether writes are those of a client session, so that one whose reply is lost is repeated
    /// until it is known what became of it. Costs a command when the first write is sent. Of no
    /// meaning with [`Wire::Text`].
    pub sessions: bool,
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
            sessions: true,
        }
    }
}

/// The first and the longest pause between two rounds over all endpoints.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LONGEST: Duration = Duration::from_millis(200);

/// How long the end of a session may take to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);

/// A client of a cluster. Connects when it is first used.
#[derive(Debug)]
pub struct Client {
    pub(super) options: Options,
    pub(super) connection: Option<Connection>,
    /// Opened when the first command is one of it; stays through changes of the connection.
    pub(super) session: Option<Session>,
    /// The server that is connected to knows no sessions.
    lacks_sessions: bool,
    /// The connection is between MULTI and EXEC.
    pub(super) is_in_block: bool,
    /// Behind a WATCH: what comes next depends on the connection that it was sent on.
    pub(super) is_watching: bool,
    /// Under what the next session is opened: an open whose answer is lost is repeated with it.
    token: Option<String>,
    /// How often a command was sent once more.
    retries: u64,
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

/// What is to be done after an attempt.
enum Step {
    /// Nothing more.
    Done(Result<Value, ClientError>),
    /// The same node is asked again: the command was surely not done.
    Again,
    /// Another node is asked, a little later; this is what came of it if there is no time left.
    Elsewhere(ClientError),
}

impl Client {
    /// A client that connects when it is first used.
    pub fn new(options: Options) -> Client {
        Client {
            options,
            connection: None,
            session: None,
            lacks_sessions: false,
            is_in_block: false,
            is_watching: false,
            token: None,
            retries: 0,
            was_connected: false,
            current: 0,
        }
    }

    /// The endpoint that is connected to, or tried next; empty if there is none.
    pub fn endpoint(&self) -> &str {
        self.options.endpoints.get(self.current).map_or("", String::as_str)
    }

    /// All endpoints that are known.
    pub fn endpoints(&self) -> &[String] {
        &self.options.endpoints
    }

    /// How often a command was sent once more: it was surely not done, or is done once however often
    /// it is sent.
    pub fn retries(&self) -> u64 {
        self.retries
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
        self.command_after(args, None)
    }

    /// The same for a command that was perhaps sent before: `doubt` is what it was in its session
    /// then, and why nobody knows what became of it.
    pub(super) fn command_after(
        &mut self,
        args: &[impl AsRef<[u8]>],
        doubt: Option<(SessionMark, Doubt)>,
    ) -> Result<Value, ClientError> {
        self.request(Request::Command(args), doubt)
    }

    /// One request, through as many nodes as it takes.
    pub(super) fn request<A: AsRef<[u8]>>(
        &mut self,
        request: Request<'_, A>,
        mut doubt: Option<(SessionMark, Doubt)>,
    ) -> Result<Value, ClientError> {
        let give_up = Instant::now() + self.options.retry_timeout;
        let mut pause = PAUSE_FIRST;
        let error = loop {
            if let Err(error) = self.connect_until(give_up) {
                break error;
            }
            match self.step(request, &mut doubt) {
                Step::Done(result) => return self.done(request, doubt, result),
                Step::Again if Instant::now() < give_up => {
                    self.retries += 1;
                    continue;
                }
                Step::Again => break ClientError::NotSent,
                Step::Elsewhere(error) => {
                    self.abandon();
                    if Instant::now() + pause >= give_up {
                        break error;
                    }
                }
            }
            // This client blocks by contract: its caller has nothing else to wait for.
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_LONGEST);
            self.retries += 1;
        };
        self.done(request, doubt, Err(error))
    }

    /// One attempt, over the connection that stands.
    fn step<A: AsRef<[u8]>>(
        &mut self,
        request: Request<'_, A>,
        doubt: &mut Option<(SessionMark, Doubt)>,
    ) -> Step {
        let mark = match &doubt {
            Some((mark, _)) => Some(*mark),
            None if self.numbers(request) => match self.next_mark() {
                Ok(mark) => mark,
                Err(error) => return Step::Elsewhere(error),
            },
            None => None,
        };
        let answer = self.attempt(request, mark);
        self.judge(request, mark, doubt, answer)
    }

    /// What the answer to one attempt means, and what is to be done next. `doubt` is set where the
    /// command may have been done, and taken where it surely was or wasn't.
    fn judge<A: AsRef<[u8]>>(
        &mut self,
        request: Request<'_, A>,
        mark: Option<SessionMark>,
        doubt: &mut Option<(SessionMark, Doubt)>,
        answer: Attempt,
    ) -> Step {
        let value = match answer {
            Attempt::Answered(value) => value,
            Attempt::Lost(error) => {
                let endpoint = self.endpoint().to_owned();
                let Some(mark) = mark else {
                    if request.is_repeatable() {
                        return Step::Elsewhere(lost(endpoint, error));
                    }
                    self.abandon();
                    return Step::Done(Err(ClientError::InDoubt(Doubt::Link { endpoint, error })));
                };
                *doubt = Some((mark, Doubt::Link { endpoint, error }));
                return Step::Elsewhere(ClientError::NotSent);
            }
        };
        match (result_of(value), mark) {
            (Err(ClientError::InDoubt(Doubt::Server(text))), Some(mark)) => {
                self.judge_doubt(text, mark, doubt)
            }
            (Err(ClientError::Reply(reply)), Some(mark)) => {
                let is_block = matches!(request, Request::Transaction(_));
                self.judge_refusal(reply, mark, is_block, doubt)
            }
            (Err(ClientError::Reply(reply)), None) if reply.is_passing() => {
                Step::Elsewhere(ClientError::Reply(reply))
            }
            (result, mark) => {
                if let Some(mark) = mark {
                    self.pass(mark, false);
                    *doubt = None;
                }
                Step::Done(result)
            }
        }
    }

    /// The server doesn't know what became of a session's command.
    fn judge_doubt(
        &mut self,
        text: String,
        mark: SessionMark,
        doubt: &mut Option<(SessionMark, Doubt)>,
    ) -> Step {
        if is_over(&text) {
            self.forget(mark);
            // Sent once, it was surely not done.
            return match doubt.take() {
                None => Step::Again,
                Some((_, earlier)) => Step::Done(Err(ClientError::InDoubt(earlier))),
            };
        }
        if is_forgotten(&text) {
            self.pass(mark, false);
            *doubt = None;
            return Step::Done(Err(ClientError::InDoubt(Doubt::Server(text))));
        }
        *doubt = Some((mark, Doubt::Server(text.clone())));
        Step::Elsewhere(ClientError::InDoubt(Doubt::Server(text)))
    }

    /// An error reply to a session's command.
    fn judge_refusal(
        &mut self,
        reply: ErrorReply,
        mark: SessionMark,
        is_block: bool,
        doubt: &mut Option<(SessionMark, Doubt)>,
    ) -> Step {
        if let Some(next) = gap(&reply) {
            match (doubt.take(), &mut self.session) {
                // This copy was the only one: the number is free again.
                (None, Some(session)) if session.id == mark.session => session.go_to(next),
                // An earlier copy may be on its way yet. In a session that nobody goes on with,
                // it stays behind a gap for ever.
                _ => self.forget(mark),
            }
            return Step::Again;
        }
        // What a transaction is refused for before its EXEC is a matter of the node that refuses.
        if is_of_node(&reply) || (is_block && doubt.is_some()) {
            // It says nothing of earlier copies.
            if doubt.is_some() || reply.is_passing() {
                return Step::Elsewhere(ClientError::Reply(reply));
            }
            return Step::Done(Err(ClientError::Reply(reply)));
        }
        // An older node may have refused it without counting it.
        self.pass(mark, true);
        *doubt = None;
        Step::Done(Err(ClientError::Reply(reply)))
    }

    /// What the caller is told. What is in doubt at the end may be done yet: its number can't be
    /// another command's.
    fn done<A: AsRef<[u8]>>(
        &mut self,
        request: Request<'_, A>,
        doubt: Option<(SessionMark, Doubt)>,
        result: Result<Value, ClientError>,
    ) -> Result<Value, ClientError> {
        if let (Ok(_) | Err(ClientError::Reply(_)), Request::Command(args)) = (&result, request) {
            self.note_block(args, result.is_ok());
        }
        match doubt {
            None => result,
            Some((mark, doubt)) => {
                self.forget(mark);
                Err(ClientError::InDoubt(doubt))
            }
        }
    }

    /// Whether the command is to be one of the session: it goes through the log, and what it does
    /// depends on nothing but itself.
    pub(super) fn takes_number(&self, args: &[impl AsRef<[u8]>]) -> bool {
        self.has_sessions() && !self.is_in_block && has_number(args)
    }

    fn has_sessions(&self) -> bool {
        let is_wanted = self.options.sessions && self.options.wire == Wire::Frames;
        is_wanted && !self.lacks_sessions
    }

    /// A transaction is one command of the log where it has a write in it, and else a read.
    fn numbers<A: AsRef<[u8]>>(&self, request: Request<'_, A>) -> bool {
        match request {
            Request::Command(args) => self.takes_number(args),
            Request::Transaction(commands) => {
                self.has_sessions() && commands.iter().any(|args| has_number(args))
            }
        }
    }

    /// The session's next number; opens one where there is none. `None` where the server knows no
    /// sessions: then the command is sent without one, once.
    ///
    /// # Errors
    /// Another node may open one, or this one later. Nothing was done.
    pub(super) fn next_mark(&mut self) -> Result<Option<SessionMark>, ClientError> {
        if self.session.is_none() {
            let token = self.token.get_or_insert_with(new_token).clone();
            let open = ["SESSION", "OPEN", &token];
            let id = match self.attempt(Request::Command(&open), None) {
                Attempt::Answered(Value::Integer(id)) => {
                    u64::try_from(id).ok().filter(|id| *id > 0)
                }
                Attempt::Answered(value) => match result_of(value) {
                    Err(ClientError::Reply(reply)) if reply.is_passing() => {
                        return Err(ClientError::Reply(reply));
                    }
                    // Perhaps one was opened: the token finds it.
                    Err(ClientError::InDoubt(_)) => return Err(ClientError::NotSent),
                    _ => None,
                },
                Attempt::Lost(error) => return Err(lost(self.endpoint().to_owned(), error)),
            };
            self.token = None;
            self.lacks_sessions = id.is_none();
            self.session = id.map(|id| Session::new(SessionId(id)));
        }
        Ok(self.session.as_ref().map(Session::next))
    }

    /// A number was used, or where `is_unsure` perhaps not.
    pub(super) fn pass(&mut self, mark: SessionMark, is_unsure: bool) {
        if let Some(session) = self.session.as_mut().filter(|it| it.id == mark.session) {
            session.pass(mark.number);
            session.is_unsure = is_unsure;
        }
    }

    /// The session is not used any more.
    pub(super) fn forget(&mut self, mark: SessionMark) {
        self.session.take_if(|session| session.id == mark.session);
    }

    /// Between MULTI and EXEC commands are queued by the connection, not carried out.
    pub(super) fn note_block(&mut self, args: &[impl AsRef<[u8]>], is_done: bool) {
        let is = |name: &[u8]| args.first().is_some_and(|w| w.as_ref().eq_ignore_ascii_case(name));
        // An EXEC ends its block whatever it answers.
        if !is_done && !is(b"EXEC") {
            return;
        }
        if is(b"MULTI") {
            self.is_in_block = true;
        } else if is(b"EXEC") || is(b"DISCARD") || is(b"RESET") {
            self.is_in_block = false;
        }
        if is(b"WATCH") {
            self.is_watching = true;
        } else if is(b"EXEC") || is(b"DISCARD") || is(b"RESET") || is(b"UNWATCH") {
            self.is_watching = false;
        }
    }

    /// Connects if not connected, going round the endpoints until `give_up`, once at the least.
    pub(super) fn connect_until(&mut self, give_up: Instant) -> Result<(), ClientError> {
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
                        self.lacks_sessions = false;
                        self.is_in_block = false;
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

    fn attempt<A: AsRef<[u8]>>(
        &mut self,
        request: Request<'_, A>,
        mark: Option<SessionMark>,
    ) -> Attempt {
        let connection = self.connection.as_mut().expect("callers connect first");
        request.queue(mark, connection);
        let deadline = Instant::now() + self.options.reply_timeout;
        match connection.flush(deadline).and_then(|()| request.receive(connection, deadline)) {
            Ok(value) => Attempt::Answered(value),
            Err(error) => Attempt::Lost(error),
        }
    }

    /// Leaves the current endpoint for the next one, and says which one was left.
    pub(super) fn abandon(&mut self) -> String {
        self.connection = None;
        let left = self.endpoint().to_owned();
        self.current = (self.current + 1) % self.options.endpoints.len().max(1);
        left
    }
}

impl Drop for Client {
    /// A session that is not ended takes its place for an hour. Whether this arrives is not waited
    /// for.
    fn drop(&mut self) {
        if let (Some(session), Some(connection)) = (&self.session, &mut self.connection) {
            connection.queue(&["SESSION", "CLOSE", &session.id.0.to_string()]);
            // Where it fails, the hour ends the session.
            let _ = connection.flush(Instant::now() + CLOSE_TIMEOUT);
        }
    }
}

/// A word that no other client says. Where the system has no randomness it is that of the time, which
/// is enough for clients that are not opened in the same nanosecond.
fn new_token() -> String {
    let time = || std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
    format!("{:016x}", SysRng.try_next_u64().unwrap_or_else(|_| time()))
}

fn lost(endpoint: String, error: LinkError) -> ClientError {
    ClientError::Unreachable { attempts: vec![(endpoint, error)] }
}

pub(super) fn result_of(value: Value) -> Result<Value, ClientError> {
    match value {
        Value::Error(text) if text.starts_with("INDOUBT") => {
            Err(ClientError::InDoubt(Doubt::Server(text)))
        }
        Value::Error(text) => Err(ClientError::Reply(ErrorReply { text })),
        value => Ok(value),
    }
}

pub(super) fn encoded_bytes(args: &[impl AsRef<[u8]>]) -> usize {
    // A bulk's header and ends take 25 bytes at the most; the array's header likewise.
    25 + args.iter().map(|arg| arg.as_ref().len() + 25).sum::<usize>()
}

pub(super) fn check_size(args: &[impl AsRef<[u8]>]) -> Result<(), ClientError> {
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
