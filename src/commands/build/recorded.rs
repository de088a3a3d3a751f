//! What an adapter records of its run: the options that decide the result, as a file that `--config` reads.
//!
//! It holds what was in effect, also where the run chose it. It names no file, since a path says nothing elsewhere: the
//! data has its digest in the adapter's record, and other files have theirs in a comment. Options that do not change the
//! result are not in it, so that they do not change the adapter's bytes.

use clap::ValueEnum;
use curmerge_formats::sha256_hex;

use super::BuildArgs;
use super::identity;
use super::method::Trainee;
use crate::Result;
use crate::base::Base;
use crate::commands::anchor::AnchorSource;
use crate::commands::recipe::{quoted, value};

/// The recipe of a run with an anchor of this many texts.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn recipe(args: &BuildArgs, base: &Base, trainee: &Trainee, texts: usize) -> Result<String> {
    let mut keys: Vec<(String, String)> = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    let name = |choice: Option<clap::builder::PossibleValue>| {
        choice.map_or(String::new(), |choice| quoted(choice.get_name()))
    };
    keys.push(("method".into(), name(args.method.method.to_possible_value())));
    keys.push(("protect".into(), name(args.protection.protect().to_possible_value())));
    if args.training.init.is_none() {
        keys.push(("targets".into(), quoted(&args.selection.targets)));
        let layers = args.selection.layers.as_ref();
        keys.extend(layers.map(|all| ("layers".into(), quoted(&format!("{}-{}", all.start(), all.end())))));
    }
    for (option, text) in identity::settings(args, trainee, texts)? {
        let key = option.trim_start_matches("--");
        match key {
            // It does not change the result.
            "memory" => {}
            _ if text == "none" => {}
            // Those of the adapter that is trained further.
            "rank" | "select" | "scale" if args.training.init.is_some() => {}
            "batch-size times --grad-accum" => keys.push(("batch-size".into(), value(&text))),
            "anchor" if args.protection.anchor.file().is_some() => {
                notes.push(format!("# anchor: a file with {text}\n"));
            }
            "append-eos" if text == "true" => {}
            "append-eos" => keys.push(("no-append-eos".into(), "true".into())),
            "anchor" | "protect" => {}
            _ => keys.push((key.to_owned(), value(&text))),
        }
    }
    match args.protection.anchor.anchor {
        AnchorSource::Written => keys.push(("anchor".into(), quoted("self"))),
        AnchorSource::None => keys.push(("anchor".into(), quoted("none"))),
        AnchorSource::File(_) => {}
    }
    let columns = args.examples.columns.given();
    keys.extend(columns.into_iter().map(|(key, text)| (key.to_owned(), quoted(&text))));
    // Without its file, nothing may be held out in its place.
    let validated = args.training.valid.is_some();
    if validated {
        notes.push("# valid: a file, which --valid must name for --patience\n".into());
    }
    let no_hold_out = args.training.no_hold_out || validated;
    let flags = [("keep-fisher", args.protection.keep_fisher), ("no-hold-out", no_hold_out)];
    keys.extend(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| ((*flag).to_owned(), "true".into())));
    let given = base.given_chat();
    keys.extend(given.system.as_ref().map(|system| ("system".into(), quoted(system))));
    if let Some(template) = &given.template {
        notes.push(format!("# chat-template: one with SHA-256 {}\n", sha256_hex(template.as_bytes())));
    }
    if let Some(digest) = identity::init(args)? {
        notes.push(format!("# init: an adapter with {digest}\n"));
    }
    keys.sort();
    let keys: Vec<String> = keys.into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    Ok(format!("[build]\n{}{}", keys.concat(), notes.concat()))
}
