//! The model card of a merge.

use super::{MergeOptions, Source, Storage};
use crate::Result;
use crate::base::Base;
use crate::card::{self, Card, Kind, Record};

/// The text of the card of a folder with this merge.
///
/// # Errors
/// A card of the base that cannot be read.
pub(crate) fn text(
    kind: Kind,
    base: &Base,
    sources: &[(Source<'_>, f32)],
    options: &MergeOptions<'_>,
) -> Result<String> {
    let adapters = sources.iter().map(|(source, factor)| {
        let mut record = match source {
            Source::Cur(adapter) => card::of_adapter(adapter),
            Source::Lora(lora) => {
                let own = [
                    ("Method", "LoRA: W + s B A".to_owned()),
                    ("Matrices", lora.targets().count().to_string()),
                ];
                Record::from(own)
            }
            Source::Trained(lora) => {
                let own =
                    [("Method", "LoRA: W + B A".to_owned()), ("Matrices", lora.targets.len().to_string())];
                own.into_iter().chain(lora.record.iter().cloned()).collect()
            }
        };
        record.push(("Factor of its change", factor.to_string()));
        record
    });
    let mut settings = Record::new();
    settings.extend(options.file_type.map(|file_type| ("Types of all tensors", file_type.to_string())));
    let of_changed = match options.storage {
        Storage::AsStored if options.file_type.is_some() => None,
        Storage::AsStored => Some("those of the base".to_owned()),
        Storage::Only(dtype) => Some(dtype.to_string()),
        Storage::Narrowest { fidelity } => Some(format!("the narrowest with a fidelity of {fidelity}")),
    };
    settings.extend(of_changed.map(|types| ("Types of the changed tensors", types)));
    Card { kind, base, settings, adapters: adapters.collect() }.text()
}
