//! Sizes as people write and read them: IEC units.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write bytes, or a number with KiB, MiB, GiB or TiB, like 512MiB or 1.5GiB")]
pub struct SizeError(String);

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

impl FromStr for Size {
    type Err = SizeError;

    /// `1048576`, `512MiB`, `1.5 GiB`, `20G`. Units are powers of 1024, also when written `G` or `g`; `GB` is refused,
    /// because it means two things.
    fn from_str(text: &str) -> Result<Size, SizeError> {
        let refuse = || SizeError(text.to_owned());
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..split], trimmed[split..].trim_start().to_ascii_lowercase());
        let shift = match unit.as_str() {
            "" | "b" => 0,
            "k" | "kib" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            "t" | "tib" => 40,
            _ => return Err(refuse()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if fraction.is_empty() || fraction.len() > 9 {
            return Err(refuse());
        }
        let whole: u64 = whole.parse().map_err(|_| refuse())?;
        let parts: u64 = fraction.parse().map_err(|_| refuse())?;
        let ten = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| refuse())?);
        if shift == 0 && parts != 0 {
            return Err(refuse());
        }
        let bytes = (u128::from(whole) << shift) + (u128::from(parts) << shift) / ten;
        u64::try_from(bytes).map(Size).map_err(|_| refuse())
    }
}

impl fmt::Display for Size {
    /// `1 GiB`, `118.4 GiB`, `17 B`: at most one decimal, none when it is a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = (0..UNITS.len() - 1).rev().find(|&step| self.0 >> (10 * (step + 1)) != 0).map_or(0, |step| step + 1);
        let unit = 1_u128 << (10 * step);
        let tenths = (u128::from(self.0) * 10 + unit / 2) / unit;
        // 1023.96 MiB rounds to 1024 MiB, which is written 1 GiB
        let (tenths, step) = if tenths >= 10_240 && step + 1 < UNITS.len() { (10, step + 1) } else { (tenths, step) };
        match tenths % 10 {
            0 => write!(f, "{} {}", tenths / 10, UNITS[step]),
            tenth => write!(f, "{}.{tenth} {}", tenths / 10, UNITS[step]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_iec_and_refuses_the_rest() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("16MiB", 16 << 20),
            ("16m", 16 << 20),
            ("1.5 GiB", 3 << 29),
            ("20G", 20 << 30),
            ("1TiB", 1 << 40),
            (" 7 KiB ", 7 << 10),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "GiB", "1GB", "1.5", "1.", ".5GiB", "-1", "1 GiB x", "99999999999TiB", "1..5GiB", "1_000"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn prints_one_decimal_at_most() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1 << 30, "1 GiB"),
            (3 << 29, "1.5 GiB"),
            ((1 << 30) - 1, "1 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
