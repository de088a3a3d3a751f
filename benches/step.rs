//! Forward and backward pass of a training step, 4 x 256 random tokens, beside what its products alone could do:
//!
//!     cargo bench --bench step -- MODEL.gguf [f32|bf16]...
//!
//! The loss falls on every token, U stands on q, k and v with rank 16: the work of a LoRA on q, k and v in PEFT. Prints the
//! fastest of ten steps, since other work on the machine only slows them.

use std::time::Instant;

use clap::ValueEnum;
use curmerge::base::Base;
use curmerge::cur::{Selection, binding};
use curmerge::kernels::Precision;
use curmerge::model::{Batch, Transformer};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const SEQUENCES: usize = 4;
const LENGTH: usize = 256;
const STEPS: usize = 10;

fn main() -> curmerge::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let Some((path, precisions)) = arguments.split_first() else {
        println!("give a model: cargo bench --bench step -- MODEL.gguf [f32|bf16]...");
        return Ok(());
    };
    let pool = rayon::ThreadPoolBuilder::new().use_current_thread();
    pool.build_global().expect("the first pool of this process");
    let base = Base::open(std::path::Path::new(path))?;
    let targets = binding::prepare(&base, &base.targets("q,k,v", None)?, 16, Selection::Reference, 0)?;
    let mut stream = ChaCha20Rng::seed_from_u64(0);
    let mut batch = Batch::default();
    for _ in 0..SEQUENCES {
        // One more than goes through the model: the last is only predicted.
        let tokens: Vec<u32> = (0..=LENGTH).map(|_| stream.next_u32() % base.config().vocab as u32).collect();
        batch.push(&tokens, &[true; LENGTH + 1]);
    }
    let chosen = Precision::value_variants().iter().filter(|p| {
        let name = p.to_possible_value().expect("every precision has a name");
        precisions.is_empty() || precisions.iter().any(|given| given == name.get_name())
    });
    for &precision in chosen {
        let mut model = Transformer::<f32>::new(&base)?.with_precision(precision);
        model.attach(&targets, 1.0)?;
        let step = || {
            let start = Instant::now();
            model.gradients(&batch, 1.0 / (SEQUENCES * LENGTH) as f64);
            start.elapsed().as_secs_f64()
        };
        let mut times: Vec<f64> = (0..STEPS).map(|_| step()).collect();
        times.sort_by(f64::total_cmp);
        let rate = |seconds: f64| (SEQUENCES * LENGTH) as f64 / seconds;
        println!(
            "{precision:?}: {:.0} tokens/s at best, {:.0} in the median step",
            rate(times[0]),
            rate(times[STEPS / 2])
        );
    }
    Ok(())
}
