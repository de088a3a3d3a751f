//! LoRAs combined as PEFT combines them: fixtures/combine/make.py asked it.

use std::collections::BTreeSet;

use curmerge::combine::{Combination, CombineOptions, MajoritySign};
use curmerge::lora::Lora;
use curmerge::merge::Source;
use curmerge_formats::SafeTensors;
use serde_json::Value;

use super::{base, lora, product};
use crate::support::families::CONTAINERS;
use crate::support::fixture;
use crate::support::goldens::error;

fn goldens() -> (Value, SafeTensors) {
    let json =
        serde_json::from_slice(&std::fs::read(fixture::path("combine/goldens.json")).unwrap()).unwrap();
    (json, SafeTensors::open(&fixture::path("combine/goldens.safetensors")).unwrap())
}

fn options(case: &Value, seed: u64) -> CombineOptions {
    let way = case["combination_type"].as_str().unwrap();
    let sign = case["majority_sign_method"].as_str().unwrap_or("total");
    CombineOptions {
        combination: *Combination::ALL.iter().find(|c| c.name() == way).unwrap(),
        density: case["density"].as_f64(),
        majority_sign: *MajoritySign::ALL.iter().find(|m| m.name() == sign).unwrap(),
        svd_rank: case["svd_rank"].as_u64().map(|rank| rank as usize),
        svd_clamp: None,
        seed,
    }
}

/// Every way of PEFT, on the same adapters and with the same draws, gives the same numbers.
#[test]
fn every_way_agrees_with_peft() {
    let (json, tensors) = goldens();
    let seed = json["seed"].as_u64().unwrap();
    let mut seen = BTreeSet::new();
    for container in CONTAINERS {
        let base = base(container);
        for (case, settings) in json["cases"].as_object().unwrap() {
            let options = options(settings, seed);
            seen.insert(options.combination.name());
            let weights = settings["weights"].as_array().unwrap();
            let open =
                |w: &Value| Lora::open(fixture::path("combine").join(w[0].as_str().unwrap()), &base).unwrap();
            let loras: Vec<Lora> = weights.iter().map(open).collect();
            let weights = weights.iter().map(|w| w[1].as_f64().unwrap() as f32);
            let sources: Vec<_> = loras.iter().map(Source::Lora).zip(weights).collect();
            let found = lora(&base, &sources, &options);
            assert_eq!(found.options.scale(), 1.0);
            let golden = |name: &str| -> Option<Vec<f64>> {
                let tensor = tensors.tensor(&format!("{case}/{name}"))?;
                let bytes = tensors.data(tensor);
                let numbers = bytes.as_chunks::<4>().0.iter().map(|&x| f64::from(f32::from_le_bytes(x)));
                Some(numbers.collect())
            };
            let mut compared = 0;
            for target in &found.targets {
                let wide = |x: &ndarray::Array2<f32>| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let parts = [
                    ("A", wide(&target.a)),
                    ("B", wide(&target.b)),
                    ("BA", product(target, 1.0).into_iter().collect()),
                ];
                for (part, numbers) in parts {
                    let Some(right) = golden(&format!("{}.{part}", target.name)) else { continue };
                    let off = error(numbers, &right);
                    // torch's SVD is one of f32.
                    let most = if part == "BA" { 1e-5 } else { 1e-6 };
                    assert!(off < most, "{case} {} {part} {container:?}: {off:.1e}", target.name);
                    compared += 1;
                }
            }
            let all = tensors.tensors().iter().filter(|t| t.name.starts_with(&format!("{case}/"))).count();
            assert_eq!(compared, all, "{case}");
        }
    }
    assert_eq!(seen.len(), Combination::ALL.len());
}
