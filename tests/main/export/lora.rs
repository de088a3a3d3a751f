//! The LoRA for llama.cpp: the layout that llama.cpp requires, and that `B A` equals the change `s C U R`.

use curmerge::base::Base;
use curmerge::cur::{Factors, Selection};
use curmerge::export::{Format, export};
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{Gguf, Value};

use crate::support::adapter::Recipe;
use crate::support::tiny;

fn values(gguf: &Gguf, name: &str) -> Vec<f32> {
    let bytes = gguf.data(gguf.tensor(name).unwrap());
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn lora_has_llama_cpps_layout_and_equals_the_change() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("tiny-hf"), folder.path().join("lora.gguf"));
    tiny::write_folder(&path);
    let base = Base::open(&path).unwrap();
    let recipe = Recipe { targets: "q,down", rank: 6, scale: 0.25, selection: Selection::Reference, seed: 0 };
    let adapter = recipe.adapter(&base, |(i, target)| {
        // One target has fewer columns than the adapter's rank.
        target.cols.truncate(6 - 2 * i);
        target.u = (0..target.cols.len() * 6).map(|k| (k % 5) as f32 - 1.5).collect();
    });
    export(&base, &adapter, Format::Gguf, &out, &[], false).unwrap();
    let lora = Gguf::open(&out).unwrap();
    let text = |key| lora.get(key).and_then(|v| v.as_str().map(str::to_string));
    assert_eq!(text("general.type").as_deref(), Some("adapter"));
    assert_eq!(text("general.architecture").as_deref(), Some("llama"));
    assert_eq!(text("adapter.type").as_deref(), Some("lora"));
    assert_eq!(lora.get("adapter.lora.alpha"), Some(&Value::F32(6.0)));
    for target in &adapter.targets {
        let (a_name, b_name) =
            (format!("{}.weight.lora_a", target.name), format!("{}.weight.lora_b", target.name));
        let rank = target.cols.len();
        let [m, n] = target.shape.map(|x| x as usize);
        assert_eq!(lora.tensor(&a_name).unwrap().dims, [n as u64, rank as u64]);
        assert_eq!(lora.tensor(&b_name).unwrap().dims, [rank as u64, m as u64]);
        assert_eq!(lora.tensor(&a_name).unwrap().dtype, DType::F32);
        let (a, b) = (values(&lora, &a_name), values(&lora, &b_name));
        let weight = base.weight(&target.name).unwrap();
        let factors = Factors::of_target(base.path(), &weight, target, adapter.scale).unwrap();
        let mut change = vec![0.0; n];
        for i in 0..m {
            change.fill(0.0);
            factors.add_to_row(i, &mut change);
            for (j, &right) in change.iter().enumerate() {
                let product: f32 = (0..rank).map(|k| b[i * rank + k] * a[k * n + j]).sum();
                // llama.cpp multiplies by alpha / rank.
                let found = product * 6.0 / rank as f32;
                assert!((found - right).abs() < 1e-6, "{} {i} {j}: {found} {right}", target.name);
            }
        }
    }
}
