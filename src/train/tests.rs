//! Runs on a share of the data.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::data::{DataOptions, Dataset, Share};
use super::{TrainOptions, Trainer, train};
use crate::base::Base;
use crate::cur::{self, Selection};
use crate::model::Transformer;

#[test]
fn a_share_of_the_data_trains_the_same_as_the_whole() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo");
    let base = Base::open(demo.join("model.gguf")).unwrap();
    let names = base.targets("q", None).unwrap();
    let targets = cur::new_targets(&base, &names, 2, Selection::Reference, 0).unwrap();
    let file = [demo.join("train.jsonl")];
    let tokenizer = base.tokenizer().unwrap();
    let data = DataOptions::default();
    let mut whole = Dataset::read_all(&file, &tokenizer, None, &data).unwrap();
    let held_out = whole.hold_out(5);
    let options = TrainOptions { max_steps: Some(4), batch_size: 3, seed: 9, ..Default::default() };
    let none = |_: usize| Ok(5);
    let share = Share { trained: 12, seed: 9, max_rows: None, held_out: &none };
    let (share, held) = Dataset::read_share(&file, &tokenizer, None, &data, share).unwrap().unwrap();
    assert!(share.examples.len() == 12 && whole.examples.len() > 12);
    let trained = |data: &Dataset, valid: &Dataset| {
        let mut model = Transformer::new(&base).unwrap();
        model.attach(&targets, 1.0).unwrap();
        let trainer = Trainer::new(&mut model, data, Some(valid), &options).unwrap();
        let report = train(trainer, &AtomicBool::new(false), &mut Vec::new()).unwrap();
        let matrices: Vec<_> = model.trainable_mut().iter().map(|u| (*u).clone()).collect();
        (matrices, report.progress.losses, report.progress.validation)
    };
    assert_eq!(trained(&whole, &held_out), trained(&share, &held.unwrap()));
}
