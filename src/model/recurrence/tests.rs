//! The chunked rules against the rules token by token, and gradients against finite differences.

use ndarray::{Array2, s};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::chunk::HeadInputs;
use super::{Heads, Rule};
use crate::model::attention::SequenceRows;
use crate::model::convolution::CausalConvolution;
use crate::model::tests::uniform;

const KEY: usize = 5;
const VALUE: usize = 7;
const RULES: [Rule; 2] = [Rule::Delta, Rule::Decay];

/// Numbers between -1 and 1.
fn random(stream: &mut ChaCha20Rng, shape: (usize, usize)) -> Array2<f64> {
    Array2::from_shape_simple_fn(shape, || f64::from(uniform(stream)))
}

/// What a head reads, and the state before.
#[derive(Clone)]
struct Inputs {
    q: Array2<f64>,
    k: Array2<f64>,
    v: Array2<f64>,
    g: Vec<f64>,
    beta: Vec<f64>,
    state: Array2<f64>,
}

impl Inputs {
    fn random(tokens: usize) -> Self {
        let mut stream = ChaCha20Rng::seed_from_u64(5);
        let [q, k] = [0, 1].map(|_| random(&mut stream, (tokens, KEY)) / (KEY as f64).sqrt());
        let v = random(&mut stream, (tokens, VALUE));
        let g = (0..tokens).map(|_| -0.2 * f64::from(uniform(&mut stream)).abs()).collect();
        let beta = (0..tokens).map(|_| f64::from(uniform(&mut stream)).abs()).collect();
        Self { q, k, v, g, beta, state: random(&mut stream, (KEY, VALUE)) }
    }

    fn head(&self) -> HeadInputs<f64> {
        let Self { q, k, v, g, beta, .. } = self.clone();
        HeadInputs { q, k, v, g, beta }
    }

    fn chunked(&self, rule: Rule) -> (Array2<f64>, Array2<f64>) {
        let (mut out, mut state) = (Array2::zeros((self.g.len(), VALUE)), self.state.clone());
        one_head(rule).forward(&self.head(), &mut state, Some(out.view_mut()));
        (out, state)
    }

    /// S = e^g S; S += beta k (v - S^T k)^T, or S += beta k v^T; o = S^T q.
    fn by_the_rule(&self, rule: Rule) -> (Array2<f64>, Array2<f64>) {
        let (mut out, mut state) = (Array2::zeros((self.g.len(), VALUE)), self.state.clone());
        for t in 0..self.g.len() {
            state *= self.g[t].exp();
            let given = state.t().dot(&self.k.row(t)) * if rule == Rule::Delta { 1.0 } else { 0.0 };
            let correction = (&self.v.row(t) - &given) * self.beta[t];
            for (mut row, &k) in state.rows_mut().into_iter().zip(self.k.row(t)) {
                row.scaled_add(k, &correction);
            }
            out.row_mut(t).assign(&state.t().dot(&self.q.row(t)));
        }
        (out, state)
    }
}

fn one_head(rule: Rule) -> Heads {
    Heads { rule, columns: Vec::new(), key_dim: KEY, value_dim: VALUE }
}

fn near(a: &Array2<f64>, b: &Array2<f64>) -> bool {
    a.dim() == b.dim() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
}

#[test]
fn chunks_give_what_the_rule_gives() {
    for (rule, tokens) in
        RULES.into_iter().flat_map(|rule| [1, 2, 63, 64, 65, 150].map(|tokens| (rule, tokens)))
    {
        let inputs = Inputs::random(tokens);
        let ((out, state), (right, after)) = (inputs.chunked(rule), inputs.by_the_rule(rule));
        assert!(near(&out, &right) && near(&state, &after), "{rule:?} {tokens}");
    }
}

#[test]
fn gradients_of_the_rule_equal_finite_differences() {
    // The loss weighs outputs and the last state.
    let loss = |rule: Rule, inputs: &Inputs, by: &Inputs| {
        let (out, state) = inputs.chunked(rule);
        (&out * &by.v).sum() + (&state * &by.state).sum()
    };
    for (rule, tokens) in RULES.into_iter().flat_map(|rule| [(rule, 3), (rule, 70)]) {
        let inputs = Inputs::random(tokens);
        let mut by = Inputs::random(tokens);
        by.v *= 0.7;
        let state = inputs.state.clone();
        let found = one_head(rule).head_backward(&inputs.head(), state, by.v.view(), Some(by.state.clone()));
        let slope = |change: &dyn Fn(&mut Inputs, f64)| {
            let shifted = |step: f64| {
                let mut shifted = inputs.clone();
                change(&mut shifted, step);
                loss(rule, &shifted, &by)
            };
            (shifted(1e-5) - shifted(-1e-5)) / 2e-5
        };
        for t in [0, 1, tokens / 2, tokens - 1] {
            let pairs = [
                (found.q[[t, 2]], slope(&|x, step| x.q[[t, 2]] += step)),
                (found.k[[t, 3]], slope(&|x, step| x.k[[t, 3]] += step)),
                (found.v[[t, 6]], slope(&|x, step| x.v[[t, 6]] += step)),
                (found.g[t], slope(&|x, step| x.g[t] += step)),
                (found.beta[t], slope(&|x, step| x.beta[t] += step)),
                (found.state[[t % KEY, 1]], slope(&|x, step| x.state[[t % KEY, 1]] += step)),
            ];
            for (i, (found, right)) in pairs.into_iter().enumerate() {
                assert!(
                    (found - right).abs() < 1e-8,
                    "{rule:?}, {tokens} tokens, at {t}, number {i}: {found} {right}"
                );
            }
        }
    }
}

#[test]
fn a_convolution_reads_the_prefix_and_no_other_sequence() {
    let mut stream = ChaCha20Rng::seed_from_u64(6);
    let convolution = CausalConvolution { weight: random(&mut stream, (4, 3)), bias: None };
    let rows = |prefix, own: std::ops::Range<usize>| SequenceRows { queries: own.clone(), prefix, own };
    // Two sequences that follow the first, and one alone.
    let sequences = [rows(0..0, 0..5), rows(0..5, 5..7), rows(0..5, 7..12), rows(0..0, 12..14)];
    let x = random(&mut stream, (14, 3));
    let y = convolution.forward(x.view(), &sequences);
    for sequence in &sequences {
        let sources: Vec<usize> = sequence.prefix.clone().chain(sequence.own.clone()).collect();
        for (place, &row) in sources.iter().enumerate().skip(sequence.prefix.len()) {
            let mut right = ndarray::Array1::<f64>::zeros(3);
            for tap in 0..4 {
                if let Some(source) = (place + tap).checked_sub(3) {
                    right += &(&x.row(sources[source]) * &convolution.weight.row(tap));
                }
            }
            assert!((&y.row(row) - &right).iter().all(|d| d.abs() < 1e-14), "row {row}");
        }
    }
    // It is linear, so its backward pass is its transpose.
    let dy = random(&mut stream, (14, 3));
    let dx = convolution.backward(dy.view(), 14, &sequences);
    assert!(((&dy * &y).sum() - (&dx * &x).sum()).abs() < 1e-12);
    assert!(dx.slice(s![..5, ..]).iter().all(|d| *d != 0.0));
}
