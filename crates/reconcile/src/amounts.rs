//! Amounts with different numbers of decimals, compared and summed without losing a digit. Pure; knows no currency.

/// Decimals in which amounts of any number of decimals are summed; a source with more is wrong.
const SCALE: u8 = 9;

/// Converts minor units to other decimals; `None` where the result is no whole number.
pub(crate) fn rescale(minor: i64, from: u8, to: u8) -> Option<i64> {
    i64::try_from(from_scaled(to_scaled(minor, from), to)?).ok()
}

/// An amount with [`SCALE`] decimals, for sums.
pub(crate) fn to_scaled(minor: i64, exponent: u8) -> i128 {
    i128::from(minor) * power(SCALE.saturating_sub(exponent))
}

/// A sum in minor units of `exponent` decimals; `None` where the result is no whole number.
pub(crate) fn from_scaled(scaled: i128, exponent: u8) -> Option<i128> {
    let unit = power(SCALE.saturating_sub(exponent));
    (scaled % unit == 0).then(|| scaled / unit)
}

/// The smallest number of decimals, at least `from`, in which all sums are whole.
pub(crate) fn common_exponent(from: u8, sums: &[i128]) -> u8 {
    (from..SCALE)
        .find(|exponent| sums.iter().all(|sum| from_scaled(*sum, *exponent).is_some()))
        .unwrap_or(SCALE)
}

fn power(places: u8) -> i128 {
    10_i128.pow(places.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_compared_by_value() {
        for (minor, from, to, expected) in [
            (1500, 0, 2, Some(150_000)),
            (150_000, 2, 0, Some(1500)),
            (150_050, 2, 0, None),
            (1234, 3, 2, None),
            (1230, 3, 2, Some(123)),
            (-5, 2, 2, Some(-5)),
            (i64::MAX, 0, 4, None),
        ] {
            assert_eq!(rescale(minor, from, to), expected, "{minor} of {from} in {to}");
        }
    }

    #[test]
    fn a_sum_shows_as_many_decimals_as_it_has() {
        assert_eq!(common_exponent(0, &[to_scaled(1500, 0), to_scaled(150_000, 2)]), 0);
        assert_eq!(common_exponent(0, &[to_scaled(1500, 0), to_scaled(150_050, 2)]), 1);
        assert_eq!(common_exponent(2, &[to_scaled(1234, 3)]), 3);
        assert_eq!(from_scaled(to_scaled(1234, 3), 3), Some(1234));
    }
}
