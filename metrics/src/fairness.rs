//! Jain's fairness index: one figure for how evenly the network's work is spread over its holders.
//!
//! The index is (Σx)² / (n · Σx²), from R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and
//! Discrimination", DEC-TR-301, 1984. It is preferred to a variance or a max/min ratio because it has no unit,
//! is bounded, and reads as a share: 0.8 means "as even as if 80 % of the holders did equal work and the rest
//! none".

/// Returns Jain's fairness index of `values`: 1 when all are equal, 1/n when one has everything.
///
/// The result lies in (0, 1]. Nobody treated unequally is fair: no values, or only zeros, give 1. A negative or
/// non-finite value counts as zero, since an amount of work is neither.
///
/// ```
/// use quarta_metrics::fairness::jain;
///
/// assert_eq!(jain(&[5.0, 5.0, 5.0, 5.0]), 1.0);
/// assert_eq!(jain(&[20.0, 0.0, 0.0, 0.0]), 0.25);
/// ```
pub fn jain(values: &[f64]) -> f64 {
    let amounts = || values.iter().map(|&value| if value.is_finite() { value.max(0.0) } else { 0.0 });
    let largest = amounts().fold(0.0, f64::max);
    if largest <= 0.0 {
        return 1.0;
    }
    // The index does not depend on the scale; with shares of the largest value no square can overflow.
    let (sum, squares) = amounts()
        .map(|amount| amount / largest)
        .fold((0.0, 0.0), |(sum, squares), share| (sum + share, squares + share * share));
    // Rounding may lift the quotient of equal values a hair above its bound.
    (sum * sum / (values.len() as f64 * squares)).min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::jain;

    const TOLERANCE: f64 = 1e-9;

    #[test]
    fn nobody_to_treat_unequally_is_fair() {
        assert!((jain(&[]) - 1.0).abs() < TOLERANCE);
        assert!((jain(&[0.0, 0.0]) - 1.0).abs() < TOLERANCE);
    }

    #[test]
    fn an_impossible_amount_counts_as_none() {
        assert!((jain(&[f64::NAN, 3.0, f64::INFINITY, -7.0]) - 0.25).abs() < TOLERANCE);
    }

    proptest! {
        #[test]
        fn equal_shares_are_fair(amount in 1e-300..1e300_f64, holders in 1_usize..200) {
            prop_assert!((jain(&vec![amount; holders]) - 1.0).abs() < TOLERANCE);
        }

        #[test]
        fn one_holder_with_everything_scores_one_in_n(
            amount in 1e-300..1e300_f64,
            holders in 1_usize..200,
            pick in any::<prop::sample::Index>(),
        ) {
            let mut amounts = vec![0.0; holders];
            amounts[pick.index(holders)] = amount;
            prop_assert!((jain(&amounts) - 1.0 / holders as f64).abs() < TOLERANCE);
        }

        #[test]
        fn any_input_scores_between_one_in_n_and_one(amounts in prop::collection::vec(any::<f64>(), 1..200)) {
            let index = jain(&amounts);
            prop_assert!(index >= 1.0 / amounts.len() as f64 - TOLERANCE && index <= 1.0, "{index}");
        }

        #[test]
        fn neither_scale_nor_order_matters(
            amounts in prop::collection::vec(0.0..1e12_f64, 1..200),
            scale in 1e-6..1e6_f64,
        ) {
            let scaled: Vec<f64> = amounts.iter().rev().map(|amount| amount * scale).collect();
            prop_assert!((jain(&amounts) - jain(&scaled)).abs() < TOLERANCE);
        }
    }
}
