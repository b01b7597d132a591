//! Colour: where a person looks on, and nowhere else.
//!
//! On at a terminal, unless NO_COLOR is set or the terminal can't (TERM=dumb); `--color` decides
//! otherwise. Called by everything that shows something. Knows nothing of what is shown.

use std::ffi::OsString;

use clap::ValueEnum;

/// When to use colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum When {
    /// At a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What a piece of text is painted as.
#[derive(Clone, Copy, Debug)]
pub enum Colour {
    /// What went wrong, or is gone.
    Red,
    /// What is well, or new.
    Green,
    /// What is changed, or to be looked at.
    Yellow,
    /// Names.
    Cyan,
    /// Headings.
    Bold,
    /// What is of less interest.
    Dim,
}

/// Whether text is painted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paint {
    is_on: bool,
}

impl Paint {
    /// No colour.
    #[cfg(test)]
    pub const OFF: Paint = Paint { is_on: false };

    /// Decides by what was asked for, where the text goes to, and the environment.
    pub fn new(when: When, is_terminal: bool) -> Paint {
        Paint::decide(when, is_terminal, std::env::var_os("NO_COLOR"), std::env::var_os("TERM"))
    }

    fn decide(
        when: When,
        is_terminal: bool,
        no_color: Option<OsString>,
        term: Option<OsString>,
    ) -> Paint {
        let is_wanted = no_color.is_none_or(|value| value.is_empty());
        let is_able = term.is_some_and(|name| name != "dumb");
        Paint {
            is_on: match when {
                When::Always => true,
                When::Never => false,
                When::Auto => is_terminal && is_wanted && is_able,
            },
        }
    }

    /// Whether there is colour at all.
    pub fn is_on(self) -> bool {
        self.is_on
    }

    /// The text, in that colour.
    pub fn paint(self, colour: Colour, text: &str) -> String {
        if !self.is_on {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Red => "31",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Cyan => "36",
            Colour::Bold => "1",
            Colour::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        let decided = |when, is_terminal, no_color: Option<&str>, term: Option<&str>| {
            Paint::decide(when, is_terminal, no_color.map(Into::into), term.map(Into::into)).is_on
        };
        let term = Some("xterm");
        assert!(decided(When::Auto, true, None, term));
        assert!(decided(When::Auto, true, Some(""), term), "an empty NO_COLOR says nothing");
        assert!(!decided(When::Auto, true, Some("1"), term));
        assert!(!decided(When::Auto, false, None, term));
        assert!(!decided(When::Auto, true, None, Some("dumb")));
        assert!(!decided(When::Auto, true, None, None));
        assert!(decided(When::Always, false, Some("1"), None));
        assert!(!decided(When::Never, true, None, term));
    }

    #[test]
    fn paint_ends_what_it_begins() {
        let paint = Paint { is_on: true };
        assert_eq!(paint.paint(Colour::Red, "no"), "\x1b[31mno\x1b[0m");
        assert_eq!(Paint::OFF.paint(Colour::Red, "no"), "no");
    }
}
