//! AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) and gradient clipping over the matrices U.

use ndarray::{Array2, Zip};

/// Constants of the optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the running mean of gradients. Default: 0.9.
    pub beta1: f32,
    /// Decay of the running mean of squared gradients. Default: 0.999.
    pub beta2: f32,
    /// Added to the root of the squared gradients. Default: 1e-8.
    pub eps: f32,
    /// Share of U that a step subtracts, times the learning rate. Default: 0.
    pub weight_decay: f32,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// The running means of every matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    options: AdamWOptions,
    steps: i32,
    means: Vec<Means>,
}

/// The running means of one matrix, of its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Means {
    /// Of the gradients.
    pub mean: Array2<f32>,
    /// Of the squared gradients.
    pub square: Array2<f32>,
}

impl AdamW {
    /// The initial state for matrices of these shapes `[c, r]`.
    pub fn new(options: AdamWOptions, shapes: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let zeros = |shape| Means { mean: Array2::zeros(shape), square: Array2::zeros(shape) };
        Self::after(options, 0, shapes.into_iter().map(zeros).collect())
    }

    /// The state after `steps` steps.
    pub fn after(options: AdamWOptions, steps: i32, means: Vec<Means>) -> Self {
        Self { options, steps, means }
    }

    /// The running means, in the order of the shapes given to [`Self::new`].
    pub fn means(&self) -> &[Means] {
        &self.means
    }

    /// Takes one step along `gradients`, in the order of the shapes given to [`Self::new`].
    pub fn step(&mut self, matrices: Vec<&mut Array2<f32>>, gradients: &[Array2<f32>], learning_rate: f32) {
        self.steps += 1;
        let AdamWOptions { beta1, beta2, eps, weight_decay } = self.options;
        let (correction1, correction2) = (1.0 - beta1.powi(self.steps), 1.0 - beta2.powi(self.steps));
        for ((u, g), Means { mean, square }) in matrices.into_iter().zip(gradients).zip(&mut self.means) {
            Zip::from(u).and(g).and(mean).and(square).for_each(|u, &g, mean, square| {
                *mean = beta1 * *mean + (1.0 - beta1) * g;
                *square = beta2 * *square + (1.0 - beta2) * g * g;
                let step = (*mean / correction1) / ((*square / correction2).sqrt() + eps);
                *u -= learning_rate * (step + weight_decay * *u);
            });
        }
    }
}

/// Scales all gradients so that their joint Euclidean norm is at most `limit`. Returns the norm before.
pub fn clip(gradients: &mut [Array2<f32>], limit: f64) -> f64 {
    let square: f64 = gradients.iter().flatten().map(|&g| f64::from(g) * f64::from(g)).sum();
    let norm = square.sqrt();
    if norm > limit {
        let factor = (limit / norm) as f32;
        gradients.iter_mut().for_each(|g| *g *= factor);
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn steps_are_those_of_torch() {
        // torch.optim.AdamW([[1., -2.]], lr=0.1, weight_decay=0.01), gradients [[0.5, -1.]] then [[0.25,
        // 2.]].
        let mut u = array![[1.0f32, -2.0]];
        let options = AdamWOptions { weight_decay: 0.01, ..Default::default() };
        let mut adam = AdamW::new(options, [(1, 2)]);
        for g in [array![[0.5f32, -1.0]], array![[0.25, 2.0]]] {
            adam.step(vec![&mut u], &[g], 0.1);
        }
        let torch = [0.804_883_06_f32, -1.932_712_4];
        for (u, t) in u.iter().zip(torch) {
            assert!((u - t).abs() < 1e-6, "{u} {t}");
        }
    }

    #[test]
    fn clipping_keeps_the_direction() {
        let mut gradients = vec![array![[3.0f32]], array![[4.0f32]]];
        assert_eq!(clip(&mut gradients, 1.0), 5.0);
        assert!((gradients[0][[0, 0]] - 0.6).abs() < 1e-7 && (gradients[1][[0, 0]] - 0.8).abs() < 1e-7);
        assert!((clip(&mut gradients, 2.0) - 1.0).abs() < 1e-7);
    }
}
