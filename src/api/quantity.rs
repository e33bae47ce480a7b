//! Kubernetes quantities: their schemas with bounds, and to and from plain numbers.
//!
//! The API server has validated what a spec holds; these conversions check again, because what they read
//! may come from an older definition.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

/// Why a quantity is not a number of the wanted unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It is not written as a quantity.
    #[error("{0:?} is not a Kubernetes quantity")]
    Malformed(String),
    /// It is negative, or does not fit into 64 bits.
    #[error("{0:?} is negative or too large")]
    OutOfRange(String),
    /// It is finer than the unit.
    #[error("{0:?} is not a whole number of the unit")]
    Fraction(String),
}

/// A quantity in whole units: bytes of memory, bytes of disk.
///
/// # Errors
/// When it is malformed, negative, too large, or a fraction.
pub fn bytes(quantity: &Quantity) -> Result<u64, QuantityError> {
    whole(quantity, 0)
}

/// A quantity in thousandths: processors as Kubernetes counts them.
///
/// # Errors
/// When it is malformed, negative, too large, or finer than a thousandth.
pub fn milli(quantity: &Quantity) -> Result<u64, QuantityError> {
    whole(quantity, 3)
}

/// Bytes as people write them: the largest binary suffix that loses nothing.
#[must_use]
pub fn from_bytes(bytes: u64) -> Quantity {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let step = (bytes.trailing_zeros() / 10).min(6);
    let step = if bytes == 0 { 0 } else { step };
    Quantity(format!("{}{}", bytes >> (step * 10), SUFFIXES[step as usize]))
}

/// Thousandths as people write them: `2`, `1500m`.
#[must_use]
pub fn from_milli(milli: u64) -> Quantity {
    Quantity(if milli.is_multiple_of(1000) {
        (milli / 1000).to_string()
    } else {
        format!("{milli}m")
    })
}

/// The quantity times 10^`scale`, which must be whole.
fn whole(quantity: &Quantity, scale: i32) -> Result<u64, QuantityError> {
    let text = quantity.0.as_str();
    let malformed = || QuantityError::Malformed(text.to_owned());
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned.starts_with('-') {
        return Err(QuantityError::OutOfRange(text.to_owned()));
    }
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (binary, decimal) = exponents(suffix).ok_or_else(malformed)?;
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    if integer.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 40 {
        return Err(malformed());
    }
    let range = || QuantityError::OutOfRange(text.to_owned());
    let digits: u128 = format!("0{integer}{fraction}").parse().map_err(|_| range())?;
    let scaled = digits.checked_mul(1_u128 << binary).ok_or_else(range)?;
    let fraction_digits = i32::try_from(fraction.len()).map_err(|_| range())?;
    let exponent = decimal + scale - fraction_digits;
    let power = 10_u128.checked_pow(exponent.unsigned_abs()).ok_or_else(range)?;
    let value = if exponent >= 0 {
        scaled.checked_mul(power).ok_or_else(range)?
    } else if scaled.is_multiple_of(power) {
        scaled / power
    } else {
        return Err(QuantityError::Fraction(text.to_owned()));
    };
    u64::try_from(value).map_err(|_| range())
}

/// A suffix as (power of two, power of ten).
fn exponents(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            // Beyond these no 64-bit quantity has a digit left, and 10^n must fit into 128 bits.
            (-30..=30).contains(&exponent).then_some((0, exponent))?
        }
    })
}

/// Schema of a VM's memory.
pub(super) fn memory_schema(_: &mut SchemaGenerator) -> Schema {
    bounded("16Mi", "4Ti", true)
}

/// Schema of a disk's size.
pub(super) fn disk_schema(_: &mut SchemaGenerator) -> Schema {
    bounded("1Mi", "64Ti", true)
}

/// Schema of processors kept from VMs.
pub(super) fn reserved_cpus_schema(_: &mut SchemaGenerator) -> Schema {
    bounded("0", "4096", false)
}

/// Schema of memory kept from VMs.
pub(super) fn reserved_memory_schema(_: &mut SchemaGenerator) -> Schema {
    bounded("0", "64Ti", true)
}

/// Schema of a quantity that an agent reports.
pub(super) fn reported_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 32,
    })
}

/// A quantity between two others, both included. `maxLength` bounds the cost of its rule.
fn bounded(least: &str, most: &str, integer: bool) -> Schema {
    // isInteger() will not do: it says no to 1.5Gi. Below 2^53 a double holds every whole number.
    let whole = if integer {
        " && double(int(quantity(string(self)).asApproximateFloat())) == \
         quantity(string(self)).asApproximateFloat()"
    } else {
        ""
    };
    let rule = format!(
        "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('{least}')) >= 0 \
         && quantity(string(self)).compareTo(quantity('{most}')) <= 0{whole}"
    );
    let unit = if integer { ", in whole bytes" } else { "" };
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 32,
        "x-kubernetes-validations": [json!({
            "rule": rule,
            "message": format!("must be a quantity from {least} to {most}{unit}"),
        })],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, wanted) in [
            ("0", 0),
            ("16Mi", 16 << 20),
            ("1.5Gi", 3 << 29),
            ("128974848", 128_974_848),
            ("129e6", 129_000_000),
            ("129M", 129_000_000),
            ("123Mi", 123 << 20),
            ("128974848000m", 128_974_848),
            ("+1Ki", 1024),
            (".5Ki", 512),
            ("1.", 1),
            ("4Ti", 4 << 40),
        ] {
            assert_eq!(bytes(&quantity(text)), Ok(wanted), "{text}");
        }
        assert_eq!(milli(&quantity("1500m")), Ok(1500));
        assert_eq!(milli(&quantity("0.5")), Ok(500));
        assert_eq!(milli(&quantity("2")), Ok(2000));
    }

    #[test]
    fn what_is_no_whole_number_of_bytes_is_refused_by_name() {
        for text in ["", "Mi", "1Mb", "1 Mi", "x", "1.2.3", "1e", "1e99999999999", "1e31"] {
            assert!(matches!(bytes(&quantity(text)), Err(QuantityError::Malformed(_))), "{text}");
        }
        for text in ["-1", "-1Gi", "16Ei", "1e30", "99999999999999999999"] {
            assert!(matches!(bytes(&quantity(text)), Err(QuantityError::OutOfRange(_))), "{text}");
        }
        assert!(matches!(bytes(&quantity("500m")), Err(QuantityError::Fraction(_))));
        assert!(matches!(bytes(&quantity("1.5")), Err(QuantityError::Fraction(_))));
    }

    #[test]
    fn what_is_written_reads_the_same() {
        for number in [0, 1, 1023, 1024, 1536, 16 << 20, 3 << 29, u64::MAX, 1 << 63] {
            assert_eq!(bytes(&from_bytes(number)), Ok(number));
            if let Ok(back) = milli(&from_milli(number)) {
                assert_eq!(back, number);
            }
        }
        assert_eq!(from_bytes(256 << 20).0, "256Mi");
        assert_eq!(from_milli(2500).0, "2500m");
        assert_eq!(from_milli(2000).0, "2");
    }
}
