//! The learning rate over a run: linear warm-up, then half a cosine to zero.

/// A run's learning rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the run.
    pub steps: u64,
}

impl Schedule {
    /// The rate of step `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let done = (step - self.warmup) as f64 / (self.steps - self.warmup).max(1) as f64;
        self.peak * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_and_comes_down() {
        let schedule = Schedule { peak: 1.0, warmup: 4, steps: 20 };
        assert_eq!((schedule.rate(0), schedule.rate(3), schedule.rate(4)), (0.25, 1.0, 1.0));
        assert!((schedule.rate(12) - 0.5).abs() < 1e-12);
        assert!(schedule.rate(19) > 0.0 && schedule.rate(19) < 0.01);
        let short = Schedule { peak: 1.0, warmup: 0, steps: 1 };
        assert_eq!(short.rate(0), 1.0);
    }
}
