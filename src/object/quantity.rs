//! Amounts as Kubernetes writes them: `500m`, `1.5Gi`, `2e3`.
//!
//! A [`Quantity`] is an exact fixed-point number (billionths) that remembers which family of suffixes it was written with, so that it is
//! printed back in the same family and in Kubernetes' canonical form. What an amount means (bytes, cores, pods) is not known here.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;

/// One in billionths.
const ONE: i128 = 1_000_000_000;

/// Which suffixes an amount is printed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Family {
    /// `n u m k M G T P E`.
    #[default]
    Decimal,
    /// `Ki Mi Gi Ti Pi Ei`.
    Binary,
    /// `e3`.
    Exponent,
}

/// An exact amount, counted in billionths.
///
/// Two amounts are equal when their values are, however they were written: `1Gi` equals `1024Mi`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    family: Family,
}

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct NotAQuantity;

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity { nanos: 0, family: Family::Decimal };

    /// A whole number, printed with decimal suffixes.
    pub fn of(whole: i64) -> Self {
        Quantity { nanos: i128::from(whole) * ONE, family: Family::Decimal }
    }
    /// Thousandths: `Quantity::millis(500)` is half a core.
    pub fn millis(millis: i64) -> Self {
        Quantity { nanos: i128::from(millis) * (ONE / 1000), family: Family::Decimal }
    }
    /// Bytes, printed with binary suffixes.
    pub fn bytes(bytes: i64) -> Self {
        Quantity { nanos: i128::from(bytes) * ONE, family: Family::Binary }
    }
    /// Reads Kubernetes' text form. More than nine decimal places are rounded away from zero, as Kubernetes does.
    pub fn parse(text: &str) -> Result<Self, NotAQuantity> {
        text.parse()
    }
    /// The value of a typed quantity; an unreadable one counts as nothing (admission has refused it before it could be stored).
    pub fn from_k8s(typed: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Self {
        typed.0.parse().unwrap_or_default()
    }
    /// The typed quantity, in canonical form.
    pub fn to_k8s(self) -> k8s_openapi::apimachinery::pkg::api::resource::Quantity {
        k8s_openapi::apimachinery::pkg::api::resource::Quantity(self.to_string())
    }
    /// In whole units, rounded up: bytes, pods.
    pub fn whole(self) -> i64 {
        clamp(div_up(self.nanos, ONE))
    }
    /// In thousandths, rounded up: millicores.
    pub fn milli(self) -> i64 {
        clamp(div_up(self.nanos, ONE / 1000))
    }
    /// In billionths, exactly. Docker counts cores so.
    pub fn nano(self) -> i128 {
        self.nanos
    }
    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }
    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    fn with(self, other: Quantity, nanos: i128) -> Quantity {
        // Kubernetes: the sum is printed like the first, unless the first was nothing.
        Quantity { nanos, family: if self.nanos == 0 { other.family } else { self.family } }
    }
}

fn clamp(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Rounds away from zero.
fn div_up(value: i128, by: i128) -> i128 {
    let (quotient, rest) = (value / by, value % by);
    quotient + rest.signum()
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}
impl Add for Quantity {
    type Output = Quantity;
    fn add(self, other: Quantity) -> Quantity {
        self.with(other, self.nanos.saturating_add(other.nanos))
    }
}
impl Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Quantity) -> Quantity {
        self.with(other, self.nanos.saturating_sub(other.nanos))
    }
}
impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}
impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}
impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(iter: I) -> Quantity {
        iter.fold(Quantity::ZERO, Add::add)
    }
}

impl FromStr for Quantity {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(NotAQuantity);
        }
        let (family, scale) = scale_of(suffix)?;
        // The digits without their point are a whole number of `10^-places`; a long tail of zeroes says nothing.
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Ok(Quantity { nanos: 0, family });
        }
        if digits.len() > 30 {
            return Err(NotAQuantity);
        }
        let mantissa: i128 = digits.parse().map_err(|_| NotAQuantity)?;
        let places = fraction.len() as i32;
        let nanos = match scale {
            Scale::Binary(power) => {
                let raised = mantissa.checked_mul(1 << (10 * power)).ok_or(NotAQuantity)?;
                shift(raised, 9 - places)?
            }
            Scale::Decimal(power) => shift(mantissa, 9 + power - places)?,
        };
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, family })
    }
}

enum Scale {
    Binary(u32),
    Decimal(i32),
}

fn scale_of(suffix: &str) -> Result<(Family, Scale), NotAQuantity> {
    let decimal = |power| Ok((Family::Decimal, Scale::Decimal(power)));
    let binary = |power| Ok((Family::Binary, Scale::Binary(power)));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E']).ok_or(NotAQuantity)?;
            let power: i32 = digits.parse().map_err(|_| NotAQuantity)?;
            if power.abs() > 40 {
                return Err(NotAQuantity);
            }
            Ok((Family::Exponent, Scale::Decimal(power)))
        }
    }
}

/// `value * 10^power`, rounded away from zero where that leaves a fraction.
fn shift(value: i128, power: i32) -> Result<i128, NotAQuantity> {
    if power >= 0 {
        let factor = 10i128.checked_pow(power as u32).ok_or(NotAQuantity)?;
        value.checked_mul(factor).ok_or(NotAQuantity)
    } else {
        match 10i128.checked_pow(power.unsigned_abs()) {
            Some(factor) => Ok(div_up(value, factor)),
            None => Ok(value.signum()),
        }
    }
}

/// The canonical form: no fraction, and the largest suffix of the family that allows that.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Kubernetes prints small binary amounts with decimal suffixes, because there is no suffix below one.
        if self.family == Family::Binary && self.nanos.abs() >= 1024 * ONE {
            let mut mantissa = div_up(self.nanos, ONE);
            let mut power = 0;
            while power < 6 && mantissa % 1024 == 0 {
                mantissa /= 1024;
                power += 1;
            }
            return write!(f, "{mantissa}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let mut mantissa = self.nanos;
        let mut power = -9;
        while power < 18 && mantissa % 1000 == 0 {
            mantissa /= 1000;
            power += 3;
        }
        match (self.family, power) {
            (Family::Exponent, 0) => write!(f, "{mantissa}"),
            (Family::Exponent, power) => write!(f, "{mantissa}e{power}"),
            (_, power) => {
                write!(f, "{mantissa}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((power + 9) / 3) as usize])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_form() {
        let rows = [
            ("0", "0"),
            ("0Mi", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("-1", "-1"),
            ("1.5", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1000", "1k"),
            ("2000k", "2M"),
            ("1024", "1024"),
            ("1024Mi", "1Gi"),
            ("1000Ki", "1000Ki"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1.5Ki", "1536"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("100e1", "1e3"),
            ("1e-3", "1e-3"),
            ("2e0", "2"),
            ("0.1n", "1n"),
            ("100u", "100u"),
            ("8Ei", "8Ei"),
            ("1E", "1E"),
            ("12345678901234567890", "12345678901234567890"),
        ];
        for (text, canonical) in rows {
            assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Ok(canonical.to_owned()), "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in ["", ".", "-", "1.2.3", "1 Gi", "Gi", "1gi", "1K", "1mi", "0x10", "1e", "1ee3", "1e99", " 1", "1b", "٣"] {
            assert_eq!(Quantity::parse(text), Err(NotAQuantity), "{text:?}");
        }
    }

    #[test]
    fn units() {
        let q = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(q("250m").milli(), 250);
        assert_eq!(q("1.0001").milli(), 1001, "rounded up");
        assert_eq!(q("1.5Gi").whole(), 1_610_612_736);
        assert_eq!(q("1Gi"), q("1024Mi"));
        assert!(q("1G") < q("1Gi"));
        assert_eq!((q("100m") + q("1")).to_string(), "1100m");
        assert_eq!((Quantity::ZERO + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("1Gi") - q("1Mi")).to_string(), "1023Mi");
        assert_eq!([q("1Gi"), q("1Gi")].into_iter().sum::<Quantity>().to_string(), "2Gi");
    }

    proptest! {
        #[test]
        fn canonical_form_reads_back_the_same(nanos in any::<i64>(), family in 0..3) {
            let family = [Family::Decimal, Family::Binary, Family::Exponent][family as usize];
            let q = Quantity { nanos: i128::from(nanos), family };
            let back = Quantity::parse(&q.to_string()).unwrap();
            // Binary suffixes cannot say fractions of a byte above 1024: those are rounded up.
            if family == Family::Binary && q.nanos.abs() >= 1024 * ONE {
                prop_assert!(back.nanos.abs() - q.nanos.abs() < ONE && back.nanos.abs() >= q.nanos.abs());
            } else {
                prop_assert_eq!(back, q);
            }
            // Bytes without a suffix are read back as a decimal number, as in Kubernetes.
            if family != Family::Binary {
                prop_assert_eq!(back.to_string(), q.to_string());
            }
        }

        #[test]
        fn never_panics(text in "[-+0-9.eEinumkKMGTP ]{0,40}") {
            let _ = Quantity::parse(&text);
        }
    }
}
