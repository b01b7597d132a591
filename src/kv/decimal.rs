//! Numbers with a fraction, as INCRBYFLOAT reads, adds and writes them.
//!
//! Redis uses the C library's `long double`, whose result depends on the machine; every node has to
//! come to the same, so that sums here are exact decimals, rounded to Redis's 17 places. Called by
//! `counters.rs`.

use bigdecimal::{BigDecimal, RoundingMode, Zero};

use crate::limits;

/// Places behind the point that Redis writes.
const PLACES: i64 = 17;

/// Exponents of a `long double` end here.
const LARGEST_EXPONENT: i64 = 4932;

/// A number as a client wrote it.
#[derive(Debug)]
pub(super) enum Decimal {
    Finite(BigDecimal),
    /// `inf` and its like, which C's `strtold` takes.
    Infinite,
}

impl Decimal {
    pub(super) fn zero() -> Decimal {
        Decimal::Finite(BigDecimal::zero())
    }

    /// Reads `[sign] digits [. digits] [e [sign] digits]`, or an infinity; nothing around it.
    pub(super) fn parse(text: &[u8]) -> Option<Decimal> {
        let text = std::str::from_utf8(text).ok().filter(|t| t.len() < limits::FLOAT_BYTES)?;
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        if ["inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
            return Some(Decimal::Infinite);
        }
        let (digits, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse().ok()?),
            None => (unsigned, 0_i64),
        };
        let is_digit = |character: char| character.is_ascii_digit();
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let has_digits = !whole.is_empty() || !fraction.is_empty();
        if !has_digits || !whole.chars().all(is_digit) || !fraction.chars().all(is_digit) {
            return None;
        }
        if exponent.abs() > LARGEST_EXPONENT {
            return None;
        }
        text.parse().ok().map(Decimal::Finite)
    }

    /// The sum as Redis writes it: no exponent, no zeros at the end. `None` if it is infinite or
    /// has more digits than can be read again.
    pub(super) fn plus(self, other: Decimal) -> Option<String> {
        let (Decimal::Finite(one), Decimal::Finite(other)) = (self, other) else {
            return None;
        };
        let sum = (one + other).with_scale_round(PLACES, RoundingMode::HalfEven).normalized();
        let text = sum.to_plain_string();
        (text.len() < limits::FLOAT_BYTES).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(one: &str, other: &str) -> Option<String> {
        Decimal::parse(one.as_bytes())?.plus(Decimal::parse(other.as_bytes())?)
    }

    #[test]
    fn sums_are_redis_s() {
        for (one, other, expected) in [
            ("0", "1", "1"),
            ("1", "0.25", "1.25"),
            ("1.5", "1.5", "3"),
            ("3", "1.1", "4.1"),
            ("1", "-1.1", "-0.1"),
            ("0.1", "0.2", "0.3"),
            ("17179869184", "1.5", "17179869185.5"),
            ("5.0e3", "2.0e2", "5200"),
            ("10.50", "+.1", "10.6"),
            ("0.024390243902439025", "-0.024390243902439025", "0"),
            ("0", "1e-20", "0"),
            ("1e20", "0.5", "100000000000000000000.5"),
            ("0", "1.", "1"),
        ] {
            assert_eq!(sum(one, other).as_deref(), Some(expected), "{one} {other}");
        }
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("0", "-Infinity"), None);
    }

    #[test]
    fn parse_refuses_what_is_no_number() {
        for text in [
            "", " 1", "1 ", "nan", "1e", "e1", ".", "+", "--1", "1_000", "0x10", "1e99999",
            "1.2.3", "1e+-1", "1\u{0}2",
        ] {
            assert!(Decimal::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(Decimal::parse(&vec![b'1'; limits::FLOAT_BYTES]).is_none());
    }
}
