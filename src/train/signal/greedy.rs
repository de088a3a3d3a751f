//! The greedy choice of columns, or rows, from two second moments.

use ndarray::Array2;

/// The indices of S and T `[n, n]` in the order in which they are chosen, at most `count`. Each time it is
/// the one with the largest ratio of signal T_ii to noise S_ii; then what it explains is removed from both:
///
/// ```text
/// c = S_:i / S_ii        S <- S - c S_i:        T <- T - c T_i: - T_:i c^T + T_ii c c^T
/// ```
///
/// S has a positive diagonal. The order ends where no signal is left.
pub fn order(mut noise: Array2<f64>, mut signal: Array2<f64>, count: usize) -> Vec<usize> {
    let n = noise.nrows();
    let mut left = vec![true; n];
    let mut chosen = Vec::with_capacity(count.min(n));
    while chosen.len() < count {
        let ratio = |i: usize| signal[[i, i]] / noise[[i, i]];
        // Of equal ones the first. A column that others explain may have lost its noise to rounding.
        let usable = (0..n).filter(|&i| left[i] && ratio(i) > 0.0 && ratio(i).is_finite());
        let Some(best) = usable.reduce(|best, i| if ratio(i) > ratio(best) { i } else { best }) else {
            break;
        };
        let c: Vec<f64> = noise.row(best).iter().map(|s| s / noise[[best, best]]).collect();
        let of_noise = noise.row(best).to_vec();
        let half = signal[[best, best]] / 2.0;
        // T - c (t - T_ii c / 2)^T - (t - T_ii c / 2) c^T, with t = T_:i.
        let of_signal: Vec<f64> = signal.row(best).iter().zip(&c).map(|(t, c)| t - half * c).collect();
        for (i, (mut noise, mut signal)) in noise.rows_mut().into_iter().zip(signal.rows_mut()).enumerate() {
            let (c_i, t_i) = (c[i], of_signal[i]);
            noise.iter_mut().zip(&of_noise).for_each(|(s, of_noise)| *s -= c_i * of_noise);
            let parts = c.iter().zip(&of_signal);
            signal.iter_mut().zip(parts).for_each(|(t, (c, of_signal))| *t -= c_i * of_signal + t_i * c);
        }
        left[best] = false;
        chosen.push(best);
    }
    chosen
}

/// The sum over a choice of its ratios of signal to noise, each after what the earlier ones explain.
#[cfg(test)]
pub fn explained(noise: &Array2<f64>, signal: &Array2<f64>, chosen: &[usize]) -> f64 {
    let (mut noise, mut signal, mut sum) = (noise.clone(), signal.clone(), 0.0);
    for &i in chosen {
        let (s, t) = (noise[[i, i]], signal[[i, i]]);
        sum += t / s;
        let c = noise.column(i).mapv(|x| x / s);
        let (row, of_signal) = (noise.row(i).to_owned(), signal.row(i).to_owned());
        for ((a, b), x) in signal.indexed_iter_mut() {
            *x += t * c[a] * c[b] - c[a] * of_signal[b] - of_signal[a] * c[b];
        }
        noise.indexed_iter_mut().for_each(|((a, b), x)| *x -= c[a] * row[b]);
    }
    sum
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::kernels::random::uniform;

    fn moment(n: usize, tokens: usize, random: &mut ChaCha20Rng) -> Array2<f64> {
        let x = Array2::from_shape_simple_fn((tokens, n), || uniform(random) - 0.5);
        x.t().dot(&x)
    }

    #[test]
    fn the_ratio_decides_and_what_is_explained_counts_once() {
        let unit = Array2::eye(3);
        assert_eq!(order(unit.clone(), Array2::from_diag(&array![1.0, 3.0, 2.0]), 3), [1, 2, 0]);
        assert_eq!(order(Array2::from_diag(&array![1.0, 8.0, 2.0]), unit.clone(), 2), [0, 2]);
        // The first two are the same column: after one of them, the other has nothing left.
        let (noise, signal) = (
            array![[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            array![[5.0, 5.0, 0.0], [5.0, 5.0, 0.0], [0.0, 0.0, 1.0]],
        );
        let ridge = &noise + &(unit.clone() * 1e-3);
        assert_eq!(order(ridge, signal, 2), [0, 2]);
        assert_eq!(order(unit.clone(), Array2::zeros((3, 3)), 3), [0usize; 0], "no signal");
        assert_eq!(order(unit.clone(), unit, 2), [0, 1], "the first of equal ones");
    }

    #[test]
    fn the_sum_of_ratios_is_that_of_the_definition() {
        let mut random = ChaCha20Rng::seed_from_u64(1);
        let (noise, signal) = (moment(12, 40, &mut random), moment(12, 40, &mut random));
        let chosen = order(noise.clone(), signal.clone(), 5);
        // tr(S_JJ^-1 T_JJ) does not depend on the order of J, and a greedy choice has more than most.
        let mut turned = chosen.clone();
        turned.reverse();
        let [a, b] = [&chosen, &turned].map(|chosen| explained(&noise, &signal, chosen));
        assert!((a - b).abs() < 1e-9 * a, "{a} {b}");
        assert!(a > explained(&noise, &signal, &[0, 1, 2, 3, 4]));
        assert_eq!(order(noise, signal, 99).len(), 12);
    }
}
