//! `--select signal`: columns and rows chosen on the task's examples and the model's own texts.

use super::anchor::AnchorTexts;
use super::arguments::{SIGNAL, SelectionArgs};
use super::report::progress;
use crate::Result;
use crate::cur::adapter_of;
use crate::model::Transformer;
use crate::train::data::Dataset;
use crate::train::signal::{self, Diagonals, Orders, SignalOptions, SignalSelection};
use curmerge_formats::adapter::Adapter;

/// A new adapter of the texts' base. `model` has no terms.
pub fn adapter(
    args: &SelectionArgs,
    model: &mut Transformer<'_, f32>,
    texts: &AnchorTexts<'_>,
    data: &Dataset,
) -> Result<Adapter> {
    let (base, kept) = (texts.base, texts.kept);
    let names = base.targets(&args.targets, args.layers.clone())?;
    // Before the texts are written.
    let usable = signal::usable(base, &names, args.rank())?;
    let anchor = texts.get(model)?;
    let options = SignalOptions::new(args.rank(), args.seed, texts.memory);
    let selection = SignalSelection::new(base, model, (&names, usable), (anchor, data), options)?;
    let [text_count, examples] = selection.lengths();
    let bar = progress::bar("choosing columns and rows", (2 * (text_count + examples)) as u64);
    let key = |kind, digest: &dyn Fn() -> String| kept.key(kind, model).map(|key| key.with("of", digest()));
    let orders = kept.result(
        key("signal", &|| selection.sha256()),
        |file| Orders::restore(file, selection.shapes(), args.rank() as usize),
        || {
            let noise = kept.result(
                key("noise", &|| selection.noise_sha256()),
                |file| Diagonals::restore(file, selection.shapes()),
                || selection.noise(|done| bar.set_position(done as u64)),
            )?;
            selection.orders(&noise, |done| bar.set_position((text_count + done) as u64))
        },
    )?;
    bar.finish_and_clear();
    let indices = names.iter().cloned().zip(orders.indices(args.rank())).collect();
    adapter_of(base, indices, args.rank(), SIGNAL, args.seed)
}
