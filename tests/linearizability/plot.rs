//! Histories for tests: operations with their intervals, from text or generated.
//!
//! Called by the other modules here. Judges nothing.

use raftkv::sim::linearizability::{Answer, ClientId, Command, History};

/// How an operation ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Fate {
    Answered(u64, Answer),
    NotDone(u64),
    Unknown,
}

/// One operation. Invocations and answers at one time are concurrent.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: u32,
    pub from: u64,
    pub command: Command,
    pub fate: Fate,
}

/// Plays the operations, whose order is that of their numbers, into a history.
pub fn history(operations: &[Operation]) -> History {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        events.push((operation.from, false, number));
        if let Fate::Answered(to, _) | Fate::NotDone(to) = operation.fate {
            assert!(to >= operation.from);
            events.push((to, true, number));
        }
    }
    events.sort();
    let mut history = History::new();
    let mut ids = vec![None; operations.len()];
    for (at, is_end, number) in events {
        let operation = &operations[number];
        if !is_end {
            let client = ClientId(operation.client);
            ids[number] = Some(history.invoke(client, at, operation.command.clone()));
            continue;
        }
        let id = ids[number].expect("it was invoked");
        match &operation.fate {
            Fate::Answered(_, answer) => history.answer(id, at, answer.clone()),
            _ => history.not_done(id, at),
        }
    }
    history
}

/// Reads a plot. A line is `client from to command -> answer`, `to` being `?` for an unknown
/// outcome; an answer is `OK`, `nil`, `:1`, `=value`, `[value,nil]`, `error` or `refused`, and of a
/// transaction `then` or `else` with such answers, joined by `;`.
pub fn plot(text: &str) -> Vec<Operation> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(operation).collect()
}

fn operation(line: &str) -> Operation {
    let (head, answer) = line.split_once(" -> ").unwrap_or((line, ""));
    let words: Vec<&str> = head.split_whitespace().collect();
    let command: Vec<&[u8]> = words[3..].iter().map(|word| word.as_bytes()).collect();
    let fate = match words[2] {
        "?" => Fate::Unknown,
        to if answer == "refused" => Fate::NotDone(to.parse().unwrap()),
        to => Fate::Answered(to.parse().unwrap(), parse_answer(answer)),
    };
    Operation {
        client: words[0].parse().unwrap(),
        from: words[1].parse().unwrap(),
        command: Command::from_words(&command).expect(line),
        fate,
    }
}

fn parse_answer(text: &str) -> Answer {
    let value = |text: &str| (text != "nil").then(|| text.as_bytes().to_vec());
    if let Some((held @ ("then" | "else"), replies)) = text.split_once(' ') {
        let replies = replies.split(';').map(parse_answer).collect();
        return Answer::Replies { held: held == "then", replies };
    }
    match text.split_at_checked(1) {
        _ if text == "OK" => Answer::Ok,
        _ if text == "nil" => Answer::Nil,
        _ if text == "error" => Answer::Error("ERR no".into()),
        Some((":", number)) => Answer::Integer(number.parse().unwrap()),
        Some(("=", word)) => Answer::Value(word.as_bytes().to_vec()),
        Some(("[", list)) => {
            Answer::Values(list.trim_end_matches(']').split(',').map(value).collect())
        }
        _ => panic!("no answer: {text}"),
    }
}
