//! What a node says of its cluster and of itself, as tables for people and as objects for programs.
//!
//! RAFT NODES has a line a member with `name=value` fields; RAFT INFO and INFO have a `name:value`
//! line each. Called by `render`. Text that has another form is given back as none, and shown as it
//! came.

use serde_json::{Map, Value as Json, json};

use super::paint::{Colour, Paint};

/// Texts that are made of fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A line a member.
    Nodes,
    /// A line a field, perhaps in sections.
    Fields,
}

/// The form of what the command `args` answers, if it has one.
pub fn form(args: &[Vec<u8>]) -> Option<Form> {
    let is = |place: usize, expected: &str| {
        args.get(place).is_some_and(|arg| arg.eq_ignore_ascii_case(expected.as_bytes()))
    };
    if is(0, "RAFT") && is(1, "NODES") {
        return Some(Form::Nodes);
    }
    (is(0, "INFO") || is(0, "RAFT") && is(1, "INFO")).then_some(Form::Fields)
}

/// For people.
pub fn table(form: Form, text: &str, paint: Paint) -> Option<String> {
    match form {
        Form::Nodes => nodes_table(text, paint),
        Form::Fields => fields_table(text, paint),
    }
}

/// For programs: of members an array of objects, of fields one object.
pub fn object(form: Form, text: &str) -> Option<Json> {
    match form {
        Form::Nodes => {
            let member = |fields: Vec<(&str, &str)>| -> Json {
                fields.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
            };
            Some(nodes(text)?.into_iter().map(member).collect())
        }
        Form::Fields => {
            let mut object = Map::new();
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (name, value) = line.split_once(':')?;
                object.insert(name.to_owned(), json!(value));
            }
            Some(Json::Object(object))
        }
    }
}

fn nodes(text: &str) -> Option<Vec<Vec<(&str, &str)>>> {
    let lines = text.lines().filter(|line| !line.is_empty());
    let fields =
        lines.map(|line| line.split_whitespace().map(|field| field.split_once('=')).collect());
    let nodes: Option<Vec<Vec<(&str, &str)>>> = fields.collect();
    nodes.filter(|nodes| !nodes.is_empty())
}

/// A column for each field, as wide as it needs to be. Columns in which nobody has anything to say
/// are left out.
fn nodes_table(text: &str, paint: Paint) -> Option<String> {
    let nodes = nodes(text)?;
    let names: Vec<&str> = nodes[0].iter().map(|(name, _)| *name).collect();
    let is_even = nodes.iter().all(|node| node.iter().map(|(name, _)| *name).eq(names.clone()));
    if !is_even {
        return None;
    }
    let is_told = |column: &usize| nodes.iter().any(|node| node[*column].1 != "-");
    let columns: Vec<usize> = (0..names.len()).filter(is_told).collect();
    let width = |column: usize| {
        let values = nodes.iter().map(|node| node[column].1.len());
        values.chain([names[column].len()]).max().unwrap_or(0)
    };
    let mut out = String::new();
    let mut push_line = |cells: Vec<(Option<Colour>, &str)>| {
        let last = cells.len().saturating_sub(1);
        for (place, (colour, text)) in cells.into_iter().enumerate() {
            let painted = colour.map_or(text.to_owned(), |colour| paint.paint(colour, text));
            out.push_str(&painted);
            if place < last {
                let gap = width(columns[place]) - text.len() + 2;
                out.extend(std::iter::repeat_n(' ', gap));
            }
        }
        out.push('\n');
    };
    push_line(columns.iter().map(|column| (Some(Colour::Bold), names[*column])).collect());
    for node in &nodes {
        let cell = |column: &usize| {
            let (name, value) = node[*column];
            let colour = match (name, value) {
                ("role", "leader") => Some(Colour::Green),
                ("role", "learner") | ("vote", "joining" | "leaving") => Some(Colour::Yellow),
                ("role", "recovering") | ("link", "down") | ("met", "no") => Some(Colour::Red),
                _ => None,
            };
            (colour, value)
        };
        push_line(columns.iter().map(cell).collect());
    }
    Some(out)
}

fn fields_table(text: &str, paint: Paint) -> Option<String> {
    let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.len());
    let width = names.max()?;
    let mut out = String::new();
    for line in text.lines() {
        match line.split_once(':') {
            _ if line.starts_with('#') => out.push_str(&paint.paint(Colour::Bold, line)),
            Some((name, value)) => {
                out.push_str(&paint.paint(Colour::Cyan, name));
                out.extend(std::iter::repeat_n(' ', width - name.len() + 2));
                out.push_str(value);
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "id=1 role=leader client=a:7101 http=- match=9\r\n\
                         id=20 role=follower client=bb:7101 http=- match=-\r\n";

    #[test]
    fn table_of_members_has_a_column_a_field() {
        let expected = "id  role      client   match\n\
                        1   leader    a:7101   9\n\
                        20  follower  bb:7101  -\n";
        assert_eq!(table(Form::Nodes, NODES, Paint::OFF).as_deref(), Some(expected));
        let painted =
            table(Form::Nodes, NODES, Paint::new(super::super::paint::When::Always, false));
        assert!(painted.unwrap().contains("1   \x1b[32mleader\x1b[0m    a:7101"));
        for odd in ["", "no fields", "id=1 role=leader\r\nid=2\r\n"] {
            assert_eq!(table(Form::Nodes, odd, Paint::OFF), None, "{odd}");
        }
    }

    #[test]
    fn table_of_fields_keeps_sections() {
        let text = "# Raft\r\nraft_role:leader\r\nraft_term:3\r\n\r\n# Server\r\n";
        let expected = "# Raft\nraft_role  leader\nraft_term  3\n\n# Server\n";
        assert_eq!(table(Form::Fields, text, Paint::OFF).as_deref(), Some(expected));
    }

    #[test]
    fn object_has_what_the_text_has() {
        let object = object(Form::Nodes, NODES).unwrap();
        assert_eq!(object[1]["client"], "bb:7101");
        let fields = super::object(Form::Fields, "# Raft\r\nraft_term:3\r\n\r\n").unwrap();
        assert_eq!(fields, json!({"raft_term": "3"}));
    }

    #[test]
    fn form_is_that_of_the_command() {
        let form_of = |line: &str| {
            let words = line.split(' ').map(|word| word.as_bytes().to_vec());
            form(&words.collect::<Vec<_>>())
        };
        assert_eq!(form_of("raft nodes"), Some(Form::Nodes));
        assert_eq!(form_of("info raft"), Some(Form::Fields));
        assert_eq!(form_of("raft health"), None);
        assert_eq!(form_of("get info"), None);
    }
}
