//! Which options decide what a run of `curmerge build` gives: a checkpoint of other ones is not gone on with.

use std::collections::BTreeMap;

use curmerge_formats::adapter::Adapter;
use curmerge_formats::sha256_hex;

use super::{BuildArgs, examples_a_step};
use crate::base::Base;
use crate::cur::fingerprint;
use crate::train::checkpoint::Identity;
use crate::train::data::Dataset;
use crate::{Error, Result};

/// The run's. Whatever is added to [`BuildArgs`] and changes a byte of the adapter belongs here.
pub(super) fn of(
    args: &BuildArgs,
    base: &Base,
    adapter: &Adapter,
    data: &Dataset,
    valid: Option<&Dataset>,
) -> Result<Identity> {
    let none = || "none".to_owned();
    let number = |value: Option<u64>| value.map_or_else(none, |value| value.to_string());
    let digest = |sha256: &str| format!("SHA-256 {sha256}");
    let init = match &args.init {
        Some(path) => {
            digest(&sha256_hex(&std::fs::read(path).map_err(|e| Error::io(path, "read the adapter", e))?))
        }
        None => none(),
    };
    let settings = [
        ("base", format!("{} ({}, {})", base.name(), base.architecture().name, base.container())),
        ("--data", digest(&data.sha256)),
        ("--valid", valid.map_or_else(none, |valid| digest(&valid.sha256))),
        ("--init", init),
        ("--rank", adapter.rank.to_string()),
        ("--select", adapter.selection.clone()),
        ("--scale", adapter.scale.to_string()),
        ("--seed", args.selection.seed.to_string()),
        ("--epochs", args.epochs.to_string()),
        ("--max-steps", number(args.max_steps)),
        ("--batch-size times --grad-accum", examples_a_step(args).to_string()),
        ("--lr", args.lr.to_string()),
        ("--weight-decay", args.weight_decay.to_string()),
        ("--shrink", args.shrink.to_string()),
        ("--clip", args.clip.to_string()),
        ("--max-seq-len", args.max_seq_len.to_string()),
        ("--append-eos", args.append_eos.to_string()),
        ("--precision", format!("{:?}", args.compute.precision).to_lowercase()),
        ("--memory", args.memory.to_string()),
        ("--valid-every", number(args.valid_every)),
        ("--patience", number(args.patience)),
    ];
    let shape = |target: &curmerge_formats::AdapterTarget| (target.cols.len(), target.rows.len());
    Ok(Identity {
        settings: settings.map(|(option, value)| (option.to_owned(), value)).into(),
        base: base_digests(base, adapter, args.init.is_some()),
        trained: adapter.targets.iter().map(|target| (target.name.clone(), shape(target))).collect(),
    })
}

/// A new adapter holds the digest of every tensor of the base already; one that was begun with may be of another container.
fn base_digests(base: &Base, adapter: &Adapter, init: bool) -> BTreeMap<String, String> {
    if init {
        return fingerprint::base_info(base, &[]).other_tensors;
    }
    let targets = adapter.targets.iter().map(|target| (target.name.clone(), target.stored_sha256.clone()));
    adapter.base.other_tensors.clone().into_iter().chain(targets).collect()
}
