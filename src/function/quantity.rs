//! Amounts of CPU and memory: the text that a user wrote, together with the number that it means.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

const CPU_PATTERN: &str = r"^([0-9]{1,5}m|[0-9]{1,2}(\.[0-9]{1,3})?)$";
const MEMORY_PATTERN: &str = "^[0-9]{1,13}(k|M|G|T|Ki|Mi|Gi|Ti)?$";

/// Why a text is not a quantity.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum QuantityError {
    /// Not a number of cores.
    #[error("{0:?} is not an amount of CPU: write cores such as 0.5, or thousandths such as 500m")]
    Cpu(String),
    /// Not a number of bytes.
    #[error("{0:?} is not an amount of memory: write bytes with a suffix such as 128Mi")]
    Memory(String),
}

/// Cores of CPU, from the text `500m` or `0.5`. Valid by construction.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(try_from = "String", into = "String")]
pub struct Cpu {
    text: String,
    nanos: u64,
}

impl Cpu {
    /// Billionths of a core, as container engines count them.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        self.nanos
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self {
            text: "500m".to_owned(),
            nanos: 500_000_000,
        }
    }
}

impl FromStr for Cpu {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nanos = cpu_nanos(text).ok_or_else(|| QuantityError::Cpu(text.to_owned()))?;
        Ok(Self {
            text: text.to_owned(),
            nanos,
        })
    }
}

/// `None` for what does not fit `CPU_PATTERN`.
fn cpu_nanos(text: &str) -> Option<u64> {
    if let Some(millis) = text.strip_suffix('m') {
        return digits(millis, 1..=5).map(|millis| millis * 1_000_000);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?.min(4));
    let nanos =
        digits(whole, 1..=2)? * 1_000_000_000 + digits(fraction, 1..=3)? * 1_000_000_000 / scale;
    Some(nanos)
}

/// Bytes of memory, from the text `128Mi` or `100M`. Valid by construction.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(try_from = "String", into = "String")]
pub struct Memory {
    text: String,
    bytes: u64,
}

impl Memory {
    /// The number of bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn default_limit() -> Self {
        Self {
            text: "128Mi".to_owned(),
            bytes: 128 << 20,
        }
    }

    pub(super) fn default_tmp() -> Self {
        Self {
            text: "64Mi".to_owned(),
            bytes: 64 << 20,
        }
    }
}

impl FromStr for Memory {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = memory_bytes(text).ok_or_else(|| QuantityError::Memory(text.to_owned()))?;
        Ok(Self {
            text: text.to_owned(),
            bytes,
        })
    }
}

/// `None` for what does not fit `MEMORY_PATTERN` or into 64 bits.
fn memory_bytes(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let unit = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    digits(number, 1..=13)?.checked_mul(unit)
}

fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let valid = length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| text.parse().ok()).flatten()
}

/// What both quantities share: they are strings in every format, and have a pattern in the schema.
macro_rules! quantity_text {
    ($quantity:ident, $pattern:expr, $example:literal) => {
        impl TryFrom<String> for $quantity {
            type Error = QuantityError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$quantity> for String {
            fn from(quantity: $quantity) -> Self {
                quantity.text
            }
        }

        impl fmt::Display for $quantity {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }

        impl JsonSchema for $quantity {
            fn schema_name() -> Cow<'static, str> {
                stringify!($quantity).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "maxLength": 20, "pattern": $pattern, "example": $example})
            }
        }
    };
}

quantity_text!(Cpu, CPU_PATTERN, "500m");
quantity_text!(Memory, MEMORY_PATTERN, "128Mi");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_counted_in_nanos() {
        for (text, nanos) in [
            ("500m", Some(500_000_000)),
            ("0.5", Some(500_000_000)),
            ("1", Some(1_000_000_000)),
            ("1.25", Some(1_250_000_000)),
            ("64", Some(64_000_000_000)),
            ("0.001", Some(1_000_000)),
            ("", None),
            ("m", None),
            (".5", None),
            ("1.", None),
            ("1.2345", None),
            ("100", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("1 ", None),
        ] {
            assert_eq!(
                text.parse::<Cpu>().ok().map(|cpu| cpu.nanos()),
                nanos,
                "{text:?}"
            );
        }
    }

    #[test]
    fn memory_is_counted_in_bytes() {
        for (text, bytes) in [
            ("128Mi", Some(128 << 20)),
            ("1Ti", Some(1 << 40)),
            ("100M", Some(100_000_000)),
            ("1k", Some(1_000)),
            ("16777216", Some(16 << 20)),
            ("", None),
            ("Mi", None),
            ("1.5Gi", None),
            ("128mi", None),
            ("128MiB", None),
            ("128 Mi", None),
            ("9999999999999Ti", None),
            ("-1Mi", None),
        ] {
            assert_eq!(
                text.parse::<Memory>().ok().map(|memory| memory.bytes()),
                bytes,
                "{text:?}"
            );
        }
    }

    #[test]
    fn defaults_mean_what_they_say() {
        assert_eq!("500m".parse(), Ok(Cpu::default()));
        assert_eq!("128Mi".parse(), Ok(Memory::default_limit()));
        assert_eq!("64Mi".parse(), Ok(Memory::default_tmp()));
    }
}
