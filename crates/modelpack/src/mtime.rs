//! Modification times as ModelPack writes them (RFC 3339) and as the kernel takes them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A point in time, to the nanosecond, counted from 1970 and negative before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mtime {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds after them, below 10⁹.
    pub nanos: u32,
}

impl Mtime {
    /// Go's zero time, which programs write when they know none: `0001-01-01T00:00:00Z`.
    const GO_ZERO: i64 = -62_135_596_800;

    /// Whether this stands for "not known".
    pub fn is_unset(self) -> bool {
        self.seconds == Self::GO_ZERO && self.nanos == 0
    }

    /// From a decimal number of seconds, as PAX headers have it: `1700000000.123456789`.
    pub(crate) fn from_decimal(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = whole.parse().ok()?;
        let nanos = nanos(fraction)?;
        if whole.starts_with('-') && nanos > 0 {
            // -1.25 s is 0.75 s after -2 s.
            return Some(Self {
                seconds: seconds.checked_sub(1)?,
                nanos: 1_000_000_000 - nanos,
            });
        }
        Some(Self { seconds, nanos })
    }
}

impl FromStr for Mtime {
    type Err = ParseMtimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or(ParseMtimeError)
    }
}

/// A text that is no RFC 3339 date and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time such as `2026-01-31T12:00:00Z`")]
pub struct ParseMtimeError;

fn parse(text: &str) -> Option<Mtime> {
    if !text.is_ascii() || text.len() < 20 {
        return None;
    }
    let field = |from: usize, to: usize| -> Option<i64> {
        let digits = &text[from..to];
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let at = |index: usize, wanted: &[u8]| wanted.contains(&text.as_bytes()[index]);
    if !(at(4, b"-") && at(7, b"-") && at(10, b"Tt ") && at(13, b":") && at(16, b":")) {
        return None;
    }
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = &text[19..];
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let nanos = match rest[..zone].strip_prefix('.') {
        Some("") => return None,
        Some(fraction) => nanos(fraction)?,
        None if zone == 0 => 0,
        None => return None,
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(Mtime {
        seconds: seconds - offset(&rest[zone..])?,
        nanos,
    })
}

/// Digits after the point, as nanoseconds; more than nine are cut.
fn nanos(fraction: &str) -> Option<u32> {
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nine = &fraction[..fraction.len().min(9)];
    let value: u32 = if nine.is_empty() { 0 } else { nine.parse().ok()? };
    Some(value * 10u32.pow(9 - nine.len() as u32))
}

/// Seconds east of UTC: `Z`, `+08:00`, `-03:30`.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let two = |text: &str| (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?;
    let (hours, minutes): (i64, i64) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar. Years are counted from March, so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected seconds are `date -u -d TEXT +%s`.
    #[test]
    fn reads_rfc_3339() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2000-02-29T23:59:59Z", 951_868_799, 0),
            ("2026-03-01T00:00:00Z", 1_772_323_200, 0),
            ("2025-11-30T12:34:56.789+08:00", 1_764_477_296, 789_000_000),
            ("2025-11-30T12:34:56.123456789-03:30", 1_764_518_696, 123_456_789),
            ("1969-12-31T23:59:59.5Z", -1, 500_000_000),
            ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
        ] {
            assert_eq!(text.parse(), Ok(Mtime { seconds, nanos }), "{text}");
        }
        assert!("0001-01-01T00:00:00Z".parse::<Mtime>().unwrap().is_unset());
    }

    #[test]
    fn refuses_other_texts() {
        for text in [
            "",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:00:00",
            "2025-01-01T00:00:00.Z",
            "2025-01-01T00:00:00+8:00",
            "2025-01-01 00:00:00 UTC",
            "+025-01-01T00:00:00Z",
        ] {
            assert_eq!(text.parse::<Mtime>(), Err(ParseMtimeError), "{text}");
        }
    }

    #[test]
    fn reads_pax_decimals() {
        assert_eq!(
            Mtime::from_decimal("1700000000.25"),
            Some(Mtime {
                seconds: 1_700_000_000,
                nanos: 250_000_000
            })
        );
        assert_eq!(
            Mtime::from_decimal("-1.25"),
            Some(Mtime {
                seconds: -2,
                nanos: 750_000_000
            })
        );
        assert_eq!(Mtime::from_decimal("7"), Some(Mtime { seconds: 7, nanos: 0 }));
        assert_eq!(Mtime::from_decimal("x"), None);
    }
}
