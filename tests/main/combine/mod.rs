//! Several adapters combined into one.

mod own;
mod peft;
mod program;

use curmerge::base::Base;
use curmerge::combine::{CombineOptions, Combined, combine};
use curmerge::cur::Factors;
use curmerge::lora::{LoraTarget, TrainedLora};
use curmerge::merge::Source;
use curmerge_formats::adapter::Adapter;
use ndarray::Array2;

use crate::support::families::{Container, Family};

/// The base of these tests: its rows have the same order in both containers.
fn base(container: Container) -> Base {
    Base::open(Family::open("qwen2").path(container)).unwrap()
}

#[track_caller]
fn lora(base: &Base, sources: &[(Source<'_>, f32)], options: &CombineOptions) -> TrainedLora {
    match combine(base, sources, options, |_, _| ()).unwrap() {
        Combined::Lora(lora) => lora,
        Combined::Cur(_) => panic!("an adapter of curmerge"),
    }
}

/// `B A` times `scale`, in f64.
fn product(target: &LoraTarget, scale: f32) -> Array2<f64> {
    f64::from(scale) * target.b.mapv(f64::from).dot(&target.a.mapv(f64::from))
}

/// `s C U R` of one target, in f64.
fn change(base: &Base, adapter: &Adapter, name: &str) -> Array2<f64> {
    let target = adapter.targets.iter().find(|target| target.name == name).unwrap();
    let weight = base.weight(name).unwrap();
    let Factors { c, p, rank, .. } = Factors::of_target(base.path(), &weight, target, adapter.scale).unwrap();
    let c = Array2::from_shape_vec((weight.rows(), rank), c).unwrap();
    let p = Array2::from_shape_vec((rank, weight.cols()), p).unwrap();
    c.mapv(f64::from).dot(&p.mapv(f64::from))
}

fn size(a: &Array2<f64>) -> f64 {
    a.iter().map(|x| x * x).sum::<f64>().sqrt()
}
