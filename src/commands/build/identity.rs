//! What decides the result of a run of `curmerge build`. Only a run with the same identity resumes its
//! checkpoint.

use std::collections::BTreeMap;
use std::path::PathBuf;

use curmerge_formats::{input, sha256_hex};

use super::BuildArgs;
use super::examples::Examples;
use super::method::Trainee;
use crate::base::Base;
use crate::cur::fingerprint;
use crate::lora::Lora;
use crate::train::checkpoint::Identity;
use crate::{Error, Result};

/// The identity of the run: its options, the digests of its files and of its base. Its anchor has this many
/// texts.
pub(super) fn of(
    args: &BuildArgs,
    base: &Base,
    trainee: &Trainee,
    Examples { data, valid, held_out }: &Examples,
    texts: usize,
) -> Result<Identity> {
    let none = || "none".to_owned();
    let mut settings = settings(args, trainee, texts)?;
    settings.extend([
        ("base", format!("{} ({}, {})", base.name(), base.architecture().name, base.container())),
        ("--data", digest(&data.sha256)),
        ("--valid", valid.as_ref().filter(|_| !held_out).map_or_else(none, |valid| digest(&valid.sha256))),
        ("--init", init(args)?.unwrap_or_else(none)),
    ]);
    let given = base.given_chat();
    for (option, text) in [("--chat-template", &given.template), ("--system", &given.system)] {
        let text = text.as_ref().map(|text| digest(&sha256_hex(text.as_bytes())));
        settings.extend(text.map(|text| (option, text)));
    }
    let columns = args.examples.columns.columns();
    if !columns.is_usual() {
        settings.push(("columns", format!("{columns:?}")));
    }
    if *held_out {
        // A run that trains on all examples has the settings of earlier checkpoints.
        settings.push(("--no-hold-out", "false".to_owned()));
    }
    Ok(Identity {
        settings: settings.into_iter().map(|(option, value)| (option.to_owned(), value)).collect(),
        base: base_digests(base, trainee, args.training.init.is_some()),
        trained: trainee.matrices(),
    })
}

/// The options that decide the result, but for files and texts.
pub(super) fn settings(
    args: &BuildArgs,
    trainee: &Trainee,
    texts: usize,
) -> Result<Vec<(&'static str, String)>> {
    let mut settings = args.training.settings((args.learning_rate(), args.clip()));
    settings.extend(args.protection.settings(texts)?);
    settings.extend(trainee.settings());
    settings.extend([
        ("--seed", args.selection.seed.to_string()),
        ("--max-seq-len", args.examples.max_seq_len.to_string()),
        ("--append-eos", (!args.examples.no_append_eos).to_string()),
        ("--precision", args.compute.precision().name().to_owned()),
    ]);
    Ok(settings)
}

/// The digest of the adapter that `--init` names.
pub(super) fn init(args: &BuildArgs) -> Result<Option<String>> {
    let Some(path) = &args.training.init else { return Ok(None) };
    let read =
        |file: PathBuf| input::read(&file, u64::MAX).map_err(|e| Error::io(&file, "read the adapter", e));
    let files: Vec<Vec<u8>> = Lora::files(path).into_iter().map(read).collect::<Result<_>>()?;
    Ok(Some(digest(&sha256_hex(&files.concat()))))
}

fn digest(sha256: &str) -> String {
    format!("SHA-256 {sha256}")
}

/// The digests of the base's tensors. A new adapter has them all; one that `--init` names may come from
/// another container, and a LoRA has none.
fn base_digests(base: &Base, trainee: &Trainee, init: bool) -> BTreeMap<String, String> {
    match trainee {
        Trainee::Cur(adapter) if !init => {
            let targets =
                adapter.targets.iter().map(|target| (target.name.clone(), target.stored_sha256.clone()));
            adapter.base.other_tensors.clone().into_iter().chain(targets).collect()
        }
        _ => fingerprint::base_info(base, &[]).other_tensors,
    }
}
