//! What a card says of an adapter: names and values, one line each.

use curmerge_formats::adapter::{Adapter, Training};

/// Names and values, in the order in which a card has them.
pub type Record = Vec<(&'static str, String)>;

/// How an adapter was trained.
pub fn of_training(training: &Training) -> Record {
    let mut record = vec![
        ("Data, SHA-256", training.data_sha256.clone()),
        ("Examples", training.examples.to_string()),
        ("Tokens at which examples are cut", training.max_seq_len.to_string()),
        ("Steps", format!("{} of {} planned", training.steps, training.planned_steps)),
        ("Examples a step", training.batch_size.to_string()),
        ("Optimizer", format!("{}, learning rate {}", training.optimizer, training.learning_rate)),
        ("Loss at the last step", format!("{:.4} nats a token", training.final_loss)),
    ];
    let valid =
        training.valid_loss.map(|loss| ("Loss on held-out examples", format!("{loss:.4} nats a token")));
    record.extend(valid);
    record.extend(training.protection.clone().map(|protection| ("Kept from forgetting by", protection)));
    record
}

/// An adapter of curmerge's own.
pub fn of_adapter(adapter: &Adapter) -> Record {
    let mut record = vec![
        ("Method", "CURLoRA: W + s C U R".to_owned()),
        ("Matrices", adapter.targets.len().to_string()),
        ("Rank", adapter.rank.to_string()),
        ("Scale", adapter.scale.to_string()),
        ("Selection of columns and rows", format!("{}, seed {}", adapter.selection, adapter.seed)),
    ];
    record.extend(adapter.training.iter().flat_map(of_training));
    record
}
