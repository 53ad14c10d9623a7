//! Sizes as people write them: `64MiB`, `100GiB`, or a plain number of bytes.

use std::fmt;

use serde::{Deserializer, Serializer, de};

/// Units with their bytes. Those of powers of two come first, largest first: they are the ones written.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
];

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write a whole number and a unit (B, KiB, MiB, GiB, TiB), such as 64MiB")]
pub(crate) struct NoSize(String);

/// Reads a number with a unit, or of bytes.
pub(crate) fn parse(text: &str) -> Result<u64, NoSize> {
    let wrong = || NoSize(text.to_owned());
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = if unit.is_empty() { "B" } else { unit.trim_start() };
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*scale).ok_or_else(wrong)
}

/// The shortest text that reads back as this many bytes.
pub(crate) fn text(bytes: u64) -> String {
    let exact = UNITS
        .iter()
        .find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale));
    exact.map_or_else(|| "0B".to_owned(), |(unit, scale)| format!("{}{unit}", bytes / scale))
}

/// About this many bytes, for people.
pub(crate) fn about(bytes: u64) -> String {
    let unit = UNITS[..4].iter().find(|(_, scale)| bytes >= *scale);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(unit, scale)| format!("{:.2} {unit}", bytes as f64 / *scale as f64),
    )
}

pub(crate) fn serialize<T: Copy + TryInto<u64>, S: Serializer>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text((*bytes).try_into().unwrap_or(u64::MAX)))
}

pub(crate) fn deserialize<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let bytes = deserializer.deserialize_any(AnySize)?;
    T::try_from(bytes).map_err(|_| de::Error::custom(format!("{} is more than this option can be", text(bytes))))
}

struct AnySize;

impl de::Visitor<'_> for AnySize {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64MiB\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::custom(NoSize(bytes.to_string())))
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("100 GiB", 100 << 30),
            ("1TB", 1_000_000_000_000),
            ("7", 7),
            ("7B", 7),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_what_could_mean_anything() {
        for wrong in ["", "MiB", "1.5GiB", "-1", "64 M", "64mib", "1Gi", "20000000TiB"] {
            assert_eq!(parse(wrong), Err(NoSize(wrong.to_owned())), "{wrong}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for bytes in [0, 1, 1023, 1024, 64 << 20, (64 << 20) + 1, 3 << 40, u64::MAX] {
            assert_eq!(parse(&text(bytes)), Ok(bytes));
        }
        assert_eq!(text(64 << 20), "64MiB");
        assert_eq!(about(1_610_612_736), "1.50 GiB");
    }
}
