//! Rates and sizes as people type them.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// A text that is no rate or no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: write it like {example}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    example: &'static str,
}

/// Bits per second of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(u64);

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(u64);

/// As `tc` has them, so that what is typed here is what `tc` shows.
const RATES: [(&str, u64); 4] = [
    ("gbit", 1_000_000_000),
    ("mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Rate {
    /// In bits per second.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Seconds that so many bytes take.
    pub fn seconds(self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / self.0 as f64
    }
}

impl Size {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text, &RATES).map(Self).ok_or_else(|| UnitError {
            text: text.to_owned(),
            what: "rate",
            example: "100mbit or 1gbit",
        })
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text, &SIZES).map(Self).ok_or_else(|| UnitError {
            text: text.to_owned(),
            what: "size",
            example: "256MiB or 1GiB",
        })
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write(f, self.0, &RATES)
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write(f, self.0, &SIZES)
    }
}

/// A whole number of at least one, with a unit or without.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let factor = match unit {
        "" => 1,
        _ => units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    number.checked_mul(factor).filter(|value| *value > 0)
}

/// In the largest unit that leaves a whole number.
fn write(f: &mut Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |(_, factor): &&(&str, u64)| value.is_multiple_of(*factor);
    let (unit, factor) = units.iter().find(fits).expect("the last unit is one");
    write!(f, "{}{unit}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood() {
        assert_eq!("100mbit".parse::<Rate>().unwrap().bits(), 100_000_000);
        assert_eq!("1Gbit".parse::<Rate>().unwrap().bits(), 1_000_000_000);
        assert_eq!("256MiB".parse::<Size>().unwrap().bytes(), 256 << 20);
        assert_eq!("77".parse::<Size>().unwrap().bytes(), 77);
        for wrong in ["", "mbit", "0mbit", "-1mbit", "1.5gbit", "100 mbit", "99999999999gbit"] {
            let error = wrong.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("100mbit"), "{error}");
        }
        assert!("256MB".parse::<Size>().is_err(), "1000 or 1024?");
    }

    #[test]
    fn what_is_shown_can_be_typed() {
        for text in ["100mbit", "1gbit", "1500kbit", "1537bit"] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string(), text);
        }
        assert_eq!("1024MiB".parse::<Size>().unwrap().to_string(), "1GiB");
    }

    #[test]
    fn a_rate_takes_its_time() {
        let rate: Rate = "80mbit".parse().unwrap();
        assert!((rate.seconds(10_000_000) - 1.0).abs() < 1e-9);
    }
}
